"""The dispatcher: lease builds that are due, route by route, and reconcile them side by side.

Other components may wake it when they have written something new; nothing depends on that.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog

from bridge.domain.instants import SECOND, Duration
from bridge.domain.notice_events import Block, events_of_block
from bridge.errors import BridgeError, LeaseLost, LedgerRejectedWrite, Unavailable
from bridge.store.leases import (
    Claim,
    LeasedBuild,
    LeasedRow,
    Release,
    claim,
    due_routes,
    read_claimed,
    release,
    to_leased_build,
)
from bridge.worker.config import WorkerConfig
from bridge.worker.notice_faults import events_or_none
from bridge.worker.reconcile import BuildReconciler

MAX_RECONCILERS = 64
"""Builds reconciled at once: more than calls to TestNod at once, so that polls of a slow host delay no upload."""

POLL_INTERVAL_US = Duration(2 * SECOND)
"""The ledger is polled this often if nothing wakes the dispatcher: another process may have written to it."""

DISPATCH_INTERVAL_US = 25_000
"""Between two searches for due builds: under load, one search then finds many, and uploads get the time."""

FAULT_PAUSE_US = Duration(60 * SECOND)
"""Until a build that failed because of a bug is retried: it will probably fail again, and others want turns."""

FAULT = (
    "The bridge itself fails in this build ({}). Report the log event reconcile_failed as a bug; the build is retried "
    "every minute."
)

log = structlog.get_logger(__name__)


class Dispatcher:
    """One loop that starts reconcilers until `stop`. `config` returns what each new one uses."""

    def __init__(self, config: Callable[[], WorkerConfig], *, owner: str) -> None:
        self._config = config
        self._database, self._clock, self._stopping = config().database, config().clock, config().stopping
        self._owner = owner
        self._routes: deque[str] = deque()
        self._slots = asyncio.Semaphore(MAX_RECONCILERS)
        self._claims: dict[str, int] = {}  # how many builds of a route to lease next
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Search the ledger for due builds now."""
        self._woken.set()

    def stop(self) -> None:
        """Start no more reconcilers; `run` returns when the steps in flight have ended."""
        self._stopping.set()
        self._woken.set()

    async def run(self, beat: Callable[[], None]) -> None:
        """Reconcile due builds until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            while not self._stopping.is_set():
                self._woken.clear()
                try:
                    next_at = await self._dispatch_due(tasks, beat)
                except Unavailable as error:
                    log.warning("ledger_read_retried", error=str(error))
                    next_at = self._clock.now() + POLL_INTERVAL_US
                await self._clock.wait(self._stopping, self._clock.now() + DISPATCH_INTERVAL_US)
                if not self._stopping.is_set():
                    latest = self._clock.now() + POLL_INTERVAL_US  # also if the clock was set back meanwhile
                    await self._clock.wait(self._woken, min(next_at, latest))

    async def _dispatch_due(self, tasks: asyncio.TaskGroup, beat: Callable[[], None]) -> int:
        """Start a reconciler for each due build, one from each route in turn; return when to search again."""
        while True:
            beat()
            now = self._database.now()
            self._update_routes()
            due = await self._database.read(due_routes, tuple(self._routes), now, self._config().own_faults.left(now))
            ready = [route for route, at in due.items() if at <= now]
            if not ready:
                return self._clock.now() + min([*(at - now for at in due.values()), POLL_INTERVAL_US])
            self._routes.rotate(-1)
            started = [await self._start_some(route, MAX_RECONCILERS // len(ready), tasks, beat) for route in ready]
            if not any(started):  # the gateway stops, or another one leases these builds right now
                return self._clock.now()

    def _update_routes(self) -> None:
        config = self._config()
        routes = {"", *config.routes} - config.unclaimed_routes()  # "": builds whose route is not known yet
        if routes != set(self._routes):
            self._routes = deque(sorted(routes))

    async def _start_some(self, route: str, share: int, tasks: asyncio.TaskGroup, beat: Callable[[], None]) -> bool:
        """Lease due builds of `route` in one commit, after waiting for a free slot; return whether there were any.

        It tries to lease one build, and twice as many each time that it gets all, up to `share`.
        """
        slots = await self._take_slots(min(share, self._claims.get(route, 1)))
        leased: list[LeasedRow] = []
        try:
            if self._stopping.is_set():
                return False
            config = self._config()
            requested_at = self._clock.now()
            left = tuple(config.own_faults.left(self._database.now()))
            wanted = Claim(route=route, owner=self._owner, lease_us=config.lease_us, left=left)
            claims = (self._database.write(claim, wanted) for _ in range(slots))
            found = await asyncio.gather(*claims, return_exceptions=True)
            for result in found:
                if isinstance(result, LeasedRow):
                    tasks.create_task(self._reconcile(result, requested_at, config, beat))
                    leased.append(result)
            self._claims[route] = 2 * slots if len(leased) == slots else 1
            if not leased and (errors := [result for result in found if isinstance(result, BaseException)]):
                raise errors[0]
        finally:
            for _ in range(slots - len(leased)):
                self._slots.release()
        return bool(leased)

    async def _take_slots(self, limit: int) -> int:
        """Take slots for reconcilers, after waiting for the first one; return their number."""
        await self._slots.acquire()
        taken = 1
        while taken < limit and not self._slots.locked():
            await self._slots.acquire()
            taken += 1
        return taken

    async def _reconcile(
        self, leased: LeasedRow, requested_at: int, config: WorkerConfig, beat: Callable[[], None]
    ) -> None:
        row = leased.row
        fields = {"job_id": row.job_id, "build_no": row.build_no, "fencing_token": row.fencing_token}
        try:
            build = await self._read(leased)
            await BuildReconciler(config, build, requested_at).run(config.executor, beat)
        except* LeaseLost as errors:
            log.warning("reconcile_interrupted", error=str(_first(errors)), **fields)
        except* LedgerRejectedWrite as errors:
            log.exception("reconcile_failed", **fields)
            await self._postpone(leased, _first(errors))
        except* BridgeError as errors:
            log.warning("reconcile_interrupted", error=str(_first(errors)), **fields)
        except* Exception as errors:
            # A bug that one build meets must not stop the others.
            log.exception("reconcile_failed", **fields)
            await self._postpone(leased, _first(errors))
        finally:
            self._slots.release()
            self._woken.set()

    async def _read(self, leased: LeasedRow) -> LeasedBuild:
        if leased.others is not None:
            return to_leased_build(leased, leased.others)
        return await self._database.read(read_claimed, leased)

    async def _postpone(self, leased: LeasedRow, fault: BaseException) -> None:
        """Release a build that cannot be reconciled and show it as blocked; the next success clears that."""
        row = leased.row
        reason = FAULT.format(type(fault).__name__)
        block = Block(
            job_id=row.job_id,
            build_no=row.build_no,
            route=row.route,
            before=row.blocked_reason,
            reason=reason,
            waiting_on=None,
            was_quiet=bool(row.blocked_quietly),
        )
        postponed = Release(
            build_id=row.id,
            fencing_token=row.fencing_token,
            report_seq=row.report_seq,
            due_at=row.due_at,
            until=self._database.now() + FAULT_PAUSE_US,
            waiting_on=None,
            blocked_reason=reason,
            wakes_next=True,
            notices=events_or_none(lambda: events_of_block(block, self._config().notices)),
        )
        with suppress(BridgeError):  # if this fails, the lease expires and the build is due again
            await self._database.write(release, postponed)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in nested groups: each step has a group of its own."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
