"""The connections of a listener: how many there are, how long each may keep the bridge waiting, what a head may hold.

`ConnectionLimiter` wraps aiohttp's protocol and adds limits that aiohttp does not have.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from bridge.errors import BadParameter, Unavailable
from bridge.server.http.protocol import TOO_LARGE_HEAD, Connection, raw_response
from bridge.server.http.responses import error_response, failure_response

MAX_CONNECTIONS: Final = 1_000
"""A build farm uses a few dozen. If there are more than this, the one that has been idle the longest is closed."""

MAX_ADMIN_CONNECTIONS: Final = 250
"""Of the admin listener, which serves a few people and programs."""

HEADER_SECONDS: Final = 20.0
"""From the connection, or from a request's first byte, to the end of its headers; aiohttp has no such limit."""

WRITE_SECONDS: Final = 60.0
"""A client that reads nothing of its response for this long is gone, or wants to hold memory."""

MAX_HEADS_BYTES: Final = 32 * 1024 * 1024
"""Of the heads of all connections of a listener. They take about twice as much memory."""

REJECTED_SECONDS: Final = 2.0
"""A client whose head was too large may read the answer for so long; what it sends meanwhile is dropped."""

FIRST_REQUEST_LOOK_SECONDS: Final = 0.01

CROWD: Final = 8
"""If connections of one origin that never sent a whole head take more than this part of all places, these make way."""

TOO_MANY: Final = Unavailable("The bridge serves as many connections as it can. Send the request again in a moment.")

Observer = Callable[[str], None]
"""Receives the reason why a connection was closed: `header_timeout`, `header_size`, `write_timeout` or `limit`."""


class ConnectionLimiter:
    """Limits the connections whose protocols `guard` returns; `middleware` must be the outermost of the app."""

    def __init__(
        self,
        observer: Observer,
        *,
        max_connections: int = MAX_CONNECTIONS,
        header_seconds: float = HEADER_SECONDS,
        write_seconds: float = WRITE_SECONDS,
    ) -> None:
        self.observer = observer
        self.header_seconds = header_seconds
        self.write_seconds = write_seconds
        self.max_connections = max_connections
        self._new: dict[str, dict[GuardedConnection, None]] = {}  # by origin: never had a request, the oldest first
        self._open: set[GuardedConnection] = set()
        self._by_protocol: dict[object, GuardedConnection] = {}  # those that have sent something
        self._idle: dict[GuardedConnection, None] = {}  # the longest idle first
        self._unverified: dict[GuardedConnection, None] = {}  # whose request is in flight, the oldest first
        self._verified: dict[GuardedConnection, str] = {}  # whose request is in flight, with the caller
        self._heads = _HeadSizes()
        self._arriving = _HeadSizes()  # of the connections whose last head has not ended

    def middleware(self) -> Middleware:
        """Return the middleware that suspends a connection's deadlines while a request is in flight."""
        return cast(Middleware, self._track_request)

    def admit(self, new_protocol: Callable[[], Connection], origin: str) -> "GuardedConnection | None":
        """Return the protocol for a connection that was just accepted.

        It passes everything on to the protocol that `new_protocol` makes once the client sends something. If there are
        too many connections, another one is closed (see `close_one`); if none can be, return None. `origin` is the
        client's address, see `network_of`.
        """
        if len(self._open) >= self.max_connections and not self.close_one():
            self.observer("limit")
            return None
        connection = GuardedConnection(self, new_protocol, origin)
        self._open.add(connection)
        self._new.setdefault(origin, {})[connection] = None
        self.mark_idle(connection)
        return connection

    async def wait_for_requests(self) -> None:
        """Return when every connection has had a request."""
        while self._new:  # noqa: ASYNC110 -- once in the life of a gateway; an event would cost each request
            await asyncio.sleep(FIRST_REQUEST_LOOK_SECONDS)

    def close_one(self) -> bool:
        """Close the connection that is missed the least; return whether there is one.

        That is the oldest of a crowd from one origin that has sent no request, else the one that has been idle the
        longest, else the one whose request has been in flight the longest without a verified caller (`mark_verified`),
        else the slowest of the verified caller for whose clients the bridge waits on the most connections.
        """
        crowd = max(self._new.values(), key=len, default={})
        longest = next(iter(crowd if CROWD * len(crowd) > self.max_connections else self._idle), None)
        chosen = longest or next(iter(self._unverified), None) or self._slowest()
        if chosen is not None:
            chosen.close("limit")
        return chosen is not None

    def _slowest(self) -> "GuardedConnection | None":
        waiting = {
            connection: party for connection, party in self._verified.items() if connection.is_waiting_for_client
        }
        ((greediest, _),) = Counter(waiting.values()).most_common(1) or [("", 0)]
        rates = {connection: connection.rate() for connection, party in waiting.items() if party == greediest}
        return min(rates, key=rates.__getitem__, default=None)

    def close_silent(self) -> None:
        """Close every connection that has not begun HTTP, of which aiohttp knows nothing."""
        for connection in self._open.difference(self._by_protocol.values()):
            connection.close_silent()

    def begin_http(self, connection: "GuardedConnection", protocol: Connection) -> None:
        """Record that a connection has sent something, which `protocol` reads."""
        protocol.on_verified = partial(self.mark_verified, connection)
        self._by_protocol[protocol] = connection

    @web.middleware
    async def _track_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._by_protocol.get(request.protocol)
        if connection is None:  # it was closed since the request arrived
            if request.transport is None and not request.content.is_eof():
                raise ConnectionResetError("The connection was closed before the request's body had arrived.")
            return await handler(request)
        connection.begin_request()
        try:
            response = await handler(request)
            # Sent here, so that the request is in flight until its end; aiohttp then finds nothing left to send.
            with suppress(ConnectionError):
                await response.prepare(request)
                await response.write_eof()
            return response
        finally:
            connection.end_request()

    def mark_idle(self, connection: "GuardedConnection") -> None:
        """Record that a connection has no request in flight."""
        self._unverified.pop(connection, None)
        self._verified.pop(connection, None)
        self._idle[connection] = None

    def mark_busy(self, connection: "GuardedConnection") -> None:
        """Record that a connection has a request in flight, of a caller that is not verified yet."""
        self._idle.pop(connection, None)
        self._forget_new(connection)
        self._unverified[connection] = None

    def mark_verified(self, connection: "GuardedConnection", party: str) -> None:
        """Record that the request in flight is of the verified caller `party`."""
        if connection in self._unverified:
            del self._unverified[connection]
            self._verified[connection] = party

    def count_head(self, connection: "GuardedConnection", size: int) -> None:
        """Record the bytes of heads that a connection holds, and close others if all hold too many."""
        self._heads.set(connection, size)
        self._arriving.set(connection, size if connection.is_reading_head else 0)
        while self._heads.total > MAX_HEADS_BYTES:
            self._close_head()

    def _close_head(self) -> None:
        """Close a connection that holds much, and has done so the longest: an honest head is complete in a moment."""
        (self._arriving or self._heads).oldest_large().close("header_size")

    def remove(self, connection: "GuardedConnection", protocol: object) -> None:
        """Record that a connection has ended; may be called twice."""
        self._heads.set(connection, 0)
        self._arriving.set(connection, 0)
        self._idle.pop(connection, None)
        self._forget_new(connection)
        self._unverified.pop(connection, None)
        self._verified.pop(connection, None)
        self._by_protocol.pop(protocol, None)
        self._open.discard(connection)

    def _forget_new(self, connection: "GuardedConnection") -> None:
        crowd = self._new.get(connection.origin, {})
        crowd.pop(connection, None)
        if not crowd:
            self._new.pop(connection.origin, None)


