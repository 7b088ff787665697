"""Corrects the times that a wrong clock left in the ledger, after it was set.

Without this, all that is due would wait for as long as the clock was ahead: closed gates for their probe, builds for
their place under the common rate. And what began while it was behind would be over at once, since it seems that old.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Connection, Table, and_, bindparam, case, exists, or_, update

from bridge.domain.build import UNSETTLED, DeliveryState, Target
from bridge.domain.clock_trust import Step
from bridge.store.schema import (
    UNFINISHED_DELIVERY,
    builds,
    deliveries,
    overheard_checks,
    refusals,
    registrations,
    reports,
    runs,
    upstreams,
)

COPY = deliveries.alias("copy")
OF_COPY = and_(COPY.c.report_id == deliveries.c.report_id, COPY.c.target == Target.ARCHIVE)
COPIED = exists().where(OF_COPY, COPY.c.state == DeliveryState.DELIVERED)
"""The archive finds a copy by the day on which its report was delivered, so that time stays."""

COPY_OWED = exists().where(OF_COPY, COPY.c.state == DeliveryState.OWED)

UNFINISHED: dict[Table, ColumnElement[bool]] = {
    builds: builds.c.due_at.is_not(None),
    deliveries: or_(UNFINISHED_DELIVERY, COPY_OWED),
    registrations: registrations.c.state.in_(sorted(UNSETTLED)),
    upstreams: upstreams.c.name.is_not(None),
    overheard_checks: overheard_checks.c.subject.is_not(None),
    refusals: refusals.c.kept_until.is_not(None),
}
"""Tables by whose times something is decided, and the rows of which something is still to be decided."""

TABLES = (*UNFINISHED, reports, runs)
"""All that hold times."""

ENDINGS = ("_at", "_since", "_until")  # of columns that hold a time

TO_COME = ("due_at", "_until", "expires_at", "probe_at", "slot_at")  # may lie in the future of a clock that is right

NOW = bindparam("now", type_=BigInteger)
BY = bindparam("by", type_=BigInteger)
BEGAN = bindparam("began", type_=BigInteger)
BEFORE = bindparam("before", type_=BigInteger)


def move_back(connection: Connection, now: int, items: Sequence[int]) -> list[int]:
    """Move every time that is after `now` back, by each of `items` (microseconds); return how many builds it touched.

    What was due later than `now` by a clock that was right comes earlier by that: it is only looked at again.
    """
    return [_move_back(connection, now, by) for by in items]


def _move_back(connection: Connection, now: int, by: int) -> int:
    values = {"now": now, "by": -by}
    touched = {table: _move(connection, table, lambda column: column > NOW, None, values) for table in TABLES}
    return touched[builds]


def move_on(connection: Connection, _now: int, items: Sequence[Step]) -> list[int]:
    """Move times on after a clock was set forward, by each of `items`; return how many builds it touched.

    Of what is not finished every time until then moves, so that waiting and trying have lasted no longer than they did.
    If the clock is known to have been behind, all times that it wrote move.
    """
    return [_move_on(connection, step) for step in items]


def _move_on(connection: Connection, step: Step) -> int:
    until = step.before
    if step.was_behind:
        window = {"by": step.by_us, "began": step.began, "before": step.before}
        for table in TABLES:
            _move(connection, table, lambda column: column.between(BEGAN, BEFORE), None, window)
        until = step.began - 1
    values = {"by": step.by_us, "before": until}
    touched = {
        table: _move(connection, table, lambda column: and_(column > 0, column <= BEFORE), unfinished, values)
        for table, unfinished in UNFINISHED.items()
    }
    return touched[builds]


def _move(connection: Connection, table: Table, is_meant: Any, among: Any, values: dict[str, int]) -> int:
    """Add `by` to the times that are meant, in rows `among` the table's; return how many rows had any."""
    meant = {column: is_meant(column) for column in _times_of(table)}
    if table is deliveries:
        meant[deliveries.c.delivered_at] = and_(meant[deliveries.c.delivered_at], ~COPIED)
    if table is refusals:  # for how long its bytes are kept stays
        meant[refusals.c.kept_until] = meant[refusals.c.at]
        if among is not None:  # when it was refused is known well enough
            del meant[refusals.c.at]
    moved = {column.name: case((condition, _at(column, values)), else_=column) for column, condition in meant.items()}
    rows = or_(*meant.values()) if among is None else and_(among, or_(*meant.values()))
    return connection.execute(update(table).where(rows).values(moved), values).rowcount


def _at(column: Column[Any], values: dict[str, int]) -> ColumnElement[int]:
    """Return the time that a column has once it is moved; what was still to come does not become old by it."""
    if "now" in values and column.name.endswith(TO_COME) and column.table is not refusals:
        return case((column + BY > NOW, column + BY), else_=NOW)
    return column + BY


def _times_of(table: Table) -> list[Column[Any]]:
    return [column for column in table.c if column.name.endswith(ENDINGS) or column.name == "at"]
