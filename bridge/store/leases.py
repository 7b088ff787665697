"""Leases on due builds: claim, renew, release; and requests to poll a build soon.

Each claim raises the build's fencing token. A reconciler that has lost its lease writes nothing any more: its release
changes no row (fenced_writes.py).
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import field, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    String,
    all_,
    and_,
    any_,
    bindparam,
    case,
    exists,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningUpdate

from bridge.domain.build import Build, BuildState, DeliveryState, DeliveryTarget
from bridge.domain.circuit_breaker import CircuitBreakers
from bridge.domain.instants import Instant
from bridge.domain.intake import MAX_REJECTIONS
from bridge.domain.job_order import is_queue, queue_of, reports_wait
from bridge.domain.lifecycle.build_end import requested_poll_due_at
from bridge.domain.notices import NoticeEvent
from bridge.store import row_mapping
from bridge.store.circuit_breakers import recovered_breakers, to_breakers
from bridge.store.duplicates import SOURCE, build_key
from bridge.store.engine.base import one_statement
from bridge.store.engine.compiled import Row, Statement, Together, each_of, is_one_of
from bridge.store.job_order import EARLIER_IN_QUEUE, ReconcileEnd, wake_first_waiting
from bridge.store.locks import lock_builds
from bridge.store.notices import add_events
from bridge.store.row_mapping import BREAKER_COLUMNS
from bridge.store.schema import UNFINISHED_BUILD, builds, deliveries, registrations, rejections, reports, runs
from bridge.store.sql_helpers import earlier
from bridge.values import dataclass

# Statements that every claim executes are built once: that costs more than their execution.
NOW = bindparam("now", type_=BigInteger)
OF_ROUTE = builds.c.route == bindparam("of_route", type_=String)
FREE = or_(builds.c.lease_until.is_(None), builds.c.lease_until <= NOW)
NOT_LEFT = builds.c.id != all_(bindparam("left", type_=ARRAY(BigInteger)))


def _claim_of(*conditions: ColumnElement[bool]) -> Statement:
    due = select(builds.c.id).where(OF_ROUTE, builds.c.due_at <= NOW, FREE, *conditions).order_by(builds.c.due_at)
    ids = due.limit(bindparam("count", type_=BigInteger)).with_for_update(skip_locked=True)

    def build(dialect: str) -> ReturningUpdate[Any]:
        # PostgreSQL may execute a subquery of IN more than once, and then lock more rows than it returns.
        chosen = builds.c.id.in_(ids) if dialect == "sqlite" else builds.c.id == any_(func.array(ids.scalar_subquery()))
        return (
            update(builds)
            .where(chosen)
            .values(
                lease_owner=bindparam("owner", type_=String),
                lease_until=bindparam("until", type_=BigInteger),
                fencing_token=builds.c.fencing_token + 1,
                waiting_on=null(),
            )
            .returning(*row_mapping.BUILD_COLUMNS)
        )

    return Statement(build)


def _next_due_of(*conditions: ColumnElement[bool]) -> Statement:
    free = or_(builds.c.due_at > NOW, FREE)

    def build(dialect: str) -> Select[Any]:
        route = each_of(dialect, "routes")
        due = select(builds.c.due_at).where(builds.c.route == route, builds.c.due_at.is_not(None), free, *conditions)
        return select(route, due.order_by(builds.c.due_at).limit(1).scalar_subquery())

    return Statement(build)


CLAIM, NEXT_DUE = _claim_of(), _next_due_of()
CLAIM_NOT_LEFT, NEXT_DUE_NOT_LEFT = _claim_of(NOT_LEFT), _next_due_of(NOT_LEFT)  # for PostgreSQL only
RENEW = Statement(
    update(builds)
    # A canceled renewal may be written after the release: it must not lease the build again.
    .where(is_one_of(builds.c.id, "ids"), builds.c.lease_until.is_not(None))
    .values(lease_until=bindparam("until", type_=BigInteger))
)
UNTIL: BindParameter[int | None] = bindparam("until", type_=BigInteger)
READ_REPORT_SEQ: BindParameter[int | None] = bindparam("read_report_seq", type_=BigInteger)
UNCHANGED = and_(
    builds.c.due_at.is_not_distinct_from(bindparam("read_due_at", type_=BigInteger)),
    or_(READ_REPORT_SEQ.is_(None), builds.c.report_seq == READ_REPORT_SEQ),
)
RELEASE = Statement(
    update(builds)
    .where(builds.c.id == bindparam("row_id", type_=BigInteger))
    .values(
        due_at=case((UNCHANGED, UNTIL), else_=case((builds.c.due_at > UNTIL, UNTIL), else_=builds.c.due_at)),
        waiting_on=bindparam("new_waiting_on", type_=builds.c.waiting_on.type),
        blocked_reason=bindparam("new_blocked_reason", type_=builds.c.blocked_reason.type),
        blocked_quietly=bindparam("new_blocked_quietly", type_=builds.c.blocked_quietly.type),
        lease_owner=null(),
        lease_until=null(),
    )
)
BUILD_ID: BindParameter[int] = bindparam("build_id", type_=BigInteger)
BUILD = Statement(select(*row_mapping.BUILD_COLUMNS).where(builds.c.id == BUILD_ID))
MARKS = Statement(select(builds.c.report_seq, builds.c.due_at).where(builds.c.id == BUILD_ID))
REPORTS_OF = select(*row_mapping.RECONCILED_REPORT_COLUMNS).where(reports.c.build_id == BUILD_ID).order_by(reports.c.id)
DELIVERIES_OF = select(*row_mapping.DELIVERY_COLUMNS).where(deliveries.c.build_id == BUILD_ID).order_by(deliveries.c.id)
REGISTRATIONS_OF = (
    select(*row_mapping.REGISTRATION_COLUMNS).where(registrations.c.build_id == BUILD_ID).order_by(registrations.c.id)
)
RUNS_OF = select(*row_mapping.RUN_COLUMNS).where(runs.c.build_id == BUILD_ID).order_by(runs.c.id)
REJECTED_OF = (  # only of builds without a report
    select(rejections.c.name)
    .where(rejections.c.source == SOURCE, rejections.c.key == bindparam("key", type_=String))
    .where(rejections.c.caller != "", ~rejections.c.is_foreign)
    .where(~exists().where(reports.c.build_id == BUILD_ID))
    .order_by(rejections.c.id)
    .limit(MAX_REJECTIONS)
)
ROWS_OF = Together(REPORTS_OF, DELIVERIES_OF, REGISTRATIONS_OF, RUNS_OF, REJECTED_OF)
CLAIMED = Together(
    *(REPORTS_OF, DELIVERIES_OF, REGISTRATIONS_OF, RUNS_OF, REJECTED_OF), EARLIER_IN_QUEUE, select(*BREAKER_COLUMNS)
)
NEWER_DELIVERIES = (deliveries.c.build_id == BUILD_ID, deliveries.c.id > bindparam("last_delivery", type_=BigInteger))
NEWER = Together(
    select(*row_mapping.BUILD_COLUMNS).where(builds.c.id == BUILD_ID),
    # By their deliveries: an index of a build's reports in the order of their ids is needed for nothing else.
    select(*row_mapping.RECONCILED_REPORT_COLUMNS)
    .where(reports.c.id.in_(select(deliveries.c.report_id).where(*NEWER_DELIVERIES)))
    .where(reports.c.id > bindparam("last_report", type_=BigInteger))
    .order_by(reports.c.id),
    select(*row_mapping.DELIVERY_COLUMNS).where(*NEWER_DELIVERIES).order_by(deliveries.c.id),
)
FEW_REPORTS: Final = 64
"""The rows of a build with no more reports are read by its claim. Other writes wait for that, but not for long."""

SENT_BYTES: Final = 256 * 1024
"""Of reports that are due to be sent, so many bytes come with the claim of their build."""

BODIES = Statement(
    select(reports.c.id, reports.c.body).where(is_one_of(reports.c.id, "ids"), reports.c.body.is_not(None))
)
MORE_REPORTS = Statement(select(reports.c.id).where(reports.c.build_id == BUILD_ID).offset(FEW_REPORTS).limit(1))


# -- claim -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Asks for the next due build of a route; the empty route stands for builds without run parameters.

    Builds with an id in `left` are left to other gateways, which only PostgreSQL permits.
    """

    route: str
    owner: str
    lease_us: int
    left: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LeasedRow:
    """The row of a build as its claim returned it at `now` (microseconds UTC)."""

    row: row_mapping.BuildRow
    now: int
    others: Sequence[Sequence[Row]] | None = None  # the rows of CLAIMED; None if they are still to be read
    bodies: Mapping[int, bytes] = field(default_factory=dict)  # of reports that are due to be sent, by id


