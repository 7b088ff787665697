"""The lines of jobs in the ledger: who stands in one, and whose turn is next.

It knows neither gates nor visits. Only builds without a run stand in line; the first of a job goes, and whoever ends a
visit calls the next. A place in line ends by itself after `delivery.max_finalize_delay`: waiting longer costs more
than order.
"""

from sqlalchemy import Connection, Select, bindparam, func, literal, or_, select, update

from bridge.domain.job_order import QUEUE_PREFIX, queue_of
from bridge.store.schema import builds

UNPINNED = builds.c.route == ""
EARLIER_IN_QUEUE = (  # built once: every visit to a build without a run asks it
    select(builds.c.id)
    .where(builds.c.waiting_on == bindparam("line"), builds.c.build_no < bindparam("build_no"))
    .limit(1)
)


def queue_by_build_number(
    connection: Connection, waiting: Select[tuple[int]], now: int, max_finalize_delay_us: int
) -> None:
    """Let the builds whose ids `waiting` selects go at `now`; of each job's without a run, only the first at once."""
    firsts = select(func.min(builds.c.build_no), builds.c.job_id).where(builds.c.id.in_(waiting), UNPINNED)
    first = firsts.group_by(builds.c.job_id).subquery()
    is_first = select(literal(1)).where(first.c.job_id == builds.c.job_id, first.c[0] == builds.c.build_no).exists()
    goes = or_(~UNPINNED, builds.c.job_id.is_(None), is_first)
    behind = update(builds).where(builds.c.id.in_(waiting), ~goes)
    connection.execute(
        behind.values(waiting_on=literal(QUEUE_PREFIX) + builds.c.job_id, due_at=now + max_finalize_delay_us)
    )
    connection.execute(update(builds).where(builds.c.id.in_(waiting)).values(due_at=now, waiting_on=None))


def earlier_in_queue(connection: Connection, job_id: str, build_no: int) -> bool:
    """Tell whether a build before `build_no` stands in the line of its job."""
    which = {"line": queue_of(job_id), "build_no": build_no}
    return connection.execute(EARLIER_IN_QUEUE, which).first() is not None


def wake_first_waiting(connection: Connection, build_id: int, now: int, *, stands: bool, calls: bool) -> None:
    """Do what the end of a visit means for the line of its job.

    One that `stands` in line goes at once where nobody before it is left: who would have called it may be gone
    already. One that `calls` lets the first in line be looked at now.
    """
    if not (stands or calls):
        return
    job_id = select(builds.c.job_id).where(builds.c.id == build_id)
    in_line = builds.c.waiting_on == literal(QUEUE_PREFIX) + job_id.scalar_subquery()
    first = connection.execute(select(builds.c.id).where(in_line).order_by(builds.c.build_no).limit(1)).scalar()
    if first is not None and (calls or first == build_id):
        connection.execute(update(builds).where(builds.c.id == first).values(due_at=now, waiting_on=None))
