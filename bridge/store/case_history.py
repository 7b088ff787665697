"""What the page of a job's tests reads: its last builds with the digests of their cases, and which jobs there are."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, func, select

from bridge.store.duplicates import SOURCE
from bridge.store.schema import builds, report_cases, reports
from bridge.values import dataclass

MAX_REPORTS: Final = 5_000
MAX_BYTES: Final = 4 << 20
"""Of the digests of all builds: older builds are left out then."""

RECENT_BUILDS: Final = 2_000
"""Newest builds, from which the list of jobs is made."""

MAX_JOBS: Final = 50


class StoredDigest(NamedTuple):
    """The digest of one report."""

    report_id: int
    node_id: str
    name: str
    digest: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildDigests:
    """The digests of one build."""

    build_no: int
    commit: str | None
    reports: tuple[StoredDigest, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobDigests:
    """The last builds of a job that have digests, oldest first; `cut`: some were left out because there is too much."""

    builds: tuple[BuildDigests, ...]
    job_name: str | None
    route: str  # of the newest build that has one
    cut: bool


class RecentJob(NamedTuple):
    """A job that built recently."""

    job_id: str
    builds: int  # of the newest RECENT_BUILDS
    last_build_no: int
    last_at: int


class _Build(NamedTuple):
    id: int
    build_no: int
    commit: str | None
    route: str
    record: dict[str, Any] | None
    upload_metadata: dict[str, Any]
    bound_metadata: list[dict[str, Any]] | None


def recent_jobs(connection: Connection) -> list[RecentJob]:
    """Return the jobs of the newest builds, the newest first."""
    columns = (builds.c.id, builds.c.job_id, builds.c.build_no, builds.c.accepted_at)
    # Builds of other sources have no number to sort by. Without `coalesce`, SQLite would read all CodeArts builds by
    # the index of keys and sort them, instead of reading the newest ones by their ids.
    of_codearts = func.coalesce(builds.c.source, "") == SOURCE
    newest = select(*columns).where(of_codearts).order_by(builds.c.id.desc()).limit(RECENT_BUILDS).subquery()
    found = (newest.c.job_id, func.count(), func.max(newest.c.build_no), func.max(newest.c.accepted_at))
    query = select(*found).group_by(newest.c.job_id).order_by(func.max(newest.c.id).desc()).limit(MAX_JOBS)
    return [RecentJob._make(row) for row in connection.execute(query)]


def job_digests(connection: Connection, job_id: str, limit: int) -> JobDigests:
    """Return the digests of the last `limit` builds of a job."""
    columns = [builds.c[name] for name in _Build._fields]
    meant = (builds.c.job_id == job_id, builds.c.source == SOURCE)
    query = select(*columns).where(*meant).order_by(builds.c.id.desc()).limit(limit)
    found = [_Build._make(row) for row in connection.execute(query)]
    sizes = (
        select(reports.c.build_id, report_cases.c.report_id, func.length(report_cases.c.digest))
        .join(report_cases, report_cases.c.report_id == reports.c.id)
        .where(reports.c.build_id.in_([build.id for build in found]))
        .order_by(reports.c.build_id.desc(), reports.c.id)
        .limit(MAX_REPORTS + 1)
    )
    by_build: dict[int, list[int]] = defaultdict(list)
    total = reports_read = 0
    full_from: int | None = None  # the build of which not all digests fit
    for build_id, report_id, size in connection.execute(sizes):
        total, reports_read = total + size, reports_read + 1
        if full_from is None and (total > MAX_BYTES or reports_read > MAX_REPORTS):
            full_from = build_id
        if full_from is None:
            by_build[build_id].append(report_id)
    by_build.pop(full_from or 0, None)
    digests = _digests(connection, [each for ids in by_build.values() for each in ids])
    shown = [build for build in found if build.id in by_build]
    return JobDigests(
        builds=tuple(
            BuildDigests(
                build_no=build.build_no,
                commit=_stated(build, "commit"),
                reports=tuple(digests[each] for each in by_build[build.id]),
            )
            for build in sorted(shown, key=lambda build: build.build_no)
        ),
        job_name=next((name for build in found if (name := _stated(build, "job_name"))), None),
        route=next((build.route for build in found if build.route), ""),
        cut=full_from is not None,
    )


def _digests(connection: Connection, report_ids: list[int]) -> Mapping[int, StoredDigest]:
    columns = (reports.c.id, reports.c.node_id, reports.c.name, report_cases.c.digest)
    query = select(*columns).join(report_cases, report_cases.c.report_id == reports.c.id)
    rows = connection.execute(query.where(reports.c.id.in_(report_ids)))
    return {row.id: StoredDigest(row.id, row.node_id, row.name, row.digest) for row in rows}


def _stated(build: _Build, name: str) -> str | None:
    """Return a value as the run has it, else as CodeArts, and else as an upload states it."""
    bound = [each["stated"] for each in build.bound_metadata or ()]
    own = build.commit if name == "commit" else None
    return own or next(
        (value for each in (build.record or {}, build.upload_metadata, *bound) if (value := each.get(name))), None
    )
