"""An upstream and a caller on bare sockets: both see every byte, and the test writes the upstream's answers."""

import asyncio
from collections.abc import Awaitable, Callable

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Upstream:
    """Answers each request on a connection with `answer`, or plays `script`."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.answer = OK
        self.script: Script | None = None
        self.url = ""
        self.stop: Callable[[], None] = lambda: None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.script is not None:
            await self.script(reader, writer)
        else:
            while request := await read_request(reader):
                self.requests.append(request)
                writer.write(self.answer)
                await writer.drain()

    @property
    def head(self) -> list[bytes]:
        """Request line and headers of the last request, a line each, without what every call gets from the bridge."""
        head = self.requests[-1].partition(b"\r\n\r\n")[0]
        return [line for line in head.split(b"\r\n") if not line.startswith((b"Via: 1.1 codearts-", b"Host: "))]

    @property
    def body(self) -> bytes:
        return self.requests[-1].partition(b"\r\n\r\n")[2]


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Return one whole request or answer as it came, empty at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        return head + await reader.readuntil(b"0\r\n\r\n")
    if b"content-length:" in lower:
        return head + await reader.readexactly(int(lower.split(b"content-length:")[1].split(b"\r\n")[0]))
    return head


async def ask(url: str, request: bytes) -> bytes:
    """Send raw bytes and return all that comes back until the connection is closed."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


async def ask_once(url: str, request: bytes) -> bytes:
    """Send raw bytes and return one answer, without waiting for the end of a connection that expects more of a body."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        return await read_request(reader)
    finally:
        writer.close()


def get(target: str | bytes, *headers: str | bytes, method: str = "GET", body: bytes = b"") -> bytes:
    """Write a request that ends its connection."""
    lines = [method.encode() + b" " + _raw(target) + b" HTTP/1.1", b"Host: bridge.example", b"Connection: close"]
    return b"\r\n".join([*lines, *map(_raw, headers), b"", body])


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
