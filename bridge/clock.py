"""What time it is, and wake me then: one of the two seams through which the core meets the world.

It knows nothing else. Tests put a clock of their own in its place.
"""

import asyncio
import time
from typing import Protocol

from bridge.domain.instants import Instant


class Clock(Protocol):
    """Wall-clock time in microseconds UTC, and waiting until such a time."""

    def now(self) -> Instant: ...

    def steady(self) -> int:
        """Return the microseconds since some moment, by a clock that nobody sets."""

    async def wait(self, event: asyncio.Event, until: int | None) -> None:
        """Return when `event` is set or `until` has come, whichever is first."""


class SystemClock:
    """The machine's own clock."""

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
