"""Work that goes on if the reconciler that started it is canceled: writes that must not be lost, and mirror uploads."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from bridge.domain.build import SECOND
from bridge.errors import BridgeError, Unavailable
from bridge.store.engine.base import Item, LedgerFunction
from bridge.worker.reconcile import BuildReconciler

WRITE_RETRY_US = SECOND // 4
MIRROR_SLOTS = 8  # CodeArts permits 200 requests a second for an account, and polls come first

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class BackgroundTasks:
    """Tasks that do not end with their reconciler. A stop waits for them or, if time is up, cancels them."""

    running: set[asyncio.Task[Any]] = field(default_factory=set)
    mirror_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MIRROR_SLOTS))

    def start(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Run `work` in a task of its own."""
        task = asyncio.create_task(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task

    async def run_shielded(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of `work`, which goes on if the caller is canceled."""
        task = self.start(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)  # no caller is left to receive its error
            raise

    async def finish(self) -> None:
        """Wait for all tasks; cancel them if this call is canceled."""
        try:
            while self.running:
                await asyncio.wait(self.running)
        except asyncio.CancelledError:
            for task in self.running:
                task.cancel()
            raise

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        for task in self.running:
            task.cancel()
        await self.finish()


def _log_failure(task: asyncio.Task[Any]) -> None:
    """Log why a task failed. What it could not write, the next reconciler of the build does again."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, BridgeError):
        log.warning("reconcile_interrupted", error=str(error))
    elif error is not None:
        log.error("reconcile_failed", exc_info=error)


async def write_with_retry(reconciler: BuildReconciler, function: LedgerFunction[Item, Result], item: Item) -> Result:
    """Write what must not be lost; retry until the ledger is available again."""
    clock = reconciler.config.clock
    while True:
        try:
            return await reconciler.config.database.write(function, item)
        except Unavailable as error:
            log.warning("ledger_write_retried", error=str(error), **reconciler.log_fields())
            await clock.sleep_until(clock.now() + WRITE_RETRY_US)
