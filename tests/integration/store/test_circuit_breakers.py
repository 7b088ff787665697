import asyncio

import pytest
from sqlalchemy import select

from bridge.domain.circuit_breaker import CODEARTS, FAILING_FOR_US, TESTNOD, HealthSignal
from bridge.store.circuit_breakers import (
    BreakerSignal,
    WakeForProbe,
    all_breakers,
    apply_breaker_signals,
    open_breakers,
    take_probe,
    wake_for_probe,
    wake_waiting_builds,
)
from bridge.store.schema import builds
from tests.support.fake_clock import START
from tests.support.ledger import report

SECOND = 1_000_000


@pytest.fixture
def told(database):
    """Write signals of one breaker, one after the other; return the breaker."""

    async def write(*signals, breaker=TESTNOD):
        for signal in signals:
            value = BreakerSignal(breaker=breaker, signal=signal, reason="it hangs", probe_delay_us=SECOND)
            last = await database.write(apply_breaker_signals, value)
        return last

    return write


@pytest.fixture
async def opened(told):
    """TestNod's breaker, open."""
    return await told(HealthSignal.TRIP)


# -- breakers ----------------------------------------------------------------------------------------------------


async def test_a_breaker_opens_after_three_failures_in_a_row_that_lasted(told, database, clock):
    assert (await told(HealthSignal.FAILURE, HealthSignal.FAILURE, HealthSignal.FAILURE)).opened_at is None
    assert await database.read(open_breakers) == []
    clock.advance(FAILING_FOR_US)
    breaker = await told(HealthSignal.FAILURE)
    at = START + FAILING_FOR_US
    assert (breaker.opened_at, breaker.probe_at, breaker.reason) == (at, at + SECOND, "it hangs")
    assert await database.read(open_breakers) == [breaker]


async def test_a_success_between_failures_keeps_a_breaker_closed(told):
    breaker = await told(
        HealthSignal.FAILURE, HealthSignal.FAILURE, HealthSignal.SUCCESS, HealthSignal.FAILURE, HealthSignal.FAILURE
    )
    assert (breaker.opened_at, breaker.failures) == (None, 2)


async def test_a_breaker_that_is_tripped_opens_at_once(told):
    assert (await told(HealthSignal.TRIP)).opened_at == START


async def test_failures_of_many_calls_at_once_are_all_counted(told):
    await asyncio.gather(*(told(HealthSignal.FAILURE) for _ in range(10)))
    assert (await told(HealthSignal.FAILURE)).failures == 11


@pytest.mark.usefixtures("opened")
async def test_a_closed_breaker_keeps_how_long_it_was_open(told, database, clock):
    clock.advance(7 * SECOND)
    await told(HealthSignal.SUCCESS)
    breakers = await database.read(all_breakers)
    assert breakers.known[TESTNOD].outage_us(clock.now()) == 7 * SECOND


async def test_every_breaker_opens_on_its_own(told, database):
    await told(HealthSignal.TRIP, breaker="route:shop")
    await told(HealthSignal.FAILURE)
    assert [breaker.name for breaker in await database.read(open_breakers)] == ["route:shop"]
    assert set((await database.read(all_breakers)).known) == {"route:shop", TESTNOD}


async def test_a_claim_returns_the_breakers_as_they_are(ledger, opened):
    await ledger.accept(report())
    assert (await ledger.claimed()).breakers.open_breaker(TESTNOD) == opened


# -- the nudge ---------------------------------------------------------------------------------------------------


async def wait_for(ledger, clock, breaker, build_no, until_us=60 * SECOND):
    """Accept a report of a build and let its reconcile end in waiting for `breaker`."""
    await ledger.accept(report(), build_no=build_no)
    visit = await ledger.claimed()
    await ledger.release(visit, clock.now() + until_us, waiting_on=breaker)
    return visit.build.id


@pytest.mark.usefixtures("opened")
async def test_a_breaker_that_closes_wakes_the_builds_that_wait_for_it_and_no_others(ledger, told, clock):
    waiting = await wait_for(ledger, clock, TESTNOD, 1)
    elsewhere = await wait_for(ledger, clock, "route:shop", 2)
    for_nothing = await wait_for(ledger, clock, None, 3)
    before = [await ledger.row(build_id) for build_id in (elsewhere, for_nothing)]
    clock.advance(SECOND)
    await told(HealthSignal.SUCCESS)
    row = await ledger.row(waiting)
    assert (row.due_at, row.waiting_on, row.report_seq) == (clock.now(), None, 1)
    assert [await ledger.row(build_id) for build_id in (elsewhere, for_nothing)] == before


