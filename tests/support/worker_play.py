"""Days of the real worker and ledger on a clock that the play moves; only the upstreams are scripted."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select

from bridge.domain.build import BuildRecord, EndReason
from bridge.domain.instants import SECOND
from bridge.domain.intake import NewReport
from bridge.domain.outcomes import (
    BuildInfo,
    FailureRecorded,
    OutcomeUnknown,
    ProjectMissing,
    RecordFetched,
    Registered,
    Rejected,
    RunMissing,
    RunStatus,
    Stored,
    body_differs,
    read_failure,
)
from bridge.domain.routing import Route
from bridge.errors import BridgeError
from bridge.store.blobs.disk import DiskSpool
from bridge.store.circuit_breakers import all_breakers
from bridge.store.engine.base import Database
from bridge.store.leases import Claim, claim, due_routes, read_claimed
from bridge.store.schema import builds, deliveries
from bridge.telemetry.metrics import Metrics
from bridge.worker.background_tasks import BackgroundTasks
from bridge.worker.call_executor import UpstreamCallExecutor
from bridge.worker.circuit_probe import CircuitProber
from bridge.worker.config import UpstreamClients, WorkerConfig
from bridge.worker.delivery_slots import DeliverySlots
from bridge.worker.reconcile import BuildReconciler
from bridge.worker.request_rates import RequestRates
from tests.support.builders import HOUR, MINUTE, POLICY
from tests.support.fake_clock import FakeClock
from tests.support.ledger import Ledger, report

ROUTES = ("api", "shop")
JOBS = {"a" * 32: "api", "b" * 32: "shop", "c" * 32: "shop"}
BUILDS = 6  # of each job on a day
LARGE = b"<testsuite>" + b"x" * 1000 + b"</testsuite>"
CALL_US = SECOND // 10
URL_US = 5 * MINUTE  # as TestNod's URLs live


class Outside:
    """TestNod, its storage and CodeArts: `away` says who is; TestNod may refuse one build, or not know a token."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.away: set[str] = set()  # of testnod, storage, codearts
        self.unknown_token = ""  # TestNod knows no project of it
        self.refuses: str | None = None  # a build id
        self.opened: list[str] = []  # build ids, as their runs were opened
        self.finalized: set[str] = set()
        self.registered: list[str] = []  # build ids, one for each upload
        self.stored = 0
        self.stored_at_finalize: list[int] = []
        self.meanwhile: list[Callable[[], Awaitable[object]]] = []  # each is done once, while a PUT runs
        self.record = BuildRecord()  # of every build
        self.running = False  # what CodeArts says of every build
        self.result = "success"  # and of every one that has ended
        self.fails_for: set[int] = set()  # numbers of builds for which CodeArts fails
        self.odd: dict[tuple[str, str], Iterator[Any]] = {}  # by call and build id: outcomes before the right ones
        self.finalized_at: dict[str, int] = {}  # by build id
        self.spent_us: Counter[str] = Counter()  # by build id, of all calls to TestNod and its storage

    def _odd(self, call: str, build_id: str) -> Any:
        outcome = next(self.odd.get((call, build_id), iter(())), None)
        if outcome is not None:
            self._spend(build_id)
        return outcome

    def _spend(self, build_id: str) -> None:
        """Let the time of one call pass, and count it for the build whose call it is."""
        self.clock.advance(CALL_US)
        self.spent_us[build_id] += CALL_US

    def _answer(self, who: str, outcome: Any, build_id: str = "") -> Any:
        self._spend(build_id)
        return OutcomeUnknown(message="HTTP 503", status=503) if who in self.away else outcome

    def _of_project(self, token: str, outcome: Any, build_id: str = "") -> Any:
        missing = ProjectMissing(message="Project not found.")
        return self._answer("testnod", missing if token == self.unknown_token else outcome, build_id)

    async def register(self, token, run_parameters):
        if (odd := self._odd("register", run_parameters.build_id)) is not None:
            return odd
        if run_parameters.build_id == self.refuses:
            return self._of_project(token, Rejected(status=422, message="problem creating"), run_parameters.build_id)
        ids = {"test_run_id": run_parameters.build_id, "upload_id": "up", "test_run_url": "https://nod.test/run"}
        outcome = self._of_project(
            token,
            Registered(
                **ids, presigned_url=f"https://s3.test/{run_parameters.build_id}", expires_at=self.clock.now() + URL_US
            ),
            run_parameters.build_id,
        )
        if isinstance(outcome, Registered):
            self.registered.append(run_parameters.build_id)
            if run_parameters.build_id not in self.opened:
                self.opened.append(run_parameters.build_id)
        return outcome

    async def put(self, url, _chunks, **_):
        build_id = url.rpartition("/")[2]
        if (odd := self._odd("put", build_id)) is not None:
            return odd
        while self.meanwhile:
            await self.meanwhile.pop()()
        self.stored += "storage" not in self.away
        return self._answer("storage", Stored(), build_id)

    async def upload_failed(self, token, *, test_run_id, **_):
        return self._of_project(token, FailureRecorded(status="failed"), test_run_id)

    async def finalize(self, token, build_id):
        outcome = self._of_project(token, RunStatus(status="processed"), build_id)
        if isinstance(outcome, RunStatus):
            self.finalized.add(build_id)
            self.finalized_at.setdefault(build_id, self.clock.now())
            self.stored_at_finalize.append(self.stored)
        return outcome

    async def probe(self, token):
        return self._of_project(token, RunMissing(message="Test run not found"))

    async def record_info(self, _job_id, _build_no):
        return self._answer("codearts", RecordFetched(record=self.record))

    async def build_info(self, _job_id, build_no):
        if build_no in self.fails_for:
            return self._answer("codearts", OutcomeUnknown(message="HTTP 500", status=500))
        return self._answer("codearts", BuildInfo(building=self.running, result=self.result, region=""))


