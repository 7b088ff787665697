"""Whether an upload would be taken right now, and if not, why: what the counter and the health checks ask.

It knows no upstream and no loop: their outages never make an upload fail, so they never turn readiness red.
"""

import asyncio

from aiohttp import web

from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.errors import Unavailable
from bridge.server.space import Space
from bridge.store.engine.database import Database
from bridge.store.migrate import newest_revision
from bridge.store.pulse import pulse
from bridge.store.spools.blobs import Spool

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
        self.space = Space(places, min_free=min_free, clock=clock)
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
                revision = await self._database.write(pulse, None)
        except TimeoutError:
            return f"The ledger took no write for {LEDGER_SECONDS:.0f} seconds. Look who holds it, and at its disk."
        except Unavailable as error:
            return str(error)
        if revision != self._schema:
            return f"The ledger is at schema {revision}, this program needs {self._schema}. Run the newer of the two."
        return None