class _HeadSizes:
    """The bytes of heads in memory by connection, in the order of first bytes, and their sum."""

    __slots__ = ("_sizes", "total")

    def __init__(self) -> None:
        self._sizes: dict[GuardedConnection, int] = {}
        self.total = 0

    def __bool__(self) -> bool:
        return bool(self._sizes)

    def set(self, connection: "GuardedConnection", size: int) -> None:
        before = self._sizes.get(connection, 0)
        if size == before:
            return
        self.total += size - before
        if size:
            self._sizes[connection] = size  # keeps its position
        else:
            del self._sizes[connection]

    def oldest_large(self) -> "GuardedConnection":
        """Return the first connection whose heads are of average size at least."""
        average = self.total / len(self._sizes)
        return next(connection for connection, size in self._sizes.items() if size >= average)


class GuardedConnection(asyncio.Protocol):
    """One connection: passes everything on, and closes it if it exceeds a limit.

    `connection_made` is called with the TCP transport. Then `begin` is called with the transport that HTTP uses, which
    differs if there is TLS. aiohttp's protocol, which costs most of a connection, is made when the client has sent
    something: those who only connect are to cost others little.
    """

    __slots__ = (
        "_began",
        "_early",
        "_ended",
        "_header_deadline",
        "_in_flight",
        "_limiter",
        "_new_protocol",
        "_protocol",
        "_received_bytes",
        "_tcp",
        "_transport",
        "_write_deadline",
        "origin",
    )

    def __init__(self, limiter: ConnectionLimiter, new_protocol: Callable[[], Connection], origin: str) -> None:
        self.origin = origin
        self._limiter = limiter
        self._new_protocol = new_protocol
        self._protocol: Connection | None = None
        self._tcp: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None  # of HTTP
        self._early: list[bytes] = []  # received at the end of the handshake, before `begin`
        self._in_flight = False
        self._began = 0.0  # the request in flight, by the event loop's clock
        self._received_bytes = 0  # of that request, its head included
        self._ended = False
        self._header_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    @property
    def is_reading_head(self) -> bool:
        """Whether a head has begun to arrive, and has not ended."""
        return self._protocol is not None and self._protocol.is_reading_head

    @property
    def is_waiting_for_client(self) -> bool:
        """Whether the bridge waits for the rest of a body, or for the client to read its response."""
        waits_for_body = self._protocol is not None and self._protocol.is_waiting_for_body
        return waits_for_body or self._write_deadline is not None

    def rate(self) -> float:
        """Return how many bytes a second have been received since the request in flight began."""
        return self._received_bytes / (1 + asyncio.get_running_loop().time() - self._began)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast(asyncio.Transport, transport)
        if self._ended:  # closed since it was accepted
            self._tcp.abort()
        else:
            self._start_header_deadline()

    def begin(self, transport: asyncio.Transport) -> None:
        """Start to serve HTTP on `transport`, unless the connection has ended."""
        if self._ended:
            transport.abort()
            return
        self._transport = transport
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._transport is None:
            self._early.append(data)
            return
        protocol = self._protocol or self._begin_http(self._transport)
        if not protocol.has_room(data):
            self._reject_head(protocol, self._transport)
            return
        if not self._in_flight and self._header_deadline is None:
            self._start_header_deadline()
        self._received_bytes += len(data)
        protocol.data_received(data)
        if not protocol.has_room():
            self._reject_head(protocol, self._transport)
            return
        self._limiter.count_head(self, protocol.head_bytes)

    def _begin_http(self, transport: asyncio.Transport) -> Connection:
        protocol = self._protocol = self._new_protocol()
        self._limiter.begin_http(self, protocol)
        protocol.connection_made(transport)
        return protocol

    def eof_received(self) -> None:
        if self._protocol is not None:
            self._protocol.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end()
        if self._protocol is not None:
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._protocol is not None and self._transport is not None:
            self._protocol.pause_writing()
            self._start_write_deadline(self._transport)

    def resume_writing(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        if self._protocol is not None:
            self._protocol.resume_writing()

    def begin_request(self) -> None:
        """Suspend the header deadline: the request's headers have arrived."""
        self._in_flight = True
        self._began = asyncio.get_running_loop().time()
        self._limiter.mark_busy(self)
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None
        if self._protocol is not None:  # aiohttp itself may have parsed what it held back
            self._limiter.count_head(self, self._protocol.head_bytes)

    def end_request(self) -> None:
        """Mark the connection idle, unless it is closing."""
        self._in_flight = False
        self._received_bytes = 0
        if self._protocol and self._transport and not self._ended and not self._transport.is_closing():
            self._protocol.end_request()
            self._limiter.count_head(self, self._protocol.head_bytes)
            self._limiter.mark_idle(self)

    def close(self, reason: str) -> None:
        """Close the connection at once, without sending what is still buffered; tell the observer."""
        self._limiter.observer(reason)
        self.abort()

    def abort(self) -> None:
        """Close the connection at once, also during its handshake."""
        self._end()
        if self._tcp is not None:
            self._tcp.abort()

    def close_silent(self) -> None:
        """Close a connection that has sent nothing: with a message of TLS, or at once during its handshake."""
        transport = self._transport
        if transport is None:
            self.abort()
        else:
            self._end()
            transport.close()

    def _end(self) -> None:
        self._cancel_deadlines()
        self._ended = True
        self._limiter.remove(self, self._protocol)

    def _reject_head(self, protocol: Connection, transport: asyncio.Transport) -> None:
        """Answer 431, unless a request before it has no answer yet, and close."""
        if protocol.owes_answer or transport.is_closing():
            self.close("header_size")
            return
        self._limiter.observer("header_size")
        self._cancel_deadlines()
        self._ended = True  # but it keeps its place, as long as it has a descriptor
        response = failure_response(431, BadParameter.code, TOO_LARGE_HEAD)
        transport.write(raw_response(response, "Request Header Fields Too Large"))
        self._header_deadline = asyncio.get_running_loop().call_later(REJECTED_SECONDS, transport.abort)

    def _start_header_deadline(self) -> None:
        loop = asyncio.get_running_loop()
        self._header_deadline = loop.call_later(self._limiter.header_seconds, self.close, "header_timeout")

    def _start_write_deadline(self, transport: asyncio.Transport) -> None:
        """Close the connection if the client reads nothing; a client that reads slowly keeps it."""
        unsent_bytes = transport.get_write_buffer_size()

        def check() -> None:
            if transport.get_write_buffer_size() < unsent_bytes:
                self._start_write_deadline(transport)
            else:
                self.close("write_timeout")

        self._write_deadline = asyncio.get_running_loop().call_later(self._limiter.write_seconds, check)

    def _cancel_deadlines(self) -> None:
        for deadline in (self._header_deadline, self._write_deadline):
            if deadline is not None:
                deadline.cancel()
        self._header_deadline = self._write_deadline = None


def too_many_response() -> bytes:
    """Return a complete HTTP response for a connection that is not served."""
    return raw_response(error_response(TOO_MANY), "Service Unavailable")
