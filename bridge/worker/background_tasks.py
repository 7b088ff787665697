"""Work that goes on if the reconciler that started it is canceled: writes that must not be lost, and mirror uploads."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import field
from functools import partial
from typing import Any, TypeVar

import structlog

from bridge.clock import Clock
from bridge.domain.instants import SECOND, Duration
from bridge.domain.retry import delay_us
from bridge.errors import BridgeError, Unavailable
from bridge.store.engine.base import Item, LedgerFunction
from bridge.values import dataclass
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
    return await retry_write(reconciler, lambda: reconciler.config.database.write(function, item))


async def retry_write(reconciler: BuildReconciler, write: Callable[[], Awaitable[Result]]) -> Result:
    """Return the result of `write`, which is called until the ledger is available again."""
    clock = reconciler.config.clock
    while True:
        try:
            return await write()
        except Unavailable as error:
            log.warning("ledger_write_retried", error=str(error), **reconciler.log_fields())
            await clock.sleep_until(clock.now() + WRITE_RETRY_US)


FIRST_RESTART_US = SECOND // 4  # after a single failure the task is hardly missed
MAX_RESTART_US = Duration(30 * SECOND)  # a task that cannot run must not fill the log

HANG_US = 15 * 60 * SECOND
"""A task without a heartbeat for this long hangs: the longest call, a PUT, takes at most ten minutes."""

TaskFunction = Callable[[Callable[[], None]], Awaitable[None]]
"""A loop. It calls its argument at every turn, as a heartbeat."""


@dataclass(slots=True)
class SupervisedTask:
    """A background task and its state."""

    name: str
    run: TaskFunction
    beat_at: int  # of its last heartbeat, by the steady clock
    restarts: int = 0
    last_error: str | None = None


@dataclass(slots=True)
class Supervisor:
    """Runs background tasks until each returns, which it does if the worker stops."""

    clock: Clock
    tasks: list[SupervisedTask] = field(default_factory=list)

    def add(self, name: str, run: TaskFunction) -> None:
        """Add a task; it starts with `run`."""
        self.tasks.append(SupervisedTask(name, run, beat_at=self.clock.steady()))

    async def run(self) -> None:
        """Run all tasks side by side."""
        async with asyncio.TaskGroup() as group:
            for task in self.tasks:
                group.create_task(self._keep_running(task), name=task.name)

    def _beat(self, task: SupervisedTask) -> None:
        task.beat_at = self.clock.steady()

    def _silent_us(self, task: SupervisedTask) -> int:
        return self.clock.steady() - task.beat_at

    async def _keep_running(self, task: SupervisedTask) -> None:
        while True:
            try:
                await self._run_watched(task)
            except Exception as error:
                task.restarts += 1
                task.last_error = type(error).__name__
                log.exception("task_restarted", task=task.name, restarts=task.restarts)
            else:
                return
            pause = delay_us(task.restarts, first_us=FIRST_RESTART_US, max_us=MAX_RESTART_US, salt=task.name)
            await self.clock.sleep_until(self.clock.now() + pause)

    async def _run_watched(self, task: SupervisedTask) -> None:
        """Run the task until it returns; if its heartbeat stops, cancel it and raise TimeoutError."""
        self._beat(task)
        ended = asyncio.Event()
        running = asyncio.ensure_future(task.run(partial(self._beat, task)))
        running.add_done_callback(lambda _: ended.set())
        try:
            while not running.done():
                await self.clock.wait(ended, self.clock.now() + HANG_US - self._silent_us(task))
                if not running.done() and self._silent_us(task) >= HANG_US:
                    raise TimeoutError(f"The task {task.name} had no heartbeat for {HANG_US // SECOND} seconds.")
            if running.cancelled():  # from within; as a CancelledError it would end the supervisor without a log line
                raise RuntimeError(f"The task {task.name} was canceled from within.")
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
