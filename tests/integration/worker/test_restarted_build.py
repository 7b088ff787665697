"""A build that CodeArts restarts under its number: its reports are finalized in batches, without another poll."""

from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryState
from bridge.domain.instants import SECOND
from tests.support.builders import HOUR, MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
from tests.support.worker_play import Outside, Play

JOB = "b" * 32


class Restarting(Outside):
    """Counts the polls of builds, and opens a run for what is registered after a finalize, as TestNod does."""

    polls = 0

    async def register(self, token, run_parameters):
        outcome = await super().register(token, run_parameters)
        return replace(outcome, test_run_id=f"run-{len(self.stored_at_finalize)}")

    async def build_info(self, job_id, build_no):
        self.polls += 1
        return await super().build_info(job_id, build_no)


@pytest.fixture
async def play(backend, tmp_path):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Play(database, clock, tmp_path, has_codearts=True, outside=Restarting(clock), grace_period=MINUTE)


async def accept(play, *names):
    """Accept reports half a grace period apart."""
    for name in names:
        await play.ledger.accept(report(name), job_id=JOB, build_no=1)
        await play.until(play.clock.now() + 30 * SECOND)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_restarted_build_is_not_polled_again_and_each_batch_of_its_reports_is_finalized(play):
    await accept(play, "a.xml")
    await play.hours(1)
    assert play.outside.stored_at_finalize == [1]

    polls, play.outside.running = play.outside.polls, True
    await accept(play, "b.xml", "c.xml", "d.xml")
    await play.until(play.clock.now() + 10 * MINUTE)
    await accept(play, "e.xml")
    await play.until(play.clock.now() + HOUR)
    assert play.outside.stored_at_finalize == [1, 4, 5]
    assert play.outside.polls == polls
    assert set(await play.states()) == {DeliveryState.DELIVERED}
