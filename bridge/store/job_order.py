"""The order of a job's builds in the ledger: builds without a run wait for the first of their job.

The end of each reconcile wakes the next one. A build waits for at most `delivery.max_finalize_delay`: longer waits cost
more than the order is worth.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, Select, String, bindparam, func, literal, null, or_, select, update

from bridge.domain.job_order import QUEUE_PREFIX
from bridge.store.engine.compiled import Statement, is_one_of
from bridge.store.schema import builds

HAS_NO_RUN = builds.c.route == ""
EARLIER_IN_QUEUE = (
    select(builds.c.id)
    .where(
        builds.c.waiting_on == bindparam("line", type_=String),
        builds.c.build_no < bindparam("build_no", type_=BigInteger),
    )
    .limit(1)
)
"""Finds a build before `build_no` that waits in the queue of its job."""

WAITING = builds.alias("waiting")
FIRST_IN_QUEUE = (
    select(WAITING.c.id)
    .where(WAITING.c.waiting_on == literal(QUEUE_PREFIX) + builds.c.job_id)
    .order_by(WAITING.c.build_no)
    .limit(1)
)
FIRST_IN_QUEUES = Statement(
    select(builds.c.id, FIRST_IN_QUEUE.scalar_subquery()).where(is_one_of(builds.c.id, "build_ids"))
)
WAKE = Statement(
    update(builds)
    .where(builds.c.id == bindparam("row_id", type_=BigInteger))
    .values(due_at=bindparam("now", type_=BigInteger), waiting_on=null())
)


def queue_by_build_number(
    connection: Connection, waiting: Select[tuple[int]], now: int, max_finalize_delay_us: int
) -> None:
    """Make the builds whose ids `waiting` selects due at `now`; of each job's builds without a run, only the first.

    The others wait for it, for at most `max_finalize_delay_us`.
    """
    firsts = select(func.min(builds.c.build_no), builds.c.job_id).where(builds.c.id.in_(waiting), HAS_NO_RUN)
    first = firsts.group_by(builds.c.job_id).subquery()
    is_first = select(literal(1)).where(first.c.job_id == builds.c.job_id, first.c[0] == builds.c.build_no).exists()
    is_next = or_(~HAS_NO_RUN, builds.c.job_id.is_(None), is_first)
    behind = update(builds).where(builds.c.id.in_(waiting), ~is_next)
    connection.execute(
        behind.values(waiting_on=literal(QUEUE_PREFIX) + builds.c.job_id, due_at=now + max_finalize_delay_us)
    )
    connection.execute(update(builds).where(builds.c.id.in_(waiting)).values(due_at=now, waiting_on=None))


class ReconcileEnd(NamedTuple):
    """The end of a build's reconcile: whether it waits in the queue of its job, and whether it wakes the next one."""

    build_id: int
    waits: bool
    wakes_next: bool


def wake_first_waiting(connection: Connection, now: int, ends: Iterable[ReconcileEnd]) -> None:
    """Update the queues of the builds' jobs at the ends of their reconciles.

    A build that `waits` in the queue becomes due at once if it is the first: the build that would have woken it may
    have ended already. If it `wakes_next`, the first in the queue becomes due now.
    """
    ends = [end for end in ends if end.waits or end.wakes_next]
    first = _first_in_queues(connection, ends)
    is_read = True
    for end in ends:
        if first.get(end.build_id) is None:  # nothing waits, in nearly every case
            continue
        if not is_read:  # a build that was woken waits no more
            first |= _first_in_queues(connection, [end])
        build_id = first[end.build_id]
        if build_id is not None and (end.wakes_next or build_id == end.build_id):
            WAKE.run(connection, {"row_id": build_id, "now": now})
            is_read = False


def _first_in_queues(connection: Connection, ends: Sequence[ReconcileEnd]) -> dict[int, int | None]:
    """Return the first build that waits in the queue of each build's job, by the build's id."""
    if not ends:
        return {}
    rows = FIRST_IN_QUEUES.rows(connection, {"build_ids": [end.build_id for end in ends]})
    return {build_id: first for build_id, first in rows}  # noqa: C416 -- for mypy
