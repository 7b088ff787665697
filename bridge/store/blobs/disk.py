"""The spool on disk: one file for each blob, with its metadata behind its bytes.

A file ends with the metadata as JSON, the length of the JSON, and a mark. One fsync and one rename make both durable,
and a file that ends in anything else was cut. No path contains anything that a caller sent.
"""

import asyncio
import errno
import json
import os
import stat
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Final

import structlog

from bridge.domain.instants import SECOND
from bridge.errors import CorruptBlob, Unavailable
from bridge.store.blobs.base import ASIDE, PIECE_BYTES, hour_of, is_hour, is_key, new_key, require_key, wall_clock
from bridge.store.blobs.metadata import BlobMetadata
from bridge.store.blobs.temp_file import TempFile, create_in_thread, unavailable, write_all

MARK: Final = b"bridge 1"
LENGTH_BYTES: Final = 4
MAX_METADATA_BYTES: Final = 4096
"""Twice what metadata may have. A larger length is not one."""

CUT: Final = "A blob in the spool does not end as it was written. Check its disk."

TEMPORARY: Final = ".tmp"
LISTED_BLOBS: Final = 500
"""Keys in one list: as many as one query to the ledger takes."""

SHARED_TEMPORARY_SECONDS: Final = 24 * 3600.0
"""Younger temporary files in a shared spool may belong to uploads at other gateways."""

ERRORS_OF_ONE_FILE = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})
"""Errors that may concern one file only: its sectors, or its checksum."""

PROBE: Final = "probe-"
PROBE_SECONDS: Final = 2.0
"""Health checks give up after a few seconds."""

PROBE_INTERVAL_SECONDS: Final = 2.0
"""A result is valid for this long."""

PROBE_CONTENT: Final = b"The bridge checks by writing and reading this that its spool keeps reports.\n"
REMEDY: Final = "Check the folder that store.spool names, its disk and its permissions."

log = structlog.get_logger(__name__)


# -- the format of files -----------------------------------------------------------------------------------------


def footer(metadata: BlobMetadata) -> bytes:
    """Return what is written behind the bytes of a blob."""
    text = json.dumps(metadata.metadata()).encode("ascii")
    return text + len(text).to_bytes(LENGTH_BYTES, "big") + MARK


def split(file: FileIO) -> tuple[int, BlobMetadata]:
    """Return the number of bytes before the footer, and the metadata; raise CorruptBlob if there is no footer."""
    total = os.fstat(file.fileno()).st_size
    fixed = LENGTH_BYTES + len(MARK)
    end = os.pread(file.fileno(), fixed, max(0, total - fixed))
    length = int.from_bytes(end[:LENGTH_BYTES], "big")
    size = total - fixed - length
    if end[LENGTH_BYTES:] != MARK or length > MAX_METADATA_BYTES or size < 0:
        raise CorruptBlob(CUT)
    try:
        metadata = json.loads(os.pread(file.fileno(), length, size))
    except ValueError as error:
        raise CorruptBlob(CUT) from error
    return size, BlobMetadata.read(metadata)


class DiskWriter(TempFile):
    """A blob that is being written (`base.BlobWriter`)."""

    def __init__(self, root: Path, key: str) -> None:
        self._key = key
        self._final = root / key
        path = self._final.with_name(self._final.name + TEMPORARY)
        super().__init__(path, FileIO(path, "xb"))

    async def commit(self, metadata: BlobMetadata) -> str:
        """Make the blob durable (the file, then its name, then the folder) and return its key."""
        await self.flush()
        await self.in_thread(lambda file: self._commit(file, metadata))
        return self._key

    def remove(self) -> None:
        super().remove()
        with suppress(OSError):  # if the disk refuses this too, cleanup finds the blob later
            self._final.unlink(missing_ok=True)

    def _commit(self, file: FileIO, metadata: BlobMetadata) -> None:
        file.seek(0, os.SEEK_END)  # a validation process may have written to `path`
        write_all(file, footer(metadata))
        os.fsync(file.fileno())
        self.path.rename(self._final)
        sync_folder(self._final.parent)
        file.close()


