"""Read the bytes of reports from their row or the spool, each piece within a time limit, and release them at the end.

The first piece of a report is read before the report takes an upload slot, so a spool that hangs blocks no slot.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from functools import partial

import structlog

from bridge.domain.build import Report
from bridge.domain.lifecycle.replacement import may_be_replaced
from bridge.domain.outcomes import CorruptBody, SpoolUnreadable, body_differs, read_failure
from bridge.errors import BridgeError, Unavailable
from bridge.store import retention
from bridge.store.blobs.base import PIECE_BYTES, Spool
from bridge.store.engine.base import Database
from bridge.store.retention import BodyLocation, BodyRelease
from bridge.worker.call_slots import CallSlots
from bridge.worker.reconcile import BuildReconciler

PIECE_SECONDS = 10.0
"""For one piece: a disk or bucket that takes longer is away, and storage aborts a PUT that pauses for longer."""

MAX_OPEN = 16
"""Reports whose first piece is being read or in memory; if the spool hangs, no more than these wait for it."""

MAX_CHECKS = 4
"""Reports that are read only to check that they can be; reports that are sent have priority."""

MAX_LOCATIONS = 32
"""Reports in one read, whose bodies may come with it."""

log = structlog.get_logger(__name__)


class BlobReader:
    """Opens reports. `failure` is why the spool returned no bytes at the last attempt, None if it did."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.failure: SpoolUnreadable | None = None
        self._recovery: asyncio.Task[None] | None = None
        self.open_slots = asyncio.Semaphore(MAX_OPEN)
        self.check_slots = CallSlots(MAX_CHECKS)

    async def open(
        self, location: BodyLocation, *, leaves: bool = False
    ) -> AsyncGenerator[bytes] | bytes | CorruptBody | SpoolUnreadable:
        """Return the bytes of a report after its first piece was read, or why there are none.

        With `leaves`, other gateways can read it: if the spool fails, no report waits here for another attempt.
        """
        if location.body is not None:
            return location.body
        if leaves and self.failure is not None:
            self._check_recovery()
            return self.failure
        pieces = pieces_of(location, self._spool)
        try:
            first = await anext(pieces, b"")
        except (BridgeError, OSError) as error:
            outcome = read_failure(error)
            self.failure = outcome if isinstance(outcome, SpoolUnreadable) else None
            return outcome
        self.failure = None
        return _with_first(first, pieces)

    def _check_recovery(self) -> None:
        """Have the spool check itself, unless it does so already."""
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._clear_failure(), name="spool-recovery")

    async def _clear_failure(self) -> None:
        if await self._spool.fault() is None:
            self.failure = None

    async def check(
        self, location: BodyLocation, report: Report, *, leaves: bool = False
    ) -> CorruptBody | SpoolUnreadable | None:
        """Return why a report cannot be sent; None if all its bytes are those that were accepted."""
        # Another process may be sending other reports, so only this one is read, and nothing is kept in memory.
        opened = await self.open(location, leaves=leaves)
        if isinstance(opened, CorruptBody | SpoolUnreadable | bytes):
            return None if isinstance(opened, bytes) else opened
        digest, size = hashlib.sha256(), 0
        try:
            async with aclosing(opened):
                async for piece in opened:
                    digest.update(piece)
                    size += len(piece)
        except (BridgeError, OSError) as error:
            return read_failure(error)
        if (size, digest.hexdigest()) == (report.sent_size, report.sent_sha256):
            return None
        return body_differs(
            size, digest.hexdigest(), accepted_size=report.sent_size, accepted_sha256=report.sent_sha256
        )


async def pieces_of(location: BodyLocation, spool: Spool) -> AsyncGenerator[bytes]:
    """Yield the bytes of a report; raise Unavailable if a piece is not read in time."""
    if location.body is not None:
        for start in range(0, len(location.body), PIECE_BYTES):
            yield location.body[start : start + PIECE_BYTES]
        return
    async with aclosing(spool.read(location.blob or "")) as pieces:
        while True:
            try:
                async with asyncio.timeout(PIECE_SECONDS):
                    piece = await anext(pieces, b"")
            except TimeoutError:
                raise Unavailable(
                    f"The spool did not return a report within {PIECE_SECONDS:.0f} seconds. Check its disk or bucket."
                ) from None
            if not piece:
                return
            yield piece


async def _with_first(first: bytes, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(pieces):
        yield first
        async for piece in pieces:
            yield piece


class BodyLocations:
    """Reads where the bytes of reports are; reports that are needed at the same time share a read."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[BodyLocation]]] = []
        self._reading: asyncio.Task[None] | None = None

    async def find(self, database: Database, report_id: int) -> BodyLocation:
        """Return where the bytes of a report are."""
        found: asyncio.Future[BodyLocation] = asyncio.get_running_loop().create_future()
        self._waiting.append((report_id, found))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(database))
        return await found

    async def _read(self, database: Database) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_LOCATIONS], self._waiting[MAX_LOCATIONS:]
                try:
                    found = await database.read(retention.body_locations, [report_id for report_id, _ in batch])
                except Exception as error:  # noqa: BLE001 -- the callers raise it
                    for _, waiting in batch:
                        _settle(waiting, error)
                else:
                    for report_id, waiting in batch:
                        _settle(waiting, found.get(report_id, BodyLocation(body=None, blob=None)))
        finally:
            self._reading = None


def _settle(waiting: asyncio.Future[BodyLocation], result: BodyLocation | Exception) -> None:
    if waiting.done():  # its caller was canceled
        return
    if isinstance(result, Exception):
        waiting.set_exception(result)
    else:
        waiting.set_result(result)


async def release_bodies(reconciler: BuildReconciler, spool: Spool, report_id: int) -> None:
    """Delete the bytes of a report that is delivered, unless a replacement can need them."""
    config, build = reconciler.config, reconciler.build
    if config.policy.replace_stuck_runs and may_be_replaced(build):
        return
    released = BodyRelease(build_id=build.id, report_id=report_id, replacements=config.policy.replace_stuck_runs)
    await _delete_blobs(reconciler, spool, await config.database.write(retention.release_bodies, released))


def release_bodies_at_end(reconciler: BuildReconciler, spool: Spool) -> None:
    """Delete the bytes of the build's delivered reports once the visit ends, unless a replacement can need them."""
    config, build = reconciler.config, reconciler.build
    if config.policy.replace_stuck_runs and not may_be_replaced(build):
        released = BodyRelease(build_id=build.id, replacements=True)
        reconciler.free_bodies(released, partial(_delete_blobs, reconciler, spool))


async def _delete_blobs(reconciler: BuildReconciler, spool: Spool, blobs: Iterable[str]) -> None:
    for blob in blobs:
        try:
            await spool.delete(blob)
        except Unavailable as error:  # no row names it any more, so the cleanup finds it
            log.warning("blob_delete_failed", blob=blob, error=str(error), **reconciler.log_fields())
