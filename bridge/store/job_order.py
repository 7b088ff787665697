"""The order of a job's builds in the ledger: builds without a run wait for the first of their job.

The end of each reconcile wakes the next one. A build waits for at most `delivery.max_finalize_delay`: longer waits cost
more than the order is worth.
"""

from sqlalchemy import Connection, Select, bindparam, func, literal, or_, select, update

from bridge.domain.job_order import QUEUE_PREFIX, queue_of
from bridge.store.schema import builds

HAS_NO_RUN = builds.c.route == ""
EARLIER_IN_QUEUE = (  # built once: each reconcile of a build without a run executes it
    select(builds.c.id)
    .where(builds.c.waiting_on == bindparam("line"), builds.c.build_no < bindparam("build_no"))
    .limit(1)
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


def earlier_in_queue(connection: Connection, job_id: str, build_no: int) -> bool:
    """Return whether a build before `build_no` waits in the queue of its job."""
    return connection.execute(EARLIER_IN_QUEUE, {"line": queue_of(job_id), "build_no": build_no}).first() is not None


def wake_first_waiting(connection: Connection, build_id: int, now: int, *, waits: bool, wakes_next: bool) -> None:
    """Update the queue of the build's job at the end of its reconcile.

    A build that `waits` in the queue becomes due at once if it is the first: the build that would have woken it may
    have ended already. If it `wakes_next`, the first in the queue becomes due now.
    """
    if not (waits or wakes_next):
        return
    job_id = select(builds.c.job_id).where(builds.c.id == build_id)
    in_queue = builds.c.waiting_on == literal(QUEUE_PREFIX) + job_id.scalar_subquery()
    first = connection.execute(select(builds.c.id).where(in_queue).order_by(builds.c.build_no).limit(1)).scalar()
    if first is not None and (wakes_next or first == build_id):
        connection.execute(update(builds).where(builds.c.id == first).values(due_at=now, waiting_on=None))
