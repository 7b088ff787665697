"""Reads the bytes of reports for those who send them, each piece within a time limit, from a row or from the spool.

A report whose first piece does not come is known as unreadable before it takes a place of those that are sent.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from bridge.domain.build import Report
from bridge.domain.outcomes import CorruptBody, SpoolUnreadable, body_differs, read_failure
from bridge.errors import BridgeError, Unavailable
from bridge.store.blobs.base import PIECE_BYTES, Spool
from bridge.store.retention import BodyLocation

PIECE_SECONDS = 10.0
"""For one piece: a disk or a bucket that needs longer is away, and storage cuts a PUT that stands still for longer."""

OPENED_AT_ONCE = 16
"""Reports whose first piece is asked for or in memory: of a spool that hangs no more are waited for."""

CHECKED_AT_ONCE = 4
"""Reports that are read only to see whether they can be: those that are sent come first."""


class BlobReader:
    """Opens reports; `fails` is whether the spool returned none the last time."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.fails = False
        self.opening = asyncio.Semaphore(OPENED_AT_ONCE)
        self.checking = asyncio.Semaphore(CHECKED_AT_ONCE)

    async def opened(self, kept: BodyLocation) -> AsyncGenerator[bytes] | bytes | CorruptBody | SpoolUnreadable:
        """Return the bytes of a report of which the first piece has come, or why there are none."""
        if kept.body is not None:
            return kept.body
        pieces = pieces_of(kept, self._spool)
        try:
            first = await anext(pieces, b"")
        except (BridgeError, OSError) as error:
            outcome = read_failure(error)
            self.fails = isinstance(outcome, SpoolUnreadable)
            return outcome
        self.fails = False
        return _resumed(first, pieces)

    async def checked(self, kept: BodyLocation, report: Report) -> CorruptBody | SpoolUnreadable | None:
        """Return why a report cannot be sent; None if all its bytes are those that were accepted."""
        # Another process may be sending others: only what this report needs is read, and nothing is kept in memory.
        opened = await self.opened(kept)
        if isinstance(opened, CorruptBody | SpoolUnreadable | bytes):
            return None if isinstance(opened, bytes) else opened
        digest, size = hashlib.sha256(), 0
        try:
            async with aclosing(opened):
                async for piece in opened:
                    digest.update(piece)
                    size += len(piece)
        except (BridgeError, OSError) as error:
            return read_failure(error)
        if (size, digest.hexdigest()) == (report.sent_size, report.sent_sha256):
            return None
        return body_differs(
            size, digest.hexdigest(), accepted_size=report.sent_size, accepted_sha256=report.sent_sha256
        )


async def pieces_of(kept: BodyLocation, spool: Spool) -> AsyncGenerator[bytes]:
    """Yield the bytes of a report from wherever they are kept; raise Unavailable if a piece does not come in time."""
    if kept.body is not None:
        for start in range(0, len(kept.body), PIECE_BYTES):
            yield kept.body[start : start + PIECE_BYTES]
        return
    async with aclosing(spool.read(kept.blob or "")) as pieces:
        while True:
            try:
                async with asyncio.timeout(PIECE_SECONDS):
                    piece = await anext(pieces, b"")
            except TimeoutError:
                message = (
                    f"The spool did not return a report within {PIECE_SECONDS:.0f} seconds. Check its disk or bucket."
                )
                raise Unavailable(message) from None
            if not piece:
                return
            yield piece


async def _resumed(first: bytes, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece
