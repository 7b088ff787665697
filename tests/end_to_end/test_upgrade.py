"""The last release beside a newer one on one PostgreSQL: both accept and deliver until a column is dropped.

A newer one that is killed while it migrates stops no other gateway, and changes nothing.

BRIDGE_PREVIOUS names the interpreter of an environment with the last release. Without it this code is the last release,
and the newer one is this code with another migration.
"""

import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from bridge.clock import SystemClock
from bridge.demo.postgres import PostgresServer
from bridge.sandbox.sandbox import Sandbox
from bridge.store import ledger
from tests.support.builds import Ci, small_build
from tests.support.outcome import settled
from tests.support.processes import GatewayProcess, Settings, until
from tests.support.quick_settings import quick_settings
from tests.support.reckoning import wrong_bytes
from tests.support.starting import interpret

PREVIOUS = os.environ.get("BRIDGE_PREVIOUS", "")
ADD = (
    "ALTER TABLE builds ADD COLUMN next TEXT",
    "ALTER TABLE reports ADD COLUMN next BIGINT NOT NULL DEFAULT 0",
    "CREATE TABLE labels (build_id BIGINT PRIMARY KEY REFERENCES builds (id) ON DELETE CASCADE)",
    "CREATE INDEX ix_builds_next ON builds (next)",
)
DROP = ("ALTER TABLE builds DROP COLUMN next", "UPDATE alembic_version SET compatible_from = '9998'")
MIGRATION = """
from alembic import op

revision, down_revision, branch_labels, depends_on = {revision!r}, {former!r}, None, None


def upgrade():
    for statement in {statements!r}:
        op.execute(statement)
"""


HALTING_MIGRATION = """
import time
from pathlib import Path

from alembic import op

revision, down_revision, branch_labels, depends_on = {revision!r}, {former!r}, None, None


def upgrade():
    folder = Path(__file__).parent
    for statement in {statements!r}:
        op.execute(statement)
        (folder / "halted").touch()
        while not (folder / "may_go_on").exists():
            time.sleep(0.01)
"""
"""Waits after its first statement, with what that has locked, until a file is made."""


def with_migration(
    scripts: Path, folder: Path, revision: str, statements: tuple[str, ...], template: str = MIGRATION
) -> Path:
    """Return a copy of the folder of migrations that has another one."""
    former = max(path.name for path in (scripts / "versions").glob("[0-9]*.py"))[:4]
    shutil.copytree(scripts, folder)
    text = template.format(revision=revision, former=former, statements=statements)
    (folder / "versions" / f"{revision}_next.py").write_text(text, encoding="utf-8")
    return folder


