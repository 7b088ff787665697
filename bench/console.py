"""Measure the console: each page with a million builds, and the page of a report of 20 MB.

Always exits with 0. README.md explains the figures.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from statistics import median

import aiohttp
from aiohttp import web
from intake import FOLDER, heading
from million import fill, job_id, small_upload
from sqlalchemy import Connection, text
from surroundings import surroundings
from validation import realistic

from bridge.clock import SystemClock
from bridge.domain.routing import Route
from bridge.server.admin.access import AdminAccess
from bridge.server.admin.app import admin_app
from bridge.server.config import ServerConfig
from bridge.server.health import Readiness
from bridge.store.blobs.disk import DiskSpool
from bridge.store.blobs.metadata import BlobMetadata
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.ledger import open_ledger
from bridge.store.uploads import accept
from bridge.telemetry.logs import set_up
from bridge.telemetry.metrics import Metrics

BUILDS = 1_000_000
ROUNDS = 15
PAGE_MS = 200
REPORT_BYTES = 20_000_000
REPORT_MS = 1_000
AUDITED = 100_000
MIB = 1 << 20

SPREAD = """
UPDATE builds SET accepted_at = accepted_at - (:builds - id) * 60000000, "commit" = printf('%040x', id),
    branch = CASE WHEN id % 1000 = 0 THEN 'rare' WHEN id % 10 = 0 THEN 'release' ELSE 'main' END,
    result_mismatch = CASE WHEN id % 2000 = 0 THEN 'red_without_failure' END;
UPDATE reports SET accepted_at = accepted_at - (:builds - id) * 60000000,
    caller = CASE WHEN id < 20 THEN 'first' WHEN id % 1000 = 0 THEN 'nightly' ELSE 'ci' END;
UPDATE rejections SET rejected_at = rejected_at - (:builds - id) * 6000000;
INSERT INTO audit (at, person, role, address, action, target, detail)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :audited)
    SELECT i, 'Ann', 'operator', '127.0.0.1', 'retry', 'delivery ' || i, '1 report' FROM n
