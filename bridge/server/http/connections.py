"""The connections of a listener: how many there are, how long each may keep the bridge waiting, what a head may hold.

`ConnectionLimiter` wraps aiohttp's protocol and adds limits that aiohttp does not have.
"""

import asyncio
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import InvalidURLError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.typedefs import Handler, Middleware

from bridge.errors import BadParameter, BridgeError, Unavailable
from bridge.server.http.responses import UNEXPECTED, error_response, failure_response, next_request_id
from bridge.telemetry.repeated_lines import log_refusal

MAX_CONNECTIONS: Final = 1_000
"""A build farm uses a few dozen. If there are more than this, the one that has been idle the longest is closed."""

MAX_ADMIN_CONNECTIONS: Final = 250
"""Of the admin listener, which serves a few people and programs."""

HEADER_SECONDS: Final = 20.0
"""From the connection, or from a request's first byte, to the end of its headers; aiohttp has no such limit."""

WRITE_SECONDS: Final = 60.0
"""A client that reads nothing of its response for this long is gone, or wants to hold memory."""

MAX_HEAD_BYTES: Final = 256 * 1024
"""Of one request line with its headers. IAM tokens are documented up to 100,000 characters, and a request may have two;
aiohttp limits each of 128 headers, not their sum."""

MAX_HEADS_BYTES: Final = 32 * 1024 * 1024
"""Of the heads of all connections of a listener. They take about twice as much memory."""

REJECTED_SECONDS: Final = 2.0
"""A client whose head was too large may read the answer for so long; what it sends meanwhile is dropped."""

TOO_MANY: Final = Unavailable("The bridge serves as many connections as it can. Send the request again in a moment.")

Observer = Callable[[str], None]
"""Receives the reason why a connection was closed: `header_timeout`, `header_size`, `write_timeout` or `limit`."""

TOO_LONG = "The request's first line or one of its headers is too long. Send less in them."
TOO_LARGE_HEAD = f"The request's headers are larger than {MAX_HEAD_BYTES} bytes together. Send less in them."
BAD_URL = (
    "The request is not well-formed HTTP/1.1: its URL cannot be read, so nothing of it was. "
    "Percent-encode what is not ASCII in it, or send such a value as a form field: curl -F branch=NAME."
)
MALFORMED = (
    "The request is not well-formed HTTP/1.1, so nothing of it was read. "
    "Let an HTTP library write the request line, the headers and the body's length."
)
KNOWN_FAULTS = {LineTooLong: TOO_LONG, InvalidURLError: BAD_URL}

_END_OF_HEAD: Final = b"\r\n\r\n"

_log = structlog.get_logger(__name__)


# -- file descriptors: a process that has none left can neither accept connections nor open files ----------------

RESERVED_DESCRIPTORS: Final = 256
"""For the ledger, upstreams, validation processes, and connections that are being closed."""

DESCRIPTORS_OF_CONNECTION: Final = 2
"""Its socket, and the file of an upload."""

MAX_DESCRIPTORS: Final = 65_536
"""The soft limit is not raised further, because some systems permit a thousand million."""


