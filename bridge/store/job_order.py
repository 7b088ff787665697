"""The order of a job's builds in the ledger: builds without a run wait for the first of their job.

The end of each reconcile wakes the next one. A build waits for at most `delivery.max_finalize_delay`: longer waits cost
more than the order is worth.
"""

from sqlalchemy import BigInteger, Connection, Select, String, bindparam, func, literal, null, or_, select, update

from bridge.domain.job_order import QUEUE_PREFIX
from bridge.store.engine.compiled import Statement
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

JOB_ID = select(builds.c.job_id).where(builds.c.id == bindparam("build_id", type_=BigInteger)).scalar_subquery()
FIRST_IN_QUEUE = Statement(
    select(builds.c.id)
    .where(builds.c.waiting_on == literal(QUEUE_PREFIX) + JOB_ID)
    .order_by(builds.c.build_no)
    .limit(1)
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


def wake_first_waiting(connection: Connection, build_id: int, now: int, *, waits: bool, wakes_next: bool) -> None:
    """Update the queue of the build's job at the end of its reconcile.

    A build that `waits` in the queue becomes due at once if it is the first: the build that would have woken it may
    have ended already. If it `wakes_next`, the first in the queue becomes due now.
    """
    if not (waits or wakes_next):
        return
    first = FIRST_IN_QUEUE.first(connection, {"build_id": build_id})
    if first is not None and (wakes_next or first[0] == build_id):
        WAKE.run(connection, {"row_id": first[0], "now": now})
