"""The ledger in a SQLite file: one writer with grouped commits, and one reader beside it."""

import asyncio
import fcntl
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bridge.clock import Clock
from bridge.domain.instants import Instant
from bridge.errors import CommitUncertain, LedgerError, LedgerInUse, Unavailable
from bridge.store.engine.base import Item, LedgerFunction, Result, Transaction, run_each
from bridge.store.engine.forked_writer import SpareWriter
from bridge.store.engine.path_errors import explain_path_error
from bridge.store.engine.sqlite_writer import (
    Busy,
    InThreadWriter,
    LedgerWriter,
    WriteGroup,
    WriterProcess,
    sqlite_engine,
    transaction,
    unavailable,
)
from bridge.store.engine.write_queue import QueuedWrite, WriteQueue

# -- the file: locks that keep a second gateway out, and the check that the file is still in its place -----------
# SQLite does not notice by itself that its file was removed or replaced: it goes on with the open file, which no other
# process finds any more.


RETRY_SECONDS = 0.02
HOLDER_BYTES = 100  # of the lock file: a process id and a host name
_HOLDER = re.compile(r"(?P<pid>[0-9]+) (?P<host>[\w.-]+)\n")
HEADER_SIZE = 100
"""Bytes of the database header (https://www.sqlite.org/fileformat2.html#the_database_header)."""

LARGEST_PAGE = 65_536  # bytes; the header writes it as 1
MAGIC = b"SQLite format 3\0"


class Displaced(Unavailable):
    """The ledger's file, or one that SQLite keeps beside it, is not where this gateway opened it."""


class Overwritten(Displaced):
    """The ledger's file was cut or overwritten in place: what this gateway has open is damaged."""


class _Identity(NamedTuple):
    device: int
    inode: int


class _Header(NamedTuple):
    changes: int  # of page 1: no writer of SQLite's ever takes it back
    size: int  # bytes of the whole file, as of the last checkpoint
    mark: int


class LedgerFile:
    """The locked file of one ledger.

    It holds two locks by flock(2), which do not touch the locks that SQLite takes by fcntl(2). One is on the database
    file itself: it holds by whatever name the file is opened, through symlinks, hard links and bind mounts, and no
    removal of another file ends it. The other is on a file named after it, since `-wal` and `-shm` are found by name
    too: a gateway on a file that replaced this one would use those of the first. The kernel ends a lock once all
    processes have closed its descriptor.

    `mark` is drawn for each opening, and is to be set as the database's `user_version`: a copy from before, put over
    the file in place, has another one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._real = Path(os.path.realpath(path))  # SQLite resolves symlinks before it names the files beside it
        self._opened: dict[Path, _Identity] = {}
        self._header: _Header | None = None
        self._size = 0
        self._overwritten = False
        self.mark = 1 + secrets.randbelow(2**31 - 1)
        self.descriptors: list[int] = []

    def lock(self, *, wait_seconds: float) -> None:
        """Lock the file, which is created if it is missing.

        Raise LedgerInUse if another process holds it for `wait_seconds`, LedgerError if it cannot be opened.
        """
        give_up_at = time.monotonic() + wait_seconds
        beside = self._beside(".lock")
        # In this order: closing any descriptor of the database file drops SQLite's locks on it in this process.
        for name in (beside, self._real):
            try:
                self.descriptors.append(os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                if not _is_locked(self.descriptors[-1], give_up_at):
                    # A gateway that opened the file under another name has another file beside it.
                    raise LedgerInUse(self._path, _read_holder(self.descriptors[-1]) if name == beside else "")
                _write_holder(self.descriptors[0], is_complete=name != beside)
            except OSError as error:
                raise LedgerError(f"store.url: {explain_path_error(name, error)}") from error
        self._opened[self._path] = _identity(os.fstat(self.descriptors[-1]))

    def close(self) -> None:
        """Give the locks back; SQLite's connections must be closed by then."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def note_open(self) -> None:
        """Note which files SQLite has open beside the database, once its connections have read from it."""
        for beside in (self._beside("-wal"), self._beside("-shm")):
            self._opened[beside] = self._find(beside)
        self.check()

    def check(self) -> None:
        """Raise Displaced unless all files are where they were opened, Overwritten if the database is damaged.

        It takes microseconds.
        """
        for path, opened in self._opened.items():
            if self._find(path) != opened:
                raise self._replaced(path)
        self._check_content()

    def _beside(self, suffix: str) -> Path:
        return self._real.with_name(self._real.name + suffix)

    def _find(self, path: Path) -> _Identity:
        try:
            return _identity(path.stat())
        except (FileNotFoundError, NotADirectoryError):
            raise self._gone(path) from None
        except OSError as error:
            raise _unreadable(path, error) from error

    def _gone(self, path: Path) -> Displaced:
        if path == self._path:
            return Displaced(
                f"The ledger's file {path.name} is gone (removed, renamed or unmounted), so nothing more is accepted. "
                "Put the same file back and the gateway goes on, or stop the gateway and restore a backup."
            )
        return _lost(path, "is gone")

    def _replaced(self, path: Path) -> Displaced:
        if path == self._path:
            return Displaced(
                f"The ledger's file {path.name} was replaced by another file, so nothing more is accepted. "
                f"Put the first file back and the gateway goes on, or stop the gateway, remove {path.name}-wal and "
                f"{path.name}-shm, and start it again on the new file."
            )
        return _lost(path, "was replaced by another file")

    def _check_content(self) -> None:
        """Raise Overwritten if the file lost its header, went back to an older state, or is shorter than it must be."""
        descriptor = self.descriptors[-1]
        try:
            header, size = _read_header(descriptor), os.fstat(descriptor).st_size
        except OSError as error:
            raise _unreadable(self._path, error) from error
        if self._header is not None and not self._overwritten:
            self._overwritten = (
                header is None
                or header.changes < self._header.changes
                or (header.mark != self.mark == self._header.mark)
                or (size < self._size and (header.changes == self._header.changes or header.size != size))
            )
        if self._overwritten:
            raise Overwritten(
                f"The ledger's file {self._path.name} was cut or overwritten while the gateway had it open, so nothing "
                f"more is accepted. Stop the gateway, restore a backup without {self._path.name}-wal and "
                f"{self._path.name}-shm, and start it again."
            )
        self._header, self._size = header, size


