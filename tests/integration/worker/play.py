"""The worker's loop played on a fake clock: the real ledger and spool, and only TestNod is scripted."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select

from bridge.domain.build import SECOND
from bridge.domain.outcomes import Registered, Rejected, RunMissing, RunStatus, Stored, Unknown
from bridge.domain.routing import Route
from bridge.store.schema import deliveries
from bridge.store.spool import DiskSpool
from bridge.store.visits import Claim, claim, due_lanes, read_claimed
from bridge.telemetry.metrics import Metrics
from bridge.worker.calls import Calls, Tails
from bridge.worker.mirroring import Beside
from bridge.worker.prober import Prober
from bridge.worker.shift import Shift
from bridge.worker.upstreams import Upstreams
from bridge.worker.visit import Desk, Visit
from tests.fake_clock import FakeClock
from tests.integration.store.ledger import Ledger, report
from tests.unit.domain.builders import HOUR, MINUTE, POLICY

ROUTES = ("api", "shop")
JOBS = {"a" * 32: "api", "b" * 32: "shop", "c" * 32: "shop"}
BUILDS = 6  # of each job, one every four hours
CALL_US = SECOND // 10


class TestNodAway:
    """TestNod and its storage: away when told so, and strict with one build otherwise."""

    __test__ = False

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.away = False
        self.opened: list[str] = []  # build ids, as their runs were opened
        self.finalized: set[str] = set()
        self.stored = 0
        self.stored_at_finalize: list[int] = []
        self.refuses: str | None = None
        self.meanwhile: list[Callable[[], Awaitable[object]]] = []  # each is done once, while a PUT runs

    def answer(self, outcome: Any) -> Any:
        self.clock.advance(CALL_US)
        return Unknown(message="HTTP 503", status=503) if self.away else outcome

    async def register(self, _token, pin):
        if pin.build_id == self.refuses:
            return self.answer(Rejected(status=422, message="problem creating"))
        if not self.away and pin.build_id not in self.opened:
            self.opened.append(pin.build_id)
        ids = {"test_run_id": pin.build_id, "upload_id": "up", "test_run_url": "https://nod.test/run"}
        return self.answer(Registered(**ids, presigned_url="https://s3.test/put", expires_at=self.clock.now() + HOUR))

    async def put(self, _url, _chunks, **_):
        while self.meanwhile:
            await self.meanwhile.pop()()
        self.stored += not self.away
        return self.answer(Stored())

    async def finalize(self, _token, build_id):
        self.finalized.add(build_id)
        self.stored_at_finalize.append(self.stored)
        return self.answer(RunStatus(status="processed"))

    async def probe(self, _token):
        return self.answer(RunMissing(message="Test run not found"))


class Play:
    """The worker's loop, one visit after the other, on a clock that the play moves."""

    def __init__(self, database, clock: FakeClock, spool: DiskSpool) -> None:
        self.clock = clock
        self.testnod = TestNodAway(clock)
        self.ledger = Ledger(database)
        routes = tuple(
            Route(name=name, job_id=tuple(job for job, route in JOBS.items() if route == name)) for name in ROUTES
        )
        policy = replace(POLICY, routes=routes, archives=False, max_delay=HOUR)
        self.desk = Desk(database=database, clock=clock, policy=policy, lease_us=15 * SECOND, stopping=asyncio.Event())
        tokens = {name: SecretStr("t") for name in ROUTES}
        upstreams = Upstreams(
            testnod=self.testnod, storage=self.testnod, codearts=None, check=None, reports=None, project_tokens=tokens
        )
        self.calls = Calls(
            upstreams,
            spool,
            None,
            Metrics(),
            tails=Tails(),
            beside=Beside(),
            places=asyncio.Semaphore(16),
            polls_a_second=10,
        )
        shift = Shift(desk=self.desk, calls=self.calls, upstreams=upstreams, lanes=ROUTES)
        self.prober = Prober(lambda: shift)

    async def until(self, end: int) -> None:
        """Do all that is due until `end`."""
        while self.clock.now() < end:
            await self.prober.probe_due()
            due = await self.desk.database.read(due_lanes, ("", *ROUTES), self.clock.now())
            ready = [lane for lane, at in due.items() if at <= self.clock.now()]
            for lane in ready:
                leased = await self.desk.database.write(claim, Claim(lane=lane, owner="me", lease_us=15 * SECOND))
                if leased is not None:
                    claimed = await self.desk.database.read(read_claimed, leased)
                    await Visit(self.desk, claimed, self.clock.now()).run(self.calls)
            if not ready:
                self.clock.set(min([end, self.clock.now() + 10 * MINUTE, *due.values()]))

    async def day(self) -> None:
        """Let builds of every job arrive while TestNod is away; the later numbers of a job arrive first."""
        self.testnod.away = True
        for number in reversed(range(BUILDS)):
            for job_id in JOBS:
                await self.ledger.accept(report(), job_id=job_id, build_no=number + 1)
            await self.until(self.clock.now() + 4 * HOUR)
        assert not self.testnod.opened

    def order_of(self, job_id: str) -> list[int]:
        return [int(build.rpartition("-")[2]) for build in self.testnod.opened if job_id in build]

    async def states(self) -> list[str]:
        return [row.state for row in await self.ledger.rows(select(deliveries.c.state))]