# -- the self-test -----------------------------------------------------------------------------------------------


class SpoolSelfTest:
    """Tests whether a folder stores files, by writing and reading a small one at bounded intervals.

    `os.access` would not show it: a disk may have no inodes left, be read-only, or not return what it has accepted.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._fault: str | None = None
        self._rejects_files = False  # uploads notice that themselves
        self._tested_at: float | None = None
        self._device: int | None = None  # of the folder at the first test
        self._running: asyncio.Future[None] | None = None
        self._lock = asyncio.Lock()

    async def fault(self) -> str | None:
        """Return why the folder does not store blobs, or does not return them; None if it does. It names no path."""
        async with self._lock:
            if not self._is_fresh():
                fault = await self._test()
                if fault is not None and fault != self._fault:
                    log.warning("spool_failed", reason=fault)
                if fault is None and self._fault is not None:
                    log.info("spool_recovered")
                self._fault, self._tested_at = fault, time.monotonic()
            return self._fault

    async def loses_files(self) -> bool:
        """Return whether the folder accepts files that could not be read back; not if it rejects them."""
        return await self.fault() is not None and not self._rejects_files

    def _is_fresh(self) -> bool:
        if self._tested_at is None or not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            return False
        return time.monotonic() - self._tested_at < PROBE_INTERVAL_SECONDS

    async def _test(self) -> str | None:
        if self._running is None or self._running.done():  # else the disk still hangs in the previous test
            self._running = asyncio.get_running_loop().run_in_executor(None, self._write_and_read)
        self._rejects_files = False
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await asyncio.shield(self._running)
        except TimeoutError:
            return f"The spool's disk did not answer within {PROBE_SECONDS:.0f} seconds. {REMEDY}"
        except OSError as error:
            self._rejects_files = True
            return f"The spool cannot be written ({error.strerror or type(error).__name__}). {REMEDY}"
        except _NotStoredError as error:
            return str(error)
        return None

    def _write_and_read(self) -> None:
        device = self._root.stat().st_dev
        if self._device not in (None, device):
            raise _NotStoredError(
                "The spool's folder is on another disk than at the start. Mount its disk again, or restart the gateway."
            )
        # If the file system supports it, the file has no name: no program sees it, and a crash leaves nothing.
        with tempfile.TemporaryFile(dir=self._root, prefix=PROBE, buffering=0) as file:
            file.write(PROBE_CONTENT)
            read = os.pread(file.fileno(), len(PROBE_CONTENT), 0)
        if read != PROBE_CONTENT:
            raise _NotStoredError(f"The spool cannot be read: a file did not come back as it was written. {REMEDY}")
        self._device = device


class _NotStoredError(Exception):
    """The folder did not store a file that it accepted, or is not the folder of the start."""


# -- the spool ---------------------------------------------------------------------------------------------------


class DiskSpool:
    """Blobs under `root`, in a folder for each hour (`base.Spool`); `shared` if other gateways write there too.

    `now` returns the ledger's time: this machine's clock may be wrong, and decides nothing.
    """

    def __init__(self, root: Path, *, shared: bool = False, now: Callable[[], int] = wall_clock) -> None:
        self._root = root
        self._shared = shared
        self._now = now
        self._durable_hour = ""
        self._self_test = SpoolSelfTest(root)

    @property
    def folder(self) -> Path:
        return self._root

    async def create(self, key: str | None = None) -> DiskWriter:
        if await self._self_test.loses_files():
            raise Unavailable(
                "The bridge cannot use its spool, so nothing of this upload was kept. Send it again in a while."
            )
        return await create_in_thread(partial(self._create, key or new_key(self._now())))

    async def read(self, key: str) -> AsyncGenerator[bytes]:
        path = self._path(key)
        offset = 0
        # The file is opened for each piece: so a canceled or abandoned reader holds no descriptor.
        while piece := await self._piece(path, key, offset):
            yield piece
            offset += len(piece)

    async def _piece(self, path: Path, key: str, offset: int) -> bytes:
        """Return the next piece; raise CorruptBlob only if other files can be read."""
        try:
            return await asyncio.to_thread(_read_piece, path, key, offset)
        except CorruptBlob as error:
            if (fault := await self.fault()) is not None:
                raise Unavailable(fault) from error
            raise

    async def metadata(self, key: str) -> BlobMetadata:
        return await asyncio.to_thread(_read_metadata, self._path(key), key)

    async def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as error:
            raise Unavailable(f"The blob {key} cannot be removed from the spool. It is tried again later.") from error

    async def sweep_temporaries(self) -> int:
        return await asyncio.to_thread(self._sweep)

    async def fault(self) -> str | None:
        return await self._self_test.fault()

    async def hours_before(self, hour: str) -> list[str]:
        names = await asyncio.to_thread(_names_in, self._root)
        return sorted(name for name in names if is_hour(name) and name < hour)

    async def blobs_of(self, hour: str) -> AsyncIterator[list[str]]:
        names = await asyncio.to_thread(_names_in, self._root / hour)
        if not names:
            await asyncio.to_thread(_remove_if_empty, self._root / hour)
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

    async def delete_aside(self, before: int) -> None:
        await asyncio.to_thread(self._delete_aside, hour_of(before))

    def _delete_aside(self, hour: str) -> None:
        for blob in (self._root / ASIDE).glob("*"):
            key = blob.name.replace("-", "/", 1)
            if is_key(key) and key < hour:  # keys begin with their hour
                _remove_file(blob)

    def _sweep(self) -> int:
        leftovers = [*self._root.glob(f"*/*{TEMPORARY}"), *self._root.glob(f"{PROBE}*")]
        before = None
        if self._shared:
            before = time.time() - SHARED_TEMPORARY_SECONDS
            hour = hour_of(self._now() - int(SHARED_TEMPORARY_SECONDS) * SECOND)  # this machine's clock may be wrong
            leftovers = [path for path in leftovers if path.parent.name < hour]
        return sum(_remove_file(path, before=before) for path in leftovers)

    def _create(self, key: str) -> DiskWriter:
        try:
            self._make_hour_durable(key.partition("/")[0])
            return DiskWriter(self._root, key)
        except OSError as error:
            raise unavailable(error) from error

    def _make_hour_durable(self, hour: str) -> None:
        if hour == self._durable_hour and (self._root / hour).is_dir():  # `blobs_of` removes empty folders
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
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise Unavailable("The spool cannot be read. It is tried again later.") from error


def _remove_file(path: Path, *, before: float | None = None) -> bool:
    """Remove a file that was last written before `before`; return whether it was there.

    Folders, links and other entries are not the spool's: they were put there by hand, and stay.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or (before is not None and status.st_mtime >= before):
            return False
        path.unlink()
    except FileNotFoundError:  # another gateway was faster
        return False
    return True


