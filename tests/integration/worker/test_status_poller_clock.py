"""The poller of build statuses while the ledger's clock is wrong."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from bridge.domain.instants import SECOND
from bridge.domain.request_rate import Api
from bridge.store.schema import builds
from bridge.worker.request_rates import PLENTIFUL_PER_MINUTE, RequestRates
from bridge.worker.status_poller import PollerWaker, StatusPoller
from tests.support.builders import MINUTE
from tests.support.fake_clock import FakeClock, SetClock
from tests.support.ledger import report
from tests.support.whole import until
from tests.support.worker_play import JOBS, Play

AHEAD_US = 15 * MINUTE
BUILD = {"job_id": next(iter(JOBS)), "build_no": 1}

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def play(backend, tmp_path):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Play(database, clock, tmp_path, has_codearts=True)


@pytest.fixture
async def poller(play):
    rates = RequestRates(play.config.database, "", 600)
    for api in (Api.RECORD_LIST, Api.JOB_LIST):
        await rates.record_refused(api)
    config = replace(play.config, rates=rates)
    return StatusPoller(lambda: config, PollerWaker())


async def grants_within(poller, play, seconds):
    """Return whether the poller grants the build a poll within `seconds`."""
    reset = update(builds).values(poll_reserved=False, poll_due_at=0)
    await play.config.database.transact(lambda connection, _now: connection.execute(reset).rowcount)
    for _ in range(seconds):
        await poller.turn()
        (row,) = await play.ledger.rows(select(builds.c.poll_reserved))
        if row.poll_reserved:
            return True
        play.clock.advance(SECOND)
    return False


@on_sqlite
async def test_if_calls_are_plentiful_builds_poll_themselves(play):
    await play.ledger.accept(report(), **BUILD)
    config = replace(play.config, rates=RequestRates(play.config.database, "", PLENTIFUL_PER_MINUTE))
    assert not await grants_within(StatusPoller(lambda: config, PollerWaker()), play, 30)


@on_sqlite
async def test_a_build_that_was_polled_by_a_clock_that_was_ahead_is_polled_again_at_once(play, poller):
    await play.ledger.accept(report(), **BUILD)
    assert await grants_within(poller, play, 120)
    play.clock.advance(AHEAD_US)
    assert await grants_within(poller, play, 600)
    play.clock.advance(-AHEAD_US)
    assert await grants_within(poller, play, 120)


@on_sqlite
async def test_a_clock_that_is_ahead_only_within_a_turn_delays_no_poll(play, poller, monkeypatch):
    await play.ledger.accept(report(), **BUILD)
    database, began = play.config.database, play.clock.now()
    read, write = database.read, database.write

    def ahead(call):
        async def called(*arguments):
            play.clock.set(began + AHEAD_US)
            return await call(*arguments)

        return called

    with monkeypatch.context() as patch:
        patch.setattr(database, "read", ahead(read))
        patch.setattr(database, "write", ahead(write))
        for _ in range(120):
            await poller.turn()
            began += SECOND
            play.clock.set(began)
    assert await grants_within(poller, play, 120)


class RunningClock(FakeClock):
    """A clock by which a microsecond passes between two readings."""

    def now(self):
        self.advance(1)
        return super().now()


@on_sqlite
async def test_a_slot_that_a_clock_far_ahead_assigned_is_free_also_while_the_clock_runs(backend, tmp_path):
    clock = RunningClock()
    async with backend.fresh(clock) as database:
        play = Play(database, clock, tmp_path, has_codearts=True)
        rates = RequestRates(database, "", 600)
        config = replace(play.config, rates=rates)
        poller = StatusPoller(lambda: config, PollerWaker())
        for api in (Api.RECORD_LIST, Api.JOB_LIST):
            await rates.record_refused(api)
        await play.ledger.accept(report(), **BUILD)
        clock.advance(AHEAD_US)
        await rates.admit(Api.BUILD_INFO)
        clock.advance(-AHEAD_US)
        assert await grants_within(poller, play, 120)


class SteppingClock(SetClock):
    """The machine's clock, which is ahead until the end of the first wait."""

    def __init__(self):
        super().__init__(AHEAD_US)

    async def wait(self, event, until):
        await super().wait(event, until)
        self.ahead_us = 0


@on_sqlite
async def test_the_poller_goes_on_if_the_clock_is_set_back_between_a_turn_and_the_wait_for_the_next(backend, tmp_path):
    clock, beats = SteppingClock(), []
    async with backend.fresh(clock) as database:
        play = Play(database, clock, tmp_path, has_codearts=True)
        config = replace(play.config, rates=RequestRates(database, "", 600), clock=clock)
        poller = StatusPoller(lambda: config, PollerWaker())
        running = asyncio.create_task(poller.run(lambda: beats.append(True)))
        await until(lambda: len(beats) > 1)
        assert clock.ahead_us == 0
        config.stopping.set()
        poller.stop()
        await running
