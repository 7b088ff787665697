"""What the console's pages read of the ledger: counts over time, lists of builds with totals, and all rows of a build.

No query writes, and each is bounded: what a page shows costs the same with a thousand builds and with a million.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, and_, case, func, null, select, true

from bridge.domain.attempts import Attempt
from bridge.domain.build import BuildNo, BuildState, DeliveryState, DeliveryTarget
from bridge.domain.instants import DAY, HOUR, MINUTE
from bridge.domain.intake import Rejection
from bridge.store import row_mapping
from bridge.store.api_types import BuildView, build_view, recent_attempts
from bridge.store.circuit_breakers import all_breakers
from bridge.store.queries import BacklogCounts, BuildsQuery, build_rows_of, builds_page, counts
from bridge.store.row_mapping import BuildRow, DeliveryRow, ReportRow, RunRow
from bridge.store.schema import UNFINISHED_BUILD, builds, deliveries, rejections, reports, runs
from bridge.values import dataclass

MAX_COUNTED: Final = 20_000
"""Newest rows that charts count: a busy gateway's day is cut at its beginning, and the page says so."""

BUCKETS_OF_HOUR: Final = 60
BUCKETS_OF_DAY: Final = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Counts by time: one for each bucket, oldest first. `cut` says that older rows were not counted."""

    counts: tuple[int, ...]
    cut: bool

    @property
    def total(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """What came in and went out over one span, in buckets of equal length."""

    reports: Series
    delivered: Series
    builds: Series
    finalized: Series


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """All that the overview shows of the ledger; times are microseconds UTC."""

    backlog: BacklogCounts
    oldest_pending_at: int | None
    unfinished_builds: int
    mismatches: int  # of builds that ended within a day
    rejections: dict[str, int]  # within a day, by code
    hour: Activity
    day: Activity


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSummary:
    """One line of the list of builds."""

    build: BuildRow
    reports: int
    tests: int
    failures: int  # with errors
    pending: int  # deliveries to TestNod
    dead: int
    branch: str | None
    commit: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SummaryPage:
    """Builds, newest first; `next_before_id` is None if there are no older ones."""

    builds: list[BuildSummary]
    next_before_id: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildDetails:
    """A build with the rows that its timeline is drawn from."""

    row: BuildRow
    view: BuildView
    reports: Sequence[ReportRow]
    deliveries: Sequence[DeliveryRow]
    runs: Sequence[RunRow]
    rejections: Sequence[Rejection]
    attempts: Mapping[int, Sequence[Attempt]]  # by delivery, OF_BUILD for finalizes; oldest first


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSource:
    """One report with its build, and where its bytes are, if they are still kept."""

    row: ReportRow
    build: BuildRow
    body: bytes | None
    blob: str | None


# -- overview ----------------------------------------------------------------------------------------------------


def overview(connection: Connection, now: int) -> Overview:
    """Return what the overview shows at `now` (microseconds UTC)."""
    pending = (deliveries.c.state == DeliveryState.PENDING, deliveries.c.target == DeliveryTarget.TESTNOD)
    day_ago = now - DAY
    by_code = select(rejections.c.code, func.count().label("n")).where(rejections.c.rejected_at >= day_ago)
    mismatches = select(func.count()).where(builds.c.result_mismatch.is_not(None), builds.c.ended_at >= day_ago)
    hour, day = _activity(connection, now)
    return Overview(
        backlog=counts(connection),
        oldest_pending_at=connection.execute(select(func.min(deliveries.c.pending_since)).where(*pending)).scalar(),
        unfinished_builds=connection.execute(select(func.count()).select_from(builds).where(UNFINISHED_BUILD)).scalar()
        or 0,
        mismatches=connection.execute(mismatches).scalar() or 0,
        rejections={row.code: row.n for row in connection.execute(by_code.group_by(rejections.c.code))},
        hour=hour,
        day=day,
    )


def _activity(connection: Connection, now: int) -> tuple[Activity, Activity]:
    """Return the last hour, by minute, and the last day, by hour."""

    def series(table: Table, column: ColumnElement[Any], *conditions: ColumnElement[bool]) -> tuple[Series, Series]:
        found = _newest_by_minute(connection, table, column, conditions, since=_first(now, HOUR, BUCKETS_OF_DAY))
        hour, day = ((MINUTE, BUCKETS_OF_HOUR), (HOUR, BUCKETS_OF_DAY))
        return _series(found, now, *hour), _series(found, now, *day)

    each = {
        "reports": series(reports, reports.c.accepted_at),
        "delivered": series(deliveries, deliveries.c.delivered_at, deliveries.c.target == DeliveryTarget.TESTNOD),
        "builds": series(builds, builds.c.accepted_at),
        "finalized": series(builds, builds.c.finalized_at),
    }
    hour, day = (Activity(**{name: found[index] for name, found in each.items()}) for index in range(2))
    return hour, day


def _first(now: int, bucket_us: int, buckets: int) -> int:
    """Return when the first of the buckets begins of which the last one contains `now`."""
    return now - now % bucket_us - (buckets - 1) * bucket_us


@dataclass(frozen=True, kw_only=True, slots=True)
class _Newest:
    """Counts of the newest rows by the minute in which they happened, and whether older rows were left out."""

    by_minute: dict[int, int]
    oldest_at: int | None
    full: bool


def _newest_by_minute(
    connection: Connection,
    table: Table,
    column: ColumnElement[Any],
    conditions: Sequence[ColumnElement[bool]],
    *,
    since: int,
) -> _Newest:
    """Count the newest rows in one pass; ids rise with time, so they are those of the last day."""
    newest = select(column.label("at"), and_(true(), *conditions).label("counts"))
    found = newest.order_by(table.c.id.desc()).limit(MAX_COUNTED).subquery()
    counted = and_(found.c.at >= since, found.c.counts)
    minute = case((counted, found.c.at - found.c.at % MINUTE), else_=null()).label("minute")
    query = select(minute, func.count().label("n"), func.min(found.c.at).label("oldest")).group_by("minute")
    rows = connection.execute(query).all()
    return _Newest(
        by_minute={int(row.minute): row.n for row in rows if row.minute is not None},
        oldest_at=min((row.oldest for row in rows if row.oldest is not None), default=None),
        full=sum(row.n for row in rows) >= MAX_COUNTED,
    )


def _series(found: _Newest, now: int, bucket_us: int, buckets: int) -> Series:
    first = _first(now, bucket_us, buckets)
    counts = [0] * buckets
    for minute, count in found.by_minute.items():
        if first <= minute < first + buckets * bucket_us:
            counts[(minute - first) // bucket_us] += count
    cut = found.full and (found.oldest_at is None or found.oldest_at >= first)
    return Series(counts=tuple(counts), cut=cut)


# -- builds ------------------------------------------------------------------------------------------------------


def list_summaries(connection: Connection, query: BuildsQuery) -> SummaryPage:
    """Return one page of builds with their totals."""
    found, following = builds_page(connection, query)
    ids = [row.id for row in found]
    totals = (
        select(
            reports.c.build_id,
            func.count().label("n"),
            func.sum(reports.c.tests).label("tests"),
            func.sum(reports.c.failures + reports.c.errors).label("failures"),
        )
        .where(reports.c.build_id.in_(ids))
        .group_by(reports.c.build_id)
    )
    states = (
        select(
            deliveries.c.build_id,
            func.sum(case((deliveries.c.state == DeliveryState.PENDING, 1), else_=0)).label("pending"),
            func.sum(case((deliveries.c.state == DeliveryState.DEAD, 1), else_=0)).label("dead"),
        )
        .where(deliveries.c.build_id.in_(ids), deliveries.c.target == DeliveryTarget.TESTNOD)
        .group_by(deliveries.c.build_id)
    )
    of_reports = {row.build_id: row for row in connection.execute(totals)}
    of_deliveries = {row.build_id: row for row in connection.execute(states)}
    return SummaryPage(
        builds=[_summary(row, of_reports.get(row.id), of_deliveries.get(row.id)) for row in found],
        next_before_id=following,
    )


def _summary(row: BuildRow, totals: Any, states: Any) -> BuildSummary:
    parameters = row.run_parameters or row.record or row.upload_metadata
    return BuildSummary(
        build=row,
        reports=totals.n if totals else 0,
        tests=int(totals.tests) if totals else 0,
        failures=int(totals.failures) if totals else 0,
        pending=int(states.pending) if states else 0,
        dead=int(states.dead) if states else 0,
        branch=parameters.get("branch"),
        commit=parameters.get("commit"),
    )


def build_details(connection: Connection, job_id: str, build_no: BuildNo) -> BuildDetails | None:
    """Return a build with all its rows; None if no upload of it was accepted."""
    found, _ = builds_page(connection, BuildsQuery(job_id=job_id, build_no=build_no, limit=1))
    if not found:
        return None
    rows = build_rows_of(connection, found)[0]
    return BuildDetails(
        row=found[0],
        view=build_view(found[0], rows, all_breakers(connection)),
        reports=rows.reports,
        deliveries=rows.deliveries,
        runs=rows.runs,
        rejections=rows.rejections,
        attempts=recent_attempts(rows.attempts, rows.registrations),
    )


def neighbors(connection: Connection, job_id: str, build_no: BuildNo) -> tuple[int | None, int | None]:
    """Return the numbers of the builds of the job before and after this one; submitted builds have none."""
    if isinstance(build_no, str):
        return None, None
    of_job = builds.c.job_id == job_id
    newest = select(builds.c.build_no).where(of_job).order_by(builds.c.id.desc()).limit(1_000).subquery()
    before = select(func.max(newest.c.build_no)).where(newest.c.build_no < build_no)
    after = select(func.min(newest.c.build_no)).where(newest.c.build_no > build_no)
    return connection.execute(before).scalar(), connection.execute(after).scalar()


def report_source(connection: Connection, report_id: int) -> ReportSource | None:
    """Return a report with its build and its bytes, if they are in the ledger."""
    columns = [*row_mapping.REPORT_COLUMNS, reports.c.body, reports.c.blob]
    found = connection.execute(select(*columns).where(reports.c.id == report_id)).one_or_none()
    if found is None:
        return None
    report = ReportRow._make(found[:-2])
    build = connection.execute(select(*row_mapping.BUILD_COLUMNS).where(builds.c.id == report.build_id)).one()
    return ReportSource(row=report, build=BuildRow._make(build), body=found.body, blob=found.blob)


# -- changes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFigures:
    """Figures that differ after anything happened that a page shows."""

    builds: int
    reports: int
    rejections: int
    unfinished: int
    ended: int  # builds that wait for their finalize
    runs: int
    deliveries: tuple[tuple[tuple[str, str], int], ...]
    problems: tuple[int, int]
    breakers: tuple[tuple[str, bool], ...]


def page_figures(connection: Connection) -> PageFigures:
    """Return the figures; each is read from an index."""

    def newest(table: Table) -> int:
        found: int | None = connection.execute(select(func.max(table.c.id))).scalar()
        return found or 0

    def count(*conditions: ColumnElement[bool]) -> int:
        return connection.execute(select(func.count()).select_from(builds).where(*conditions)).scalar_one()

    backlog = counts(connection)
    return PageFigures(
        builds=newest(builds),
        reports=newest(reports),
        rejections=newest(rejections),
        unfinished=count(UNFINISHED_BUILD),
        ended=count(UNFINISHED_BUILD, builds.c.state == BuildState.ENDED),
        runs=newest(runs),
        deliveries=tuple(sorted(backlog.deliveries.items())),
        problems=(backlog.stuck, backlog.blocked),
        breakers=tuple((name, breaker.is_open) for name, breaker in all_breakers(connection).known.items()),
    )
