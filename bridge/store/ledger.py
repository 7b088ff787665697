"""Opens the ledger that `store.url` names, in whichever engine it lives: migrated, and closed at the end.

It knows no statement. What only one engine has to be asked for stands here, so that no other room asks which it is.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bridge.clock import Clock
from bridge.errors import LedgerError, SchemaMismatch
from bridge.store.engine.base import Database
from bridge.store.engine.postgres import PostgresDatabase
from bridge.store.engine.postgres_connection import LOST, LedgerUnreachable, is_away, is_postgres, shown_url
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.retention import free_leases

# Bring a ledger's schema to what this code was written for, or say why not.
#
# It knows no table: migrations/versions holds one file a step. A ledger is never taken back to an older schema.


SCRIPTS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x62726964676500  # "bridge": the advisory lock of PostgreSQL that migrations are run under


def migrate(engine: Engine) -> str:
    """Run the migrations that are missing, all or none; return the revision that the ledger is at then."""
    with engine.begin() as connection:
        return migrate_over(connection)


def migrate_over(connection: Connection) -> str:
    """Do the same in the transaction of `connection`; whoever migrates the same ledger at once waits for its end."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    config = _config(connection)
    _refuse_newer(connection, config)
    if revision_of(connection) != newest_revision():
        command.upgrade(config, "head")
    return newest_revision()


def outdated(engine: Engine) -> str | None:
    """Return the revision that a migration would begin from; None where there is no schema yet, or nothing to do."""
    with engine.connect() as connection:
        _refuse_newer(connection, _config(connection))
        revision = revision_of(connection)
    return revision if revision != newest_revision() else None


def check(engine: Engine) -> None:
    """Raise SchemaMismatch unless the ledger is at this code's schema."""
    with engine.connect() as connection:
        check_over(connection)


def check_over(connection: Connection) -> None:
    """Do the same over `connection`."""
    _refuse_newer(connection, _config(connection))
    if revision_of(connection) != newest_revision():
        raise SchemaMismatch("The ledger's schema is older than this program. Run `bridge migrate` first.")


def newest_revision() -> str:
    """Return the revision that this code was written for."""
    head = ScriptDirectory.from_config(_config(None)).get_current_head()
    if head is None:
        raise SchemaMismatch("This program came without its migrations. Install it again.")
    return head


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    return config


def revision_of(connection: Connection) -> str | None:
    """Return the revision that the ledger is at; None where it has no schema yet."""
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(connection: Connection, config: Config) -> None:
    revision = revision_of(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaMismatch(
            f"The ledger is at schema {revision}, which this older program does not know. Install the version that "
            "migrated it, and run `bridge serve` of that; there is no way back to an older schema."
        )


SQLITE = "sqlite:///"

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_ledger(
    url: str, clock: Clock, observe_group: Callable[[int], None] = lambda _: None
) -> AsyncIterator[Database]:
    """Migrate the ledger and hold it open; raise LedgerError where it is in use, newer, or cannot be reached."""
    if is_postgres(url):
        async with PostgresDatabase(url, clock, observe_group) as shared:
            await _migrate_postgres(shared, url)
            yield shared
        return
    database = await asyncio.to_thread(_open_sqlite, path_of(url), clock, observe_group)
    try:
        await database.write(free_leases, None)  # of the last process: this one alone has the ledger now
        yield database
    finally:
        await asyncio.to_thread(database.close)


async def migrate_ledger(url: str, clock: Clock) -> tuple[str, str]:
    """Make the ledger where there is none, else migrate it; return its name for people, and its schema."""
    if is_postgres(url):
        async with PostgresDatabase(url, clock) as shared:
            return shown_url(url), await _migrate_postgres(shared, url)
    path = path_of(url)
    return str(path), await asyncio.to_thread(_migrate_sqlite_alone, path, clock)


def path_of(url: str) -> Path:
    """Return where a SQLite ledger lies."""
    return Path(url.removeprefix(SQLITE))


async def _migrate_postgres(database: PostgresDatabase, url: str) -> str:
    """Migrate; raise LedgerAway if the server goes away meanwhile, for example because it restarts."""
    try:
        async with database.engine.begin() as connection:
            return await connection.run_sync(migrate_over)
    except (SQLAlchemyError, *LOST) as error:
        if not is_away(error):
            raise
        driver_error = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else None
        raise LedgerUnreachable(driver_error if isinstance(driver_error, Exception) else error, url) from error


def _open_sqlite(path: Path, clock: Clock, observe_group: Callable[[int], None]) -> SqliteDatabase:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = SqliteDatabase(path, clock, observe_group, apart=True)
    try:
        database.lock()
        _migrate_sqlite(database)
        database.open()
    except BaseException:
        database.close()
        raise
    return database


def _migrate_sqlite_alone(path: Path, clock: Clock) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = SqliteDatabase(path, clock)
    try:
        database.lock()
        return _migrate_sqlite(database)
    finally:
        database.close()


def _migrate_sqlite(database: SqliteDatabase) -> str:
    """Migrate under the lock. What an older program can read is kept beside: there is no way back by itself."""
    try:
        revision = outdated(database.writing)
        if revision is not None:
            copy = database.copy_aside(f"schema-{revision}")
            log.warning("the ledger is migrated; a copy of what it was is kept", copy=str(copy))
        return migrate(database.writing)
    except (DBAPIError, sqlite3.Error) as error:
        found = error.orig if isinstance(error, DBAPIError) else error
        raise LedgerError(
            f"The ledger {database.path} cannot be opened: {found}. "
            "Look at its disk (space, permissions) and at store.url, then start again."
        ) from error


# Whether the ledger takes a write, and which schema it is at: the smallest transaction that goes to disk.
#
# It knows no table of the core's.


def pulse(connection: Connection, _now: int, items: Sequence[None]) -> list[str | None]:
    """Write nothing that means anything; return the ledger's schema revision for each of `items`."""
    # The column is the table's key, so its index entry is written anew even though nothing changes.
    revision = connection.execute(
        text("UPDATE alembic_version SET version_num = version_num RETURNING version_num")
    ).scalar()
    return [revision for _ in items]
