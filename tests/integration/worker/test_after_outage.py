"""A day without TestNod, played: what it drains in, and that nothing is dead after it. Only TestNod is scripted."""

import pytest
from sqlalchemy import select

from bridge.domain.build import SECOND, DeliveryState
from bridge.store.schema import builds
from bridge.store.spool import DiskSpool
from tests.fake_clock import FakeClock
from tests.integration.store.ledger import report
from tests.integration.worker.play import BUILDS, JOBS, Play
from tests.unit.domain.builders import HOUR, MINUTE


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
