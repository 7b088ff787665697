"""Move a ledger of 100,000 builds from SQLite and disk to PostgreSQL and S3, killed repeatedly; then deliver the rest.

Exits with 1 if a row or a report got lost. README.md explains the figures.
"""

import argparse
import asyncio
import http.client
import json
import os
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

import asyncpg
from deliver import SETTINGS, finalized, upstreams
from intake import FOLDER, heading, run_client
from load import BOUNDARY, PART_END, part_head
from million import fill
from processes import ServerProcess, free_port
from sqlalchemy import create_engine, text
from surroundings import surroundings

from bridge.demo.postgres import PostgresServer
from bridge.demo.s3_server import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, S3Server

ROOT = Path(__file__).parent.parent
BUILDS = 100_000
UPLOADED, REPORTS = 400, 5  # builds that wait for TestNod, and the reports of each
LARGE_EVERY = 4  # rejected files: larger than what rides in a row
REJECTED = 40
KILLS = 5
WAIT_SECONDS = 300.0
POLL_SECONDS = 0.5
COUNTED = {
    "builds": "SELECT count(*) FROM builds",
    "reports": "SELECT count(*) FROM reports",
    "pending": "SELECT count(*) FROM deliveries WHERE state = 'pending'",
    "delivered": "SELECT count(*) FROM deliveries WHERE state = 'delivered'",
    "dead": "SELECT count(*) FROM deliveries WHERE state = 'dead'",
    "rejections": "SELECT count(*) FROM rejections",
}
DELIVERED = (
    "UPDATE builds SET state = 'finalized', finalized_seq = report_seq, due_at = NULL WHERE state = 'open'",
    "UPDATE deliveries SET state = 'delivered' WHERE state = 'pending'",
    "UPDATE reports SET body = NULL",
)
TABLES = """
[s3]
endpoint_url = "{url}"
region = "{region}"
access_key_id = "{access}"
secret_access_key = "{secret}"
"""
POLLING = 'initial_delay = "100ms"\nmin_interval = "100ms"\nrequests_per_minute = 600000\ngrace_period = "100ms"'


def gateway(folder: Path, token: str, upstream: int, ledger: str, spool: str, tables: str) -> ServerProcess:
    """Return a gateway with the ledger and spool."""
    folder.mkdir()
    port, admin = free_port(), free_port()
    values = {"folder": folder, "port": port, "admin": admin, "ledger": ledger, "token": token, "upstream": upstream}
    settings = SETTINGS.format(**values, drain="shutdown_timeout", min_free="min_free_space", polling=POLLING)
    config = folder / "bridge.toml"
    config.write_text(settings.replace(f"{folder}/spool", spool) + tables, encoding="utf-8")
    command = [sys.executable, "-m", "bridge", "serve", "--config", os.fspath(config)]
    return ServerProcess(folder.name, command, port=port, also=(admin,), folder=ROOT, log=folder / "gateway.log")


