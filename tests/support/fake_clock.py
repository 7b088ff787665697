"""Clocks for tests. FakeClock stands still until a test moves it: days of back-off take microseconds."""

import asyncio
from typing import Any

from bridge.clock import SystemClock

START = 1_700_000_000_000_000  # microseconds UTC: any time will do, this one looks like one


class FakeClock:
    """A clock that the test sets. A task that waits for a time is woken when the test advances to it."""

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
        """The earliest time that a task waits for."""
        return min(self._sleepers.values(), default=None)

    def advance(self, by_us: int) -> None:
        """Move the time by `by_us`, also backwards, and wake the tasks whose time has come."""
        self.set(self._now + by_us)

    def set(self, now: int) -> None:
        """Set the time and wake the tasks whose time has come."""
        self._passed += max(0, now - self._now)
        self._now = now
        for sleeper, until in self._sleepers.items():
            if until <= now and not sleeper.done():
                sleeper.set_result(None)

    def step(self, by_us: int) -> None:
        """Set the time by `by_us`, as a correction from the network does: no time passes."""
        passed = self._passed
        self.advance(by_us)
        self._passed = passed

    async def wait(self, event: asyncio.Event, until: int | None) -> None:
        """Return when `event` is set or the test has advanced to `until`; always yield to other tasks first."""
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
