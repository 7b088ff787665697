"""Blobs without a row after a restore: which become reports again, and which stay where they are."""

from dataclasses import replace

import pytest
from sqlalchemy import select

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.server.upload.spool_recovery import RECOVERED, SpoolRecovery
from bridge.store.blobs.disk import DiskSpool
from bridge.store.schema import deliveries, reports
from tests.support.fake_clock import FakeClock
from tests.support.labels import label
from tests.support.ledger import Ledger, report

REPORT = b'<testsuite name="s"><testcase name="a"/><testcase name="b"><failure/></testcase></testsuite>'
ROUTES = ("shop",)
LATER = "9999010100"  # after every hour of these tests


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    return DiskSpool(folder)


@pytest.fixture
async def ledger(sqlite):
    async with sqlite.fresh(FakeClock()) as database:
        yield Ledger(database)


@pytest.fixture
def recovery(ledger, spool, checker):
    targets = (DeliveryTarget.TESTNOD,)
    return SpoolRecovery(
        database=ledger.database, spool=spool, pool=checker, targets=targets, routes_of=lambda _: ROUTES
    )


async def blob_of(spool, content, **said):
    writer = await spool.create()
    await writer.write(content)
    return await writer.commit(label(content, **said))


async def recovered(ledger):
    return await ledger.rows(select(reports).order_by(reports.c.id))


async def test_a_report_without_a_row_is_recovered_with_its_metadata(recovery, ledger, spool):
    blob = await blob_of(spool, REPORT, name="TEST-a.xml", node_id="linux", caller="nightly")
    assert await recovery.recover(LATER) == (1, 0)
    [row] = await recovered(ledger)
    assert (row.name, row.node_id, row.caller, row.blob, row.body) == ("TEST-a.xml", "linux", "nightly", blob, None)
    assert (row.tests, row.failures) == (2, 1)
    assert RECOVERED in row.notes
    build = await ledger.row()
    assert (build.job_id, build.build_no) == ("a" * 32, 7)
    [delivery] = await ledger.rows(select(deliveries))
    assert (delivery.state, delivery.target) == (DeliveryState.PENDING, DeliveryTarget.TESTNOD)


async def test_a_report_of_a_submitted_build_is_recovered_for_its_route(recovery, ledger, spool):
    await blob_of(spool, REPORT, job_id="shop", build_no="ci-7")
    assert await recovery.recover(LATER) == (1, 0)
    build = await ledger.row()
    assert (build.source, build.key, build.submitted["build_id"]) == ("testnod", "shop/ci-7", "ci-7")


async def test_a_second_recovery_finds_nothing(recovery, ledger, spool):
    await blob_of(spool, REPORT)
    await recovery.recover(LATER)
    assert await recovery.recover(LATER) == (0, 0)
    assert len(await recovered(ledger)) == 1


async def test_what_a_row_names_is_left_alone(recovery, ledger, spool):
    blob = await blob_of(spool, REPORT)
    await ledger.accept(replace(report(), body=None, blob=blob))
    assert await recovery.recover(LATER) == (0, 0)
    assert len(await recovered(ledger)) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>refused</html>", {}),
        (REPORT, {"sent_sha256": "0" * 64}),
        (b"", {}),
    ],
    ids=["no report", "other bytes than stand beside it", "nothing"],
)
async def test_what_is_no_report_or_not_what_it_says_is_left_and_stays(recovery, ledger, spool, content, said):
    blob = await blob_of(spool, content, **said)
    assert await recovery.recover(LATER) == (0, 1)
    assert await recovered(ledger) == []
    assert (spool.folder / blob).exists()


async def test_a_damaged_blob_does_not_prevent_the_recovery_of_others(recovery, ledger, spool):
    first, second = (
        await blob_of(spool, REPORT),
        await blob_of(spool, REPORT.replace(b'"s"', b'"t"'), dedupe_key="0" * 64),
    )
    (spool.folder / first).write_bytes(b"nothing of a label")
    assert await recovery.recover(LATER) == (1, 1)
    assert [row.blob for row in await recovered(ledger)] == [second]


async def test_the_same_report_in_two_blobs_is_recovered_once(recovery, ledger, spool):
    for _ in range(2):
        await blob_of(spool, REPORT)
    assert await recovery.recover(LATER) == (1, 1)
    assert len(await recovered(ledger)) == 1


async def test_blobs_that_may_still_be_written_are_ignored(recovery, ledger, spool):
    blob = await blob_of(spool, REPORT)
    assert await recovery.recover(blob.partition("/")[0]) == (0, 0)
    assert await recovered(ledger) == []


async def test_uploads_find_room_after_it_although_this_hour_was_empty(recovery, spool):
    """A gateway that was killed, and started held within the hour, with all of that hour delivered."""
    old = await blob_of(spool, REPORT)
    earlier = spool.folder / "2020010100"
    (spool.folder / old).parent.rename(earlier)
    this_hour = spool.folder / old.partition("/")[0]
    this_hour.mkdir()
    assert await recovery.recover(LATER) == (1, 0)
    assert not this_hour.exists()
    await blob_of(spool, REPORT)
