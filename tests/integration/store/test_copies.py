"""What is owed to the archive beside TestNod: in every ledger."""

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.changes import set_delivery
from bridge.domain.intake import ReportReceipt
from bridge.store.archive.base import copy_of
from bridge.store.retention import BodyRelease, body_location, release_bodies, unlink_dead
from tests.support.fake_clock import START
from tests.support.ledger import report, upload

BOTH = (DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE)
D = DeliveryState


async def accept(ledger, **values):
    """Accept one report that is owed to both; return its receipt."""
    ((receipt,),) = await ledger.accept_together(upload(report(**values), targets=BOTH))
    return receipt


async def become(ledger, target, state):
    """Let the only delivery to a target become something."""
    build = await ledger.build()
    (delivery,) = [each for each in build.deliveries.values() if each.target is target]
    await ledger.record(build, set_delivery(delivery, state=state, delivered_at=START, last_error="no"))


async def states(ledger):
    deliveries = (await ledger.build()).deliveries.values()
    return {delivery.target: delivery.state for delivery in deliveries}


async def test_every_report_is_owed_to_each_target_once(ledger):
    reports = [report(f"{number}.xml") for number in range(100)]
    await ledger.accept_together(upload(*reports, targets=BOTH))
    await ledger.accept_together(upload(*reports, targets=BOTH))
    build = await ledger.build()
    for target in BOTH:
        assert sorted(each.report_id for each in build.pending(target)) == sorted(build.reports)


async def test_without_an_archive_nothing_is_owed_to_it(ledger, database):
    await ledger.accept(report())
    assert await states(ledger) == {DeliveryTarget.TESTNOD: D.PENDING}
    assert await database.read(copy_of, 1) is None


async def test_bytes_stay_until_the_copy_is_kept(ledger, database):
    await accept(ledger)
    await become(ledger, DeliveryTarget.TESTNOD, D.DELIVERED)
    await database.write(release_bodies, BodyRelease(build_id=1, report_id=1, replacements=False))
    assert (await database.read(body_location, 1)).body is not None
    await become(ledger, DeliveryTarget.ARCHIVE, D.DELIVERED)
    await database.write(release_bodies, BodyRelease(build_id=1, report_id=1, replacements=False))
    assert (await database.read(body_location, 1)).body is None


async def test_a_report_that_died_and_comes_again_is_owed_and_so_is_its_copy(ledger):
    await accept(ledger)
    await become(ledger, DeliveryTarget.TESTNOD, D.DEAD)
    assert await accept(ledger) is ReportReceipt.REQUEUED
    assert await states(ledger) == {DeliveryTarget.TESTNOD: D.PENDING, DeliveryTarget.ARCHIVE: D.PENDING}


async def test_a_dead_copy_does_not_make_a_delivered_report_come_again(ledger):
    await accept(ledger)
    await become(ledger, DeliveryTarget.TESTNOD, D.DELIVERED)
    await become(ledger, DeliveryTarget.ARCHIVE, D.DEAD)
    assert await accept(ledger) is ReportReceipt.DUPLICATE
    assert await states(ledger) == {DeliveryTarget.TESTNOD: D.DELIVERED, DeliveryTarget.ARCHIVE: D.DEAD}


async def test_a_copy_of_a_report_whose_bytes_are_given_up_is_given_up_too_and_both_can_come_again(ledger, database):
    await accept(ledger)
    await become(ledger, DeliveryTarget.TESTNOD, D.DEAD)
    assert await database.write(unlink_dead, START + 10**9) == [None]
    assert await states(ledger) == {DeliveryTarget.TESTNOD: D.DEAD, DeliveryTarget.ARCHIVE: D.DEAD}
    assert await accept(ledger) is ReportReceipt.REQUEUED
    assert await states(ledger) == {DeliveryTarget.TESTNOD: D.PENDING, DeliveryTarget.ARCHIVE: D.PENDING}
    assert (await database.read(body_location, 1)).body is not None


async def test_an_entry_says_what_the_ledger_knows_of_the_report(ledger, database):
    await accept(ledger, name="a.xml", body=b"<testsuite/>")
    assert (await database.read(copy_of, 1)).entry is None
    await become(ledger, DeliveryTarget.TESTNOD, D.DELIVERED)
    entry = (await database.read(copy_of, 1)).entry
    assert (entry.name, entry.sent_size, entry.tests, entry.failures) == ("a.xml", 12, 3, 1)
    assert (entry.job_id, entry.build_no, entry.delivered_at) == ("a" * 32, 1, START)
