"""What belongs to builds, read for a whole page of them: one statement for each table, however many builds.

It knows neither bytes nor presigned URLs: neither is ever selected here.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, func, null, or_, select

from bridge.domain.rejections import MAX_REJECTIONS, Rejection
from bridge.store.duplicates import SOURCE
from bridge.store.rejections import NEWEST_FIRST, SHOWN
from bridge.store.row_mapping import to_rejection
from bridge.store.schema import deliveries, registrations, rejections, reports, runs

_BYTES = ("body", "blob")
_HAS_BYTES = or_(*(reports.c[name].is_not(None) for name in _BYTES)).label("has_bytes")
_OF_REPORT = [column for column in reports.c if column.name not in _BYTES]
_OF_REGISTRATION = [column for column in registrations.c if column.name != "presigned_url"]

RowsByBuild = list[Row[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRows:
    """Rows of one build, each kind in the order of its ids, and its refusals."""

    reports: RowsByBuild
    deliveries: RowsByBuild
    registrations: RowsByBuild  # `presigned_url` is always None
    runs: RowsByBuild
    refusals: list[Rejection]


def build_rows(connection: Connection, builds: Sequence[Row[Any]]) -> list[BuildRows]:
    """Return for each build row what belongs to it."""
    ids = [build.id for build in builds]
    read_reports = select(*_OF_REPORT, _HAS_BYTES).where(reports.c.build_id.in_(ids)).order_by(reports.c.id)
    read_deliveries = select(deliveries).where(deliveries.c.build_id.in_(ids)).order_by(deliveries.c.id)
    read_registrations = select(*_OF_REGISTRATION, null().label("presigned_url"))
    read_registrations = read_registrations.where(registrations.c.build_id.in_(ids)).order_by(registrations.c.id)
    read_runs = select(runs).where(runs.c.build_id.in_(ids)).order_by(runs.c.id)
    by_build = [
        _by_build(connection, query) for query in (read_reports, read_deliveries, read_registrations, read_runs)
    ]
    refused = rejections_by_key(connection, [build.key for build in builds])
    return [
        BuildRows(
            reports=by_build[0][build.id],
            deliveries=by_build[1][build.id],
            registrations=by_build[2][build.id],
            runs=by_build[3][build.id],
            refusals=refused.get(build.key, []),
        )
        for build in builds
    ]


def rejections_by_key(connection: Connection, keys: Sequence[str]) -> dict[str, list[Rejection]]:
    """Return the newest refusals of each build, oldest first, also of builds that have no row."""
    from_newest = func.row_number().over(partition_by=rejections.c.key, order_by=NEWEST_FIRST).label("from_newest")
    ranked = select(*SHOWN, from_newest).where(rejections.c.source == SOURCE, rejections.c.key.in_(keys)).subquery()
    query = select(ranked).where(ranked.c.from_newest <= MAX_REJECTIONS).order_by(ranked.c.rejected_at, ranked.c.id)
    found: dict[str, list[Rejection]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.key].append(to_rejection(row))
    return found


def _by_build(connection: Connection, query: Select[Any]) -> dict[int, RowsByBuild]:
    groups: dict[int, RowsByBuild] = defaultdict(list)
    for row in connection.execute(query):
        groups[row.build_id].append(row)
    return groups
