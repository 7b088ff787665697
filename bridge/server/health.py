"""Health: whether an upload would be accepted now, and if not, why. Outages of upstreams never affect it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog
from aiohttp import web

from bridge.clock import Clock
from bridge.domain.instants import SECOND
from bridge.errors import Unavailable
from bridge.store.blobs.base import Spool
from bridge.store.engine.base import Database, other_schema
from bridge.store.ledger import check_writable, newest_revision

CACHE_US = SECOND
"""A check is cached for a second, so that frequent health checks cost nothing."""

RETRY_SECONDS = 60
"""For callers if disk space is short, because it does not come back within seconds."""

LEDGER_SECONDS = 2.0
"""For the ledger's answer to a health check; a write usually takes milliseconds."""

MIB = 1 << 20

log = structlog.get_logger(__name__)


class DiskSpace:
    """The free bytes of `folders` (paths by a name for people), of which each keeps `min_free`.

    Only uploads stop below the limit; the ledger may still write, so that deliveries continue.
    """

    def __init__(self, folders: Mapping[str, Path], *, min_free: int, clock: Clock) -> None:
        self._folders = dict(folders)
        self._min_free = min_free
        self._clock = clock
        self._free: dict[str, int] = {}  # at the last check; without folders that cannot be read
        self._checked_at: int | None = None
        self._reserved = 0  # since the last check

    def reserve(self, size: int) -> None:
        """Count `size` bytes that will be written (0: only check); raise Unavailable if a folder lacks the space.

        The bytes count against each folder, because parts of an upload may be written to both.
        """
        self._check()
        self._reserved += size
        if short := self._short():
            unread = any(folder not in self._free for folder in short)
            fault = "cannot read its free disk space" if unread else "is short of disk space"
            raise Unavailable(
                f"The bridge {fault}, so nothing of this upload was stored. Send it again in a while.",
                retry_after_seconds=RETRY_SECONDS,
            )

    def shortages(self) -> list[str]:
        """Return one message for each folder that lacks space, without paths."""
        self._check()
        return [self._shortage(folder) for folder in self._short()]

    def free_bytes(self, folder: str) -> int | None:
        """Return the free space of a folder; None if it cannot be read."""
        self._check()
        return self._free.get(folder)

    def _short(self) -> list[str]:
        return [folder for folder in self._folders if self._free.get(folder, 0) - self._reserved < self._min_free]

    def _shortage(self, folder: str) -> str:
        free = self._free.get(folder)
        if free is None:
            return f"The free space of the {folder} cannot be read. Check the folder that contains it."
        return (
            f"The {folder} has {free // MIB} MiB free, less than the {self._min_free // MIB} MiB of "
            "store.min_free_space. Free some space; uploads are then accepted automatically."
        )

    def _check(self) -> None:
        now = self._clock.now()
        if self._checked_at is not None and 0 <= now - self._checked_at < CACHE_US:
            return
        self._checked_at = now
        self._reserved = 0
        self._free = {name: free for name, path in self._folders.items() if (free := _free_bytes(path)) is not None}


def _free_bytes(path: Path) -> int | None:
    try:
        space = os.statvfs(path)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize


async def no_fault() -> str | None:
    """Return None."""
    return None


class Readiness:
    """Whether uploads can be accepted: `require_ready` for each upload, `reasons` for health checks.

    `min_free` bytes must stay free in the spool's folder, and in the ledger's if it is a file. `validation_fault`
    returns why files cannot be validated, None if they can.
    """

    def __init__(
        self,
        *,
        database: Database,
        spool: Spool,
        min_free: int,
        clock: Clock,
        validation_fault: Callable[[], Awaitable[str | None]] = no_fault,
    ) -> None:
        self._database = database
        self._spool = spool
        self._validation_fault = validation_fault
        folders = {"spool": spool.folder}
        if database.folder is not None:
            folders["ledger"] = database.folder
        self.space = DiskSpace(folders, min_free=min_free, clock=clock)
        self._clock = clock
        self._schema = newest_revision()
        self._draining = False
        self._rejects = False
        self._is_red = False  # at the last check
        self._ledger_fault: str | None = None
        self._ledger_checked_at: int | None = None
        self._checking_ledger = asyncio.Lock()

    def drain(self, *, rejects: bool = True) -> None:
        """Show that the gateway stops; if `rejects`, accept no more uploads."""
        self._draining = True
        self._rejects = rejects

    @property
    def draining(self) -> bool:
        """Whether the gateway stops."""
        return self._draining

    def require_ready(self) -> None:
        """Raise Unavailable if no upload can be accepted; cheap enough for each upload."""
        if self._rejects:
            raise Unavailable(
                "The bridge is stopping, so nothing of this upload was stored. Send it again in a moment."
            )
        self.space.reserve(0)

    async def reasons(self) -> list[str]:
        """Return why an upload would be rejected now; empty if it would be accepted."""
        reasons = []
        if self._draining:
            reasons.append("The gateway is stopping. Send uploads to the one that replaces it.")
        reasons += self.space.shortages()
        faults = (await self._spool.fault(), await self._check_ledger(), await self._validation_fault())
        reasons += [fault for fault in faults if fault]
        self._log_change(reasons)
        return reasons

    def _log_change(self, reasons: list[str]) -> None:
        if self._draining or bool(reasons) is self._is_red:
            return
        self._is_red = bool(reasons)
        if reasons:
            log.warning("uploads_suspended", reasons=reasons)
        else:
            log.info("uploads_resumed")

    def spool_free_bytes(self) -> int | None:
        """Return the free space for the spool; None if it cannot be read."""
        return self.space.free_bytes("spool")

    async def livez(self, _request: web.Request) -> web.Response:
        """Answer GET /livez: the event loop responds."""
        return web.Response(text="ok\n")

    async def readyz_status(self, _request: web.Request) -> web.Response:
        """Answer GET /readyz of the server listener: 200 or 503, without reasons."""
        if await self.reasons():
            return web.Response(status=503, text="not ready\n")
        return web.Response(text="ready\n")

    async def _check_ledger(self) -> str | None:
        """Return why the ledger cannot be used, from a check that is at most CACHE_US old."""
        async with self._checking_ledger:
            now = self._clock.now()
            if self._ledger_checked_at is None or not 0 <= now - self._ledger_checked_at < CACHE_US:
                self._ledger_fault = await self._try_ledger()
                self._ledger_checked_at = now
            return self._ledger_fault

    async def _try_ledger(self) -> str | None:
        try:
            async with asyncio.timeout(LEDGER_SECONDS):
                schema, compatible_from = await self._database.transact(check_writable)
        except TimeoutError:
            sentence = f"The ledger accepted no write for {LEDGER_SECONDS:.0f} seconds"
            if self._database.failing is None:
                return f"{sentence}. Check its disk, and whether another program locks it."
            return f"{sentence}: the last try failed ({self._database.failing}). The log of its server may say why."
        except Unavailable as error:
            return str(error)
        if not compatible_from <= self._schema <= schema:
            return other_schema(schema, self._schema)
        return None
