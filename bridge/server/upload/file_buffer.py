"""The bytes of one uploaded file: few of them in memory, more in the spool. Also the limits of an upload."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bridge.server.validation.transform import FileDigest
from bridge.store.blobs.base import BlobWriter, Spool
from bridge.store.blobs.metadata import BlobMetadata

ReserveSpace = Callable[[int], None]
"""Counts bytes that are about to be stored; raises Unavailable if the disks have no space for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadLimits:
    """The limits of one upload, from `[server]`."""

    max_report_size: int  # bytes of one file
    max_request_size: int  # bytes of the body; also of everything decompressed, and of everything unpacked from it
    max_files: int


class FileBuffer:
    """Buffers a file of at most `max_size` bytes; of a larger one it only counts the bytes.

    At most `memory_size` bytes stay in memory. All coroutines raise Unavailable if the spool or `reserve_space` does.
    """

    def __init__(self, spool: Spool, *, max_size: int, memory_size: int, reserve_space: ReserveSpace) -> None:
        self.size = 0
        self.max_size = max_size
        self._memory_size = memory_size
        self._reserve_space = reserve_space
        self._spool = spool
        self._pieces: list[bytes] = []
        self._writer: BlobWriter | None = None
        self._spooled_digest = hashlib.sha256()

    def is_too_large(self) -> bool:
        return self.size > self.max_size

    @property
    def in_memory(self) -> bool:
        return self._writer is None

    @property
    def body(self) -> bytes:
        """The bytes, if they are in memory."""
        return b"".join(self._pieces)

    def digest(self) -> FileDigest:
        """Return size and digest of all bytes, before a commit."""
        sha256 = hashlib.sha256(self.body) if self.in_memory else self._spooled_digest
        return FileDigest(self.size, sha256.hexdigest())

    async def write(self, chunk: bytes) -> None:
        """Append a chunk."""
        self.size += len(chunk)
        if self.size > self.max_size:
            self._pieces.clear()
            await self.discard()
            return
        self._reserve_space(len(chunk))
        if self._writer is not None:
            self._spooled_digest.update(chunk)
            await self._writer.write(chunk)
        else:
            self._pieces.append(chunk)
            if self.size > self._memory_size:
                await self.move_to_spool()

    async def move_to_spool(self) -> None:
        """Move the bytes to the spool, and write all further ones there."""
        pieces, self._pieces = self._pieces, []
        self._writer = await self._spool.create()
        for piece in pieces:
            self._spooled_digest.update(piece)
            await self._writer.write(piece)

    async def path(self) -> Path:
        """Return a path with all bytes so far; raise RuntimeError if they are in memory."""
        writer = self._require_writer()
        await writer.flush()
        return writer.path

    async def commit(self, metadata: BlobMetadata) -> str:
        """Make the bytes in the spool durable and return the key of the blob; `discard` no longer removes them."""
        blob = await self._require_writer().commit(metadata)
        self._writer = None
        return blob

    async def discard(self) -> None:
        """Remove the bytes from the spool; a second call, or one after a commit, does nothing."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.discard()

    def _require_writer(self) -> BlobWriter:
        if self._writer is None:
            raise RuntimeError("This file is in memory. Move it to the spool first.")
        return self._writer


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedFile:
    """A complete file of an upload. The buffer holds it uncompressed; its owner discards it."""

    name: str
    buffer: FileBuffer
    content: FileDigest  # of the bytes in the buffer
    received: FileDigest  # of the bytes as received: others than `content` if they were compressed
    note: str = ""  # for people
    in_archive: bool = False