@pytest.mark.parametrize("breaker", [TESTNOD, "route:shop", "register:shop"])
async def test_a_report_that_comes_during_a_reconcile_waits_for_testnod_with_the_others(ledger, told, clock, breaker):
    await told(HealthSignal.TRIP, breaker=breaker)
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.accept(report("late.xml"))
    await ledger.release(visit, START + 60 * SECOND, waiting_on=breaker)
    row = await ledger.row()
    assert (row.due_at, row.waiting_on, row.report_seq) == (START + 60 * SECOND, breaker, 2)

    clock.advance(SECOND)
    await told(HealthSignal.SUCCESS, breaker=breaker)

    assert ((await ledger.row()).due_at, (await ledger.row()).waiting_on) == (clock.now(), None)


@pytest.mark.parametrize("breaker", ["storage:shop", CODEARTS])
async def test_a_report_that_comes_during_a_reconcile_does_not_wait_for_storage_or_codearts(ledger, told, breaker):
    await told(HealthSignal.TRIP, breaker=breaker)
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.accept(report("late.xml"))
    await ledger.release(visit, START + 60 * SECOND, waiting_on=breaker)
    assert (await ledger.row()).due_at == START


@pytest.mark.usefixtures("opened")
async def test_a_report_of_a_build_that_waits_for_testnod_makes_nothing_due(ledger):
    assert (await ledger.enter(report())).may_be_due
    visit = await ledger.claimed()
    assert (await ledger.enter(report("during a reconcile.xml"))).may_be_due
    await ledger.release(visit, START + 60 * SECOND, waiting_on=TESTNOD)
    assert not (await ledger.enter(report("after it.xml"))).may_be_due
    assert (await ledger.enter(complete=True)).may_be_due


@pytest.mark.usefixtures("opened")
async def test_a_build_that_is_completed_during_a_reconcile_is_due_although_it_waits_for_testnod(ledger):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.accept(complete=True)
    await ledger.release(visit, START + 60 * SECOND, waiting_on=TESTNOD)
    assert (await ledger.row()).due_at == START - 1


@pytest.mark.usefixtures("opened")
async def test_a_breaker_that_closes_makes_no_build_due_later(ledger, told, clock):
    waiting = await wait_for(ledger, clock, TESTNOD, 1, until_us=SECOND)
    clock.advance(5 * SECOND)
    await told(HealthSignal.SUCCESS)
    assert (await ledger.row(waiting)).due_at == START + SECOND


async def test_new_settings_wake_the_builds_that_wait_on_something_and_no_others(ledger, database, clock):
    waiting = await wait_for(ledger, clock, "route:", 1)
    for_nothing = await wait_for(ledger, clock, None, 2)
    due_already = await wait_for(ledger, clock, TESTNOD, 3, until_us=SECOND)
    clock.advance(2 * SECOND)

    await database.transact(wake_waiting_builds)

    due = [(await ledger.row(build_id)).due_at for build_id in (waiting, for_nothing, due_already)]
    assert due == [clock.now(), START + 60 * SECOND, START + SECOND]


@pytest.mark.parametrize("signal", [HealthSignal.FAILURE, HealthSignal.TRIP])
@pytest.mark.usefixtures("opened")
async def test_a_breaker_that_stays_open_wakes_no_build(ledger, told, clock, signal):
    before = await ledger.row(await wait_for(ledger, clock, TESTNOD, 1))
    await told(signal)
    assert await ledger.row() == before


async def test_a_breaker_that_never_opened_wakes_no_build(ledger, told, clock):
    before = await ledger.row(await wait_for(ledger, clock, TESTNOD, 1))
    await told(HealthSignal.FAILURE, HealthSignal.SUCCESS)
    assert await ledger.row() == before


# -- the probe ---------------------------------------------------------------------------------------------------


async def test_an_open_breaker_is_probed_by_one_asker_only(database, clock, opened):
    clock.set(opened.probe_at)
    taken = await asyncio.gather(*(database.write(take_probe, (TESTNOD, SECOND)) for _ in range(10)))
    assert taken.count(True) == 1


