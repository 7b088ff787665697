"""Temporary files of uploads: written by threads, and safe to abandon at any moment.

They need no fsync: after a crash they are worthless. A lock shows whether the process of a folder still runs.
"""

import asyncio
import errno
import fcntl
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar

from bridge.errors import Unavailable
from bridge.store.blobs.base import PIECE_BYTES

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

File = TypeVar("File", bound="TempFile")


def unavailable(error: OSError) -> Unavailable:
    """Return the error for a caller whose upload the spool cannot store; it names no path."""
    fault = "The bridge's spool is full" if error.errno in _FULL else "The bridge cannot write to its spool"
    return Unavailable(f"{fault}, so nothing of this upload was kept. Send it again in a while.")


class TempFile:
    """A new file at `path`.

    If the disk fails, every method raises Unavailable, and the file is deleted.
    """

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file
        self._pieces: list[bytes] = []
        self._buffered = 0
        # The thread of a canceled upload goes on: `discard` must not close the file before it is done.
        self._lock = threading.Lock()

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`; it is written to the file when a piece is full, or by `flush`."""
        self._pieces.append(chunk)
        self._buffered += len(chunk)
        if self._buffered >= PIECE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write everything to the file, so that other processes can read `path`."""
        pieces, self._pieces, self._buffered = self._pieces, [], 0
        if pieces:
            await self.in_thread(lambda file: write_all(file, b"".join(pieces)))

    async def read(self) -> AsyncGenerator[bytes]:
        """Yield the flushed bytes in pieces."""
        offset = 0
        while piece := await asyncio.to_thread(self._read_piece, offset):
            yield piece
            offset += len(piece)

    async def discard(self) -> None:
        """Delete the file; a second call does nothing."""
        # Shielded: a canceled upload must not leave its bytes behind.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self.discard_now))

    async def in_thread(self, work: Callable[[FileIO], None]) -> None:
        """Run `work(file)` in a thread."""

        def locked() -> None:
            with self._lock:
                try:
                    work(self._file)
                except OSError as error:
                    self.remove()
                    raise unavailable(error) from error

        await asyncio.to_thread(locked)

    def discard_now(self) -> None:
        """Delete the file in this thread."""
        with self._lock:
            self.remove()

    def remove(self) -> None:
        """Close and delete the file; the caller holds its lock."""
        self._file.close()
        with suppress(OSError):  # if the disk refuses this too, a later sweep deletes the file
            self.path.unlink(missing_ok=True)

    def _read_piece(self, offset: int) -> bytes:
        try:
            with FileIO(self.path, "rb") as file:
                return os.pread(file.fileno(), PIECE_BYTES, offset)
        except OSError as error:
            raise Unavailable("An upload cannot be read back from this machine. Send it again in a while.") from error


async def create_in_thread(make: Callable[[], File]) -> File:
    """Return the file that `make` creates in a thread; delete it if the caller is canceled meanwhile."""
    making = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_abandon)
        await asyncio.wait((making,))
        raise


def write_all(file: FileIO, data: bytes) -> None:
    """Write all of `data`: a nearly full disk writes only a part, without an error."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _abandon(making: "asyncio.Future[File]") -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().discard_now()


FOLDERS = "bridge-spool-"
LOCK = "lock"


class TempFolder:
    """A folder in the temporary folder of this machine, for uploads on their way to S3; `close` deletes it."""

    def __init__(self, among: Path | None = None) -> None:
        self._among = among or Path(tempfile.gettempdir())
        self.folder, self._lock = _locked_folder(self._among)

    async def create(self) -> TempFile:
        """Create a file; raise Unavailable if the disk fails."""
        return await create_in_thread(self._create)

    async def sweep(self) -> int:
        """Delete the folders of processes that have ended, and return the number of files in them."""
        return await asyncio.to_thread(self._sweep)

    def close(self) -> None:
        """Delete the folder with its files."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def _create(self) -> TempFile:
        path = self.folder / uuid.uuid4().hex
        try:
            return TempFile(path, FileIO(path, "xb"))
        except OSError as error:
            raise unavailable(error) from error

    def _sweep(self) -> int:
        swept = 0
        for folder in self._among.glob(f"{FOLDERS}*"):
            with suppress(OSError):  # of another user
                descriptor = None if folder == self.folder else _lock(folder)
                if descriptor is not None:
                    swept += sum(path.name != LOCK for path in folder.iterdir())
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(descriptor)
        return swept


def _locked_folder(among: Path) -> tuple[Path, int]:
    """Create and lock a folder; try again if the sweep of another process deletes it before it is locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=FOLDERS, dir=among))
        with suppress(FileNotFoundError):
            descriptor = _lock(folder)
            if descriptor is not None:
                if os.fstat(descriptor).st_nlink > 0:
                    return folder, descriptor
                os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Lock a folder and return the descriptor; None if its process still runs."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
