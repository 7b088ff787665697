"""The bodies of a proxied call, both ways: piece by piece, no faster than the other side takes them, byte for byte.

It knows neither rights nor upstreams. The answer's head is written here as bytes: aiohttp's own answers would add
headers, and drop what they do not hold for theirs.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from enum import Enum
from types import TracebackType
from typing import Final, Self

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from bridge.client.passthrough import ProxyResponse
from bridge.errors import BadParameter

# Ends an exchange in which nothing moves any more, or whose caller has gone away; a long one that moves goes on.
#
# It knows neither what is exchanged nor with whom.


IDLE_SECONDS: Final = 60.0
"""Between two pieces, either way, or before the answer: CodeArts' own gateway gives its services no longer."""

LOOK_SECONDS: Final = 1.0
"""How soon a caller that has gone away gives its place to another."""


class WaitingFor(Enum):
    """Whom an exchange waits for."""

    UPSTREAM = "upstream"
    SENDER = "sender"  # the caller, for its body
    READER = "reader"  # the caller, to take the answer: the listener looks after that, and knows slow from still


class EndCause(Enum):
    """Why an exchange was ended."""

    CALLER_GONE = "caller gone"
    CALLER_STALLED = "caller stalled"
    UPSTREAM_STALLED = "upstream stalled"


class IdleTimeout:
    """A time limit that moves with every piece: the block is cancelled with TimeoutError, and `ended` says why."""

    def __init__(self, request: web.Request, *, idle_seconds: float) -> None:
        self.ended: EndCause | None = None
        self.waiting_on = WaitingFor.UPSTREAM
        self._request = request
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self.wait_for(WaitingFor.UPSTREAM)
        self._next = self._loop.call_later(min(LOOK_SECONDS, self._idle_seconds), self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._next.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def wait_for(self, side: WaitingFor) -> None:
        """Begin to wait anew, for whoever is to move next: bytes went one way or the other."""
        self.waiting_on = side
        self._moved_at = self._loop.time()

    def _look(self) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            self._end(EndCause.CALLER_GONE)
        elif self.waiting_on is not WaitingFor.READER and self._loop.time() - self._moved_at >= self._idle_seconds:
            self._end(EndCause.CALLER_STALLED if self.waiting_on is WaitingFor.SENDER else EndCause.UPSTREAM_STALLED)
        else:
            self._next = self._loop.call_later(min(LOOK_SECONDS, self._idle_seconds), self._look)

    def _end(self, ended: EndCause) -> None:
        self.ended = ended
        self._limit.reschedule(self._loop.time())


CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODILESS: Final = frozenset({204, 304})


class StreamedResponse(web.StreamResponse):
    """An answer that has been written already: aiohttp only learns whether the connection may be used again."""

    def __init__(self, status: int, *, keeps_connection: bool) -> None:
        super().__init__(status=status)
        self._keep_alive = keeps_connection

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Do nothing: the head was written."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: the body was written."""


async def request_body(request: web.Request, watch: IdleTimeout) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; a caller that waits to be told so is told to send it.

    Raise BadParameter where its framing is broken, ConnectionError when the caller goes away.
    """
    if request.version >= HttpVersion11 and request.headers.get("Expect"):
        await request.writer.write(CONTINUE)
        request.writer.output_size = 0  # aiohttp takes what was written for the answer's beginning
    while True:
        watch.wait_for(WaitingFor.SENDER)
        try:
            piece = await request.content.readany()
        except (HttpProcessingError, RequestPayloadError) as error:
            raise BadParameter("The body's framing is broken, so the call was not passed on. Send it again.") from error
        finally:
            watch.wait_for(WaitingFor.UPSTREAM)
        if not piece:
            return
        yield piece


class ResponseWriter:
    """Writes one answer to the caller."""

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
        """Return status line and headers as they are written."""
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

    async def write(self, watch: IdleTimeout) -> int:
        """Write head and body, and return the body's size in bytes."""
        content, writer = self._incoming.content, self._writer
        piece = content.read_nowait() if self._has_body else b""
        size = 0
        watch.wait_for(WaitingFor.READER)
        if self._is_chunked:
            await writer.write(self.head())
            writer.enable_chunking()
        else:
            await writer.write(self.head() + piece)
            size, piece = len(piece), b""
        watch.wait_for(WaitingFor.UPSTREAM)
        while self._has_body and (piece := piece or await content.readany()):
            watch.wait_for(WaitingFor.READER)
            await writer.write(piece)
            watch.wait_for(WaitingFor.UPSTREAM)
            size, piece = size + len(piece), b""
        if self._is_chunked:
            await writer.write_eof()
        return size
