"""The times in the ledger as evidence of the clock that wrote them, and what a wrong clock ended taken back."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Column, Connection, and_, func, or_, select, update

from bridge.domain.build import BuildState, DeliveryState, EndedBy
from bridge.domain.clock_trust import OUT_OF_ORDER_US, LedgerTimes
from bridge.domain.rules.facts import GIVEN_UP
from bridge.store.keeping import WITH_BYTES
from bridge.store.repeats import owed_again
from bridge.store.schema import (
    UNFINISHED_BUILD,
    UNFINISHED_DELIVERY,
    builds,
    deliveries,
    refusals,
    registrations,
    reports,
    runs,
)

INSERTED: tuple[Column[int], ...] = (reports.c.accepted_at, refusals.c.at, registrations.c.asked_at, runs.c.opened_at)
"""When rows were inserted: the newest row of each table has the highest id."""

RECENT = 10_000  # reports whose order in time is looked at: a wrong clock is noticed, or is the clock of all of them


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """For how long deliveries are tried, and builds stay open, in microseconds."""

    give_up_after: int
    max_age: int
    idle_end: int


def ledger_time(_connection: Connection, now: int, items: Sequence[None]) -> list[int]:
    """Return the ledger's time for each of `items`; nothing is written."""
    return [now for _ in items]


def times_in_ledger(connection: Connection) -> LedgerTimes | None:
    """Return what the ledger's times tell of the clocks that wrote them; None if it holds none."""
    times = [
        connection.execute(select(column).order_by(column.table.c.id.desc()).limit(1)).scalar() for column in INSERTED
    ]
    times.append(connection.execute(select(func.max(builds.c.polled_at)).where(UNFINISHED_BUILD)).scalar())
    times.append(connection.execute(select(func.max(deliveries.c.trying_since)).where(UNFINISHED_DELIVERY)).scalar())
    written = max((at for at in times if at is not None), default=None)
    if written is None:
        return None
    recent = (
        connection.execute(select(reports.c.accepted_at).order_by(reports.c.id.desc()).limit(RECENT)).scalars().all()
    )
    highest = max(recent, default=written)
    if not recent or highest - recent[0] <= OUT_OF_ORDER_US:
        return LedgerTimes(latest=max(written, highest), newest=max(written, highest), began=written)
    began = min(recent[: recent.index(highest)])  # newer rows than the one with the latest time
    return LedgerTimes(latest=max(written, highest), newest=_last_before(connection, recent[0], highest), began=began)


def _last_before(connection: Connection, at: int, before: int) -> int:
    """Return the last time from `at` on and well before another that anything was tried, or inserted."""
    times = [at]
    for column in (*INSERTED, builds.c.polled_at, deliveries.c.trying_since, deliveries.c.due_at):
        found = select(func.max(column)).where(column > at, column < before - OUT_OF_ORDER_US)
        times.append(connection.execute(found).scalar() or at)
    return max(times)


def take_back(connection: Connection, now: int, items: Sequence[Limits]) -> list[int]:
    """Take back what ended by a clock that was ahead, judged by the time `now`; return how many deliveries and builds.

    A delivery that is given up although it was not tried for long enough is owed again. A build that was ended by its
    age, although it is not that old, is opened again by its next visit, unless its run was finalized.
    """
    return [_owe_given_up(connection, now, limits) + _reopen(connection, now, limits) for limits in items]


def _owe_given_up(connection: Connection, now: int, limits: Limits) -> int:
    query = (
        select(deliveries.c.id, deliveries.c.build_id)
        .join(reports, reports.c.id == deliveries.c.report_id)
        .where(
            deliveries.c.state == DeliveryState.DEAD,
            UNFINISHED_DELIVERY,
            deliveries.c.last_error.startswith(GIVEN_UP, autoescape=True),
            deliveries.c.trying_since > now - limits.give_up_after,
            WITH_BYTES,
        )
    )
    found = connection.execute(query).all()
    if found:
        raised = {"batch_seq": builds.c.batch_seq + 1, "due_at": now}
        build_ids = sorted({row.build_id for row in found})
        held = select(builds.c.id).where(builds.c.id.in_(build_ids)).order_by(builds.c.id).with_for_update()
        connection.execute(held)
        connection.execute(update(builds).where(builds.c.id.in_(build_ids)).values(raised))
        connection.execute(owed_again(now).where(deliveries.c.id.in_([row.id for row in found])))
    return len(found)


def _reopen(connection: Connection, now: int, limits: Limits) -> int:
    too_young = or_(
        and_(builds.c.ended_by == EndedBy.MAX_AGE, builds.c.last_report_at > now - limits.max_age),
        and_(builds.c.ended_by == EndedBy.IDLE, builds.c.last_report_at > now - limits.idle_end),
    )
    ended = and_(builds.c.state == BuildState.ENDED, UNFINISHED_BUILD, too_young)
    # The rule "end taken back" sees then that the end has not seen these reports.
    return connection.execute(update(builds).where(ended).values(ended_report_at=None, due_at=now)).rowcount
