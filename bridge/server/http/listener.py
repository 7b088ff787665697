"""Serve one application on one address, with the limits that every listener has, and count its requests in flight."""

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, cast

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import InvalidURLError, LineTooLong
from aiohttp.typedefs import Handler, Middleware

from bridge.errors import BadParameter, BridgeError, Unavailable
from bridge.server.http.responses import UNEXPECTED, error_response, failure_response, next_request_id
from bridge.server.http.tls import Certificate

# -- limits: how many connections there are, and how long each may keep the bridge waiting -----------------------
# `ConnectionLimiter` wraps aiohttp's protocol and adds deadlines that aiohttp does not have.


MAX_CONNECTIONS: Final = 1_000
"""A build farm uses a few dozen. If there are more than this, the one that has been idle the longest is closed."""

HEADER_SECONDS: Final = 20.0
"""From the connection, or from a request's first byte, to the end of its headers; aiohttp has no such limit."""

WRITE_SECONDS: Final = 60.0
"""A client that reads nothing of its response for this long is gone, or wants to hold memory."""

TOO_MANY: Final = Unavailable("The bridge serves as many connections as it can. Send the request again in a moment.")

Observer = Callable[[str], None]
"""Receives the reason why a connection was closed: `header_timeout`, `write_timeout` or `limit`."""


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
        self._open: dict[object, _GuardedConnection] = {}
        self._idle: dict[_GuardedConnection, None] = {}  # the longest idle first

    def middleware(self) -> Middleware:
        """Return the middleware that suspends a connection's deadlines while a request is in flight."""
        return cast(Middleware, self._track_request)

    def guard(self, protocol: "HttpProtocol") -> asyncio.Protocol:
        """Return the protocol for a new connection, which passes everything on to `protocol`."""
        return _GuardedConnection(self, protocol)

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

    def add(self, connection: "_GuardedConnection", protocol: object) -> bool:
        """Count a new connection; if there are too many, close an idle one, or return False if none is idle."""
        if len(self._open) >= self._max_connections:
            longest_idle = next(iter(self._idle), None)
            if longest_idle is None:
                return False
            longest_idle.close("limit")
        self._open[protocol] = connection
        self.mark_idle(connection)
        return True

    def mark_idle(self, connection: "_GuardedConnection") -> None:
        """Record that a connection has no request in flight."""
        self._idle[connection] = None

    def mark_busy(self, connection: "_GuardedConnection") -> None:
        """Record that a connection has a request in flight."""
        self._idle.pop(connection, None)

    def remove(self, connection: "_GuardedConnection", protocol: object) -> None:
        """Record that a connection has ended; may be called twice."""
        self._idle.pop(connection, None)
        self._open.pop(protocol, None)