class StorageThatReads(Outside):
    """Reads what it is sent, as TestNod's storage does."""

    async def put(self, url, chunks, **said):
        try:
            content = chunks if isinstance(chunks, bytes) else b"".join([piece async for piece in chunks])
        except (BridgeError, OSError) as error:
            return read_failure(error)
        if sha256(content).hexdigest() != said["sha256"]:
            return body_differs(
                len(content), sha256(content).hexdigest(), accepted_size=said["size"], accepted_sha256=said["sha256"]
            )
        return await super().put(url, chunks, **said)


def in_spool(key: str) -> NewReport:
    """Return a report of the bytes LARGE that lies in the spool under `key`."""
    return replace(report("large.xml", body=LARGE), body=None, blob=key)


class Play:
    """The worker's loop, one build after the other."""

    def __init__(
        self,
        database: Database,
        clock: FakeClock,
        folder: Path,
        *,
        has_codearts: bool = False,
        outside: Outside | None = None,
        slots: DeliverySlots | None = None,
        **policy: Any,
    ) -> None:
        self.clock = clock
        self.outside = outside or Outside(clock)
        self.ledger = Ledger(database)
        routes = tuple(
            Route(name=name, job_id=tuple(job for job, route in JOBS.items() if route == name)) for name in ROUTES
        )
        given = {
            "routes": routes,
            "has_archive": False,
            "retry_max_delay": HOUR,
            "has_codearts": has_codearts,
            **policy,
        }
        clients = UpstreamClients(
            testnod=self.outside,
            storage=self.outside,
            codearts=self.outside if has_codearts else None,
            check=None,
            reports=None,
            project_tokens={name: SecretStr(f"token-{name}") for name in ROUTES},
        )
        self.background = BackgroundTasks()
        self.config = WorkerConfig(
            database=database,
            clock=clock,
            stopping=asyncio.Event(),
            policy=replace(POLICY, **given),
            lease_us=15 * SECOND,
            routes=ROUTES,
            clients=clients,
            executor=UpstreamCallExecutor(
                clients,
                DiskSpool(folder),
                None,
                Metrics(),
                background=self.background,
                delivery_slots=slots or DeliverySlots(16),
                rates=RequestRates(database, "", 600),
            ),
        )
        self.prober = CircuitProber(lambda: self.config)
        self.visits = 0

    async def until(self, end: int) -> None:
        """Do all that is due until `end`."""
        while self.clock.now() < end:
            due = await self.turn()
            if not any(at <= self.clock.now() for at in due.values()):
                self.clock.set(min([end, self.clock.now() + 10 * MINUTE, *due.values(), *await self._probe_times()]))

    async def _probe_times(self) -> list[int]:
        """Return when the prober, which looks once a second, finds the next probes due."""
        breakers = (await self.config.database.read(all_breakers)).known.values()
        return [at for breaker in breakers if (at := breaker.probe_at) is not None and at > self.clock.now()]

    async def turn(self) -> dict[str, int]:
        """Probe, and visit one build of each lane that is due, as the dispatcher does; return when lanes are due."""
        await self.prober.probe_due()
        config, faults = self.config, self.config.own_faults
        lanes = {"", *ROUTES} - config.unclaimed_routes()
        due = await config.database.read(due_routes, sorted(lanes), self.clock.now(), faults.left(self.clock.now()))
        for lane in [lane for lane, at in due.items() if at <= self.clock.now()]:
            left = tuple(faults.left(self.clock.now()))
            wanted = Claim(route=lane, owner=str(id(self)), lease_us=15 * SECOND, left=left)
            leased = await config.database.write(claim, wanted)
            if leased is not None:
                self.visits += 1
                claimed = await config.database.read(read_claimed, leased)
                await BuildReconciler(config, claimed, self.clock.now()).run(config.executor)
        return due

    async def hours(self, hours: int) -> None:
        await self.until(self.clock.now() + hours * HOUR)

    async def arrive(self, build_no: int) -> None:
        """Let a build of every job arrive, with one report."""
        for job_id in JOBS:
            await self.ledger.accept(report(), job_id=job_id, build_no=build_no)

    async def day(self) -> None:
        """Let builds of every job arrive for a day; the later numbers of a job arrive first."""
        for number in reversed(range(BUILDS)):
            await self.arrive(number + 1)
            await self.hours(24 // BUILDS)

    def order_of(self, job_id: str) -> list[int]:
        """Return the numbers of a job's builds in the order in which their runs were opened."""
        return [int(build.rpartition("-")[2]) for build in self.outside.opened if job_id in build]

    async def states(self) -> list[str]:
        return [row.state for row in await self.ledger.rows(select(deliveries.c.state))]

    async def end_reason(self) -> set[EndReason]:
        return {EndReason(row.end_reason) for row in await self.ledger.rows(select(builds.c.end_reason))}
