"""What a spool is, wherever it keeps its blobs: the bytes of large reports that are still owed to somebody.

It knows neither disks nor S3. Keys are `{yyyymmddhh}/{uuid}`: the hour (UTC) in which a blob was begun, then its own
name. Nothing that a caller sent is part of a key.
"""

import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from bridge.domain.build import SECOND
from bridge.errors import CorruptBlob
from bridge.store.blobs.metadata import BlobMetadata

PIECE_BYTES = 256 * 1024
"""Read and written at once: large enough that a thread's turn costs little beside it, small enough for many uploads."""

ASIDE = "aside"
"""Where blobs lie that no row names: an upload was cut off between its last byte and its row."""

Source = Callable[[], AsyncGenerator[bytes]]
"""Opens the bytes of an object again for each try."""

_KEY = re.compile(r"[0-9]{10}/[0-9a-f]{32}", re.ASCII)
_HOUR = re.compile(r"[0-9]{10}", re.ASCII)


class BlobWriter(Protocol):
    """One blob on its way into the spool; under its key it is seen only once it is wholly kept.

    Every method raises Unavailable when the spool refuses; what was written is then gone.
    """

    path: Path  # of a file that holds what was flushed, until the commit

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`; it reaches the file when a piece is full, or by `flush`."""

    async def flush(self) -> None:
        """Hand everything to the file, so that `path` can be read by others."""

    async def commit(self, label: BlobMetadata) -> str:
        """Make the blob and what stands beside it durable, and return its key."""

    async def discard(self) -> None:
        """Remove the blob, committed or not; a second call does nothing."""


class Spool(Protocol):
    """Keeps blobs. Every method raises Unavailable when it cannot be reached, DamagedBlob for what is no key."""

    @property
    def folder(self) -> Path:
        """Where on this machine uploads need room while they come in."""

    async def create(self) -> BlobWriter:
        """Begin a blob."""

    def read(self, key: str) -> AsyncGenerator[bytes]:
        """Yield the blob in pieces; raise DamagedBlob when it is not there."""

    async def label(self, key: str) -> BlobMetadata:
        """Return what stands beside the blob; raise DamagedBlob when it is not there, or nothing stands there."""

    async def delete(self, key: str) -> None:
        """Remove a blob, if it is there."""

    async def sweep_temporaries(self) -> int:
        """Remove what uploads cut off by a crash have left, and return how many; to be called before uploads begin."""

    async def fault(self) -> str | None:
        """Say why no blob could be kept now; None where it could."""

    async def hours_before(self, hour: str) -> list[str]:
        """Return the hours before `hour` in which blobs were begun that are still there, oldest first."""

    def blobs_of(self, hour: str) -> AsyncIterator[list[str]]:
        """Yield the keys of the blobs that were begun in `hour`, some hundred at a time."""

    async def set_aside(self, key: str) -> None:
        """Move a blob that no row names out of the way of the others; `forget_aside` removes it later."""

    async def forget_aside(self, before: int) -> None:
        """Remove what was begun in an hour before that of a time (microseconds UTC) and has been set aside."""


def new_key(now: int) -> str:
    """Return a key that no blob has had before, in the hour of `now` (microseconds UTC, by the ledger's clock)."""
    return f"{hour_of(now)}/{uuid.uuid4().hex}"


def hour_of(at: int) -> str:
    """Return the hour (UTC) of a time in microseconds as keys begin with it."""
    return datetime.fromtimestamp(at / SECOND, UTC).strftime("%Y%m%d%H")


def wall_clock() -> int:
    """Return this machine's time in microseconds UTC: for spools without a ledger beside them."""
    return time.time_ns() // 1000


def is_key(text: str) -> bool:
    """Tell whether `text` may be the key of a blob."""
    return _KEY.fullmatch(text) is not None


def is_hour(text: str) -> bool:
    """Tell whether `text` may be the hour of a key."""
    return _HOUR.fullmatch(text) is not None


def require_key(key: str) -> None:
    """Raise DamagedBlob for what is no key: it never becomes a path."""
    if not is_key(key):
        raise CorruptBlob(f"{key!r} is no key of the spool. Look at what the ledger holds for this report.")
