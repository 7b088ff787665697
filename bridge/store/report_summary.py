"""What the ledger counts of a build's reports, all together and node by node.

It knows no caller and no answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from bridge.domain.build import Target
from bridge.domain.mirror import Totals
from bridge.store.identity import SOURCE, build_key
from bridge.store.mirroring import COUNTED, to_totals
from bridge.store.schema import builds, deliveries, reports


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """Reports together: what they count, how long their tests took, and when the last of them came."""

    totals: Totals
    time_us: int
    last_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """All reports of a build; `route` is empty until the build has one."""

    route: str
    mirrored: bool  # something of it is, or was, owed to CodeArts
    all: Counted
    by_node: Mapping[str, Counted]


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
        row.node_id: Counted(totals=to_totals(row), time_us=int(row.time_us), last_at=row.last_at) for row in rows
    }
    to_codearts = (deliveries.c.build_id == build.id, deliveries.c.target == Target.CODEARTS)
    owed = connection.execute(select(deliveries.c.id).where(*to_codearts).limit(1)).first()
    return Summary(route=build.route, mirrored=owed is not None, all=_together(by_node), by_node=by_node)


def _together(by_node: Mapping[str, Counted]) -> Counted:
    counted = list(by_node.values())
    return Counted(
        totals=Totals(
            total=sum(each.totals.total for each in counted),
            failures=sum(each.totals.failures for each in counted),
            errors=sum(each.totals.errors for each in counted),
            others=sum(each.totals.others for each in counted),
        ),
        time_us=sum(each.time_us for each in counted),
        last_at=max(each.last_at for each in counted),
    )
