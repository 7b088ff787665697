"""The protocol of the spool, which stores the bytes of large reports until they are delivered, and the keys of blobs.

Keys are `{yyyymmddhh}/{uuid}`: the hour (UTC) in which a blob was created, then a random name. No key contains anything
that a caller sent.
"""

import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from bridge.domain.instants import SECOND
from bridge.errors import CorruptBlob
from bridge.store.blobs.metadata import BlobMetadata

PIECE_BYTES = 256 * 1024
"""Bytes of one read or write: large compared with the cost of a thread switch, and small enough for many uploads."""

ASIDE = "aside"
"""Folder of blobs without a row: their uploads were cut off between the last byte and the commit."""

Source = Callable[[], AsyncGenerator[bytes]]
"""Opens the bytes of an object again for each try."""

_KEY = re.compile(r"[0-9]{10}/[0-9a-f]{32}", re.ASCII)
_HOUR = re.compile(r"[0-9]{10}", re.ASCII)


class BlobWriter(Protocol):
    """A blob that is being written; it appears under its key once it is complete.

    If the spool fails, every method raises Unavailable, and what was written is deleted.
    """

    path: Path  # of a file with all flushed bytes, until the commit

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`; it is written to the file when a piece is full, or by `flush`."""

    async def flush(self) -> None:
        """Write everything to the file, so that other processes can read `path`."""

    def read(self) -> AsyncGenerator[bytes]:
        """Yield the flushed bytes in pieces, until the commit."""

    async def commit(self, metadata: BlobMetadata) -> str:
        """Make the blob and its metadata durable, and return its key."""

    async def discard(self) -> None:
        """Delete the blob, committed or not; a second call does nothing."""


class Spool(Protocol):
    """Stores blobs. Methods raise Unavailable if the spool cannot be reached, CorruptBlob for an invalid key."""

    @property
    def folder(self) -> Path:
        """The folder on this machine that uploads need space in."""

    async def create(self, key: str | None = None) -> BlobWriter:
        """Start a new blob, under a new key unless `key` names that of a blob that is moved from another spool."""

    def read(self, key: str) -> AsyncGenerator[bytes]:
        """Yield the blob in pieces; raise CorruptBlob if it does not exist."""

    async def metadata(self, key: str) -> BlobMetadata:
        """Return the metadata of a blob; raise CorruptBlob if it does not exist or has none."""

    async def delete(self, key: str) -> None:
        """Delete a blob if it exists."""

    async def sweep_temporaries(self) -> int:
        """Delete temporary files that a crash has left, and return their number. Call it before the first upload."""

    async def fault(self) -> str | None:
        """Return why the spool cannot store blobs now; None if it can."""

    async def hours_before(self, hour: str) -> list[str]:
        """Return the hours before `hour` of which blobs exist, oldest first."""

    def blobs_of(self, hour: str) -> AsyncIterator[list[str]]:
        """Yield the keys of the blobs of `hour`, some hundred at a time."""

    async def set_aside(self, key: str) -> None:
        """Move a blob without a row out of the way; `delete_aside` deletes it later."""

    async def delete_aside(self, before: int) -> None:
        """Delete blobs that were set aside and whose hour is before that of `before` (microseconds UTC)."""


def new_key(now: int) -> str:
    """Return a new key in the hour of `now` (microseconds UTC, by the ledger's clock)."""
    return f"{hour_of(now)}/{uuid.uuid4().hex}"


def hour_of(at: int) -> str:
    """Return the hour (UTC) of a time in microseconds, in the format of keys."""
    return datetime.fromtimestamp(at / SECOND, UTC).strftime("%Y%m%d%H")


def wall_clock() -> int:
    """Return this machine's time in microseconds UTC, for a spool without a ledger."""
    return time.time_ns() // 1000


def is_key(text: str) -> bool:
    """Return whether `text` has the format of a key."""
    return _KEY.fullmatch(text) is not None


def is_hour(text: str) -> bool:
    """Return whether `text` has the format of the hour of a key."""
    return _HOUR.fullmatch(text) is not None


def require_key(key: str) -> None:
    """Raise CorruptBlob unless `key` is a key, so that nothing else becomes a path."""
    if not is_key(key):
        raise CorruptBlob(f"{key!r} is not a key of the spool. Check the row of this report in the ledger.")
