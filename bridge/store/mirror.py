"""Writes the outcomes of calls to CodeArts' report API, and counts what was mirrored of a build.

These writes need no lease: a change to a delivery names the state that it leaves, and no change touches what a
reconciler decides by at TestNod.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select, update

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.changes import AddAttempt, Change, SetBuild, SetDelivery
from bridge.domain.lifecycle.mirror import TestTotals
from bridge.store.attempts import add_attempts
from bridge.store.locks import lock_builds
from bridge.store.schema import builds, deliveries, reports
from bridge.store.sql_helpers import earlier
from bridge.values import dataclass

TOTALS = tuple(
    func.coalesce(func.sum(reports.c[column]), 0).label(name)
    for name, column in (("total", "tests"), ("failures", "failures"), ("errors", "errors"), ("others", "skipped"))
)
"""The columns that `to_totals` reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorChanges:
    """What a call to the report API changes of a build."""

    build_id: int
    changes: tuple[Change, ...]


def record_mirrored(connection: Connection, now: int, items: Sequence[MirrorChanges]) -> list[None]:
    """Write changes of deliveries to CodeArts and of the comparison, and make the builds due."""
    for item in items:
        if not lock_builds(connection, [item.build_id]):  # it was forgotten meanwhile
            continue
        for change in item.changes:
            _write(connection, item.build_id, change)
        soon = {"due_at": earlier(builds.c.due_at - 1, now)}
        connection.execute(update(builds).where(builds.c.id == item.build_id).values(soon))
    return [None for _ in items]


def _write(connection: Connection, build_id: int, change: Change) -> None:
    match change:
        case SetDelivery(delivery_id, leaves, values):
            where = (deliveries.c.id == delivery_id, deliveries.c.state == leaves)
            connection.execute(update(deliveries).where(*where).values(dict(values)))
        case SetBuild(values):
            connection.execute(update(builds).where(builds.c.id == build_id).values(dict(values)))
        case AddAttempt(attempt):
            add_attempts(connection, [(build_id, attempt)])
        case _:
            raise ValueError(f"{change} does not belong to a mirror")


def mirrored_totals(connection: Connection, build_id: int) -> TestTotals:
    """Return the totals of the reports that CodeArts has accepted."""
    mirrored = (
        deliveries.c.build_id == build_id,
        deliveries.c.target == DeliveryTarget.CODEARTS,
        deliveries.c.state == DeliveryState.DELIVERED,
    )
    query = select(*TOTALS).join(deliveries, deliveries.c.report_id == reports.c.id).where(*mirrored)
    return to_totals(connection.execute(query).one())


def to_totals(row: Any) -> TestTotals:
    """Return the sums of TOTALS as integers: those of PostgreSQL are decimals."""
    return TestTotals(total=int(row.total), failures=int(row.failures), errors=int(row.errors), others=int(row.others))
