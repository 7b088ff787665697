"""The archive in a folder: each copy is a file, with its metadata in a JSON file beside it."""

import asyncio
import hashlib
import json
import os
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from pathlib import Path

from bridge.domain.outcomes import OutcomeUnknown, PutOutcome, Stored, body_differs, read_failure
from bridge.errors import BridgeError, Unavailable
from bridge.store.archive.base import DAY, ArchiveEntry
from bridge.store.blobs.base import PIECE_BYTES, Source
from bridge.store.blobs.disk import sync_folder
from bridge.store.blobs.temp_file import TempFile, create_in_thread, unavailable, write_all

TEMPORARY = ".tmp"
MIB = 1 << 20


class _Copy(TempFile):
    """A copy that is being written; it gets its name once it is durable."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path.open("xb", buffering=0))


class DiskArchive:
    """Copies under `root` (`base.Archive`). It rejects copies while less than `min_free` bytes are free."""

    def __init__(self, root: Path, *, min_free: int) -> None:
        self._root = root
        self._min_free = min_free

    async def keep(self, entry: ArchiveEntry, source: Source) -> PutOutcome:
        try:
            return await self._keep(entry, source)
        except (BridgeError, OSError) as error:
            reason = str(error) if isinstance(error, BridgeError) else (error.strerror or type(error).__name__)
            return OutcomeUnknown(message=f"The archive's folder does not take a copy: {reason}")

    async def find_copy(self, key: str, *, disposition: str) -> Path | None:  # noqa: ARG002 -- the HTTP handler sets it
        path = self._root / key
        return path if await asyncio.to_thread(path.is_file) else None

    async def read(self, key: str) -> AsyncGenerator[bytes]:
        with await asyncio.to_thread((self._root / key).open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece

    async def delete(self, keys: Sequence[str]) -> None:
        try:
            await asyncio.to_thread(self._delete_copies, keys)
        except OSError as error:
            raise Unavailable("Copies in the archive cannot be deleted. Check its folder.") from error

    async def delete_before(self, day: str, *, limit: int) -> int:
        try:
            return await asyncio.to_thread(self._delete, day, limit)
        except OSError as error:
            raise Unavailable("The archive cannot be cleaned. It is tried again later.") from error

    async def _keep(self, entry: ArchiveEntry, source: Source) -> PutOutcome:
        if await asyncio.to_thread(self._free_bytes) < self._min_free:
            return OutcomeUnknown(message=f"The archive's disk has less than {self._min_free // MIB} MiB free.")
        path = self._root / entry.key
        await asyncio.to_thread(self._make_folder, path.parent)
        copy = await create_in_thread(lambda: _new(path))
        try:
            digest, size = hashlib.sha256(), 0
            async with aclosing(source()) as pieces:
                while True:
                    try:
                        piece = await anext(pieces, None)
                    except (BridgeError, OSError) as error:  # of the spool, not of the archive
                        return read_failure(error)
                    if piece is None:
                        break
                    digest.update(piece)
                    size += len(piece)
                    await copy.write(piece)
            if (size, digest.hexdigest()) != (entry.sent_size, entry.sent_sha256):
                return body_differs(
                    size, digest.hexdigest(), accepted_size=entry.sent_size, accepted_sha256=entry.sent_sha256
                )
            await copy.flush()
            await copy.in_thread(lambda file: _finish(file.fileno(), copy.path, path, entry.metadata()))
        finally:
            await copy.discard()
        return Stored()

    def _free_bytes(self) -> int:
        space = os.statvfs(self._root)
        return space.f_bavail * space.f_frsize

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for parent in (folder, *folder.parents):
            sync_folder(parent)
            if parent == self._root:
                return

    def _delete_copies(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._root / key
            for each in (path, path.with_suffix(".json")):
                each.unlink(missing_ok=True)
        for folder in {(self._root / key).parent for key in keys}:
            _remove_empty(folder, self._root)

    def _delete(self, day: str, limit: int) -> int:
        deleted, failed = 0, None
        for folder in self._days_before(day):
            for path in list(islice(_files(folder), 2 * (limit - deleted))):
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:  # of one folder, perhaps: the other days are deleted all the same
                    failed = error
                else:
                    deleted += path.suffix != ".json"
            if deleted >= limit:
                return deleted
            _remove_empty(folder, self._root)
        if failed is not None and not deleted:
            raise failed
        return deleted

    def _days_before(self, day: str) -> list[Path]:
        found = (path.relative_to(self._root).as_posix() for path in self._root.glob("*/*/*"))
        return [self._root / name for name in sorted(found) if DAY.fullmatch(name) and name < day]


def _new(path: Path) -> _Copy:
    try:
        return _Copy(path.with_name(f"{path.name}.{uuid.uuid4().hex}{TEMPORARY}"))
    except OSError as error:
        raise unavailable(error) from error


def _finish(descriptor: int, written: Path, path: Path, metadata: dict[str, str]) -> None:
    """Write the metadata, then give the copy its name: so a visible copy has its metadata."""
    beside = path.with_suffix(".json")
    text = json.dumps(metadata, indent=1).encode()
    part = written.with_suffix(".json")
    try:
        with part.open("xb", buffering=0) as file:
            write_all(file, text)
            os.fsync(file.fileno())
        part.rename(beside)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    os.fsync(descriptor)
    written.rename(path)
    sync_folder(path.parent)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir())


def _remove_empty(folder: Path, root: Path) -> None:
    with suppress(OSError):  # a folder is not empty
        for inner in sorted(folder.rglob("*"), reverse=True):
            inner.rmdir()
        for outer in (folder, *folder.parents):
            if outer == root:
                return
            outer.rmdir()
