"""Files on this machine in which uploads come in before they go to S3: as many bytes as an upload may have, no more.

It knows neither S3 nor reports. They are worth nothing after a crash, so nothing is synced; a lock tells the folder of
a process that lives from one that a crash left behind.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from io import FileIO
from pathlib import Path

from bridge.store.spools.growing import GrowingFile, begun, unavailable

FOLDERS = "bridge-spool-"
LOCK = "lock"


class Scratch:
    """A folder of its own among the machine's temporary files, from its making until `close`."""

    def __init__(self, among: Path | None = None) -> None:
        self._among = among or Path(tempfile.gettempdir())
        self.folder, self._lock = _locked_folder(self._among)

    async def create(self) -> GrowingFile:
        """Begin a file; raise Unavailable when the disk refuses."""
        return await begun(self._create)

    async def sweep(self) -> int:
        """Remove the folders of processes that are gone, and return how many files were in them."""
        return await asyncio.to_thread(self._sweep)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def _create(self) -> GrowingFile:
        path = self.folder / uuid.uuid4().hex
        try:
            return GrowingFile(path, FileIO(path, "xb"))
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