def connection_limits() -> tuple[int, int]:
    """Raise the process's soft limit of descriptors; return how many connections each listener may have within it.

    The first number is that of the server listener. Log `descriptor_limit_low` if it is less than MAX_CONNECTIONS.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < raised:
        with suppress(ValueError, OSError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    wanted = MAX_CONNECTIONS + MAX_ADMIN_CONNECTIONS
    needed = wanted * DESCRIPTORS_OF_CONNECTION + RESERVED_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return MAX_CONNECTIONS, MAX_ADMIN_CONNECTIONS
    share = max(0, soft - RESERVED_DESCRIPTORS) / (needed - RESERVED_DESCRIPTORS)
    connections, admin = max(1, int(MAX_CONNECTIONS * share)), max(1, int(MAX_ADMIN_CONNECTIONS * share))
    _log.warning("descriptor_limit_low", limit=soft, needed=needed, connections=connections)
    return connections, admin


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
        self._max_connections = max_connections
        self._open: dict[object, GuardedConnection] = {}  # by aiohttp's protocol
        self._idle: dict[GuardedConnection, None] = {}  # the longest idle first
        self._heads: dict[GuardedConnection, int] = {}  # bytes of heads in memory
        self._heads_bytes = 0

    def middleware(self) -> Middleware:
        """Return the middleware that suspends a connection's deadlines while a request is in flight."""
        return cast(Middleware, self._track_request)

    def admit(self, protocol: "Connection") -> "GuardedConnection | None":
        """Return the protocol for a connection that was just accepted, which passes everything on to `protocol`.

        If there are too many, the one that has been idle the longest is closed; if none is idle, return None.
        """
        if len(self._open) >= self._max_connections and not self.close_idle():
            self.observer("limit")
            return None
        connection = self._open[protocol] = GuardedConnection(self, protocol)
        self.mark_idle(connection)
        return connection

    def close_idle(self) -> bool:
        """Close the connection that has been idle the longest; return whether there is one."""
        longest_idle = next(iter(self._idle), None)
        if longest_idle is not None:
            longest_idle.close("limit")
        return longest_idle is not None

    def abort_handshakes(self) -> None:
        """Close every connection that has not begun HTTP."""
        for connection in [connection for connection in self._open.values() if connection.is_opening]:
            connection.abort()

    @web.middleware
    async def _track_request(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._open.get(request.protocol)
        if connection is None:
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
        self._idle[connection] = None

    def mark_busy(self, connection: "GuardedConnection") -> None:
        """Record that a connection has a request in flight."""
        self._idle.pop(connection, None)

    def count_head(self, connection: "GuardedConnection", size: int) -> None:
        """Record the bytes of heads that a connection holds, and close others if all hold too many."""
        before = self._heads.get(connection, 0)
        if size == before:
            return
        self._heads_bytes += size - before
        if size:
            self._heads[connection] = size  # keeps its position: the order is that of first bytes
        else:
            del self._heads[connection]
        while self._heads_bytes > MAX_HEADS_BYTES:
            self._close_head()

    def _close_head(self) -> None:
        """Close a connection that holds much, and has done so the longest: an honest head is complete in a moment."""
        heads = {other: size for other, size in self._heads.items() if other.is_reading_head} or self._heads
        average = sum(heads.values()) / len(heads)
        next(other for other, size in heads.items() if size >= average).close("header_size")

    def remove(self, connection: "GuardedConnection", protocol: object) -> None:
        """Record that a connection has ended; may be called twice."""
        self._heads_bytes -= self._heads.pop(connection, 0)
        self._idle.pop(connection, None)
        self._open.pop(protocol, None)


class GuardedConnection(asyncio.Protocol):
    """One connection: passes everything on, and closes it if it exceeds a limit.

    `connection_made` is called with the TCP transport. Then `begin` is called with the transport that HTTP uses, which
    differs if there is TLS.
    """

    def __init__(self, limiter: ConnectionLimiter, protocol: "Connection") -> None:
        self._limiter = limiter
        self._protocol = protocol
        self._tcp: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None  # of HTTP
        self._early: list[bytes] = []  # received at the end of the handshake, before `begin`
        self._in_flight = False
        self._ended = False
        self._header_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    @property
    def is_opening(self) -> bool:
        """Whether the connection has not begun HTTP."""
        return self._transport is None

    @property
    def is_reading_head(self) -> bool:
        """Whether a head has begun to arrive, and has not ended."""
        return self._protocol.is_reading_head

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
        self._protocol.connection_made(transport)
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._transport is None:
            self._early.append(data)
            return
        if not self._protocol.has_room(data):
            self._reject_head(self._transport)
            return
        if not self._in_flight and self._header_deadline is None:
            self._start_header_deadline()
        self._protocol.data_received(data)
        if not self._protocol.has_room():
            self._reject_head(self._transport)
            return
        self._limiter.count_head(self, self._protocol.head_bytes)

    def eof_received(self) -> None:
        if self._transport is not None:
            self._protocol.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_deadlines()
        self._ended = True
        self._limiter.remove(self, self._protocol)
        if self._transport is not None:
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._protocol.pause_writing()
            self._start_write_deadline(self._transport)

    def resume_writing(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None
        if self._transport is not None:
            self._protocol.resume_writing()

    def begin_request(self) -> None:
        """Suspend the header deadline: the request's headers have arrived."""
        self._in_flight = True
        self._limiter.mark_busy(self)
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None

    def end_request(self) -> None:
        """Mark the connection idle, unless it is closing."""
        self._in_flight = False
        if self._transport is not None and not self._ended and not self._transport.is_closing():
            self._protocol.forget_head()
            self._limiter.count_head(self, self._protocol.head_bytes)
            self._limiter.mark_idle(self)

    def close(self, reason: str) -> None:
        """Close the connection at once, without sending what is still buffered; tell the observer."""
        self._limiter.observer(reason)
        self.abort()

    def abort(self) -> None:
        """Close the connection at once, also during its handshake."""
        self._cancel_deadlines()
        self._ended = True
        self._limiter.remove(self, self._protocol)
        if self._tcp is not None:
            self._tcp.abort()

    def _reject_head(self, transport: asyncio.Transport) -> None:
        """Answer 431, unless that would end another request's answer, and close."""
        if self._in_flight or transport.is_closing():
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


class Connection(web.RequestHandler):
    """aiohttp's protocol, which counts the bytes of heads and answers malformed requests in CodeArts' format."""

    __slots__ = ("_arriving_bytes", "_body", "_tail", "_whole_bytes")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._body: StreamReader = EMPTY_PAYLOAD  # of the last request whose head has arrived
        self._whole_bytes = 0  # of that head
        self._arriving_bytes = 0  # of the next head, or since a piece of the body: trailers, extensions of chunks
        self._tail = b""

    @property
    def head_bytes(self) -> int:
        """The bytes of heads that are in memory."""
        return self._whole_bytes + self._arriving_bytes

    @property
    def is_reading_head(self) -> bool:
        """Whether a head has begun to arrive, and has not ended."""
        return self._arriving_bytes > 0

    def forget_head(self) -> None:
        """Record that a request has ended; its head stays in memory while its body is still arriving."""
        if self._body.is_eof():
            self._whole_bytes = 0

    def has_room(self, data: bytes = b"") -> bool:
        """Return whether what has arrived of a head or trailer, with `data` that follows, is within MAX_HEAD_BYTES."""
        return self._arriving_bytes + (self._end_of_head(data) if self._body.is_eof() else 0) <= MAX_HEAD_BYTES

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and count what of it belongs to a head."""
        requests, body_bytes = self._request_count, self._body.total_bytes
        super().data_received(data)
        if self._request_count != requests and self._messages:
            end = self._end_of_head(data)
            self._whole_bytes, self._body = self._arriving_bytes + end, self._messages[-1][1]
            self._arriving_bytes = self._left_over(data, len(data) - end - self._body.total_bytes)
        elif self._body.total_bytes != body_bytes:
            self._arriving_bytes = self._left_over(data, len(data) + body_bytes - self._body.total_bytes)
        elif not self._reading_paused:
            self._arriving_bytes += len(data)
        self._tail = (self._tail + data[-3:])[-3:]

    def _left_over(self, data: bytes, size: int) -> int:
        """Return how much of `data` is neither head nor body: at most `size`, which includes the framing of chunks."""
        if self._reading_paused:  # the parser has not read all of it
            return 0
        if self._body.is_eof():  # a blank line is the last of a head, and of a chunked body
            size = min(size, len(data) - data.rfind(_END_OF_HEAD) - len(_END_OF_HEAD))
        return max(0, size)

    def _end_of_head(self, data: bytes) -> int:
        """Return where a head ends in `data`: its length if it does not."""
        if self._arriving_bytes:
            found = (self._tail + data[:3]).find(_END_OF_HEAD)
            if found >= 0:
                return found + len(_END_OF_HEAD) - len(self._tail)
        found = data.find(_END_OF_HEAD)
        return len(data) if found < 0 else found + len(_END_OF_HEAD)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- aiohttp's message repeats the request, tokens included
    ) -> web.StreamResponse:
        """Return the response to a request that no application can handle."""
        request_id = next_request_id()
        fault = type(exc).__name__
        if status >= 500:
            log_refusal(_log.error, "connection_failed", address=request.remote, fault=fault, request_id=request_id)
        else:
            log_refusal(_log.info, "request_malformed", address=request.remote, fault=fault, request_id=request_id)
        if request.writer.output_size > 0:
            raise ConnectionResetError("A response has begun already, so no other can be sent.")
        if status >= 500:
            response = failure_response(status, BridgeError.code, UNEXPECTED)
        else:
            text = next((text for kind, text in KNOWN_FAULTS.items() if isinstance(exc, kind)), MALFORMED)
            response = failure_response(status, BadParameter.code, text)
        response.headers["X-Request-Id"] = request_id
        response.force_close()
        return response


def too_many_response() -> bytes:
    """Return a complete HTTP response for a connection that is not served."""
    return raw_response(error_response(TOO_MANY), "Service Unavailable")


def raw_response(response: web.Response, reason: str) -> bytes:
    """Return a response as the bytes that end a connection."""
    body = response.body if isinstance(response.body, bytes) else b""
    fields = {"Content-Type": "application/json; charset=utf-8", "X-Request-Id": next_request_id()}
    fields |= {name: response.headers[name] for name in ("Retry-After",) if name in response.headers}
    fields |= {"Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {response.status} {reason}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
