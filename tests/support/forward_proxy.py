"""A small forward proxy for CONNECT and absolute-form requests. It answers 407 to a client without `login`."""

import asyncio
import base64
from contextlib import suppress
from urllib.parse import urlsplit

from tests.support.byte_server import ByteServer


class ForwardProxy:
    """A proxy on a free port of this machine while its context is entered; `asked` holds (method, target)."""

    def __init__(self, *, login: str = "", ssl=None, refuse_connect: bool = False) -> None:
        self.asked: list[tuple[str, str]] = []
        self._wanted = f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""
        self._refuse_connect = refuse_connect
        self._server = ByteServer(self._take, tls=ssl)

    async def __aenter__(self):
        await self._server.start()
        self.port = self._server.port
        return self

    async def __aexit__(self, *_):
        await self._server.close()

    async def _take(self, reader, writer):
        with suppress(OSError):  # the upstream is away, or TLS has failed
            await self._serve(reader, writer)

    async def _serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
        line, *headers = head[:-4].split("\r\n")
        method, target, version = line.split(" ")
        self.asked.append((method, target))
        if self._wanted and f"Proxy-Authorization: {self._wanted}" not in headers:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        elif method == "CONNECT" and self._refuse_connect:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        elif method == "CONNECT":
            host, _, port = target.rpartition(":")
            upstream = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await self._join((reader, writer), upstream)
        else:
            url = urlsplit(target)
            upstream = await asyncio.open_connection(url.hostname, url.port or 80)
            path = target.removeprefix(f"{url.scheme}://{url.netloc}") or "/"
            kept = [line for line in headers if not line.lower().startswith(("proxy-", "connection:"))]
            lines = [f"{method} {path} {version}", *kept, "Connection: close", "", ""]
            upstream[1].write("\r\n".join(lines).encode("latin1"))
            await self._join((reader, writer), upstream)
        with suppress(OSError):
            await writer.drain()

    async def _join(self, one, other):
        """Copy bytes both ways until the server closes the connection."""
        there = asyncio.create_task(self._pass(one[0], other[1]))
        try:
            await self._pass(other[0], one[1])
        finally:
            other[1].close()
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)

    async def _pass(self, reader, writer):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
