"""A real gateway in this process on free ports, and raw requests to it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.app.gateway import Gateway
from bridge.clock import Clock
from bridge.settings import load
from tests.support.ports import REFUSED_URL

PATIENCE_SECONDS = 60  # for an answer that comes at once unless the machine is busy

SETTINGS = """\
[server]
host = "127.0.0.1"
port = 0
{server}
[admin]
port = 0
[store]
url = "sqlite:///{folder}/bridge.db"
spool = "{folder}/spool"
min_free_space = "1 MiB"
[testnod]
base_url = "{testnod}"
"""


@asynccontextmanager
async def running(folder: Path, tables: str, *, server: str = "", clock: Clock | None = None) -> AsyncIterator[Gateway]:
    """Run a gateway with `tables` of settings beside those that every gateway needs; what it accepts stays owed."""
    path = folder / "bridge.toml"
    path.write_text(SETTINGS.format(folder=folder, server=server, testnod=REFUSED_URL) + tables, encoding="utf-8")
    async with Gateway(load(path, {}), clock=clock) as gateway:
        yield gateway


class RawAnswer:
    """What a server sent until it closed the connection, or until one whole answer was there."""

    def __init__(self, received: bytes) -> None:
        head, _, self.body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin1").split("\r\n")
        self.status = int(first.split(" ")[1]) if first else None  # None: closed without an answer
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def json(self):
        return json.loads(self.body)


async def say(url: str, request: bytes, *, skip_100: bool = True) -> RawAnswer:
    """Send bytes over a connection of their own; return the answer, which must end the connection or have a length.

    With `skip_100`, the answer is the one after 100 (Continue).
    """
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            writer.write(request)
            return RawAnswer(await _one_answer(reader, skip_100=skip_100))
    finally:
        writer.close()


async def _one_answer(reader: asyncio.StreamReader, *, skip_100: bool) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    if skip_100 and head.startswith(b"HTTP/1.1 100 "):
        return await _one_answer(reader, skip_100=False)
    return head + await reader.readexactly(int(RawAnswer(head).headers.get("content-length", 0)))
