"""The connections of one listener: how many there may be, and how long each may keep the bridge waiting.

It knows neither requests nor answers beyond "one is under way": it wraps the protocol that does.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from bridge.errors import Unavailable
from bridge.server.http.responses import refusal

MAX_CONNECTIONS: Final = 1_000
"""A build farm uploads over a few dozen; beyond this many the one that has kept silent the longest is cut."""

HEADER_SECONDS: Final = 20.0
"""From the connection, or from a request's first byte, to the end of its headers: aiohttp itself waits for ever."""

READER_SECONDS: Final = 60.0
"""A client that takes nothing of its answer for this long is gone, or wants to hold our memory."""

CROWDED: Final = Unavailable("The bridge serves as many connections as it can. Send it again in a moment.")

Observe = Callable[[str], None]
"""Receives why a connection was cut: `header`, `reader`, or `crowd`."""


class ConnectionLimiter:
    """Guards the connections that `guarded` makes; `watch` must be the outermost middleware of what they serve."""

    def __init__(
        self,
        observe: Observe,
        *,
        most: int = MAX_CONNECTIONS,
        header_seconds: float = HEADER_SECONDS,
        reader_seconds: float = READER_SECONDS,
    ) -> None:
        self.observe = observe
        self.header_seconds = header_seconds
        self.reader_seconds = reader_seconds
        self._most = most
        self._open: dict[object, _Guarded] = {}
        self._waiting: dict[_Guarded, None] = {}  # for a request, the longest first

    @web.middleware
    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Hold the connection's deadlines while a request is under way: bodies and handlers have their own."""
        connection = self._open.get(request.protocol)
        if connection is None:
            return await handler(request)
        connection.begin_request()
        try:
            answer = await handler(request)
            # Sent here, so that it is under way until then; aiohttp finds nothing left to do, or nobody to do it for.
            with suppress(ConnectionError):
                await answer.prepare(request)
                await answer.write_eof()
            return answer
        finally:
            connection.end_request()

    def watching(self) -> Middleware:
        """Return `watch` as the application takes it."""
        return cast(Middleware, self.watch)

    def guarded(self, protocol: "HttpProtocol") -> asyncio.Protocol:
        """Return the protocol to be given to a new connection, which hands everything on to `protocol`."""
        return _Guarded(self, protocol)

    def take(self, connection: "_Guarded", protocol: object) -> bool:
        """Count a new connection; where there are too many, a silent one gives it its place. False: none did."""
        if len(self._open) >= self._most:
            silent = next(iter(self._waiting), None)
            if silent is None:
                return False
            silent.cut("limit")
        self._open[protocol] = connection
        self.waits(connection)
        return True

    def waits(self, connection: "_Guarded") -> None:
        """Note that a connection has nothing under way from now on."""
        self._waiting[connection] = None

    def works(self, connection: "_Guarded") -> None:
        """Note that a connection has a request under way."""
        self._waiting.pop(connection, None)

    def forget(self, connection: "_Guarded", protocol: object) -> None:
        """Note that a connection has ended; twice is once."""
        self._waiting.pop(connection, None)
        self._open.pop(protocol, None)


class HttpProtocol(Protocol):
    """What speaks HTTP over a connection: aiohttp's RequestHandler."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class _Guarded(asyncio.Protocol):
    """One connection: hands everything on, and cuts who keeps it waiting."""

    def __init__(self, crowd: ConnectionLimiter, protocol: HttpProtocol) -> None:
        self._crowd = crowd
        self._protocol = protocol
        self._transport: asyncio.Transport | None = None
        self._under_way = False
        self._header_deadline: asyncio.TimerHandle | None = None
        self._reader_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        if not self._crowd.take(self, self._protocol):
            self._crowd.observe("limit")
            transport.write(_turned_away())
            transport.close()
            return
        self._transport = transport
        self._await_header()
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if not self._under_way and self._header_deadline is None:
            self._await_header()
        self._protocol.data_received(data)

    def eof_received(self) -> None:
        if self._transport is not None:
            self._protocol.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._drop_deadlines()
        self._crowd.forget(self, self._protocol)
        if self._transport is not None:
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._protocol.pause_writing()
            self._await_reader(self._transport)

    def resume_writing(self) -> None:
        if self._reader_deadline is not None:
            self._reader_deadline.cancel()
            self._reader_deadline = None
        if self._transport is not None:
            self._protocol.resume_writing()

    def begin_request(self) -> None:
        """Its headers have come."""
        self._under_way = True
        self._crowd.works(self)
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None

    def end_request(self) -> None:
        """Its handler has an answer, or none."""
        self._under_way = False
        if self._transport is not None and not self._transport.is_closing():
            self._crowd.waits(self)

    def cut(self, why: str) -> None:
        """End the connection now, whatever is still to be sent."""
        self._crowd.observe(why)
        self._drop_deadlines()
        self._crowd.forget(self, self._protocol)
        if self._transport is not None:
            self._transport.abort()

    def _await_header(self) -> None:
        loop = asyncio.get_running_loop()
        self._header_deadline = loop.call_later(self._crowd.header_seconds, self.cut, "header_timeout")

    def _await_reader(self, transport: asyncio.Transport) -> None:
        """Look whether the client takes anything; what it takes slowly, but takes, is left to it."""
        unsent_bytes = transport.get_write_buffer_size()

        def look() -> None:
            if transport.get_write_buffer_size() < unsent_bytes:
                self._await_reader(transport)
            else:
                self.cut("write_timeout")

        self._reader_deadline = asyncio.get_running_loop().call_later(self._crowd.reader_seconds, look)

    def _drop_deadlines(self) -> None:
        for deadline in (self._header_deadline, self._reader_deadline):
            if deadline is not None:
                deadline.cancel()
        self._header_deadline = self._reader_deadline = None


def _turned_away() -> bytes:
    """Return a whole answer in CodeArts' shape for a connection that nobody has a place for."""
    answer = refusal(CROWDED)
    body = answer.body if isinstance(answer.body, bytes) else b""
    head = (
        f"HTTP/1.1 {answer.status} Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Retry-After: {answer.headers['Retry-After']}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
