"""A build with thousands of reports: planning it takes long, so it must not be planned for every few reports."""

import asyncio
from dataclasses import replace

import pytest

from bridge.domain.build import BuildState, DeliveryState, UploadMetadata
from bridge.domain.changes import with_uploads
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle import context
from bridge.store.leases import read_newer
from bridge.worker import reconcile
from bridge.worker.delivery_slots import DeliverySlots
from bridge.worker.reconcile import UPLOAD_CHECK_US, BuildReconciler
from tests.support.builders import HOUR, POLICY
from tests.support.fake_clock import FakeClock
from tests.support.ledger import Ledger, report
from tests.support.worker_play import JOBS, Outside, Play

BUILD = {"job_id": next(iter(JOBS)), "build_no": 1}
REPORTS = 120
HUGE = 20  # deliveries from which on a build counts as huge here


class BusyOutside(Outside):
    """Calls take a moment, so that those that may run at once do."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.at_once = self.most_at_once = 0

    def _spend(self, _build_id):
        """Let no time pass: steps end by their number of calls."""

    async def register(self, token, run_parameters):
        return await self._counted(super().register(token, run_parameters))

    async def put(self, url, chunks, **other):
        return await self._counted(super().put(url, chunks, **other))

    async def _counted(self, call):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return await call


@pytest.fixture
async def play(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(context, "DELIVERIES_PER_UPLOAD", HUGE)
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        slots = DeliverySlots(2 * POLICY.concurrency_per_build)  # for this build, and for one other: none is spare
        play = Play(database, clock, tmp_path, outside=BusyOutside(clock), slots=slots)
        await play.ledger.accept(*(report(f"{number}.xml") for number in range(REPORTS)), complete=True, **BUILD)
        yield play


@pytest.fixture
def plans(monkeypatch) -> list[int]:
    """One entry for each time a build is planned."""
    planned: list[int] = []

    def counted(build, *other):
        planned.append(build.id)
        return real(build, *other)

    real = reconcile.plan
    monkeypatch.setattr(reconcile, "plan", counted)
    return planned


async def visit(play: Play) -> None:
    build = await play.ledger.build()
    leased = await play.ledger.claimed(route=JOBS[BUILD["job_id"]] if build.run_parameters else "")
    await BuildReconciler(play.config, leased, play.clock.now()).run(play.config.executor)


async def test_a_huge_build_is_planned_once_for_many_reports_and_keeps_to_its_calls_at_once(play, plans):
    await play.until(play.clock.now() + HOUR)
    assert await play.states() == ["delivered"] * REPORTS
    assert len(play.outside.registered) == play.outside.stored == REPORTS
    assert len(plans) < REPORTS / POLICY.concurrency_per_build / 2
    assert play.outside.most_at_once == POLICY.concurrency_per_build
    assert play.outside.stored_at_finalize[-1] == REPORTS


async def test_the_first_failure_ends_a_step_of_many_calls(play, monkeypatch):
    monkeypatch.setattr(reconcile, "MAX_STEPS", 4)
    await visit(play)
    stored, registered = play.outside.stored, len(play.outside.registered)
    assert stored > POLICY.concurrency_per_build
    play.outside.away.add("storage")
    monkeypatch.setattr(reconcile, "MAX_STEPS", 1)
    await visit(play)
    assert play.outside.stored == stored
    assert len(play.outside.registered) - registered <= POLICY.concurrency_per_build


async def test_a_step_of_many_calls_ends_when_it_lasts_long(play, monkeypatch):
    monkeypatch.setattr(play.outside, "_spend", lambda _build_id: play.clock.advance(SECOND))
    monkeypatch.setattr(reconcile, "MAX_STEPS", 4)
    await visit(play)
    assert play.outside.stored <= 4 * POLICY.concurrency_per_build
    unsettled = (await play.ledger.build()).unsettled()
    assert len(unsettled) <= POLICY.concurrency_per_build


class Neighbor(BusyOutside):
    """Another build takes its slots when `takes_at` reports are stored, and keeps them."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.slots = DeliverySlots(16)
        self.takes_at = REPORTS
        self.free: list[tuple[int, int]] = []  # reports that are stored and slots that are free, at each PUT

    async def put(self, url, chunks, **other):
        if self.stored >= self.takes_at:
            self.takes_at = REPORTS
            for _ in range(POLICY.concurrency_per_build):
                await self.slots.__aenter__()
        self.free.append((self.stored, self.slots.free))
        return await super().put(url, chunks, **other)


