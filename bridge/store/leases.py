"""The turn with a build: which is due, claim it under a lease, renew the lease, release it.

It knows neither what a visit writes (recording.py) nor why. A late owner's release changes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from sqlalchemy import BigInteger, Connection, and_, bindparam, case, literal, or_, select, update

from bridge.domain.build import Build, BuildState
from bridge.domain.circuit_breaker import CircuitBreakers
from bridge.domain.job_order import is_line
from bridge.domain.lifecycle.build_end import look_due_at
from bridge.store.circuit_breakers import all_breakers, recovered_breakers
from bridge.store.duplicates import SOURCE, build_key
from bridge.store.fenced_writes import lock_builds, update_if_fenced
from bridge.store.job_order import earlier_in_queue, wake_first_waiting
from bridge.store.row_mapping import to_build
from bridge.store.schema import UNFINISHED_BUILD, builds, deliveries, registrations, reports, runs
from bridge.store.sql_helpers import earlier

# Statements of the turn are built once: what building one costs is paid at every claim otherwise.
NOW = bindparam("now", type_=BigInteger)
IN_LANE = builds.c.route == bindparam("lane")
FREE = or_(builds.c.lease_until.is_(None), builds.c.lease_until <= NOW)
DUE = and_(IN_LANE, builds.c.due_at <= NOW, FREE)
CLAIM = (
    update(builds)
    .where(
        builds.c.id
        == select(builds.c.id)
        .where(DUE)
        .order_by(builds.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    .values(
        lease_owner=bindparam("owner"),
        lease_until=bindparam("until", type_=BigInteger),
        fencing_token=builds.c.fencing_token + 1,
        waiting_on=None,
    )
    .returning(builds)
)
NEXT_DUE = (
    select(builds.c.due_at)
    .where(IN_LANE, builds.c.due_at.is_not(None), or_(builds.c.due_at > NOW, FREE))
    .order_by(builds.c.due_at)
    .limit(1)
)

RENEW = (
    update(builds)
    # A renewal that was cancelled may land after the release: nobody would hold what it leases then.
    .where(builds.c.id.in_(bindparam("ids", expanding=True)), builds.c.lease_until.is_not(None))
    .values(lease_until=bindparam("until", type_=BigInteger))
)

HAS_BYTES = or_(reports.c.body.is_not(None), reports.c.blob.is_not(None)).label("has_bytes")
REPORTS_OF = (
    select(*(column for column in reports.c if column.name != "body"), HAS_BYTES)
    .where(reports.c.build_id == bindparam("build_id"))
    .order_by(reports.c.id)
)
DELIVERIES_OF, REGISTRATIONS_OF, RUNS_OF = (
    select(table).where(table.c.build_id == bindparam("build_id")).order_by(table.c.id)
    for table in (deliveries, registrations, runs)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Ask for the next due build of one lane (a route, or empty for builds not pinned yet)."""

    lane: str
    owner: str
    lease_us: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LeasedRow:
    """A build under lease: its row as the claim returned it, and when that was."""

    row: Any  # its columns by name
    now: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LeasedBuild:
    """A build under lease with all that belongs to it, read after its claim; `now` is the claim's."""

    build: Build
    gates: CircuitBreakers
    due_at: int
    now: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewal:
    """Ask to keep a build for `lease_us` from now."""

    build_id: int
    fencing_token: int
    lease_us: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """The end of a visit: `report_seq` and `due_at` are what it knew, `until` is when it wants the next one."""

    build_id: int
    fencing_token: int
    report_seq: int
    due_at: int
    until: int | None
    waiting_on: str | None
    blocked_reason: str | None
    calls_next: bool = False  # of the line of its job


# -- claim -------------------------------------------------------------------------------------------------------


def claim(connection: Connection, now: int, claims: Sequence[Claim]) -> list[LeasedRow | None]:
    """Lease the build that has been due the longest in each lane; None where no build of it is due.

    Reports may be thousands: `read_claimed` reads them, so that no other write waits for that.
    """
    return [_claim_one(connection, now, claim) for claim in claims]


def _claim_one(connection: Connection, now: int, claim: Claim) -> LeasedRow | None:
    values = {"lane": claim.lane, "now": now, "owner": claim.owner, "until": now + claim.lease_us}
    row = connection.execute(CLAIM, values).first()
    if row is None:
        return None
    columns = row._mapping  # noqa: SLF001 -- SQLAlchemy's public name for it
    return LeasedRow(row=SimpleNamespace(**columns), now=now)


