"""The ledger in a SQLite file: transactions, grouped, through one writer thread.

It knows no table. A write's result is handed out only after its commit is on disk.
"""

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bridge.clock import Clock
from bridge.domain.instants import Instant
from bridge.errors import CommitUncertain, Unavailable
from bridge.store.engine.base import GROUP_BYTES, GROUP_LIMIT, QUEUE_LIMIT, Item, LedgerFunction, Result, too_many_wait
from bridge.store.engine.sqlite_connection import Busy, sqlite_engine, unavailable
from bridge.store.engine.sqlite_file import Displaced, LedgerFile, Overwritten
from bridge.store.engine.sqlite_writer import InThreadWriter, LedgerWriter, WriteGroup, WriterProcess

LOCK_SECONDS = 2.0  # the writer of a gateway that was killed ends its commit first
LINGER_SECONDS = 0.002
"""Where the last commit had company, the next waits this long for its own: a commit's cost is shared then. A single
upload never waits."""
LOOK_SECONDS = 1.0  # without any write, the files are looked at that often

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Job:
    batch: LedgerFunction[Any, Any]
    item: Any
    size: int
    done: asyncio.Future[Any]


class SqliteDatabase:
    """One SQLite file: one writer with grouped commits, and one reader beside it.

    The writer is a process of its own where `apart`, else a thread.
    """

    shared = False

    def __init__(
        self, path: Path, clock: Clock, observe_group: Callable[[int], None] = lambda _: None, *, apart: bool = False
    ) -> None:
        self.path = path
        self._apart = apart
        self._clock = clock
        self._observe_group = observe_group
        self._jobs: deque[_Job] = deque()
        self._called = threading.Event()  # there are jobs, or it is time to end
        self._file = LedgerFile(path)
        self._in_place = True  # its files, at the last look
        self._log_is_saved = False  # since they were last in their place
        self._thread: threading.Thread | None = None  # forms the groups
        self._taking = False  # writes: from `open` to `close`
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-reader")
        self.writing = sqlite_engine(path, begin="BEGIN IMMEDIATE")
        self.reading = sqlite_engine(path, begin="BEGIN")

    @property
    def folder(self) -> Path:
        """Where the file lies, with its write-ahead log and its lock."""
        return self.path.parent

    def now(self) -> Instant:
        """Return the time in microseconds UTC: file and process share one machine."""
        return self._clock.now()

    def lock(self) -> None:
        """Take the ledger for this process, before anything is written to it; raise LedgerInUse where it is taken."""
        self._file.lock(wait_seconds=LOCK_SECONDS)

    def copy_aside(self, name: str) -> Path:
        """Copy the ledger, consistent and on disk, beside itself under its own name and `name`; return where."""
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
        """Begin to write; the ledger must be locked and its schema there by then."""
        with suppress(sqlite3.OperationalError):  # another process writes to it, or the disk is full
            _run(self.writing, f"PRAGMA user_version = {self._file.mark}")
            _run(self.writing, "PRAGMA wal_checkpoint(TRUNCATE)")  # the mark is looked for in the file, not in the log
        _run(self.reading, "SELECT count(*) FROM sqlite_schema")  # opens the log and its index too
        self._file.note_open()
        self._writer = self._start_writer()
        self._thread = threading.Thread(target=self._write_for_ever, name="ledger-writer", daemon=True)
        self._taking = True
        self._thread.start()

    def _start_writer(self) -> LedgerWriter:
        if not self._apart:
            return InThreadWriter(self.writing)
        writer = WriterProcess(self.path, self._file.descriptors)
        writer.start()
        return writer

    def close(self) -> None:
        """Finish the writes that are waiting and let go of the file."""
        self._taking = False
        if self._thread is not None:
            self._called.set()
            self._thread.join()
            self._writer.close()
        self._reader.shutdown(wait=True)
        self.writing.dispose()
        self.reading.dispose()
        self._file.close()

    async def write(self, batch: LedgerFunction[Item, Result], item: Item, size: int = 0) -> Result:
        """Write `item` (with `size` bytes of bodies) and return its result once it is on disk.

        Raise Unavailable where the ledger cannot take it now, and nothing of it is kept then; MaybeKept where nobody
        knows whether it was.
        """
        if not self._taking:  # nobody would ever answer
            raise Unavailable("The ledger is not open. Send it again in a moment.")
        if len(self._jobs) >= QUEUE_LIMIT:
            raise too_many_wait()
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(batch, item, size, done))
        self._called.set()
        return await done

    async def read(self, query: Callable[..., Result], *arguments: object) -> Result:
        """Return `query(connection, *arguments)`, read from one consistent state of the ledger."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, self._read, query, arguments)
        except DBAPIError as error:
            raise unavailable(error) from error

    def _read(self, query: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
        with self.reading.begin() as connection:
            return query(connection, *arguments)

    # -- the writer thread ---------------------------------------------------------------------------------------

    def _write_for_ever(self) -> None:
        for jobs in self._groups():
            self._observe_group(len(jobs))
            _tell(self._written(jobs))

    def _groups(self) -> Iterator[list[_Job]]:
        """Yield what is waiting, as much as one commit may hold, until the end is asked for.

        This thread is woken once a group, not once a job: each waking takes the interpreter from the event loop.
        """
        together = 0
        while self._taking or self._jobs:
            if not self._called.wait(LOOK_SECONDS):
                with suppress(Displaced):
                    self._check_file()
                continue
            if together > 1 and self._taking:
                time.sleep(LINGER_SECONDS)
            self._called.clear()
            jobs = self._next_group()
            if self._jobs:
                self._called.set()
            together = len(jobs)
            if jobs:
                yield jobs

    def _next_group(self) -> list[_Job]:
        jobs: list[_Job] = []
        size = 0
        while self._jobs and len(jobs) < GROUP_LIMIT and size < GROUP_BYTES:
            job = self._jobs.popleft()
            if not job.done.cancelled():  # whoever asked may be gone
                jobs.append(job)
                size += job.size
        return jobs

    def _written(self, jobs: list[_Job]) -> "list[_Outcome]":
        """Write the group; where that fails and one may be to blame, each on its own."""
        try:
            return self._write(jobs)
        except (Busy, Displaced, CommitUncertain) as error:
            return [_Outcome(job.done, error=error) for job in jobs]
        except Exception as error:  # noqa: BLE001 -- those who wait are told
            if len(jobs) == 1:
                return [_Outcome(jobs[0].done, error=error)]
        return [outcome for job in jobs for outcome in self._written([job])]

    def _write(self, jobs: list[_Job]) -> "list[_Outcome]":
        # Whoever waits, waits for one write at a time, so their order is free: kind by kind is cheapest.
        kinds = [list(members) for _, members in groupby(sorted(jobs, key=_kind), key=lambda job: job.batch)]
        parts = [WriteGroup(members[0].batch, [job.item for job in members]) for members in kinds]
        self._check_file()
        results = self._writer.write(self._clock.now(), parts)
        try:
            self._check_file()
        except Displaced as error:  # the commit is in the files that are open, and those may come back
            raise CommitUncertain(str(error)) from error
        return [
            _Outcome(job.done, result=result)
            for members, done in zip(kinds, results, strict=True)
            for job, result in zip(members, done, strict=True)
        ]

    def _check_file(self) -> None:
        """Raise Displaced unless the next process that opens the ledger would find what is written here."""
        try:
            self._file.check()
        except Displaced as error:
            if self._in_place:
                log.warning("the ledger's file is not in its place", reason=str(error))
            self._in_place = False
            if not isinstance(error, Overwritten):
                self._save_log()
            raise
        if not self._in_place:
            log.warning("the ledger's file is in its place again")
        self._in_place, self._log_is_saved = True, False

    def _save_log(self) -> None:
        """Copy all commits from the write-ahead log into the database file, as far as readers allow.

        If the log alone was removed, it holds commits that nothing else has; the descriptors that are open reach it.
        """
        if self._log_is_saved:
            return
        with suppress(sqlite3.Error, SQLAlchemyError):
            # As far as readers allow, without waiting for them.
            busy, in_log, saved = _run(self.writing, "PRAGMA wal_checkpoint(PASSIVE)")
            self._log_is_saved = not busy and in_log == saved


class _Outcome(NamedTuple):
    done: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None

    def tell(self) -> None:
        if self.done.done():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.result)


def _tell(outcomes: Sequence[_Outcome]) -> None:
    """Tell those who wait, all with one call to their event loop."""
    for loop in {outcome.done.get_loop() for outcome in outcomes}:
        theirs = [outcome for outcome in outcomes if outcome.done.get_loop() is loop]
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_tell_each, theirs)


def _tell_each(outcomes: Sequence[_Outcome]) -> None:
    for outcome in outcomes:
        outcome.tell()


def _run(engine: Engine, statement: str) -> Any:
    """Execute a statement outside of any transaction and return its first row."""
    connection = engine.raw_connection()
    try:
        return connection.cursor().execute(statement).fetchone()
    finally:
        connection.close()


def _kind(job: _Job) -> str:
    return job.batch.__qualname__


@contextmanager
def closing(database: SqliteDatabase) -> Iterator[SqliteDatabase]:
    """Lock and open `database` for a block and close it after."""
    database.lock()
    database.open()
    try:
        yield database
    finally:
        database.close()
