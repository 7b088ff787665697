"""What the cleanup removes, what it sets aside, and what it leaves alone."""

import asyncio
import os
import time
from dataclasses import replace

import pytest
from sqlalchemy import select

from bridge.domain.build import BuildState, DeliveryState, DeliveryTarget
from bridge.domain.changes import set_build, set_delivery
from bridge.domain.clock_trust import TRUSTED, ClockState, Verdict
from bridge.errors import Unavailable
from bridge.store.blobs.base import ASIDE
from bridge.store.blobs.disk import DiskSpool
from bridge.store.retention import LIMIT, body_location
from bridge.store.schema import builds, rejections
from bridge.worker.cleanup import MAX_ARCHIVE_BATCHES, Cleanup
from tests.support.fake_clock import FakeClock
from tests.support.labels import label
from tests.support.ledger import Ledger, kept_refusal, refusal, report

DAY = 24 * 3600 * 1_000_000
KEEP, KEEP_REFUSED = 30 * DAY, 7 * DAY


@pytest.fixture
def spool(tmp_path):
    folder = tmp_path / "spool"
    folder.mkdir()
    return DiskSpool(folder)


@pytest.fixture
async def cleanup(backend, spool):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Cleanup(
            database=database,
            clock=clock,
            stopping=asyncio.Event(),
            spool=spool,
            keep_us=KEEP,
            keep_rejected_us=KEEP_REFUSED,
        )


@pytest.fixture
def ledger(cleanup):
    return Ledger(cleanup.database)


async def blob_of(spool, content=b"<testsuite/>"):
    writer = await spool.create()
    await writer.write(content)
    return await writer.commit(label(content))


async def bytes_of(ledger, report_id=1):
    return await ledger.database.read(body_location, report_id)


async def test_bytes_that_a_crash_left_behind_a_delivery_go(cleanup, ledger, spool):
    blob = await blob_of(spool)
    await ledger.accept(report("row"), replace(report("spooled"), body=None, blob=blob))
    visit = await ledger.claimed()
    delivered = [set_delivery(each, state=DeliveryState.DELIVERED) for each in visit.build.deliveries.values()]
    await ledger.record(visit.build, *delivered)

    await cleanup.clean()

    assert [(await bytes_of(ledger, number)).body for number in (1, 2)] == [None, None]
    assert not spool._path(blob).exists()


async def test_what_is_owed_keeps_its_bytes(cleanup, ledger, spool):
    blob = await blob_of(spool)
    await ledger.accept(report("row"), replace(report("spooled"), body=None, blob=blob))
    cleanup.clock.advance(2 * KEEP)

    await cleanup.clean()

    assert (await bytes_of(ledger, 1)).body is not None
    assert (await bytes_of(ledger, 2)).blob == blob
    assert spool._path(blob).exists()


async def test_a_dead_report_loses_its_bytes_after_keep_and_not_before(cleanup, ledger):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.record(visit.build, set_delivery(visit.build.deliveries[1], state=DeliveryState.DEAD))

    cleanup.clock.advance(KEEP)
    await cleanup.clean()
    assert (await bytes_of(ledger)).body is not None

    cleanup.clock.advance(1)
    await cleanup.clean()
    assert (await bytes_of(ledger)).body is None


async def test_a_report_that_dies_after_a_long_outage_keeps_its_bytes_for_keep_from_then_on(cleanup, ledger):
    await ledger.accept(report())
    visit = await ledger.claimed()
    tried_at = cleanup.clock.now() + 2 * KEEP
    await ledger.record(visit.build, set_delivery(visit.build.deliveries[1], state=DeliveryState.DEAD, due_at=tried_at))

    cleanup.clock.advance(3 * KEEP)
    await cleanup.clean()
    assert (await bytes_of(ledger)).body is not None

    cleanup.clock.advance(1)
    await cleanup.clean()
    assert (await bytes_of(ledger)).body is None


