"""Whether an upload would be taken right now, and if not, why: what the counter and the health checks ask.

It knows no upstream and no loop: their outages never make an upload fail, so they never turn readiness red.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.errors import Unavailable
from bridge.store.blobs.base import Spool
from bridge.store.engine.base import Database
from bridge.store.ledger import check_writable, newest_revision

# Whether there is room on disk for what uploads bring: `store.min_free` stays free, for deliveries to go on with.
#
# It knows neither uploads nor what lies on the disks. The ledger writes on below the floor; only uploads stop at it.


SPACE_FRESH_US = SECOND
"""A look is good for a second: whoever asks more often costs nothing, and nobody waits longer for the truth."""

RETRY_SECONDS = 60
"""Space does not come back within seconds: until then callers are better off waiting."""

MIB = 1 << 20


class DiskSpace:
    """The free bytes of `places` (folders by the name that people know), of which each keeps `min_free`."""

    def __init__(self, places: Mapping[str, Path], *, min_free: int, clock: Clock) -> None:
        self._places = dict(places)
        self._min_free = min_free
        self._clock = clock
        self._free: dict[str, int] = {}  # at the last look; a place that cannot be asked is absent
        self._looked_at: int | None = None
        self._taken = 0  # since then

    def take(self, size: int) -> None:
        """Count `size` bytes that are about to be kept; raise Unavailable where any place is short of them.

        0 asks whether an upload may begin. What is taken counts against each place: some of it goes to both.
        """
        self._look()
        self._taken += size
        if short := self._short():
            unread = any(place not in self._free for place in short)
            fault = "cannot read its free disk space" if unread else "is short of disk space"
            raise Unavailable(
                f"The bridge {fault}, so nothing of this upload was kept. Send it again in a while.",
                retry_after_seconds=RETRY_SECONDS,
            )

    def shortages(self) -> list[str]:
        """Say of each place that is short what to do about it; paths stay untold."""
        self._look()
        return [self._shortage(place) for place in self._short()]

    def free_bytes(self, place: str) -> int | None:
        """Return the free space of a place; None where it cannot be asked."""
        self._look()
        return self._free.get(place)

    def _short(self) -> list[str]:
        return [place for place in self._places if self._free.get(place, 0) - self._taken < self._min_free]

    def _shortage(self, place: str) -> str:
        free = self._free.get(place)
        if free is None:
            return f"The free space of the {place} cannot be read. Mend the folder that holds it."
        return (
            f"The {place} has {free // MIB} MiB free, less than the {self._min_free // MIB} MiB of store.min_free. "
            "Free some space; uploads are taken again by themselves."
        )

    def _look(self) -> None:
        now = self._clock.now()
        if self._looked_at is not None and 0 <= now - self._looked_at < SPACE_FRESH_US:
            return
        self._looked_at = now
        self._taken = 0
        self._free = {place: free for place, path in self._places.items() if (free := _free_bytes(path)) is not None}


def _free_bytes(path: Path) -> int | None:
    try:
        space = os.statvfs(path)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize


FRESH_US = SECOND
"""A look is good for a second: whoever asks more often costs nothing, and nobody waits longer for the truth."""

LEDGER_SECONDS = 2.0
"""The longest a health check waits for the ledger: it takes a write in milliseconds, and checks give up after a few."""


class Readiness:
    """The counter's own health; `admit` is for each upload, `reasons` for health checks.

    `min_free` are the bytes that must stay free in the spool's folder and beside a ledger that is a file.
    """

    def __init__(self, *, database: Database, spool: Spool, min_free: int, clock: Clock) -> None:
        self._database = database
        self._spool = spool
        places = {"spool": spool.folder}
        if database.folder is not None:
            places["ledger"] = database.folder
        self.space = DiskSpace(places, min_free=min_free, clock=clock)
        self._clock = clock
        self._schema = newest_revision()
        self._draining = False
        self._ledger: str | None = None
        self._ledger_at: int | None = None
        self._looking = asyncio.Lock()

    def drain(self) -> None:
        """Take no more uploads: the gateway is stopping."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """Whether the gateway is stopping."""
        return self._draining

    def admit(self) -> None:
        """Raise Unavailable while no upload can be taken; cheap enough for each of them."""
        if self._draining:
            raise Unavailable("The bridge is stopping, so nothing of this upload was kept. Send it again in a moment.")
        self.space.take(0)

    async def reasons(self) -> list[str]:
        """Say all that would refuse an upload now; empty when nothing would."""
        reasons = []
        if self._draining:
            reasons.append("The gateway is stopping. Send uploads to the one that takes its place.")
        reasons += self.space.shortages()
        faults = (await self._spool.fault(), await self._ledger_fault())
        return [*reasons, *(fault for fault in faults if fault)]

    def spool_free_bytes(self) -> int | None:
        """Return the free space where the spool is; None where it cannot be asked."""
        return self.space.free_bytes("spool")

    async def livez(self, _request: web.Request) -> web.Response:
        """Answer GET /livez: the event loop turns."""
        return web.Response(text="ok\n")

    async def readyz_status(self, _request: web.Request) -> web.Response:
        """Answer GET /readyz where everybody can ask: 200 or 503, no reasons."""
        if await self.reasons():
            return web.Response(status=503, text="not ready\n")
        return web.Response(text="ready\n")

    # -- the ledger ----------------------------------------------------------------------------------------------

    async def _ledger_fault(self) -> str | None:
        async with self._looking:
            now = self._clock.now()
            if self._ledger_at is None or not 0 <= now - self._ledger_at < FRESH_US:
                self._ledger = await self._try_ledger()
                self._ledger_at = now
            return self._ledger

    async def _try_ledger(self) -> str | None:
        try:
            async with asyncio.timeout(LEDGER_SECONDS):
                revision = await self._database.transact(check_writable)
        except TimeoutError:
            return f"The ledger took no write for {LEDGER_SECONDS:.0f} seconds. Look who holds it, and at its disk."
        except Unavailable as error:
            return str(error)
        if revision != self._schema:
            return f"The ledger is at schema {revision}, this program needs {self._schema}. Run the newer of the two."
        return None