def read_claimed(connection: Connection, leased: LeasedRow) -> LeasedBuild:
    """Return what the visit begins with: the row as it was claimed, and what belongs to it as it is now."""
    build = _with_all(connection, leased.row)
    if build.run_parameters is None and earlier_in_queue(connection, build.job_id, build.build_no):
        build = replace(build, earlier_in_queue=True)
    return LeasedBuild(build=build, gates=all_breakers(connection), due_at=leased.row.due_at, now=leased.now)


def read_build(connection: Connection, build_id: int) -> Build | None:
    """Return the build with all that belongs to it."""
    row = connection.execute(select(builds).where(builds.c.id == build_id)).first()
    return _with_all(connection, row) if row is not None else None


def _with_all(connection: Connection, row: Any) -> Build:
    which = {"build_id": row.id}
    return to_build(
        row,
        reports=connection.execute(REPORTS_OF, which),
        deliveries=connection.execute(DELIVERIES_OF, which),
        registrations=connection.execute(REGISTRATIONS_OF, which),
        runs=connection.execute(RUNS_OF, which),
    )


def due_routes(connection: Connection, lanes: Iterable[str], now: int) -> dict[str, int]:
    """Return when the next build of each lane is due; lanes without any are left out, as is a build under lease."""
    found = {}
    for lane in lanes:
        at = connection.execute(NEXT_DUE, {"lane": lane, "now": now}).scalar()
        if at is not None:
            found[lane] = at
    return found


# -- renew and release --------------------------------------------------------------------------------------------


def renew(connection: Connection, now: int, renewals: Sequence[Renewal]) -> list[bool]:
    """Lengthen leases, all together; False where the build has a newer owner."""
    fences = lock_builds(connection, {renewal.build_id for renewal in renewals})
    held = [fences.get(renewal.build_id) == renewal.fencing_token for renewal in renewals]
    ids = [renewal.build_id for renewal, its in zip(renewals, held, strict=True) if its]
    if ids:
        until = now + min(renewal.lease_us for renewal in renewals)  # they differ while settings change
        connection.execute(RENEW, {"ids": ids, "until": until})
    return held


def release(connection: Connection, now: int, releases: Sequence[Release]) -> list[bool]:
    """End visits; where something arrived meanwhile the earlier due time stays. False: the fence was lost."""
    waited_for = {item.waiting_on for item in releases if item.waiting_on is not None}
    opened = recovered_breakers(connection, waited_for) if waited_for else set()
    return [
        # A gate that opened since the visit looked has nudged already, and will not again.
        _release_one(connection, now, replace(item, until=now, waiting_on=None) if item.waiting_on in opened else item)
        for item in releases
    ]


def _release_one(connection: Connection, now: int, item: Release) -> bool:
    unchanged = and_(builds.c.due_at == item.due_at, builds.c.report_seq == item.report_seq)
    until = literal(item.until, BigInteger)
    sooner = case((builds.c.due_at > until, until), else_=builds.c.due_at)
    values = {
        "due_at": case((unchanged, until), else_=sooner),
        "waiting_on": item.waiting_on,
        "blocked_reason": item.blocked_reason,
        "lease_owner": None,
        "lease_until": None,
    }
    if not update_if_fenced(connection, item.build_id, item.fencing_token, values):
        return False
    wake_first_waiting(connection, item.build_id, now, stands=is_line(item.waiting_on), calls=item.calls_next)
    return True


# -- poll requests -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PollRequest:
    """A build that may have ended; without `build_no`, any build of the job."""

    job_id: str
    build_no: int | None = None


def request_poll(connection: Connection, now: int, items: Sequence[PollRequest]) -> list[int]:
    """Make the open builds that each request names due now, or one second after their last poll; return their number.

    It needs no lease. `due_at` always changes, also if the build is due already: a reconciler that has polled before
    this request then does not overwrite it at its release.
    """
    return [_request_poll_of(connection, now, item) for item in items]


def _request_poll_of(connection: Connection, now: int, item: PollRequest) -> int:
    if item.build_no is None:
        requested = builds.c.job_id == item.job_id
    else:
        requested = and_(builds.c.source == SOURCE, builds.c.key == build_key(item.job_id, item.build_no))
    query = select(builds.c.id, builds.c.polled_at).where(
        requested, builds.c.state == BuildState.OPEN, UNFINISHED_BUILD
    )
    # All writers lock builds in the order of their ids: otherwise two transactions could wait for each other.
    found = connection.execute(query.order_by(builds.c.id).with_for_update(key_share=True)).all()
    for row in found:
        values = {
            "poll_requested_at": now,
            "due_at": earlier(builds.c.due_at - 1, look_due_at(now, row.polled_at) or now),
        }
        connection.execute(update(builds).where(builds.c.id == row.id).values(values))
    return len(found)
