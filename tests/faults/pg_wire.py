"""A proxy before a PostgreSQL server that spoils statements: they fail, their answers are lost, or nothing passes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum

from tests.support.byte_server import ByteServer

QUERY, PARSE = b"Q", b"P"
"""A statement as text, and one that is prepared under a name (PostgreSQL: Message Formats). asyncpg sends BEGIN, COMMIT
and ROLLBACK as text; only those can be made to fail."""

SSL_REQUEST = (80877103).to_bytes(4)

FAILING = "DO $$ BEGIN RAISE EXCEPTION 'spoiled' USING ERRCODE = '{}'; END $$"


class Spoil(Enum):
    """What happens to a statement."""

    CANCELED = "57014"  # the server answers it with this SQLSTATE instead of executing it
    REFUSED = "XX000"
    CUT = "cut"  # the connection ends before the server has it
    UNANSWERED = "unanswered"  # the server executes it; the connection ends before its answer
    FROZEN = "frozen"  # from then on nothing passes in either direction, and both ends stay connected


@dataclass(slots=True)
class Wire:
    """One proxy; `spoil` is done to the next `times` statements that begin with `verb`."""

    socket_path: str
    port: int = 0
    verb: bytes = b""
    spoil: Spoil = Spoil.REFUSED
    times: int = 0
    spoiled: int = 0
    is_frozen: bool = False  # nothing passes on connections that are made from now on
    _frozen: list[asyncio.Event] = field(default_factory=list)  # one for each connection

    def arm(self, verb: str, spoil: Spoil, times: int) -> None:
        """Spoil the next `times` statements that begin with `verb`."""
        self.verb, self.spoil, self.times = verb.encode(), spoil, times

    def disarm(self) -> None:
        """Let all statements pass from now on; connections that are frozen stay so."""
        self.times = 0

    def freeze(self, *, new: bool = False) -> None:
        """Let nothing pass any more on the connections that are open now, and on `new` ones; all stay connected."""
        self.is_frozen = new
        for frozen in self._frozen:
            frozen.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_frozen:
            await asyncio.Event().wait()
        server_reader, server_writer = await asyncio.open_unix_connection(self.socket_path)
        frozen = asyncio.Event()
        self._frozen.append(frozen)
        back = asyncio.create_task(_copy(server_reader, writer, frozen))
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._pass_on(reader, server_writer, frozen, back)
            if frozen.is_set():
                await asyncio.Event().wait()
        finally:
            server_writer.close()
            writer.close()
            back.cancel()
            await asyncio.wait([back])

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        server: asyncio.StreamWriter,
        frozen: asyncio.Event,
        back: "asyncio.Task[None]",
    ) -> None:
        asks_for_tls = True
        while asks_for_tls:  # the first messages have no type: a wish for TLS, which the server refuses, and the start
            size = await reader.readexactly(4)
            start = await reader.readexactly(int.from_bytes(size) - 4)
            server.write(size + start)
            asks_for_tls = start == SSL_REQUEST
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
            message = head + body
            if frozen.is_set():
                return
            statement = body.partition(b"\0")[2] if head[:1] == PARSE else body
            if self.times and head[:1] in (QUERY, PARSE) and statement.startswith(self.verb):
                self.times -= 1
                self.spoiled += 1
                if self.spoil is Spoil.CUT:
                    return
                if self.spoil is Spoil.UNANSWERED:
                    back.cancel()
                    server.write(message)
                    await server.drain()
                    return
                if self.spoil is Spoil.FROZEN:
                    frozen.set()
                    return
                statement = FAILING.format(self.spoil.value).encode() + b"\0"
                message = QUERY + (len(statement) + 4).to_bytes(4) + statement
            server.write(message)
            await server.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frozen: asyncio.Event) -> None:
    with suppress(ConnectionError):
        while (data := await reader.read(65_536)) and not frozen.is_set():
            writer.write(data)
            await writer.drain()
    if not frozen.is_set():
        writer.close()


@asynccontextmanager
async def wire(socket_path: str) -> AsyncIterator[Wire]:
    """Stand before the server at `socket_path` for a block."""
    standing = Wire(socket_path)
    async with ByteServer(standing.serve) as server:
        standing.port = server.port
        yield standing
