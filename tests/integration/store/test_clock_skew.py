"""The ledger's times as evidence, how they are moved, and what is taken back that a wrong clock ended."""

from dataclasses import replace

import pytest
from sqlalchemy import select

from bridge.domain.build import BuildState, DeliveryState, DeliveryTarget, EndReason
from bridge.domain.changes import set_build, set_delivery, set_registration
from bridge.domain.clock_trust import LedgerTimes, Step
from bridge.domain.lifecycle.context import GIVEN_UP
from bridge.store.clock_skew import RetryWindow, move_back, move_on, revert_early_ends, times_in_ledger
from bridge.store.schema import builds, deliveries, registrations, rejections, reports, submissions
from bridge.store.submissions import register
from tests.integration.store.test_submissions import registration
from tests.support.ledger import asked, kept_refusal, report

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 24 * 3600 * SECOND
YEARS = 3652 * DAY
LIMITS = RetryWindow(give_up_after=7 * DAY, max_age=DAY, idle_timeout=15 * MINUTE)


async def died(ledger, *, first_failure_at, last_error=f"{GIVEN_UP} The last error was: 500"):
    await ledger.accept(report())
    visit = await ledger.claimed()
    values = {
        "state": DeliveryState.DEAD,
        "first_failure_at": first_failure_at,
        "last_error": last_error,
        "attempts": 9,
    }
    await ledger.record(visit.build, set_delivery(visit.build.deliveries[1], **values))
    await ledger.release(visit, None)


@pytest.mark.parametrize(
    ("tried_for", "last_error", "state"),
    [
        (8 * DAY, f"{GIVEN_UP} The last error was: 500", DeliveryState.DEAD),
        (6 * DAY, f"{GIVEN_UP} The last error was: 500", DeliveryState.PENDING),
        (6 * DAY, "metadata.build_id is required.", DeliveryState.DEAD),
    ],
)
async def test_what_was_given_up_too_early_is_owed_again(database, ledger, clock, tried_for, last_error, state):
    await died(ledger, first_failure_at=clock.now() - tried_for, last_error=last_error)
    before = await ledger.row()

    assert await database.write(revert_early_ends, LIMITS) == (state is DeliveryState.PENDING)

    delivery = (await ledger.build()).deliveries[1]
    assert delivery.state is state
    if state is DeliveryState.PENDING:
        row = await ledger.row()
        assert (delivery.first_failure_at, delivery.attempts, delivery.due_at) == (None, 0, clock.now())
        assert (row.report_seq, row.due_at) == (before.report_seq + 1, clock.now())


@pytest.mark.parametrize(
    ("by", "age", "again"),
    [
        (EndReason.MAX_AGE, HOUR, True),
        (EndReason.MAX_AGE, 2 * DAY, False),
        (EndReason.IDLE, MINUTE, True),
        (EndReason.IDLE, HOUR, False),
        (EndReason.BUILD_INFO, MINUTE, False),
    ],
)
async def test_an_end_that_came_too_early_is_taken_back_by_the_next_visit(database, ledger, clock, by, age, again):
    await ledger.accept(report())
    visit = await ledger.claimed()
    seen = visit.build.last_report_at
    ended = {"state": BuildState.ENDED, "ended_at": clock.now(), "end_reason": by, "ended_report_at": seen}
    await ledger.record(visit.build, set_build(**ended))
    await ledger.release(visit, None)
    clock.advance(age)

    await database.write(revert_early_ends, LIMITS)

    row = await ledger.row()
    assert (row.ended_report_at is None, row.due_at) == ((True, clock.now()) if again else (False, None))


