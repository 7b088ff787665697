"""The file of a SQLite ledger: locks that keep a second gateway out, and the check that it is still in its place.

SQLite does not notice by itself that its file was removed or replaced: it goes on with the open file, which no other
process finds any more.
"""

import fcntl
import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bridge.errors import LedgerError, LedgerInUse, Unavailable
from bridge.store.engine.path_errors import explain_path_error

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
        self.path = path
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
                    raise LedgerInUse(self.path, _read_holder(self.descriptors[-1]) if name == beside else "")
                _write_holder(self.descriptors[0], is_complete=name != beside)
            except OSError as error:
                raise LedgerError(f"store.url: {explain_path_error(name, error)}") from error
        self._opened[self.path] = _identity(os.fstat(self.descriptors[-1]))

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
        if path == self.path:
            return Displaced(
                f"The ledger's file {path.name} is gone (removed, renamed or unmounted), so nothing more is accepted. "
                "Put the same file back and the gateway goes on, or stop the gateway and restore a backup."
            )
        return _lost(path, "is gone")

    def _replaced(self, path: Path) -> Displaced:
        if path == self.path:
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
            raise _unreadable(self.path, error) from error
        if self._header is not None and not self._overwritten:
            self._overwritten = (
                header is None
                or header.changes < self._header.changes
                or (header.mark != self.mark == self._header.mark)
                or (size < self._size and (header.changes == self._header.changes or header.size != size))
            )
        if self._overwritten:
            raise Overwritten(
                f"The ledger's file {self.path.name} was cut or overwritten while the gateway had it open, so nothing "
                f"more is accepted. Stop the gateway, restore a backup without {self.path.name}-wal and "
                f"{self.path.name}-shm, and start it again."
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
