"""TestNod comes and goes, and loses answers: builds whose runs are held come to their end, through the real worker.

The wait for calm is a rule of `domain/`, so one kind of ledger shows it.
"""

import pytest
from sqlalchemy import select

from bridge.domain import plan
from bridge.domain.build import DeliveryState, RegistrationState
from bridge.domain.disturbance import SLOW_US
from bridge.domain.lifecycle.replacement import MAX_GENERATIONS, defer_replacement
from bridge.domain.outcomes import OutcomeUnknown, RunStatus, UrlRejected
from bridge.store.schema import builds, registrations
from tests.support.builders import HOUR, MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
from tests.support.worker_play import JOBS, Outside, Play

JOB, OTHER, _ = JOBS
DISTURBED = ((0, 5), (54, 74), (114, 134))  # minutes: each run of the large build would be sent in one of them
REPORTS = 8
EVERY = 4  # answer of a disturbed TestNod is lost


class Flaky(Outside):
    """TestNod, which opens uploads and loses some of the answers while it is disturbed, and holds such runs."""

    def __init__(self, clock):
        super().__init__(clock)
        self.began = clock.now()
        self.held = set()
        self.disturbed = DISTURBED
        self.calls = 0

    def _is_disturbed(self):
        minute = (self.clock.now() - self.began) / MINUTE
        return any(start <= minute < end for start, end in self.disturbed)

    async def register(self, token, run_parameters):
        self.calls += 1
        answer = await super().register(token, run_parameters)
        if self._is_disturbed() and self.calls % EVERY == 0:
            self.held.add(run_parameters.build_id)
            return OutcomeUnknown(message="no complete response in time")
        return answer

    async def finalize(self, token, build_id):
        outcome = await super().finalize(token, build_id)
        return RunStatus(status="pending") if build_id in self.held else outcome


@pytest.fixture
async def play(sqlite, tmp_path):
    clock = FakeClock()
    async with sqlite.fresh(clock) as database:
        yield Play(database, clock, tmp_path, outside=Flaky(clock))


async def send_for_hours(play, hours):
    """Let one build of many reports come at the start, and one of another job each minute of the later disturbances."""
    many = [report(f"{number}.xml", f"<a n='{number}'/>".encode()) for number in range(REPORTS)]
    await play.ledger.accept(*many, job_id=JOB, build_no=1, complete=True)
    end = play.clock.now() + hours * HOUR
    for start, last in DISTURBED[1:]:
        for minute in range(start, last):
            await play.until(play.outside.began + minute * MINUTE)
            await play.ledger.accept(report(), job_id=OTHER, build_no=minute, complete=True)
    await play.until(end)


async def stuck(play):
    return [row.stuck_reason for row in await play.ledger.rows(select(builds.c.stuck_reason)) if row.stuck_reason]


async def lost_generations(play):
    lost = select(registrations.c.generation).where(registrations.c.state == RegistrationState.LOST)
    return [row.generation for row in await play.ledger.rows(lost)]


async def test_runs_that_replace_others_are_sent_between_the_disturbances_and_all_builds_come_to_their_end(play):
    await send_for_hours(play, 6)

    assert play.outside.held
    assert await stuck(play) == []
    assert set(await play.states()) == {DeliveryState.DELIVERED}
    assert max(await lost_generations(play)) < MAX_GENERATIONS


class Slow(Outside):
    """TestNod and its storage, which take long to answer."""

    def __init__(self, clock):
        super().__init__(clock)
        self.during = {}  # by call, the age of the last disturbance while it ran
        self.age = lambda: None

    async def _slowly(self, call):
        self.clock.advance(SLOW_US)
        self.during[call] = self.age()

    async def register(self, token, run_parameters):
        await self._slowly("register")
        return await super().register(token, run_parameters)

    async def put(self, _url, _chunks, **_):
        await self._slowly("put")
        return UrlRejected(message="no")

    async def upload_failed(self, token, **values):
        await self._slowly("upload_failed")
        return await super().upload_failed(token, **values)

    async def finalize(self, token, build_id):
        await self._slowly("finalize")
        return await super().finalize(token, build_id)


async def test_a_call_to_testnod_without_an_answer_is_seen_while_it_runs(sqlite, tmp_path):
    clock = FakeClock()
    async with sqlite.fresh(clock) as database:
        play = Play(database, clock, tmp_path, outside=Slow(clock), max_finalize_delay=MINUTE)
        play.outside.age = lambda: play.config.recent_calls.disturbance_age(clock.steady(), 0)
        await play.ledger.accept(report(), job_id=JOB, build_no=1, complete=True)
        await play.until(clock.now() + MINUTE)
        play.outside.put = super(Slow, play.outside).put
        await play.until(clock.now() + HOUR)

    assert play.outside.during == {"register": 0, "put": None, "upload_failed": 0, "finalize": 0}


async def test_without_the_wait_for_calm_runs_are_used_up_and_a_build_is_stuck(play, monkeypatch):
    """Shows that the disturbances of this play are such that it is the wait that helps."""
    monkeypatch.setattr(plan, "TRANSITIONS", tuple(each for each in plan.TRANSITIONS if each is not defer_replacement))

    await send_for_hours(play, 6)

    assert any("3 runs in a row have stayed pending" in reason for reason in await stuck(play))