async def test_times_to_come_do_not_become_old_when_a_clock_is_set_back(database, ledger, clock):
    """A dead report is kept from when it was to be tried next, and a refused file for as long as was said."""
    await died(ledger, first_failure_at=clock.now())
    visit_at = clock.now() + MINUTE
    await ledger.enter(rejections=(kept_refusal(),))
    (kept,) = await ledger.rows(select(rejections.c.kept_until))
    await database.write(_set_due, visit_at)

    await database.write(move_back, 40 * DAY)

    assert (await ledger.build()).deliveries[1].due_at == clock.now()
    assert await ledger.rows(select(rejections.c.kept_until)) == [kept]


def _set_due(connection, _now, items):
    for at in items:
        connection.execute(deliveries.update().values(due_at=at))
    return [None for _ in items]


@pytest.mark.parametrize("registered", [-MINUTE, DAY, 2 * DAY], ids=["before", "then", "by a clock further ahead"])
async def test_a_url_is_valid_for_as_long_as_before_when_a_clock_is_set_back(database, ledger, clock, registered):
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.record(visit.build, asked(visit.build.deliveries[1]))
    at = clock.now() + registered
    expires_at = at + 5 * MINUTE
    (life,) = (await ledger.build()).registrations.values()
    await ledger.record(visit.build, set_registration(life, registered_at=at, expires_at=expires_at))

    await database.write(move_back, DAY)

    (row,) = await ledger.rows(select(registrations.c.registered_at, registrations.c.expires_at))
    assert row.registered_at == min(at, clock.now())
    assert row.expires_at - row.registered_at == expires_at - at


@pytest.mark.parametrize("behind", [False, True])
async def test_the_url_of_a_registered_upload_lasts_as_long_as_before(database, ledger, clock, behind):
    clock.advance(-DAY if behind else DAY)
    await database.write(register, registration())
    (before,) = await ledger.rows(select(submissions))
    clock.advance(DAY if behind else -DAY)

    if behind:
        now = clock.now()
        await database.write(move_on, Step(by_us=DAY, before=now - DAY, began=now - 2 * DAY, was_behind=True))
    else:
        await database.write(move_back, DAY)

    (after,) = await ledger.rows(select(submissions))
    for name in ("registered_at", "expires_at", "given_up_at"):
        assert getattr(after, name) - getattr(before, name) == (DAY if behind else -DAY)


async def test_what_a_clock_that_was_ahead_refused_and_accepted_is_moved_back_whole(database, ledger, clock):
    clock.advance(40 * DAY)
    await ledger.accept(report(), rejections=(kept_refusal(),))
    clock.advance(-40 * DAY)

    await database.write(move_back, 40 * DAY)

    (refusal,) = await ledger.rows(select(rejections))
    (row,) = await ledger.rows(select(reports.c.accepted_at))
    assert (refusal.rejected_at, row.accepted_at) == (clock.now(), clock.now())
    assert clock.now() < refusal.kept_until < clock.now() + 40 * DAY


async def test_what_clocks_that_were_ahead_by_different_spans_wrote_is_not_older_than_it_is(database, ledger, clock):
    began = clock.now()
    await ledger.accept(report())
    for ahead, build_no in ((MINUTE, 2), (40 * DAY, 3), (80 * DAY, 4)):
        clock.set(began + ahead)
        await ledger.accept(report(), build_no=build_no)
    clock.set(began + SECOND)

    await database.write(move_back, 40 * DAY)

    rows = await ledger.rows(select(reports.c.accepted_at).order_by(reports.c.id))
    assert [row.accepted_at for row in rows] == [began, clock.now(), began, clock.now()]


async def test_what_the_right_clock_wrote_is_not_older_than_it_is_if_one_far_ahead_is_set_a_little_behind(
    database, ledger, clock
):
    """All rows of a new ledger are after the clock that is behind; one report was given up as 40 days old."""
    began = clock.now()
    await ledger.accept(report())
    clock.set(began + 40 * DAY)
    await ledger.accept(report(), build_no=2)
    clock.set(began - MINUTE)

    await database.write(move_back, 40 * DAY + MINUTE)

    rows = await ledger.rows(select(reports.c.accepted_at).order_by(reports.c.id))
    assert [row.accepted_at for row in rows] == [clock.now(), clock.now()]