@pytest.mark.parametrize(
    ("dead", "owed"),
    [
        (DeliveryTarget.CODEARTS, DeliveryTarget.TESTNOD),
        (DeliveryTarget.ARCHIVE, DeliveryTarget.TESTNOD),
        (DeliveryTarget.TESTNOD, DeliveryTarget.CODEARTS),
        (DeliveryTarget.CODEARTS, DeliveryTarget.ARCHIVE),
    ],
)
async def test_what_is_dead_for_one_keeps_its_bytes_while_another_is_owed_them(cleanup, ledger, dead, owed):
    await ledger.accept(report(), targets=(dead, owed))
    visit = await ledger.claimed()
    await ledger.record(visit.build, set_delivery(visit.build.deliveries[1], state=DeliveryState.DEAD))
    cleanup.clock.advance(2 * KEEP)

    await cleanup.clean()

    assert (await bytes_of(ledger)).body is not None
    assert [delivery.target for delivery in (await ledger.build()).pending(owed)] == [owed]


async def test_a_copy_that_waits_for_a_dead_report_is_given_up_with_it(cleanup, ledger):
    await ledger.accept(report(), targets=(DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE))
    visit = await ledger.claimed()
    await ledger.record(visit.build, set_delivery(visit.build.deliveries[1], state=DeliveryState.DEAD))
    cleanup.clock.advance(2 * KEEP)

    await cleanup.clean()

    assert (await bytes_of(ledger)).body is None
    assert (await ledger.build()).deliveries[2].state is DeliveryState.DEAD


