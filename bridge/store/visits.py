"""The carriers' side of the ledger: claim a build, write what a visit decided and met, release it.

It knows neither why a change was decided nor who makes the calls. Every fenced transaction begins with an update of
the build by id and fence, and stops when no row matched: a late owner's write changes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import BigInteger, Connection, and_, bindparam, case, delete, func, insert, literal, or_, select, update

from bridge.domain.build import UNSETTLED, Build, DeliveryState, Registration, RegistrationState
from bridge.domain.changes import (
    AddRegistration,
    AddRun,
    Change,
    DropRegistration,
    RaiseBatch,
    SetBuild,
    SetDelivery,
    SetRegistration,
    SetRun,
)
from bridge.domain.gates import Gates
from bridge.domain.outcomes import Registered
from bridge.store.rows import columns_of_build, to_build
from bridge.store.schema import builds, deliveries, registrations, reports, runs
from bridge.store.statements import earlier, insert_new
from bridge.store.upstreams import all_gates, is_open

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
        fence=builds.c.fence + 1,
        waits_for=None,
    )
    .returning(builds)
)
DUE_SINCE = select(builds.c.due_at).where(DUE, builds.c.due_at.is_not(None)).order_by(builds.c.due_at).limit(1)
DUE_LATER = select(func.min(builds.c.due_at)).where(IN_LANE, builds.c.due_at.is_not(None), builds.c.due_at > NOW)

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
class Claimed:
    """A build under lease as it was read after its claim, and when that was."""

    build: Build
    gates: Gates
    due_at: int
    now: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Fenced:
    """Changes to a build by the visit that holds `fence`."""

    build_id: int
    fence: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """The end of a visit: `batch_seq` and `due_at` are what it knew, `until` is when it wants the next one."""

    build_id: int
    fence: int
    batch_seq: int
    due_at: int
    until: int | None
    waits_for: str | None
    held: str | None


# -- claim -------------------------------------------------------------------------------------------------------


def claim(connection: Connection, now: int, claims: Sequence[Claim]) -> list[Claimed | None]:
    """Lease the build that has been due the longest in each lane; None where no build of it is due."""
    return [_claim_one(connection, now, claim) for claim in claims]


def _claim_one(connection: Connection, now: int, claim: Claim) -> Claimed | None:
    values = {"lane": claim.lane, "now": now, "owner": claim.owner, "until": now + claim.lease_us}
    row = connection.execute(CLAIM, values).first()
    if row is None:
        return None
    build = _with_all(connection, row)
    return Claimed(build=build, gates=all_gates(connection), due_at=row.due_at, now=now)


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


def due_lanes(connection: Connection, lanes: Iterable[str], now: int) -> dict[str, int]:
    """Return when the next build of each lane is due; lanes without any are left out, as is a build under lease."""
    found = {}
    for lane in lanes:
        which = {"lane": lane, "now": now}
        at = connection.execute(DUE_SINCE, which).scalar() or connection.execute(DUE_LATER, which).scalar()
        if at is not None:
            found[lane] = at
    return found


# -- what a visit writes -----------------------------------------------------------------------------------------


def renew(connection: Connection, now: int, renewals: Sequence[tuple[int, int, int]]) -> list[bool]:
    """Lengthen leases, each (build id, fence, microseconds from now); False where the build has a newer owner."""
    return [
        bool(
            connection.execute(
                update(builds)
                .where(builds.c.id == build_id, builds.c.fence == fence)
                .values(lease_until=now + lease_us)
            ).rowcount
        )
        for build_id, fence, lease_us in renewals
    ]


def record(connection: Connection, _now: int, items: Sequence[Fenced]) -> list[tuple[Change, ...] | None]:
    """Write changes under their fence; return them with new ids filled in, None where the fence is no longer held."""
    return [_record_one(connection, item) for item in items]


def _record_one(connection: Connection, item: Fenced) -> tuple[Change, ...] | None:
    if _already_asked(connection, item):
        return None
    values: dict[str, Any] = {"fence": item.fence}
    for change in item.changes:
        if isinstance(change, SetBuild):
            values |= columns_of_build(change.values)
        elif isinstance(change, RaiseBatch):
            values["batch_seq"] = builds.c.batch_seq + 1
    if not _touch(connection, item.build_id, item.fence, values):
        return None
    return tuple(_write(connection, item.build_id, change) for change in item.changes)


def _already_asked(connection: Connection, item: Fenced) -> bool:
    """Whether a report is to be registered that has an unsettled registration: ids came late, unseen by the visit."""
    delivery_ids = [change.registration.delivery_id for change in item.changes if isinstance(change, AddRegistration)]
    if not delivery_ids:
        return False
    unsettled = registrations.c.state.in_(UNSETTLED)
    of_these = and_(registrations.c.build_id == item.build_id, registrations.c.delivery_id.in_(delivery_ids))
    return connection.execute(select(registrations.c.id).where(of_these, unsettled).limit(1)).first() is not None


def _touch(connection: Connection, build_id: int, fence: int, values: dict[str, Any]) -> bool:
    statement = update(builds).where(builds.c.id == build_id, builds.c.fence == fence).values(values)
    return bool(connection.execute(statement).rowcount)


def _write(connection: Connection, build_id: int, change: Change) -> Change:
    match change:
        case SetDelivery(delivery_id, leaves, values):
            where = and_(deliveries.c.id == delivery_id, deliveries.c.state == leaves)
            connection.execute(update(deliveries).where(where).values(dict(values)))
        case SetRegistration(registration_id, leaves, values):
            where = and_(registrations.c.id == registration_id, registrations.c.state == leaves)
            connection.execute(update(registrations).where(where).values(dict(values)))
        case AddRegistration(registration):
            columns = {**asdict(registration), "build_id": build_id}
            del columns["id"]
            inserted = connection.execute(insert(registrations).returning(registrations.c.id), columns)
            return AddRegistration(replace(registration, id=inserted.scalar_one()))
        case DropRegistration(registration_id):
            asked = registrations.c.state == RegistrationState.ASKED
            connection.execute(delete(registrations).where(registrations.c.id == registration_id, asked))
        case AddRun():
            insert_new(connection, runs, [{"build_id": build_id, **_columns(change)}])
        case SetRun(test_run_id, values):
            where = and_(runs.c.build_id == build_id, runs.c.test_run_id == test_run_id)
            connection.execute(update(runs).where(where).values(dict(values)))
        case SetBuild() | RaiseBatch():
            pass  # written with the fence
    return change


def _columns(change: AddRun) -> dict[str, Any]:
    return {
        "test_run_id": change.test_run_id,
        "test_run_url": change.test_run_url,
        "opened_at": change.opened_at,
        "status": None,
        "finalized_at": None,
    }


def release(connection: Connection, now: int, releases: Sequence[Release]) -> list[bool]:
    """End visits; where something arrived meanwhile the earlier due time stays. False: the fence was lost."""
    return [_release_one(connection, _not_for_an_open_gate(connection, item, now)) for item in releases]


def _not_for_an_open_gate(connection: Connection, item: Release, now: int) -> Release:
    """A gate that opened since the visit looked has nudged already, and will not again."""
    if item.waits_for is not None and is_open(connection, item.waits_for):
        return replace(item, until=now, waits_for=None)
    return item


def _release_one(connection: Connection, item: Release) -> bool:
    unchanged = and_(builds.c.due_at == item.due_at, builds.c.batch_seq == item.batch_seq)
    until = literal(item.until, BigInteger)
    sooner = case((builds.c.due_at > until, until), else_=builds.c.due_at)
    values = {
        "due_at": case((unchanged, until), else_=sooner),
        "waits_for": item.waits_for,
        "held": item.held,
        "lease_owner": None,
        "lease_until": None,
    }
    return _touch(connection, item.build_id, item.fence, values)


# -- what is written without the fence ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class LateIds:
    """Ids that a register answered after its visit had lost the build."""

    build_id: int
    registration: Registration
    answer: Registered


def append_late_ids(connection: Connection, now: int, items: Sequence[LateIds]) -> list[bool]:
    """Write ids whoever owns the build now: TestNod must be told that nothing will be uploaded there.

    Adds the run if it is new, raises the batch and pulls the build's turn forward in the same commit. False where
    the registration's row has gone or has got ids already.
    """
    return [_append_one(connection, now, item) for item in items]


def _append_one(connection: Connection, now: int, item: LateIds) -> bool:
    answer = item.answer
    # One that is lost although it has ids is lost at TestNod, which no longer knows it.
    nameless = and_(
        registrations.c.state.in_((RegistrationState.ASKED, RegistrationState.LOST)),
        registrations.c.upload_id.is_(None),
    )
    statement = update(registrations).where(registrations.c.id == item.registration.id, nameless)
    values = {
        "state": RegistrationState.FAILED_OWED,
        "test_run_id": answer.test_run_id,
        "upload_id": answer.upload_id,
        "named_at": now,
        "due_at": now,
        "attempts": 0,
        "failure": "the gateway that registered this upload was interrupted before it could send the file",
    }
    if not connection.execute(statement.values(values)).rowcount:
        return False
    run = AddRun(answer.test_run_id, answer.test_run_url, now)
    insert_new(connection, runs, [{"build_id": item.build_id, **_columns(run)}])
    raised = {"batch_seq": builds.c.batch_seq + 1, "due_at": earlier(builds.c.due_at, now)}
    connection.execute(update(builds).where(builds.c.id == item.build_id).values(raised))
    return True


def record_stored(connection: Connection, _now: int, items: Sequence[tuple[Change, ...]]) -> list[bool]:
    """Write that storage has a report, where its registration is still named; False where it is not.

    `items` are the changes of effects.put.stored: the registration's first, then its delivery's.
    """
    return [_stored_one(connection, changes) for changes in items]


def _stored_one(connection: Connection, changes: tuple[Change, ...]) -> bool:
    for change in changes:
        if isinstance(change, SetRegistration):
            where = and_(registrations.c.id == change.id, registrations.c.state == change.leaves)
            if not connection.execute(update(registrations).where(where).values(dict(change.values))).rowcount:
                return False
        elif isinstance(change, SetDelivery):
            undelivered = deliveries.c.state != DeliveryState.DELIVERED
            where = and_(deliveries.c.id == change.id, undelivered)
            connection.execute(update(deliveries).where(where).values(dict(change.values)))
    return True
