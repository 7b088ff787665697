import asyncio

import pytest

from bridge.server.auth import fair_queue
from bridge.server.auth.fair_queue import (
    GOOD_US,
    MAX_CHECKS,
    MAX_OF_ORIGIN,
    MAX_OF_SUSPECTS,
    MAX_ORIGINS,
    WRONG_US,
    FairQueue,
    QueueFullError,
)
from tests.support.fake_clock import FakeClock

HERE, THERE, ELSEWHERE = "192.0.2.1", "198.51.100.1", "2001:db8::/64"


class Play:
    """A queue, and checks that run until they are ended; `begun` are their origins in order."""

    def __init__(self):
        self.clock = FakeClock()
        self.queue = FairQueue(self.clock.steady)
        self.begun = []
        self._running = []
        self.tasks = []

    async def check(self, origin, times=1):
        tasks = [asyncio.create_task(self._check(origin)) for _ in range(times)]
        self.tasks += tasks
        await self._settle()
        return tasks

    async def end(self, times=1):
        for _ in range(times):
            self._running.pop(0).set()
            await self._settle()

    async def _check(self, origin):
        async with self.queue.turn(origin, lambda: False):
            ended = asyncio.Event()
            self.begun.append(origin)
            self._running.append(ended)
            await ended.wait()

    async def _settle(self):
        for _ in range(5):
            await asyncio.sleep(0)

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def play():
    play = Play()
    yield play
    await play.close()


async def test_one_origin_leaves_turns_for_others(play):
    await play.check(HERE, 2 * MAX_CHECKS)
    assert play.begun == [HERE] * MAX_OF_ORIGIN
    await play.check(THERE)
    assert play.begun[-1] == THERE


async def test_origins_that_wait_take_turns(play, monkeypatch):
    monkeypatch.setattr(fair_queue, "MAX_CHECKS", 1)
    await play.check(HERE, 4)
    await play.check(THERE, 2)
    await play.check(ELSEWHERE)
    await play.end(6)
    assert play.begun == [HERE, HERE, THERE, ELSEWHERE, HERE, THERE, HERE]


async def test_origins_with_a_good_token_go_first_and_those_with_wrong_ones_only_last(play, monkeypatch):
    monkeypatch.setattr(fair_queue, "MAX_CHECKS", 1)
    play.queue.record(HERE, good=False)
    play.queue.record(THERE, good=False)
    play.queue.record(THERE, good=True)
    await play.check(HERE, 3)
    await play.check(ELSEWHERE)
    await play.check(THERE)
    await play.end(4)
    assert play.begun == [HERE, THERE, ELSEWHERE, HERE, HERE]


async def test_origins_with_wrong_tokens_have_few_turns_together(play):
    for origin in (HERE, THERE):
        play.queue.record(origin, good=False)
        await play.check(origin, MAX_CHECKS)
    assert len(play.begun) == MAX_OF_SUSPECTS
    await play.check(ELSEWHERE, MAX_OF_ORIGIN)
    assert play.begun[MAX_OF_SUSPECTS:] == [ELSEWHERE] * MAX_OF_ORIGIN


@pytest.mark.parametrize(("good", "lasts"), [(True, GOOD_US), (False, WRONG_US)])
async def test_what_an_origin_sent_counts_for_a_time(play, monkeypatch, good, lasts):
    monkeypatch.setattr(fair_queue, "MAX_CHECKS", 1)
    play.queue.record(THERE, good=good)
    play.clock.advance(lasts)
    await play.check(HERE)
    first, second = (HERE, THERE) if good else (THERE, HERE)
    await play.check(first)
    await play.check(second)
    await play.end(2)
    assert play.begun == [HERE, first, second]


async def test_strangers_cannot_evict_the_memory_of_a_good_token(play, monkeypatch):
    monkeypatch.setattr(fair_queue, "MAX_CHECKS", 1)
    play.queue.record(HERE, good=True)
    for number in range(MAX_ORIGINS + 1):
        play.queue.record(str(number), good=False)
    await play.check(THERE, 2)
    await play.check(HERE)
    await play.end(2)
    assert play.begun == [THERE, HERE, THERE]


async def test_if_too_many_wait_the_last_one_of_the_largest_origin_is_sent_away(play, monkeypatch):
    monkeypatch.setattr(fair_queue, "MAX_CHECKS", 1)
    monkeypatch.setattr(fair_queue, "MAX_WAITING", 3)
    flood = await play.check(HERE, 4)
    (other,) = await play.check(THERE)
    assert [task.done() for task in flood] == [False, False, False, True]
    assert isinstance(flood[-1].exception(), QueueFullError)
    await play.end(2)
    assert THERE in play.begun
    assert not other.done()


async def test_a_check_that_is_canceled_gives_its_turn_back(play, monkeypatch):
    monkeypatch.setattr(fair_queue, "MAX_CHECKS", 1)
    running, waiting, _ = await play.check(HERE, 3)
    waiting.cancel()
    running.cancel()
    await play.check(THERE)
    assert play.begun == [HERE, HERE]


async def test_a_check_that_is_canceled_as_its_turn_comes_gives_it_back(play, monkeypatch):
    monkeypatch.setattr(fair_queue, "MAX_CHECKS", 1)
    async with play.queue.turn(HERE, lambda: False):
        (waiting,) = await play.check(HERE)
    waiting.cancel()  # its turn has come, and it has not begun
    await play.check(THERE)
    assert play.begun == [THERE]
