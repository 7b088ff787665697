"""A TCP proxy that spoils what passes: slowly, in part, not at all, or changed.

Faults are changed while it runs and meet connections that are made
from then on; `cut_all` ends those that stand.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.byte_server import ByteServer

PIECE_BYTES = 64 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST


@dataclass(frozen=True, kw_only=True, slots=True)
class Spoil:
    """What happens to the bytes of one direction of a connection."""

    delay_seconds: float = 0.0  # before the first byte
    bytes_a_second: float | None = None
    cut_after: int | None = None  # bytes that pass before the connection ends
    reset: bool = False  # it ends by RST instead of politely
    black_hole: bool = False  # nothing passes, without an error
    corrupt_at: int | None = None  # this byte arrives as another one


PLAIN = Spoil()


@dataclass(kw_only=True, slots=True)
class Faults:
    """What the proxy does to new connections."""

    refuse: bool = False  # accepted and reset at once, before a byte
    there: Spoil = PLAIN  # from the client to the upstream
    back: Spoil = PLAIN


@dataclass(slots=True)
class FaultProxy:
    """Stands before one upstream from `async with` to its end; `url` has its address with the upstream's scheme."""

    upstream_url: str
    faults: Faults = field(default_factory=Faults)
    url: str = ""
    accepted: int = 0
    _server: ByteServer = field(init=False)

    async def __aenter__(self) -> Self:
        self._server = ByteServer(self._serve)
        await self._server.start()
        self.url = f"{urlsplit(self.upstream_url).scheme}://127.0.0.1:{self._server.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.close()

    async def cut_all(self) -> None:
        """End every connection that stands."""
        await self._server.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        faults = self.faults
        if faults.refuse:
            _reset_on_close(writer)
            return
        try:
            await self._pass_on(reader, writer, faults.there, faults.back)
        except asyncio.CancelledError:  # `cut_all`
            _reset_on_close(writer)
            raise

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, there: Spoil, back: Spoil
    ) -> None:
        upstream = urlsplit(self.upstream_url)
        try:
            far_reader, far_writer = await asyncio.open_connection(upstream.hostname, upstream.port)
        except OSError:
            return
        try:
            ways = [
                asyncio.create_task(_way(reader, far_writer, writer, there)),
                asyncio.create_task(_way(far_reader, writer, far_writer, back)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            far_writer.close()


async def _way(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: asyncio.StreamWriter, spoil: Spoil
) -> None:
    """Carry one direction until it ends, or until its fault ends the connection."""
    with suppress(ConnectionError):
        async for piece in _spoilt(reader, spoil):
            writer.write(piece)
            await writer.drain()
    if spoil.reset:
        for end in (writer, other):
            _reset_on_close(end)


async def _spoilt(reader: asyncio.StreamReader, spoil: Spoil) -> AsyncIterator[bytes]:
    passed = 0
    left = spoil.cut_after
    while left is None or left > 0:
        piece = await reader.read(PIECE_BYTES if left is None else min(PIECE_BYTES, left))
        if not piece:
            return
        if spoil.black_hole:
            continue
        if not passed and spoil.delay_seconds:
            await asyncio.sleep(spoil.delay_seconds)
        if spoil.corrupt_at is not None and passed <= spoil.corrupt_at < passed + len(piece):
            at = spoil.corrupt_at - passed
            piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
        if spoil.bytes_a_second is not None:
            for at in range(len(piece)):
                yield piece[at : at + 1]
                await asyncio.sleep(1 / spoil.bytes_a_second)
        else:
            yield piece
        passed += len(piece)
        left = None if left is None else left - len(piece)


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
