"""A file on this machine that an upload grows in, written by threads and safe to give up at any moment.

It knows neither spool nor S3.
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
    """Say that the spool cannot take a report, without a word about where it is."""
    fault = "The bridge's spool is full" if error.errno in _FULL else "The bridge cannot write to its spool"
    return Unavailable(f"{fault}, so nothing of this upload was kept. Send it again in a while.")


class TempFile:
    """A file that was just made at `path`.

    Every method raises Unavailable when the disk refuses; what was written is then gone.
    """

    def __init__(self, path: Path, file: FileIO) -> None:
        self.path = path
        self._file = file
        self._pieces: list[bytes] = []
        self._buffered = 0
        # A cancelled upload leaves its thread at work: whoever discards must not close the file under it.
        self._turn = threading.Lock()

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
            await self.in_thread(lambda file: write_all(file, b"".join(pieces)))

    async def read(self) -> AsyncGenerator[bytes]:
        """Yield what was flushed, in pieces."""
        offset = 0
        while piece := await asyncio.to_thread(self._read_piece, offset):
            yield piece
            offset += len(piece)

    async def discard(self) -> None:
        """Remove the file; a second call does nothing."""
        # Shielded: a cancelled upload must not leave its bytes behind.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, self.discard_now))

    async def in_thread(self, work: Callable[[FileIO], None]) -> None:
        """Do `work` with the file in a thread."""

        def locked() -> None:
            with self._turn:
                try:
                    work(self._file)
                except OSError as error:
                    self.remove()
                    raise unavailable(error) from error

        await asyncio.to_thread(locked)

    def discard_now(self) -> None:
        """Do as `discard` does, in whichever thread this is."""
        with self._turn:
            self.remove()

    def remove(self) -> None:
        """Close the file and remove it; whoever calls this has the file's turn."""
        self._file.close()
        with suppress(OSError):  # a disk that also refuses this leaves the file to the sweep
            self.path.unlink(missing_ok=True)

    def _read_piece(self, offset: int) -> bytes:
        try:
            with FileIO(self.path, "rb") as file:
                return os.pread(file.fileno(), PIECE_BYTES, offset)
        except OSError as error:
            raise Unavailable("An upload cannot be read back from this machine. Send it again in a while.") from error


async def begun(make: Callable[[], File]) -> File:
    """Return the file that `make` makes in a thread; nothing of it stays where whoever waits is cancelled."""
    making = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_abandon)
        await asyncio.wait((making,))
        raise


def write_all(file: FileIO, data: bytes) -> None:
    """Write all of `data`: a disk that is nearly full takes a part without an error."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _abandon(making: "asyncio.Future[File]") -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().discard_now()


# Files on this machine in which uploads come in before they go to S3: as many bytes as an upload may have, no more.
#
# It knows neither S3 nor reports. They are worth nothing after a crash, so nothing is synced; a lock tells the folder of
# a process that lives from one that a crash left behind.


FOLDERS = "bridge-spool-"
LOCK = "lock"


class TempFolder:
    """A folder of its own among the machine's temporary files, from its making until `close`."""

    def __init__(self, among: Path | None = None) -> None:
        self._among = among or Path(tempfile.gettempdir())
        self.folder, self._lock = _locked_folder(self._among)

    async def create(self) -> TempFile:
        """Begin a file; raise Unavailable when the disk refuses."""
        return await begun(self._create)

    async def sweep(self) -> int:
        """Remove the folders of processes that are gone, and return how many files were in them."""
        return await asyncio.to_thread(self._sweep)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
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
            with suppress(OSError):  # somebody else's
                descriptor = None if folder == self.folder else _lock(folder)
                if descriptor is not None:
                    swept += sum(path.name != LOCK for path in folder.iterdir())
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(descriptor)
        return swept


def _locked_folder(among: Path) -> tuple[Path, int]:
    """Make a folder and lock it.

    Another process may sweep it before it is locked, as what a crash left behind: then make another one.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=FOLDERS, dir=among))
        with suppress(FileNotFoundError):
            descriptor = _lock(folder)
            if descriptor is not None:
                if os.fstat(descriptor).st_nlink > 0:
                    return folder, descriptor
                os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Lock a folder for this process; None where its process lives."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