async def test_a_blob_without_a_row_is_set_aside_after_a_day_and_forgotten_after_keep(cleanup, spool):
    blob = await blob_of(spool)
    path, aside = spool._path(blob), spool._root / ASIDE / blob.replace("/", "-")
    begun_at = int(path.stat().st_mtime * 1_000_000)

    cleanup.clock.set(begun_at)
    await cleanup.clean()
    assert path.exists()

    cleanup.clock.set(begun_at + 2 * DAY)
    await cleanup.clean()
    assert not path.exists()
    assert aside.exists()

    os.utime(aside, (begun_at // 1_000_000, begun_at // 1_000_000))
    cleanup.clock.set(begun_at + KEEP + 2 * DAY)
    await cleanup.clean()
    assert not aside.exists()


async def test_refusals_are_forgotten_in_time(cleanup, ledger):
    await ledger.accept(rejections=(refusal(),))
    cleanup.clock.advance(KEEP_REFUSED + 1)
    await cleanup.clean()
    assert await ledger.rows(select(rejections)) == []


async def test_a_refused_file_keeps_its_bytes_as_long_as_was_said_and_not_longer(cleanup, ledger, spool):
    blob = await blob_of(spool)
    await ledger.enter(rejections=(kept_refusal(body=None, blob=blob), kept_refusal("row.xml")))

    cleanup.clock.advance(KEEP_REFUSED)
    await cleanup.clean()
    assert [row.kept_until is None for row in await ledger.rows(select(rejections))] == [False, False]
    assert spool._path(blob).exists()

    cleanup.clock.advance(1)
    await cleanup.clean()
    assert await ledger.rows(select(rejections)) == []
    assert not spool._path(blob).exists()


async def test_a_blob_of_a_refused_file_is_no_orphan(cleanup, ledger, spool):
    blob = await blob_of(spool)
    begun_at = int(spool._path(blob).stat().st_mtime * 1_000_000)
    cleanup.clock.set(begun_at)
    await ledger.enter(rejections=(kept_refusal(body=None, blob=blob),))

    cleanup.clock.set(begun_at + 2 * DAY)
    await cleanup.clean()

    assert spool._path(blob).exists()


async def test_copies_go_from_the_archive_when_they_were_kept_long_enough(cleanup):
    asked = []

    class Archive:
        async def delete_before(self, day, *, limit):
            asked.append((day, limit))
            return limit if len(asked) < 3 else 0

    await replace(cleanup, archive=Archive()).clean()

    assert asked == [("2023/10/15", LIMIT)] * 3  # thirty days before the clock of these tests


async def test_a_spool_that_cannot_be_listed_keeps_no_copy_in_the_archive(cleanup, spool, monkeypatch):
    asked = []

    class Archive:
        async def delete_before(self, day, *, limit):
            asked.append((day, limit))
            return 0

    async def unlisted(_hour):
        raise Unavailable("The spool cannot be read. It is tried again later.")

    monkeypatch.setattr(spool, "hours_before", unlisted)
    with pytest.raises(Unavailable):
        await replace(cleanup, archive=Archive()).clean()
    assert len(asked) == 1


async def test_an_archive_with_much_to_forget_lets_the_loop_be_seen_alive(cleanup):
    asked = []

    class Archive:
        async def delete_before(self, day, *, limit):
            asked.append(day)
            return limit

    await replace(cleanup, archive=Archive()).clean()

    assert len(asked) == MAX_ARCHIVE_BATCHES


async def test_it_is_seen_alive_with_every_blob_that_goes(cleanup, ledger, spool):
    spooled = [replace(report(name), body=None, blob=await blob_of(spool)) for name in ("one", "two")]
    await ledger.accept(*spooled)
    visit = await ledger.claimed()
    delivered = [set_delivery(each, state=DeliveryState.DELIVERED) for each in visit.build.deliveries.values()]
    await ledger.record(visit.build, *delivered)
    beats = []
    await cleanup.clean(lambda: beats.append(cleanup.clock.now()))
    assert len(beats) == 2


@pytest.mark.parametrize("state", [ClockState.UNPROVEN, ClockState.SUSPECT, ClockState.STEPPED])
async def test_while_the_clock_is_doubted_only_bytes_of_delivered_reports_go(cleanup, ledger, spool, state):
    asked = []

    class Archive:
        async def delete_before(self, day, *, limit):
            asked.append((day, limit))
            return 0

    await ledger.accept(report("delivered"), report("dead"), rejections=(refusal(),))
    await ledger.enter(rejections=(kept_refusal(),))
    visit = await ledger.claimed()
    ended = {1: DeliveryState.DELIVERED, 2: DeliveryState.DEAD}
    changes = [set_delivery(visit.build.deliveries[number], state=state) for number, state in ended.items()]
    await ledger.record(visit.build, *changes)
    orphan = await blob_of(spool)
    cleanup.clock.set(time.time_ns() // 1000 + 2 * KEEP)
    verdict = Verdict(state=state)
    doubting = replace(cleanup, archive=Archive(), clock_verdict=lambda: verdict)

    await doubting.clean()
    assert [(await bytes_of(ledger, number)).body is None for number in (1, 2)] == [True, False]
    assert [row.kept_until is None for row in await ledger.rows(select(rejections))] == [True, False]
    assert spool._path(orphan).exists()
    assert not asked

    verdict = TRUSTED
    await doubting.clean()
    assert (await bytes_of(ledger, 2)).body is None
    assert await ledger.rows(select(rejections)) == []
    assert not spool._path(orphan).exists()
    assert asked


async def test_no_blob_is_set_aside_soon_after_the_clock_was_set(cleanup, spool):
    orphan = await blob_of(spool)
    cleanup.clock.set(time.time_ns() // 1000 + 2 * DAY)
    unsettled = replace(TRUSTED, settled=False)
    await replace(cleanup, clock_verdict=lambda: unsettled).clean()
    assert spool._path(orphan).exists()


async def test_rows_of_finished_builds_go_after_their_retention_and_only_by_a_clock_that_is_trusted(cleanup, ledger):
    await ledger.accept(report())
    visit = await ledger.claimed()
    at = cleanup.clock.now()
    await ledger.record(visit.build, set_delivery(visit.build.deliveries[1], state=DeliveryState.DELIVERED))
    await ledger.record(visit.build, set_build(state=BuildState.ENDED, ended_at=at))
    await ledger.record(visit.build, set_build(state=BuildState.FINALIZED, finalized_at=at, finalized_seq=1))
    await ledger.release(visit, None)
    doubting = replace(cleanup, keep_rows_us=KEEP, clock_verdict=lambda: Verdict(state=ClockState.SUSPECT))

    async def rows():
        return len(await ledger.rows(select(builds.c.id)))

    cleanup.clock.advance(2 * KEEP)
    await cleanup.clean()  # without a retention of rows
    await doubting.clean()
    assert await rows() == 1
    await replace(cleanup, keep_rows_us=3 * KEEP).clean()
    assert await rows() == 1
    await replace(cleanup, keep_rows_us=KEEP).clean()
    assert await rows() == 0
