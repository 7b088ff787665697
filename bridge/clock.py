"""The clock: the time now, and waiting for a time. Tests pass a clock of their own instead of `SystemClock`."""

import asyncio
import time
from typing import Protocol

from bridge.domain.instants import Instant


class Clock(Protocol):
    """Wall-clock time in microseconds since the epoch (UTC), a steady clock, and waiting."""

    def now(self) -> Instant:
        """Return the wall-clock time in microseconds UTC."""

    def steady(self) -> int:
        """Return microseconds since an arbitrary moment, by a clock that is never set."""

    async def wait(self, event: asyncio.Event, until: int | None) -> None:
        """Return as soon as `event` is set or `until` (microseconds UTC) has come."""

    async def sleep_until(self, until: int) -> None:
        """Return when `until` (microseconds UTC) has come."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> Instant:
        return Instant(time.time_ns() // 1000)

    def steady(self) -> int:
        return time.monotonic_ns() // 1000

    async def wait(self, event: asyncio.Event, until: int | None) -> None:
        try:
            async with asyncio.timeout(None if until is None else max(0, until - self.now()) / 1_000_000):
                await event.wait()
        except TimeoutError:
            return

    async def sleep_until(self, until: int) -> None:
        await asyncio.sleep(max(0, until - self.now()) / 1_000_000)