def _remove_if_empty(hour: Path) -> None:
    with suppress(OSError):  # it holds blobs
        hour.rmdir()


def _read_piece(path: Path, key: str, offset: int) -> bytes:
    with _opened(path, key) as file:
        size, _ = split(file)
        return os.pread(file.fileno(), min(PIECE_BYTES, max(0, size - offset)), offset)


def _read_metadata(path: Path, key: str) -> BlobMetadata:
    with _opened(path, key) as file:
        _, metadata = split(file)
        return metadata


@contextmanager
def _opened(path: Path, key: str) -> Iterator[FileIO]:
    try:
        with FileIO(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CorruptBlob(f"The blob {key} is not a file. Look at what was put into the spool.")
            yield file
    except FileNotFoundError as error:
        raise CorruptBlob(f"The blob {key} is not in the spool. Check that its disk is mounted.") from error
    except IsADirectoryError as error:
        raise CorruptBlob(f"The blob {key} is a folder. Look at what was put into the spool.") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in ERRORS_OF_ONE_FILE:
            raise CorruptBlob(f"The blob {key} cannot be read from the spool: {reason}. Check its disk.") from error
        raise Unavailable(f"The spool cannot be read: {reason}. Check the folder that store.spool names.") from error


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe would block its reader."""
    return os.open(path, flags | os.O_NONBLOCK)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
