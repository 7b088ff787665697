"""Which refused files keep their bytes, so that they can be looked at and sent after all: those that came whole.

It knows neither why a file was refused nor the ledger. What is kept must never cost an upload anything.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from bridge.domain.intake import QuarantinedFile
from bridge.errors import Unavailable
from bridge.server.upload.file_buffer import FileBuffer
from bridge.server.upload.limits import RoomLeft
from bridge.store.blobs.metadata import BlobMetadata
from bridge.store.rejections import MAX_QUARANTINED_BYTES

MAX_FILE_BYTES: Final = MAX_QUARANTINED_BYTES // 4
"""A file does not push out all others of its route; larger than any report that is allowed by default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WireFile:
    """What came over the wire; `note` is for people, where it is not what is held: a compressed file."""

    size: int
    sha256: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantine:
    """Keeps files for `keep_us` (microseconds), unless `room` says that the disks are short of it."""

    keep_us: int
    room: RoomLeft

    async def keep(self, held: FileBuffer, label: BlobMetadata, *, route: str) -> QuarantinedFile:
        """Keep a whole file, or at least what it was; the bytes are no longer `held`'s then."""
        size = held.size
        body: bytes | None = None
        blob: str | None = None
        if self.keep_us and size <= MAX_FILE_BYTES:
            with suppress(Unavailable):  # the disks are full just now: the refusal is told without its bytes
                self.room(0)  # its bytes are counted already
                if held.in_memory:
                    body = held.body
                else:
                    blob = await held.commit(label)
        return QuarantinedFile(
            node_id=label.node_id,
            route=route,
            size=size,
            sha256=label.sent_sha256,
            received_size=label.size,
            received_sha256=label.received_sha256,
            keep_us=self.keep_us,
            body=body,
            blob=blob,
        )
