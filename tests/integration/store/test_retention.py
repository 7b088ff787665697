import pytest

from bridge.domain.build import DeliveryState
from bridge.domain.changes import set_delivery
from bridge.store.retention import BodyLocation, body_location, release_bodies
from tests.support.ledger import dead, report


async def deliver(ledger):
    """Let every report of the next due build be delivered."""
    visit = await ledger.claimed()
    delivered = [set_delivery(one, state=DeliveryState.DELIVERED) for one in visit.build.deliveries.values()]
    assert await ledger.record(visit.build, *delivered)


async def test_small_reports_are_read_back_from_their_row(ledger, database):
    await ledger.accept(report(body=b"<a>\x00\xff</a>"))
    assert await database.read(body_location, 1) == BodyLocation(body=b"<a>\x00\xff</a>", blob=None)


async def test_bytes_of_a_delivered_report_go_from_its_row(ledger, database):
    await ledger.accept(report())
    await deliver(ledger)
    assert await database.write(release_bodies, 1) is None
    assert await database.read(body_location, 1) == BodyLocation(body=None, blob=None)
    assert not (await ledger.build()).reports[1].has_bytes


async def test_the_blob_of_a_delivered_report_is_handed_out_once_to_be_deleted(ledger, database):
    await ledger.accept(report(blob="2026010100/one"))
    await deliver(ledger)
    assert await database.write(release_bodies, 1) == "2026010100/one"
    assert await database.write(release_bodies, 1) is None


@pytest.mark.parametrize("died", [False, True], ids=["pending", "dead"])
async def test_bytes_that_are_owed_or_may_be_sent_again_stay(ledger, database, died):
    await ledger.accept(report(blob="2026010100/one"))
    if died:
        visit = await ledger.claimed()
        assert await ledger.record(visit.build, dead(visit.build.deliveries[1]))
    before = await database.read(body_location, 1)
    assert await database.write(release_bodies, 1) is None
    assert await database.read(body_location, 1) == before


async def test_bytes_of_other_reports_stay(ledger, database):
    await ledger.accept(report("a"), build_no=1)
    await deliver(ledger)
    await ledger.accept(report("b", b"<b/>"), build_no=2)
    await database.write(release_bodies, 1)
    assert (await database.read(body_location, 2)).body == b"<b/>"
