"""The effects of a wrong clock on the ledger: finds them, reverts what ended because of them, and corrects times."""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from bridge.domain.build import UNSETTLED, BuildState, DeliveryState, DeliveryTarget, EndReason
from bridge.domain.clock_trust import OUT_OF_ORDER_US, LedgerTimes, Step
from bridge.domain.lifecycle.context import GIVEN_UP
from bridge.store.duplicates import requeued
from bridge.store.retention import WITH_BYTES
from bridge.store.schema import (
    UNFINISHED_BUILD,
    UNFINISHED_DELIVERY,
    asked_questions,
    builds,
    circuit_breakers,
    deliveries,
    registrations,
    rejections,
    reports,
    runs,
    submissions,
)
from bridge.values import dataclass

INSERTED: tuple[sa.Column[int], ...] = (
    reports.c.accepted_at,
    rejections.c.rejected_at,
    registrations.c.requested_at,
    runs.c.opened_at,
)
"""When rows were inserted: the newest row of each table has the highest id."""

RECENT: Final = 10_000
"""Reports whose order in time is checked: a wrong clock shows among them, or has written all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryWindow:
    """How long deliveries are retried and builds stay open, in microseconds."""

    give_up_after: int
    max_age: int
    idle_timeout: int


def ledger_time(_connection: sa.Connection, now: int) -> int:
    """Return the ledger's time in microseconds UTC, and write nothing."""
    return now


def times_in_ledger(connection: sa.Connection) -> LedgerTimes | None:
    """Return the times that show which clocks have written the ledger; None if it holds none."""
    times = [
        connection.execute(sa.select(column).order_by(column.table.c.id.desc()).limit(1)).scalar()
        for column in INSERTED
    ]
    times.append(connection.execute(sa.select(sa.func.max(builds.c.polled_at)).where(UNFINISHED_BUILD)).scalar())
    times.append(
        connection.execute(sa.select(sa.func.max(deliveries.c.first_failure_at)).where(UNFINISHED_DELIVERY)).scalar()
    )
    written = max((at for at in times if at is not None), default=None)
    if written is None:
        return None
    recent = (
        connection.execute(sa.select(reports.c.accepted_at).order_by(reports.c.id.desc()).limit(RECENT)).scalars().all()
    )
    highest = max(recent, default=written)
    if not recent or highest - recent[0] <= OUT_OF_ORDER_US:
        return LedgerTimes(latest=max(written, highest), newest=max(written, highest), began=written)
    began = min(recent[: recent.index(highest)])  # newer rows than the one with the latest time
    return LedgerTimes(latest=max(written, highest), newest=_last_before(connection, recent[0], highest), began=began)


def _last_before(connection: sa.Connection, at: int, before: int) -> int:
    """Return the last time of an attempt or an insert, not before `at` and well before `before`."""
    times = [at]
    for column in (*INSERTED, builds.c.polled_at, deliveries.c.first_failure_at, deliveries.c.due_at):
        found = sa.select(sa.func.max(column)).where(column > at, column < before - OUT_OF_ORDER_US)
        times.append(connection.execute(found).scalar() or at)
    return max(times)


def revert_early_ends(connection: sa.Connection, now: int, items: Sequence[RetryWindow]) -> list[int]:
    """Revert what ended too early by a clock that was ahead, compared with `now`; return the number of rows.

    A delivery that was given up, but not retried for long enough, becomes pending. A build that was ended by its age,
    but is not that old, is reopened by its next reconcile unless its run is finalized.
    """
    return [_requeue_given_up(connection, now, window) + _reopen(connection, now, window) for window in items]


