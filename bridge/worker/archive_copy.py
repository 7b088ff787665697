"""Copy delivered reports to the archive. This is the only call of a build that does not concern TestNod."""

import asyncio

from bridge.domain.build import SECOND, DeliveryTarget
from bridge.domain.circuit_breaker import ARCHIVE
from bridge.domain.instants import after
from bridge.domain.lifecycle.archive import after_archive, defer_copy
from bridge.domain.lifecycle.breaker_signals import of_archive
from bridge.domain.lifecycle.unreadable_body import clear_unread, tolerate_recent_damage
from bridge.domain.outcomes import CorruptBody, PutOutcome, SpoolUnreadable, Stored
from bridge.store.archive.base import Archive, copy_of
from bridge.store.blobs.base import Spool
from bridge.store.retention import body_location
from bridge.telemetry.metrics import Metrics
from bridge.worker.blob_reader import pieces_of, release_body
from bridge.worker.reconcile import BuildReconciler

MAX_COPIES = 32  # half of all reconcilers: if the archive hangs, the others still deliver to TestNod
BUSY_US = SECOND
GONE = "The report's bytes are gone, so no copy can be kept. The report is at TestNod."


class ArchiveCopier:
    """Writes copies into `archive`, which is None if it is not configured."""

    def __init__(self, archive: Archive | None, spool: Spool, metrics: Metrics) -> None:
        self._archive = archive
        self._spool = spool
        self._metrics = metrics
        self._slots = asyncio.Semaphore(MAX_COPIES)

    async def copy(self, reconciler: BuildReconciler, delivery_id: int) -> None:
        """Copy the report of this delivery and record the outcome."""
        delivery, archive = reconciler.build.deliveries[delivery_id], self._archive
        if archive is None:
            return
        if self._slots.locked():
            await reconciler.write_changes(*defer_copy(delivery, after(reconciler.now(), BUSY_US)))
            return
        async with self._slots:
            outcome = await self._copy(reconciler, archive, delivery.report_id)
        now, policy = reconciler.now(), reconciler.config.policy
        outcome = tolerate_recent_damage(delivery, outcome, now)
        read = () if isinstance(outcome, SpoolUnreadable) else clear_unread(delivery)
        outage_us = reconciler.breakers.outage_us_of(ARCHIVE, now)
        await reconciler.write_changes(*read, *after_archive(delivery, outcome, now, policy, outage_us))
        if isinstance(outcome, Stored):
            self._metrics.count_delivered(DeliveryTarget.ARCHIVE)
            await release_body(reconciler, self._spool, delivery.report_id)
        await reconciler.report_upstream_health(of_archive(outcome))

    async def _copy(self, reconciler: BuildReconciler, archive: Archive, report_id: int) -> PutOutcome:
        database = reconciler.config.database
        copy = await database.read(copy_of, report_id)
        location = await database.read(body_location, report_id)
        if copy is None or copy.entry is None or (location.body is None and location.blob is None):
            return CorruptBody(message=GONE, gone=True)
        return await archive.keep(copy.entry, lambda: pieces_of(location, self._spool))
