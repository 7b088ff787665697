"""A restored ledger: its uncertain reports, and what the operator's decision changes."""

import pytest
from sqlalchemy import select

from bridge.domain.build import BuildState, DeliveryState
from bridge.domain.changes import set_build, set_delivery
from bridge.domain.circuit_breaker import RESTORE_PAUSE, TESTNOD, HealthSignal, register_breaker, storage_breaker
from bridge.errors import ResumeRejected
from bridge.store.backup import back_up
from bridge.store.circuit_breakers import BreakerSignal, all_breakers, apply_breaker_signals
from bridge.store.engine.sqlite import SqliteDatabase, closing
from bridge.store.restore_pause import (
    Resumption,
    UncertainDeliveries,
    pause_ledger,
    paused_since,
    restore_pause,
    resume,
)
from bridge.store.schema import deliveries
from tests.support.ledger import Ledger, report

HOUR = 3_600_000_000
HOLD_RUN = 30 * 60_000_000


async def resumed(database, uncertain=None):
    return await database.write(resume, Resumption(uncertain=uncertain, max_finalize_delay_us=HOLD_RUN))


@pytest.fixture
async def paused(ledger, database, clock):
    """Since when the ledger is paused, which has a report from before it and one from an hour after."""
    await ledger.accept(report("before.xml"))
    since = await database.transact(pause_ledger)
    clock.advance(HOUR)
    await ledger.accept(report("after.xml"))
    return since


async def states(ledger):
    return [row.state for row in await ledger.rows(select(deliveries.c.state).order_by(deliveries.c.id))]


@pytest.mark.usefixtures("paused")
async def test_only_reports_from_before_the_pause_are_uncertain(database):
    found = await database.read(restore_pause)
    assert (found.count, [named.name for named in found.reports]) == (1, ["before.xml"])


async def test_a_second_pause_changes_nothing(paused, database, clock):
    clock.advance(HOUR)
    assert await database.transact(pause_ledger) == paused


@pytest.mark.usefixtures("paused")
async def test_without_a_decision_about_uncertain_reports_it_stays_paused(database):
    with pytest.raises(ResumeRejected, match=r"^1 report may have been delivered"):
        await resumed(database)
    assert await database.read(paused_since) is not None


@pytest.mark.usefixtures("paused")
async def test_reports_assumed_delivered_are_not_sent_and_the_others_are(ledger, database):
    assert await resumed(database, UncertainDeliveries.ASSUME_DELIVERED) == 1
    assert await states(ledger) == [DeliveryState.DELIVERED, DeliveryState.PENDING]
    assert await database.read(paused_since) is None


@pytest.mark.usefixtures("paused")
async def test_reports_to_send_again_stay_pending(ledger, database):
    assert await resumed(database, UncertainDeliveries.REDELIVER) == 1
    assert await states(ledger) == [DeliveryState.PENDING] * 2


@pytest.mark.parametrize(
    ("decision", "replaceable"),
    [(None, False), (UncertainDeliveries.ASSUME_DELIVERED, False), (UncertainDeliveries.REDELIVER, True)],
)
async def test_runs_from_before_the_pause_are_replaced_only_if_reports_may_be_sent_again(
    ledger, database, decision, replaceable
):
    """The gateway of the original ledger may have replaced them since."""
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.run_parameters(visit, "shop")
    delivered = set_delivery(visit.build.deliveries[1], state=DeliveryState.DELIVERED)
    await ledger.record(visit.build, delivered, set_build(state=BuildState.ENDED))
    await ledger.record(visit.build, set_build(state=BuildState.FINALIZED, confirm_until=9))
    await database.transact(pause_ledger)

    await resumed(database, decision)

    assert (await ledger.build()).run_parameters.replaceable is replaceable


async def test_without_uncertain_reports_no_decision_is_needed(database):
    await database.transact(pause_ledger)
    assert await resumed(database) == 0


async def test_the_pause_counts_as_an_outage(paused, database, clock):
    await resumed(database, UncertainDeliveries.REDELIVER)
    assert (await database.read(all_breakers)).known[RESTORE_PAUSE].outage_us(clock.now()) == clock.now() - paused


async def test_a_ledger_that_is_not_paused_cannot_be_resumed(database):
    with pytest.raises(ResumeRejected, match="nothing to resume"):
        await resumed(database)


async def test_all_pending_reports_of_a_copy_are_uncertain_also_those_from_while_it_was_made(sqlite, clock, tmp_path):
    async with sqlite.fresh(clock) as original:
        began = clock.now()
        clock.advance(HOUR)
        await Ledger(original).accept(report("meanwhile.xml"))
        copied = back_up(original.path, None, tmp_path / "first", began)
    with closing(SqliteDatabase(copied.ledger, clock)) as held:
        assert (await held.read(restore_pause)).count == 1
        clock.advance(HOUR)
        await Ledger(held).accept(report("while-held.xml"))
        assert (await held.read(restore_pause)).count == 1
        copied = back_up(held.path, None, tmp_path / "second", clock.now())
    with closing(SqliteDatabase(copied.ledger, clock)) as again:
        assert (await again.read(restore_pause)).count == 2
        await resumed(again, UncertainDeliveries.REDELIVER)
        assert (await again.read(all_breakers)).known[RESTORE_PAUSE].outage_us(clock.now()) == HOUR


@pytest.mark.parametrize("uncertain", list(UncertainDeliveries))
async def test_breakers_that_no_build_would_probe_after_the_pause_are_closed(ledger, database, uncertain):
    await ledger.accept(report("before.xml"))
    for name in (TESTNOD, register_breaker("shop"), storage_breaker("shop")):
        trip = BreakerSignal(breaker=name, signal=HealthSignal.TRIP, reason="It hangs.", probe_delay_us=HOUR)
        await database.write(apply_breaker_signals, trip)
    await database.transact(pause_ledger)

    await resumed(database, uncertain)

    breakers = await database.read(all_breakers)
    closed = uncertain is UncertainDeliveries.ASSUME_DELIVERED
    assert [breakers.is_open(name) for name in (register_breaker("shop"), storage_breaker("shop"))] == [not closed] * 2
    assert breakers.is_open(TESTNOD)  # the circuit probe itself probes it
