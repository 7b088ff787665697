"""The client process of the proxy benchmark: GETs over keep-alive connections, on bare transports."""

import asyncio
import json
import sys
import time
from typing import cast


class Getter(asyncio.Protocol):
    """Sends the same request repeatedly and only counts the bytes of the responses."""

    def __init__(self, path: str, times: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        self._left = times
        self._head = b""
        self._awaited = -1  # bytes of the body; negative until the head is complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._awaited < 0:
            self._head += data
            head, blank, body = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            if not head.startswith(b"HTTP/1.1 200 "):
                self._end(RuntimeError(f"It answered {head[:200]!r} {body[:300]!r}"))
                return
            self._awaited = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            self._head, data = b"", body
        self._awaited -= len(data)
        if self._awaited == 0:
            self._awaited = -1
            self._left -= 1
            if self._left:
                self.ask()
            else:
                self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or RuntimeError("The connection was closed too early."))

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
        self._transport.close()


async def _load(port: int, path: str, connections: int, times: int) -> float:
    loop = asyncio.get_running_loop()
    getters = [
        (await loop.create_connection(lambda: Getter(path, times), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    began = time.perf_counter()
    for getter in getters:
        getter.ask()
    await asyncio.gather(*(getter.done for getter in getters))
    return time.perf_counter() - began


if __name__ == "__main__":
    json.dump(asyncio.run(_load(**json.load(sys.stdin))), sys.stdout)
