"""The janitor: forgets refusals that are old enough, and removes bytes that nobody needs any more.

It knows no build's life. What it misses now it finds the next time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from bridge.domain.build import SECOND
from bridge.errors import BridgeError
from bridge.store.archive.base import Archive, day_of
from bridge.store.blobs.base import Spool, hour_of
from bridge.store.clock_skew import ledger_time
from bridge.store.restore_pause import paused_since
from bridge.store.retention import (
    LIMIT,
    delete_old_rejections,
    known_blobs,
    unlink_dead,
    unlink_delivered,
    unlink_rejected,
)
from bridge.worker.reconcile import ReconcilerContext

BATCHES = 20  # of copies that go at a look: ten thousand a minute, and the loop is seen alive
LOOK_EVERY_US = 60 * SECOND  # to be seen alive; there is seldom anything to do
UNDISTURBED_US = 24 * 3600 * SECOND  # blobs of younger hours may belong to uploads that are still coming in

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Round:
    """Which hour of the spool was looked at last: a look takes one, so that none takes long."""

    last: str = ""

    def next_of(self, hours: list[str]) -> str | None:
        """Return the hour whose turn it is among `hours`, which are sorted; after the newest comes the oldest."""
        self.last = next((hour for hour in hours if hour > self.last), hours[0] if hours else "")
        return self.last or None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleanup:
    """One loop over what is kept for `keep_us` (dead reports) and `keep_refused_us`, in microseconds."""

    desk: ReconcilerContext
    spool: Spool
    archive: Archive | None = None
    keep_us: int
    keep_refused_us: int
    round: _Round = field(default_factory=_Round)

    async def run(self, beat: Callable[[], None]) -> None:
        """Clean until the desk stops."""
        while not self.desk.stopping.is_set():
            beat()
            try:
                await self.clean(beat)
            except BridgeError as error:
                log.warning("cleaning is put off", error=str(error))
            await self.desk.clock.wait(self.desk.stopping, self.desk.clock.now() + LOOK_EVERY_US)

    async def clean(self, beat: Callable[[], None] = lambda: None) -> None:
        """Remove everything whose time has come; after a long outage that may take hours, batch by batch.

        While the ledger's clock is doubted, only the bytes of delivered reports go.
        """
        database = self.desk.database
        if await database.read(paused_since) is not None:  # bytes that no row names may be reports to adopt
            return
        while await self._delete(await database.transact(unlink_delivered), beat):
            pass
        now = await database.transact(ledger_time)  # what this gateway knew of it may be from long ago
        while self._trusts and await self._delete(await database.transact(unlink_rejected), beat):
            pass
        while self._trusts and await database.write(delete_old_rejections, now - self.keep_refused_us) == LIMIT:
            beat()
        while self._trusts and await self._delete(await database.write(unlink_dead, now - self.keep_us), beat):
            pass
        if self._trusts and self.desk.trust().settled:  # else uploads under way may have begun by another clock
            await self._set_aside(now, beat)
        if self._trusts:
            await self._forget_copies(now)

    @property
    def _trusts(self) -> bool:
        """Return whether the clock may decide on what cannot be undone; each batch asks, as cleaning may take long."""
        return not self.desk.trust().doubted

    async def _forget_copies(self, now: int) -> None:
        if self.archive is None:
            return
        for _ in range(BATCHES):
            if not self._trusts or await self.archive.delete_before(day_of(now - self.keep_us), limit=LIMIT) < LIMIT:
                break

    async def _delete(self, unlinked: list[str | None], beat: Callable[[], None]) -> bool:
        """Delete the blobs that were unlinked; True where there may be more."""
        for blob in unlinked:
            if blob is not None:
                await self.spool.delete(blob)
            beat()
        return len(unlinked) == LIMIT

    async def _set_aside(self, now: int, beat: Callable[[], None]) -> None:
        """Set aside what no row names, and forget in time what was set aside before."""
        undisturbed = hour_of(now - UNDISTURBED_US)
        hour = self.round.next_of(await self.spool.hours_before(undisturbed))
        if hour is not None:
            async for blobs in self.spool.blobs_of(hour):
                beat()
                for blob in set(blobs) - await self.desk.database.read(known_blobs, blobs):
                    await self.spool.set_aside(blob)
                    log.warning("a blob without a row was set aside", blob=blob)
        await self.spool.delete_aside(now - self.keep_us)
