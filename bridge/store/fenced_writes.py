"""Writes the changes that reconcilers decide, under the fencing token of their lease.

Each transaction locks the builds first and compares their tokens: a reconciler that has lost its lease writes nothing.
The exceptions, which may be written after a lease was lost, are at the end.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, Update, and_, bindparam, delete, insert, or_, select, update

from bridge.domain.build import UNSETTLED, Delivery, Registration, RegistrationState
from bridge.domain.changes import (
    AddDelivery,
    AddRegistration,
    AddReport,
    AddRun,
    BumpReportSeq,
    Change,
    DropRegistration,
    SetBuild,
    SetDelivery,
    SetRegistration,
    SetRun,
)
from bridge.domain.instants import Instant
from bridge.domain.outcomes import Registered
from bridge.store.duplicates import GENERATED, dedupe_key
from bridge.store.row_mapping import columns_of_build
from bridge.store.schema import builds, deliveries, registrations, reports, runs
from bridge.store.sql_helpers import earlier, insert_new

LOCK_BUILDS = (
    select(builds.c.id, builds.c.fencing_token)
    .where(builds.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(builds.c.id)
    .with_for_update(key_share=True)
)
LOCK_REGISTRATIONS = (
    select(registrations.c.id, registrations.c.state)
    .where(registrations.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(registrations.c.id)
    .with_for_update(key_share=True)
)
UNSETTLED_DELIVERIES = select(registrations.c.delivery_id, registrations.c.generation).where(
    registrations.c.build_id.in_(bindparam("build_ids", expanding=True)),
    registrations.c.delivery_id.in_(bindparam("delivery_ids", expanding=True)),
    registrations.c.state.in_(UNSETTLED),
)
ADD_REGISTRATIONS = insert(registrations).returning(registrations.c.id, sort_by_parameter_order=True)
BUMP_REPORT_SEQ = update(builds).where(builds.c.id == bindparam("row_id")).values(report_seq=builds.c.report_seq + 1)
DROP_REGISTRATION = delete(registrations).where(
    registrations.c.id == bindparam("row_id"), registrations.c.state == RegistrationState.REQUESTED
)


# -- locks and fencing tokens ------------------------------------------------------------------------------------


class _LockedBuild(NamedTuple):
    id: int
    fencing_token: int


def lock_builds(connection: Connection, build_ids: Iterable[int]) -> dict[int, int]:
    """Lock builds until the end of the transaction; return their fencing tokens, which do not change until then."""
    rows = connection.execute(LOCK_BUILDS, {"ids": sorted(build_ids)})
    return {build.id: build.fencing_token for build in map(_LockedBuild._make, rows)}


def lock_build(connection: Connection, build_id: int) -> None:
    """Lock a build until the end of the transaction."""
    lock_builds(connection, [build_id])


def update_if_fenced(connection: Connection, build_id: int, fencing_token: int, values: Mapping[str, Any]) -> bool:
    """Update a build if it still has this token; return whether it had."""
    statement = update(builds).where(builds.c.id == build_id, builds.c.fencing_token == fencing_token).values(values)
    return bool(connection.execute(statement).rowcount)


# -- changes of reconcilers --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class FencedChanges:
    """Changes to a build by the reconciler whose lease has this fencing token."""

    build_id: int
    fencing_token: int
    changes: tuple[Change, ...]


class BuildChanges(NamedTuple):
    """Changes to a build that the transaction has locked."""

    build_id: int
    changes: tuple[Change, ...]


def write_changes_if_fenced(
    connection: Connection, _now: int, items: Sequence[FencedChanges]
) -> list[tuple[Change, ...] | None]:
    """Write changes whose fencing token is current; return them with the ids of new rows, or None if it is not.

    None too if a registration of the same delivery is unsettled: its answer came late, after the build was read.
    """
    tokens = lock_builds(connection, {item.build_id for item in items})
    owned = [item for item in items if tokens.get(item.build_id) == item.fencing_token]
    taken = _unsettled_deliveries(connection, owned)
    accepted = [
        tokens.get(item.build_id) == item.fencing_token and taken.isdisjoint(_deliveries_to_register(item))
        for item in items
    ]
    changes = [BuildChanges(item.build_id, item.changes) for item, ok in zip(items, accepted, strict=True) if ok]
    written = iter(_write_changes(connection, changes))
    return [next(written) if ok else None for ok in accepted]


class _Registering(NamedTuple):
    """A registration of an earlier generation does not block a new one: its run was given up."""

    delivery_id: int
    generation: int


def _unsettled_deliveries(connection: Connection, items: Sequence[FencedChanges]) -> set[_Registering]:
    delivery_ids = [each.delivery_id for item in items for each in _deliveries_to_register(item)]
    if not delivery_ids:
        return set()
    values = {"build_ids": [item.build_id for item in items], "delivery_ids": delivery_ids}
    return set(map(_Registering._make, connection.execute(UNSETTLED_DELIVERIES, values)))


def _deliveries_to_register(item: FencedChanges) -> list[_Registering]:
    added = [change.registration for change in item.changes if isinstance(change, AddRegistration)]
    return [_Registering(registration.delivery_id, registration.generation) for registration in added]


def _write_changes(connection: Connection, all_changes: Sequence[BuildChanges]) -> list[tuple[Change, ...]]:
    """Write the changes of many builds with few statements; return them with the ids of new rows.

    A round trip to a PostgreSQL costs more than the work of a statement, so rows of one shape are written together.
    """
    registration_ids = _insert_registrations(connection, all_changes)
    written = [
        tuple(_insert(connection, build_id, change, registration_ids) for change in changes)
        for build_id, changes in all_changes
    ]
    _update_rows(connection, [row for of_build in all_changes for row in _rows_of(of_build)])
    flat = [(build_id, change) for build_id, changes in all_changes for change in changes]
    bumped = [{"row_id": build_id} for build_id, change in flat if isinstance(change, BumpReportSeq)]
    dropped = [{"row_id": change.id} for _, change in flat if isinstance(change, DropRegistration)]
    for statement, parameters in ((BUMP_REPORT_SEQ, bumped), (DROP_REGISTRATION, dropped)):
        if parameters:
            connection.execute(statement, parameters)
    return written


# -- new rows ----------------------------------------------------------------------------------------------------


def _insert_registrations(connection: Connection, all_changes: Sequence[BuildChanges]) -> Iterator[int]:
    """Insert all new registrations in order; return their ids in the same order."""
    rows = [
        {**_without_id(change.registration), "build_id": build_id}
        for build_id, changes in all_changes
        for change in changes
        if isinstance(change, AddRegistration)
    ]
    return iter(connection.execute(ADD_REGISTRATIONS, rows).scalars().all() if rows else ())


def _insert(connection: Connection, build_id: int, change: Change, registration_ids: Iterator[int]) -> Change:
    match change:
        case AddRegistration(registration):
            return AddRegistration(replace(registration, id=next(registration_ids)))
        case AddDelivery(delivery):
            return AddDelivery(_insert_delivery(connection, build_id, delivery))
        case AddReport():
            return _insert_report(connection, build_id, change)
        case AddRun():
            _insert_run(connection, build_id, change)
    return change


def _insert_delivery(connection: Connection, build_id: int, delivery: Delivery) -> Delivery:
    columns = {**_without_id(delivery), "build_id": build_id}
    delivery_id: int = connection.execute(insert(deliveries).returning(deliveries.c.id), columns).scalar_one()
    return replace(delivery, id=delivery_id)


def _insert_report(connection: Connection, build_id: int, change: AddReport) -> AddReport:
    """Insert a report of the bridge's own and its deliveries; return it with the ids, or id 0 if the build has it.

    Its bytes are not part of its identity: a second reconciler that fetched newer ones adds no second report.
    """
    report = change.report
    row = {
        "build_id": build_id,
        "dedupe_key": dedupe_key(node_id=report.node_id, name=report.name, received_sha256="", source=GENERATED),
        "source": GENERATED,
        "name": report.name,
        "node_id": report.node_id,
        "size": report.size,
        "sent_size": report.sent_size,
        "received_sha256": report.sent_sha256,
        "sent_sha256": report.sent_sha256,
        **asdict(change.counts),
        "notes": [],
        "accepted_at": report.accepted_at,
        "caller": report.caller,
        "caller_routes": report.caller_routes,
        "address": "",
        "request_id": "",
        "body": change.body,
        "blob": None,
    }
    inserted = insert_new(connection, reports, [row], "id")
    if not inserted:
        return replace(change, report=replace(report, id=0))
    report_id: int = inserted[0].id
    pending = tuple(
        _insert_delivery(connection, build_id, replace(delivery, report_id=report_id)) for delivery in change.deliveries
    )
    return replace(change, report=replace(report, id=report_id), deliveries=pending)


def _insert_run(connection: Connection, build_id: int, run: AddRun) -> bool:
    """Insert a run; return whether the build did not have it."""
    columns = {**asdict(run), "build_id": build_id, "status": None, "finalized_at": None}
    return bool(insert_new(connection, runs, [columns], "id"))


def _without_id(value: Delivery | Registration) -> dict[str, Any]:
    columns = asdict(value)
    del columns["id"]
    return columns


# -- new values of rows ------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """New values of the row that `where` finds."""

    table: Table
    where: Mapping[str, object]
    values: Mapping[str, object]


def _rows_of(of_build: BuildChanges) -> Iterator[_Row]:
    build: dict[str, object] = {}
    for change in of_build.changes:
        match change:
            case SetBuild(values):
                build |= columns_of_build(values)
            case SetRegistration() | SetDelivery():
                yield _row_in_state(change)
            case SetRun(test_run_id, values):
                yield _Row(runs, {"build_id": of_build.build_id, "test_run_id": test_run_id}, values)
    if build:
        yield _Row(builds, {"id": of_build.build_id}, build)


def _row_in_state(change: SetRegistration | SetDelivery) -> _Row:
    table = registrations if isinstance(change, SetRegistration) else deliveries
    return _Row(table, {"id": change.id, "state": change.leaves}, change.values)


def _update_rows(connection: Connection, rows: Sequence[_Row]) -> None:
    """Update rows, those of one shape together; several updates of one row keep their order."""
    last: dict[tuple[object, ...], tuple[int, Update]] = {}
    shapes: defaultdict[tuple[int, Update], list[dict[str, object]]] = defaultdict(list)
    for table, where, values in rows:
        statement = _update_statement(table, tuple(where), tuple(values))
        row_key = (table.name, *(value for name, value in where.items() if name != "state"))
        turn, before = last.get(row_key, (0, statement))
        shape = last[row_key] = (turn + (statement is not before), statement)
        bound = {f"row_{name}": value for name, value in where.items()}
        shapes[shape].append(bound | {f"new_{name}": value for name, value in values.items()})
    for (_, statement), parameters in sorted(shapes.items(), key=lambda item: item[0][0]):
        connection.execute(statement, parameters)


@cache
def _update_statement(table: Table, where: tuple[str, ...], values: tuple[str, ...]) -> Update:
    """Return the statement for one shape. The domain has some dozens of shapes, and each is built once."""
    found = and_(*(table.c[name] == bindparam(f"row_{name}", type_=table.c[name].type) for name in where))
    new = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in values}
    return update(table).where(found).values(new)


# -- writes that need no lease -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class LateRegistration:
    """The answer to a register call that came after its reconciler had lost the lease."""

    build_id: int
    registration: Registration
    answer: Registered


def record_late_registration(connection: Connection, now: int, items: Sequence[LateRegistration]) -> list[bool]:
    """Record ids of uploads that TestNod has opened, so that it gets a report that no file will come.

    It also adds the run if it is new, which shows that older ones have left pending, raises `report_seq` and makes the
    build due. False if the registration's row is gone or has ids already.
    """
    return [_record_one_late(connection, now, item) for item in items]


def _record_one_late(connection: Connection, now: int, item: LateRegistration) -> bool:
    answer = item.answer
    lock_build(connection, item.build_id)
    # A lost registration with ids is one that TestNod no longer has.
    without_ids = and_(
        registrations.c.state.in_((RegistrationState.REQUESTED, RegistrationState.LOST)),
        registrations.c.upload_id.is_(None),
    )
    statement = update(registrations).where(registrations.c.id == item.registration.id, without_ids)
    values = {
        "state": RegistrationState.FAILURE_UNREPORTED,
        "test_run_id": answer.test_run_id,
        "upload_id": answer.upload_id,
        "registered_at": now,
        "due_at": now,
        "attempts": 0,
        "failure": "the gateway that registered this upload was interrupted before it could send the file",
    }
    if not connection.execute(statement.values(values)).rowcount:
        return False
    opened_at, generation = Instant(now), item.registration.generation
    run = AddRun(answer.test_run_id, answer.test_run_url, opened_at, answer.project_id, generation)
    if _insert_run(connection, item.build_id, run):
        _mark_older_left(connection, item.build_id, run)
    raised = {"report_seq": builds.c.report_seq + 1, "due_at": earlier(builds.c.due_at, now)}
    connection.execute(update(builds).where(builds.c.id == item.build_id).values(raised))
    return True


def _mark_older_left(connection: Connection, build_id: int, run: AddRun) -> None:
    """Record what domain/lifecycle/upload.py: `registration_succeeded` does of a new run: older ones have left."""
    others = and_(runs.c.build_id == build_id, runs.c.test_run_id != run.test_run_id)
    pending = or_(runs.c.status.is_(None), runs.c.status == "pending")
    older = update(runs).where(others, pending, runs.c.generation == run.generation)
    if run.project_id:
        older = older.where(runs.c.project_id.in_((run.project_id, "")))
    connection.execute(older.values(status="processing"))


class _LockedRegistration(NamedTuple):
    id: int
    state: str


def record_stored(
    connection: Connection, _now: int, items: Sequence[tuple[SetRegistration | SetDelivery, ...]]
) -> list[bool]:
    """Record that storage has a report, if its registration is still registered; False if it is not, nor stored.

    `items` are the changes of domain.lifecycle.upload.upload_succeeded: the registration first, then its delivery. A
    registration that is stored already may be the work of the same reconciler, whose commit was uncertain.
    """
    changed = [next(change for change in changes if isinstance(change, SetRegistration)) for changes in items]
    rows = connection.execute(LOCK_REGISTRATIONS, {"ids": sorted({change.id for change in changed})})
    states = {registration.id: registration.state for registration in map(_LockedRegistration._make, rows)}
    current = [states.get(change.id) == change.leaves for change in changed]
    _update_rows(
        connection,
        [_row_in_state(change) for changes, ok in zip(items, current, strict=True) if ok for change in changes],
    )
    return [
        ok or states.get(change.id) == RegistrationState.STORED for change, ok in zip(changed, current, strict=True)
    ]
