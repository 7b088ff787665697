"""A day without TestNod, played: what it drains in, and that nothing is dead after it. Only TestNod is scripted."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from bridge.domain.build import SECOND, DeliveryState
from bridge.domain.outcomes import Registered, Rejected, RunMissing, RunStatus, Stored, Unknown
from bridge.domain.routing import Route
from bridge.store.schema import builds, deliveries
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
        self.refuses: str | None = None

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
        return self.answer(Stored())

    async def finalize(self, _token, build_id):
        self.finalized.add(build_id)
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


@pytest.fixture
async def play(backend, tmp_path):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Play(database, clock, DiskSpool(tmp_path))


async def test_a_day_without_testnod_drains_in_order_within_jobs_and_no_report_is_dead(play):
    await play.day()
    play.testnod.away = False
    await play.until(play.clock.now() + HOUR)
    assert set(await play.states()) == {DeliveryState.DELIVERED}
    assert play.testnod.finalized >= set(play.testnod.opened)
    for job_id in JOBS:
        waited = play.order_of(job_id)
        ranks = await play.ledger.rows(select(builds.c.build_no).where(builds.c.job_id == job_id))
        assert sorted(waited) == sorted(row.build_no for row in ranks)
        assert inversions(waited) <= 1, waited  # one was tried before TestNod was known to be away: its run is pinned


async def test_the_drain_takes_jobs_and_routes_in_turn(play):
    await play.day()
    play.testnod.away = False
    await play.until(play.clock.now() + HOUR)
    first_third = play.testnod.opened[: len(play.testnod.opened) // 3]
    for job_id in JOBS:
        assert sum(job_id in build for build in first_third) >= BUILDS // 4


async def test_a_build_that_testnod_refuses_does_not_hold_up_the_line(play):
    job_id = next(iter(JOBS))
    await play.day()
    play.testnod.away, play.testnod.refuses = False, f"codearts-{job_id}-1"
    began = play.clock.now()
    await play.until(began + 20 * MINUTE)
    assert len(play.order_of(job_id)) == BUILDS - 1


async def test_a_new_build_overtakes_no_more_than_the_one_that_is_called(play):
    job_id = next(iter(JOBS))
    await play.day()
    play.testnod.away = False
    while not play.testnod.opened:
        await play.until(play.clock.now() + SECOND)
    await play.ledger.accept(report("late.xml"), job_id=job_id, build_no=BUILDS + 1)
    await play.until(play.clock.now() + HOUR)
    assert inversions(play.order_of(job_id)) <= 2  # the one that was tried first, and the one called at that moment


def inversions(numbers: list[int]) -> int:
    """Return how many numbers must be taken out at least, one by one, so that the others are sorted."""
    longest = [0] * len(numbers)
    for at, number in enumerate(numbers):
        longest[at] = 1 + max((longest[i] for i in range(at) if numbers[i] < number), default=0)
    return len(numbers) - max(longest, default=0)
