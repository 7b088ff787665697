"""The dispatcher's loop over a real ledger: its heartbeat, and the pause after a reconciler fails."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from bridge.domain.instants import SECOND
from bridge.domain.policy import RECORD_TIMEOUT
from bridge.errors import LedgerRejectedWrite
from bridge.store.schema import builds
from bridge.worker import build_status, dispatcher
from bridge.worker.delivery_slots import DeliverySlots
from bridge.worker.dispatcher import DISPATCH_INTERVAL_US, FAULT, FAULT_PAUSE_US, POLL_INTERVAL_US, Dispatcher
from tests.support.builders import HOUR, MINUTE
from tests.support.fake_clock import START, FakeClock
from tests.support.ledger import report
from tests.support.worker_play import JOBS, Outside, Play

PATIENCE_SECONDS = 60


class Slow(Outside):
    """TestNod and its storage answer one call after the other, each when it is let."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.let = asyncio.Semaphore(0)
        self.asked: asyncio.Queue[str] = asyncio.Queue()

    async def register(self, token, run_parameters):
        await self._wait("register")
        return await super().register(token, run_parameters)

    async def put(self, url, chunks, **other):
        await self._wait("put")
        return await super().put(url, chunks, **other)

    async def _wait(self, call: str) -> None:
        self.asked.put_nowait(call)
        await self.let.acquire()

    async def next_call(self) -> str:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.asked.get()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_call_that_ends_shows_that_the_carriers_live_though_no_place_is_free(
    database, clock, tmp_path, monkeypatch
):
    monkeypatch.setattr(dispatcher, "MAX_RECONCILERS", 1)
    play = Play(database, clock, tmp_path, outside=Slow(clock))
    await play.arrive(1)
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    loop = Dispatcher(lambda: play.config, owner="me")
    running = asyncio.create_task(loop.run(beat))
    assert await play.outside.next_call() == "register"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not loop._slots._waiters:  # noqa: ASYNC110 -- the loop wants its only place for another build
            await asyncio.sleep(0)
    beats_before = beats
    play.outside.let.release()
    assert await play.outside.next_call() == "put"
    assert beats > beats_before
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_each_call_of_a_step_shows_that_the_dispatcher_lives_though_all_slots_are_taken(
    database, clock, tmp_path, monkeypatch
):
    monkeypatch.setattr(dispatcher, "MAX_RECONCILERS", 1)
    slots = DeliverySlots(2)  # none is spare
    play = Play(database, clock, tmp_path, outside=Slow(clock), slots=slots, concurrency_per_build=1)
    await play.arrive(1)
    for job_id in JOBS:
        for name in ("second.xml", "third.xml"):
            await play.ledger.accept(report(name), job_id=job_id, build_no=1)
    beats = []
    loop = Dispatcher(lambda: play.config, owner="me")
    running = asyncio.create_task(loop.run(lambda: beats.append("dispatcher")))
    calls = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        calls.append(await play.outside.next_call())
        while not loop._slots._waiters:  # noqa: ASYNC110 -- the loop wants its only place for another build
            await asyncio.sleep(0)
        beats_after = [len(beats)]
        for _ in range(5):  # the first PUT begins a step that has all others
            play.outside.let.release()
            calls.append(await play.outside.next_call())
            beats_after.append(len(beats))
    assert calls == ["register", "put"] * 3
    assert beats_after == sorted(set(beats_after))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def patient_carriers(play: Play) -> Dispatcher:
    """Return a dispatcher whose leases last: the test's clock runs faster than the ledger writes."""
    config = replace(play.config, lease_us=HOUR)
    return Dispatcher(lambda: config, owner="me")


class Faulty(Outside):
    """Storage makes the bridge fall over a fault of its own, until `fault` is None."""

    def __init__(self, clock: FakeClock, fault: Exception) -> None:
        super().__init__(clock)
        self.fault: Exception | None = fault
        self.puts = 0

    async def put(self, url, chunks, **other):
        self.puts += 1
        if self.fault is not None:
            raise self.fault
        return await super().put(url, chunks, **other)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("fault", [ValueError("a bug"), LedgerRejectedWrite("no")], ids=["bug", "unwritable"])
