"""A day without TestNod, its storage or CodeArts, played: what it drains in, and that nothing is dead after it."""

import os

import pytest
from sqlalchemy import select

from bridge.domain.build import DeliveryState, EndReason
from bridge.domain.circuit_breaker import TESTNOD
from bridge.domain.instants import SECOND
from bridge.store.circuit_breakers import all_breakers
from bridge.store.schema import builds
from tests.support.builders import HOUR, MINUTE
from tests.support.fake_clock import FakeClock
from tests.support.ledger import report
from tests.support.worker_play import BUILDS, JOBS, ROUTES, Play

AWAY_HOURS = int(os.environ.get("BRIDGE_AWAY_HOURS", "6"))
"""CI plays as long as shows that waiting has become long; 24 are a day, played by hand."""

FIRST_PROBES = 8
"""More than one an hour, in the first hours of an outage."""

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
async def play(backend, tmp_path, request):
    clock = FakeClock()
    async with backend.fresh(clock) as database:
        yield Play(database, clock, tmp_path, **getattr(request, "param", {}))


async def a_day_without(who: str, play: Play) -> None:
    play.outside.away = {who}
    await play.day()
    play.outside.away = set()


async def an_outage_of(who: str, play: Play) -> None:
    """Let two builds of every job arrive while `who` is away."""
    play.outside.away = {who}
    for number in (2, 1):
        await play.arrive(number)
        await play.hours(AWAY_HOURS // 2)
    play.outside.away = set()


async def test_a_day_without_testnod_drains_in_turn_and_in_order_within_jobs_and_no_report_is_dead(play):
    await a_day_without("testnod", play)
    assert not play.outside.opened
    await play.until(play.clock.now() + HOUR)
    assert set(await play.states()) == {DeliveryState.DELIVERED}
    assert play.outside.finalized >= set(play.outside.opened)
    for job_id in JOBS:
        waited = play.order_of(job_id)
        ranks = await play.ledger.rows(select(builds.c.build_no).where(builds.c.job_id == job_id))
        assert sorted(waited) == sorted(row.build_no for row in ranks)
        assert inversions(waited) <= 1, waited  # one was tried before TestNod was known to be away: its run is pinned
    # Jobs and routes take turns.
    first_third = play.outside.opened[: len(play.outside.opened) // 3]
    for job_id in JOBS:
        assert sum(job_id in build for build in first_third) >= BUILDS // 4


@on_sqlite
async def test_a_build_that_testnod_refuses_does_not_hold_up_the_line(play):
    job_id = next(iter(JOBS))
    await a_day_without("testnod", play)
    play.outside.refuses = f"codearts-{job_id}-1"
    while (await play.ledger.database.read(all_breakers)).is_open(TESTNOD):
        await play.until(play.clock.now() + MINUTE)
    await play.until(play.clock.now() + 20 * MINUTE)
    assert len(play.order_of(job_id)) == BUILDS - 1


@on_sqlite
async def test_a_new_build_overtakes_no_more_than_the_one_that_is_called(play):
    job_id = next(iter(JOBS))
    await a_day_without("testnod", play)
    while not play.outside.opened:
        await play.until(play.clock.now() + SECOND)
    await play.ledger.accept(report("late.xml"), job_id=job_id, build_no=BUILDS + 1)
    await play.until(play.clock.now() + HOUR)
    assert inversions(play.order_of(job_id)) <= 2  # the one that was tried first, and the one called at that moment


@on_sqlite
async def test_an_outage_of_storage_kills_no_report_and_registers_one_a_probe(play):
    await an_outage_of("storage", play)
    assert set(await play.states()) == {DeliveryState.PENDING}
    # Probes are an hour apart in the end, and denser at first: the end of a short outage is noticed in proportion.
    assert len(play.outside.registered) <= (AWAY_HOURS * 2 + FIRST_PROBES) * len(ROUTES)
    await play.hours(2)
    assert set(await play.states()) == {DeliveryState.DELIVERED}
    assert play.outside.finalized == set(play.outside.opened)
    assert len(play.outside.opened) == 2 * len(JOBS)


@on_sqlite
@pytest.mark.parametrize("play", [{"has_codearts": True}], indirect=True)
async def test_an_outage_of_codearts_delivers_all_and_takes_no_silence_for_an_end(play):
    await an_outage_of("codearts", play)
    assert set(await play.states()) == {DeliveryState.DELIVERED}
    await play.hours(2)
    assert play.outside.finalized == set(play.outside.opened)
    assert len(play.outside.opened) == 2 * len(JOBS)
    assert await play.end_reason() <= {EndReason.BUILD_INFO, EndReason.MAX_AGE}


@on_sqlite
@pytest.mark.parametrize("play", [{"has_codearts": True, "retry_max_delay": 10 * MINUTE}], indirect=True)
@pytest.mark.parametrize("who", ["testnod", "storage"])
async def test_a_short_outage_is_as_short_while_codearts_is_away(play, who):
    play.outside.away = {"codearts", who}
    for number in (1, 2):
        await play.arrive(number)
    await play.until(play.clock.now() + 2 * MINUTE)
    play.outside.away = {"codearts"}
    await play.until(play.clock.now() + 2 * MINUTE)
    assert set(await play.states()) == {DeliveryState.DELIVERED}


@on_sqlite
@pytest.mark.parametrize("play", [{"has_codearts": True}], indirect=True)
async def test_builds_that_codearts_fails_for_alone_keep_no_other_from_its_end(play):
    play.outside.fails_for = {1, 2}
    for number in play.outside.fails_for:
        await play.arrive(number)
    await play.hours(1)  # by now its breaker is open, and they probe it in turn
    await play.arrive(3)
    await play.hours(2)
    assert {build.rpartition("-")[2] for build in play.outside.finalized} == {"3"}


@on_sqlite
async def test_an_hour_with_a_wrong_project_token_holds_its_route_alone_and_kills_nothing(play):
    play.outside.unknown_token = "token-shop"
    await play.arrive(1)
    await play.hours(1)
    await play.arrive(2)
    await play.hours(1)
    assert sorted(play.outside.opened) == [f"codearts-{'a' * 32}-1", f"codearts-{'a' * 32}-2"]
    assert sorted(await play.states()) == [DeliveryState.DELIVERED] * 2 + [DeliveryState.PENDING] * 4

    play.outside.unknown_token = ""  # corrected at TestNod, without a restart
    await play.hours(2)
    assert set(await play.states()) == {DeliveryState.DELIVERED}
    assert len(play.outside.registered) == 2 * len(JOBS)
    assert play.outside.finalized == set(play.outside.opened)


def inversions(numbers: list[int]) -> int:
    """Return how many numbers must be taken out at least, one by one, so that the others are sorted."""
    longest = [0] * len(numbers)
    for at, number in enumerate(numbers):
        longest[at] = 1 + max((longest[i] for i in range(at) if numbers[i] < number), default=0)
    return len(numbers) - max(longest, default=0)
