"""Serve one application on one address, with the limits that every listener has, and count its requests in flight."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler, Middleware

from bridge.server.http.connections import (
    HEADER_SECONDS,
    MAX_ADMIN_CONNECTIONS,
    MAX_CONNECTIONS,
    ConnectionLimiter,
    GuardedConnection,
    too_many_response,
)
from bridge.server.http.protocol import Connection, checked
from bridge.server.http.requests import network_of
from bridge.server.http.tls import Certificate
from bridge.telemetry.repeated_lines import log_refusal

MAX_HEADER_BYTES = 128 * 1024  # IAM tokens are documented up to 100,000 characters; aiohttp's default is 8,190
MAX_LINE_BYTES = 32 * 1024  # of the request line; paths and queries of CodeArts are far shorter
KEEP_ALIVE_SECONDS = 75.0  # load balancers close idle connections after 60; aiohttp's default is an hour
BACKLOG = 512  # connections that the kernel queues until they are accepted: a burst of CI jobs

ACCEPTS_PER_TURN: Final = 32
"""Connections that are accepted before other work of the event loop. Those in whose place they come are closed in the
next turn, so a listener has at most twice as many descriptors beyond its limit."""

ACCEPTED_PART: Final = 32
"""At most this part of all connections at once: a new one can send its request before as many others come."""

ACCEPT_RETRY_SECONDS: Final = 1.0

OPENING_TURNS: Final = 4
"""Of the event loop, in which a connection that was just accepted is opened, and what came with it is read."""

FIRST_REQUEST_SECONDS: Final = 1.0
"""For the request of a connection that was accepted just before the gateway stops: it is under way already."""

OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ADDRESS_NOT_AVAILABLE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_origin_of = lru_cache(maxsize=1_024)(network_of)  # few clients make many connections

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


# -- listening ------------------------------------------------------------------------------------------------------


class Listener:
    """Serves one application on one address, over TLS if there is a `certificate`.

    It accepts connections itself, because asyncio's server counts none that have not finished their TLS handshake,
    accepts as many as BACKLOG before any can be refused, and logs each that it has no descriptor for.
    """

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        *,
        limiter: ConnectionLimiter,
        shutdown_seconds: float,
        certificate: Certificate | None = None,
        passed: Sequence[socket.socket] = (),
    ) -> None:
        """Listen on `host` and `port`, or on the sockets `passed`, which other processes keep open."""
        self._host = host
        self._port = port
        self._limiter = limiter
        self._certificate = certificate
        self._shutdown_seconds = shutdown_seconds
        app.middlewares.insert(0, limiter.middleware())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_seconds)
        self._sockets = list(passed)
        self.outlives_process = bool(passed)  # connections wait for the next process when this one stops to accept
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}  # until there are resources again
        self._opening: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Start listening; return the address as a URL, with the actual port if the configured one is 0.

        Raise OSError, which names the host or the address, if the system cannot listen there.
        """
        await self._runner.setup()
        server = cast(web.Server, self._runner.server)  # set by `setup`
        server.request_factory = checked(server.request_factory)
        if not self._sockets:
            self._sockets = await self._bind()
        for listening in self._sockets:
            self._watch(listening)
        host, port = self._sockets[0].getsockname()[:2]
        scheme = "https" if self._certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    async def _bind(self) -> list[socket.socket]:
        try:
            addresses = await asyncio.get_running_loop().getaddrinfo(
                self._host or None, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (socket.gaierror, UnicodeError) as error:  # neither names the host
            reason = getattr(error, "strerror", None) or "it is not a host name"
            raise OSError(errno.EADDRNOTAVAIL, reason, self._host) from error
        return _listen({(family, address): None for family, _, _, _, address in addresses})

    async def stop_accepting(self) -> None:
        """Accept no more connections, and wait a moment for the first requests of those that were accepted."""
        self._stop_accepting()
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_REQUEST_SECONDS):
                await self._limiter.wait_for_requests()

    async def close(self) -> None:
        """Accept no more connections, wait for requests in flight, then close the rest; may be called twice."""
        self._stop_accepting()
        for _ in range(OPENING_TURNS):
            await asyncio.sleep(0)
        self._limiter.close_silent()
        await asyncio.gather(*self._opening, return_exceptions=True)
        await asyncio.sleep(0)  # aiohttp waits `shutdown_seconds` for a connection whose task has not begun
        await self._runner.cleanup()

    def _stop_accepting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._paused:
            self._paused.popitem()[1].cancel()
        while self._sockets:
            listening = self._sockets.pop()
            loop.remove_reader(listening)
            listening.close()

    def _watch(self, listening: socket.socket) -> None:
        self._paused.pop(listening, None)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept connections that wait; the event loop calls this again while there are more."""
        for _ in range(max(1, min(ACCEPTS_PER_TURN, self._limiter.max_connections // ACCEPTED_PART))):
            try:
                accepted, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    log_refusal(_log.error, "accept_failed", address=None, reason=str(error))
                    self._limiter.close_one()
                    loop = asyncio.get_running_loop()
                    loop.remove_reader(listening)
                    self._paused[listening] = loop.call_later(ACCEPT_RETRY_SECONDS, self._watch, listening)
                return  # else the client has left already
            accepted.setblocking(False)
            self._admit(accepted, address[0])

    def _admit(self, accepted: socket.socket, address: str) -> None:
        connection = self._limiter.admit(self._protocol, _origin_of(address))
        if connection is None:
            with accepted, suppress(OSError):
                if self._certificate is None:
                    accepted.send(too_many_response())
            return
        opening = asyncio.create_task(self._open(accepted, connection), name="open-connection")
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def _protocol(self) -> Connection:
        return Connection(
            cast(web.Server, self._runner.server),  # set by `setup`
            loop=asyncio.get_running_loop(),
            access_log_class=NoAccessLog,
            auto_decompress=False,  # a body of 20 KB could become 20 MiB before any limit applies
            max_field_size=MAX_HEADER_BYTES,
            max_line_size=MAX_LINE_BYTES,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )

    async def _open(self, accepted: socket.socket, connection: GuardedConnection) -> None:
        """Begin HTTP on a connection, after the handshake if there is TLS."""
        loop = asyncio.get_running_loop()
        transport: asyncio.Transport | None
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: connection, accepted)
            # start_tls never returns for a transport that was closed before.
            if self._certificate is not None and not transport.is_closing():
                transport = await loop.start_tls(
                    transport,
                    connection,
                    self._certificate.context,
                    server_side=True,
                    ssl_handshake_timeout=2 * HEADER_SECONDS,  # the connection's own deadline comes first
                    ssl_shutdown_timeout=self._shutdown_seconds,
                )
        except OSError:  # the client has left, or its handshake failed; it gets a TLS alert
            transport = None
        if transport is None:
            connection.connection_lost(None)
        else:
            connection.begin(transport)


def _listen(addresses: Iterable[tuple[int, Any]]) -> list[socket.socket]:
    """Return sockets that listen on those of `addresses` that this machine has; raise OSError if there are none."""
    listening: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in addresses:
            try:
                listening.append(socket.create_server(address, family=family, backlog=BACKLOG))
            except OSError as error:
                reason = f"error while attempting to bind on address {address}: {os.strerror(error.errno or 0).lower()}"
                missing = OSError(error.errno, reason)
                if error.errno not in ADDRESS_NOT_AVAILABLE:
                    raise missing from error
        if missing is not None and not listening:
            raise missing
    except OSError:
        for opened in listening:
            opened.close()
        raise
    for opened in listening:
        opened.setblocking(False)
    return listening


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


class NoAccessLog(AbstractAccessLogger):
    """Writes nothing: components log what they do, with secrets redacted."""

    enabled = False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write nothing."""
