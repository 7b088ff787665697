"""One listening address and the application behind it, with the limits that every listener has.

It knows no handler but those it is given.
"""

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
from bridge.server.http.responses import UNEXPECTED, failure, next_request_id
from bridge.server.http.tls import Certificate

# One connection of a client: what is said to a request that is no HTTP, or HTTP that nobody should rely on.
#
# It knows no application: what is well-formed goes to whichever listens.


TOO_LONG = "The request's first line or one of its headers is longer than the bridge takes. Send less in them."
MALFORMED = (
    "The request is not well-formed HTTP/1.1, so nothing of it was read. "
    "Let an HTTP library write the request line, the headers and the body's length."
)

_log = structlog.get_logger(__name__)


class Connection(web.RequestHandler):
    """Answers malformed requests in CodeArts' shape and closes; aiohttp would say plainly what it stumbled over."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- aiohttp's words repeat what came, tokens and all
    ) -> web.StreamResponse:
        """Answer where no application can, in our own words."""
        request_id = next_request_id()
        fault = type(exc).__name__
        if status >= 500:
            _log.error("connection_failed", fault=fault, request_id=request_id, address=request.remote)
        else:
            _log.info("request_malformed", fault=fault, request_id=request_id, address=request.remote)
        if request.writer.output_size > 0:
            raise ConnectionResetError("An answer has begun already, so no other can be sent.")
        answer = _answer(status, exc)
        answer.headers["X-Request-Id"] = request_id
        answer.force_close()
        return answer


class NoAccessLog(AbstractAccessLogger):
    """Writes nothing: the rooms log what they do, and know what must not be shown."""

    enabled = False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write nothing."""


async def meet_expectation(request: web.Request) -> web.StreamResponse | None:
    """Ask for the body where the client waits for that, and refuse to promise anything else (RFC 9110, 10.1.1)."""
    if request.headers[hdrs.EXPECT].lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp takes what was written for the answer's beginning
        return None
    answer = failure(
        417, BadParameter.code, "The bridge cannot meet this Expect. Send the request without that header."
    )
    answer.headers["X-Request-Id"] = next_request_id()
    answer.force_close()
    return answer


def _answer(status: int, exc: BaseException | None) -> web.Response:
    if status >= 500:
        return failure(status, BridgeError.code, UNEXPECTED)
    return failure(status, BadParameter.code, TOO_LONG if isinstance(exc, LineTooLong) else MALFORMED)


MAX_HEADER_BYTES = 128 * 1024  # IAM tokens are documented up to 100,000 characters; aiohttp's own limit is 8,190
KEEP_ALIVE_SECONDS = 75.0  # load balancers let go after 60; aiohttp's own limit is an hour
MAX_LINE_BYTES = 32 * 1024  # of the request line: paths and queries of CodeArts stay far below
BACKLOG = 512  # connections that the kernel holds until they are accepted: a burst of CI jobs at once


class Listener:
    """Serves one application on one address, over TLS where there is a `certificate`."""

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        *,
        crowd: ConnectionLimiter,
        patience_seconds: float,
        certificate: Certificate | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._crowd = crowd
        self._certificate = certificate
        self._patience_seconds = patience_seconds
        app.middlewares.insert(0, crowd.watching())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=patience_seconds)
        self._sockets: asyncio.Server | None = None

    async def start(self) -> str:
        """Begin to listen; return the address as a URL, with the port that a 0 became.

        Raise OSError, which names the host or the address, where the system does not have it.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        connection = partial(
            Connection,
            cast(web.Server, self._runner.server),  # there since `setup`
            loop=loop,
            access_log_class=NoAccessLog,
            auto_decompress=False,  # a 20 KB body would unfold to 20 MiB before anybody counted
            max_field_size=MAX_HEADER_BYTES,
            max_line_size=MAX_LINE_BYTES,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )
        tls = self._certificate
        try:
            self._sockets = await loop.create_server(
                lambda: self._crowd.guarded(connection()),
                self._host,
                self._port,
                backlog=BACKLOG,
                reuse_address=True,
                ssl=tls.context if tls else None,
                ssl_handshake_timeout=HEADER_SECONDS if tls else None,
                ssl_shutdown_timeout=self._patience_seconds if tls else None,
            )
        except (socket.gaierror, UnicodeError) as error:  # neither says which name it was
            reason = getattr(error, "strerror", None) or "it is no name of a host"
            raise OSError(errno.EADDRNOTAVAIL, reason, self._host) from error
        host, port = self._sockets.sockets[0].getsockname()[:2]
        return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    async def close(self) -> None:
        """Accept no more connections, wait for the requests under way, then close what is left; twice is once."""
        if self._sockets is not None:
            self._sockets.close()
        await self._runner.cleanup()


# How many requests are under way, so that whoever wants to stop can wait until all have their answers.
#
# It knows no handler. A listener that shuts down reads nothing more (aiohttp drops what still arrives), so uploads that
# have begun must have ended before.


class InFlightRequests:
    """Counts the requests of one application, by its outermost middleware."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def watch(self, app: web.Application) -> None:
        """Count every request of `app` from now on; it must not be served yet."""
        app.middlewares.insert(0, self._counted())

    async def ended(self) -> None:
        """Return when no request is under way."""
        await self._none.wait()

    def _counted(self) -> Middleware:
        @web.middleware
        async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._count += 1
            self._none.clear()
            try:
                return await handler(request)
            finally:
                self._count -= 1
                if not self._count:
                    self._none.set()

        return counted
