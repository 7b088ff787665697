"""Opens and migrates the ledger that `store.url` names, in SQLite or PostgreSQL, and checks that it is writable.

A ledger is never migrated back to an older schema.
"""
# ruff: noqa: PLC0415 -- Alembic and the driver of PostgreSQL are imported if they are needed

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import Connection, Engine, func, inspect, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bridge.clock import Clock
from bridge.errors import LedgerError, LedgerInUse, SchemaMismatch
from bridge.store.engine.base import Database
from bridge.store.engine.forked_writer import SpareWriter
from bridge.store.engine.path_errors import explain_path_error
from bridge.store.engine.postgres_url import is_postgres, shown_url
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.leases import free_leases
from bridge.store.move_marks import require_unmoved
from bridge.store.schema import metadata
from bridge.store.uploads import try_upload

if TYPE_CHECKING:
    from bridge.store.engine.postgres import PostgresDatabase

SQLITE: Final = "sqlite:///"
SCRIPTS: Final = Path(__file__).parent / "migrations"
OWN_TABLES: Final = frozenset({"alembic_version", "builds", "reports"})
"""Tables that every ledger has."""

SHOWN_TABLES: Final = 3
MIGRATION_LOCK: Final = 0x62726964676500
"""Key of the advisory lock of PostgreSQL for migrations ("bridge")."""

LOCK_TIMEOUT: Final = "1s"
"""A migration waits this long for a table. Statements of running gateways queue behind it meanwhile."""

LOCK_PAUSE_SECONDS: Final = 2.0
"""Then it leaves the table to the running gateways for this long before it tries again."""

CLIENT_CHECK: Final = "1s"
"""PostgreSQL looks this often whether the process that migrates is still there. Without that, a statement of one that
was killed goes on to its end, with its locks."""

LOCK_NOT_AVAILABLE: Final = "55P03"

log = structlog.get_logger(__name__)


# -- schema ------------------------------------------------------------------------------------------------------


def migrate(engine: Engine) -> str:
    """Run the missing migrations, all or none; return the revision of the ledger after it."""
    with engine.begin() as connection:
        return migrate_over(connection)


def migrate_over(connection: Connection) -> str:
    """Migrate in the transaction of `connection`; return the revision of the ledger after it.

    A second gateway that migrates at the same time waits for its end. A newer ledger that supports this program stays
    as it is.
    """
    if connection.dialect.name == "postgresql":
        with suppress(DBAPIError), connection.begin_nested():  # servers before 14 have no such setting
            connection.execute(select(func.set_config("client_connection_check_interval", CLIENT_CHECK, True)))
        connection.execute(select(func.set_config("lock_timeout", LOCK_TIMEOUT, True)))
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        _require_own_schema(connection)
    if _lacks_migrations(connection):
        _upgrade(connection)
    revision = revision_of(connection) or newest_revision()
    if revision != newest_revision():
        log.info("newer_schema_accepted", schema=revision, own_schema=newest_revision())
    return revision


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _require_own_schema(connection: Connection) -> None:
    """Raise LedgerError if the PostgreSQL schema has a table of the bridge's name that is not the bridge's."""
    inspected = inspect(connection)
    present = set(inspected.get_table_names())
    foreign = sorted(present & (set(metadata.tables) | {"alembic_version"}))
    if foreign and not present >= OWN_TABLES:
        raise LedgerError(
            f"store.url: the schema {inspected.default_schema_name} has tables of another program under names of the "
            f"bridge ({', '.join(foreign[:SHOWN_TABLES])}). Name another database."
        )


def outdated(engine: Engine) -> str | None:
    """Return the revision to migrate from; None if there is no schema yet, or nothing to migrate."""
    with engine.connect() as connection:
        return revision_of(connection) if _lacks_migrations(connection) else None


def check(engine: Engine) -> None:
    """Raise SchemaMismatch unless this program can use the schema of the ledger."""
    with engine.connect() as connection:
        check_over(connection)


def check_over(connection: Connection) -> None:
    """Raise SchemaMismatch unless this program can use the schema of the ledger of `connection`."""
    if _lacks_migrations(connection):
        raise SchemaMismatch("The ledger's schema is older than this program. Run `bridge migrate` first.")


def newest_revision() -> str:
    """Return the revision of this code."""
    return known_revisions()[-1]


def known_revisions() -> list[str]:
    """Return the revisions that this code can migrate, the newest one last: the numbers of the migrations' files."""
    revisions = sorted(script.name.partition("_")[0] for script in (SCRIPTS / "versions").glob("[0-9]*.py"))
    if not revisions:
        raise SchemaMismatch("The migrations of this program are missing. Install it again.")
    return revisions


