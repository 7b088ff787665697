"""Move a ledger and its spool from SQLite and disk to PostgreSQL and S3: all goes on there, and may come back."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from bridge.demo.postgres import PostgresServer
from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import UPLOAD_PATH
from tests.support.ports import REFUSED_URL, held_port
from tests.support.processes import GatewayProcess, NewGateway, Settings, until
from tests.support.starting import fork, run_program
from tests.support.weed import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Weed, new_prefix

JOB = "b" * 32
LARGE = "x" * 200_000  # more than rides in a row
BUILDS = 12


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    async with PostgresServer() as server:
        yield server


@pytest.fixture
def settings(settings: dict[str, Any], weed: Weed) -> Iterator[Settings]:
    """Return settings of a gateway that uploads tell when a build ends."""
    with held_port() as port:
        yield {
            **{name: table for name, table in settings.items() if name != "codearts"},
            "admin": {"port": port},
            "s3": {
                "endpoint_url": weed.url,
                "region": REGION,
                "access_key_id": ACCESS_KEY,
                "secret_access_key": SECRET_KEY,
            },
        }


def away(settings: Settings) -> Settings:
    """Return settings of a gateway that reaches no TestNod, so that reports wait."""
    return {**settings, "testnod": {**settings["testnod"], "base_url": REFUSED_URL}}  # type: ignore[dict-item]


async def bridge(gateway: GatewayProcess, *words: str) -> tuple[int, str]:
    """Run a command with the settings of a gateway; return its exit code and what it printed."""
    code, out, err = await run_program(["bridge", *words, "--config", str(gateway.config)])
    return code, out + err


async def upload(gateway: GatewayProcess, build_no: int, content: str) -> int:
    form = aiohttp.FormData()
    form.add_field("files", content.encode(), filename="junit.xml")
    params = {"job_id": JOB, "build_no": str(build_no), "node_id": "n", "complete": "true"}
    url = f"{gateway.server_url}{UPLOAD_PATH}"
    async with aiohttp.ClientSession() as http, http.post(url, params=params, data=form) as answer:
        return answer.status


async def upload_all(gateway: GatewayProcess) -> None:
    """Upload one report for each build, every third a large one, and a rejected file."""
    for number in range(1, BUILDS + 1):
        output = LARGE if number % 3 == 0 else ""
        content = f'<testsuite name="{number}"><testcase name="a"/><system-out>{output}</system-out></testsuite>'
        assert await upload(gateway, number, content) == 200
    assert await upload(gateway, 1, "<html></html>") == 400


async def admin(gateway: GatewayProcess, path: str) -> Any:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}{path}") as answer:
        return await answer.json()


async def states(gateway: GatewayProcess) -> list[str]:
    return [build["state"] for build in (await admin(gateway, "/api/v1/builds"))["builds"]]


def delivered(sandbox: Sandbox) -> list[int]:
    """Return how often a report of each build was stored."""
    return [
        sum(
            upload.put_at is not None
            for run in sandbox.state.runs.all(f"codearts-{JOB}-{number}")
            for upload in run.uploads
        )
        for number in range(1, BUILDS + 1)
    ]


def places(tmp_path: Path, server: PostgresServer) -> tuple[list[str], str]:
    """Return the options of the command, and the new spool."""
    spool = f"s3://{BUCKET}/{new_prefix()}spool"
    source = f"sqlite:///{tmp_path}/bridge.db"
    options = ["move", "--from", source, "--to", server.url(), "--from-spool", f"{tmp_path}/spool", "--to-spool", spool]
    return options, spool


async def test_everything_goes_on_at_the_new_ledger_and_nothing_starts_on_the_old_one(
    sandbox: Sandbox, settings: Settings, new_gateway: NewGateway, server: PostgresServer, tmp_path: Path
) -> None:
    old = new_gateway(away(settings))
    await old.start()
    await upload_all(old)
    options, spool = places(tmp_path, server)
    code, printed = await bridge(old, *options)
    assert (code, "has the ledger" in printed) == (1, True), printed  # a gateway has it open
    await old.kill()

    code, printed = await bridge(old, *options)
    assert code == 0, printed
    assert f"{BUILDS} builds" in printed
    assert f"and store.spool to {spool}, then start" in printed
    code, printed = await bridge(old, *options)
    assert (code, "before" in printed) == (0, True), printed
    code, printed = await bridge(old, "serve")
    assert (code, "was moved to postgresql://" in printed) == (1, True), printed

    store = {**settings["store"], "url": server.url(), "spool": spool}  # type: ignore[dict-item]
    new = new_gateway({**settings, "store": store})
    await new.start()
    await until(lambda: delivered(sandbox) == [1] * BUILDS, "each report is stored once")
    await until_states(new, {"finalized"})
    (rejection,) = (await admin(new, "/api/v1/rejections"))["rejections"]
    url = f"{new.admin_url}/api/v1/rejections/{rejection['id']}/file"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        assert await answer.read() == b"<html></html>"
    assert await upload(new, BUILDS + 1, '<testsuite name="later"><testcase name="a"/></testsuite>') == 200
    await until_states(new, {"finalized"}, builds=BUILDS + 1)
    await new.kill()
    await until_alone(server)
    code, printed = await bridge(old, *options, "--undo")
    assert (code, "1 report was uploaded" in printed) == (1, True), printed


async def test_a_move_is_taken_back_with_what_was_delivered_meanwhile(
    sandbox: Sandbox, settings: Settings, new_gateway: NewGateway, server: PostgresServer, tmp_path: Path
) -> None:
    old = new_gateway(away(settings))
    await old.start()
    await upload_all(old)
    await old.kill()
    options, spool = places(tmp_path, server)
    assert (await bridge(old, *options))[0] == 0
    store = {**settings["store"], "url": server.url(), "spool": spool}  # type: ignore[dict-item]
    new = new_gateway({**settings, "store": store})
    await new.start()
    await until(lambda: delivered(sandbox) == [1] * BUILDS, "each report is stored once")
    code, printed = await bridge(old, *options, "--undo")
    assert (code, "other connection" in printed) == (1, True), printed  # the gateway still runs
    await new.terminate()
    await until_alone(server)

    code, printed = await bridge(old, *options, "--undo")
    assert code == 0, printed
    code, printed = await bridge(new, "serve")
    assert (code, "was moved" in printed) == (1, True), printed
    again = new_gateway(settings)
    await again.start()
    await until_states(again, {"finalized"})
    assert delivered(sandbox) == [1] * BUILDS
    assert (await bridge(again, *options, "--undo"))[0] == 1


async def test_a_move_that_was_killed_goes_on(
    sandbox: Sandbox, settings: Settings, new_gateway: NewGateway, server: PostgresServer, tmp_path: Path
) -> None:
    old = new_gateway(away(settings))
    await old.start()
    await upload_all(old)
    await old.kill()
    add_rows(tmp_path / "bridge.db", 3_000)
    options, spool = places(tmp_path, server)
    out = tmp_path / "out"
    process = await fork(["bridge", *options, "--config", str(old.config)], out, out)
    await until(lambda: marked(tmp_path / "bridge.db"), "the source is marked")
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    code, printed = await bridge(old, "serve")
    assert (code, "has not ended" in printed) == (1, True), printed
    await until_alone(server)

    code, printed = await bridge(old, *options)
    assert code == 0, printed
    store = {**settings["store"], "url": server.url(), "spool": spool}  # type: ignore[dict-item]
    new = new_gateway({**settings, "store": store})
    await new.start()
    await until(lambda: delivered(sandbox) == [1] * BUILDS, "each report is stored once")
    audited = (await admin(new, "/api/v1/audit?limit=1"))["audit"]
    assert audited[0]["target"] == "3000"


def add_rows(ledger: Path, count: int) -> None:
    with closing(sqlite3.connect(ledger)) as connection, connection:
        rows = [(1, "p", "operator", "127.0.0.1", "pause_route", str(number + 1), "") for number in range(count)]
        query = "INSERT INTO audit (at, person, role, address, action, target, detail) VALUES (?, ?, ?, ?, ?, ?, ?)"
        connection.executemany(query, rows)


def marked(ledger: Path) -> bool:
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT count(*) FROM moves").fetchone()[0])


async def until_states(gateway: GatewayProcess, wanted: set[str], builds: int = BUILDS) -> None:
    for _ in range(600):
        shown = await states(gateway)
        if set(shown) == wanted and len(shown) == builds:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(shown)


async def until_alone(server: PostgresServer) -> None:
    """Return once the server has noticed that its clients have ended."""
    connection = await asyncpg.connect(server.url())
    try:
        query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        for _ in range(600):
            if await connection.fetchval(query) == 1:
                return
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