@pytest.mark.parametrize("notices_fail", [False, True])
async def test_a_build_that_every_visit_falls_over_rests_and_says_so_until_one_gets_through(
    database, clock, tmp_path, monkeypatch, fault, notices_fail
):
    if notices_fail:
        monkeypatch.setattr(dispatcher, "events_of_block", None)  # a call of it raises
    outside = Faulty(clock, fault)
    play = Play(database, clock, tmp_path, outside=outside)
    await play.ledger.accept(report(), job_id="b" * 32, build_no=1)
    loop = patient_carriers(play)

    async def until(condition) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await condition():
                clock.advance(DISPATCH_INTERVAL_US)

    async def held() -> str | None:
        (row,) = await play.ledger.rows(select(builds.c.blocked_reason))
        return row.blocked_reason

    async def delivered() -> bool:
        return await play.states() == ["delivered"] and await held() is None

    running = asyncio.create_task(loop.run(lambda: None))
    await until(held)
    assert (await held()) == FAULT.format(type(fault).__name__)
    for _ in range(20):  # it is due in a minute, and not when its lease would have ended
        clock.advance(SECOND)
        await held()
    assert outside.puts == 1
    outside.fault = None
    clock.advance(FAULT_PAUSE_US)
    await until(delivered)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class SlowToTell(Outside):
    """CodeArts tells that all builds run, and does not answer what is `slow`."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.running = True
        self.slow = ""  # build-info or record-info
        self.waiting = 0

    async def build_info(self, job_id, build_no):
        await self._think("build-info")
        return await super().build_info(job_id, build_no)

    async def record_info(self, job_id, build_no):
        await self._think("record-info")
        return await super().record_info(job_id, build_no)

    async def _think(self, question):
        if self.slow == question:
            self.waiting += 1
            await asyncio.Event().wait()


@pytest.fixture
def few_places(monkeypatch):
    """Three visits at once, of which two may ask CodeArts the same."""
    monkeypatch.setattr(dispatcher, "MAX_RECONCILERS", 3)
    monkeypatch.setattr(build_status, "MAX_CALLS", 2)


@pytest.mark.usefixtures("few_places")
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_codearts_that_is_slow_to_tell_of_many_builds_leaves_places_to_reports(database, clock, tmp_path):
    outside = SlowToTell(clock)
    play = Play(database, clock, tmp_path, has_codearts=True, outside=outside)
    loop = patient_carriers(play)

    async def delivered(count: int) -> None:
        while await play.states() != ["delivered"] * count:
            clock.advance(DISPATCH_INTERVAL_US)

    running = asyncio.create_task(loop.run(lambda: None))
    async with asyncio.timeout(PATIENCE_SECONDS):
        for build_no in range(1, 5):
            await play.ledger.accept(report(), job_id="b" * 32, build_no=build_no)
        await delivered(4)
        outside.slow = "build-info"
        while outside.waiting < 2:
            clock.advance(SECOND)
            await play.states()
        for _ in range(2 * MINUTE // SECOND):  # in which the others are to be asked about
            clock.advance(SECOND)
            await play.states()
        assert outside.waiting == 2
        await play.ledger.accept(report(), job_id="b" * 32, build_no=5)
        await delivered(5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.usefixtures("few_places")
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_builds_that_a_slow_codearts_does_not_describe_go_out_without_once_they_have_waited(
    database, clock, tmp_path
):
    outside = SlowToTell(clock)
    outside.slow = "record-info"
    play = Play(database, clock, tmp_path, has_codearts=True, outside=outside)
    for build_no in range(1, 6):
        await play.ledger.accept(report(), job_id="b" * 32, build_no=build_no)
    began = clock.now()
    running = asyncio.create_task(patient_carriers(play).run(lambda: None))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await play.states()).count("delivered") < 3:
            clock.advance(SECOND)
    assert clock.now() >= began + RECORD_TIMEOUT
    assert outside.waiting == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class SetBack(FakeClock):
    """Is set back by 40 days while the dispatcher pauses between two looks."""

    async def wait(self, event: asyncio.Event, until: int | None) -> None:
        if until == START + DISPATCH_INTERVAL_US:
            self.set(START - 40 * 24 * HOUR)
            return
        await super().wait(event, until)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_clock_that_is_set_back_between_two_looks_puts_the_next_one_off_no_longer_than_usual(
    database, tmp_path
):
    clock = SetBack()
    loop = patient_carriers(Play(database, clock, tmp_path))
    running = asyncio.create_task(loop.run(lambda: None))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while clock.next_wake_at is None:  # noqa: ASYNC110 -- the loop looks, and nothing announces its end
            await asyncio.sleep(0)
    assert clock.next_wake_at <= clock.now() + POLL_INTERVAL_US
    loop.stop()
    await running
