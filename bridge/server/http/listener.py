"""Serve one application on one address, with the limits that every listener has, and count its requests in flight."""

import asyncio
import errno
import socket
from functools import partial
from typing import cast

import structlog
from aiohttp import hdrs, web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import LineTooLong
from aiohttp.typedefs import Handler, Middleware

from bridge.errors import BadParameter, BridgeError
from bridge.server.http.connection_limits import HEADER_SECONDS, ConnectionLimiter
from bridge.server.http.responses import UNEXPECTED, failure_response, next_request_id
from bridge.server.http.tls import Certificate

MAX_HEADER_BYTES = 128 * 1024  # IAM tokens are documented up to 100,000 characters; aiohttp's default is 8,190
MAX_LINE_BYTES = 32 * 1024  # of the request line; paths and queries of CodeArts are far shorter
KEEP_ALIVE_SECONDS = 75.0  # load balancers close idle connections after 60; aiohttp's default is an hour
BACKLOG = 512  # connections that the kernel queues until they are accepted: a burst of CI jobs

TOO_LONG = "The request's first line or one of its headers is too long. Send less in them."
MALFORMED = (
    "The request is not well-formed HTTP/1.1, so nothing of it was read. "
    "Let an HTTP library write the request line, the headers and the body's length."
)

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
            text = TOO_LONG if isinstance(exc, LineTooLong) else MALFORMED
            response = failure_response(status, BadParameter.code, text)
        response.headers["X-Request-Id"] = request_id
        response.force_close()
        return response


class NoAccessLog(AbstractAccessLogger):
    """Writes nothing: components log what they do, with secrets redacted."""

    enabled = False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write nothing."""


async def handle_expect(request: web.Request) -> web.StreamResponse | None:
    """Send "100 Continue" if the client waits for it, and reject any other expectation (RFC 9110, section 10.1.1)."""
    if request.headers[hdrs.EXPECT].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # else aiohttp takes these bytes for the start of the response
        return None
    response = failure_response(
        417, BadParameter.code, "The bridge cannot meet this Expect. Send the request without that header."
    )
    response.headers["X-Request-Id"] = next_request_id()
    response.force_close()
    return response
