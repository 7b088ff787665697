"""The ledger in a SQLite file: one writer with grouped commits, and one reader beside it."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import Context
from copy import copy
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bridge.clock import Clock
from bridge.domain.instants import Instant
from bridge.errors import CommitUncertain, Unavailable
from bridge.store.engine.base import Item, LedgerFunction, Result, Transaction, run_each
from bridge.store.engine.forked_writer import SpareWriter
from bridge.store.engine.ledger_file import Displaced, LedgerFile, Overwritten
from bridge.store.engine.sqlite_writer import (
    Busy,
    LedgerWriter,
    WriteGroup,
    WriterProcess,
    WriterThread,
    sqlite_engine,
    transaction,
    unavailable,
)
from bridge.store.engine.write_queue import QueuedWrite, WriteQueue

LOCK_SECONDS: Final = 2.0
"""How long the lock is waited for: the writer of a gateway that was killed ends its commit first."""

LINGER_SECONDS: Final = 0.002
"""If the last commit had several writes, the next one waits this long for more, to share its cost. A single upload
never waits."""

CHECK_SECONDS: Final = 1.0
"""How often the files are checked while there is nothing to write."""

log = structlog.get_logger(__name__)

Outcome = tuple[QueuedWrite, Any]
"""A write, and its result or the exception that it ended with."""


class SqliteDatabase:
    """One SQLite file. The writer is a process of its own if `apart` (at first `spare`, if given), else a thread.

    One event loop at a time may use it. That loop takes the groups of the queue and hands them to the writer.
    """

    shared = False
    failing = None  # nothing is tried again

    def __init__(
        self,
        path: Path,
        clock: Clock,
        observe_group: Callable[[int], None] = lambda _: None,
        *,
        apart: bool = False,
        spare: SpareWriter | None = None,
    ) -> None:
        self.path = path
        self._apart = apart
        self._spare = spare
        self._clock = clock
        self._observe_group = observe_group
        self._queue = WriteQueue(mixed=True)
        self._file = LedgerFile(path)
        self._in_place = True  # its files, at the last check
        self._log_is_saved = False  # since they were last in place
        self._noting = threading.Lock()  # for the two above
        self._closing = threading.Event()
        self._watch: threading.Thread | None = None  # checks the files
        self._writing: asyncio.Task[None] | None = None  # takes the groups, as long as there are any
        self._last_size = 0  # of the last group
        self._accepts = False  # writes: from `open` to `close`
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-reader")
        self.writing = sqlite_engine(path, begin="BEGIN IMMEDIATE")
        self.reading = sqlite_engine(path, begin="BEGIN")
        self._reading_connection: Connection | None = None  # of the reader thread

    @property
    def folder(self) -> Path:
        """The folder of the file, its write-ahead log and its lock."""
        return self.path.parent

    def now(self) -> Instant:
        """Return the time in microseconds UTC: file and process share one machine."""
        return self._clock.now()

    def lock(self) -> None:
        """Lock the ledger for this process, before anything is written to it; raise LedgerInUse if it is locked."""
        self._file.lock(wait_seconds=LOCK_SECONDS)

    def copy_aside(self, name: str) -> Path:
        """Copy the ledger, consistent and durable, to a file beside it with the suffix `name`; return its path."""
        copy = self.path.with_name(f"{self.path.name}.{name}")
        unfinished = copy.with_name(copy.name + ".part")
        unfinished.unlink(missing_ok=True)
        source = sqlite3.connect(self.path)
        try:
            source.execute("VACUUM INTO ?", (str(unfinished),))
        finally:
            source.close()
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        return unfinished.replace(copy)

    def open(self) -> None:
        """Start to accept writes; the ledger must be locked and its schema in place."""
        with suppress(sqlite3.OperationalError):  # another process writes to it, or the disk is full
            _run(self.writing, f"PRAGMA user_version = {self._file.mark}")
            _run(self.writing, "PRAGMA wal_checkpoint(TRUNCATE)")  # the mark is read from the file, not from the log
        _run(self.reading, "SELECT count(*) FROM sqlite_schema")  # opens the log and its index too
        self._file.note_open()
        self._writer = self._start_writer()
        self._watch = threading.Thread(target=self._watch_file, name="ledger-watch", daemon=True)
        self._accepts = True
        self._watch.start()

    def _start_writer(self) -> LedgerWriter:
        if not self._apart:
            return WriterThread(self.writing, copy(self._file))
        writer = WriterProcess(self._file, self._spare)
        writer.start()
        return writer

    async def finish(self) -> None:
        """Accept no more writes, and return when all that wait are written; to be called before `close`."""
        self._accepts = False
        if self._writing is not None:
            await self._writing

    def close(self) -> None:
        """Close the file. It blocks until a commit under way has ended; writes that still wait are not written."""
        self._accepts = False
        self._closing.set()
        if self._watch is not None:
            self._watch.join()
            self._writer.close()
        self._reader.shutdown(wait=True)
        if self._reading_connection is not None:
            self._reading_connection.close()
        self.writing.dispose()
        self.reading.dispose()
        self._file.close()

    # -- base.Database -------------------------------------------------------------------------------------------

    async def write(self, function: LedgerFunction[Item, Result], item: Item, size: int = 0) -> Result:
        if not self._accepts:  # the future would never be done
            raise Unavailable("The ledger is not open. Send it again in a moment.")
        done: asyncio.Future[Result] = self._queue.put(function, item, size)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_groups(), context=Context())
        return await done

    async def transact(self, transaction: Transaction[Result]) -> Result:
        return await self.write(run_each, transaction)

    async def read(self, query: Callable[..., Result], *arguments: object) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, self._read, query, arguments)
        except DBAPIError as error:
            raise unavailable(error) from error

    def _read(self, query: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
        if self._reading_connection is None:  # kept: the pool's part would cost more than a small query
            self._reading_connection = self.reading.connect()
        with transaction(self._reading_connection):
            return query(self._reading_connection, *arguments)

    # -- writes --------------------------------------------------------------------------------------------------

    async def _write_groups(self) -> None:
        """Write the groups of the queue, one at a time, until it is empty."""
        while self._queue:
            if self._last_size > 1 and self._accepts:
                await asyncio.sleep(LINGER_SECONDS)
            group = self._queue.take()
            self._last_size = len(group)
            if group:
                self._observe_group(len(group))
                for write, outcome in await self._write(group):
                    if isinstance(outcome, Exception):
                        write.fail(outcome)
                    else:
                        write.finish(outcome)

    async def _write(self, group: list[QueuedWrite]) -> list[Outcome]:
        """Write the group. If that fails and one write may be the cause, write each alone."""
        try:
            return await self._commit(group)
        except (Busy, Displaced, CommitUncertain) as error:
            return [(write, error) for write in group]
        except Exception as error:  # noqa: BLE001 -- the callers raise it
            if len(group) == 1:
                return [(group[0], error)]
        return [outcome for write in group for outcome in await self._write([write])]

    async def _commit(self, group: list[QueuedWrite]) -> list[Outcome]:
        by_function = [list(writes) for _, writes in groupby(group, key=lambda write: write.function)]
        groups = [WriteGroup(writes[0].function, [write.item for write in writes]) for writes in by_function]
        try:
            results = await self._writer.write(self._clock.now(), groups)
        except (Displaced, CommitUncertain) as error:
            reason = await asyncio.to_thread(self._check_file)
            if reason is not None and isinstance(error, CommitUncertain):
                raise CommitUncertain(reason) from error
            raise
        if not self._in_place:
            await asyncio.to_thread(self._check_file)
        return [
            outcome
            for writes, theirs in zip(by_function, results, strict=True)
            for outcome in zip(writes, theirs, strict=True)
        ]

    # -- the file ------------------------------------------------------------------------------------------------

    def _watch_file(self) -> None:
        """Check the file regularly until the ledger closes, so that a removed log is saved without a write."""
        while not self._closing.wait(CHECK_SECONDS):
            self._check_file()

    def _check_file(self) -> str | None:
        """Return why the file is not where it was opened, None if it is; log that if it is news, and save its log."""
        with self._noting:
            if self._closing.is_set():
                return None
            try:
                self._file.check()
            except Displaced as error:
                if self._in_place:
                    log.warning("ledger_file_missing", reason=str(error))
                self._in_place = False
                if not isinstance(error, Overwritten):
                    self._save_log()
                return str(error)
            if not self._in_place:
                log.warning("ledger_file_restored")
            self._in_place, self._log_is_saved = True, False
            return None

    def _save_log(self) -> None:
        """Copy all commits from the write-ahead log into the database file, as far as readers allow.

        If only the log was removed, it holds commits that are nowhere else; the open descriptors still reach it.
        """
        if self._log_is_saved:
            return
        with suppress(sqlite3.Error, SQLAlchemyError):
            # PASSIVE: as far as readers allow, without waiting for them.
            busy, in_log, saved = _run(self.writing, "PRAGMA wal_checkpoint(PASSIVE)")
            self._log_is_saved = not busy and in_log == saved


def _run(engine: Engine, statement: str) -> Any:
    """Execute a statement outside of any transaction and return its first row."""
    connection = engine.raw_connection()
    try:
        return connection.cursor().execute(statement).fetchone()
    finally:
        connection.close()


@contextmanager
def closing(database: SqliteDatabase) -> Iterator[SqliteDatabase]:
    """Lock and open `database` for a block and close it after."""
    database.lock()
    database.open()
    try:
        yield database
    finally:
        database.close()
