"""What people may read of the ledger: builds page by page, one build, what explains it, and counts.

It knows neither HTTP nor who asks. Nothing here writes, and neither bytes nor presigned URLs are selected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from bridge.domain.build import Build, BuildState, DeliveryTarget
from bridge.domain.circuit_breaker import CircuitBreakers
from bridge.domain.lifecycle.mirror import TestTotals
from bridge.domain.rejections import Rejection
from bridge.store.api_types import BuildView, build_view, rejected_upload_view
from bridge.store.build_rows import BuildRows, build_rows, rejections_by_key
from bridge.store.circuit_breakers import all_breakers
from bridge.store.duplicates import SOURCE, build_key
from bridge.store.mirror import COUNTED, to_totals
from bridge.store.rejections import MAX_ID
from bridge.store.row_mapping import to_build
from bridge.store.schema import UNFINISHED_BUILD, UNFINISHED_DELIVERY, builds, deliveries, reports

MAX_PAGE_REPORTS = 1_000
"""Of all builds of one page: half a megabyte of JSON, which holds the event loop for 25 ms. A page ends early before it
goes beyond; a single build is always shown whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildsQuery:
    """Which builds are asked for: None is any. `build_no` is read only together with `job_id`."""

    job_id: str | None = None
    build_no: int | None = None
    state: BuildState | None = None
    route: str | None = None
    limit: int = 100
    before_id: int = MAX_ID  # `next_before_id` of the page before


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildPage:
    """Builds, newest first; None: there are no older ones."""

    builds: list[BuildView]
    next_before_id: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class WhyInputs:
    """All that explains what became of a build; without any row, its refusals."""

    build: Build | None
    view: BuildView | None
    refusals: list[Rejection]
    breakers: CircuitBreakers


@dataclass(frozen=True, kw_only=True, slots=True)
class BacklogCounts:
    """How much waits for TestNod or for a person; deliveries owed and dead by (target, state)."""

    deliveries: dict[tuple[str, str], int]
    stuck: int
    blocked: int


def list_builds(connection: Connection, query: BuildsQuery) -> BuildPage:
    """Return one page of builds, at least one where there is any, at most `limit`."""
    found = connection.execute(_page(query)).all()
    rows = found[: _fitting(connection, found[: query.limit])]
    return BuildPage(
        builds=_views(connection, rows),
        next_before_id=rows[-1].id if len(rows) < len(found) else None,
    )


def one_build(connection: Connection, build_id: int) -> BuildView | None:
    """Return the build with this id."""
    rows = connection.execute(select(builds).where(builds.c.id == build_id)).all()
    return next(iter(_views(connection, rows)), None)


def find_build(connection: Connection, job_id: str, build_no: int) -> BuildView | None:
    """Return the build that CodeArts knows by these, also one of which there are refusals only."""
    rows = _rows_of(connection, job_id, build_no)
    if rows:
        return _views(connection, rows)[0]
    refused = _refusals_of(connection, job_id, build_no)
    return rejected_upload_view(job_id, build_no, refused) if refused else None


def find_why(connection: Connection, job_id: str, build_no: int) -> WhyInputs:
    """Return what explains why this build is, or is not, in TestNod."""
    rows = _rows_of(connection, job_id, build_no)
    breakers = all_breakers(connection)
    if not rows:
        refused = _refusals_of(connection, job_id, build_no)
        return WhyInputs(build=None, view=None, refusals=refused, breakers=breakers)
    (owns,) = build_rows(connection, rows)
    return WhyInputs(
        build=_value(rows[0], owns),
        view=build_view(rows[0], owns, breakers),
        refusals=owns.refusals,
        breakers=breakers,
    )


def counts(connection: Connection) -> BacklogCounts:
    """Count what is unfinished; each count walks an index that holds nothing else."""
    grouped = select(deliveries.c.target, deliveries.c.state, func.count().label("n"))
    grouped = grouped.where(UNFINISHED_DELIVERY).group_by(deliveries.c.state, deliveries.c.target)
    return BacklogCounts(
        deliveries={(row.target, row.state): row.n for row in connection.execute(grouped)},
        stuck=_count(connection, builds.c.stuck_reason.is_not(None)),
        blocked=_count(connection, builds.c.blocked_reason.is_not(None)),
    )


