"""Leases on due builds: claim, renew, release; and requests to poll a build soon.

Each claim raises the build's fencing token. A reconciler that has lost its lease writes nothing any more: its release
changes no row (fenced_writes.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    all_,
    and_,
    bindparam,
    case,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.dml import ReturningUpdate

from bridge.domain.build import Build, BuildState
from bridge.domain.circuit_breaker import CircuitBreakers
from bridge.domain.instants import Instant
from bridge.domain.intake import MAX_REJECTIONS
from bridge.domain.job_order import is_queue
from bridge.domain.lifecycle.build_end import requested_poll_due_at
from bridge.store import row_mapping
from bridge.store.circuit_breakers import all_breakers, recovered_breakers
from bridge.store.duplicates import SOURCE, build_key
from bridge.store.fenced_writes import lock_builds, update_if_fenced
from bridge.store.job_order import earlier_in_queue, wake_first_waiting
from bridge.store.schema import UNFINISHED_BUILD, builds, deliveries, registrations, rejections, reports, runs
from bridge.store.sql_helpers import earlier

# Statements that every claim executes are built once: that costs more than their execution.
NOW = bindparam("now", type_=BigInteger)
OF_ROUTE = builds.c.route == bindparam("of_route")
FREE = or_(builds.c.lease_until.is_(None), builds.c.lease_until <= NOW)
NOT_LEFT = builds.c.id != all_(bindparam("left", type_=postgresql.ARRAY(BigInteger)))


def _claim_of(*conditions: ColumnElement[bool]) -> ReturningUpdate[Any]:
    due = select(builds.c.id).where(OF_ROUTE, builds.c.due_at <= NOW, FREE, *conditions)
    return (
        update(builds)
        .where(
            builds.c.id == due.order_by(builds.c.due_at).limit(1).with_for_update(skip_locked=True).scalar_subquery()
        )
        .values(
            lease_owner=bindparam("owner"),
            lease_until=bindparam("until", type_=BigInteger),
            fencing_token=builds.c.fencing_token + 1,
            waiting_on=None,
        )
        .returning(*row_mapping.BUILD_COLUMNS)
    )


def _next_due_of(*conditions: ColumnElement[bool]) -> Select[Any]:
    free = or_(builds.c.due_at > NOW, FREE)
    due = select(builds.c.due_at).where(OF_ROUTE, builds.c.due_at.is_not(None), free, *conditions)
    return due.order_by(builds.c.due_at).limit(1)


CLAIM, NEXT_DUE = _claim_of(), _next_due_of()
CLAIM_NOT_LEFT, NEXT_DUE_NOT_LEFT = _claim_of(NOT_LEFT), _next_due_of(NOT_LEFT)  # for PostgreSQL only
RENEW = (
    update(builds)
    # A canceled renewal may be written after the release: it must not lease the build again.
    .where(builds.c.id.in_(bindparam("ids", expanding=True)), builds.c.lease_until.is_not(None))
    .values(lease_until=bindparam("until", type_=BigInteger))
)
BUILD_ID: BindParameter[int] = bindparam("build_id")
REPORTS_OF = select(*row_mapping.REPORT_COLUMNS).where(reports.c.build_id == BUILD_ID).order_by(reports.c.id)
DELIVERIES_OF = select(*row_mapping.DELIVERY_COLUMNS).where(deliveries.c.build_id == BUILD_ID).order_by(deliveries.c.id)
REGISTRATIONS_OF = (
    select(*row_mapping.REGISTRATION_COLUMNS).where(registrations.c.build_id == BUILD_ID).order_by(registrations.c.id)
)
RUNS_OF = select(*row_mapping.RUN_COLUMNS).where(runs.c.build_id == BUILD_ID).order_by(runs.c.id)
REJECTED_OF = (
    select(rejections.c.name)
    .where(rejections.c.source == SOURCE, rejections.c.key == bindparam("key"))
    .where(rejections.c.caller != "", ~rejections.c.is_foreign)
    .order_by(rejections.c.id)
    .limit(MAX_REJECTIONS)
)


# -- claim -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Asks for the next due build of a route; the empty route stands for builds without run parameters.

    Builds with an id in `left` are left to other gateways, which only PostgreSQL permits.
    """

    route: str
    owner: str
    lease_us: int
    left: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LeasedRow:
    """The row of a build as its claim returned it at `now` (microseconds UTC)."""

    row: row_mapping.BuildRow
    now: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LeasedBuild:
    """A build under lease with all its rows, read after its claim; `now` and `due_at` are the claim's."""

    build: Build
    breakers: CircuitBreakers
    due_at: int
    now: int


def claim(connection: Connection, now: int, claims: Sequence[Claim]) -> list[LeasedRow | None]:
    """Lease the build of each route that has been due the longest; None if no build of it is due.

    Its other rows may be thousands. `read_claimed` reads them, so that no other write waits for that.
    """
    return [_claim_one(connection, now, claim) for claim in claims]


def _claim_one(connection: Connection, now: int, claim: Claim) -> LeasedRow | None:
    values = {"of_route": claim.route, "now": now, "owner": claim.owner, "until": now + claim.lease_us}
    if claim.left:
        row = connection.execute(CLAIM_NOT_LEFT, {**values, "left": claim.left}).first()
    else:
        row = connection.execute(CLAIM, values).first()
    return None if row is None else LeasedRow(row=row_mapping.BuildRow._make(row), now=now)


