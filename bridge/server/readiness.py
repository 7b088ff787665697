"""Whether an upload would be taken right now, and if not, why: what the counter and the health checks ask.

It knows no upstream and no loop: their outages never make an upload fail, so they never turn readiness red.
"""

import asyncio
import os
from pathlib import Path

from aiohttp import web

from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.errors import Unavailable
from bridge.store.blobs import Spool
from bridge.store.database import Database
from bridge.store.migrate import newest_revision
from bridge.store.pulse import pulse

FRESH_US = SECOND
"""A look is good for a second: whoever asks more often costs nothing, and nobody waits longer for the truth."""

LEDGER_SECONDS = 2.0
"""The longest a health check waits for the ledger: it takes a write in milliseconds, and checks give up after a few."""

SPACE_RETRY_SECONDS = 60
"""Space does not come back within seconds: until then callers are better off waiting."""

MIB = 1 << 20


class Readiness:
    """The counter's own health; `admit` is for each upload, `reasons` for health checks.

    `min_free` are the bytes that must stay free in the spool's folder and beside a ledger that is a file.
    """

    def __init__(self, *, database: Database, spool: Spool, min_free: int, clock: Clock) -> None:
        self._database = database
        self._spool = spool
        self._places = [("spool", spool.folder)]
        if database.folder is not None:
            self._places.append(("ledger", database.folder))
        self._min_free = min_free
        self._clock = clock
        self._schema = newest_revision()
        self._draining = False
        self._free: dict[str, int] = {}  # by place; one that cannot be asked is absent
        self._free_at: int | None = None
        self._ledger: str | None = None
        self._ledger_at: int | None = None
        self._looking = asyncio.Lock()

    def drain(self) -> None:
        """Take no more uploads: the gateway is stopping."""
        self._draining = True

    def admit(self) -> None:
        """Raise Unavailable while no upload can be taken; cheap enough for each of them."""
        if self._draining:
            raise Unavailable("The bridge is stopping, so nothing of this upload was kept. Send it again in a moment.")
        if short := self._short_places():
            unread = any(place not in self._free for place in short)
            fault = "cannot read its free disk space" if unread else "is short of disk space"
            raise Unavailable(
                f"The bridge {fault}, so nothing of this upload was kept. Send it again in a while.",
                retry_after_seconds=SPACE_RETRY_SECONDS,
            )

    async def reasons(self) -> list[str]:
        """Say all that would refuse an upload now; empty when nothing would."""
        reasons = []
        if self._draining:
            reasons.append("The gateway is stopping. Send uploads to the one that takes its place.")
        reasons += [self._shortage(place) for place in self._short_places()]
        faults = (await self._spool.fault(), await self._ledger_fault())
        return [*reasons, *(fault for fault in faults if fault)]

    def spool_free_bytes(self) -> int | None:
        """Return the free space where the spool is; None where it cannot be asked."""
        self._look_at_space()
        return self._free.get("spool")

    async def livez(self, _request: web.Request) -> web.Response:
        """Answer GET /livez: the event loop turns."""
        return web.Response(text="ok\n")

    async def readyz_status(self, _request: web.Request) -> web.Response:
        """Answer GET /readyz where everybody can ask: 200 or 503, no reasons."""
        if await self.reasons():
            return web.Response(status=503, text="not ready\n")
        return web.Response(text="ready\n")

    # -- space ---------------------------------------------------------------------------------------------------

    def _short_places(self) -> list[str]:
        self._look_at_space()
        return [place for place, _ in self._places if self._free.get(place, 0) < self._min_free]

    def _shortage(self, place: str) -> str:
        free = self._free.get(place)
        if free is None:
            return f"The free space of the {place} cannot be read. Mend the folder that holds it."
        return (
            f"The {place} has {free // MIB} MiB free, less than the {self._min_free // MIB} MiB of store.min_free. "
            "Free some space; uploads are taken again by themselves."
        )

    def _look_at_space(self) -> None:
        now = self._clock.now()
        if self._free_at is not None and 0 <= now - self._free_at < FRESH_US:
            return
        self._free_at = now
        self._free = {place: free for place, path in self._places if (free := _free_bytes(path)) is not None}

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
                revision = await self._database.write(pulse, None)
        except TimeoutError:
            return f"The ledger took no write for {LEDGER_SECONDS:.0f} seconds. Look who holds it, and at its disk."
        except Unavailable as error:
            return str(error)
        if revision != self._schema:
            return f"The ledger is at schema {revision}, this program needs {self._schema}. Run the newer of the two."
        return None


def _free_bytes(path: Path) -> int | None:
    try:
        space = os.statvfs(path)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize
