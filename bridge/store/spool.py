"""The spool: bytes of large reports that are still owed to somebody, one file on disk for each acceptance.

It knows neither reports nor the ledger. Names of files are its own: nothing that a caller sent is part of a path.
"""

import asyncio
import errno
import os
import re
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from bridge.errors import DamagedBlob, Unavailable

PIECE_BYTES = 256 * 1024
"""Read and written at once: large enough that a thread's turn costs little beside it, small enough for many uploads."""

TEMPORARY = ".tmp"
_KEY = re.compile(r"[0-9]{10}/[0-9a-f]{32}", re.ASCII)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def unavailable(error: OSError) -> Unavailable:
    """Say that the spool cannot take a report, without a word about where it is."""
    fault = "The bridge's spool is full" if error.errno in _FULL else "The bridge cannot write to its spool"
    return Unavailable(f"{fault}, so nothing of this upload was kept. Send it again in a while.")


class BlobWriter:
    """One blob on its way into the spool; under its key it is seen only once it is wholly on disk.

    Every method raises Unavailable when the disk refuses; what was written is then gone.
    """

    def __init__(self, root: Path, key: str, file: FileIO) -> None:
        self._final = root / key
        self._key = key
        self._file = file
        self._pieces: list[bytes] = []
        self._buffered = 0
        # A cancelled upload leaves its thread at work: whoever discards must not close the file under it.
        self._lock = threading.Lock()
        self.path = self._final.with_name(self._final.name + TEMPORARY)

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`; it reaches the file when a piece is full, or by `flush`."""
        self._pieces.append(chunk)
        self._buffered += len(chunk)
        if self._buffered >= PIECE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Hand everything to the file, so that `path` can be read by others."""
        pieces, self._pieces, self._buffered = self._pieces, [], 0
        if pieces:
            await self._in_thread(lambda: _write_all(self._file, b"".join(pieces)))

    async def commit(self) -> str:
        """Make the blob durable and return its key: file, then name, then folder are on disk before this returns."""
        await self.flush()
        await self._in_thread(self._commit)
        return self._key

    async def discard(self) -> None:
        """Remove the blob, committed or not; a second call does nothing."""
        # Shielded: a cancelled upload must not leave its bytes behind.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self._discard))

    def _commit(self) -> None:
        os.fsync(self._file.fileno())
        self.path.rename(self._final)
        _sync_folder(self._final.parent)
        self._file.close()

    def _discard(self) -> None:
        with self._lock:
            self._remove()

    def _remove(self) -> None:
        self._file.close()
        # A disk that also refuses this leaves the file to the sweep, or to the janitor.
        for path in (self.path, self._final):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        def locked() -> None:
            with self._lock:
                try:
                    work()
                except OSError as error:
                    self._remove()
                    raise unavailable(error) from error

        await asyncio.to_thread(locked)


ASIDE = "aside"
"""Folder of blobs that no row names: an upload was cut off between its last byte and its row."""


class DiskSpool:
    """Blobs under `root`, in a folder for each hour (UTC) in which they were begun; keys are `{yyyymmddhh}/{uuid}`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._durable_hour = ""

    async def create(self) -> BlobWriter:
        """Begin a blob; raise Unavailable when the disk refuses."""
        # Shielded: a file opened for a cancelled upload would have nobody to discard it.
        opening = asyncio.get_running_loop().run_in_executor(None, self._create)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_abandon)
            await asyncio.wait((opening,))
            raise

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield the blob in pieces; raise DamagedBlob when it is not there, Unavailable when the disk fails."""
        path = self._path(key)
        offset = 0
        # Opened anew for each piece: a reader that is cancelled or forgotten then holds no descriptor.
        while piece := await asyncio.to_thread(_read_piece, path, key, offset):
            yield piece
            offset += len(piece)

    async def delete(self, key: str) -> None:
        """Remove a blob, if it is there; raise Unavailable when the disk refuses."""
        path = self._path(key)
        try:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as error:
            raise Unavailable(f"The blob {key} cannot be removed from the spool. It is tried again later.") from error

    async def sweep_temporaries(self) -> int:
        """Remove what uploads cut off by a crash have left, and return how many; to be called before uploads begin."""
        return await asyncio.to_thread(self._sweep)

    async def blobs_before(self, hour: str) -> list[str]:
        """Return the keys of the blobs that were begun before `hour` (`yyyymmddhh`, UTC)."""
        return await asyncio.to_thread(self._before, hour)

    async def set_aside(self, key: str) -> None:
        """Move a blob that no row names out of the way of the others; `forget_aside` removes it later."""
        path = self._path(key)
        aside = self._root / ASIDE
        try:
            await asyncio.to_thread(aside.mkdir, exist_ok=True)
            await asyncio.to_thread(path.rename, aside / key.replace("/", "-"))
        except OSError as error:
            raise Unavailable(f"The blob {key} cannot be set aside in the spool. It is tried again later.") from error

    async def forget_aside(self, before_seconds: float) -> None:
        """Remove what was begun before a time (seconds since 1970) and has been set aside."""
        await asyncio.to_thread(self._forget, before_seconds)

    def _before(self, hour: str) -> list[str]:
        hours = sorted(folder for folder in self._root.iterdir() if folder.name < hour and folder.name.isdigit())
        found = (f"{folder.name}/{blob.name}" for folder in hours for blob in folder.iterdir())
        return [key for key in found if _KEY.fullmatch(key)]

    def _forget(self, before_seconds: float) -> None:
        for blob in (self._root / ASIDE).glob("*"):
            if blob.stat().st_mtime < before_seconds:
                blob.unlink(missing_ok=True)

    def _sweep(self) -> int:
        leftovers = list(self._root.glob(f"*/*{TEMPORARY}"))
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        return len(leftovers)

    def _create(self) -> BlobWriter:
        hour = datetime.now(UTC).strftime("%Y%m%d%H")
        key = f"{hour}/{uuid.uuid4().hex}"
        try:
            self._make_durable(hour)
            file = FileIO(self._root / (key + TEMPORARY), "xb")
        except OSError as error:
            raise unavailable(error) from error
        return BlobWriter(self._root, key, file)

    def _make_durable(self, hour: str) -> None:
        if hour == self._durable_hour:
            return
        (self._root / hour).mkdir(parents=True, exist_ok=True)
        _sync_folder(self._root)
        _sync_folder(self._root.parent)
        self._durable_hour = hour

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise DamagedBlob(f"{key!r} is no key of the spool. Look at what the ledger holds for this report.")
        return self._root / key


def _read_piece(path: Path, key: str, offset: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), PIECE_BYTES, offset)
    except FileNotFoundError as error:
        raise DamagedBlob(f"The blob {key} is not in the spool. Upload the report again.") from error
    except OSError as error:
        raise Unavailable(f"The blob {key} cannot be read from the spool. It is tried again later.") from error


def _write_all(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # a disk that is nearly full takes a part without an error
        rest = rest[file.write(rest) :]


def _abandon(opening: asyncio.Future[BlobWriter]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()._discard()  # noqa: SLF001 -- nobody else ever saw this writer


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
