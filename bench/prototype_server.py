"""The minimum that stores a report: form, parser, digest, grouped commit. The upper limit of any intake."""

import asyncio
import hashlib
import sqlite3
import sys
import threading
from collections import deque
from typing import Any

from aiohttp import web
from lxml import etree
from multipart import MultipartSegment, PushMultipartParser  # type: ignore[import-untyped]  # the package has no type marker

GROUP = 64  # reports a commit
TABLE = """CREATE TABLE reports (id INTEGER PRIMARY KEY, job_id TEXT, build_no INTEGER, node_id TEXT, name TEXT,
           sha256 BLOB, tests INTEGER, body BLOB, UNIQUE (job_id, build_no, node_id, name, sha256))"""
INSERT = """INSERT OR IGNORE INTO reports (job_id, build_no, node_id, name, sha256, tests, body)
            VALUES (?, ?, ?, ?, ?, ?, ?)"""

Waiting = tuple[tuple[Any, ...], "asyncio.Future[None]"]


class Writer(threading.Thread):
    """Writes waiting reports in groups, one durable commit for each group."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._waiting: deque[Waiting] = deque()
        self._wake_up = threading.Event()

    def put(self, row: tuple[Any, ...]) -> "asyncio.Future[None]":
        """Return a future that is done when the row is on disk."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, done))
        self._wake_up.set()
        return done

    def run(self) -> None:
        ledger = sqlite3.connect(self._path, isolation_level=None)
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", TABLE):
            ledger.execute(statement)
        while True:
            self._wake_up.wait()
            self._wake_up.clear()
            while group := [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]:
                ledger.execute("BEGIN IMMEDIATE")
                ledger.executemany(INSERT, [row for row, _ in group])
                ledger.execute("COMMIT")
                group[0][1].get_loop().call_soon_threadsafe(_resolve, [done for _, done in group])


def _resolve(group: "list[asyncio.Future[None]]") -> None:
    for done in group:
        if not done.done():
            done.set_result(None)


async def _files(request: web.Request) -> list[tuple[str, bytes]]:
    files: list[tuple[str, bytes]] = []
    name = ""
    pieces: list[bytes] = []
    with PushMultipartParser(request.headers["Content-Type"].split("boundary=")[1]) as parser:
        while not parser.closed:
            for event in parser.parse(await request.content.readany()):
                if isinstance(event, MultipartSegment):
                    name, pieces = event.filename or "", []
                elif event:
                    pieces.append(bytes(event))
                else:
                    files.append((name, b"".join(pieces)))
    return files


def main() -> None:
    writer = Writer(sys.argv[2])
    writer.start()

    async def upload(request: web.Request) -> web.Response:
        query, tests = request.query, 0
        for name, body in await _files(request):
            found = sum(1 for _ in etree.fromstring(body).iter("testcase"))
            key = (query["job_id"], int(query["build_no"]), query["node_id"], name, hashlib.sha256(body).digest())
            await writer.put((*key, found, body))
            tests += found
        return web.json_response({"status": "success", "result": f"{tests} tests", "error": None})

    app = web.Application()
    app.router.add_post("/v1/report/junit/report/upload", upload)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
