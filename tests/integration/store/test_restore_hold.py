"""A held ledger: what of it is doubtful, and what a person's word changes."""

import pytest
from sqlalchemy import select

from bridge.domain.build import DeliveryState
from bridge.domain.circuit_breaker import RESTORE_PAUSE
from bridge.errors import LedgerHeld
from bridge.store.backup import back_up
from bridge.store.circuit_breakers import all_breakers
from bridge.store.engine.sqlite import SqliteDatabase, closing
from bridge.store.restore_hold import Resumption, UncertainDeliveries, pause_ledger, paused_since, restore_hold, resume
from bridge.store.schema import deliveries
from tests.integration.store.ledger import Ledger, report

HOUR = 3_600_000_000
MAX_FINALIZE_DELAY = 30 * 60_000_000


async def resumed(database, doubtful=None):
    return await database.write(resume, Resumption(doubtful=doubtful, max_finalize_delay_us=MAX_FINALIZE_DELAY))


@pytest.fixture
async def held(ledger, database, clock):
    """Since when the ledger is held, that has a report from before it and one from an hour after."""
    await ledger.accept(report("before.xml"))
    held_at = await database.write(pause_ledger, None)
    clock.advance(HOUR)
    await ledger.accept(report("after.xml"))
    return held_at


async def states(ledger):
    return [row.state for row in await ledger.rows(select(deliveries.c.state).order_by(deliveries.c.id))]


@pytest.mark.usefixtures("held")
async def test_only_what_was_owed_before_it_was_held_is_doubtful(database):
    found = await database.read(restore_hold)
    assert (found.count, [named.name for named in found.reports]) == (1, ["before.xml"])


async def test_holding_it_again_changes_nothing(held, database, clock):
    clock.advance(HOUR)
    assert await database.write(pause_ledger, None) == held


@pytest.mark.usefixtures("held")
async def test_without_a_word_about_the_doubtful_it_stays_held(database):
    with pytest.raises(LedgerHeld, match=r"^1 report may have been delivered"):
        await resumed(database)
    assert await database.read(paused_since) is not None


@pytest.mark.usefixtures("held")
async def test_what_is_assumed_delivered_is_sent_no_more_and_the_rest_is(ledger, database):
    assert await resumed(database, UncertainDeliveries.ASSUME_DELIVERED) == 1
    assert await states(ledger) == [DeliveryState.DELIVERED, DeliveryState.PENDING]
    assert await database.read(paused_since) is None


@pytest.mark.usefixtures("held")
async def test_what_is_sent_again_is_owed_as_before(ledger, database):
    assert await resumed(database, UncertainDeliveries.REDELIVER) == 1
    assert await states(ledger) == [DeliveryState.PENDING] * 2


async def test_where_nothing_is_doubtful_nothing_has_to_be_said(database):
    await database.write(pause_ledger, None)
    assert await resumed(database) == 0


async def test_the_clocks_that_give_up_stand_still_meanwhile(held, database, clock):
    await resumed(database, UncertainDeliveries.REDELIVER)
    assert (await database.read(all_breakers)).known[RESTORE_PAUSE].total_outage_us == clock.now() - held


async def test_a_ledger_that_is_not_held_cannot_be_resumed(database):
    with pytest.raises(LedgerHeld, match="nothing to resume"):
        await resumed(database)


async def test_all_that_is_owed_in_a_copy_is_doubtful_also_what_came_while_it_was_made(sqlite, clock, tmp_path):
    async with sqlite.fresh(clock) as original:
        began = clock.now()
        clock.advance(HOUR)
        await Ledger(original).accept(report("meanwhile.xml"))
        copied = back_up(original.path, None, tmp_path / "first", began)
    with closing(SqliteDatabase(copied.ledger, clock)) as held:
        assert (await held.read(restore_hold)).count == 1
        clock.advance(HOUR)
        await Ledger(held).accept(report("while-held.xml"))
        assert (await held.read(restore_hold)).count == 1
        copied = back_up(held.path, None, tmp_path / "second", clock.now())
    with closing(SqliteDatabase(copied.ledger, clock)) as again:
        assert (await again.read(restore_hold)).count == 2
        await resumed(again, UncertainDeliveries.REDELIVER)
        assert (await again.read(all_breakers)).known[RESTORE_PAUSE].total_outage_us == HOUR
