"""The benchmark's client process: prepares requests as bytes, then sends them over keep-alive connections.

It uses bare transports, so that its own cost is small and the same for every server.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import cast

from reports import small_reports

REPORTS_A_BUILD = 20
BOUNDARY = "------------------------a1b2c3d4e5f60718"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What to send: each connection uploads `builds` builds, one report after the other."""

    port: int
    token: str
    cases: int
    connections: int
    builds: int
    first_build: int  # build numbers count up from here, so that no report is sent twice
    pause_seconds: float = 0.0  # between a response and the next report
    reports_a_request: int = 0  # each request brings so many reports; 0: one report a request, REPORTS_A_BUILD a build
    requests_a_build: int = 1  # if each request brings several reports


@dataclass(kw_only=True, slots=True)
class Sent:
    """The result: seconds from the first byte to the last response, and of each response."""

    accepted: int = 0
    seconds: float = 0.0
    began_at: float = 0.0  # the first byte, as a Unix time
    response_seconds: list[float] = field(default_factory=list)
    rejected: str = ""  # the first response that was not a success


def request_head(path_query: str, port: int, token: str, length: int) -> bytes:
    """Return the head of an upload of `length` bytes as curl would write it."""
    return (
        f"POST {path_query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"
        f"X-Auth-Token: {token}\r\nContent-Length: {length}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    ).encode()


def part_head(name: str) -> bytes:
    """Return the head of the form's part, which comes before the file's bytes."""
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: application/xml\r\n\r\n"
    ).encode()


PART_END = f"\r\n--{BOUNDARY}--\r\n".encode()


def upload_path(build_no: int) -> str:
    """Return path and query of an upload to one build of the bench."""
    return f"/v1/report/junit/report/upload?job_id={'b' * 32}&build_no={build_no}&node_id=node-1"


def _requests(load: Load, first_build: int) -> Iterator[bytes]:
    """Yield the whole requests of one connection."""
    for build_no in range(first_build, first_build + load.builds):
        if load.reports_a_request:
            for number in range(load.requests_a_build):
                yield _form(load, build_no, build_no * load.requests_a_build + number)
            continue
        stamps = range(build_no * REPORTS_A_BUILD, (build_no + 1) * REPORTS_A_BUILD)
        for stamp, report in zip(stamps, small_reports(load.cases, stamps), strict=True):
            body = part_head(f"TEST-shop.CartTest{stamp}.xml") + report + PART_END
            yield request_head(upload_path(build_no), load.port, load.token, len(body)) + body


def _form(load: Load, build_no: int, number: int) -> bytes:
    first = number * load.reports_a_request
    stamps = range(first, first + load.reports_a_request)
    files = zip(stamps, small_reports(load.cases, stamps), strict=True)
    parts = [part_head(f"TEST-shop.CartTest{stamp}.xml") + report for stamp, report in files]
    body = b"\r\n".join(parts) + PART_END
    return request_head(upload_path(build_no), load.port, load.token, len(body)) + body


class _Connection(asyncio.Protocol):
    """Sends its requests in sequence, each as soon as the response to the one before is complete."""

    def __init__(self, requests: Iterator[bytes], pause_seconds: float, sent: Sent) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._pause_seconds = pause_seconds
        self._sent = sent
        self._response = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send_next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._finish()
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._response += data
        head, blank, body = self._response.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or length is None or len(body) < int(length[1]):
            return
        self._sent.response_seconds.append(time.perf_counter() - self._began)
        if b" 200 " in head[:13] and b"success" in body:
            self._sent.accepted += 1
        else:
            self._sent.rejected = self._sent.rejected or self._response.decode("utf-8", "replace")
        self._response = b""
        if self._pause_seconds:
            asyncio.get_running_loop().call_later(self._pause_seconds, self.send_next)
        else:
            self.send_next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._sent.rejected = self._sent.rejected or f"The connection was lost: {error}."
            self.done.set_result(None)

    def _finish(self) -> None:
        self.done.set_result(None)
        self._transport.close()


async def send(load: Load) -> Sent:
    """Prepare every request, connect, and only then start the clock."""
    loop = asyncio.get_running_loop()
    sent = Sent()
    queues = [
        list(_requests(load, load.first_build + connection * load.builds)) for connection in range(load.connections)
    ]
    connections = []
    for queue in queues:
        _, connection = await loop.create_connection(
            partial(_Connection, iter(queue), load.pause_seconds, sent), "127.0.0.1", load.port
        )
        connections.append(connection)
    began = time.perf_counter()
    sent.began_at = time.time()
    for connection in connections:
        connection.send_next()
    await asyncio.gather(*(connection.done for connection in connections))
    sent.seconds = time.perf_counter() - began
    return sent


def main() -> None:
    """Read a Load as JSON from standard input, write the Sent as JSON."""
    load = Load(**json.load(sys.stdin))
    json.dump(asdict(asyncio.run(send(load))), sys.stdout)


if __name__ == "__main__":
    main()
