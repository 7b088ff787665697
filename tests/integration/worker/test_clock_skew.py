"""A clock that was hours ahead and is set back: nothing waits for the hours to pass again."""

from dataclasses import replace

import pytest
from sqlalchemy import select

from bridge.domain.circuit_breaker import PROBER, TESTNOD, HealthSignal
from bridge.domain.clock_trust import ClockState
from bridge.domain.instants import DAY, SECOND
from bridge.store.circuit_breakers import all_breakers
from bridge.store.leases import Claim, claim, read_claimed
from bridge.store.schema import builds
from bridge.worker.clock_skew import TOLERATED_US, ClockSkewMonitor, LedgerClockCheck
from bridge.worker.reconcile import BuildReconciler
from tests.support.builders import HOUR, MINUTE
from tests.support.worker_play import Play

AHEAD_US = 8 * HOUR  # China's local time, taken for UTC

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def play(database, clock, tmp_path):
    return Play(database, clock, tmp_path, has_codearts=True)


def monitor_of(play, check=None):
    config = play.config
    return ClockSkewMonitor(
        database=config.database,
        clock=config.clock,
        stopping=config.stopping,
        policy=lambda: config.policy,
        check=check,
    )


@pytest.mark.parametrize("away", [set(), {"testnod", "codearts"}, {"storage"}], ids=["none", "all", "storage"])
async def test_what_was_left_by_a_clock_that_was_ahead_goes_on_at_once(play, clock, away):
    clock.advance(AHEAD_US)
    monitor = monitor_of(play)
    play.outside.away = away
    await play.arrive(1)
    await play.until(clock.now() + 2 * MINUTE)

    clock.advance(-AHEAD_US)
    play.outside.away = set()
    await monitor.check()
    await play.arrive(2)
    await play.hours(2)  # the longest back-off of the play is one

    assert set(await play.states()) == {"delivered"}
    assert len(play.outside.finalized) == 6


async def test_a_step_that_is_small_or_ahead_moves_nothing_and_small_ones_add_up(play, clock):
    monitor = monitor_of(play)
    clock.advance(HOUR)
    await monitor.check()
    await play.arrive(1)

    async def due_at() -> int:
        (row, *_) = await play.ledger.rows(select(builds.c.due_at))
        return row.due_at

    began_at = await due_at()
    for _ in range(2):
        clock.advance(-TOLERATED_US // 2)
        await monitor.check()
        assert await due_at() == began_at
    clock.advance(-SECOND)
    await monitor.check()
    assert await due_at() == began_at - TOLERATED_US - SECOND


async def test_after_a_step_nothing_is_visited_until_the_ledgers_times_are_corrected(play, clock):
    check = LedgerClockCheck(play.config.database, clock)
    play.config = config = replace(play.config, clock_verdict=check.check)
    monitor = monitor_of(play, check)
    await play.arrive(1)
    leased = await config.database.write(claim, Claim(route="", owner="me", lease_us=15 * SECOND))
    claimed = await config.database.read(read_claimed, leased)
    clock.advance(-AHEAD_US)

    await BuildReconciler(config, claimed, clock.now()).run(config.executor)
    assert not play.outside.registered
    await monitor.check()
    assert check.check().state is not ClockState.STEPPED
    await BuildReconciler(config, claimed, clock.now()).run(
        config.executor
    )  # what it read is from before the correction
    assert not play.outside.registered

    await play.hours(1)
    assert play.outside.registered


@pytest.mark.parametrize("by_us", [15 * MINUTE, 40 * DAY, -15 * MINUTE, -40 * DAY])
@pytest.mark.parametrize("closes", ["before the correction", "in a gateway that starts with the wrong clock"])
async def test_an_outage_is_as_long_as_it_was_whatever_the_clock_showed_when_it_ended(play, clock, by_us, closes):
    check = LedgerClockCheck(play.config.database, clock)
    await check.start()
    monitor = monitor_of(play, check)
    await play.config.send_signal(TESTNOD, HealthSignal.TRIP, "It is away.", PROBER)
    clock.advance(MINUTE)

    clock.step(by_us)
    if closes != "before the correction":
        check = LedgerClockCheck(play.config.database, clock)
        await check.start()
        monitor = monitor_of(play, check)
    await play.config.send_signal(TESTNOD, HealthSignal.SUCCESS, "", PROBER)
    clock.advance(SECOND)
    if closes != "before the correction":
        clock.step(-by_us)
    await monitor.check()

    lasted = (await play.config.database.read(all_breakers)).outage_us_of(TESTNOD, clock.now())
    assert lasted == MINUTE if by_us > 0 else lasted <= MINUTE


async def test_an_outage_that_ended_by_the_worse_of_two_wrong_clocks_does_not_last_until_then(play, clock):
    """One gateway opened the breaker, and another one, whose clock was even further ahead, closed it."""
    now = clock.now()
    clock.step(2 * MINUTE)
    await play.arrive(1)
    await play.config.send_signal(TESTNOD, HealthSignal.TRIP, "It is away.", PROBER)
    clock.step(40 * DAY)
    await play.config.send_signal(TESTNOD, HealthSignal.SUCCESS, "", PROBER)
    clock.step(now - clock.now())

    check = LedgerClockCheck(play.config.database, clock)
    await check.start()
    check.record_date("testnod", clock.now())
    await monitor_of(play, check).check()

    assert (await play.config.database.read(all_breakers)).outage_us_of(TESTNOD, clock.now()) == 0
    known = (await play.config.database.read(all_breakers)).known[TESTNOD]
    assert (known.outage_ended_at, known.succeeded_at) == (now, now)


async def test_a_success_by_a_clock_that_was_ahead_hides_no_later_one(play, clock):
    clock.step(40 * DAY)
    await play.config.send_signal(TESTNOD, HealthSignal.SUCCESS, "", PROBER)
    clock.step(-40 * DAY)
    await play.arrive(1)

    leased = await play.config.database.write(claim, Claim(route="", owner="me", lease_us=15 * SECOND))
    reconciler = BuildReconciler(play.config, await play.config.database.read(read_claimed, leased), clock.now())
    await reconciler.report_upstream_health(((TESTNOD, HealthSignal.SUCCESS, ""),))

    assert (await play.config.database.read(all_breakers)).known[TESTNOD].succeeded_at == clock.now()
