"""Connections to a SQLite ledger, and the writers that turn groups of writes into commits.

The gateway's writer is a process of its own: Python runs one thread at a time, so in the gateway's process each commit
would wait for the uploads, and the uploads for it (docs/decisions/0010).
"""

import asyncio
import copyreg
import fcntl
import os
import pickle
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

import bridge
from bridge.errors import CommitUncertain, LedgerError, LedgerRejectedWrite, Unavailable
from bridge.store.engine.base import LedgerFunction, results_of
from bridge.store.engine.compiled import execute_text
from bridge.store.engine.ledger_file import Displaced, LedgerFile

if TYPE_CHECKING:
    from bridge.store.engine.forked_writer import SpareWriter

BUSY_SECONDS: Final = 5.0
"""A transaction waits this long for another process, like `bridge backup`."""

CACHED_STATEMENTS: Final = 500
"""Prepared statements of a connection: the ledger has about 200, the rest are sizes of groups."""

DURABLE: Final = {"journal_mode": "wal", "synchronous": 2}
"""2 is FULL: with less, a power failure may lose the last commits."""

END_SECONDS: Final = 30.0
"""The writer process may take this long for its last commit when the ledger closes; then it is killed."""

PIPE_BYTES: Final = 1 << 20
"""Capacity of the pipes to and from the writer process, so that most groups and replies are written in one piece."""

REPLY_BYTES: Final = 65_536
"""Read at once of a reply."""

HEADER: Final = struct.Struct("!Q")
"""Before each reply: its length in bytes."""


# -- connections -------------------------------------------------------------------------------------------------


class Busy(Unavailable):
    """Another process has held the ledger for longer than BUSY_SECONDS."""


ERRORS: Mapping[int, type[Unavailable]] = {
    sqlite3.SQLITE_BUSY: Busy,
    sqlite3.SQLITE_IOERR_FSYNC: CommitUncertain,
    sqlite3.SQLITE_ERROR: LedgerRejectedWrite,  # the statement itself
}
"""The errors of SQLite that do not simply mean that nothing of the transaction is stored."""

REJECTED = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
"""Errors, of many codes, about the content of a statement."""


