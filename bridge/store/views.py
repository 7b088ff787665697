"""What people may read of the ledger: builds page by page, one build, what explains it, and counts.

It knows neither HTTP nor who asks. Nothing here writes, and neither bytes nor presigned URLs are selected.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from bridge.domain.build import Build, BuildState
from bridge.domain.gates import Gates
from bridge.domain.refusals import Refusal
from bridge.store.belongings import Belongings, belongings, refusals_by_key
from bridge.store.build_view import build_view, refused_view
from bridge.store.identity import SOURCE, build_key
from bridge.store.quarantine import MAX_ID
from bridge.store.rows import to_build
from bridge.store.schema import UNFINISHED_BUILD, UNFINISHED_DELIVERY, builds, deliveries, reports
from bridge.store.shapes import BuildView
from bridge.store.upstreams import all_gates

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
class Page:
    """Builds, newest first; None: there are no older ones."""

    builds: list[BuildView]
    next_before_id: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """All that explains what became of a build; without any row, its refusals."""

    build: Build | None
    view: BuildView | None
    refusals: list[Refusal]
    gates: Gates


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How much waits for TestNod or for a person; deliveries owed and dead by (target, state)."""

    deliveries: dict[tuple[str, str], int]
    stuck: int
    held: int


def list_builds(connection: Connection, query: BuildsQuery) -> Page:
    """Return one page of builds, at least one where there is any, at most `limit`."""
    found = connection.execute(_page(query)).all()
    rows = found[: _fitting(connection, found[: query.limit])]
    return Page(
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
    return refused_view(job_id, build_no, refused) if refused else None


def find_why(connection: Connection, job_id: str, build_no: int) -> Findings:
    """Return what explains why this build is, or is not, in TestNod."""
    rows = _rows_of(connection, job_id, build_no)
    gates = all_gates(connection)
    if not rows:
        refused = _refusals_of(connection, job_id, build_no)
        return Findings(build=None, view=None, refusals=refused, gates=gates)
    (owns,) = belongings(connection, rows)
    return Findings(
        build=_value(rows[0], owns),
        view=build_view(rows[0], owns, gates),
        refusals=owns.refusals,
        gates=gates,
    )


def counts(connection: Connection) -> Counts:
    """Count what is unfinished; each count walks an index that holds nothing else."""
    grouped = select(deliveries.c.target, deliveries.c.state, func.count().label("n"))
    grouped = grouped.where(UNFINISHED_DELIVERY).group_by(deliveries.c.state, deliveries.c.target)
    return Counts(
        deliveries={(row.target, row.state): row.n for row in connection.execute(grouped)},
        stuck=_count(connection, builds.c.stuck.is_not(None)),
        held=_count(connection, builds.c.held.is_not(None)),
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


def _refusals_of(connection: Connection, job_id: str, build_no: int) -> list[Refusal]:
    key = build_key(job_id, build_no)
    return refusals_by_key(connection, [key]).get(key, [])


def _views(connection: Connection, rows: Sequence[Row[Any]]) -> list[BuildView]:
    if not rows:
        return []
    gates = all_gates(connection)
    return [build_view(row, owns, gates) for row, owns in zip(rows, belongings(connection, rows), strict=True)]


def _value(row: Row[Any], owns: Belongings) -> Build:
    return to_build(
        row,
        reports=owns.reports,
        deliveries=owns.deliveries,
        registrations=owns.registrations,
        runs=owns.runs,
    )


def _count(connection: Connection, condition: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(builds).where(condition)).scalar_one()
