"""Stream the bodies of a proxied call in both directions, with back-pressure and an idle timeout.

The head of the response is written here as bytes, because aiohttp's own responses add and drop headers.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from enum import Enum
from types import TracebackType
from typing import Final, Self

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from bridge.client.passthrough import ProxyResponse
from bridge.errors import BadParameter, Unavailable
from bridge.server.http.requests import content_of, read_body

IDLE_SECONDS: Final = 60.0
"""Between two pieces, or before the response: the limit of CodeArts' own gateway."""

MAX_BODY_SECONDS: Final = 3600.0
"""For the body of a streamed call. Huawei takes 12 MB, which a caller at 4 KiB a second sends within this time."""

TOO_SLOW: Final = "The call arrived too slowly, so it was not forwarded completely. Send it again."

CHECK_SECONDS: Final = 1.0
"""How soon the slot of a caller that has disconnected is freed."""


class WaitingFor(Enum):
    """The side that an exchange waits for."""

    UPSTREAM = "upstream"
    SENDER = "sender"  # the caller, for its body
    READER = "reader"  # the caller, to read the response; the listener has a timeout for that


class EndCause(Enum):
    """Why an exchange was ended."""

    CALLER_GONE = "caller gone"
    CALLER_STALLED = "caller stalled"
    UPSTREAM_STALLED = "upstream stalled"


class IdleTimeout:
    """Cancels its block with TimeoutError if nothing moves, or if the caller disconnects; `end_cause` is why."""

    def __init__(self, request: web.Request, *, idle_seconds: float) -> None:
        self.end_cause: EndCause | None = None
        self.waiting_on = WaitingFor.UPSTREAM
        self._request = request
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self.restart(WaitingFor.UPSTREAM)
        self._next_check = self._loop.call_later(min(CHECK_SECONDS, self._idle_seconds), self._check)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._next_check.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def restart(self, side: WaitingFor) -> None:
        """Start to wait for `side` after bytes have moved."""
        self.waiting_on = side
        self._moved_at = self._loop.time()

    def _check(self) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            self._end(EndCause.CALLER_GONE)
        elif self.waiting_on is not WaitingFor.READER and self._loop.time() - self._moved_at >= self._idle_seconds:
            self._end(EndCause.CALLER_STALLED if self.waiting_on is WaitingFor.SENDER else EndCause.UPSTREAM_STALLED)
        else:
            self._next_check = self._loop.call_later(min(CHECK_SECONDS, self._idle_seconds), self._check)

    def _end(self, cause: EndCause) -> None:
        self.end_cause = cause
        self._timeout.reschedule(self._loop.time())


_BODILESS: Final = frozenset({204, 304})


class StreamedResponse(web.StreamResponse):
    """A response that was written already; aiohttp only needs to know whether to keep the connection."""

    def __init__(self, status: int, *, keeps_connection: bool) -> None:
        super().__init__(status=status)
        self._keep_alive = keeps_connection

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing; the head was written."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing; the body was written."""


async def request_body(
    request: web.Request,
    idle_timeout: IdleTimeout,
    *,
    max_seconds: float = MAX_BODY_SECONDS,
    max_bytes: int | None = None,
) -> AsyncIterator[bytes]:
    """Yield the body as it arrives, after 100 (Continue) if the caller waits for it.

    Raise BadParameter if its framing is broken, Unavailable if it is slower than `read_body` permits or takes longer
    than `max_seconds`, TooLarge after `max_bytes` (None: any size), ConnectionError if the caller disconnects.
    """
    pieces = read_body(await content_of(request), max_bytes=max_bytes, max_seconds=max_seconds)
    while True:
        idle_timeout.restart(WaitingFor.SENDER)
        try:
            piece = await anext(pieces, b"")
        except BadParameter as error:
            raise BadParameter("The body's framing is broken, so the call was not forwarded. Send it again.") from error
        except Unavailable as error:
            raise Unavailable(TOO_SLOW) from error
        finally:
            idle_timeout.restart(WaitingFor.UPSTREAM)
        if not piece:
            return
        yield piece


class ResponseWriter:
    """Writes one response to the caller."""

    def __init__(self, request: web.Request, incoming: ProxyResponse, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._writer = request.writer
        self._incoming = incoming
        self._has_body = request.method != "HEAD" and incoming.status not in _BODILESS
        self._is_chunked = self._has_body and not incoming.has_length and request.version >= HttpVersion11
        ends_by_closing = self._has_body and not incoming.has_length and not self._is_chunked
        self.keeps_connection = request.keep_alive and not ends_by_closing and request.content.is_eof()
        self._headers = headers
        self._version = request.version

    def head(self) -> bytes:
        """Return status line and headers as bytes."""
        major, minor = self._version
        reason = self._incoming.reason.encode("utf-8", "surrogateescape")
        lines = [f"HTTP/{major}.{minor} {self._incoming.status} ".encode("ascii") + reason]
        lines += [name + b": " + value for name, value in self._headers]
        if self._is_chunked:
            lines.append(b"Transfer-Encoding: chunked")
        if not self.keeps_connection:
            lines.append(b"Connection: close")
        elif self._version < HttpVersion11:
            lines.append(b"Connection: keep-alive")
        return b"\r\n".join([*lines, b"", b""])

    async def write(self, idle_timeout: IdleTimeout) -> int:
        """Write head and body, and return the size of the body in bytes."""
        content, writer = self._incoming.content, self._writer
        piece = content.read_nowait() if self._has_body else b""
        size = 0
        idle_timeout.restart(WaitingFor.READER)
        if self._is_chunked:
            await writer.write(self.head())
            writer.enable_chunking()
        else:
            await writer.write(self.head() + piece)
            size, piece = len(piece), b""
        idle_timeout.restart(WaitingFor.UPSTREAM)
        while self._has_body and (piece := piece or await content.readany()):
            idle_timeout.restart(WaitingFor.READER)
            await writer.write(piece)
            idle_timeout.restart(WaitingFor.UPSTREAM)
            size, piece = size + len(piece), b""
        if self._is_chunked:
            await writer.write_eof()
        return size