def _page(query: BuildsQuery) -> Select[Any]:
    wanted = [builds.c.id < query.before_id]
    if query.job_id is not None and query.build_no is not None:
        wanted += [builds.c.source == SOURCE, builds.c.key == build_key(query.job_id, query.build_no)]
    elif query.job_id is not None:
        wanted.append(builds.c.job_id == query.job_id)
    if query.state is not None:
        wanted.append(builds.c.state == query.state)
        if query.state is not BuildState.FINALIZED:
            wanted.append(UNFINISHED_BUILD)
    if query.route is not None:
        wanted.append(builds.c.route == query.route)
    return select(builds).where(*wanted).order_by(builds.c.id.desc()).limit(query.limit + 1)


def _fitting(connection: Connection, rows: Sequence[Row[Any]]) -> int:
    """Return how many of `rows`, at least one, have at most MAX_PAGE_REPORTS reports together."""
    query = select(reports.c.build_id, func.count().label("n")).where(reports.c.build_id.in_([row.id for row in rows]))
    sizes = {row.build_id: row.n for row in connection.execute(query.group_by(reports.c.build_id))}
    total = 0
    for index, row in enumerate(rows):
        total += sizes.get(row.id, 0)
        if index and total > MAX_PAGE_REPORTS:
            return index
    return len(rows)


def _rows_of(connection: Connection, job_id: str, build_no: int) -> Sequence[Row[Any]]:
    where = (builds.c.source == SOURCE, builds.c.key == build_key(job_id, build_no))
    return connection.execute(select(builds).where(*where)).all()


def _refusals_of(connection: Connection, job_id: str, build_no: int) -> list[Rejection]:
    key = build_key(job_id, build_no)
    return rejections_by_key(connection, [key]).get(key, [])


def _views(connection: Connection, rows: Sequence[Row[Any]]) -> list[BuildView]:
    if not rows:
        return []
    breakers = all_breakers(connection)
    return [build_view(row, owns, breakers) for row, owns in zip(rows, build_rows(connection, rows), strict=True)]


def _value(row: Row[Any], owns: BuildRows) -> Build:
    return to_build(
        row,
        reports=owns.reports,
        deliveries=owns.deliveries,
        registrations=owns.registrations,
        runs=owns.runs,
    )


def _count(connection: Connection, condition: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(builds).where(condition)).scalar_one()


# What the ledger counts of a build's reports, all together and node by node.
#
# It knows no caller and no answer.


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSummary:
    """Reports together: what they count, how long their tests took, and when the last of them came."""

    totals: TestTotals
    time_us: int
    last_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """All reports of a build; `route` is empty until the build has one."""

    route: str
    mirrored: bool  # something of it is, or was, owed to CodeArts
    all: NodeSummary
    by_node: Mapping[str, NodeSummary]


def report_summary(connection: Connection, job_id: str, build_no: int) -> Summary | None:
    """Return what is counted of a build; None where no report of it was accepted."""
    where = (builds.c.source == SOURCE, builds.c.key == build_key(job_id, build_no))
    build = connection.execute(select(builds.c.id, builds.c.route).where(*where)).first()
    if build is None:
        return None
    own = reports.c.build_id == build.id
    query = select(
        *(reports.c.node_id, *COUNTED),
        func.sum(reports.c.time_us).label("time_us"),
        func.max(reports.c.accepted_at).label("last_at"),
    )
    rows = connection.execute(query.where(own).group_by(reports.c.node_id).order_by(reports.c.node_id)).all()
    if not rows:
        return None
    by_node = {
        row.node_id: NodeSummary(totals=to_totals(row), time_us=int(row.time_us), last_at=row.last_at) for row in rows
    }
    to_codearts = (deliveries.c.build_id == build.id, deliveries.c.target == DeliveryTarget.CODEARTS)
    owed = connection.execute(select(deliveries.c.id).where(*to_codearts).limit(1)).first()
    return Summary(route=build.route, mirrored=owed is not None, all=_together(by_node), by_node=by_node)


def _together(by_node: Mapping[str, NodeSummary]) -> NodeSummary:
    counted = list(by_node.values())
    return NodeSummary(
        totals=TestTotals(
            total=sum(each.totals.total for each in counted),
            failures=sum(each.totals.failures for each in counted),
            errors=sum(each.totals.errors for each in counted),
            others=sum(each.totals.others for each in counted),
        ),
        time_us=sum(each.time_us for each in counted),
        last_at=max(each.last_at for each in counted),
    )
