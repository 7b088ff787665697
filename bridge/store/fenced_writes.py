"""Writes the changes that reconcilers decide, under the fencing token of their lease.

Each transaction locks the builds first and compares their tokens: a reconciler that has lost its lease writes nothing.
The exceptions, which may be written after a lease was lost, are at the end.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, BindParameter, Connection, Table, and_, bindparam, delete, or_, select, update

from bridge.domain.build import UNSETTLED, Delivery, Registration, RegistrationState
from bridge.domain.changes import (
    AddAttempt,
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
from bridge.domain.notices import NoticeEvent
from bridge.domain.outcomes import Registered
from bridge.store.attempts import add_attempts
from bridge.store.duplicates import GENERATED, dedupe_key
from bridge.store.engine.compiled import BulkStatement, Statement, is_one_of
from bridge.store.leases import Release, lock_waited_for, release_locked
from bridge.store.locks import lock_build, lock_builds
from bridge.store.notices import add_events
from bridge.store.retention import BodyRelease, release_bodies
from bridge.store.row_mapping import columns_of_build
from bridge.store.schema import builds, deliveries, registrations, reports, runs
from bridge.store.sql_helpers import earlier, insert_new
from bridge.values import dataclass

ROW_ID: BindParameter[int] = bindparam("row_id", type_=BigInteger)
LOCK_REGISTRATIONS = Statement(
    select(registrations.c.id, registrations.c.state)
    .where(is_one_of(registrations.c.id, "ids"))
    .order_by(registrations.c.id)
    .with_for_update(key_share=True)
)
UNSETTLED_DELIVERIES = Statement(
    select(registrations.c.delivery_id, registrations.c.generation).where(
        is_one_of(registrations.c.build_id, "build_ids"),
        is_one_of(registrations.c.delivery_id, "delivery_ids"),
        or_(*(registrations.c.state == state for state in UNSETTLED)),
    )
)
NEW_REGISTRATION = tuple(column.name for column in registrations.c if column.name != "id")
ADD_REGISTRATIONS = BulkStatement(
    lambda own_insert, count: (
        own_insert(registrations)
        .values([{name: bindparam(f"{name}_{at}") for name in NEW_REGISTRATION} for at in range(count)])
        .returning(registrations.c.delivery_id, registrations.c.id)
    )
)
REGISTRATIONS_PER_STATEMENT: Final = 64
"""The number of values in a statement is limited."""

BUMP_REPORT_SEQ = Statement(update(builds).where(builds.c.id == ROW_ID).values(report_seq=builds.c.report_seq + 1))
DROP_REGISTRATION = Statement(
    delete(registrations).where(
        registrations.c.id == ROW_ID, registrations.c.state == RegistrationState.REQUESTED.value
    )
)


# -- changes of reconcilers --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FencedChanges:
    """Changes to a build by the reconciler whose lease has this fencing token.

    The same commit may end the lease, by `release`, and free the bytes of delivered reports, by `bodies`.
    """

    build_id: int
    fencing_token: int
    changes: tuple[Change, ...]
    release: Release | None = None
    bodies: BodyRelease | None = None
    notices: tuple[NoticeEvent, ...] = ()  # events that the changes make true


class BuildChanges(NamedTuple):
    """Changes to a build that the transaction has locked."""

    build_id: int
    changes: tuple[Change, ...]


NEED_IDS = (AddDelivery, AddRegistration, AddReport)
"""Changes that are complete only when the ledger has assigned ids."""


class Written(NamedTuple):
    """What the ledger has made of changes.

    `changes` have the ids of new rows; None if they have none, which saves their way back from the writer process.
    `freed` are the blobs that no row refers to any more.
    """

    changes: tuple[Change, ...] | None
    freed: tuple[str, ...]


def write_changes_if_fenced(
    connection: Connection, now: int, items: Sequence[FencedChanges]
) -> list[tuple[Change, ...] | None]:
    """Write as `write_if_fenced` does; return the changes only."""
    written = write_if_fenced(connection, now, items)
    return [each and (each.changes or item.changes) for each, item in zip(written, items, strict=True)]


def write_if_fenced(connection: Connection, now: int, items: Sequence[FencedChanges]) -> list[Written | None]:
    """Write changes whose fencing token is current; return them with the ids of new rows, or None if it is not.

    None too if a registration of the same delivery is unsettled: its answer came late, after the build was read.
    """
    releases = [item.release for item in items if item.release is not None]
    closed = lock_waited_for(connection, releases)
    tokens = lock_builds(connection, {item.build_id for item in items})
    owned = [item for item in items if tokens.get(item.build_id) == item.fencing_token]
    taken = _unsettled_deliveries(connection, owned)
    accepted = [
        tokens.get(item.build_id) == item.fencing_token and taken.isdisjoint(_deliveries_to_register(item))
        for item in items
    ]
    allowed = [item for item, ok in zip(items, accepted, strict=True) if ok]
    written = _write_changes(connection, [BuildChanges(item.build_id, item.changes) for item in allowed])
    add_events(connection, now, [event for item in allowed for event in item.notices])
    bodies = [item.bodies for item in allowed if item.bodies is not None]
    freed = iter(release_bodies(connection, now, bodies))
    ended = [item.release for item in allowed if item.release is not None]
    release_locked(connection, now, ended, closed)
    results = iter(
        [
            Written(changes if has_ids(changes) else None, tuple(next(freed)) if item.bodies is not None else ())
            for item, changes in zip(allowed, written, strict=True)
        ]
    )
    return [next(results) if ok else None for ok in accepted]


def has_ids(changes: Iterable[Change]) -> bool:
    """Return whether the ledger assigns ids to any of the changes."""
    return any(isinstance(change, NEED_IDS) for change in changes)


class _Registering(NamedTuple):
    """A registration of an earlier generation does not block a new one: its run was given up."""

    delivery_id: int
    generation: int


def _unsettled_deliveries(connection: Connection, items: Sequence[FencedChanges]) -> set[_Registering]:
    delivery_ids = [each.delivery_id for item in items for each in _deliveries_to_register(item)]
    if not delivery_ids:
        return set()
    values = {"build_ids": [item.build_id for item in items], "delivery_ids": delivery_ids}
    return set(map(_Registering._make, UNSETTLED_DELIVERIES.rows(connection, values)))


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
    _insert_runs(connection, all_changes)
    _update_rows(connection, [row for of_build in all_changes for row in _rows_of(of_build)])
    flat = [(build_id, change) for build_id, changes in all_changes for change in changes]
    BUMP_REPORT_SEQ.run_each(
        connection, [{"row_id": build_id} for build_id, change in flat if isinstance(change, BumpReportSeq)]
    )
    DROP_REGISTRATION.run_each(
        connection, [{"row_id": change.id} for _, change in flat if isinstance(change, DropRegistration)]
    )
    add_attempts(
        connection, [(build_id, change.attempt) for build_id, change in flat if isinstance(change, AddAttempt)]
    )
    return written


# -- new rows ----------------------------------------------------------------------------------------------------


def _insert_registrations(connection: Connection, all_changes: Sequence[BuildChanges]) -> Iterator[int]:
    """Insert all new registrations; return their ids in the order of the changes."""
    rows = [
        {**_without_id(change.registration), "build_id": build_id}
        for build_id, changes in all_changes
        for change in changes
        if isinstance(change, AddRegistration)
    ]
    ids: defaultdict[int, deque[int]] = defaultdict(deque)  # by delivery: rows are returned in any order
    for start in range(0, len(rows), REGISTRATIONS_PER_STATEMENT):
        portion = rows[start : start + REGISTRATIONS_PER_STATEMENT]
        values = [row[name] for row in portion for name in NEW_REGISTRATION]
        for delivery_id, registration_id in ADD_REGISTRATIONS.rows(connection, len(portion), values):
            ids[delivery_id].append(registration_id)
    return iter([ids[row["delivery_id"]].popleft() for row in rows])


def _insert(connection: Connection, build_id: int, change: Change, registration_ids: Iterator[int]) -> Change:
    match change:
        case AddRegistration(registration):
            return AddRegistration(replace(registration, id=next(registration_ids)))
        case AddDelivery(delivery):
            return AddDelivery(_insert_delivery(connection, build_id, delivery))
        case AddReport():
            return _insert_report(connection, build_id, change)
    return change


def _insert_delivery(connection: Connection, build_id: int, delivery: Delivery) -> Delivery:
    [(delivery_id,)] = insert_new(connection, deliveries, [{**_without_id(delivery), "build_id": build_id}], "id")
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
    [(report_id,)] = inserted
    pending = tuple(
        _insert_delivery(connection, build_id, replace(delivery, report_id=report_id)) for delivery in change.deliveries
    )
    return replace(change, report=replace(report, id=report_id), deliveries=pending)


def _insert_runs(connection: Connection, all_changes: Sequence[BuildChanges]) -> None:
    """Insert the runs that their builds do not have."""
    rows = [
        _columns_of_run(build_id, change)
        for build_id, changes in all_changes
        for change in changes
        if isinstance(change, AddRun)
    ]
    if rows:
        insert_new(connection, runs, rows)


def _columns_of_run(build_id: int, run: AddRun) -> dict[str, object]:
    return {**vars(run), "build_id": build_id, "status": None, "finalized_at": None}


def _without_id(value: Delivery | Registration) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value) if field.name != "id"}


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
    last: dict[tuple[object, ...], tuple[int, Statement]] = {}
    shapes: defaultdict[tuple[int, Statement], list[dict[str, object]]] = defaultdict(list)
    for table, where, values in rows:
        statement = _update_statement(table, tuple(where), tuple(values))
        row_key = (table.name, *(value for name, value in where.items() if name != "state"))
        turn, before = last.get(row_key, (0, statement))
        shape = last[row_key] = (turn + (statement is not before), statement)
        bound = {f"row_{name}": value for name, value in where.items()}
        shapes[shape].append(bound | {f"new_{name}": value for name, value in values.items()})
    for (_, statement), parameters in sorted(shapes.items(), key=lambda item: item[0][0]):
        statement.run_each(connection, parameters)


@lru_cache(maxsize=256)
def _update_statement(table: Table, where: tuple[str, ...], values: tuple[str, ...]) -> Statement:
    """Return the statement for one shape. The domain has some dozens of shapes, and each is compiled once."""
    found = and_(*(table.c[name] == bindparam(f"row_{name}", type_=table.c[name].type) for name in where))
    new = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in values}
    return Statement(update(table).where(found).values(new))


# -- writes that need no lease -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
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
    # If the build was forgotten meanwhile, SQLite gives its ids to new rows.
    same = (
        registrations.c.id == item.registration.id,
        registrations.c.requested_at == item.registration.requested_at,
    )
    statement = update(registrations).where(*same, without_ids)
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
    if insert_new(connection, runs, [_columns_of_run(item.build_id, run)], "id"):
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
    rows = LOCK_REGISTRATIONS.rows(connection, {"ids": sorted({change.id for change in changed})})
    states = {registration.id: registration.state for registration in map(_LockedRegistration._make, rows)}
    current = [states.get(change.id) == change.leaves for change in changed]
    _update_rows(
        connection,
        [_row_in_state(change) for changes, ok in zip(items, current, strict=True) if ok for change in changes],
    )
    return [
        ok or states.get(change.id) == RegistrationState.STORED for change, ok in zip(changed, current, strict=True)
    ]