async def test_what_a_clock_that_was_further_ahead_made_due_is_due_at_once(database, ledger, clock):
    """Three hours ahead, then fifteen minutes: nothing shows the first clock but what it made due."""
    await ledger.accept(report())
    due_at = clock.now() + 3 * 60 * MINUTE
    await database.write(_set_due, due_at)
    await database.transact(lambda connection, _now: connection.execute(builds.update().values(due_at=due_at)).rowcount)

    await database.write(move_back, 15 * MINUTE)

    build = await ledger.build()
    assert {delivery.due_at for delivery in build.deliveries.values()} == {clock.now()}
    assert (await ledger.row()).due_at == clock.now()


async def test_the_day_of_a_copy_that_lies_in_the_archive_stays(database, ledger, clock):
    for body in (b"<testsuite/>", b"<testsuites/>"):
        await ledger.accept(report(body=body), targets=(DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE))
    visit = await ledger.claimed()
    at = clock.now() + DAY
    delivered = {"state": DeliveryState.DELIVERED, "delivered_at": at}
    changes = [set_delivery(visit.build.deliveries[number], **delivered) for number in (1, 2, 3)]
    await ledger.record(visit.build, *changes)

    await database.write(move_back, DAY)

    rows = await ledger.rows(select(deliveries.c.delivered_at).order_by(deliveries.c.id).limit(3))
    assert [row.delivered_at for row in rows] == [at, at, at - DAY]


@pytest.mark.parametrize("was_behind", [False, True])
async def test_what_is_not_finished_is_as_old_as_before_when_a_clock_is_set_forward(
    database, ledger, clock, was_behind
):
    await ledger.accept(report(), rejections=(kept_refusal(),))
    visit = await ledger.claimed()
    began = clock.now()
    await ledger.record(visit.build, set_delivery(visit.build.deliveries[1], first_failure_at=began))
    await ledger.release(visit, began + MINUTE)
    clock.advance(MINUTE)
    step = Step(by_us=YEARS, before=clock.now(), began=began, was_behind=was_behind)
    clock.advance(YEARS)

    await database.write(move_on, step)

    row, delivery = await ledger.row(), (await ledger.build()).deliveries[1]
    assert {row.accepted_at, row.last_report_at, delivery.first_failure_at, delivery.pending_since} <= {
        began + YEARS,
        began + YEARS + 1,
    }
    (refusal,) = await ledger.rows(select(rejections))
    assert refusal.kept_until > clock.now()
    assert refusal.rejected_at == (began + YEARS if was_behind else began)
    (kept,) = await ledger.rows(select(reports.c.accepted_at))
    assert kept.accepted_at == (began + YEARS if was_behind else began)


async def test_what_a_clock_that_was_behind_did_not_write_stays(database, ledger, clock):
    await ledger.accept(report())
    before = await ledger.row()
    behind = clock.now() - YEARS
    step = Step(by_us=YEARS, before=behind + MINUTE, began=behind, was_behind=True)

    await database.write(move_on, step)

    assert await ledger.row() == before


async def test_the_ledger_tells_whether_the_last_clock_was_behind(database, ledger, clock):
    assert await database.read(times_in_ledger) is None
    await ledger.accept(report())
    right = clock.now()
    assert await database.read(times_in_ledger) == LedgerTimes(latest=right, newest=right, began=right)

    clock.advance(-YEARS)
    await ledger.accept(report(body=b"<testsuites/>"))
    began = clock.now()
    clock.advance(MINUTE)
    await ledger.accept(replace(report(body=b"<testsuites></testsuites>")))
    found = await database.read(times_in_ledger)
    assert (found.latest, found.began) == (right, began)
    assert found.newest == clock.now()
    assert [row.state for row in await ledger.rows(select(builds.c.state))] == ["open"]