@dataclass(frozen=True, kw_only=True, slots=True)
class LeasedBuild:
    """A build under lease with all its rows, read after its claim; `now` and `due_at` are the claim's."""

    build: Build
    breakers: CircuitBreakers
    due_at: int
    now: int
    bodies: Mapping[int, bytes] = field(default_factory=dict)  # of reports that are due to be sent, by id


def claim(connection: Connection, now: int, claims: Sequence[Claim]) -> list[LeasedRow | None]:
    """Lease the build of each route that has been due the longest; None if no build of it is due.

    Equal claims lease as many builds in one statement. The other rows of a build may be thousands. `read_claimed` reads
    them, so that no other write waits for that. Of a small build in SQLite the claim reads them: that takes the time of
    a statement, and the gateway's reading thread would take the interpreter's lock from the event loop.
    """
    leased = {wanted: deque(_claim(connection, now, wanted, count)) for wanted, count in Counter(claims).items()}
    return [leased[wanted].popleft() if leased[wanted] else None for wanted in claims]


def _claim(connection: Connection, now: int, claim: Claim, count: int) -> list[LeasedRow]:
    values = {"of_route": claim.route, "now": now, "owner": claim.owner, "until": now + claim.lease_us, "count": count}
    if claim.left:
        rows = CLAIM_NOT_LEFT.rows(connection, {**values, "left": claim.left})
    else:
        rows = CLAIM.rows(connection, values)
    leased = [_with_others(connection, LeasedRow(row=row_mapping.BuildRow._make(row), now=now)) for row in rows]
    return sorted(leased, key=lambda each: (each.row.due_at or now, each.row.id))  # rows are returned in any order