class HttpProtocol(Protocol):
    """The protocol that serves HTTP on a connection: aiohttp's RequestHandler."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def connection_lost(self, exc: BaseException | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class _GuardedConnection(asyncio.Protocol):
    """One connection: passes everything on, and closes it if a deadline passes."""

    def __init__(self, limiter: ConnectionLimiter, protocol: HttpProtocol) -> None:
        self._limiter = limiter
        self._protocol = protocol
        self._transport: asyncio.Transport | None = None
        self._in_flight = False
        self._header_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        if not self._limiter.add(self, self._protocol):
            self._limiter.observer("limit")
            transport.write(_too_many_response())
            transport.close()
            return
        self._transport = transport
        self._start_header_deadline()
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if not self._in_flight and self._header_deadline is None:
            self._start_header_deadline()
        self._protocol.data_received(data)

    def eof_received(self) -> None:
        if self._transport is not None:
            self._protocol.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_deadlines()
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
        if self._transport is not None and not self._transport.is_closing():
            self._limiter.mark_idle(self)

    def close(self, reason: str) -> None:
        """Close the connection at once, without sending what is still buffered."""
        self._limiter.observer(reason)
        self._cancel_deadlines()
        self._limiter.remove(self, self._protocol)
        if self._transport is not None:
            self._transport.abort()

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


def _too_many_response() -> bytes:
    """Return a complete HTTP response for a connection that is not served."""
    response = error_response(TOO_MANY)
    body = response.body if isinstance(response.body, bytes) else b""
    head = (
        f"HTTP/1.1 {response.status} Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Retry-After: {response.headers['Retry-After']}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


MAX_HEADER_BYTES = 128 * 1024  # IAM tokens are documented up to 100,000 characters; aiohttp's default is 8,190
MAX_LINE_BYTES = 32 * 1024  # of the request line; paths and queries of CodeArts are far shorter
KEEP_ALIVE_SECONDS = 75.0  # load balancers close idle connections after 60; aiohttp's default is an hour
BACKLOG = 512  # connections that the kernel queues until they are accepted: a burst of CI jobs

TOO_LONG = "The request's first line or one of its headers is too long. Send less in them."
BAD_URL = (
    "The request is not well-formed HTTP/1.1: its URL cannot be read, so nothing of it was. "
    "Percent-encode what is not ASCII in it, or send such a value as a form field: curl -F branch=NAME."
)
MALFORMED = (
    "The request is not well-formed HTTP/1.1, so nothing of it was read. "
    "Let an HTTP library write the request line, the headers and the body's length."
)
KNOWN_FAULTS = {LineTooLong: TOO_LONG, InvalidURLError: BAD_URL}

_log = structlog.get_logger(__name__)


class Listener:
    """Serves one application on one address, over TLS if there is a `certificate`."""

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        *,
        limiter: ConnectionLimiter,
        shutdown_seconds: float,
        certificate: Certificate | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._limiter = limiter
        self._certificate = certificate
        self._shutdown_seconds = shutdown_seconds
        app.middlewares.insert(0, limiter.middleware())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_seconds)
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Start listening; return the address as a URL, with the actual port if the configured one is 0.

        Raise OSError, which names the host or the address, if the system cannot listen there.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        connection = partial(
            Connection,
            cast(web.Server, self._runner.server),  # set by `setup`
            loop=loop,
            access_log_class=NoAccessLog,
            auto_decompress=False,  # a body of 20 KB could become 20 MiB before any limit applies
            max_field_size=MAX_HEADER_BYTES,
            max_line_size=MAX_LINE_BYTES,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )
        tls = self._certificate
        try:
            self._server = await loop.create_server(
                lambda: self._limiter.guard(connection()),
                self._host,
                self._port,
                backlog=BACKLOG,
                reuse_address=True,
                ssl=tls.context if tls else None,
                ssl_handshake_timeout=HEADER_SECONDS if tls else None,
                ssl_shutdown_timeout=self._shutdown_seconds if tls else None,
            )
        except (socket.gaierror, UnicodeError) as error:  # neither names the host
            reason = getattr(error, "strerror", None) or "it is not a host name"
            raise OSError(errno.EADDRNOTAVAIL, reason, self._host) from error
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    async def close(self) -> None:
        """Accept no more connections, wait for requests in flight, then close the rest; may be called twice."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()


class InFlightRequests:
    """Counts the requests of one application.

    A listener that shuts down reads nothing more (aiohttp drops what still arrives), so uploads must end before that.
    """

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def track(self, app: web.Application) -> None:
        """Count every request of `app`, which must not be served yet."""
        app.middlewares.insert(0, self._middleware())

    async def wait_until_none(self) -> None:
        """Return when no request is in flight."""
        await self._none.wait()

    def _middleware(self) -> Middleware:
        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._count += 1
            self._none.clear()
            try:
                return await handler(request)
            finally:
                self._count -= 1
                if not self._count:
                    self._none.set()

        return count


class Connection(web.RequestHandler):
    """Answers malformed requests in CodeArts' format and closes; aiohttp's answer would repeat what it received."""

    __slots__ = ()

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
            _log.error("connection_failed", fault=fault, request_id=request_id, address=request.remote)
        else:
            _log.info("request_malformed", fault=fault, request_id=request_id, address=request.remote)
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


class NoAccessLog(AbstractAccessLogger):
    """Writes nothing: components log what they do, with secrets redacted."""

    enabled = False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write nothing."""
