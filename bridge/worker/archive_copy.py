"""Keeps a copy of a delivered report in the archive: the only call of a visit that TestNod has no part in.

It knows neither when a copy is due nor where the archive lies.
"""

import asyncio

import structlog

from bridge.domain.build import SECOND, DeliveryTarget
from bridge.domain.circuit_breaker import ARCHIVE
from bridge.domain.instants import after
from bridge.domain.lifecycle.archive import after_archive, defer_copy
from bridge.domain.lifecycle.breaker_signals import of_archive
from bridge.domain.lifecycle.unreadable_body import clear_unread, tolerate_recent_damage
from bridge.domain.outcomes import CorruptBody, PutOutcome, SpoolUnreadable, Stored
from bridge.errors import Unavailable
from bridge.store.archive.base import Archive, ArchiveEntry, copy_of
from bridge.store.blobs.base import Spool
from bridge.store.retention import body_location, release_bodies
from bridge.worker.blob_reader import pieces_of
from bridge.worker.events import DeliveryEvents
from bridge.worker.reconcile import BuildReconciler

PLACES = 32  # half of all visits at most: an archive that hangs leaves the others to TestNod
BUSY_US = SECOND
GONE = "The report's bytes are gone, so no copy can be kept. It is at TestNod."

log = structlog.get_logger(__name__)


class ArchiveCopier:
    """Makes the calls to `archive`, None where none is set."""

    def __init__(self, archive: Archive | None, spool: Spool, observe: DeliveryEvents) -> None:
        self._archive = archive
        self._spool = spool
        self._observe = observe
        self._places = asyncio.Semaphore(PLACES)

    async def keep(self, visit: BuildReconciler, delivery_id: int) -> None:
        """Keep a copy of the report of this delivery, and write down what came of it."""
        delivery, archive = visit.build.deliveries[delivery_id], self._archive
        if archive is None:
            return
        if self._places.locked():
            await visit.record(*defer_copy(delivery, after(visit.now(), BUSY_US)))
            return
        async with self._places:
            outcome = await self._keep(visit, archive, delivery.report_id)
        now, policy = visit.now(), visit.desk.policy
        outcome = tolerate_recent_damage(delivery, outcome, now)
        read = () if isinstance(outcome, SpoolUnreadable) else clear_unread(delivery)
        await visit.record(
            *read, *after_archive(delivery, outcome, now, policy, visit.breakers.outage_us_of(ARCHIVE, now))
        )
        if isinstance(outcome, Stored):
            self._observe.delivered(DeliveryTarget.ARCHIVE)
            await free(visit, self._spool, delivery.report_id)
        await visit.tell(of_archive(outcome))

    async def _keep(self, visit: BuildReconciler, archive: Archive, report_id: int) -> PutOutcome:
        copy = await visit.desk.database.read(copy_of, report_id)
        kept = await visit.desk.database.read(body_location, report_id)
        if copy is None or copy.entry is None or (kept.body is None and kept.blob is None):
            return CorruptBody(message=GONE, gone=True)
        entry: ArchiveEntry = copy.entry
        return await archive.keep(entry, lambda: pieces_of(kept, self._spool))


async def free(visit: BuildReconciler, spool: Spool, report_id: int) -> None:
    """Let the bytes of a report go, once nobody is owed them."""
    blob = await visit.desk.database.write(release_bodies, report_id)
    if blob is not None:
        try:
            await spool.delete(blob)
        except Unavailable as error:  # no row refers to it any more, so the janitor finds it
            log.warning("a blob stays in the spool", blob=blob, reason=str(error), **visit.names())
