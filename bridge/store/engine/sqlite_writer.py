"""What writes a SQLite ledger: groups of writes in, their results out once they are on disk.

It knows no table. The gateway's writer is a process of its own: Python runs one thread at a time, so in the gateway's
process each commit would wait for the uploads, and they for it (docs/decisions/0010).
"""

import contextlib
import copyreg
import fcntl
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

import bridge
from bridge.domain.build import UploadMetadata
from bridge.domain.intake import AcceptedUpload, NewReport
from bridge.domain.junit.result import TestCounts
from bridge.errors import CommitUncertain, Unavailable
from bridge.store.engine.base import LedgerFunction, results_of
from bridge.store.engine.sqlite_connection import sqlite_engine, unavailable

END_SECONDS = 30.0  # for the commit under way when the ledger closes; a disk that hangs longer is not waited for
PIPE_SIZE = 1 << 20  # bytes of a group that wait in its pipe, so that most are written at once


def _unchanging(values: dict[str, Any]) -> MappingProxyType[str, Any]:
    return MappingProxyType(values)


def _quickly(kind: type[Any]) -> None:
    """Let values of a dataclass travel at a quarter of what its own pickling costs, in the path of uploads."""
    names = tuple(field.name for field in fields(kind))
    values_of = attrgetter(*names)
    copyreg.pickle(kind, lambda value: (_made, (kind, names, values_of(value))))


def _made(kind: type[Any], names: Sequence[str], values: Sequence[Any]) -> Any:
    return kind(**dict(zip(names, values, strict=True)))


copyreg.pickle(MappingProxyType, lambda proxy: (_unchanging, (dict(proxy),)))  # changes hold some
for accepted in (AcceptedUpload, NewReport, TestCounts, UploadMetadata):
    _quickly(accepted)


class WriteGroup(NamedTuple):
    """Items that one batch function writes together."""

    batch: LedgerFunction[Any, Any]
    items: Sequence[Any]


class LedgerWriter(Protocol):
    """Makes one commit of a group of writes."""

    def write(self, now: int, parts: Sequence[WriteGroup]) -> list[Sequence[Any]]:
        """Write all parts at `now` (microseconds UTC) or none; return the results of each, once they are on disk.

        Raise Unavailable where the ledger cannot take them, MaybeKept where nobody knows whether it did; what a batch
        function raises comes through. It blocks.
        """

    def close(self) -> None:
        """Let go of the file."""


class InThreadWriter:
    """Writes in the thread that asks: for whoever writes little, or alone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def write(self, now: int, parts: Sequence[WriteGroup]) -> list[Sequence[Any]]:
        try:
            with self._engine.begin() as connection:
                return [results_of(batch, connection, now, items) for batch, items in parts]
        except DBAPIError as error:
            raise unavailable(error) from error

    def close(self) -> None:
        self._engine.dispose()


class WriterProcess:
    """Has a process of its own write to the file at `path`; one that ended is replaced with the next group.

    `locks` are descriptors that the process holds as long as it lives, so that no other gateway opens the ledger while
    a killed gateway's last commit is still under way.
    """

    def __init__(self, path: Path, locks: Sequence[int]) -> None:
        self._path = path
        self._locks = tuple(locks)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Have the process there before the first group."""
        self._running()

    def write(self, now: int, parts: Sequence[WriteGroup]) -> list[Sequence[Any]]:
        try:
            process = self._running()
        except OSError as error:
            raise Unavailable(
                f"The ledger's writer cannot be started ({type(error).__name__}), so nothing of this was kept. "
                "Send it again in a moment."
            ) from error
        try:
            _send(process.stdin, (now, parts))
            told: list[Sequence[Any]] | Exception = pickle.load(process.stdout)  # type: ignore[arg-type]  # noqa: S301 -- our own
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self.close()
            raise CommitUncertain(
                "The ledger's writer ended in the middle of a commit, so nobody knows whether it was made. "
                "Send it again in a moment."
            ) from error
        if isinstance(told, Exception):
            raise told
        return told

    def close(self) -> None:
        """End the process after the commit under way, and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]  # at which it ends
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()  # type: ignore[union-attr]

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 -- this program itself
                [sys.executable, "-m", __name__, os.fspath(self._path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=self._locks,
                env=os.environ | {"PYTHONPATH": str(Path(bridge.__file__).parent.parent)},
            )
            with contextlib.suppress(OSError):  # where the system grants no more, a group is written piece by piece
                fcntl.fcntl(self._process.stdin.fileno(), fcntl.F_SETPIPE_SZ, PIPE_SIZE)  # type: ignore[union-attr]
        return self._process


def main() -> None:
    """Write every group that comes in until the pipe ends, which it does when the gateway is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they are meant for the gateway, which then ends this one in order
        signal.signal(number, signal.SIG_IGN)
    writer = InThreadWriter(sqlite_engine(Path(sys.argv[1]), begin="BEGIN IMMEDIATE"))
    groups, results = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            now, parts = pickle.load(groups)  # noqa: S301 -- only the gateway that started this process writes here
            try:
                told: object = writer.write(now, parts)
            except Exception as error:  # noqa: BLE001 -- whatever it was, whoever asked is told
                told = _portable(error)
            _send(results, told)
    # The file is left as a killed gateway would leave it: whoever closes it last has the log to tidy up.
    os._exit(0)


def _send(pipe: IO[bytes] | None, message: object) -> None:
    if pipe is not None:
        pipe.write(pickle.dumps(message))
        pipe.flush()


def _portable(error: Exception) -> Exception:
    """Return the error, or what can be told of one that does not travel."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own
    except Exception:  # noqa: BLE001
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    main()
