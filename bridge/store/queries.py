"""What the API reads of the ledger: pages of builds, one build, what explains it, and counts.

No query writes, and none selects the bytes of reports or presigned URLs.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)

from bridge.domain.build import Build, BuildNo, BuildState, DeliveryState, DeliveryTarget
from bridge.domain.circuit_breaker import CircuitBreakers
from bridge.domain.intake import Rejection, explaining
from bridge.domain.lifecycle.mirror import AGREES, TestTotals
from bridge.store import row_mapping
from bridge.store.api_types import BuildRows, BuildView, build_view, may_go_to, rejected_upload_view
from bridge.store.attempts import attempts_of
from bridge.store.circuit_breakers import all_breakers
from bridge.store.duplicates import SOURCE, build_key, source_of
from bridge.store.mirror import TOTALS, to_totals
from bridge.store.rejections import MAX_ID, rejections_by_key
from bridge.store.schema import UNFINISHED_BUILD, UNFINISHED_DELIVERY, builds, deliveries, registrations, reports, runs
from bridge.store.sql_helpers import first_id_since
from bridge.values import dataclass

MAX_PAGE_REPORTS: Final = 1_000
"""Reports of all builds of one page: half a megabyte of JSON, which takes 25 ms of the event loop. A page ends earlier
if it would have more; a single build is always shown whole."""

WALKED_BUILDS: Final = 500
MAX_WALKS: Final = 20
"""A page of a caller's builds looks at ten thousand of them at most, so that each page is fast."""

