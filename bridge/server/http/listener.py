"""One listening address and the application behind it, with the limits that every listener has.

It knows no handler but those it is given.
"""

import asyncio
import errno
import socket
from functools import partial
from typing import cast

from aiohttp import web

from bridge.server.http.connection import Connection, NoAccessLog
from bridge.server.http.crowd import HEADER_SECONDS, Crowd
from bridge.server.http.tls import Certificate

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
        crowd: Crowd,
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
