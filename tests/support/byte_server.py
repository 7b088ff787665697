"""A server of bare bytes: what it writes no HTTP library would."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

STREAM_LIMIT_BYTES = 1 << 20
STEPS_OF_ACCEPTING = 3
"""Turns of asyncio's event loop from the creation of a connection's transport until its task has begun."""


class ByteServer:
    """Runs `serve` for each connection from its start to its end, which closes every connection that stands.

    A connection is closed when `serve` returns; a peer that leaves ends it without an error. Other exceptions of
    `serve` are raised at the end, so that a test whose server failed does not pass.
    """

    def __init__(self, serve: Serve, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._serve = serve
        self._tls = tls
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._errors: list[Exception] = []
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._take, "127.0.0.1", self.port, limit=STREAM_LIMIT_BYTES, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self.stop()
        for _ in range(STEPS_OF_ACCEPTING):
            await asyncio.sleep(0)
        await self.cut()
        if self._errors:
            raise ExceptionGroup("The server of this test failed.", self._errors)

    def stop(self) -> None:
        """Accept no further connection."""
        assert self._server is not None
        self._server.close()

    async def cut(self) -> None:
        """End every connection that stands. What was not sent yet is dropped."""
        stands = dict(self._open)
        for task in stands:
            task.cancel()
        await asyncio.gather(*stands, return_exceptions=True)
        for writer in stands.values():
            writer.transport.abort()
        await asyncio.sleep(0)  # in which the transports close their sockets

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            # asyncio would report a task that ends cancelled.
            with suppress(asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        except Exception as error:  # noqa: BLE001 - raised at the end
            self._errors.append(error)
        finally:
            del self._open[task]
            writer.close()
