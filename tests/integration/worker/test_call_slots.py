"""More builds ask CodeArts at once than it may be asked: a burst is asked in turn, and a slow CodeArts holds few up."""

import asyncio

import pytest

from bridge.domain.instants import MINUTE
from bridge.worker.build_status import BUSY_US, MAX_CALLS, BuildStatusFetcher
from bridge.worker.call_slots import PATIENCE_SECONDS, CallSlots
from bridge.worker.reconcile import BuildReconciler
from bridge.worker.request_rates import PLENTIFUL_PER_MINUTE, RequestRates
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
from tests.support.loop_clock import LoopClock
from tests.support.worker_play import JOBS, Outside, Play

BUILDS = MAX_CALLS + 4


class SlowCodeArts(Outside):
    """Answers no question before `answers` is set."""

    def __init__(self, clock):
        super().__init__(clock)
        self.answers, self.is_full = asyncio.Event(), asyncio.Event()
        self.asked = 0

    async def build_info(self, job_id, build_no):
        await self._wait()
        return await super().build_info(job_id, build_no)

    async def record_info(self, job_id, build_no):
        await self._wait()
        return await super().record_info(job_id, build_no)

    async def _wait(self):
        self.asked += 1
        if self.asked == MAX_CALLS:
            self.is_full.set()
        await self.answers.wait()


@pytest.fixture
async def play(backend, tmp_path):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Play(database, clock, tmp_path, has_codearts=True, outside=SlowCodeArts(clock))


async def reconcilers(play):
    for build_no in range(1, BUILDS + 1):
        await play.ledger.accept(report(), job_id=next(iter(JOBS)), build_no=build_no)
    play.clock.advance(MINUTE)
    return [BuildReconciler(play.config, await play.ledger.claimed(), play.clock.now()) for _ in range(BUILDS)]


def fetcher(play):
    return BuildStatusFetcher(play.outside, RequestRates(play.config.database, "", 10 * PLENTIFUL_PER_MINUTE))


async def test_builds_of_a_burst_are_all_polled_at_once(play):
    """They were put off for two seconds, although each of the calls took a millisecond."""
    visits, fetch = await reconcilers(play), fetcher(play)
    polls = [asyncio.create_task(fetch.poll(visit, reserved=True)) for visit in visits]
    await play.outside.is_full.wait()
    play.outside.answers.set()
    await asyncio.gather(*polls)
    assert [visit.build.polls for visit in visits] == [1] * BUILDS


async def test_records_of_a_burst_are_all_fetched_at_once(play):
    visits, fetch = await reconcilers(play), fetcher(play)
    calls = [asyncio.create_task(fetch.fetch_record(visit)) for visit in visits]
    await play.outside.is_full.wait()
    play.outside.answers.set()
    await asyncio.gather(*calls)
    assert all(visit.build.described_at is not None for visit in visits)
    assert [visit.build.describe_attempts for visit in visits] == [0] * BUILDS


async def test_polls_beyond_the_slots_of_a_slow_codearts_are_put_off(play):
    loop_clock, visits, fetch = LoopClock(), await reconcilers(play), fetcher(play)
    polls = [asyncio.create_task(fetch.poll(visit, reserved=True)) for visit in visits]
    await play.outside.is_full.wait()
    await loop_clock.pass_until(lambda: sum(poll.done() for poll in polls) == BUILDS - MAX_CALLS, PATIENCE_SECONDS)
    put_off = [visit.build for poll, visit in zip(polls, visits, strict=True) if poll.done()]
    assert {(build.polls, build.poll_due_at) for build in put_off} == {(0, play.clock.now() + BUSY_US)}
    play.outside.answers.set()
    await asyncio.gather(*polls)


async def test_a_call_gets_no_slot_while_all_are_held_and_the_next_one_does():
    slots, loop_clock = CallSlots(1), LoopClock()
    async with slots.slot() as held:
        waiting = asyncio.create_task(_has_slot(slots))
        await loop_clock.pass_until(waiting.done, PATIENCE_SECONDS)
        assert (held, await waiting) == (True, False)
    assert await _has_slot(slots)


async def _has_slot(slots):
    async with slots.slot() as has_slot:
        return has_slot
