"""The folder of `--spool`: durable copies of uploads, which a later run sends if this one cannot.

A copy is one file: a line of JSON with the build and the names and sizes of the reports, then their bytes. Its process
holds a lock on it, which the system releases if the process ends in any way. So no two runs send one copy at once.
"""

import json
import os
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final

from bridge.commands.upload.batches import Batch, Part

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

SUFFIX: Final = ".upload"
UNFINISHED: Final = ".tmp"
UNREADABLE: Final = ".unreadable"
STALE_SECONDS: Final = 24 * 3600  # of a file that a run has begun to write and left
MAX_HEADER_BYTES: Final = 16 << 20
LOCKED_BYTE: Final = 1 << 40  # on Windows, where a locked byte cannot be read


class KeptUpload:
    """The copy of one upload, locked for this process."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._requests = 1
        self._answered = True
        self._lock = Lock()

    def split(self) -> None:
        """Note that one more request carries files of this copy."""
        with self._lock:
            self._requests += 1

    def settle(self, *, answered: bool) -> None:
        """Note the end of one request with files of this copy, which is removed if all were answered."""
        with self._lock:
            self._answered &= answered
            self._requests -= 1
            if self._requests:
                return
            if os.name == "nt":  # an open file cannot be removed there
                self._file.close()
            if self._answered:
                self._path.unlink(missing_ok=True)
                _sync_folder(self._path.parent)
            self._file.close()


class KeptUploads:
    """All copies in a folder, which is created if it does not exist."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._count = 0

    def keep(self, batch: Batch) -> Batch:
        """Write a copy of a batch; return the batch with the bytes of the copy. Raise OSError if that fails."""
        self._count += 1
        path = self._folder / f"{time.time_ns():020}-{os.getpid()}-{self._count}{SUFFIX}"
        unfinished = path.with_suffix(UNFINISHED)
        descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        file: BinaryIO = os.fdopen(descriptor, "w+b")
        try:
            _lock(file)
            start = _write(file, batch)
            if os.name == "nt":  # an open file cannot be renamed there
                file.close()
            unfinished.rename(path)
            _sync_folder(self._folder)
            if os.name == "nt":
                file = path.open("rb")
                _lock(file)
        except BaseException:
            file.close()
            unfinished.unlink(missing_ok=True)
            raise
        return replace(batch, parts=_placed(batch.parts, path, start), entry=KeptUpload(file, path))

    def earlier(self) -> Generator[Batch]:
        """Yield the uploads of earlier runs that no other run is sending, oldest first."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            with suppress(OSError):  # another run has just sent it
                file = path.open("rb")
                if not _lock(file) or not path.exists():
                    file.close()
                    continue
                batch = _read(file, path)
                if batch is None:
                    file.close()
                    path.rename(path.with_suffix(UNREADABLE))
                    continue
                yield batch
        for path in self._folder.glob(f"*{UNFINISHED}"):
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - STALE_SECONDS:
                    path.unlink()


def _write(file: BinaryIO, batch: Batch) -> int:
    """Write header and bytes to disk, and return where the bytes begin."""
    files = [{"name": part.name, "size": part.size} for part in batch.parts]
    header = {"parameters": dict(batch.parameters), "complete": batch.complete, "files": files}
    header |= {"trace_headers": dict(batch.trace_headers)} if batch.trace_headers else {}
    line = json.dumps(header).encode() + b"\n"
    file.write(line)
    for part in batch.parts:
        file.writelines(part.chunks())
    file.flush()
    os.fsync(file.fileno())
    return len(line)


def _read(file: BinaryIO, path: Path) -> Batch | None:
    """Return the upload in a copy, None if the file is something else."""
    line = file.readline(MAX_HEADER_BYTES)
    try:
        header = json.loads(line)
        parts = [Part(name=str(each["name"]), path="", size=int(each["size"])) for each in header["files"]]
        parameters = {str(name): str(value) for name, value in header["parameters"].items()}
        complete = bool(header["complete"])
        trace_headers = {str(name): str(value) for name, value in header.get("trace_headers", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if len(line) + sum(part.size for part in parts) != path.stat().st_size:
        return None
    placed = _placed(parts, path, len(line))
    entry = KeptUpload(file, path)
    return Batch(
        parameters=parameters,
        parts=placed,
        complete=complete,
        entry=entry,
        earlier=True,
        trace_headers=trace_headers,
    )


def _placed(parts: Sequence[Part], path: Path, start: int) -> list[Part]:
    placed = []
    for part in parts:
        placed.append(replace(part, path=str(path), offset=start))
        start += part.size
    return placed


def _lock(file: BinaryIO) -> bool:
    """Return whether this process has the file's lock now; it is released when the file is closed."""
    try:
        if os.name == "nt":
            file.seek(LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            file.seek(0)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