def read_claimed(connection: Connection, leased: LeasedRow) -> LeasedBuild:
    """Return the build as it was claimed, with its other rows and the circuit breakers as they are now."""
    build, due_at = _with_rows(connection, leased.row), leased.row.due_at
    if build.run_parameters is None and earlier_in_queue(connection, build.job_id, build.build_no):
        build = replace(build, earlier_in_queue=True)
    return LeasedBuild(
        build=build,
        breakers=all_breakers(connection),
        due_at=leased.now if due_at is None else due_at,  # a claimed build always has one
        now=leased.now,
    )


def read_build(connection: Connection, build_id: int) -> Build | None:
    """Return the build with all its rows."""
    row = connection.execute(select(*row_mapping.BUILD_COLUMNS).where(builds.c.id == build_id)).first()
    return None if row is None else _with_rows(connection, row_mapping.BuildRow._make(row))


def _with_rows(connection: Connection, row: row_mapping.BuildRow) -> Build:
    of_build = {"build_id": row.id}
    found = [row_mapping.ReportRow._make(report) for report in connection.execute(REPORTS_OF, of_build)]
    return row_mapping.to_build(
        row,
        reports=found,
        deliveries=map(row_mapping.DeliveryRow._make, connection.execute(DELIVERIES_OF, of_build)),
        registrations=map(row_mapping.RegistrationRow._make, connection.execute(REGISTRATIONS_OF, of_build)),
        runs=map(row_mapping.RunRow._make, connection.execute(RUNS_OF, of_build)),
        rejected=() if found else connection.execute(REJECTED_OF, {"key": row.key}).scalars(),
    )


def due_routes(connection: Connection, routes: Iterable[str], now: int, left: Sequence[int] = ()) -> dict[str, int]:
    """Return when the next build of each route is due, without leased builds and those with an id in `left`.

    Routes without any are left out.
    """
    found = {}
    for route in routes:
        values = {"of_route": route, "now": now}
        if left:
            at = connection.execute(NEXT_DUE_NOT_LEFT, {**values, "left": left}).scalar()
        else:
            at = connection.execute(NEXT_DUE, values).scalar()
        if at is not None:
            found[route] = at
    return found


# -- renew and release -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Renewal:
    """Asks to keep the lease for `lease_us` from now."""

    build_id: int
    fencing_token: int
    lease_us: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """The end of a reconcile: `report_seq` and `due_at` as it read them, `until` is when the build is due again."""

    build_id: int
    fencing_token: int
    report_seq: int
    due_at: int | None
    until: int | None
    waiting_on: str | None
    blocked_reason: str | None
    wakes_next: bool = False  # the next build of its job


def renew(connection: Connection, now: int, renewals: Sequence[Renewal]) -> list[bool]:
    """Extend all leases by the same time; False if the build has a newer owner."""
    tokens = lock_builds(connection, {renewal.build_id for renewal in renewals})
    owned = [tokens.get(renewal.build_id) == renewal.fencing_token for renewal in renewals]
    ids = [renewal.build_id for renewal, is_owned in zip(renewals, owned, strict=True) if is_owned]
    if ids:
        until = now + min(renewal.lease_us for renewal in renewals)  # they differ while settings change
        connection.execute(RENEW, {"ids": ids, "until": until})
    return owned


def release(connection: Connection, now: int, releases: Sequence[Release]) -> list[bool]:
    """End leases; False if the build has a newer owner. If something arrived meanwhile, an earlier due time stays."""
    waited_for = {item.waiting_on for item in releases if item.waiting_on is not None}
    closed = recovered_breakers(connection, waited_for) if waited_for else set()
    return [
        # A breaker that closed after the reconciler read it has woken its builds already, and does not do so again.
        _release_one(connection, now, replace(item, until=now, waiting_on=None) if item.waiting_on in closed else item)
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
    waits = is_queue(item.waiting_on)
    wake_first_waiting(connection, item.build_id, now, waits=waits, wakes_next=item.wakes_next)
    return True


def free_leases(connection: Connection, _now: int) -> int:
    """End all leases, for the only process that owns the ledger, before it starts; return their number."""
    leased = builds.c.lease_until.is_not(None)
    return connection.execute(update(builds).where(leased).values(lease_until=None, lease_owner=None)).rowcount


# -- poll requests -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PollRequest:
    """A build that may have ended; without `build_no`, any build of the job."""

    job_id: str
    build_no: int | None = None


class _OpenBuild(NamedTuple):
    id: int
    polled_at: Instant | None


def request_poll(connection: Connection, now: int, items: Sequence[PollRequest]) -> list[int]:
    """Make the open builds of each request due now, or one second after their last poll; return their number.

    It needs no lease. `due_at` always changes, also if the build is due already: so the release of a reconciler that
    has polled before this request does not postpone it.
    """
    return [_request_one(connection, now, item) for item in items]


def _request_one(connection: Connection, now: int, item: PollRequest) -> int:
    if item.build_no is None:
        requested = builds.c.job_id == item.job_id
    else:
        requested = and_(builds.c.source == SOURCE, builds.c.key == build_key(item.job_id, item.build_no))
    query = select(builds.c.id, builds.c.polled_at)
    query = query.where(requested, builds.c.state == BuildState.OPEN, UNFINISHED_BUILD)
    # All writers lock builds in the order of their ids: otherwise two transactions could wait for each other.
    rows = connection.execute(query.order_by(builds.c.id).with_for_update(key_share=True))
    found = [_OpenBuild._make(row) for row in rows]
    for build in found:
        due_at = requested_poll_due_at(Instant(now), build.polled_at) or now
        values = {"poll_requested_at": now, "due_at": earlier(builds.c.due_at - 1, due_at)}
        connection.execute(update(builds).where(builds.c.id == build.id).values(values))
    return len(found)