@pytest.fixture
async def shared_play(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(context, "DELIVERIES_PER_UPLOAD", HUGE)
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        outside = Neighbor(clock)
        play = Play(database, clock, tmp_path, outside=outside, slots=outside.slots)
        await play.ledger.accept(*(report(f"{number}.xml") for number in range(REPORTS)), complete=True, **BUILD)
        yield play


async def test_a_build_alone_takes_spare_slots_and_leaves_as_many_as_another_build_may_take(shared_play):
    outside = shared_play.outside
    await shared_play.until(shared_play.clock.now() + HOUR)
    assert outside.stored == REPORTS
    assert outside.most_at_once > POLICY.concurrency_per_build
    assert min(free for _, free in outside.free) >= POLICY.concurrency_per_build


async def test_spare_slots_are_free_again_soon_after_another_build_has_taken_its_own(shared_play):
    outside = shared_play.outside
    outside.takes_at = REPORTS // 2
    await shared_play.until(shared_play.clock.now() + HOUR)
    assert outside.stored == REPORTS
    assert min(free for _, free in outside.free) < POLICY.concurrency_per_build  # while its calls were ending
    assert min(free for stored, free in outside.free if stored > REPORTS * 3 // 4) >= POLICY.concurrency_per_build


class LateUpload(Outside):
    """CI uploads more reports while the last of those that were claimed is sent."""

    ledger: Ledger
    late = 3

    async def put(self, url, chunks, **other):
        outcome = await super().put(url, chunks, **other)
        if self.stored == REPORTS:
            await self.ledger.accept(*(report(f"late-{number}.xml") for number in range(self.late)), **BUILD)
        return outcome


@pytest.fixture
async def late_play(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(reconcile, "LARGE_BUILD", REPORTS)
    monkeypatch.setattr(reconcile, "UPLOAD_GAP_US", 0)
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        outside = LateUpload(clock)
        play = Play(database, clock, tmp_path, outside=outside)
        outside.ledger = play.ledger
        await play.ledger.accept(*(report(f"{number}.xml") for number in range(REPORTS)), **BUILD)
        yield play


async def test_reports_that_arrive_while_a_huge_build_is_delivered_are_delivered_under_the_same_lease(late_play):
    await visit(late_play)
    after = await late_play.ledger.build()
    assert after.fencing_token == 1
    assert late_play.outside.stored == REPORTS + LateUpload.late
    assert {delivery.state for delivery in after.deliveries.values()} == {DeliveryState.DELIVERED}


async def test_a_huge_build_is_read_whole_before_its_run_is_finalized_with_late_reports(late_play):
    await visit(late_play)
    row = await late_play.ledger.row()
    assert row.due_at <= late_play.clock.now()  # not later, as the visit that read the late reports would have it
    await late_play.ledger.accept(report("last.xml"), complete=True, **BUILD)
    await late_play.until(late_play.clock.now() + HOUR)
    build = await late_play.ledger.build()
    assert (build.finalized_seq, build.state) == (build.report_seq, BuildState.FINALIZED)
    assert late_play.outside.stored_at_finalize[-1] == REPORTS + LateUpload.late + 1


async def test_what_came_after_a_build_was_read_is_read_without_the_rest(late_play):
    ledger = late_play.ledger
    known = (await ledger.claimed()).build
    await ledger.accept(report("late.xml"), **BUILD, upload_metadata=UploadMetadata(branch="main"))
    newer = await ledger.database.read(read_newer, known)
    assert [each.name for each in newer.reports.values()] == ["late.xml"]
    assert [each.report_id for each in newer.deliveries.values()] == list(newer.reports)
    whole = await ledger.build()
    assert with_uploads(known, newer) == whole
    late_play.clock.advance(HOUR)
    await ledger.claimed()
    assert await ledger.database.read(read_newer, known) is None  # another has it now


# -- between two uploads -----------------------------------------------------------------------------------------------


@pytest.fixture
async def open_play(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(reconcile, "LARGE_BUILD", REPORTS)
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        play = Play(database, clock, tmp_path, outside=BusyOutside(clock), idle_timeout=IDLE_US)
        await play.ledger.accept(*(report(f"{number}.xml") for number in range(REPORTS)), **BUILD)
        yield play


IDLE_US = reconcile.UPLOAD_GAP_US // 2


class Visit:
    """A visit that goes on beside the test."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.task = asyncio.create_task(visit(play))

    async def waits(self) -> bool:
        """Return whether the visit waits for an upload, when it does so or has ended."""
        async with asyncio.timeout(60):
            while not self.task.done() and not self._is_asleep():  # noqa: ASYNC110 -- the ledger is not ours
                await asyncio.sleep(0)
        return not self.task.done()

    def _is_asleep(self) -> bool:
        now, wakes_at = self.play.clock.now(), self.play.clock.next_wake_at
        return wakes_at is not None and now < wakes_at <= now + UPLOAD_CHECK_US

    async def check(self) -> bool:
        """Let it check the ledger once more; return whether it waits after that."""
        self.play.clock.advance(UPLOAD_CHECK_US)
        return await self.waits()


async def test_an_open_huge_build_waits_a_moment_for_the_next_upload_and_delivers_it_under_the_same_lease(open_play):
    open_play.config = replace(open_play.config, policy=replace(open_play.config.policy, idle_timeout=HOUR))
    going_on = Visit(open_play)
    assert await going_on.waits()
    await open_play.ledger.accept(report("late.xml"), **BUILD)
    assert await going_on.check()
    assert open_play.outside.stored == REPORTS + 1
    checks = 0
    while await going_on.check():
        checks += 1
    assert checks == reconcile.UPLOAD_GAP_US // UPLOAD_CHECK_US - 1
    await going_on.task
    assert (await open_play.ledger.build()).fencing_token == 1


async def test_what_is_due_while_a_huge_build_waits_for_an_upload_is_done_under_the_same_lease(open_play):
    going_on = Visit(open_play)
    while await going_on.waits():
        assert (await open_play.ledger.build()).state is BuildState.OPEN
        await going_on.check()
    await going_on.task
    build = await open_play.ledger.build()
    assert (build.state, build.fencing_token) == (BuildState.ENDED, 1)


async def test_a_huge_build_that_is_declared_complete_waits_no_longer(open_play):
    going_on = Visit(open_play)
    assert await going_on.waits()
    await open_play.ledger.accept(complete=True, **BUILD)
    assert not await going_on.check()
    await going_on.task
    assert (await open_play.ledger.row()).due_at <= open_play.clock.now()


async def test_a_huge_build_that_has_ended_waits_for_no_upload(play, monkeypatch):
    monkeypatch.setattr(reconcile, "LARGE_BUILD", REPORTS)
    going_on = Visit(play)
    assert not await going_on.waits()
    await going_on.task
    assert play.outside.stored == REPORTS


async def test_a_huge_build_waits_for_no_upload_when_the_gateway_stops(open_play):
    going_on = Visit(open_play)
    assert await going_on.waits()
    open_play.config.stopping.set()
    assert not await going_on.check()
    await going_on.task
