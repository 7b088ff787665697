"""Uploads that take as long to check as one can, one after the other, beside whatever is measured."""

import http.client
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from load import BOUNDARY, PART_END, part_head, upload_path
from reports import MIB

HOSTILE_BYTES = 50 * MIB - 1024  # as much as a gateway takes unless told otherwise
HOSTILE_PIECE = b"<a/>" * (16 << 10)  # nothing costs more for its size than the smallest elements
PATIENCE_SECONDS = 120.0  # for one answer: longer than the checking process may compute


def hostile() -> Iterator[bytes]:
    """Yield a report of HOSTILE_BYTES that takes as long to check as one can."""
    yield b"<testsuite>"
    for _ in range(HOSTILE_BYTES // len(HOSTILE_PIECE)):
        yield HOSTILE_PIECE
    yield b"</testsuite>"


class HostileUploads:
    """Uploads the hostile file, again and again, while the block lasts; one is under way at any time."""

    def __init__(self, port: int, token: str, builds: Iterator[int]) -> None:
        self.seconds: list[float] = []
        self.answer = ""
        self._port = port
        self._token = token
        self._builds = builds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="hostile")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._over.is_set():
            began = time.perf_counter()
            self.answer = self._upload()
            self.seconds.append(time.perf_counter() - began)

    def _upload(self) -> str:
        head = part_head("TEST-hostile.xml")
        length = len(head) + sum(map(len, hostile())) + len(PART_END)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        connection.putrequest("POST", upload_path(next(self._builds)))
        connection.putheader("X-Auth-Token", self._token)
        connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        connection.putheader("Content-Length", str(length))
        connection.endheaders(head)
        for piece in hostile():
            connection.send(piece)
        connection.send(PART_END)
        response = connection.getresponse()
        answer = f"{response.status} {response.read().decode()}"
        connection.close()
        return answer