def sqlite_engine(path: Path, *, begin: str) -> Engine:
    """Return an engine with one connection to `path` on which every commit is durable (WAL, synchronous=FULL).

    `begin` is the statement that begins each transaction. The first connection raises LedgerError if SQLite does not
    accept these settings.
    """
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS, "cached_statements": CACHED_STATEMENTS},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin below: sqlite3's own BEGIN is deferred
        if connection.execute("PRAGMA page_count").fetchone() == (0,):  # later it has no effect, and waits for writers
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        _require_durable(connection)

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        # A deferred transaction that reads and then writes fails at once if another one has written in between.
        execute_text(connection, begin)

    return engine


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Commit what the block does, or roll it back; the connection is kept, so nothing may stay open in it."""
    try:
        with connection.begin():
            yield
    finally:
        driver: Any = connection.connection.dbapi_connection
        if driver.in_transaction:  # a commit failed
            driver.rollback()


def _require_durable(connection: sqlite3.Connection) -> None:
    """Raise LedgerError unless the settings are in effect: some file systems do not support a write-ahead log."""
    for setting, wanted in DURABLE.items():
        (found,) = connection.execute(f"PRAGMA {setting}").fetchone()
        if found != wanted:
            raise LedgerError(
                f"SQLite keeps {setting}={found} here, so a commit could be lost. Put the ledger on a local disk."
            )


def unavailable(error: DBAPIError) -> Unavailable:
    """Return the error for a caller whose transaction failed.

    A commit whose log was written but not synced is uncertain: the next process that opens the ledger may find it.
    """
    kind = ERRORS.get(getattr(error.orig, "sqlite_errorcode", 0), Unavailable)
    kind = LedgerRejectedWrite if isinstance(error.orig, REJECTED) else kind
    return kind(f"The ledger cannot be used right now ({type(error.orig).__name__}). Send it again in a moment.")


# -- writers -----------------------------------------------------------------------------------------------------


class WriteGroup(NamedTuple):
    """Items that one ledger function writes together."""

    function: LedgerFunction[Any, Any]
    items: Sequence[Any]


class LedgerWriter(Protocol):
    """Makes one commit of several groups."""

    async def write(self, now: int, groups: Sequence[WriteGroup]) -> list[Sequence[Any]]:
        """Write all groups at `now` (microseconds UTC) or none; return the results of each once they are on disk.

        Errors of ledger functions pass through.

        Raises:
            Displaced: The file is not where it was opened. Nothing was written.
            Unavailable: The ledger cannot take them.
            CommitUncertain: The outcome of the commit is not known.
        """

    def close(self) -> None:
        """Wait for the commit under way, and close the file."""


class BlockingWriter:
    """Writes in the calling thread, over one connection: the pool's part would cost more than a small transaction.

    It checks before and after each commit that the next process that opens `file` would find what is written.
    """

    def __init__(self, engine: Engine, file: LedgerFile) -> None:
        self._engine = engine
        self._file = file
        self._connection: Connection | None = None  # opened after a check: otherwise SQLite might begin a new log

    def write(self, now: int, groups: Sequence[WriteGroup]) -> list[Sequence[Any]]:
        """Write as `LedgerWriter` does."""
        self._file.check()
        try:
            connection = self._connection = self._connection or self._engine.connect()
            with transaction(connection):
                results = [results_of(function, connection, now, items) for function, items in groups]
        except DBAPIError as error:
            raise unavailable(error) from error
        try:
            self._file.check()
        except Displaced as error:  # the commit is in the open files, and those may come back
            raise CommitUncertain(str(error)) from error
        return results

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()


class WriterThread:
    """Writes in a thread of this process."""

    def __init__(self, engine: Engine, file: LedgerFile) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger-writer")
        self._writer = BlockingWriter(engine, file)

    async def write(self, now: int, groups: Sequence[WriteGroup]) -> list[Sequence[Any]]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.write, now, groups)

    def close(self) -> None:
        self._thread.shutdown()
        self._writer.close()


class WriterProcess:
    """Writes to `file` in a process of its own; if it ends, the next write starts another one.

    The first process is `spare`, if given. The process inherits the descriptors of the file's locks. So no other
    gateway can open the ledger while the last commit of a killed gateway is still running.
    """

    def __init__(self, file: LedgerFile, spare: "SpareWriter | None" = None) -> None:
        self._file = file
        self._spare = spare
        self._process: subprocess.Popen[bytes] | SpareWriter | None = None
        self._exchange: _Exchange | None = None  # the one under way, or one that did not end well
        self._is_closed = False

    def start(self) -> None:
        """Start the process before the first group needs it; it blocks."""
        if self._spare is not None:
            process: Any = self._spare
            self._process, self._spare = self._spare, None
            process.begin(self._file.path, self._file.descriptors)
        else:
            process = self._process = subprocess.Popen(  # noqa: S603 -- this program itself
                [sys.executable, "-m", __name__, os.fspath(self._file.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=self._file.descriptors,
                env=os.environ | {"PYTHONPATH": str(Path(bridge.__file__).parent.parent)},
            )
            widen_pipe(process.stdin)
        widen_pipe(process.stdout)
        with suppress(BrokenPipeError):  # it has ended: the first write finds out
            process.stdin.write(pickle.dumps(self._file))
            process.stdin.flush()
        for pipe in (process.stdin, process.stdout):
            os.set_blocking(pipe.fileno(), False)

    async def write(self, now: int, groups: Sequence[WriteGroup]) -> list[Sequence[Any]]:
        if self._is_closed:
            raise Unavailable("The ledger is closed. Send it again in a moment.")
        if self._process is None or self._exchange is not None:
            try:
                await asyncio.to_thread(self._restart)
            except OSError as error:
                raise Unavailable(
                    f"The ledger's writer cannot be started ({type(error).__name__}), so nothing of this was kept. "
                    "Send it again in a moment."
                ) from error
        message = pickle.dumps((now, groups))
        process: Any = self._process
        self._exchange = exchange = _Exchange(process.stdin.fileno(), process.stdout.fileno())
        try:
            reply: list[Sequence[Any]] | Exception = await exchange.reply_to(message)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise CommitUncertain(
                "The ledger's writer ended in the middle of a commit, so its outcome is not known. "
                "Send it again in a moment."
            ) from error
        self._exchange = None
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        """End the process after the commit under way, and wait until it is gone."""
        self._is_closed = True
        self._end()

    def _restart(self) -> None:
        self._end()
        self.start()

    def _end(self) -> None:
        process, self._process = self._process, None
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.give_up()
        if process is None:
            return
        with suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]  # the process ends at the end of its input
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]


class _Exchange:
    """One message to the writer process and its reply, by pipes that the event loop writes to and reads from.

    A thread would take the interpreter's lock from the event loop for each piece.
    """

    def __init__(self, requests: int, replies: int) -> None:
        self._requests = requests
        self._replies = replies
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[Any] = self._loop.create_future()
        self._received = bytearray()

    async def reply_to(self, message: bytes) -> Any:
        """Send `message` and return the reply; raise EOFError or OSError if the process has ended."""
        self._unsent = memoryview(message)
        self._loop.add_reader(self._replies, self._receive)
        try:
            self._send()
            return await self._reply
        finally:
            self._loop.remove_reader(self._replies)
            self._loop.remove_writer(self._requests)

    def give_up(self) -> None:
        """Let a caller that still waits get an EOFError."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._fail, EOFError())

    def _send(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._requests, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)
            return
        if self._unsent:
            self._loop.add_writer(self._requests, self._send)
        else:
            self._loop.remove_writer(self._requests)

    def _receive(self) -> None:
        try:
            piece = os.read(self._replies, REPLY_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if not piece:
            self._fail(EOFError())
            return
        self._received += piece
        size = HEADER.size
        if len(self._received) >= size and len(self._received) - size == HEADER.unpack_from(self._received)[0]:
            self._finish(memoryview(self._received)[size:])

    def _finish(self, reply: memoryview) -> None:
        if self._reply.done():
            return
        try:
            self._reply.set_result(pickle.loads(reply))  # noqa: S301 -- our own
        except Exception as error:  # noqa: BLE001 -- the caller raises it
            self._reply.set_exception(error)

    def _fail(self, error: Exception) -> None:
        if not self._reply.done():
            self._reply.set_exception(error)


def widen_pipe(pipe: IO[bytes] | None) -> None:
    """Raise the capacity of a pipe to or from a writer process to PIPE_BYTES."""
    with suppress(OSError):  # if the system does not allow it, groups are written in pieces
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # type: ignore[arg-type]


# -- the writer process ------------------------------------------------------------------------------------------
# Dataclasses that are sent to it have no slots: pickle then restores their values without running Python code.


def _to_proxy(values: dict[str, Any]) -> MappingProxyType[str, Any]:
    return MappingProxyType(values)  # pickle does not find the type by its name


copyreg.pickle(MappingProxyType, lambda proxy: (_to_proxy, (dict(proxy),)))  # changes hold some


def main() -> None:
    """Write to the ledger that the command line names, every group that arrives on standard input."""
    ignore_signals()
    write_all(sys.stdin.buffer, sys.stdout.buffer)


def ignore_signals() -> None:
    """Ignore the signals that are meant for the gateway, which ends this process in order."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def write_all(requests: IO[bytes], replies: IO[bytes], locks: Sequence[int] | None = None) -> None:
    """Write every group that arrives, until the input ends: then the gateway is gone.

    The ledger's file arrives first. `locks` are its descriptors, if they have other numbers than in the gateway.
    """
    with suppress(EOFError, BrokenPipeError):
        file: LedgerFile = pickle.load(requests)  # noqa: S301 -- only the gateway that started this process writes here
        file.descriptors = file.descriptors if locks is None else list(locks)
        writer = BlockingWriter(sqlite_engine(file.path, begin="BEGIN IMMEDIATE"), file)
        while True:
            now, groups = pickle.load(requests)  # noqa: S301 -- as above
            try:
                reply: object = writer.write(now, groups)
            except Exception as error:  # noqa: BLE001 -- the gateway raises it
                reply = _portable(error)
            message = pickle.dumps(reply)
            replies.write(HEADER.pack(len(message)))
            replies.write(message)
            replies.flush()
    # The file is left as a killed gateway would leave it: the last process to close it cleans up the log.
    os._exit(0)


def _portable(error: Exception) -> Exception:
    """Return the error, or a RuntimeError with its text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    except Exception:  # noqa: BLE001
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    # As the module that the gateway imports: an error of a class of `__main__` could not be unpickled there.
    from bridge.store.engine import sqlite_writer  # noqa: PLW0406

    sqlite_writer.main()