def _with_others(connection: Connection, leased: LeasedRow) -> LeasedRow:
    if connection.dialect.name != "sqlite" or MORE_REPORTS.rows(connection, {"build_id": leased.row.id}):
        return leased
    try:
        others = _read_others(connection, leased)
        return replace(leased, others=others, bodies=_read_bodies(connection, leased.now, *others[:2]))
    except Exception:  # noqa: BLE001 -- `read_claimed` raises it for this build alone; others are leased all the same
        return leased


def _read_bodies(
    connection: Connection, now: int, its_reports: Sequence[Row], its_deliveries: Sequence[Row]
) -> Mapping[int, bytes]:
    deliveries_of = map(row_mapping.DeliveryRow._make, its_deliveries)
    waiting = (each for each in deliveries_of if each.state == DeliveryState.PENDING and each.due_at <= now)
    due = {each.report_id for each in waiting if each.target == DeliveryTarget.TESTNOD}
    ids, size = [], 0
    for report in map(row_mapping.ReconciledReportRow._make, its_reports if due else ()):
        if report.id in due and report.has_bytes and size + report.sent_size <= SENT_BYTES:
            ids.append(report.id)
            size += report.sent_size
    return dict(BODIES.rows(connection, {"ids": ids})) if ids else {}


def _read_others(connection: Connection, leased: LeasedRow) -> list[list[Row]]:
    queue, number = leased.row.order
    return CLAIMED.rows(connection, {**_keys_of(leased.row), "line": queue_of(queue or ""), "build_no": number})


@one_statement
def read_claimed(connection: Connection, leased: LeasedRow) -> LeasedBuild:
    """Return the build as it was claimed, with its other rows and the circuit breakers as they are now."""
    return to_leased_build(leased, _read_others(connection, leased))


def to_leased_build(leased: LeasedRow, others: Sequence[Sequence[Row]]) -> LeasedBuild:
    """Return the claimed build with its other rows, which are those of CLAIMED."""
    row = leased.row
    *of_build, earlier_in_queue, breakers = others
    build = _with_rows(row, *of_build)
    if build.run_parameters is None and earlier_in_queue:
        build = replace(build, earlier_in_queue=True)
    return LeasedBuild(
        build=build,
        breakers=to_breakers(breakers),
        due_at=leased.now if row.due_at is None else row.due_at,  # a claimed build always has one
        now=leased.now,
        bodies=leased.bodies,
    )


def read_build(connection: Connection, build_id: int) -> Build | None:
    """Return the build with all its rows."""
    found = BUILD.first(connection, {"build_id": build_id})
    if found is None:
        return None
    row = row_mapping.BuildRow._make(found)
    return _with_rows(row, *ROWS_OF.rows(connection, _keys_of(row)))


def _keys_of(row: row_mapping.BuildRow) -> dict[str, object]:
    return {"build_id": row.id, "key": row.key}


def _with_rows(row: row_mapping.BuildRow, *of_build: Iterable[Row]) -> Build:
    """Return the build with the rows of ROWS_OF."""
    its_reports, its_deliveries, its_registrations, its_runs, rejected = of_build
    return row_mapping.to_build(
        row,
        reports=map(row_mapping.ReconciledReportRow._make, its_reports),
        deliveries=map(row_mapping.DeliveryRow._make, its_deliveries),
        registrations=map(row_mapping.RegistrationRow._make, its_registrations),
        runs=map(row_mapping.RunRow._make, its_runs),
        rejected=(name for (name,) in rejected),
    )


