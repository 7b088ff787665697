"""The carriers' loop over a real ledger: that it is seen alive for as long as anything ends."""

import asyncio

import pytest

from bridge.worker import carriers
from bridge.worker.carriers import Carriers
from tests.fake_clock import FakeClock
from tests.integration.worker.play import Outside, Play

PATIENCE_SECONDS = 20


class Slow(Outside):
    """TestNod and its storage answer one call after the other, each when it is let."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.let = asyncio.Semaphore(0)
        self.asked: asyncio.Queue[str] = asyncio.Queue()

    async def register(self, token, pin):
        await self._wait("register")
        return await super().register(token, pin)

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
    monkeypatch.setattr(carriers, "VISITS", 1)
    play = Play(database, clock, tmp_path, outside=Slow(clock))
    await play.arrive(1)
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    loop = Carriers(lambda: play.shift, owner="me")
    running = asyncio.create_task(loop.run(beat))
    assert await play.outside.next_call() == "register"
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not loop._free._waiters:  # noqa: ASYNC110 -- the loop wants its only place for another build
            await asyncio.sleep(0)
    beats_before = beats
    play.outside.let.release()
    assert await play.outside.next_call() == "put"
    assert beats > beats_before
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
