"""Restart background tasks that fail or hang; log and count each restart."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.domain.instants import Duration
from bridge.domain.retry import delay_us

FIRST_RESTART_US = SECOND // 4  # after a single failure the task is hardly missed
MAX_RESTART_US = Duration(30 * SECOND)  # a task that cannot run must not fill the log

HANG_US = 15 * 60 * SECOND
"""A task without a heartbeat for this long hangs: the longest call, a PUT, takes at most ten minutes."""

TaskFunction = Callable[[Callable[[], None]], Awaitable[None]]
"""A loop. It calls its argument at every turn, as a heartbeat."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class SupervisedTask:
    """A background task and its state."""

    name: str
    run: TaskFunction
    beat_at: int  # of its last heartbeat, microseconds UTC
    restarts: int = 0
    last_error: str | None = None


@dataclass(slots=True)
class Supervisor:
    """Runs background tasks until each returns, which it does if the worker stops."""

    clock: Clock
    tasks: list[SupervisedTask] = field(default_factory=list)

    def add(self, name: str, run: TaskFunction) -> None:
        """Add a task; it starts with `run`."""
        self.tasks.append(SupervisedTask(name, run, beat_at=self.clock.now()))

    async def run(self) -> None:
        """Run all tasks side by side."""
        async with asyncio.TaskGroup() as group:
            for task in self.tasks:
                group.create_task(self._keep_running(task), name=task.name)

    def _beat(self, task: SupervisedTask) -> None:
        task.beat_at = self.clock.now()

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
                await self.clock.wait(ended, task.beat_at + HANG_US)
                if not running.done() and self.clock.now() - task.beat_at >= HANG_US:
                    raise TimeoutError(f"The task {task.name} had no heartbeat for {HANG_US // SECOND} seconds.")
            if running.cancelled():  # from within; as a CancelledError it would end the supervisor without a log line
                raise RuntimeError(f"The task {task.name} was canceled from within.")
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