async def test_an_open_breaker_is_not_probed_before_its_time(database, clock, opened):
    clock.set(opened.probe_at - 1)
    assert not await database.write(take_probe, (TESTNOD, SECOND))


async def test_the_next_probe_is_due_when_the_last_prober_said(database, clock, opened):
    clock.set(opened.probe_at)
    assert await database.write(take_probe, (TESTNOD, 3 * SECOND))
    clock.advance(3 * SECOND - 1)
    assert not await database.write(take_probe, (TESTNOD, SECOND))
    clock.advance(1)
    assert await database.write(take_probe, (TESTNOD, SECOND))
    (breaker,) = await database.read(open_breakers)
    assert (breaker.probes, breaker.probe_at) == (2, clock.now() + SECOND)


async def test_a_failed_probe_leaves_the_time_of_the_next_one(told, database, clock, opened):
    clock.set(opened.probe_at)
    await database.write(take_probe, (TESTNOD, 9 * SECOND))
    assert (await told(HealthSignal.FAILURE)).probe_at == clock.now() + 9 * SECOND


async def test_a_breaker_that_is_closed_or_unknown_is_not_probed(told, database, clock):
    await told(HealthSignal.FAILURE, breaker="route:shop")
    clock.advance(60 * SECOND)
    assert not await database.write(take_probe, ("route:shop", SECOND))
    assert not await database.write(take_probe, ("route:none", SECOND))


# -- whose turn it is to probe -----------------------------------------------------------------------------------

JOB = "a" * 32


@pytest.fixture
async def waiting(ledger, told):
    """Have builds 1 to 4 wait for TestNod's breaker; return their ids in that order."""
    await told(HealthSignal.TRIP)
    ids = []
    for number in range(1, 5):
        await ledger.accept(report(), job_id=JOB, build_no=number)
        visit = await ledger.claimed()
        await ledger.release(visit, visit.now + 600 * SECOND, waiting_on=TESTNOD)
        ids.append(visit.build.id)
    return ids


async def wake(database, after=0):
    return await database.write(wake_for_probe, WakeForProbe(breaker=TESTNOD, after=after, first_us=SECOND))


async def due(ledger, now):
    return {row.id for row in await ledger.rows(select(builds.c.id).where(builds.c.due_at <= now))}


async def test_no_build_is_woken_before_a_probe_is_due_and_one_alone_then(database, ledger, waiting, clock):
    assert (await wake(database), await due(ledger, clock.now())) == (None, set())
    clock.advance(SECOND)
    assert await wake(database) == waiting[0]
    assert await due(ledger, clock.now()) == {waiting[0]}


async def test_builds_are_woken_in_turn(database, waiting, clock):
    clock.advance(SECOND)
    woken = [0]
    for _ in range(6):
        woken.append(await wake(database, after=woken[-1]))
    assert woken[1:] == [*waiting, *waiting[:2]]


async def test_builds_that_have_not_failed_at_the_upstream_are_woken_first_and_earlier(database, waiting, clock):
    for build_id in waiting[:3]:
        failed = BreakerSignal(
            breaker=TESTNOD, signal=HealthSignal.UNEXPECTED, reason="HTTP 500", probe_delay_us=SECOND, source=build_id
        )
        await database.write(apply_breaker_signals, failed)
    clock.advance(SECOND)
    assert await database.write(take_probe, (TESTNOD, 3600 * SECOND))
    clock.advance(SECOND)
    assert await wake(database) == waiting[3]
    assert await database.write(take_probe, (TESTNOD, 3600 * SECOND))  # what was woken may probe at once
    failed = BreakerSignal(
        breaker=TESTNOD, signal=HealthSignal.UNEXPECTED, reason="HTTP 500", probe_delay_us=SECOND, source=waiting[3]
    )
    await database.write(apply_breaker_signals, failed)
    clock.advance(600 * SECOND)
    assert await wake(database) is None  # all have failed there: the next probe is due in an hour
    clock.advance(3600 * SECOND)
    assert await wake(database) == waiting[0]


@pytest.mark.usefixtures("waiting")
async def test_nothing_is_woken_for_a_breaker_that_is_closed(database, told, clock):
    clock.advance(SECOND)
    await told(HealthSignal.SUCCESS)
    assert await wake(database) is None
