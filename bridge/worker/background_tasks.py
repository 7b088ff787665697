"""What must still be done when its visit has been cut off: told, and written down.

It knows no call.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from bridge.errors import BridgeError, Unavailable
from bridge.store.engine.base import Item, LedgerFunction
from bridge.worker.reconcile import BuildReconciler

UNWRITTEN_RETRY_US = 250_000  # between tries to write what must not be forgotten

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class UncancellableTasks:
    """What must still be done when its visit has been cut off: finished before the process ends, or given up."""

    running: set[asyncio.Task[Any]] = field(default_factory=set)

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of `work`; it goes on where whoever waits here is cancelled."""
        task = asyncio.create_task(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_heard)  # nobody else hears now what becomes of it
            raise

    async def finish(self) -> None:
        """Wait for all that is still running; whoever has no more time cancels this."""
        try:
            while self.running:
                await asyncio.wait(self.running)
        except asyncio.CancelledError:
            for task in self.running:
                task.cancel()
            raise


def _heard(task: asyncio.Task[Any]) -> None:
    """Say how a tail failed that its visit did not wait for; what it could not write, the next visit does again."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, BridgeError):
        log.warning("what was left of a visit ended early", error=str(error))
    elif error is not None:
        log.error("what was left of a visit failed", exc_info=error)


async def write_with_retry(visit: BuildReconciler, batch: LedgerFunction[Item, Result], item: Item) -> Result:
    """Write what must not be forgotten, for as long as the ledger takes to be there again."""
    never = asyncio.Event()
    while True:
        try:
            return await visit.desk.database.write(batch, item)
        except Unavailable as error:
            log.warning("cannot write to the ledger, trying again", error=str(error), **visit.names())
            await visit.desk.clock.wait(never, visit.desk.clock.now() + UNWRITTEN_RETRY_US)
