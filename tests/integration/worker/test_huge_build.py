"""A build with thousands of reports: planning it takes long, so it must not be planned for every few reports."""

import asyncio

import pytest

from bridge.domain.instants import SECOND
from bridge.domain.lifecycle import context
from bridge.worker import reconcile
from bridge.worker.reconcile import BuildReconciler
from tests.support.builders import HOUR, POLICY
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
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
        play = Play(database, clock, tmp_path, outside=BusyOutside(clock))
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