def revision_of(connection: Connection) -> str | None:
    """Return the revision of the ledger; None if it has no schema yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def _lacks_migrations(connection: Connection) -> bool:
    """Return whether migrations of this program are missing; raise SchemaMismatch if the ledger is too new for it."""
    revision, known = revision_of(connection), known_revisions()
    if revision is None or revision in known:
        return revision != known[-1]
    if not _supports_schema(connection, known[-1]):
        raise SchemaMismatch(
            f"The ledger is at schema {revision}, which this older program does not support. Install the version that "
            "migrated it, and run `bridge serve` of that; there is no way back to an older schema."
        )
    return False


def _supports_schema(connection: Connection, schema: str) -> bool:
    """Return whether programs of an older `schema` can use this newer ledger: its migrations have only added to it."""
    if all(column["name"] != "compatible_from" for column in inspect(connection).get_columns("alembic_version")):
        return False
    return bool(connection.execute(text("SELECT compatible_from FROM alembic_version")).scalar_one() <= schema)


# -- open --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_ledger(
    url: str,
    clock: Clock,
    observe_group: Callable[[int], None] = lambda _: None,
    *,
    spare: SpareWriter | None = None,
) -> AsyncIterator[Database]:
    """Migrate the ledger and keep it open; raise LedgerError if it is in use, moved, newer, or cannot be reached.

    `spare` becomes the writer of a SQLite ledger.
    """
    if is_postgres(url):
        from bridge.store.engine.postgres import PostgresDatabase

        async with PostgresDatabase(url, clock, observe_group) as shared:
            await _migrate_postgres(shared, url)
            await shared.read(require_unmoved)
            yield shared
        return
    database = await asyncio.to_thread(_open_sqlite, path_of(url), clock, observe_group, spare)
    try:
        await database.transact(free_leases)  # of the last process: only this one has the ledger now
        yield database
    finally:
        await database.finish()
        await asyncio.to_thread(database.close)


async def migrate_ledger(url: str, clock: Clock) -> tuple[str, str]:
    """Migrate the ledger, which is created if it is missing; return its name for display, and its revision."""
    if is_postgres(url):
        from bridge.store.engine.postgres import PostgresDatabase

        async with PostgresDatabase(url, clock) as shared:
            return shown_url(url), await _migrate_postgres(shared, url)
    path = path_of(url)
    return str(path), await asyncio.to_thread(_migrate_sqlite_alone, path, clock)


def path_of(url: str) -> Path:
    """Return the path of a SQLite ledger."""
    return Path(url.removeprefix(SQLITE))


async def _migrate_postgres(database: "PostgresDatabase", url: str) -> str:
    """Migrate, for as long as another transaction holds a table; raise LedgerUnreachable if the server goes away."""
    from bridge.store.engine.postgres import LOST, LedgerUnreachable, is_away, sqlstate

    waiting_logged = False
    while True:
        try:
            async with database.engine.begin() as connection:
                database.schema = newest_revision()
                return await connection.run_sync(migrate_over)
        except (SQLAlchemyError, *LOST) as error:
            if sqlstate(error) == LOCK_NOT_AVAILABLE:
                if not waiting_logged:
                    log.warning("migration_waits", reason="Another transaction uses the ledger's tables, like pg_dump.")
                waiting_logged = True
            elif is_away(error):
                driver_error = error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else None
                raise LedgerUnreachable(driver_error if isinstance(driver_error, Exception) else error, url) from error
            else:
                raise
        await asyncio.sleep(LOCK_PAUSE_SECONDS)


def _open_sqlite(
    path: Path, clock: Clock, observe_group: Callable[[int], None], spare: SpareWriter | None
) -> SqliteDatabase:
    _make_folder_of(path)
    database = SqliteDatabase(path, clock, observe_group, apart=True, spare=spare)
    try:
        database.lock()
        require_ledger(path)
        migrate_sqlite(database)
        with database.reading.begin() as connection:
            require_unmoved(connection)
        database.open()
    except BaseException:
        database.close()
        raise
    return database


def _make_folder_of(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"store.url: {explain_path_error(path.parent, error)}") from error


def _migrate_sqlite_alone(path: Path, clock: Clock) -> str:
    _make_folder_of(path)
    database = SqliteDatabase(path, clock)
    try:
        database.lock()
        require_ledger(path)
        return migrate_sqlite(database)
    except LedgerInUse as error:
        remedy = "Stop it first, or leave it to the gateway, which migrates its ledger when it starts."
        raise LedgerInUse(path, error.holder, remedy=remedy) from error
    finally:
        database.close()


def require_ledger(path: Path) -> None:
    """Raise LedgerError if the file at `path` is a database of another program, without writing to it."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
    except sqlite3.Error:
        return  # reported when it is opened
    tables = [name for (name,) in rows if not name.startswith("sqlite_")]
    if tables and not set(tables) >= OWN_TABLES:
        raise LedgerError(
            f"store.url: {path} is a database of another program (its tables: {', '.join(tables[:SHOWN_TABLES])}). "
            "Name another file, which is created at the first start."
        )


def migrate_sqlite(database: SqliteDatabase) -> str:
    """Migrate under the lock, after a copy for the older program: migrations cannot be reverted."""
    try:
        revision = outdated(database.writing)
        if revision is not None:
            copy = database.copy_aside(f"schema-{revision}")
            log.warning("ledger_migrated", copy=str(copy))
        return migrate(database.writing)
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise LedgerError(
            f"The ledger {database.path} cannot be opened: {cause}. "
            "Look at its disk (space, permissions) and at store.url, then start again."
        ) from error


def check_writable(connection: Connection, now: int) -> tuple[str, str]:
    """Write what an upload writes and roll it back, and commit the smallest change.

    Return the ledger's schema, and the oldest one whose programs can use it.
    """
    try_upload(connection, now)
    # The column is the table's key, so its index entry is written again although nothing changes.
    statement = text("UPDATE alembic_version SET version_num = version_num RETURNING version_num, compatible_from")
    schema, compatible_from = connection.execute(statement).one()
    return schema, compatible_from
