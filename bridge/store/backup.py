"""A backup of a SQLite ledger and its blobs, made while its gateway runs.

The copy is marked: a gateway that opens it sends nothing until an operator resumes it (restore_pause.py).
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import field
from pathlib import Path
from typing import Final

from bridge.errors import BackupFailed, LedgerError
from bridge.store.blobs.base import is_key
from bridge.store.blobs.disk import sync_folder
from bridge.store.restore_pause import MARK_COPY
from bridge.values import dataclass

SPOOL = "spool"
"""Folder of the blobs beside the copied ledger."""

PROGRESS_INTERVAL: Final = 1_000
"""Blobs between two messages of progress."""

PAGE: Final = 500
"""Keys of blobs read at a time, so that memory does not grow with the spool."""

Progress = Callable[[str], None]


@dataclass(slots=True)
class BackupResult:
    """The content of a backup; `gone` are blobs of the copied ledger whose reports were delivered meanwhile."""

    ledger: Path
    ledger_bytes: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    gone: list[str] = field(default_factory=list)


def back_up(
    ledger: Path, spool: Path | None, folder: Path, now: int, progress: Progress = lambda _: None
) -> BackupResult:
    """Copy `ledger` and its blobs in the folder `spool` (None: they are elsewhere) into the new `folder`.

    Blobs are linked once before the ledger is copied and once after it: the copy may refer to a blob that is delivered
    in between. `now` (microseconds UTC) is the time from which the copy is paused.

    Raises:
        BackupFailed: `folder` exists, or the ledger cannot be copied. Nothing is left behind.
        LedgerError: There is no ledger.
    """
    if not ledger.exists():
        raise LedgerError(f"There is no ledger at {ledger} yet. Start the gateway, or correct store.url.")
    if folder.exists() or folder.is_symlink():
        raise BackupFailed(f"{folder} exists already. Name a new folder: a backup overwrites nothing.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.unfinished-", dir=folder.parent))  # mode 0700
    try:
        copied = _Backup(ledger, spool, unfinished, progress).make(now)
        copied.ledger = folder / ledger.name
        unfinished.rename(folder)
        sync_folder(folder.parent)
    except sqlite3.Error as error:
        raise BackupFailed(f"The ledger at {ledger} cannot be copied: {error}. Look at both disks.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return copied


class _Backup:
    """One backup that is being made in the folder `into`."""

    def __init__(self, ledger: Path, spool: Path | None, into: Path, progress: Progress) -> None:
        self._ledger = ledger
        self._spool = spool
        self._into = into
        self._copy = into / ledger.name
        self._copied = BackupResult(ledger=self._copy)
        self._copied_blobs = 0
        self._progress = progress

    def make(self, now: int) -> BackupResult:
        self._add_blobs(self._ledger, gone=None)
        self._copy_ledger(now)
        self._add_blobs(self._copy, gone=self._copied.gone)
        self._remove_unreferenced()
        for folder in (*(self._into / SPOOL).glob("*"), self._into / SPOOL, self._into):
            if folder.is_dir():
                sync_folder(folder)
        return self._copied

    def _copy_ledger(self, now: int) -> None:
        self._progress(f"copying the ledger, {self._ledger.stat().st_size} bytes")
        with closing(sqlite3.connect(self._ledger)) as source:
            source.execute("VACUUM INTO ?", (str(self._copy),))
        with closing(sqlite3.connect(self._copy)) as copy, copy:
            copy.execute(MARK_COPY, {"since": now})
            copy.execute("PRAGMA user_version = 0")  # the mark of the gateway that has the ledger open
        self._copy.chmod(0o600)
        with self._copy.open("rb") as file:
            os.fsync(file.fileno())
        self._copied.ledger_bytes = self._copy.stat().st_size

    def _add_blobs(self, ledger: Path, gone: list[str] | None) -> None:
        """Add the blobs of `ledger` that are not in the copy yet; append those that do not exist to `gone`."""
        if self._spool is None:
            return
        with closing(sqlite3.connect(ledger)) as ledger_connection:
            for key in _keys_in(ledger_connection):
                target = self._into / SPOOL / key
                if target.exists():
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._add(self._spool / key, target)
                except FileNotFoundError:
                    if gone is not None:
                        gone.append(key)

    def _add(self, blob: Path, target: Path) -> None:
        try:
            target.hardlink_to(blob)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without hard links
            _copy_durably(blob, target)
        self._copied_blobs += 1
        if self._copied_blobs % PROGRESS_INTERVAL == 0:
            self._progress(f"{self._copied_blobs} files of the spool so far")

    def _remove_unreferenced(self) -> None:
        """Count the blobs of the copy; remove those that were delivered before the ledger was copied."""
        with closing(sqlite3.connect(self._copy)) as ledger_connection:
            for blob in (self._into / SPOOL).glob("*/*"):
                if _has_key(ledger_connection, f"{blob.parent.name}/{blob.name}"):
                    self._copied.blobs += 1
                    self._copied.blob_bytes += blob.stat().st_size
                else:
                    blob.unlink()


def _copy_durably(blob: Path, target: Path) -> None:
    unfinished = target.with_name(target.name + ".part")
    with blob.open("rb") as source, unfinished.open("xb") as copy:
        shutil.copyfileobj(source, copy)
        copy.flush()
        os.fsync(copy.fileno())
    unfinished.rename(target)


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables that hold keys of blobs; an older schema has fewer."""
    columns = "SELECT 1 FROM pragma_table_info(?) WHERE name = 'blob'"
    return [table for table in ("reports", "rejections") if connection.execute(columns, (table,)).fetchone()]


def _keys_in(connection: sqlite3.Connection) -> Iterator[str]:
    for table in _tables(connection):
        last = ""
        # In pages: one long read would keep the write-ahead log of a running gateway from being truncated.
        while page := connection.execute(
            f"SELECT blob FROM {table} WHERE blob > ? ORDER BY blob LIMIT {PAGE}",  # noqa: S608 -- names of our own
            (last,),
        ).fetchall():
            yield from (key for (key,) in page if is_key(key))
            last = page[-1][0]


def _has_key(connection: sqlite3.Connection, key: str) -> bool:
    return any(
        connection.execute(f"SELECT 1 FROM {table} WHERE blob = ?", (key,)).fetchone()  # noqa: S608 -- names of our own
        for table in _tables(connection)
    )
