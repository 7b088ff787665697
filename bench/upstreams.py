"""Stand-ins of TestNod, its storage and CodeArts in one process, as cheap as bare transports allow.

They share the cores with what is measured, and cost every contender the same.

Every build has ended as soon as `GET /expect?reports=` of its reports are registered, one unless told otherwise: CI
ends a build after its uploads. Lists have the builds that a run was opened for.
`GET /finalized?runs=&stored=` returns how many runs were finalized and how many reports were stored, as soon as there
are so many.
"""

import asyncio
import itertools
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import lru_cache, partial
from typing import NamedTuple, cast
from urllib.parse import parse_qs

import uvloop

EXPIRY = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20300101T000000Z&X-Amz-Expires=300&X-Amz-Signature=0"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class Answer(NamedTuple):
    """What a call is answered with."""

    body: bytes = b""
    status: str = "200 OK"
    content_type: str = "application/json"


class Upstreams:
    """Answers calls."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._ids = itertools.count(1)
        self._runs: dict[str, int] = {}
        self._numbers: defaultdict[str, list[int]] = defaultdict(list)  # of the builds of each job
        self._registered: defaultdict[tuple[str, int], int] = defaultdict(int)  # by job and number
        self._expected = 1
        self._stored = 0
        self._finalized: set[str] = set()
        self._calls: defaultdict[str, int] = defaultdict(int)
        self._waiting: tuple[int, int, Callable[[Answer], None]] | None = None  # for so many runs and reports

    def expect(self, query: str) -> Answer:
        """End each build as soon as so many of its reports are registered."""
        self._expected = int(_fields(query)["reports"])
        return Answer()

    def wait(self, query: str, reply: Callable[[Answer], None]) -> None:
        """Call `reply` with the counts as soon as they are as high as the query says; it replaces the one before."""
        fields = _fields(query)
        self._waiting = int(fields.get("runs", 0)), int(fields.get("stored", 0)), reply
        self.end_wait()

    def end_wait(self) -> None:
        """Reply to the one that waits, if it is time."""
        if self._waiting is not None:
            runs, stored, reply = self._waiting
            if len(self._finalized) >= runs and self._stored >= stored:
                self._waiting = None
                reply(_json({"runs": len(self._finalized), "stored": self._stored, "calls": dict(self._calls)}))

    def answer(self, method: str, path: str, query: str, body: bytes) -> Answer:
        """Return the answer to a call of the bridge."""
        name = path.rpartition("/")[2]
        self._calls["put" if method == "PUT" else name] += 1
        if method == "PUT":
            self._stored += 1
            return Answer(content_type="application/xml")
        if name == "upload":
            return self._register(body)
        if name == "finalize":
            build_id = _fields(body.decode())["build_id"]
            if build_id not in self._runs:
                return _json({"error_message": "Test run not found for this build_id."}, "404 Not Found")
            self._finalized.add(build_id)
            return _json({"status": "processing"})
        return self._codearts(name, path, query)

    def _codearts(self, name: str, path: str, query: str) -> Answer:
        if name == "build-info":
            _, job_id, number, _ = path.rsplit("/", 3)
            is_building = not self._has_ended(job_id, int(number))
            result = {"building": is_building, "build_result": None if is_building else "SUCCESS"}
            return _json({"status": "success", "error": None, "result": result})
        if name == "record-info":
            record = {"status": "SUCCESS", "branch": "main", "commit": "0" * 40, "repo_name": "shop"}
            return _json({"status": "success", "result": record})
        if name == "list" and path.startswith("/v1/record/"):
            return self._list_builds(path.split("/")[3], _fields(query))
        return _json({"error_message": "not here"}, "404 Not Found")

    def _has_ended(self, job_id: str, number: int) -> bool:
        return self._registered[job_id, number] >= self._expected

    def _list_builds(self, job_id: str, query: Mapping[str, str]) -> Answer:
        page, size = int(query["page_index"]), int(query["page_size"])
        numbers = self._numbers[job_id]
        shown = sorted(numbers, reverse=True)[page * size : (page + 1) * size]
        builds = [
            {"number": number, "job_running_status": "Finished", "state": "SUCCESS"}
            if self._has_ended(job_id, number)
            else {"number": number, "job_running_status": "Running", "state": None}
            for number in shown
        ]
        result = {"total_page": str(-(-len(numbers) // size)), "page_index": str(page), "job_build_states": builds}
        return _json({"status": "success", "error": None, "result": result})

    def _register(self, body: bytes) -> Answer:
        _, _, rest = body.partition(b'name="test_run[metadata][build_id]"\r\n\r\n')
        build_id = rest.partition(b"\r\n")[0].decode()
        job_id, number = build_id.split("-")[-2:]  # the naive bridge has no prefix
        self._registered[job_id, int(number)] += 1
        if build_id not in self._runs:
            self._numbers[job_id].append(int(number))
        run = self._runs.setdefault(build_id, len(self._runs) + 1)
        upload = next(self._ids)
        answer = {
            "id": upload,
            "project_id": "b7e2c1a0-9f3d-4a8b-bc1e-2d4f6a8c0e11",
            "test_run_id": run,
            "upload_id": upload,
            "test_run_url": f"{self._url}/projects/1/test_runs/{run}",
            "presigned_url": f"{self._url}/storage/{run}/{upload}?{EXPIRY}",
        }
        return _json(answer, "201 Created")


class _Connection(asyncio.Protocol):
    """Answers one call after the other, each at once or after `delay` seconds."""

    def __init__(self, upstreams: Upstreams, delay: float) -> None:
        self._upstreams = upstreams
        self._delay = delay
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[:end]
        if _CHUNKED.search(head):
            raise ValueError("A body without a length. All contenders send one.")
        length = _LENGTH.search(head)
        if len(self._received) < end + 4 + (int(length[1]) if length else 0):
            return
        body, self._received = self._received[end + 4 :], b""  # the next call comes after the answer
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
        path, _, query = target.partition("?")
        reply = partial(self._reply, ends=_CLOSE.search(head) is not None)
        if path == "/finalized":
            self._upstreams.wait(query, reply)
        elif path == "/expect":
            reply(self._upstreams.expect(query))
        elif self._delay:
            call = partial(self._answer, method, path, query, body, reply)
            asyncio.get_running_loop().call_later(self._delay, call)
        else:
            self._answer(method, path, query, body, reply)

    def _answer(self, method: str, path: str, query: str, body: bytes, reply: Callable[[Answer], None]) -> None:
        reply(self._upstreams.answer(method, path, query, body))
        self._upstreams.end_wait()

    def _reply(self, answer: Answer, *, ends: bool) -> None:
        head = (
            f"HTTP/1.1 {answer.status}\r\nContent-Type: {answer.content_type}\r\n"
            f"Content-Length: {len(answer.body)}\r\nDate: {_date(int(time.time()))}\r\n\r\n"
        )
        self._transport.write(head.encode() + answer.body)
        if ends:
            self._transport.close()


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def _fields(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}


def _json(value: object, status: str = "200 OK") -> Answer:
    return Answer(json.dumps(value).encode(), status)


async def serve(port: int, delay: float) -> None:
    """Serve until the process is ended."""
    upstreams = Upstreams(port)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(upstreams, delay), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), float(sys.argv[2])))