def ask(server: ServerProcess, path: str) -> bytes:
    """Return what the admin listener answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports[1]}{path}") as response:
        body: bytes = response.read()
        return body


def reject(port: int, token: str, number: int) -> None:
    """Upload a file that is no report, and is kept in quarantine."""
    file = b"<html>%d%s</html>" % (number, b"x" * (200_000 if number % LARGE_EVERY == 0 else 10))
    body = part_head("TEST-page.xml") + file + PART_END
    headers = {"X-Auth-Token": token, "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    path = f"/v1/report/junit/report/upload?job_id={'b' * 32}&build_no={number}&node_id=n"
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", path, body, headers)
    if (status := connection.getresponse().status) != HTTPStatus.BAD_REQUEST:
        raise RuntimeError(f"The answer to a page was {status}.")
    connection.close()


def counted(path: Path) -> Counter[str]:
    """Return the rows of the source."""
    with closing(sqlite3.connect(path)) as connection:
        return Counter({name: connection.execute(query).fetchone()[0] for name, query in COUNTED.items()})


async def counted_in_postgres(url: str) -> Counter[str]:
    """Return the rows of the target."""
    connection = await asyncpg.connect(url)
    try:
        return Counter({name: await connection.fetchval(query) for name, query in COUNTED.items()})
    finally:
        await connection.close()


def move(config: Path, options: list[str], kills: int, pause_seconds: float) -> tuple[float, int]:
    """Run the command until it has ended by itself; return the seconds of all its runs, and how often it was killed."""
    command = [sys.executable, "-m", "bridge", "move", *options, "--config", os.fspath(config)]
    began, killed = time.perf_counter(), 0
    while True:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            printed, _ = process.communicate(timeout=pause_seconds * (killed + 1) if killed < kills else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
            time.sleep(1)  # until the database has noticed
            continue
        if process.returncode:
            raise RuntimeError(printed)
        print("  " + printed.strip().replace("\n", "\n  "))
        return time.perf_counter() - began, killed


def run(args: argparse.Namespace, folder: Path, database: PostgresServer, storage: S3Server) -> bool:
    """Fill, move, deliver and compare; return whether nothing is missing."""
    token, ledger, spool = secrets.token_hex(16), folder / "bridge.db", f"{folder}/spool"
    tables = TABLES.format(url=storage.url, region=REGION, access=ACCESS_KEY, secret=SECRET_KEY)
    with gateway(folder / "first", token, free_port(), f"sqlite:///{ledger}", spool, tables):
        pass  # makes the tables
    engine = create_engine(f"sqlite:///{ledger}")
    with engine.begin() as connection:
        fill(connection, int(time.time() * 1e6), args.builds)
        for statement in DELIVERED:  # those that wait come from uploads
            connection.execute(text(statement))
    engine.dispose()
    with gateway(folder / "source", token, free_port(), f"sqlite:///{ledger}", spool, tables) as source:
        request = {"port": source.port, "token": token, "cases": 60, "connections": 8, "builds": UPLOADED // 8}
        sent = run_client("load.py", request | {"first_build": 10_000_000, "reports_a_request": REPORTS})
        for number in range(1, REJECTED + 1):
            reject(source.port, token, number)
    before = counted(ledger)
    print(f"  source: {dict(before)}; {sent['accepted']} uploads accepted while TestNod was away")
    heading(f"moved, killed up to {args.kills} times")
    target, moved_spool = database.url(), f"s3://{BUCKET}/moved/spool"
    options = ["--from", f"sqlite:///{ledger}", "--to", target, "--from-spool", spool, "--to-spool", moved_spool]
    seconds, killed = move(folder / "source" / "bridge.toml", options, args.kills, args.pause)
    after = asyncio.run(counted_in_postgres(target))
    print(f"  {seconds:.0f} s with {killed} kills; target: {dict(after)}")
    heading("delivered from the target")
    with upstreams(folder, 0.0) as upstream:
        with gateway(folder / "target", token, upstream.port, target, moved_spool, tables) as gateway_there:
            began = time.perf_counter()
            while time.perf_counter() - began < WAIT_SECONDS:
                end = asyncio.run(counted_in_postgres(target))
                if not end["pending"]:
                    break
                time.sleep(POLL_SECONDS)
            pages: list[dict[str, Any]] = json.loads(ask(gateway_there, "/api/v1/rejections"))["rejections"]
            files = [
                ask(gateway_there, f"/api/v1/rejections/{page['id']}/file") for page in pages if page["kept_until"]
            ]
        stored = finalized(upstream.port)["stored"]
    print(f"  {stored} reports stored in {time.perf_counter() - began:.0f} s; {dict(end)}")
    readable = sum(file.startswith(b"<html>") for file in files)
    print(f"  {readable} of {REJECTED} files in quarantine are readable")
    whole = before == after and not end["pending"] and stored == before["pending"] and readable == REJECTED
    print(f"  {'nothing is missing' if whole else 'SOMETHING IS MISSING'}")
    return whole


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", type=int, default=BUILDS, help=f"builds in the ledger, default {BUILDS}")
    parser.add_argument("--kills", type=int, default=KILLS, help=f"default {KILLS}")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds until the first kill, default 4")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"on a disk, not in memory; default {FOLDER}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bridge-move-", dir=args.folder) as folder, S3Server() as storage:
        for line in list(surroundings(Path(folder)))[:3]:
            print(line)
        database = PostgresServer()
        asyncio.run(database.__aenter__())
        try:
            sys.exit(not run(args, Path(folder), database, storage))
        finally:
            asyncio.run(database.__aexit__())


if __name__ == "__main__":
    main()
