"""The bytes of one file while they come in: in memory as long as they are few, then in the spool.

It knows neither what they mean nor what becomes of them.
"""

import hashlib
from pathlib import Path

from bridge.server.upload.limits import RoomLeft
from bridge.store.blobs.base import BlobWriter, Spool
from bridge.store.blobs.metadata import BlobMetadata


class FileBuffer:
    """Takes a file of at most `max_size` bytes; one that grows larger is counted on, but not kept.

    `row_size` is the most that stays in memory. All that waits raises Unavailable when the spool or `room` refuses.
    """

    def __init__(self, spool: Spool, *, max_size: int, row_size: int, room: RoomLeft) -> None:
        self.size = 0
        self.max_size = max_size
        self._row_size = row_size
        self._room = room
        self._spool = spool
        self._pieces: list[bytes] = []
        self._writer: BlobWriter | None = None
        self._digest = hashlib.sha256()  # of what went to the spool

    def is_too_large(self) -> bool:
        return self.size > self.max_size

    @property
    def in_memory(self) -> bool:
        return self._writer is None

    @property
    def body(self) -> bytes:
        """Return the bytes, while they are in memory."""
        return b"".join(self._pieces)

    @property
    def sha256(self) -> str:
        """Return the digest of all bytes, until they are committed."""
        return hashlib.sha256(self.body).hexdigest() if self.in_memory else self._digest.hexdigest()

    async def write(self, chunk: bytes) -> None:
        """Take the next piece."""
        self.size += len(chunk)
        if self.size > self.max_size:
            self._pieces.clear()
            await self.discard()
            return
        self._room(len(chunk))
        if self._writer is not None:
            self._digest.update(chunk)
            await self._writer.write(chunk)
        else:
            self._pieces.append(chunk)
            if self.size > self._row_size:
                await self.move_to_spool()

    async def move_to_spool(self) -> None:
        """Have the bytes so far in the spool, however few, and those to come as well."""
        pieces, self._pieces = self._pieces, []
        self._writer = await self._spool.create()
        for piece in pieces:
            self._digest.update(piece)
            await self._writer.write(piece)

    async def path(self) -> Path:
        """Return where all bytes so far can be read, once they are in the spool."""
        writer = self._in_spool()
        await writer.flush()
        return writer.path

    async def commit(self, label: BlobMetadata) -> str:
        """Make the bytes in the spool durable; return the blob's key. They are no longer this file's to discard."""
        blob = await self._in_spool().commit(label)
        self._writer = None
        return blob

    async def discard(self) -> None:
        """Remove what is in the spool; after a commit, or a second time, it does nothing."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.discard()

    def _in_spool(self) -> BlobWriter:
        if self._writer is None:
            raise RuntimeError("This file is in memory. Move it to the spool first.")
        return self._writer