def _requeue_given_up(connection: sa.Connection, now: int, window: RetryWindow) -> int:
    query = (
        sa.select(deliveries.c.id, deliveries.c.build_id)
        .join(reports, reports.c.id == deliveries.c.report_id)
        .where(
            deliveries.c.state == DeliveryState.DEAD,
            UNFINISHED_DELIVERY,
            deliveries.c.last_error.startswith(GIVEN_UP, autoescape=True),
            sa.func.coalesce(deliveries.c.blocked_since, deliveries.c.first_failure_at) > now - window.give_up_after,
            WITH_BYTES,
        )
    )
    found = connection.execute(query).all()
    if found:
        raised = {"report_seq": builds.c.report_seq + 1, "due_at": now}
        build_ids = sorted({row.build_id for row in found})
        locked = sa.select(builds.c.id).where(builds.c.id.in_(build_ids)).order_by(builds.c.id).with_for_update()
        connection.execute(locked)
        connection.execute(sa.update(builds).where(builds.c.id.in_(build_ids)).values(raised))
        connection.execute(requeued(now).where(deliveries.c.id.in_([row.id for row in found])))
    return len(found)


def _reopen(connection: sa.Connection, now: int, window: RetryWindow) -> int:
    too_young = sa.or_(
        sa.and_(builds.c.end_reason == EndReason.MAX_AGE, builds.c.last_report_at > now - window.max_age),
        sa.and_(builds.c.end_reason == EndReason.IDLE, builds.c.last_report_at > now - window.idle_timeout),
    )
    ended = sa.and_(builds.c.state == BuildState.ENDED, UNFINISHED_BUILD, too_young)
    # Without ended_report_at, lifecycle.time_transitions reverts the inferred end.
    return connection.execute(sa.update(builds).where(ended).values(ended_report_at=None, due_at=now)).rowcount


# -- correct times -----------------------------------------------------------------------------------------------
#
# Without corrections, whatever is due would wait for as long as the clock was ahead: probes of open
# breakers, for example. And whatever began while the clock was behind would seem old enough to end at once.

COPY = deliveries.alias("copy")
OF_COPY = sa.and_(COPY.c.report_id == deliveries.c.report_id, COPY.c.target == DeliveryTarget.ARCHIVE)
COPIED = sa.exists().where(OF_COPY, COPY.c.state == DeliveryState.DELIVERED)
"""The archive finds a copy by the day of delivery, so that time stays."""

COPY_PENDING = sa.exists().where(OF_COPY, COPY.c.state == DeliveryState.PENDING)

UNFINISHED: dict[sa.Table, sa.ColumnElement[bool]] = {
    builds: builds.c.due_at.is_not(None),
    deliveries: sa.or_(UNFINISHED_DELIVERY, COPY_PENDING),
    registrations: registrations.c.state.in_(sorted(UNSETTLED)),
    circuit_breakers: circuit_breakers.c.name.is_not(None),
    rejections: rejections.c.kept_until.is_not(None),
    asked_questions: asked_questions.c.asked_at.is_not(None),
    submissions: submissions.c.state == sa.literal_column("'open'"),
}
"""Tables whose times are compared with the clock, and the rows for which that still matters."""

TABLES = (*UNFINISHED, reports, runs)
"""All tables that hold times."""

TIME_SUFFIXES = ("_at", "_since", "_until")  # of columns that hold a time

ENDS_OF_URLS = {registrations: ("expires_at",), submissions: ("expires_at", "given_up_at")}
"""They move as registered_at of their row, by whatever clock that was written: URLs stay valid as long as before."""

MAY_BE_FUTURE = ("due_at", "_until", "probe_at")  # also by a correct clock

NOW = sa.bindparam("now", type_=sa.BigInteger)
BY = sa.bindparam("by", type_=sa.BigInteger)
SOUND = sa.bindparam("sound", type_=sa.BigInteger)
BEGAN = sa.bindparam("began", type_=sa.BigInteger)
BEFORE = sa.bindparam("before", type_=sa.BigInteger)


