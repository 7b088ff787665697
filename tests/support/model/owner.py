"""One gateway's worker on a shared ledger: the real reconciling and calls, behind a door of its own.

By that door a story can freeze an owner at any point, or end it as a kill would: none of its writes passes any more.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bridge.domain.instants import SECOND
from bridge.domain.policy import Policy
from bridge.errors import LeaseLost
from bridge.store.blobs.disk import DiskSpool
from bridge.store.engine.base import Database, run_each
from bridge.store.leases import Claim, claim, read_claimed
from bridge.telemetry.metrics import Metrics
from bridge.worker.background_tasks import BackgroundTasks
from bridge.worker.call_executor import UpstreamCallExecutor
from bridge.worker.circuit_probe import CircuitProber
from bridge.worker.cleanup import Cleanup
from bridge.worker.config import UpstreamClients, WorkerConfig
from bridge.worker.delivery_slots import DeliverySlots
from bridge.worker.reconcile import BuildReconciler
from bridge.worker.request_rates import RequestRates
from tests.support.builders import HOUR, ROUTE
from tests.support.fake_clock import FakeClock
from tests.support.model.outside import VISIT, Far, Outside
from tests.support.model.watch import Watch

LEASE_US = 15 * SECOND
KEEP_US = 48 * HOUR
ROUTES = ("", ROUTE)


class Turnstile:
    """Lets one caller through at a time; `idle` is set if none is waiting or inside."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._passing: set[asyncio.Task[Any]] = set()
        self.idle = asyncio.Event()
        self.idle.set()

    async def through(self, act: Callable[[], Any]) -> Any:
        """Return what `act` returns. Once begun, it goes on even if the caller is canceled."""
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
    """An owner's clock (`bridge.clock.Clock`): it has the time always, and wakes no task while the owner is frozen."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.awake = asyncio.Event()
        self.awake.set()

    def now(self) -> int:
        return self._clock.now()

    def steady(self) -> int:
        return self._clock.steady()

    async def wait(self, event: asyncio.Event, until: int | None) -> None:
        await self._clock.wait(event, until)
        await self.awake.wait()

    async def sleep_until(self, until: int) -> None:
        await self.wait(asyncio.Event(), until)


class Owner:
    """One process: its visits, probes and cleaning, until it ends."""

    def __init__(self, name: str, door: Door, clock: FakeClock, policy: Policy, far: Far, spool: Path) -> None:
        self.name = name
        self.door = door
        self.outside = Outside(far)
        self.clock = Wakes(clock)
        self._background = BackgroundTasks()
        self._running: set[asyncio.Task[None]] = set()
        self.errors: list[BaseException] = []
        codearts: Any = self.outside if policy.has_codearts else None
        outside: Any = self.outside
        clients = UpstreamClients(
            testnod=outside,
            storage=outside,
            codearts=codearts,
            check=None,
            reports=None,
            project_tokens={ROUTE: SecretStr("token")},
        )
        executor = UpstreamCallExecutor(
            clients,
            DiskSpool(spool),
            None,
            Metrics(),
            background=self._background,
            delivery_slots=DeliverySlots(16),
            rates=RequestRates(door, "", 600),
        )
        self._config = WorkerConfig(
            database=door,
            clock=self.clock,
            stopping=asyncio.Event(),
            policy=policy,
            lease_us=LEASE_US,
            routes=ROUTES,
            clients=clients,
            executor=executor,
        )
        self._prober = CircuitProber(lambda: self._config)
        self._cleanup = Cleanup(
            database=door,
            clock=self.clock,
            stopping=self._config.stopping,
            spool=DiskSpool(spool),
            keep_us=KEEP_US,
            keep_rejected_us=KEEP_US,
        )

    def begin_visit(self, route: str) -> None:
        """Claim the next build of a route that is due, and visit it."""
        self._begin(self._visit(route))

    def begin_probes(self) -> None:
        self._begin(self._prober.probe_due())

    def begin_cleaning(self) -> None:
        self._begin(self._cleanup.clean())

    def freeze(self) -> None:
        """Stand still: nothing is written or read, and no time is noticed."""
        self.door.open.clear()
        self.clock.awake.clear()

    def thaw(self) -> None:
        """Go on with pending writes. The passing of time is noticed only by `notice`."""
        self.door.open.set()

    def notice(self) -> None:
        """See what time it is."""
        self.clock.awake.set()

    async def end(self) -> None:
        """End as a kill would: no write that was pending passes any more."""
        self.door.open.clear()
        left = [*self._running, *self._background.running]
        self.door.open = asyncio.Event()  # callers that wait at the old one, or come now, are never let through
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _visit(self, route: str) -> None:
        requested_at = self.clock.now()
        leased = await self.door.write(claim, Claim(route=route, owner=self.name, lease_us=LEASE_US))
        if leased is None:
            return
        visit = BuildReconciler(self._config, await self.door.read(read_claimed, leased), requested_at)
        VISIT.set(visit)
        try:
            await visit.run(self._config.executor)
        except* LeaseLost:  # as in the dispatcher: the next owner goes on
            pass

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)
