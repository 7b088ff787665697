"""A clock that stands still until a test moves it: back-offs of days pass in microseconds.

It implements bridge.clock.Clock and knows nothing of what is tested with it.
"""

import asyncio
from typing import Any

from bridge.clock import SystemClock

START = 1_700_000_000_000_000  # microseconds UTC: any time will do, this one looks like one


class FakeClock:
    """Time as the test says; whoever waits is woken when the test advances to its moment."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self._passed = 0
        self._sleepers: dict[asyncio.Future[None], int] = {}

    def now(self) -> int:
        return self._now

    def steady(self) -> int:
        return self._passed

    @property
    def next_wake_at(self) -> int | None:
        """When the first of those who wait for a time wants to be woken."""
        return min(self._sleepers.values(), default=None)

    def advance(self, by_us: int) -> None:
        """Let time pass (or run back, as a clock that is set) and wake those whose moment has come."""
        self.set(self._now + by_us)

    def set(self, now: int) -> None:
        """Make it `now` and wake those whose moment has come."""
        self._passed += max(0, now - self._now)
        self._now = now
        for sleeper, until in self._sleepers.items():
            if until <= now and not sleeper.done():
                sleeper.set_result(None)

    async def wait(self, event: asyncio.Event, until: int | None) -> None:
        """Return when `event` is set or the test has advanced to `until`; always give others a turn first."""
        await asyncio.sleep(0)
        if event.is_set() or (until is not None and until <= self._now):
            return
        alarm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if until is not None:
            self._sleepers[alarm] = until
        called = asyncio.create_task(event.wait())
        try:
            either: tuple[asyncio.Future[Any], ...] = (alarm, called)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._sleepers.pop(alarm, None)
            alarm.cancel()
            called.cancel()
            await asyncio.gather(called, return_exceptions=True)

    async def sleep_until(self, until: int) -> None:
        """Return when the test has advanced to `until`."""
        await self.wait(asyncio.Event(), until)


class SetClock(SystemClock):
    """The machine's clock as a test sets it: `ahead_us` of the right time. Its steady clock is the machine's."""

    def __init__(self, ahead_us: int = 0) -> None:
        self.ahead_us = ahead_us

    def now(self) -> int:
        return super().now() + self.ahead_us