def move_back(connection: sa.Connection, now: int, items: Sequence[int]) -> list[int]:
    """Subtract each of `items` (microseconds) from every time after `now`; return the numbers of changed builds.

    A due time after `now` becomes `now`, because clocks that were ahead by different spans may have written it. For a
    correct one that is harmless: the build only becomes due earlier. A time that is less than half as far ahead, or
    would move before the last time that is not after `now`, becomes `now` too: another clock has written it, which was
    less far ahead, and nothing may seem older than it is.
    """
    return [_move_back(connection, now, by) for by in items]


def _move_back(connection: sa.Connection, now: int, by: int) -> int:
    found = [connection.execute(sa.select(sa.func.max(column)).where(column <= now)).scalar() for column in INSERTED]
    values = {"now": now, "by": -by, "sound": max((at for at in found if at is not None), default=0)}
    touched = {table: _move(connection, table, lambda column: column > NOW, None, values) for table in TABLES}
    return touched[builds]


def move_on(connection: sa.Connection, _now: int, items: Sequence[Step]) -> list[int]:
    """Add each of `items` to earlier times, after a clock was set forward; return the numbers of changed builds.

    All times of unfinished rows until the step move, so that waits and retries have not lasted longer than they did.
    If the clock is known to have been behind, all times that it has written move.
    """
    return [_move_on(connection, step) for step in items]


def _move_on(connection: sa.Connection, step: Step) -> int:
    until = step.before
    if step.was_behind:
        window = {"by": step.by_us, "began": step.began, "before": step.before}
        for table in TABLES:
            _move(connection, table, lambda column: column.between(BEGAN, BEFORE), None, window)
        until = step.began - 1
    values = {"by": step.by_us, "before": until}
    touched = {
        table: _move(connection, table, lambda column: sa.and_(column > 0, column <= BEFORE), unfinished, values)
        for table, unfinished in UNFINISHED.items()
    }
    return touched[builds]


def _move(connection: sa.Connection, table: sa.Table, is_meant: Any, among: Any, values: dict[str, int]) -> int:
    """Add `by` to the times that `is_meant` selects, in the rows `among`; return the number of changed rows."""
    meant = {column: is_meant(column) for column in _times_of(table)}
    ends_of_urls = [table.c[name] for name in ENDS_OF_URLS.get(table, ())]
    for column in ends_of_urls:
        del meant[column]
    if table is deliveries:
        meant[deliveries.c.delivered_at] = sa.and_(meant[deliveries.c.delivered_at], ~COPIED)
    if table is rejections:  # its bytes are kept for as long as before
        meant[rejections.c.kept_until] = meant[rejections.c.rejected_at]
        if among is not None:  # the time of the rejection is exact enough
            del meant[rejections.c.rejected_at]
    moved: dict[str, sa.ColumnElement[Any]] = {
        column.name: sa.case((condition, _at(column, values)), else_=column) for column, condition in meant.items()
    }
    for column in ends_of_urls:
        by = moved["registered_at"] - table.c.registered_at
        moved[column.name] = column + sa.func.coalesce(by, 0)
    rows = sa.or_(*meant.values()) if among is None else sa.and_(among, sa.or_(*meant.values()))
    return connection.execute(sa.update(table).where(rows).values(moved), values).rowcount


def _at(column: sa.Column[Any], values: dict[str, int]) -> sa.ColumnElement[int]:
    """Return the new value of a column; a time that may lie in the future does not move into the past."""
    if "now" in values and column.name.endswith("due_at") and column.table in (builds, deliveries):
        return NOW
    if "now" in values and column.name.endswith(MAY_BE_FUTURE) and column.table is not rejections:
        return sa.case((column + BY > NOW, column + BY), else_=NOW)
    if "now" in values and column.name != "kept_until":  # another clock may have been further ahead, or less
        less_far = sa.or_(column + BY < SOUND, 2 * (column - NOW) < -BY)
        return sa.case((sa.or_(column + BY > NOW, less_far), NOW), else_=column + BY)
    return column + BY


def _times_of(table: sa.Table) -> list[sa.Column[Any]]:
    return [column for column in table.c if column.name.endswith(TIME_SUFFIXES)]
