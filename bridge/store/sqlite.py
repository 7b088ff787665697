"""The ledger in a SQLite file: transactions, grouped, through one writer thread.

It knows no table. A write's result is handed out only after its commit is on disk.
"""

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from bridge.clock import Clock
from bridge.errors import LedgerInUse, Unavailable
from bridge.store.database import GROUP_BYTES, GROUP_LIMIT, QUEUE_LIMIT, Batch, Item, Result, too_many_wait

LINGER_SECONDS = 0.002
"""Where the last commit had company, the next waits this long for its own: a commit's cost is shared then. A single
upload never waits."""
BUSY_SECONDS = 5.0  # how long a transaction waits for another process, as `bridge backup`


@dataclass(slots=True)
class _Job:
    batch: Batch[Any, Any]
    item: Any
    size: int
    done: Future[Any]


class SqliteDatabase:
    """One SQLite file: a writer thread with grouped commits, and one reader beside it."""

    shared = False

    def __init__(self, path: Path, clock: Clock, observe_group: Callable[[int], None] = lambda _: None) -> None:
        self.path = path
        self._clock = clock
        self._observe_group = observe_group
        self._jobs: queue.Queue[_Job | None] = queue.Queue(maxsize=QUEUE_LIMIT)
        self._lock: int | None = None
        self._writer: threading.Thread | None = None
        self._taking = False  # writes: from `open` to `close`
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-reader")
        self.writing = sqlite_engine(path, begin="BEGIN IMMEDIATE")
        self.reading = sqlite_engine(path, begin="BEGIN")

    @property
    def folder(self) -> Path:
        """Where the file lies, with its write-ahead log and its lock."""
        return self.path.parent

    def now(self) -> int:
        """Return the time in microseconds UTC: file and process share one machine."""
        return self._clock.now()

    def lock(self) -> None:
        """Take the ledger for this process, before anything is written to it; raise LedgerInUse where it is taken."""
        self._lock = _lock_beside(self.path)

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
        self._writer = threading.Thread(target=self._write_for_ever, name="ledger-writer", daemon=True)
        self._writer.start()
        self._taking = True

    def close(self) -> None:
        """Finish the writes that are waiting and let go of the file."""
        self._taking = False
        if self._writer is not None:
            self._jobs.put(None)
            self._writer.join()
        self._reader.shutdown(wait=True)
        self.writing.dispose()
        self.reading.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def write(self, batch: Batch[Item, Result], item: Item, size: int = 0) -> Result:
        """Write `item` (with `size` bytes of bodies) and return its result once it is on disk.

        Raise Unavailable where the ledger cannot take it now; nothing of it is kept then.
        """
        if not self._taking:  # nobody would ever answer
            raise Unavailable("The ledger is not open. Send it again in a moment.")
        job = _Job(batch, item, size, Future())
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise too_many_wait() from None
        try:
            result: Result = await asyncio.wrap_future(job.done)
        except DBAPIError as error:
            raise _unavailable(error) from error
        return result

    async def read(self, query: Callable[..., Result], *arguments: object) -> Result:
        """Return `query(connection, *arguments)`, read from one consistent state of the ledger."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, self._read, query, arguments)
        except DBAPIError as error:
            raise _unavailable(error) from error

    def _read(self, query: Callable[..., Result], arguments: tuple[object, ...]) -> Result:
        with self.reading.begin() as connection:
            return query(connection, *arguments)

    # -- the writer thread ---------------------------------------------------------------------------------------

    def _write_for_ever(self) -> None:
        for jobs in self._groups():
            self._observe_group(len(jobs))
            try:
                self._write(jobs)
            except Exception as error:  # noqa: BLE001 -- one of them is to blame: each on its own tells which
                if len(jobs) == 1:
                    jobs[0].done.set_exception(error)
                else:
                    self._write_one_by_one(jobs)

    def _groups(self) -> Iterator[list[_Job]]:
        """Yield what is waiting, as much as one commit may hold, until the end is asked for."""
        ending = False
        jobs: list[_Job] = []
        while not ending:
            linger = LINGER_SECONDS if len(jobs) > 1 else 0.0
            jobs, size = [], 0
            job = self._jobs.get()
            lingers_until = time.monotonic() + linger
            while job is not None:
                jobs.append(job)
                size += job.size
                if len(jobs) >= GROUP_LIMIT or size >= GROUP_BYTES:
                    break
                try:
                    job = self._jobs.get(timeout=max(0.0, lingers_until - time.monotonic()))
                except queue.Empty:
                    break
            ending = job is None
            jobs = [job for job in jobs if job.done.set_running_or_notify_cancel()]
            if jobs:
                yield jobs

    def _write(self, jobs: list[_Job]) -> None:
        finished: list[tuple[_Job, Any]] = []
        with self.writing.begin() as connection:
            now = self._clock.now()
            # Whoever waits, waits for one write at a time, so their order is free: kind by kind is cheapest.
            for batch, members in groupby(sorted(jobs, key=_kind), key=lambda job: job.batch):
                together = list(members)
                results = batch(connection, now, [job.item for job in together])
                finished.extend(zip(together, results, strict=True))
        for job, result in finished:
            job.done.set_result(result)

    def _write_one_by_one(self, jobs: list[_Job]) -> None:
        for job in jobs:
            try:
                self._write([job])
            except Exception as error:  # noqa: BLE001 -- the caller of this one is told
                job.done.set_exception(error)


def _kind(job: _Job) -> str:
    return job.batch.__qualname__


def sqlite_engine(path: Path, *, begin: str) -> Engine:
    """Return an engine with one connection to `path` that keeps every commit (WAL, synchronous=FULL)."""
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

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails at once where another one wrote in between.
        connection.exec_driver_sql(begin)

    return engine


def _lock_beside(path: Path) -> int:
    """Lock a file beside the ledger: while it is held its owner lives, once it is free all leases are."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LedgerInUse(
            "Another gateway has this ledger open. Stop it first, or give this one a store.url of its own."
        ) from None
    return descriptor


def _unavailable(error: DBAPIError) -> Unavailable:
    return Unavailable(f"The ledger cannot be used right now ({type(error.orig).__name__}). Send it again in a moment.")


@contextmanager
def closing(database: SqliteDatabase) -> Iterator[SqliteDatabase]:
    """Lock and open `database` for a block and close it after."""
    database.lock()
    database.open()
    try:
        yield database
    finally:
        database.close()