@one_statement
def read_newer(connection: Connection, known: Build) -> Build | None:
    """Return the build without its runs, and of its reports and deliveries only those that came after `known`.

    None if the build is gone or has a newer owner.
    """
    last = {"last_report": known.reports.last_id, "last_delivery": known.deliveries.last_id}
    rows, its_reports, its_deliveries = NEWER.rows(connection, {"build_id": known.id, **last})
    found = next(map(row_mapping.BuildRow._make, rows), None)
    if found is None or found.fencing_token != known.fencing_token:
        return None
    return _with_rows(found, its_reports, its_deliveries, (), (), ())


@one_statement
def due_routes(connection: Connection, routes: Iterable[str], now: int, left: Sequence[int] = ()) -> dict[str, int]:
    """Return when the next build of each route is due, without leased builds and those with an id in `left`.

    Routes without any are left out.
    """
    values = {"routes": list(routes), "now": now}
    if left:  # noqa: SIM108 -- two lines are easier to read
        rows = NEXT_DUE_NOT_LEFT.rows(connection, {**values, "left": left})
    else:
        rows = NEXT_DUE.rows(connection, values)
    return {route: at for route, at in rows if at is not None}


class Marks(NamedTuple):
    """What shows that a build is as it was read: uploads and requests raise one of them."""

    report_seq: int
    due_at: int | None


@one_statement
def read_marks(connection: Connection, build_id: int) -> Marks | None:
    """Return the marks of a build; None if it is gone."""
    row = MARKS.first(connection, {"build_id": build_id})
    return None if row is None else Marks._make(row)


# -- renew and release -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """Asks to keep the lease for `lease_us` from now."""

    build_id: int
    fencing_token: int
    lease_us: int


@dataclass(frozen=True, kw_only=True)
class Release:
    """The end of a reconcile: `report_seq` and `due_at` as it read them, `until` is when the build is due again."""

    build_id: int
    fencing_token: int
    report_seq: int
    due_at: int | None
    until: int | None
    waiting_on: str | None
    blocked_reason: str | None
    is_quiet: bool = False  # the reason is no event
    wakes_next: bool = False  # the next build of its job
    notices: tuple[NoticeEvent, ...] = ()  # events that it makes true


def renew(connection: Connection, now: int, renewals: Sequence[Renewal]) -> list[bool]:
    """Extend all leases by the same time; False if the build has a newer owner."""
    tokens = lock_builds(connection, {renewal.build_id for renewal in renewals})
    owned = [tokens.get(renewal.build_id) == renewal.fencing_token for renewal in renewals]
    ids = [renewal.build_id for renewal, is_owned in zip(renewals, owned, strict=True) if is_owned]
    if ids:
        until = now + min(renewal.lease_us for renewal in renewals)  # they differ while settings change
        RENEW.run(connection, {"ids": ids, "until": until})
    return owned


def release(connection: Connection, now: int, releases: Sequence[Release]) -> list[bool]:
    """End leases; False if the build has a newer owner. If something arrived meanwhile, an earlier due time stays.

    If the build waits for TestNod, reports that arrived meanwhile wait with the others, as later ones do.
    """
    closed = lock_waited_for(connection, releases)
    tokens = lock_builds(connection, {item.build_id for item in releases})
    owned = [tokens.get(item.build_id) == item.fencing_token for item in releases]
    released = [item for item, is_owned in zip(releases, owned, strict=True) if is_owned]
    release_locked(connection, now, released, closed)
    return owned


def lock_waited_for(connection: Connection, releases: Iterable[Release]) -> set[str]:
    """Return the breakers that builds wait for and that are closed by now, locked; breakers are locked before builds.

    A breaker that closed after the reconciler read it has woken its builds already, and does not do so again.
    """
    return recovered_breakers(connection, {item.waiting_on for item in releases if item.waiting_on is not None})


def release_locked(connection: Connection, now: int, releases: Sequence[Release], closed: AbstractSet[str]) -> None:
    """End leases whose builds are locked and have these owners; builds that wait for `closed` breakers are due now."""
    releases = [replace(item, until=now, waiting_on=None) if item.waiting_on in closed else item for item in releases]
    RELEASE.run_each(connection, [_columns_after(item) for item in releases])
    ends = (ReconcileEnd(item.build_id, is_queue(item.waiting_on), item.wakes_next) for item in releases)
    wake_first_waiting(connection, now, ends)
    add_events(connection, now, [event for item in releases for event in item.notices])


def _columns_after(item: Release) -> dict[str, object]:
    return {
        "row_id": item.build_id,
        "read_due_at": item.due_at,
        "read_report_seq": None if reports_wait(item.waiting_on) else item.report_seq,
        "until": item.until,
        "new_waiting_on": item.waiting_on,
        "new_blocked_reason": item.blocked_reason,
        "new_blocked_quietly": item.is_quiet,
    }


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
