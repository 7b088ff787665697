"""One gateway's worker on the ledger that it shares with others: the real visits and calls, with a door of its own.

Through that door a story can freeze an owner in the middle of anything, or end it as a kill would: nothing of it comes
through any more.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bridge.domain.build import SECOND
from bridge.domain.policy import Policy
from bridge.errors import LeaseLost
from bridge.store.blobs.disk import DiskSpool
from bridge.store.engine.base import Database, run_each
from bridge.store.leases import Claim, claim, read_claimed
from bridge.telemetry.metrics import Metrics
from bridge.worker.background_tasks import UncancellableTasks
from bridge.worker.call_executor import UpstreamCallExecutor
from bridge.worker.circuit_probe import CircuitProber
from bridge.worker.cleanup import Cleanup
from bridge.worker.clients import UpstreamClients
from bridge.worker.mirror_upload import BackgroundTasks
from bridge.worker.reconcile import BuildReconciler, ReconcilerContext
from bridge.worker.worker_config import WorkerConfig
from tests.fake_clock import FakeClock
from tests.integration.model.outside import VISIT, Far, Outside
from tests.integration.model.watch import Watch
from tests.unit.domain.builders import HOUR, ROUTE

LEASE_US = 15 * SECOND
KEEP_US = 48 * HOUR
LANES = ("", ROUTE)


class Turnstile:
    """Lets one through at a time, and knows when nobody is on the way."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._passing: set[asyncio.Task[Any]] = set()
        self.idle = asyncio.Event()
        self.idle.set()

    async def through(self, act: Callable[[], Any]) -> Any:
        """Return what `act` returns; one that was begun goes on where whoever waits is cut off."""
        task = asyncio.create_task(self._alone(act))
        self._passing.add(task)
        self.idle.clear()
        task.add_done_callback(self._passed)
        return await asyncio.shield(task)

    async def _alone(self, act: Callable[[], Any]) -> Any:
        async with self._lock:
            return await act()

    def _passed(self, task: "asyncio.Task[Any]") -> None:
        self._passing.discard(task)
        if not self._passing:
            self.idle.set()


class Door:
    """The ledger as one owner reaches it (`store.database.Database`); one caller goes through at a time."""

    def __init__(self, database: Database, watch: Watch, turnstile: "Turnstile") -> None:
        self._database = database
        self._watch = watch
        self._turnstile = turnstile
        self.open = asyncio.Event()
        self.open.set()

    @property
    def shared(self) -> bool:
        return True

    @property
    def folder(self) -> Path | None:
        return None

    def now(self) -> int:
        return self._database.now()

    async def transact(self, transaction: Any) -> Any:
        return await self.write(run_each, transaction)

    async def write(self, batch: Any, item: Any, size: int = 0) -> Any:
        return await self._through(lambda: self._watch.watched(self._database, batch, item, size))

    async def read(self, query: Callable[..., Any], *arguments: object) -> Any:
        return await self._through(lambda: self._database.read(query, *arguments))

    async def _through(self, act: Callable[[], Any]) -> Any:
        await self.open.wait()
        return await self._turnstile.through(act)


class Wakes:
    """An owner's clock (`bridge.clock.Clock`): it tells the time always, and wakes nobody while the owner is frozen."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.awake = asyncio.Event()
        self.awake.set()

    def now(self) -> int:
        return self._clock.now()

    async def wait(self, event: asyncio.Event, until: int | None) -> None:
        await self._clock.wait(event, until)
        await self.awake.wait()


class Owner:
    """One process: its visits, probes and cleaning, until it ends."""

    def __init__(self, name: str, door: Door, clock: FakeClock, policy: Policy, far: Far, spool: Path) -> None:
        self.name = name
        self.door = door
        self.outside = Outside(far)
        self.clock = Wakes(clock)
        self._tails = UncancellableTasks()
        self._running: set[asyncio.Task[None]] = set()
        self.errors: list[BaseException] = []
        codearts: Any = self.outside if policy.asks_codearts else None
        outside: Any = self.outside
        upstreams = UpstreamClients(
            testnod=outside,
            storage=outside,
            codearts=codearts,
            check=None,
            reports=None,
            project_tokens={ROUTE: SecretStr("token")},
        )
        calls = UpstreamCallExecutor(
            upstreams,
            DiskSpool(spool),
            None,
            Metrics(),
            tails=self._tails,
            beside=BackgroundTasks(),
            places=asyncio.Semaphore(16),
            polls_a_second=10,
        )
        desk = ReconcilerContext(
            database=door, clock=self.clock, policy=policy, lease_us=LEASE_US, stopping=asyncio.Event()
        )
        self._shift = WorkerConfig(desk=desk, calls=calls, upstreams=upstreams, lanes=LANES)
        self._prober = CircuitProber(lambda: self._shift)
        self._janitor = Cleanup(desk=desk, spool=DiskSpool(spool), keep_us=KEEP_US, keep_refused_us=KEEP_US)

    def begin_visit(self, lane: str) -> None:
        """Claim the next build of a lane that is due, and visit it."""
        self._begin(self._visit(lane))

    def begin_probes(self) -> None:
        self._begin(self._prober.probe_due())

    def begin_cleaning(self) -> None:
        self._begin(self._janitor.clean())

    def freeze(self) -> None:
        """Stand still: nothing is written or read, and no time is noticed."""
        self.door.open.clear()
        self.clock.awake.clear()

    def thaw(self) -> None:
        """Go on with what was about to be written; only `notice` tells that time has passed."""
        self.door.open.set()

    def notice(self) -> None:
        """See what time it is."""
        self.clock.awake.set()

    async def end(self) -> None:
        """End as a kill would: nothing that was under way comes through any more."""
        self.door.open.clear()
        left = [*self._running, *self._tails.running]
        self.door.open = asyncio.Event()  # whoever waits at the old one, or comes now, waits for ever
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _visit(self, lane: str) -> None:
        requested_at = self.clock.now()
        leased = await self.door.write(claim, Claim(route=lane, owner=self.name, lease_us=LEASE_US))
        if leased is None:
            return
        visit = BuildReconciler(self._shift.desk, await self.door.read(read_claimed, leased), requested_at)
        VISIT.set(visit)
        try:
            await visit.run(self._shift.calls)
        except* LeaseLost:  # as the carriers have it: the next owner goes on
            pass

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)
