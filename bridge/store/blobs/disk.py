"""The spool on disk: one file for each blob, with its label behind its bytes.

It knows neither reports nor the ledger. Names of files are its own: nothing that a caller sent is part of a path.
"""

import asyncio
import errno
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from bridge.domain.build import SECOND
from bridge.errors import CorruptBlob, Unavailable
from bridge.store.blobs.base import ASIDE, PIECE_BYTES, hour_of, is_hour, is_key, new_key, require_key, wall_clock
from bridge.store.blobs.metadata import BlobMetadata
from bridge.store.blobs.self_test import PROBE, SpoolSelfTest
from bridge.store.blobs.temp_file import TempFile, begun, unavailable, write_all

# How a blob's label stands on disk: behind the bytes, in the same file, so that one fsync and one rename keep both.
#
# It knows no folder. Behind the bytes come the label as JSON, the length of that, and a mark: a file that ends in
# anything else was cut.


MARK = b"bridge 1"
LENGTH_BYTES = 4
MAX_LABEL_BYTES = 4096  # twice what a label may be: more is none
CUT = "A blob in the spool does not end as it was written. Check its disk."


def footer(label: BlobMetadata) -> bytes:
    """Return what is written behind the bytes of a blob."""
    text = json.dumps(label.metadata()).encode("ascii")
    return text + len(text).to_bytes(LENGTH_BYTES, "big") + MARK


def split(file: FileIO) -> tuple[int, BlobMetadata]:
    """Return the number of bytes before the footer, and the label; raise DamagedBlob where there is no footer."""
    total = os.fstat(file.fileno()).st_size
    fixed = LENGTH_BYTES + len(MARK)
    end = os.pread(file.fileno(), fixed, max(0, total - fixed))
    length = int.from_bytes(end[:LENGTH_BYTES], "big")
    size = total - fixed - length
    if end[LENGTH_BYTES:] != MARK or length > MAX_LABEL_BYTES or size < 0:
        raise CorruptBlob(CUT)
    try:
        metadata = json.loads(os.pread(file.fileno(), length, size))
    except ValueError as error:
        raise CorruptBlob(CUT) from error
    return size, BlobMetadata.read(metadata)


TEMPORARY = ".tmp"
LISTED_BLOBS = 500  # named at a time: as many as one question to the ledger asks about


class DiskWriter(TempFile):
    """One blob on its way to the disk (`blobs.BlobWriter`)."""

    def __init__(self, root: Path, key: str) -> None:
        self._key = key
        self._final = root / key
        path = self._final.with_name(self._final.name + TEMPORARY)
        super().__init__(path, FileIO(path, "xb"))

    async def commit(self, label: BlobMetadata) -> str:
        """Make the blob durable and return its key: file, then name, then folder are on disk before this returns."""
        await self.flush()
        await self.in_thread(lambda file: self._commit(file, label))
        return self._key

    def remove(self) -> None:
        super().remove()
        with suppress(OSError):  # a disk that also refuses this leaves the blob to the janitor
            self._final.unlink(missing_ok=True)

    def _commit(self, file: FileIO, label: BlobMetadata) -> None:
        file.seek(0, os.SEEK_END)  # whoever had `path` may have written there
        write_all(file, footer(label))
        os.fsync(file.fileno())
        self.path.rename(self._final)
        sync_folder(self._final.parent)
        file.close()


_OF_THE_FILE = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})
"""Errors that may come from one file alone: its sectors, or its checksum."""

SHARED_TEMPORARY_SECONDS = 24 * 3600.0
"""What another gateway is still writing is younger than that."""


