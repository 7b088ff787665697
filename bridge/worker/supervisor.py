"""Keeps the loops of the gateway running: one that falls over, or hangs, is said, counted and begun again.

It knows nothing of what a loop does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from bridge.clock import Clock
from bridge.domain.retry import delay_us

FIRST_RESTART_US = 250_000  # a loop that fell over by chance is hardly missed
MAX_RESTART_US = 30_000_000  # one that cannot run does not fill the log

SILENT_US = 15 * 60 * 1_000_000
"""A loop that has not turned for that long hangs: the longest call of all, a PUT, has ten minutes."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class SupervisedTask:
    """One named loop and how it has fared."""

    name: str
    run: Callable[[Callable[[], None]], Awaitable[None]]
    beat_at: int
    falls: int = 0
    last_error: str | None = None


@dataclass(slots=True)
class Supervisor:
    """Runs loops until each returns by itself, which it does when it is told to stop."""

    clock: Clock
    loops: list[SupervisedTask] = field(default_factory=list)

    def add(self, name: str, run: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Have `run` kept running under `name`; it calls what it is given at every turn, to show that it lives."""
        self.loops.append(SupervisedTask(name, run, beat_at=self.clock.now()))

    async def run(self) -> None:
        """Run all loops side by side."""
        async with asyncio.TaskGroup() as tasks:
            for loop in self.loops:
                tasks.create_task(self._keep(loop), name=loop.name)

    def _beat(self, loop: SupervisedTask) -> None:
        loop.beat_at = self.clock.now()

    async def _keep(self, loop: SupervisedTask) -> None:
        never = asyncio.Event()
        while True:
            try:
                await self._run_watched(loop)
            except Exception as error:
                loop.falls += 1
                loop.last_error = type(error).__name__
                log.exception("loop fell over, beginning again", loop=loop.name, falls=loop.falls)
            else:
                return
            pause = delay_us(loop.falls, first_us=FIRST_RESTART_US, max_us=MAX_RESTART_US, salt=loop.name)
            await self.clock.wait(never, self.clock.now() + pause)

    async def _run_watched(self, loop: SupervisedTask) -> None:
        """Run the loop until it returns; end it and raise TimeoutError where it no longer turns."""
        self._beat(loop)
        ended = asyncio.Event()
        running = asyncio.ensure_future(loop.run(partial(self._beat, loop)))
        running.add_done_callback(lambda _: ended.set())
        try:
            while not running.done():
                await self.clock.wait(ended, loop.beat_at + SILENT_US)
                if not running.done() and self.clock.now() - loop.beat_at >= SILENT_US:
                    raise TimeoutError(f"The loop {loop.name} has not turned for {SILENT_US // 1_000_000} seconds.")
            if running.cancelled():  # by nobody here: whoever supervises would end with it, and nobody would say so
                raise RuntimeError(f"The loop {loop.name} was cancelled from within.")
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
