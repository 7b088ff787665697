"""The open builds of each job, for `worker/status_poller.py`: read them, grant polls, record what lists show."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, func, or_, select, update

from bridge.domain.build import BuildState, EndReason
from bridge.domain.build_durations import LEARNED_FROM
from bridge.domain.instants import Instant
from bridge.store.duplicates import SOURCE
from bridge.store.schema import UNFINISHED_BUILD, builds
from bridge.store.sql_helpers import earlier
from bridge.values import dataclass

OPEN = and_(
    builds.c.source == SOURCE, builds.c.state == BuildState.OPEN, UNFINISHED_BUILD, builds.c.listed_at.is_(None)
)
"""What is asked about: a build that a list shows finished is ended by its reconciler."""

LISTED_BUILDS = 1_000
"""Open builds of a job that one list is compared with."""

SEARCHED = 200
"""Newest builds of a job among which ended ones are searched, so that many open ones cost little."""


class OpenBuildRow(NamedTuple):
    """What the poller needs of an open build."""

    id: int
    job_id: str
    build_no: int
    route: str
    accepted_at: Instant
    started_at: Instant | None
    last_report_at: Instant
    polled_at: Instant | None
    poll_requested_at: Instant | None
    described_at: Instant | None

    @property
    def began_at(self) -> Instant:
        """Return the start of the build, or its first report if the start is not known."""
        return self.accepted_at if self.started_at is None else min(self.started_at, self.accepted_at)

    @property
    def seen_at(self) -> Instant:
        """Return when the build was last known to run, or was last asked about."""
        return max(self.last_report_at, self.polled_at or self.last_report_at)

    def is_requested_after(self, at: int) -> bool:
        """Return whether a notice came after the last poll, and after `at`."""
        return (self.poll_requested_at or 0) > max(self.polled_at or 0, at)


COLUMNS = [builds.c[name] for name in OpenBuildRow._fields]


def _rows(connection: Connection, query: Select[Any]) -> list[OpenBuildRow]:
    return [OpenBuildRow._make(row) for row in connection.execute(query)]


def read_slice(connection: Connection, after: str, limit: int) -> tuple[list[OpenBuildRow], bool]:
    """Return the open builds of the jobs that follow `after`, whole jobs only, and whether these were the last.

    Of a job with more open builds than `limit`, the oldest are returned.
    """
    query = select(*COLUMNS).where(OPEN, builds.c.job_id > after).order_by(builds.c.job_id, builds.c.id).limit(limit)
    rows = _rows(connection, query)
    if len(rows) < limit:
        return rows, True
    last = rows[-1].job_id
    whole = [row for row in rows if row.job_id != last]
    return whole or rows, False


def read_job(connection: Connection, job_id: str) -> list[OpenBuildRow]:
    """Return the open builds of a job, oldest first."""
    query = select(*COLUMNS).where(OPEN, builds.c.job_id == job_id).order_by(builds.c.id)
    return _rows(connection, query.limit(LISTED_BUILDS))


def read_projects(connection: Connection, build_ids: Sequence[int]) -> dict[str, str]:
    """Return the project of each job, as the records of these builds have it."""
    rows = connection.execute(select(builds.c.job_id, builds.c.record).where(builds.c.id.in_(build_ids)))
    found = {row.job_id: (row.record or {}).get("devcloud_project_id") for row in rows}
    return {job_id: project for job_id, project in found.items() if project}


def read_durations(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[int]]:
    """Return how long the last builds of each job took, in microseconds, newest first.

    A build ended between the last time that it was known to run and the time at which its end was found.
    """
    return {job_id: _durations(connection, job_id) for job_id in job_ids}


def _durations(connection: Connection, job_id: str) -> list[int]:
    newest = select(builds).where(builds.c.job_id == job_id).order_by(builds.c.id.desc()).limit(SEARCHED).subquery()
    query = select(
        newest.c.accepted_at, newest.c.started_at, newest.c.running_at, newest.c.last_report_at, newest.c.ended_at
    )
    ended = and_(newest.c.end_reason == EndReason.BUILD_INFO, newest.c.ended_at.is_not(None))
    durations = []
    for row in connection.execute(query.where(ended).order_by(newest.c.id.desc()).limit(LEARNED_FROM)):
        ran_at = max(row.accepted_at, min(row.ended_at, max(row.running_at or 0, row.last_report_at)))
        began_at = row.accepted_at if row.started_at is None else min(row.started_at, row.accepted_at)
        durations.append((ran_at + row.ended_at) // 2 - began_at)
    return durations


def count_waiting(connection: Connection, breaker: str, limit: int) -> int:
    """Return how many builds wait for a breaker, `limit` at most."""
    waiting = select(builds.c.id).where(builds.c.waiting_on == breaker).limit(limit).subquery()
    count: int = connection.execute(select(func.count()).select_from(waiting)).scalar_one()
    return count


# -- writes without a lease: they make builds due, and their reconcilers decide ------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PollGrant:
    """A build whose poll is due now, unless a reconciler has it or a poll was granted already."""

    build_id: int
    seen_at: Instant  # polled_at must not be later


def grant_polls(connection: Connection, now: int, items: Sequence[PollGrant]) -> list[bool]:
    """Make builds due for a poll; False if one was polled, granted or claimed meanwhile."""
    free = or_(builds.c.lease_until.is_(None), builds.c.lease_until <= now)
    granted = {}
    for item in sorted(items, key=lambda item: item.build_id):  # in the order in which all writers lock builds
        unasked = and_(
            builds.c.poll_reserved.is_(False),
            or_(builds.c.polled_at.is_(None), builds.c.polled_at <= item.seen_at),
        )
        statement = update(builds).where(builds.c.id == item.build_id, OPEN, free, unasked)
        values = {"poll_due_at": now, "poll_reserved": True, "due_at": earlier(builds.c.due_at, now)}
        granted[item.build_id] = bool(connection.execute(statement.values(values)).rowcount)
    return [granted[item.build_id] for item in items]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedBuild:
    """A build that a list, requested at `listed_at`, shows finished; it was last known to run at `running_at`."""

    build_id: int
    listed_at: Instant
    running_at: Instant
    result: str | None


def record_finished(connection: Connection, now: int, items: Sequence[FinishedBuild]) -> list[bool]:
    """Record what lists show, and make the builds due; False if a build has ended already.

    `due_at` always changes: the release of a reconciler that has read the build before does not postpone it.
    """
    recorded = {}
    for item in sorted(items, key=lambda item: item.build_id):
        values = {
            "listed_at": item.listed_at,
            "listed_result": item.result,
            "running_at": item.running_at,
            "polled_at": item.listed_at,
            "due_at": earlier(builds.c.due_at - 1, now),
        }
        statement = update(builds).where(builds.c.id == item.build_id, OPEN).values(values)
        recorded[item.build_id] = bool(connection.execute(statement).rowcount)
    return [recorded[item.build_id] for item in items]
