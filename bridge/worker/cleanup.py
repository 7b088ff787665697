"""Delete what is no longer needed: bytes of delivered, dead and rejected files, old rejections, blobs without a row."""

import asyncio
from collections.abc import Callable
from dataclasses import field

import structlog

from bridge.clock import Clock
from bridge.domain.clock_trust import Verdict, trusting
from bridge.domain.instants import SECOND, Duration
from bridge.errors import BridgeError
from bridge.store.archive.base import Archive, day_of
from bridge.store.blobs.base import Spool, hour_of
from bridge.store.clock_skew import ledger_time
from bridge.store.engine.base import Database
from bridge.store.restore_pause import paused_since
from bridge.store.retention import (
    LIMIT,
    DeliveredBodies,
    FinishedBuilds,
    delete_finished,
    delete_old_rejections,
    known_blobs,
    unlink_dead,
    unlink_delivered,
    unlink_rejected,
)
from bridge.values import dataclass

MAX_ARCHIVE_BATCHES = 20  # ten thousand copies a round, so that a round does not take too long
MAX_ROW_BATCHES = 50  # five thousand builds a round
INTERVAL_US = Duration(60 * SECOND)
MIN_BLOB_AGE_US = 24 * 3600 * SECOND  # younger blobs without a row may belong to uploads that are still arriving

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _HourCursor:
    """The hour of the spool that was checked last. A round checks one hour, so that no round takes long."""

    last: str = ""

    def advance(self, hours: list[str]) -> str | None:
        """Move to the next of `hours`, which are sorted, and return it; after the newest comes the oldest."""
        self.last = next((hour for hour in hours if hour > self.last), hours[0] if hours else "")
        return self.last or None


@dataclass(slots=True)
class _RowCursor:
    """The build that was looked at last. A round looks at some thousand builds, the oldest after the newest."""

    last: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleanup:
    """One loop that deletes dead reports after `keep_us` and rejections after `keep_rejected_us` (microseconds)."""

    database: Database
    clock: Clock
    stopping: asyncio.Event
    spool: Spool
    archive: Archive | None = None
    keep_us: int
    keep_rejected_us: int
    keep_rows_us: int | None = None  # None: rows of builds are kept
    keeps_for_replacement: Callable[[], bool] = lambda: True  # delivery.replace_stuck_runs
    clock_verdict: Callable[[], Verdict] = trusting
    cursor: _HourCursor = field(default_factory=_HourCursor)
    rows: _RowCursor = field(default_factory=_RowCursor)

    async def run(self, beat: Callable[[], None]) -> None:
        """Clean once a minute until the worker stops."""
        while not self.stopping.is_set():
            beat()
            try:
                await self.clean(beat)
            except BridgeError as error:
                log.warning("cleanup_postponed", error=str(error))
            await self.clock.wait(self.stopping, self.clock.now() + INTERVAL_US)

    async def clean(self, beat: Callable[[], None] = lambda: None) -> None:
        """Delete everything that is due, batch by batch; after a long outage this may take hours.

        While the ledger's clock is not trusted, only the bytes of delivered reports are deleted.
        """
        database = self.database
        if await database.read(paused_since) is not None:  # blobs without a row may become reports again
            return
        now = await database.transact(ledger_time)  # the time that this process has may be old
        # Bytes that a replacement may need are kept for `keep_us`, however long their build is not finalized.
        before = now - self.keep_us if self._is_clock_trusted else 0
        delivered = DeliveredBodies(before=before, replacements=self.keeps_for_replacement())
        while await self._delete_blobs(await database.write(unlink_delivered, delivered), beat):
            pass
        while self._is_clock_trusted and await self._delete_blobs(await database.transact(unlink_rejected), beat):
            pass
        while (
            self._is_clock_trusted and await database.write(delete_old_rejections, now - self.keep_rejected_us) == LIMIT
        ):
            beat()
        while self._is_clock_trusted and await self._delete_blobs(
            await database.write(unlink_dead, now - self.keep_us), beat
        ):
            pass
        if self.keep_rows_us is not None:
            await self._delete_rows(now - self.keep_rows_us, beat)
        try:
            if self._is_clock_trusted and self.clock_verdict().settled:  # else an upload in flight may be dated before
                await self._move_aside(now, beat)
        finally:  # what is wrong in the spool does not keep copies in the archive
            if self._is_clock_trusted:
                await self._delete_copies(now)

    @property
    def _is_clock_trusted(self) -> bool:
        """Return whether the clock may decide what is deleted; each batch asks, because cleaning may take long."""
        return not self.clock_verdict().doubted

    async def _delete_rows(self, before: int, beat: Callable[[], None]) -> None:
        """Delete the rows of builds that were finished before `before` (microseconds UTC)."""
        for _ in range(MAX_ROW_BATCHES):
            if not self._is_clock_trusted:
                break
            done = await self.database.write(delete_finished, FinishedBuilds(after=self.rows.last, before=before))
            self.rows.last = done.last
            if done.deleted:
                log.info("builds_deleted", builds=done.deleted)
            beat()
            if not done.last:
                break

    async def _delete_copies(self, now: int) -> None:
        if self.archive is None:
            return
        before = day_of(now - self.keep_us)
        for _ in range(MAX_ARCHIVE_BATCHES):
            if not self._is_clock_trusted or await self.archive.delete_before(before, limit=LIMIT) < LIMIT:
                break

    async def _delete_blobs(self, unlinked: list[str | None], beat: Callable[[], None]) -> bool:
        """Delete blobs that no row names any more; return whether there may be more."""
        for blob in unlinked:
            if blob is not None:
                await self.spool.delete(blob)
            beat()
        return len(unlinked) == LIMIT

    async def _move_aside(self, now: int, beat: Callable[[], None]) -> None:
        """Move aside blobs that no row names, and delete those that were moved longer ago than `keep_us`."""
        await self.spool.delete_aside(now - self.keep_us)
        hour = self.cursor.advance(await self.spool.hours_before(hour_of(now - MIN_BLOB_AGE_US)))
        if hour is not None:
            async for blobs in self.spool.blobs_of(hour):
                beat()
                for blob in set(blobs) - await self.database.read(known_blobs, blobs):
                    await self.spool.set_aside(blob)
                    log.warning("orphaned_blob_moved", blob=blob)
