"""Opens the ledger that `store.url` names, in whichever engine it lives: migrated, and closed at the end.

It knows no statement. What only one engine has to be asked for stands here, so that no other room asks which it is.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from sqlalchemy.exc import DBAPIError

from bridge.clock import Clock
from bridge.errors import LedgerError
from bridge.store.engine.connecting import is_postgres, shown_url
from bridge.store.engine.database import Database
from bridge.store.engine.postgres import PostgresDatabase
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.keeping import free_leases
from bridge.store.migrate import migrate, migrate_over, outdated

SQLITE = "sqlite:///"

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_ledger(
    url: str, clock: Clock, observe_group: Callable[[int], None] = lambda _: None
) -> AsyncIterator[Database]:
    """Migrate the ledger and hold it open; raise LedgerError where it is in use, newer, or cannot be reached."""
    if is_postgres(url):
        async with PostgresDatabase(url, clock, observe_group) as shared:
            await _migrate_postgres(shared)
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
            return shown_url(url), await _migrate_postgres(shared)
    path = path_of(url)
    return str(path), await asyncio.to_thread(_migrate_sqlite_alone, path, clock)


def path_of(url: str) -> Path:
    """Return where a SQLite ledger lies."""
    return Path(url.removeprefix(SQLITE))


async def _migrate_postgres(database: PostgresDatabase) -> str:
    async with database.engine.begin() as connection:
        return await connection.run_sync(migrate_over)


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
