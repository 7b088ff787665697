import asyncio
import shutil

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from structlog.testing import capture_logs

from bridge.errors import LedgerError, SchemaMismatch, Unavailable
from bridge.store import ledger
from bridge.store.engine.postgres import PostgresDatabase
from bridge.store.engine.sqlite_writer import sqlite_engine
from bridge.store.ledger import check, migrate, migrate_ledger, newest_revision, open_ledger, outdated
from bridge.store.schema import metadata
from tests.support.fake_clock import FakeClock
from tests.support.ledger import Ledger, report
from tests.support.processes import until


@pytest.fixture(scope="module", autouse=True)
def ledgers_at_once():
    """Migrate here."""


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


def set_revision(engine, revision, compatible_from):
    with engine.begin() as connection:
        statement = text("UPDATE alembic_version SET version_num = :revision, compatible_from = :compatible_from")
        connection.execute(statement, {"revision": revision, "compatible_from": compatible_from})


def test_an_empty_ledger_becomes_what_the_schema_says(engine):
    assert migrate(engine) == newest_revision()
    with engine.begin() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_numbers_of_the_migrations_files_are_their_revisions_in_order():
    config = Config()
    config.set_main_option("script_location", str(ledger.SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert [script.revision for script in scripts.walk_revisions()] == ledger.known_revisions()[::-1]
    assert scripts.get_current_head() == newest_revision()


def test_a_current_ledger_is_opened_without_alembic(engine, monkeypatch):
    migrate(engine)
    monkeypatch.setattr(ledger, "_upgrade", None)
    assert migrate(engine) == newest_revision()


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
def test_a_newer_ledger_that_dropped_something_is_refused_and_left_alone(engine, ask):
    migrate(engine)
    set_revision(engine, "9999", "9998")
    before = structure(engine)
    with pytest.raises(SchemaMismatch, match=r"schema 9999.*older program.*bridge serve"):
        ask(engine)
    assert structure(engine) == before


@pytest.mark.parametrize("ask", [check, migrate, outdated], ids=["check", "migrate", "outdated"])
def test_a_newer_ledger_that_was_only_added_to_is_used_as_it_is(engine, ask):
    migrate(engine)
    set_revision(engine, "9999", newest_revision())
    before = structure(engine)
    assert ask(engine) == ("9999" if ask is migrate else None)
    assert structure(engine) == before


def test_a_ledger_of_unknown_versions_is_refused(engine):
    migrate(engine)
    set_revision(engine, "9999", newest_revision())
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE alembic_version DROP COLUMN compatible_from"))
    with pytest.raises(SchemaMismatch, match="schema 9999"):
        check(engine)


def test_an_older_ledger_is_refused_until_it_is_migrated(engine):
    with pytest.raises(SchemaMismatch, match="bridge migrate"):
        check(engine)
    migrate(engine)
    check(engine)


# -- a SQLite ledger is copied aside before ----------------------------------------------------------------------


NEXT_MIGRATION = """
revision = "9999"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass
"""


async def test_an_older_sqlite_ledger_is_copied_before_it_is_migrated(tmp_path, monkeypatch):
    path = tmp_path / "bridge.db"
    url = f"sqlite:///{path}"
    newest = ledger.newest_revision()
    assert await migrate_ledger(url, FakeClock()) == (str(path), newest)
    scripts = shutil.copytree(ledger.SCRIPTS, tmp_path / "migrations")
    (scripts / "versions" / "9999_next.py").write_text(NEXT_MIGRATION.format(newest=newest))
    monkeypatch.setattr(ledger, "SCRIPTS", scripts)
    assert await migrate_ledger(url, FakeClock()) == (str(path), "9999")
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


ALTERING_MIGRATION = """
from alembic import op
revision = "9999"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE builds ADD COLUMN next TEXT")
"""
NEEDS_NEWER = "    op.execute(\"UPDATE alembic_version SET compatible_from = '9999'\")\n"


@pytest.fixture
async def outdated_url(postgres, tmp_path, monkeypatch):
    """A ledger to which this program has a newer schema; migrations try again at once."""
    async with postgres.new_url() as url:
        scripts = shutil.copytree(ledger.SCRIPTS, tmp_path / "migrations")
        (scripts / "versions" / "9999_next.py").write_text(ALTERING_MIGRATION.format(newest=newest_revision()))
        monkeypatch.setattr(ledger, "LOCK_TIMEOUT", "100ms")
        monkeypatch.setattr(ledger, "LOCK_PAUSE_SECONDS", 0.1)
        yield url, scripts


async def test_running_gateways_never_wait_for_a_migration_that_waits_for_a_reader(outdated_url, monkeypatch):
    url, scripts = outdated_url
    async with open_ledger(url, FakeClock()) as running, PostgresDatabase(url, FakeClock()) as dumping:
        gateway = Ledger(running)
        await gateway.enter(report("a.xml"))
        monkeypatch.setattr(ledger, "SCRIPTS", scripts)
        async with dumping.engine.connect() as reader:
            await reader.execute(text("SELECT count(*) FROM builds"))  # holds the table until its transaction ends
            with capture_logs() as lines:
                migration = asyncio.create_task(migrate_ledger(url, FakeClock()))
                await until(lambda: bool(lines), "the migration waits for the table")
                for number in range(2, 12):
                    await gateway.enter(report("a.xml"), build_no=number)
            assert [line["event"] for line in lines] == ["migration_waits"]
            assert not migration.done()
            await reader.rollback()
        assert (await migration)[1] == "9999"


async def test_an_older_gateway_goes_on_beside_a_schema_that_was_only_added_to(outdated_url, monkeypatch):
    url, scripts = outdated_url
    async with open_ledger(url, FakeClock()) as older:
        await Ledger(older).enter(report("a.xml"))
        monkeypatch.setattr(ledger, "SCRIPTS", scripts)
        await migrate_ledger(url, FakeClock())
        await Ledger(older).enter(report("b.xml"))
        monkeypatch.undo()
        with capture_logs() as lines:
            async with open_ledger(url, FakeClock()) as restarted:
                await Ledger(restarted).enter(report("c.xml"))
        (accepted,) = lines
        assert (accepted["event"], accepted["schema"]) == ("newer_schema_accepted", "9999")
        assert len(await Ledger(older).rows(text("SELECT name FROM reports"))) == 3


async def test_an_older_gateway_writes_nothing_beside_a_schema_that_dropped_something(outdated_url, monkeypatch):
    url, scripts = outdated_url
    newest = newest_revision()
    (scripts / "versions" / "9999_next.py").write_text(ALTERING_MIGRATION.format(newest=newest) + NEEDS_NEWER)
    async with open_ledger(url, FakeClock()) as older:
        await Ledger(older).enter(report("a.xml"))
        monkeypatch.setattr(ledger, "SCRIPTS", scripts)
        await migrate_ledger(url, FakeClock())
        with pytest.raises(Unavailable, match=f"has schema 9999, this program needs {newest}. Run the newer"):
            await Ledger(older).enter(report("b.xml"))
        assert await Ledger(older).rows(text("SELECT name FROM reports")) == [("a.xml",)]


async def test_a_newer_postgresql_ledger_that_dropped_something_is_refused(postgres):
    async with postgres.new_url() as url:
        async with PostgresDatabase(url, FakeClock()) as database, database.engine.begin() as connection:
            await connection.execute(
                text("UPDATE alembic_version SET (version_num, compatible_from) = ('9999', '9999')")
            )
        with pytest.raises(SchemaMismatch, match=r"schema 9999.*bridge serve"):
            await migrate_ledger(url, FakeClock())


@pytest.mark.parametrize("table", ["builds", "alembic_version"])
async def test_a_postgresql_schema_with_foreign_tables_of_the_same_name_is_refused(postgres, table):
    async with postgres.new_url("template0") as url:
        async with PostgresDatabase(url, FakeClock()) as database, database.engine.begin() as connection:
            await connection.execute(text(f"CREATE TABLE {table} (version_num varchar)"))
        with pytest.raises(LedgerError, match=rf"the schema public has tables of another program .*\({table}\)"):
            await migrate_ledger(url, FakeClock())


async def test_foreign_tables_of_other_names_may_share_the_schema(postgres):
    async with postgres.new_url("template0") as url:
        async with PostgresDatabase(url, FakeClock()) as database, database.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE users (name varchar)"))
        assert (await migrate_ledger(url, FakeClock()))[1] == newest_revision()
