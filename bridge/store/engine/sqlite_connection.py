"""Connections to a SQLite ledger: every commit is on disk when it returns, and no transaction begins as a reader.

It knows no table.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from bridge.errors import CommitUncertain, LedgerError, LedgerRejectedWrite, Unavailable

BUSY_SECONDS = 5.0  # how long a transaction waits for another process, as `bridge backup`
KEPT = {"journal_mode": "wal", "synchronous": 2}  # 2 is FULL: without it the last commits may go with the power


class Busy(Unavailable):
    """Another process holds the ledger longer than BUSY_SECONDS."""


KINDS: Mapping[int, type[Unavailable]] = {
    sqlite3.SQLITE_BUSY: Busy,
    sqlite3.SQLITE_IOERR_FSYNC: CommitUncertain,
    sqlite3.SQLITE_ERROR: LedgerRejectedWrite,  # the statement itself
}
"""What SQLite's errors mean to whoever waits for a commit; all others: nothing of it is kept."""

REFUSED = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
"""Errors, of many codes, about what a statement holds."""


def sqlite_engine(path: Path, *, begin: str) -> Engine:
    """Return an engine with one connection to `path` that keeps every commit (WAL, synchronous=FULL).

    Its first connection raises LedgerError where SQLite does not take these settings.
    """
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is said below: sqlite3's own is deferred
        if connection.execute("PRAGMA page_count").fetchone() == (0,):  # later it has no effect, and waits for writers
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        _read_back(connection)

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails at once where another one wrote in between.
        connection.exec_driver_sql(begin)

    return engine


def _read_back(connection: sqlite3.Connection) -> None:
    """Believe what SQLite does, not what it was told: some file systems keep no write-ahead log."""
    for setting, wanted in KEPT.items():
        (found,) = connection.execute(f"PRAGMA {setting}").fetchone()
        if found != wanted:
            raise LedgerError(
                f"SQLite keeps {setting}={found} here, so a commit could be lost. Put the ledger on a local disk."
            )


def unavailable(error: DBAPIError) -> Unavailable:
    """Return what a caller is told whose transaction failed.

    One whose log was written and not synced may be found whole by whoever opens the ledger next.
    """
    kind = KINDS.get(getattr(error.orig, "sqlite_errorcode", 0), Unavailable)
    kind = LedgerRejectedWrite if isinstance(error.orig, REFUSED) else kind
    return kind(f"The ledger cannot be used right now ({type(error.orig).__name__}). Send it again in a moment.")
