"""The janitor: forgets refusals that are old enough, and deletes the bytes of reports that stayed dead.

It knows no build's life. What it misses today it finds tomorrow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bridge.errors import BridgeError
from bridge.store.keeping import BATCH, forget_refusals, unlink_dead
from bridge.store.spool import DiskSpool
from bridge.worker.visit import Desk

LOOK_EVERY_US = 60_000_000  # to be seen alive; there is seldom anything to do

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Janitor:
    """One loop over what is kept for `keep_us` (dead reports) and `keep_refused_us`, in microseconds."""

    desk: Desk
    spool: DiskSpool
    keep_us: int
    keep_refused_us: int

    async def run(self, beat: Callable[[], None]) -> None:
        """Clean until the desk stops."""
        while not self.desk.stopping.is_set():
            beat()
            try:
                await self.clean()
            except BridgeError as error:
                log.warning("cleaning is put off", error=str(error))
            await self.desk.clock.wait(self.desk.stopping, self.desk.clock.now() + LOOK_EVERY_US)

    async def clean(self) -> None:
        """Remove everything whose time has come."""
        now, database = self.desk.clock.now(), self.desk.database
        while await database.write(forget_refusals, now - self.keep_refused_us) == BATCH:
            pass
        blobs: list[str | None] = [None] * BATCH
        while len(blobs) == BATCH:
            blobs = await database.write(unlink_dead, now - self.keep_us)
            for blob in blobs:
                if blob is not None:
                    await self.spool.delete(blob)
