"""A queue for checks of tokens at IAM, in which addresses take turns, so that a flood of one keeps no other out.

An origin is an address, or the /64 of an IPv6 address (`network_of`). Origins that sent a good token go first, then
those that are not known, then those whose tokens were all wrong.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from bridge.domain.instants import SECOND
from bridge.values import dataclass

MAX_CHECKS: Final = 64
"""Validations at once. IAM answers in a tenth of a second, so it would throttle the bridge sooner."""

MAX_OF_ORIGIN: Final = 48
"""Of those, for one origin: many callers may share the address of a proxy."""

MAX_OF_SUSPECTS: Final = 16
"""Of those, for all origins together whose tokens were all wrong."""

MAX_WAITING: Final = 1_000
"""As many as connections. If more wait, the last one of the origin that has the most is sent away."""

WAIT_SECONDS: Final = 20.0
"""CI waits for it, and retries. If IAM needs a second for an answer, one origin gets 960 turns in this time."""

GOOD_US: Final = 3600 * SECOND
WRONG_US: Final = 600 * SECOND
"""How long a good or a wrong token of an origin counts."""

MAX_ORIGINS: Final = 10_000
"""Remembered with a good token, and as many with a wrong one, so that strangers cannot evict good ones."""


class QueueFullError(Exception):
    """There was no turn in time."""


@dataclass(eq=False, slots=True)
class _Waiter:
    turn: asyncio.Future[None]
    is_gone: Callable[[], bool]
    has_turn: bool = False


class FairQueue:
    """Gives turns to checks. `steady` returns microseconds of a clock that is never set."""

    def __init__(self, steady: Callable[[], int]) -> None:
        self._steady = steady
        self._running: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()  # the origin whose turn is next first
        self._good: OrderedDict[str, int] = OrderedDict()  # until when
        self._wrong: OrderedDict[str, int] = OrderedDict()

    def record(self, origin: str, *, good: bool) -> None:
        """Record IAM's verdict on a token that came from `origin`."""
        origins, until = (self._good, self._steady() + GOOD_US) if good else (self._wrong, self._steady() + WRONG_US)
        origins[origin] = until
        origins.move_to_end(origin)
        if len(origins) > MAX_ORIGINS:
            origins.popitem(last=False)

    @asynccontextmanager
    async def turn(self, origin: str, is_gone: Callable[[], bool]) -> AsyncIterator[None]:
        """Hold a turn for a block; raise QueueFullError if it does not come in time, or comes when `is_gone`."""
        waiter = _Waiter(asyncio.get_running_loop().create_future(), is_gone)
        self._waiting.setdefault(origin, deque()).append(waiter)
        self._start_next()
        self._shorten()
        try:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await waiter.turn
            except TimeoutError:
                raise QueueFullError from None
            yield
        finally:
            if waiter.has_turn:
                self._running[origin] -= 1
                self._running += Counter()  # forgets origins without checks
                self._start_next()
            else:
                self._leave(origin, waiter)

    def _leave(self, origin: str, waiter: _Waiter) -> None:
        waiters = self._waiting.get(origin)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[origin]

    def _start_next(self) -> None:
        while self._running.total() < MAX_CHECKS:
            suspects = sum(running for origin, running in self._running.items() if self._is_suspect(origin))
            origins = (origin for origin in self._waiting if self._may_start(origin, suspects))
            origin = min(origins, key=self._rank, default=None)
            if origin is None:
                return
            waiters = self._waiting[origin]
            waiter = waiters.popleft()
            if waiters:
                self._waiting.move_to_end(origin)
            else:
                del self._waiting[origin]
            if waiter.turn.done():  # canceled in this turn of the loop
                continue
            if waiter.is_gone():
                waiter.turn.set_exception(QueueFullError())
                continue
            waiter.has_turn = True
            self._running[origin] += 1
            waiter.turn.set_result(None)

    def _may_start(self, origin: str, suspects: int) -> bool:
        if self._running[origin] >= MAX_OF_ORIGIN:
            return False
        return suspects < MAX_OF_SUSPECTS or not self._is_suspect(origin)

    def _rank(self, origin: str) -> int:
        """Return 0 for an origin that goes first; of equal ones, the first in the queue does."""
        if self._good.get(origin, 0) > self._steady():
            return 0
        return 2 if self._is_suspect(origin) else 1

    def _is_suspect(self, origin: str) -> bool:
        steady = self._steady()
        return self._good.get(origin, 0) <= steady < self._wrong.get(origin, 0)

    def _shorten(self) -> None:
        if sum(map(len, self._waiting.values())) > MAX_WAITING:
            last = max(self._waiting.values(), key=len)[-1]
            if not last.turn.done():
                last.turn.set_exception(QueueFullError())