class OlderGateway(GatewayProcess):
    """The last release."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        if PREVIOUS:
            self._begin = partial(interpret, python=PREVIOUS, folder=folder)


class NewerGateway(GatewayProcess):
    """The release after it, with the migrations in `scripts`."""

    def __init__(self, folder: Path, settings: Settings, scripts: Path) -> None:
        super().__init__(folder, settings)
        self._scripts = scripts

    def program(self) -> list[str]:
        return ["tests.support.newer_program", str(self._scripts), *super().program()[1:]]


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    async with PostgresServer() as server:
        yield server


@pytest.fixture
def settings(settings: dict[str, Any], server: PostgresServer) -> dict[str, Any]:
    return {**settings, "store": {**settings["store"], "url": server.url()}}


@pytest.mark.timeout(600)
async def test_the_last_release_goes_on_beside_a_newer_schema_until_it_lacks_something(
    settings: dict[str, Any], sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expanded = ledger.SCRIPTS if PREVIOUS else with_migration(ledger.SCRIPTS, tmp_path / "expanded", "9998", ADD)
    async with (
        OlderGateway(tmp_path / "old", settings) as old,
        NewerGateway(tmp_path / "new", settings, expanded) as new,
    ):
        await old.start()
        await _play([1], sandbox, old)
        await new.start()
        await _play([2, 3, 4, 5], sandbox, old, new)
        assert len(old.events("upload_accepted")) > 1
        assert new.events("upload_accepted")
        await until(old.ready, "the old gateway accepts uploads beside the newer schema")

        assert [await gateway.terminate() for gateway in (new, old)] == [0, 0]
        await old.start()  # as after a crash, or to go back
        await _play([6], sandbox, old)
        if PREVIOUS:
            return
        (accepted,) = old.events("newer_schema_accepted")
        assert accepted["schema"] == "9998"

        contracted = with_migration(expanded, tmp_path / "contracted", "9999", DROP)
        monkeypatch.setattr(ledger, "SCRIPTS", contracted)
        await ledger.migrate_ledger(settings["store"]["url"], SystemClock())
        await until(lambda: _is_red(old, "The ledger has schema 9999"), "the old gateway gives its reason")
        await new.start()
        await _play([7], sandbox, new)
        assert await old.terminate() == 0
        await old.spawn()
        assert await old.wait() == 1
        assert "schema 9999, which this older program does not support" in old.stderr()


async def _play(numbers: list[int], sandbox: Sandbox, *gateways: GatewayProcess) -> None:
    """Upload builds of one report to the gateways in turn; return when all have been delivered as they were sent."""
    builds = [small_build(number, job_id=f"{number:032x}") for number in numbers]
    turn = cycle(gateways)
    async with Ci(sandbox.state, lambda: next(turn).server_url) as ci:
        for build in builds:
            await ci.play(build)
    await until(lambda: settled(gateways[0], sandbox.state, builds), "every build has come to its end")
    assert [sentence for build in builds for sentence in wrong_bytes(sandbox.state, build)] == []


async def _is_red(gateway: GatewayProcess, reason: str) -> bool:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/readyz") as answer:
        return answer.status == 503 and any(reason in each for each in (await answer.json())["reasons"])


# -- a migration that is killed -----------------------------------------------------------------------------------


@pytest.fixture
def halting(tmp_path: Path) -> Path:
    """Return migrations whose last one halts in its middle."""
    return with_migration(ledger.SCRIPTS, tmp_path / "halting", "9998", ADD, HALTING_MIGRATION)


def has_halted(scripts: Path) -> bool:
    return (scripts / "versions" / "halted").exists()


def let_go_on(scripts: Path) -> None:
    (scripts / "versions" / "may_go_on").touch()


SCHEMA = """
SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema()
UNION ALL SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()
UNION ALL SELECT version_num FROM alembic_version
"""
WAITS_FOR_TABLE = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'builds'::regclass AND NOT granted"


async def schema_of(connection: "asyncpg.Connection[asyncpg.Record]") -> set[str]:
    """Return the columns and indexes of a PostgreSQL ledger, and the revision it states."""
    return {row[0] for row in await connection.fetch(SCHEMA)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("behind_reader", [True, False], ids=["while it waits for a reader", "with a table it changed"])
async def test_a_gateway_killed_while_it_migrates_stops_no_other_and_changes_nothing(
    settings: dict[str, Any],
    server: PostgresServer,
    sandbox: Sandbox,
    tmp_path: Path,
    halting: Path,
    *,
    behind_reader: bool,
) -> None:
    async with (
        OlderGateway(tmp_path / "old", settings) as old,
        NewerGateway(tmp_path / "new", settings, halting) as new,
    ):
        await old.start()
        await _play([1], sandbox, old)
        direct, reader = [await asyncpg.connect(server.url()) for _ in range(2)]
        before = await schema_of(direct)
        reading = reader.transaction()
        await reading.start()
        if behind_reader:
            await reader.fetch("SELECT count(*) FROM builds")  # holds the table until its transaction ends

        async def is_reached() -> bool:
            return await direct.fetchval(WAITS_FOR_TABLE) if behind_reader else has_halted(halting)

        await new.spawn()
        await until(is_reached, "the migration is in its middle", look_seconds=0.001)
        await new.kill()
        await _play([2, 3, 4], sandbox, old)
        assert old.running
        assert has_halted(halting) is not behind_reader
        await reading.rollback()
        assert await schema_of(direct) == before

        let_go_on(halting)
        await new.start()
        await _play([5, 6], sandbox, old, new)
        new_names = {"builds.next", "reports.next", "labels.build_id", "labels_pkey", "ix_builds_next", "9998"}
        assert await schema_of(direct) - before == new_names
        for connection in (direct, reader):
            await connection.close()


IN_LONG_STATEMENT = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"


@pytest.mark.timeout(600)
async def test_a_gateway_killed_in_a_long_statement_of_a_migration_gives_its_tables_back(
    settings: dict[str, Any], server: PostgresServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    long = with_migration(ledger.SCRIPTS, tmp_path / "long", "9998", (ADD[0], "SELECT pg_sleep(3600)"))
    async with OlderGateway(tmp_path / "old", settings) as old, NewerGateway(tmp_path / "new", settings, long) as new:
        await old.start()
        await _play([1], sandbox, old)
        direct = await asyncpg.connect(server.url())
        before = await schema_of(direct)
        await new.spawn()
        await until(lambda: direct.fetchval(IN_LONG_STATEMENT), "the migration is in its long statement")
        await new.kill()
        await _play([2], sandbox, old)
        assert await schema_of(direct) == before
        await direct.close()


@pytest.mark.timeout(600)
async def test_a_sqlite_ledger_whose_migration_was_killed_is_used_as_before_or_migrated_whole(
    sandbox: Sandbox, tmp_path: Path, halting: Path
) -> None:
    settings = quick_settings(sandbox, tmp_path)
    path = tmp_path / "bridge.db"

    def schema() -> tuple[list[Any], list[Any]]:
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
            return tables, connection.execute("SELECT version_num FROM alembic_version").fetchall()

    async with (
        OlderGateway(tmp_path / "old", settings) as old,
        NewerGateway(tmp_path / "new", settings, halting) as new,
    ):
        await old.start()
        await _play([1], sandbox, old)
        assert await old.terminate() == 0
        before = schema()
        await new.spawn()
        await until(lambda: has_halted(halting), "the migration is in its middle")
        await new.kill()
        assert schema() == before

        await old.start()
        await _play([2], sandbox, old)
        assert await old.terminate() == 0
        let_go_on(halting)
        await new.start()
        await _play([3], sandbox, new)
        tables, version = schema()
        assert {name for name, _ in tables} - {name for name, _ in before[0]} == {"labels", "ix_builds_next"}
        assert version == [("9998",)]