REGISTRATION_COLUMNS = row_mapping.columns_for(
    registrations, row_mapping.RegistrationRow, presigned_url=null().label("presigned_url")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildsQuery:
    """Filters of a page of builds; None matches any. `build_no` counts only together with `job_id`."""

    job_id: str | None = None
    build_no: BuildNo | None = None
    state: BuildState | None = None
    route: str | None = None
    branch: str | None = None
    commit: str | None = None
    caller: str | None = None  # of one of its reports
    problems: bool = False  # only builds that an operator should look at
    mirror_differs: bool = False  # only builds whose mirror at CodeArts does not agree
    limit: int = 100
    before_id: int = MAX_ID  # `next_before_id` of the page before
    until: int | None = None  # accepted before, microseconds UTC


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildPage:
    """Builds, newest first; `next_before_id` is None if there are no older ones."""

    builds: list[BuildView]
    next_before_id: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class WhyInputs:
    """All that explains the state of a build; its rejections only, if it has no row."""

    build: Build | None
    view: BuildView | None
    rejections: list[Rejection]
    breakers: CircuitBreakers
    lease_until: int = 0  # a worker has the build until then


@dataclass(frozen=True, kw_only=True, slots=True)
class BacklogCounts:
    """How much waits for a target or for an operator; deliveries that are not delivered, by (target, state)."""

    deliveries: dict[tuple[str, str], int]
    pending_since: dict[str, int]  # of the oldest pending delivery, by target
    stuck: int
    blocked: int


# -- builds ------------------------------------------------------------------------------------------------------


def builds_page(connection: Connection, query: BuildsQuery) -> tuple[list[row_mapping.BuildRow], int | None]:
    """Return the rows of one page of builds, and the id below which the next page starts; None if there is none.

    If few builds of a caller match, a page may have fewer rows than there are, or none, and a next page.
    """
    if query.until is not None:
        first = first_id_since(connection, builds.c.id, builds.c.accepted_at, query.until)
        query = replace(query, before_id=min(query.before_id, first))
    if query.caller is not None and not _is_narrow(query):
        return _page_of_caller(connection, query, query.caller)
    found = _builds(connection, _page(query))
    page = found[: query.limit]
    return page, page[-1].id if len(page) < len(found) else None


def _is_narrow(query: BuildsQuery) -> bool:
    """Return whether the filters beside the caller find few builds."""
    unfinished = query.state not in (None, BuildState.FINALIZED)
    few = query.problems or query.mirror_differs or unfinished
    return few or query.job_id is not None or query.commit is not None


def _page_of_caller(
    connection: Connection, query: BuildsQuery, caller: str
) -> tuple[list[row_mapping.BuildRow], int | None]:
    """Walk through the builds of a caller, newest first; the other filters may match most of them, or none."""
    rest, before_id, found = replace(query, caller=None), query.before_id, list[row_mapping.BuildRow]()
    for _ in range(MAX_WALKS):
        of_caller = (reports.c.caller == caller, reports.c.build_id < before_id)
        walk = select(reports.c.build_id).distinct().where(*of_caller).order_by(reports.c.build_id.desc())
        ids = connection.execute(walk.limit(WALKED_BUILDS)).scalars().all()
        wanted = _page(replace(rest, limit=query.limit - len(found)), ids)
        found += _builds(connection, wanted) if ids else []
        if len(found) > query.limit:
            return found[: query.limit], found[query.limit - 1].id
        if len(ids) < WALKED_BUILDS:
            return found, None
        before_id = ids[-1]
    return found, before_id


def list_builds(connection: Connection, query: BuildsQuery) -> BuildPage:
    """Return one page of builds: at least one if there is any, at most `limit`."""
    found, following = builds_page(connection, query)
    page = found[: _fitting(connection, found)]
    return BuildPage(
        builds=_views(connection, page),
        next_before_id=page[-1].id if len(page) < len(found) else following,
    )


def one_build(connection: Connection, build_id: int) -> BuildView | None:
    """Return the build with this id."""
    found = _builds(connection, select(*row_mapping.BUILD_COLUMNS).where(builds.c.id == build_id))
    return next(iter(_views(connection, found)), None)


def find_build(connection: Connection, job_id: str, build_no: BuildNo) -> BuildView | None:
    """Return the build with this number, also if it has only rejections.

    Reports of callers that may not use its route are left out.
    """
    found = _builds_of(connection, job_id, build_no)
    if found:
        (rows,) = build_rows_of(connection, found)
        return build_view(found[0], _of_route(rows, found[0].route), all_breakers(connection))
    rejections = _rejections_of(connection, job_id, build_no)
    return rejected_upload_view(job_id, build_no, rejections) if rejections else None


def find_why(connection: Connection, job_id: str, build_no: BuildNo) -> WhyInputs:
    """Return what explains why a build is, or is not, in TestNod."""
    found = _builds_of(connection, job_id, build_no)
    breakers = all_breakers(connection)
    if not found:
        rejections = explaining(_rejections_of(connection, job_id, build_no), accepted=False)
        return WhyInputs(build=None, view=None, rejections=rejections, breakers=breakers)
    (rows,) = build_rows_of(connection, found)
    build = row_mapping.to_build(
        found[0],
        reports=rows.reports,
        deliveries=rows.deliveries,
        registrations=rows.registrations,
        runs=rows.runs,
        rejected=[rejection.name for rejection in rows.rejections],
    )
    view = build_view(found[0], rows, breakers)
    lease_until = found[0].lease_until or 0
    return WhyInputs(build=build, view=view, rejections=rows.rejections, breakers=breakers, lease_until=lease_until)


def counts(connection: Connection) -> BacklogCounts:
    """Count what is not finished; each count reads an index that holds nothing else."""
    oldest = func.min(deliveries.c.pending_since).label("oldest")
    grouped = select(deliveries.c.target, deliveries.c.state, func.count().label("n"), oldest)
    grouped = grouped.where(UNFINISHED_DELIVERY).group_by(deliveries.c.state, deliveries.c.target)
    found = connection.execute(grouped).all()
    return BacklogCounts(
        deliveries={(row.target, row.state): row.n for row in found},
        pending_since={row.target: row.oldest for row in found if row.state == DeliveryState.PENDING},
        stuck=_count(connection, builds.c.stuck_reason.is_not(None)),
        blocked=_count(connection, builds.c.blocked_reason.is_not(None)),
    )


def count_mismatches(connection: Connection, ended_since: int) -> dict[tuple[str, str], int]:
    """Count the builds that ended since then and whose result differs from their reports, by (kind, route)."""
    query = select(builds.c.result_mismatch, builds.c.route, func.count().label("n"))
    query = query.where(builds.c.result_mismatch.is_not(None), builds.c.ended_at >= ended_since)
    rows = connection.execute(query.group_by(builds.c.result_mismatch, builds.c.route))
    return {(row.result_mismatch, row.route): row.n for row in rows}


def _count(connection: Connection, condition: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(builds).where(condition)).scalar_one()


def _page(query: BuildsQuery, among: Sequence[int] | None = None) -> Select[Any]:
    """Select one build more than a page has; only builds with an id in `among`, if it is not None."""
    wanted = [builds.c.id < query.before_id]
    if among is not None:
        wanted.append(builds.c.id.in_(among))
    if query.job_id is not None and query.build_no is not None:
        wanted += _is_build(query.job_id, query.build_no)
    elif query.job_id is not None:
        wanted.append(builds.c.job_id == query.job_id)
    if query.state is not None:
        wanted.append(builds.c.state == query.state)
        if query.state is not BuildState.FINALIZED:
            wanted.append(UNFINISHED_BUILD)
    if query.route is not None:
        wanted.append(builds.c.route == query.route)
    if query.mirror_differs:
        wanted.append(MIRROR_DIFFERS)
    if query.caller is not None:
        own = (reports.c.build_id == builds.c.id, reports.c.caller == query.caller)
        wanted.append(select(reports.c.id).where(*own).exists())
    either = _alternatives(query)
    if either:
        wanted = [builds.c.id.in_(_newest_of_each(either, wanted, query.limit + 1))]
    return select(*row_mapping.BUILD_COLUMNS).where(*wanted).order_by(builds.c.id.desc()).limit(query.limit + 1)


def _alternatives(query: BuildsQuery) -> list[list[ColumnElement[bool]]]:
    """Return lists of conditions, one of which must hold, if branch, commit or problems are asked for.

    Each is read from an index by itself, because a condition with `or` over them would read the whole table.
    """
    named = {"branch": query.branch, "commit": query.commit}
    values = {name: value for name, value in named.items() if value is not None}
    found: list[list[ColumnElement[bool]]] = [[problem] for problem in PROBLEMS] if query.problems else [[]]
    if values:
        chosen = [builds.c[name] == value for name, value in values.items()]
        # Before the run parameters are chosen: as CodeArts or CI named it. These builds are few.
        early = [
            or_(*(builds.c[column][name].as_string() == value for column in ("record", "upload_metadata")))
            for name, value in values.items()
        ]
        undecided = [_among(SAME.c.state != literal_column("'finalized'")), builds.c.run_parameters.is_(None), *early]
        found = [[*each, *part] for each in found for part in (chosen, undecided)]
    return found if found != [[]] else []


def _newest_of_each(
    either: Sequence[Sequence[ColumnElement[bool]]], wanted: Sequence[ColumnElement[bool]], count: int
) -> CompoundSelect[Any]:
    """Select the ids of the newest `count` builds of each alternative that meet the other conditions too."""
    newest = [
        select(builds.c.id).where(*wanted, *part).order_by(builds.c.id.desc()).limit(count).subquery()
        for part in either
    ]
    return union_all(*(select(part.c.id) for part in newest))


SAME = builds.alias("same")


def _among(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition of builds with an id in the partial index that holds those with `condition` of SAME."""
    return builds.c.id.in_(select(SAME.c.id).where(condition))


PROBLEMS: Final = (
    _among(SAME.c.stuck_reason.is_not(None)),
    _among(SAME.c.blocked_reason.is_not(None)),
    _among(SAME.c.result_mismatch.is_not(None)),
    builds.c.id.in_(select(deliveries.c.build_id).where(deliveries.c.state == DeliveryState.DEAD, UNFINISHED_DELIVERY)),
)
"""The conditions of builds that an operator should look at; each reads an index of few rows."""

MIRROR_DIFFERS: Final = _among(SAME.c.mirror != literal_column(f"'{AGREES}'"))
"""The condition of builds whose mirror was compared and does not agree, or could not be compared."""


def _fitting(connection: Connection, found: Sequence[row_mapping.BuildRow]) -> int:
    """Return how many of the builds, at least one, have at most MAX_PAGE_REPORTS reports together."""
    of_builds = reports.c.build_id.in_([build.id for build in found])
    query = select(reports.c.build_id, func.count().label("n")).where(of_builds).group_by(reports.c.build_id)
    sizes = {row.build_id: row.n for row in connection.execute(query)}
    total = 0
    for index, build in enumerate(found):
        total += sizes.get(build.id, 0)
        if index and total > MAX_PAGE_REPORTS:
            return index
    return len(found)


def _builds(connection: Connection, query: Select[Any]) -> list[row_mapping.BuildRow]:
    return [row_mapping.BuildRow._make(row) for row in connection.execute(query)]


def _is_build(job_id: str, build_no: BuildNo) -> tuple[ColumnElement[bool], ...]:
    return (builds.c.source == source_of(build_no), builds.c.key == build_key(job_id, build_no))


def _builds_of(connection: Connection, job_id: str, build_no: BuildNo) -> list[row_mapping.BuildRow]:
    return _builds(connection, select(*row_mapping.BUILD_COLUMNS).where(*_is_build(job_id, build_no)))


def _rejections_of(connection: Connection, job_id: str, build_no: BuildNo) -> list[Rejection]:
    key = build_key(job_id, build_no)
    return rejections_by_key(connection, {key: ""}).get(key, [])


def _views(connection: Connection, found: Sequence[row_mapping.BuildRow]) -> list[BuildView]:
    if not found:
        return []
    breakers = all_breakers(connection)
    return [
        build_view(build, rows, breakers) for build, rows in zip(found, build_rows_of(connection, found), strict=True)
    ]


# -- the rows of builds ------------------------------------------------------------------------------------------


class _OfBuild(Protocol):
    @property
    def build_id(self) -> int: ...


ChildRow = TypeVar("ChildRow", bound=_OfBuild)


def build_rows_of(connection: Connection, found: Sequence[row_mapping.BuildRow]) -> list[BuildRows]:
    """Return the rows of each build, read with one statement for each table."""
    ids = [build.id for build in found]

    def by_build(
        columns: list[ColumnElement[Any]], table: Any, make: Callable[[Any], ChildRow]
    ) -> dict[int, list[ChildRow]]:
        groups: dict[int, list[ChildRow]] = defaultdict(list)
        for row in map(
            make, connection.execute(select(*columns).where(table.c.build_id.in_(ids)).order_by(table.c.id))
        ):
            groups[row.build_id].append(row)
        return groups

    report_rows = by_build(row_mapping.REPORT_COLUMNS, reports, row_mapping.ReportRow._make)
    delivery_rows = by_build(row_mapping.DELIVERY_COLUMNS, deliveries, row_mapping.DeliveryRow._make)
    registration_rows = by_build(REGISTRATION_COLUMNS, registrations, row_mapping.RegistrationRow._make)
    run_rows = by_build(row_mapping.RUN_COLUMNS, runs, row_mapping.RunRow._make)
    rejections = rejections_by_key(connection, {build.key: build.route for build in found})
    attempts = attempts_of(connection, ids)
    return [
        BuildRows(
            reports=report_rows[build.id],
            deliveries=delivery_rows[build.id],
            registrations=registration_rows[build.id],
            runs=run_rows[build.id],
            rejections=explaining(rejections.get(build.key, []), accepted=bool(report_rows[build.id])),
            attempts=attempts[build.id],
        )
        for build in found
    ]


def _of_route(rows: BuildRows, route: str) -> BuildRows:
    """Return the rows without reports whose callers may not use `route`, which is empty if it is not known."""
    reports = [row for row in rows.reports if may_go_to(row, route)]
    ids = {row.id for row in reports}
    return replace(rows, reports=reports, deliveries=[row for row in rows.deliveries if row.report_id in ids])


# -- totals ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSummary:
    """The totals of several reports, the duration of their tests, and when the last of them was accepted."""

    totals: TestTotals
    time_us: int
    last_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The totals of a build; `route` is empty until the build has one."""

    route: str
    mirrored: bool  # it has deliveries to CodeArts
    all: NodeSummary
    by_node: Mapping[str, NodeSummary]


def report_summary(connection: Connection, job_id: str, build_no: int) -> Summary | None:
    """Return the totals of a build; None if no report of it was accepted."""
    where = (builds.c.source == SOURCE, builds.c.key == build_key(job_id, build_no))
    build = connection.execute(select(builds.c.id, builds.c.route).where(*where)).first()
    if build is None:
        return None
    own = reports.c.build_id == build.id
    query = select(
        *(reports.c.node_id, *TOTALS),
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
    delivery = connection.execute(select(deliveries.c.id).where(*to_codearts).limit(1)).first()
    return Summary(route=build.route, mirrored=delivery is not None, all=_sum(by_node), by_node=by_node)


def _sum(by_node: Mapping[str, NodeSummary]) -> NodeSummary:
    nodes = list(by_node.values())
    return NodeSummary(
        totals=TestTotals(
            total=sum(each.totals.total for each in nodes),
            failures=sum(each.totals.failures for each in nodes),
            errors=sum(each.totals.errors for each in nodes),
            others=sum(each.totals.others for each in nodes),
        ),
        time_us=sum(each.time_us for each in nodes),
        last_at=max(each.last_at for each in nodes),
    )