"""
"""A build a minute; of branches and callers, one has nearly all builds, one has few, and one has very few."""

PAGES = {
    "overview": "/",
    "builds": "/builds",
    "builds, from the middle": "/builds?after={middle}",
    "builds of a job": "/builds?job_id={job}",
    "builds: job and number": "/builds?job_id={job}&build_no={number}",
    "builds: open": "/builds?state=open",
    "builds: finalized": "/builds?state=finalized",
    "builds: no run, of which there are none": "/builds?state=no_run",
    "builds of a route": "/builds?route=shop",
    "builds of a route with none": "/builds?route=none",
    "builds of a branch": "/builds?branch=main",
    "builds of a rare branch": "/builds?branch=rare",
    "builds of a branch with none": "/builds?branch=none",
    "builds of a commit": "/builds?commit={commit}",
    "builds of a commit with none": "/builds?commit=none",
    "builds of a caller": "/builds?caller=ci",
    "builds of a rare caller": "/builds?caller=nightly",
    "builds of a caller with few, long ago": "/builds?caller=first",
    "builds of a caller with none": "/builds?caller=none",
    "builds of a caller and a route": "/builds?caller=ci&route=shop",
    "builds of a caller and a route with none": "/builds?caller=ci&route=none",
    "builds of a caller and a branch": "/builds?caller=nightly&branch=main",
    "builds with problems": "/builds?problems=true",
    "builds with problems of a route": "/builds?problems=true&route=shop",
    "builds: branch, state and route": "/builds?branch=rare&state=finalized&route=docs",
    "build": "/builds/{job}/{number}",
    "build that never came": "/builds/{job}/999999999",
    "report": "/reports/{number}",
    "rejections": "/rejections",
    "rejections of a job": "/rejections?job_id={job}",
    "rejections of a route": "/rejections?route=shop",
    "rejections of a route with none": "/rejections?route=none",
    "audit": "/audit",
    "audit, from the middle": "/audit?after=50000",
    "tests, all jobs": "/tests",
    "tests of a job": f"/tests?job_id={job_id(1)}",
    "events, the first": "/api/v1/events",
}


@asynccontextmanager
async def _console(database: SqliteDatabase, spool: DiskSpool) -> AsyncIterator[str]:
    """Serve an admin listener in this process, and yield its address."""
    shown = {  # what the pages use; all else is None
        "trusted_proxies": (),
        "access": AdminAccess(),
        "routes": tuple(Route(name=name) for name in ("shop", "pay", "docs")),
        "max_finalize_delay_us": 0,
    }
    config = ServerConfig(**dict.fromkeys(field.name for field in fields(ServerConfig)) | shown)  # type: ignore[arg-type]
    app = admin_app(
        database=database,
        readiness=Readiness(database=database, spool=spool, min_free=1, clock=SystemClock()),
        metrics=Metrics(),
        tasks=lambda: (),
        config=lambda: config,
        archive=None,
        spool=spool,
        certificate=None,
        host="127.0.0.1",
        clock=SystemClock(),
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _write(connection: Connection, now: int, builds: int) -> None:
    fill(connection, now, builds)
    for statement in SPREAD.split(";"):
        values = {"builds": builds, "audited": AUDITED}
        connection.execute(text(statement), {name: value for name, value in values.items() if f":{name}" in statement})


async def _pages(http: aiohttp.ClientSession, builds: int, rounds: int, only: str) -> None:
    number = builds // 2 + 3
    names = {"middle": builds // 2, "number": number, "job": job_id(number % 8), "commit": f"{number:040x}"}
    for name, path in PAGES.items():
        if only not in name:
            continue
        wall, cpu = [], []
        for _ in range(rounds + 1):
            began, spent = time.perf_counter(), time.process_time()
            async with http.get(path.format(**names), headers={"Accept": "text/html"}) as answer:
                await (answer.content.readany() if "events" in path else answer.read())
            wall.append((time.perf_counter() - began) * 1e3)
            cpu.append((time.process_time() - spent) * 1e3)
        late = "  OVER THE LIMIT" if median(wall[1:]) > PAGE_MS else ""
        print(
            f"  {name:42} {answer.status} {median(wall[1:]):8.1f} ms {median(cpu[1:]):8.1f} ms of CPU{late}", flush=True
        )


async def _large_report(http: aiohttp.ClientSession, database: SqliteDatabase, spool: DiskSpool, rounds: int) -> None:
    """Measure the page of a report of 20 MB in the spool."""
    body = b"".join(realistic(REPORT_BYTES))
    upload = small_upload(1, 77_000_000)
    (report,) = upload.reports
    metadata = BlobMetadata(
        job_id=upload.job_id,
        build_no=upload.build_no,
        node_id=report.node_id,
        name=report.name,
        dedupe_key="",
        caller=upload.caller,
        size=len(body),
        received_sha256=report.received_sha256,
        sent_size=len(body),
        sent_sha256=report.sent_sha256,
    )
    writer = await spool.create()
    for start in range(0, len(body), MIB):
        await writer.write(body[start : start + MIB])
    key = await writer.commit(metadata)
    await database.write(accept, replace(upload, reports=(replace(report, body=None, blob=key),)))
    newest = await database.read(lambda connection: connection.execute(text("SELECT max(id) FROM reports")).scalar())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first, whole = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        async with http.get(f"/reports/{newest}", headers={"Accept": "text/html"}) as answer:
            first.append((time.perf_counter() - began) * 1e3)
            size = len(await answer.read())
        whole.append((time.perf_counter() - began) * 1e3)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    late = "  OVER THE LIMIT" if median(first) > REPORT_MS else ""
    print(f"  {len(body) / 1e6:.0f} MB: begins after {median(first):.0f} ms, ends after {median(whole):.0f} ms{late}")
    print(f"  its page has {size / 1e6:.1f} MB; the most memory grew by {grown:.0f} MiB")


async def bench(folder: Path, builds: int, rounds: int, only: str) -> None:
    """Fill a ledger, and measure."""
    (folder / "spool").mkdir()
    spool = DiskSpool(folder / "spool")
    began = time.monotonic()
    async with open_ledger(f"sqlite:///{folder}/bridge.db", SystemClock()) as database:
        if not isinstance(database, SqliteDatabase):
            raise TypeError(database)
        with database.writing.begin() as connection:
            _write(connection, database.now(), builds)
        print(f"{builds:,} builds written in {time.monotonic() - began:.0f} s")
        async with _console(database, spool) as url, aiohttp.ClientSession(url) as http:
            heading(f"Pages with {builds:,} builds, medians (limit {PAGE_MS} ms)")
            await _pages(http, builds, rounds, only)
            heading(f"The page of a report (limit {REPORT_MS} ms until it begins)")
            await _large_report(http, database, spool, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", type=int, default=BUILDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default="", help="pages with this text in their name")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="parent of the folder of ledger and spool")
    args = parser.parse_args()
    set_up(level="ERROR")
    with tempfile.TemporaryDirectory(prefix="console-", dir=args.folder) as folder:
        print(*list(surroundings(Path(folder)))[:2], sep="\n")
        asyncio.run(bench(Path(folder), args.builds, args.rounds, args.only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