class DiskSpool:
    """Blobs under `root`, in a folder for each hour (`blobs.Spool`); `shared` where other gateways write there too.

    `now` returns the ledger's time: that of this machine may be another, and decides nothing.
    """

    def __init__(self, root: Path, *, shared: bool = False, now: Callable[[], int] = wall_clock) -> None:
        self._root = root
        self._shared = shared
        self._now = now
        self._durable_hour = ""
        self._trial = SpoolSelfTest(root)

    @property
    def folder(self) -> Path:
        return self._root

    async def create(self) -> DiskWriter:
        if await self._trial.keeps_nothing():
            raise Unavailable(
                "The bridge cannot use its spool, so nothing of this upload was kept. Send it again in a while."
            )
        return await begun(self._create)

    async def read(self, key: str) -> AsyncGenerator[bytes]:
        path = self._path(key)
        offset = 0
        # Opened anew for each piece: a reader that is cancelled or forgotten then holds no descriptor.
        while piece := await self._piece(path, key, offset):
            yield piece
            offset += len(piece)

    async def _piece(self, path: Path, key: str, offset: int) -> bytes:
        """Return the next piece; raise DamagedBlob only if other files can be read."""
        try:
            return await asyncio.to_thread(_read_piece, path, key, offset)
        except CorruptBlob as error:
            if (fault := await self.fault()) is not None:
                raise Unavailable(fault) from error
            raise

    async def label(self, key: str) -> BlobMetadata:
        return await asyncio.to_thread(_read_label, self._path(key), key)

    async def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as error:
            raise Unavailable(f"The blob {key} cannot be removed from the spool. It is tried again later.") from error

    async def sweep_temporaries(self) -> int:
        return await asyncio.to_thread(self._sweep)

    async def fault(self) -> str | None:
        return await self._trial.fault()

    async def hours_before(self, hour: str) -> list[str]:
        names = await asyncio.to_thread(_names_in, self._root)
        return sorted(name for name in names if is_hour(name) and name < hour)

    async def blobs_of(self, hour: str) -> AsyncIterator[list[str]]:
        names = await asyncio.to_thread(_names_in, self._root / hour)
        if not names:
            await asyncio.to_thread(_forget_if_empty, self._root / hour)
        keys = [key for name in names if is_key(key := f"{hour}/{name}")]
        for start in range(0, len(keys), LISTED_BLOBS):
            yield keys[start : start + LISTED_BLOBS]

    async def set_aside(self, key: str) -> None:
        path = self._path(key)
        aside = self._root / ASIDE
        try:
            await asyncio.to_thread(aside.mkdir, exist_ok=True)
            await asyncio.to_thread(path.rename, aside / key.replace("/", "-"))
        except OSError as error:
            raise Unavailable(f"The blob {key} cannot be set aside in the spool. It is tried again later.") from error

    async def forget_aside(self, before: int) -> None:
        await asyncio.to_thread(self._forget, hour_of(before))

    def _forget(self, hour: str) -> None:
        for blob in (self._root / ASIDE).glob("*"):
            key = blob.name.replace("-", "/", 1)
            if is_key(key) and key < hour:  # keys begin with their hour
                blob.unlink(missing_ok=True)

    def _sweep(self) -> int:
        leftovers = [*self._root.glob(f"*/*{TEMPORARY}"), *self._root.glob(f"{PROBE}*")]
        if self._shared:
            others_write_since = time.time() - SHARED_TEMPORARY_SECONDS
            hour = hour_of(self._now() - int(SHARED_TEMPORARY_SECONDS) * SECOND)  # this machine's clock may be wrong
            leftovers = [path for path in leftovers if path.parent.name < hour]
            leftovers = [path for path in leftovers if path.stat().st_mtime < others_write_since]
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        return len(leftovers)

    def _create(self) -> DiskWriter:
        key = new_key(self._now())
        try:
            self._make_durable(key.partition("/")[0])
            return DiskWriter(self._root, key)
        except OSError as error:
            raise unavailable(error) from error

    def _make_durable(self, hour: str) -> None:
        if hour == self._durable_hour and (self._root / hour).is_dir():  # it goes where somebody finds it empty
            return
        (self._root / hour).mkdir(parents=True, exist_ok=True)
        sync_folder(self._root)
        sync_folder(self._root.parent)
        self._durable_hour = hour

    def _path(self, key: str) -> Path:
        require_key(key)
        return self._root / key


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unavailable("The spool cannot be read. It is tried again later.") from error


def _forget_if_empty(hour: Path) -> None:
    with suppress(OSError):  # it holds blobs
        hour.rmdir()


def _read_piece(path: Path, key: str, offset: int) -> bytes:
    with _opened(path, key) as file:
        size, _ = split(file)
        return os.pread(file.fileno(), min(PIECE_BYTES, max(0, size - offset)), offset)


def _read_label(path: Path, key: str) -> BlobMetadata:
    with _opened(path, key) as file:
        _, label = split(file)
        return label


@contextmanager
def _opened(path: Path, key: str) -> Iterator[FileIO]:
    try:
        with FileIO(path, "rb") as file:
            yield file
    except FileNotFoundError as error:
        raise CorruptBlob(f"The blob {key} is not in the spool. Check that its disk is mounted.") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in _OF_THE_FILE:
            raise CorruptBlob(f"The blob {key} cannot be read from the spool: {reason}. Check its disk.") from error
        raise Unavailable(f"The spool cannot be read: {reason}. Check the folder that store.spool names.") from error


def sync_folder(folder: Path) -> None:
    """Let the names in a folder be on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
