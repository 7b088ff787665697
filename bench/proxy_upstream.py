"""The upstream of both proxies: 1 KB at /small, 100 MB at /large, as cheap as Python can be.

Run as `python proxy_upstream.py PORT`.
"""

import asyncio
import sys
from typing import cast

SMALL_BYTES = 1024
LARGE_BYTES = 100_000_000
PIECE = bytes(256 * 1024)

_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n"
_SMALL = _HEAD.format(SMALL_BYTES).encode() + bytes(SMALL_BYTES)


class Upstream(asyncio.Protocol):
    """Responds to requests in sequence, with flow control for large bodies."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._left = 0
        self._request = b""
        self._paused = False

    def data_received(self, data: bytes) -> None:
        self._request += data
        while (end := self._request.find(b"\r\n\r\n")) >= 0:
            path = self._request.split(b" ", 2)[1]
            self._request = self._request[end + 4 :]
            if path == b"/large":
                self._transport.write(_HEAD.format(LARGE_BYTES).encode())
                self._left = LARGE_BYTES
                self._pour()
            else:
                self._transport.write(_SMALL)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pour()

    def _pour(self) -> None:
        while self._left and not self._paused:
            piece = PIECE[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
