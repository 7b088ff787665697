"""The carriers: claim builds that are due, lane by lane, and visit them side by side.

It knows neither what a visit does nor who accepts reports. Whoever has something new may nudge; nothing depends on it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog

from bridge.domain.build import SECOND
from bridge.domain.steps import UpstreamCall
from bridge.errors import BridgeError, LeaseLost, LedgerRejectedWrite, Unavailable
from bridge.store.leases import Claim, LeasedRow, Release, claim, due_routes, read_claimed, release
from bridge.worker.reconcile import BuildReconciler, CallExecutor
from bridge.worker.worker_config import WorkerConfig

VISITS = 64
"""Builds visited at once. More than there are places for uploads: a visit that polls a slow host holds no upload up."""

LOOK_EVERY_US = 2_000_000
"""Without a nudge the ledger is looked at this often: another process may have written to it."""

HAND_OUT_EVERY_US = 25_000
"""Between two looks for due builds: under load one look then finds many, and uploads get the time."""

FAULT_PAUSE_US = 60 * SECOND
"""Between two visits that fall over a fault of the bridge's own: it will hardly have gone, and others want turns."""

FAULT = (
    'The bridge itself fails in this build ({}). Look for "visit failed" in its log and report it; it is tried again '
    "every minute."
)

log = structlog.get_logger(__name__)


class Dispatcher:
    """One loop that hands out visits until it is told to stop; `shift` says what each new one goes by."""

    def __init__(self, shift: Callable[[], WorkerConfig], *, owner: str) -> None:
        self._shift = shift
        self._desk = shift().desk  # ledger, clock and stopping, which last
        self._owner = owner
        self._lanes: deque[str] = deque()
        self._free = asyncio.Semaphore(VISITS)
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Look at the ledger now."""
        self._nudged.set()

    def stop(self) -> None:
        """Begin no more visits; `run` ends when the steps under way have ended."""
        self._desk.stopping.set()
        self._nudged.set()

    async def run(self, beat: Callable[[], None]) -> None:
        """Visit builds until `stop`."""
        async with asyncio.TaskGroup() as visits:
            while not self._desk.stopping.is_set():
                self._nudged.clear()
                try:
                    next_at = await self._hand_out(visits, beat)
                except Unavailable as error:
                    log.warning("cannot read the ledger, trying again", error=str(error))
                    next_at = self._desk.clock.now() + LOOK_EVERY_US
                await self._desk.clock.wait(self._desk.stopping, self._desk.clock.now() + HAND_OUT_EVERY_US)
                if not self._desk.stopping.is_set():
                    latest = self._desk.clock.now() + LOOK_EVERY_US  # also if the clock was set back meanwhile
                    await self._desk.clock.wait(self._nudged, min(next_at, latest))

    async def _hand_out(self, visits: asyncio.TaskGroup, beat: Callable[[], None]) -> int:
        """Begin a visit for every due build, one from each lane in turn; return when to look again, by our clock."""
        while True:
            beat()
            now = self._desk.database.now()
            self._know_lanes()
            due = await self._desk.database.read(due_routes, tuple(self._lanes), now)
            ready = [lane for lane, at in due.items() if at <= now]
            if not ready:
                return self._desk.clock.now() + min([*(at - now for at in due.values()), LOOK_EVERY_US])
            self._lanes.rotate(-1)
            begun = [await self._begin(lane, visits, beat) for lane in ready]
            if not any(begun):  # it is time to stop, or another gateway is taking them at this moment
                return self._desk.clock.now()

    def _know_lanes(self) -> None:
        lanes = {"", *self._shift().lanes}
        if lanes != set(self._lanes):
            self._lanes = deque(sorted(lanes))

    async def _begin(self, lane: str, visits: asyncio.TaskGroup, beat: Callable[[], None]) -> bool:
        """Begin one visit in `lane`, waiting for a free place; False where none was begun."""
        await self._free.acquire()
        leased = None
        try:
            if self._desk.stopping.is_set():
                return False
            shift = self._shift()
            asked = Claim(route=lane, owner=self._owner, lease_us=shift.desk.lease_us)
            requested_at = self._desk.clock.now()
            leased = await self._desk.database.write(claim, asked)
            if leased is not None:
                visits.create_task(self._visit(leased, requested_at, shift, beat))
        finally:
            if leased is None:
                self._free.release()
        return leased is not None

    async def _visit(self, leased: LeasedRow, requested_at: int, shift: WorkerConfig, beat: Callable[[], None]) -> None:
        names = {
            "job_id": leased.row.job_id,
            "build_no": leased.row.build_no,
            "fencing_token": leased.row.fencing_token,
        }
        try:
            claimed = await self._desk.database.read(read_claimed, leased)
            await BuildReconciler(shift.desk, claimed, requested_at).run(_Seen(shift.calls, beat))
        except* LeaseLost as lost:
            log.warning("visit ended: the lease was lost", reason=str(_first(lost)), **names)
        except* LedgerRejectedWrite as errors:
            log.exception("visit failed", **names)
            await self._put_off(leased, _first(errors))
        except* BridgeError as errors:
            log.warning("visit ended early", error=str(_first(errors)), **names)
        except* Exception as errors:
            # A bug in one build's life must not stop the others.
            log.exception("visit failed", **names)
            await self._put_off(leased, _first(errors))
        finally:
            self._free.release()
            self._nudged.set()

    async def _put_off(self, leased: LeasedRow, fault: BaseException) -> None:
        """Let a build rest that no visit gets through with, and show it; the next one that does takes that back."""
        row = leased.row
        rest = Release(
            build_id=row.id,
            fencing_token=row.fencing_token,
            report_seq=row.report_seq,
            due_at=row.due_at,
            until=self._desk.database.now() + FAULT_PAUSE_US,
            waiting_on=None,
            blocked_reason=FAULT.format(type(fault).__name__),
            wakes_next=True,
        )
        with suppress(BridgeError):  # then its lease ends, and it is looked at again
            await self._desk.database.write(release, rest)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in a group of groups: each step of a visit has one of its own."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Seen:
    """The calls of a visit; each that ends shows that the carriers live, also where none of their places is free."""

    def __init__(self, calls: CallExecutor, beat: Callable[[], None]) -> None:
        self._calls = calls
        self._beat = beat

    async def make(self, call: UpstreamCall, visit: BuildReconciler) -> None:
        try:
            await self._calls.make(call, visit)
        finally:
            self._beat()
