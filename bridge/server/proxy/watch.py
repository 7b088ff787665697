"""Ends an exchange in which nothing moves any more, or whose caller has gone away; a long one that moves goes on.

It knows neither what is exchanged nor with whom.
"""

import asyncio
from enum import Enum
from types import TracebackType
from typing import Final, Self

from aiohttp import web

IDLE_SECONDS: Final = 60.0
"""Between two pieces, either way, or before the answer: CodeArts' own gateway gives its services no longer."""

LOOK_SECONDS: Final = 1.0
"""How soon a caller that has gone away gives its place to another."""


class Side(Enum):
    """Whom an exchange waits for."""

    UPSTREAM = "upstream"
    SENDER = "sender"  # the caller, for its body
    READER = "reader"  # the caller, to take the answer: the listener looks after that, and knows slow from still


class Ended(Enum):
    """Why an exchange was ended."""

    CALLER_GONE = "caller gone"
    CALLER_STALLED = "caller stalled"
    UPSTREAM_STALLED = "upstream stalled"


class Watch:
    """A time limit that moves with every piece: the block is cancelled with TimeoutError, and `ended` says why."""

    def __init__(self, request: web.Request, *, idle_seconds: float) -> None:
        self.ended: Ended | None = None
        self.waits_for = Side.UPSTREAM
        self._request = request
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self.wait_for(Side.UPSTREAM)
        self._next = self._loop.call_later(min(LOOK_SECONDS, self._idle_seconds), self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._next.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def wait_for(self, side: Side) -> None:
        """Begin to wait anew, for whoever is to move next: bytes went one way or the other."""
        self.waits_for = side
        self._moved_at = self._loop.time()

    def _look(self) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            self._end(Ended.CALLER_GONE)
        elif self.waits_for is not Side.READER and self._loop.time() - self._moved_at >= self._idle_seconds:
            self._end(Ended.CALLER_STALLED if self.waits_for is Side.SENDER else Ended.UPSTREAM_STALLED)
        else:
            self._next = self._loop.call_later(min(LOOK_SECONDS, self._idle_seconds), self._look)

    def _end(self, ended: Ended) -> None:
        self.ended = ended
        self._limit.reschedule(self._loop.time())
