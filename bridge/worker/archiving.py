"""Keeps a copy of a delivered report in the archive: the only call of a visit that TestNod has no part in.

It knows neither when a copy is due nor where the archive lies.
"""

import asyncio
from collections.abc import AsyncGenerator

from bridge.domain.build import SECOND, Target
from bridge.domain.effects.archive import after_archive, deferred
from bridge.domain.effects.signals import of_archive
from bridge.domain.gates import ARCHIVE
from bridge.domain.outcomes import Damaged, PutOutcome, Stored
from bridge.store.archives.archive import Archive, ArchiveEntry, copy_of
from bridge.store.bytes import Kept, free_bytes, kept_bytes
from bridge.store.spools.blobs import PIECE_BYTES, Spool
from bridge.worker.observer import Observer
from bridge.worker.visit import Visit

PLACES = 32  # half of all visits at most: an archive that hangs leaves the others to TestNod
BUSY_US = SECOND
GONE = "The report's bytes are gone, so no copy can be kept. It is at TestNod."


class Archiving:
    """Makes the calls to `archive`, None where none is set."""

    def __init__(self, archive: Archive | None, spool: Spool, observe: Observer) -> None:
        self._archive = archive
        self._spool = spool
        self._observe = observe
        self._places = asyncio.Semaphore(PLACES)

    async def keep(self, visit: Visit, delivery_id: int) -> None:
        """Keep a copy of the report of this delivery, and write down what came of it."""
        delivery, archive = visit.build.deliveries[delivery_id], self._archive
        if archive is None:
            return
        if self._places.locked():
            await visit.record(*deferred(delivery, visit.now() + BUSY_US))
            return
        async with self._places:
            outcome = await self._keep(visit, archive, delivery.report_id)
        now, policy = visit.now(), visit.desk.policy
        await visit.record(*after_archive(delivery, outcome, now, policy, visit.gates.away_of(ARCHIVE, now)))
        if isinstance(outcome, Stored):
            self._observe.delivered(Target.ARCHIVE)
            await free(visit, self._spool, delivery.report_id)
        await visit.tell(of_archive(outcome))

    async def _keep(self, visit: Visit, archive: Archive, report_id: int) -> PutOutcome:
        copy = await visit.desk.database.read(copy_of, report_id)
        kept = await visit.desk.database.read(kept_bytes, report_id)
        if copy is None or copy.entry is None or (kept.body is None and kept.blob is None):
            return Damaged(message=GONE)
        entry: ArchiveEntry = copy.entry
        return await archive.keep(entry, lambda: pieces_of(kept, self._spool))


async def pieces_of(kept: Kept, spool: Spool) -> AsyncGenerator[bytes]:
    """Yield the bytes of a report from wherever they are kept."""
    if kept.body is not None:
        for start in range(0, len(kept.body), PIECE_BYTES):
            yield kept.body[start : start + PIECE_BYTES]
    else:
        async for piece in spool.read(kept.blob or ""):
            yield piece


async def free(visit: Visit, spool: Spool, report_id: int) -> None:
    """Let the bytes of a report go, once nobody is owed them."""
    blob = await visit.desk.database.write(free_bytes, report_id)
    if blob is not None:
        await spool.delete(blob)
