import asyncio
import shutil

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from bridge.errors import SchemaMismatch
from bridge.store import ledger
from bridge.store.engine.postgres import PostgresDatabase
from bridge.store.engine.sqlite_writer import sqlite_engine
from bridge.store.ledger import check, migrate, migrate_ledger, newest_revision, open_ledger, outdated
from bridge.store.schema import metadata
from tests.support.fake_clock import FakeClock


@pytest.fixture
def new_engine(tmp_path):
    """Open ledgers that have no schema yet, by their name."""
    engines = []

    def make(name="ledger.db"):
        engines.append(sqlite_engine(tmp_path / name, begin="BEGIN IMMEDIATE"))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(new_engine):
    return new_engine()


def structure(engine):
    """Return what the database itself says of its tables and indexes."""
    with engine.begin() as connection:
        found = connection.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"))
        return [tuple(" ".join(str(value).split()) for value in row) for row in found]


def set_revision(engine, revision):
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def test_an_empty_ledger_becomes_what_the_schema_says(engine):
    assert migrate(engine) == newest_revision()
    with engine.begin() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_migrated_indexes_are_those_of_the_schema_to_the_letter(engine, new_engine):
    migrate(engine)
    straight = new_engine("straight.db")
    metadata.create_all(straight)
    indexes = [[row for row in structure(one) if row[0] == "index"] for one in (engine, straight)]
    assert [row for row in indexes[0] if row[2] != "alembic_version"] == indexes[1]


def test_a_migrated_ledger_gives_freed_pages_back(engine):
    migrate(engine)
    with engine.begin() as connection:
        assert connection.execute(text("PRAGMA auto_vacuum")).scalar() == 2
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"


def test_to_migrate_twice_changes_nothing(engine):
    migrate(engine)
    before = structure(engine)
    assert migrate(engine) == newest_revision()
    assert structure(engine) == before


def test_a_migrated_ledger_passes_the_check(engine):
    migrate(engine)
    check(engine)


def test_a_migration_that_fails_leaves_nothing_behind(engine):
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE circuit_breakers (name TEXT)"))
    before = structure(engine)
    with pytest.raises(Exception, match="circuit_breakers already exists"):
        migrate(engine)
    assert structure(engine) == before


@pytest.mark.parametrize("ask", [check, migrate], ids=["check", "migrate"])
def test_a_newer_ledger_is_refused_and_left_alone(engine, ask):
    migrate(engine)
    set_revision(engine, "9999")
    before = structure(engine)
    with pytest.raises(SchemaMismatch, match=r"schema 9999.*older program.*bridge serve"):
        ask(engine)
    assert structure(engine) == before


def test_an_older_ledger_is_refused_until_it_is_migrated(engine):
    with pytest.raises(SchemaMismatch, match="bridge migrate"):
        check(engine)
    migrate(engine)
    check(engine)


# -- a SQLite ledger is copied aside before ----------------------------------------------------------------------


NEXT_MIGRATION = """
revision = "next"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
"""


async def test_an_older_sqlite_ledger_is_copied_before_it_is_migrated(tmp_path, monkeypatch):
    path = tmp_path / "bridge.db"
    url = f"sqlite:///{path}"
    migrated, newest = await migrate_ledger(url, FakeClock())
    assert migrated == str(path)
    scripts = shutil.copytree(ledger.SCRIPTS, tmp_path / "migrations")
    (scripts / "versions" / "next.py").write_text(NEXT_MIGRATION.format(newest=newest))
    monkeypatch.setattr(ledger, "SCRIPTS", scripts)
    assert await migrate_ledger(url, FakeClock()) == (str(path), "next")
    copy = sqlite_engine(tmp_path / f"bridge.db.schema-{newest}", begin="BEGIN")
    assert outdated(copy) == newest
    copy.dispose()


async def test_a_new_or_current_sqlite_ledger_is_not_copied(tmp_path):
    url = f"sqlite:///{tmp_path}/bridge.db"
    for _ in range(2):
        async with open_ledger(url, FakeClock()):
            pass
    assert [path.name for path in tmp_path.glob("*schema*")] == []


# -- PostgreSQL --------------------------------------------------------------------------------------------------


async def test_an_empty_postgresql_ledger_becomes_what_the_schema_says(postgres):
    async with postgres.new_url("template0") as url, PostgresDatabase(url, FakeClock()) as database:
        await migrate_ledger(url, FakeClock())

        def differences(connection):
            options = {"compare_type": True, "compare_server_default": True}
            return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

        async with database.engine.connect() as connection:
            assert await connection.run_sync(differences) == []


async def test_gateways_that_start_at_once_migrate_one_after_the_other(postgres):
    async with postgres.new_url("template0") as url:
        ends = await asyncio.gather(*(migrate_ledger(url, FakeClock()) for _ in range(4)))
        assert {revision for _, revision in ends} == {newest_revision()}


async def test_a_newer_postgresql_ledger_is_refused(postgres):
    async with postgres.new_url() as url:
        async with PostgresDatabase(url, FakeClock()) as database, database.engine.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(SchemaMismatch, match=r"schema 9999.*bridge serve"):
            await migrate_ledger(url, FakeClock())
