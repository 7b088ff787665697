"""Continuous uploads of files that take as long to validate as possible, beside a measurement."""

import gzip
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from load import BOUNDARY, PART_END, part_head, upload_path
from reports import MIB

HOSTILE_BYTES = 50 * MIB - 1024  # the default max_report_size, less the form
HOSTILE_PIECE = b"<a/>" * (16 << 10)  # the smallest elements cost the most for their size
TIMEOUT_SECONDS = 120.0  # for one response: longer than a validation process may compute


def hostile() -> Iterator[bytes]:
    """Yield a report of HOSTILE_BYTES that takes as long to validate as possible."""
    yield b"<testsuite>"
    for _ in range(HOSTILE_BYTES // len(HOSTILE_PIECE)):
        yield HOSTILE_PIECE
    yield b"</testsuite>"


class HostileUploads:
    """Uploads the hostile file repeatedly inside a `with` block, one at a time."""

    def __init__(self, port: int, token: str, builds: Iterator[int]) -> None:
        self.seconds: list[float] = []
        self.response = ""
        self._port = port
        self._token = token
        self._builds = builds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hostile")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.perf_counter()
            self.response = self._upload()
            self.seconds.append(time.perf_counter() - began)

    def _upload(self) -> str:
        head = part_head("TEST-hostile.xml")
        length = len(head) + sum(map(len, hostile())) + len(PART_END)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_SECONDS)
        connection.putrequest("POST", upload_path(next(self._builds)))
        connection.putheader("X-Auth-Token", self._token)
        connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        connection.putheader("Content-Length", str(length))
        connection.endheaders(head)
        for piece in hostile():
            connection.send(piece)
        connection.send(PART_END)
        response = connection.getresponse()
        text = f"{response.status} {response.read().decode()}"
        connection.close()
        return text


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """How a greedy caller keeps validation busy: `uploads` at once, each of `files` files."""

    name: str
    file: bytes
    files: int
    uploads: int


SMALL_FILES = Attack(
    name="small files that cost much",
    file=b"<testsuites>%s</testsuites>" % (b"<testsuite><error/></testsuite>" * 3_500),
    files=8,
    uploads=16,
)
LARGE_FILES = Attack(
    name="large files of empty cases",
    file=b"<testsuite>%s</testsuite>" % (b"<testcase/>" * 900_000),
    files=2,
    uploads=12,
)


class GreedyUploads:
    """Uploads the files of an attack repeatedly inside a `with` block, under the token of a caller of its own."""

    def __init__(self, attack: Attack, port: int, token: str, builds: Iterator[int]) -> None:
        parts = (part_head(f"TEST-{number}.xml") + attack.file + b"\r\n" for number in range(attack.files))
        self._body = gzip.compress(b"".join(parts).removesuffix(b"\r\n") + PART_END)
        self._port = port
        self._token = token
        self._builds = builds
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="greedy") for _ in range(attack.uploads)]
        self.responses: list[int] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        headers = {"Content-Encoding": "gzip"}
        while not self._stopping.is_set():
            self.responses.append(upload(self._port, self._token, next(self._builds), self._body, **headers))


def upload(port: int, token: str, build_no: int, body: bytes, **headers: str) -> int:
    """Upload a form; return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    given = {"X-Auth-Token": token, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    connection.request("POST", upload_path(build_no), body, given)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status