def _unreadable(path: Path, error: OSError) -> Displaced:
    return Displaced(
        f"The ledger's file {path.name} cannot be looked at ({error.strerror}), so nothing more is accepted. "
        "Look at its folder and its disk."
    )


def _lost(path: Path, what: str) -> Displaced:
    return Displaced(
        f"The file {path.name}, which belongs to the ledger, {what}, so nothing more is accepted. "
        "Put the same file back or restart the gateway."
    )


def _is_locked(descriptor: int, give_up_at: float) -> bool:
    """Lock the file; return whether that succeeded before `give_up_at`."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                return False
        else:
            return True
        time.sleep(RETRY_SECONDS)


def _write_holder(descriptor: int, *, is_complete: bool) -> None:
    """Write this process to the lock file, for the message of another one; nothing until all locks are held."""
    with suppress(OSError):  # on a full disk the gateway still delivers what it has
        os.ftruncate(descriptor, 0)
        if is_complete:
            os.pwrite(descriptor, f"{os.getpid()} {os.uname().nodename}\n".encode(), 0)


def _read_holder(descriptor: int) -> str:
    """Return the process that holds the lock, for a message; "" if the file does not name it."""
    match = _HOLDER.match(os.pread(descriptor, HOLDER_BYTES, 0).decode(errors="replace"))
    if match is None:
        return ""
    return f"pid {match['pid']}" + ("" if match["host"] == os.uname().nodename else f" on {match['host']}")


def _identity(status: os.stat_result) -> _Identity:
    return _Identity(status.st_dev, status.st_ino)


def _read_header(descriptor: int) -> _Header | None:
    """Return what the file says of itself; None if it is no database of SQLite's."""
    header = os.pread(descriptor, HEADER_SIZE, 0)
    if len(header) < HEADER_SIZE or not header.startswith(MAGIC):
        return None
    page_size = int.from_bytes(header[16:18])
    pages = int.from_bytes(header[28:32])
    return _Header(
        changes=int.from_bytes(header[24:28]),
        size=pages * (LARGEST_PAGE if page_size == 1 else page_size),
        mark=int.from_bytes(header[60:64]),
    )


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
    """One SQLite file. The writer is a process of its own if `apart` (at first `spare`, if given), else a thread."""

    shared = False

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
        self._wake = threading.Event()  # writes wait, or the ledger closes
        self._file = LedgerFile(path)
        self._in_place = True  # its files, at the last check
        self._log_is_saved = False  # since they were last in place
        self._thread: threading.Thread | None = None  # takes the groups
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
        self._thread = threading.Thread(target=self._write_groups, name="ledger-writer", daemon=True)
        self._accepts = True
        self._thread.start()

    def _start_writer(self) -> LedgerWriter:
        if not self._apart:
            return InThreadWriter(self.writing)
        writer = WriterProcess(self.path, self._file.descriptors, self._spare)
        writer.start()
        return writer

    def close(self) -> None:
        """Finish the writes that wait, and close the file."""
        self._accepts = False
        if self._thread is not None:
            self._wake.set()
            self._thread.join()
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
        self._wake.set()
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

    # -- the writer thread ---------------------------------------------------------------------------------------

    def _write_groups(self) -> None:
        for group in self._groups():
            self._observe_group(len(group))
            _report(self._write(group))

    def _groups(self) -> Iterator[list[QueuedWrite]]:
        """Yield the groups of the queue until the ledger closes.

        This thread wakes once for each group, not for each write: each time it takes the interpreter from the event
        loop.
        """
        last_size = 0
        while self._accepts or self._queue:
            if not self._wake.wait(CHECK_SECONDS):
                with suppress(Displaced):
                    self._check_file()
                continue
            if last_size > 1 and self._accepts:
                time.sleep(LINGER_SECONDS)
            self._wake.clear()
            group = self._queue.take()
            if self._queue:
                self._wake.set()
            last_size = len(group)
            if group:
                yield group

    def _write(self, group: list[QueuedWrite]) -> list[Outcome]:
        """Write the group. If that fails and one write may be the cause, write each alone."""
        try:
            return self._commit(group)
        except (Busy, Displaced, CommitUncertain) as error:
            return [(write, error) for write in group]
        except Exception as error:  # noqa: BLE001 -- the callers raise it
            if len(group) == 1:
                return [(group[0], error)]
        return [outcome for write in group for outcome in self._write([write])]

    def _commit(self, group: list[QueuedWrite]) -> list[Outcome]:
        by_function = [list(writes) for _, writes in groupby(group, key=lambda write: write.function)]
        groups = [WriteGroup(writes[0].function, [write.item for write in writes]) for writes in by_function]
        self._check_file()
        results = self._writer.write(self._clock.now(), groups)
        try:
            self._check_file()
        except Displaced as error:  # the commit is in the open files, and those may come back
            raise CommitUncertain(str(error)) from error
        return [
            outcome
            for writes, theirs in zip(by_function, results, strict=True)
            for outcome in zip(writes, theirs, strict=True)
        ]

    def _check_file(self) -> None:
        """Raise Displaced unless the next process that opens the ledger would find what is written here."""
        try:
            self._file.check()
        except Displaced as error:
            if self._in_place:
                log.warning("ledger_file_missing", reason=str(error))
            self._in_place = False
            if not isinstance(error, Overwritten):
                self._save_log()
            raise
        if not self._in_place:
            log.warning("ledger_file_restored")
        self._in_place, self._log_is_saved = True, False

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


def _report(outcomes: Sequence[Outcome]) -> None:
    """Give the callers their outcomes, with one call into each event loop."""
    for loop in {write.done.get_loop() for write, _ in outcomes}:
        theirs = [outcome for outcome in outcomes if outcome[0].done.get_loop() is loop]
        with suppress(RuntimeError):  # the loop is closed, so no caller waits any more
            loop.call_soon_threadsafe(_finish_each, theirs)


def _finish_each(outcomes: Sequence[Outcome]) -> None:
    for write, outcome in outcomes:
        if isinstance(outcome, Exception):
            write.fail(outcome)
        else:
            write.finish(outcome)


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
