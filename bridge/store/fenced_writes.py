"""What a visit decided and met becomes rows.

It knows neither why a change was decided nor who makes the calls. Every fenced transaction begins by taking hold of
the build by id and fence, and stops when no row matched: a late owner's write changes nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, Update, and_, bindparam, delete, insert, select, update

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
from bridge.store.duplicates import CHECK, dedupe_key
from bridge.store.row_mapping import columns_of_build
from bridge.store.schema import builds, deliveries, registrations, reports, runs
from bridge.store.sql_helpers import earlier, insert_new

# Reports that the bridge makes itself become rows like uploaded ones: kept, owed, and there once for each build.
#
# It knows neither what they hold nor when they are made.


def add_report(connection: Connection, build_id: int, change: AddReport) -> AddReport:
    """Insert the report and owe it; return it with its ids, 0 where the build has it already.

    Its bytes are no part of what makes it the same: whoever asks later, or has lost the build meanwhile, adds none.
    """
    row = _report_row(build_id, change)
    inserted = insert_new(connection, reports, [row], "id")
    report_id: int = inserted[0].id if inserted else 0
    report = replace(change.report, id=report_id)
    if not inserted:
        return replace(change, report=report)
    owed = tuple(_owe(connection, build_id, replace(delivery, report_id=report_id)) for delivery in change.deliveries)
    return replace(change, report=report, deliveries=owed)


def _owe(connection: Connection, build_id: int, delivery: Delivery) -> Delivery:
    columns = {**asdict(delivery), "build_id": build_id}
    del columns["id"]
    delivery_id: int = connection.execute(insert(deliveries).returning(deliveries.c.id), columns).scalar_one()
    return replace(delivery, id=delivery_id)


def _report_row(build_id: int, change: AddReport) -> dict[str, Any]:
    report, counts = change.report, change.counts
    return {
        "build_id": build_id,
        "dedupe_key": dedupe_key(node_id=report.node_id, name=report.name, received_sha256="", source=CHECK),
        "source": CHECK,
        "name": report.name,
        "node_id": report.node_id,
        "size": report.size,
        "sent_size": report.sent_size,
        "received_sha256": report.sent_sha256,
        "sent_sha256": report.sent_sha256,
        **asdict(counts),
        "notes": [],
        "accepted_at": report.accepted_at,
        "caller": report.caller,
        "caller_routes": report.caller_routes,
        "address": "",
        "request_id": "",
        "body": change.body,
        "blob": None,
    }


# Changes that visits decided become rows: those of one shape together, so that a commit of many is few statements.
#
# It knows neither fences nor why something changes. A way to a PostgreSQL and back costs more than what is done there.


ADD_REGISTRATIONS = insert(registrations).returning(registrations.c.id, sort_by_parameter_order=True)
RAISE_BATCH = (
    update(builds).where(builds.c.id == bindparam("its_id")).values(report_seq=builds.c.report_seq + 1)
)  # each time it is said
DROP_REGISTRATION = delete(registrations).where(
    registrations.c.id == bindparam("its_id"), registrations.c.state == RegistrationState.REQUESTED
)


class BuildChanges(NamedTuple):
    """What one visit has written of the build `build_id`, which the caller holds."""

    build_id: int
    changes: tuple[Change, ...]


class _Row(NamedTuple):
    """New values of one row, which `where` finds."""

    table: Table
    where: Mapping[str, Any]
    values: Mapping[str, Any]


def write_changes(connection: Connection, writings: Sequence[BuildChanges]) -> list[tuple[Change, ...]]:
    """Write them; return the changes with the ids of what is new filled in."""
    registered = iter(_registered(connection, writings))
    written = [
        tuple(_added(connection, build_id, change, registered) for change in changes) for build_id, changes in writings
    ]
    _set(connection, [row for writing in writings for row in _rows(writing)])
    each = [(writing.build_id, change) for writing in writings for change in writing.changes]
    raised = [{"its_id": build_id} for build_id, change in each if isinstance(change, BumpReportSeq)]
    dropped = [{"its_id": change.id} for _, change in each if isinstance(change, DropRegistration)]
    for statement, parameters in ((RAISE_BATCH, raised), (DROP_REGISTRATION, dropped)):
        if parameters:
            connection.execute(statement, parameters)
    return written


def set_rows(connection: Connection, changes: Sequence[SetRegistration | SetDelivery]) -> None:
    """Write new values of registrations and deliveries, each where it is still in the state that it names."""
    _set(connection, [_row_of_life(change) for change in changes])


# -- what is new -------------------------------------------------------------------------------------------------


def _registered(connection: Connection, writings: Sequence[BuildChanges]) -> Iterator[int]:
    """Insert all new registrations, in order; yield their ids in the same order."""
    rows = [
        {**_without_id(asdict(change.registration)), "build_id": writing.build_id}
        for writing in writings
        for change in writing.changes
        if isinstance(change, AddRegistration)
    ]
    return iter(connection.execute(ADD_REGISTRATIONS, rows).scalars().all() if rows else ())


def _added(connection: Connection, build_id: int, change: Change, registered: Iterator[int]) -> Change:
    match change:
        case AddRegistration(registration):
            return AddRegistration(replace(registration, id=next(registered)))
        case AddDelivery(delivery):
            columns = {**_without_id(asdict(delivery)), "build_id": build_id}
            inserted = connection.execute(insert(deliveries).returning(deliveries.c.id), columns)
            return AddDelivery(replace(delivery, id=inserted.scalar_one()))
        case AddReport():
            return add_report(connection, build_id, change)
        case AddRun():
            insert_new(connection, runs, [{"build_id": build_id, **columns_of_run(change)}])
    return change


def columns_of_run(change: AddRun) -> dict[str, Any]:
    """Return the columns of a new run, without its build."""
    return {**asdict(change), "status": None, "finalized_at": None}


def _without_id(columns: dict[str, Any]) -> dict[str, Any]:
    del columns["id"]
    return columns


# -- new values --------------------------------------------------------------------------------------------------


def _rows(writing: BuildChanges) -> Iterator[_Row]:
    of_build: dict[str, Any] = {}
    for change in writing.changes:
        match change:
            case SetBuild(values):
                of_build |= columns_of_build(values)
            case SetRegistration() | SetDelivery():
                yield _row_of_life(change)
            case SetRun(test_run_id, values):
                yield _Row(runs, {"build_id": writing.build_id, "test_run_id": test_run_id}, values)
    if of_build:
        yield _Row(builds, {"id": writing.build_id}, of_build)


def _row_of_life(change: SetRegistration | SetDelivery) -> _Row:
    table = registrations if isinstance(change, SetRegistration) else deliveries
    return _Row(table, {"id": change.id, "state": change.leaves}, change.values)


def _set(connection: Connection, rows: Sequence[_Row]) -> None:
    """Write rows of one shape together; what one row gets twice, it gets in order."""
    last: dict[tuple[Any, ...], tuple[int, Update]] = {}
    shapes: defaultdict[tuple[int, Update], list[dict[str, Any]]] = defaultdict(list)
    for table, where, values in rows:
        statement = _update(table, tuple(where), tuple(values))
        which = (table.name, *(value for name, value in where.items() if name != "state"))
        turn, before = last.get(which, (0, statement))
        shape = last[which] = (turn + (statement is not before), statement)
        bound = {f"its_{name}": value for name, value in where.items()}
        shapes[shape].append(bound | {f"new_{name}": value for name, value in values.items()})
    for (_, statement), parameters in sorted(shapes.items(), key=lambda shape: shape[0][0]):
        connection.execute(statement, parameters)


@cache
def _update(table: Table, where: tuple[str, ...], values: tuple[str, ...]) -> Update:
    """Return the statement for one shape, built once: there are some dozens, as domain/effects has them."""
    found = and_(*(table.c[name] == bindparam(f"its_{name}", type_=table.c[name].type) for name in where))
    new = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in values}
    return update(table).where(found).values(new)


HOLD = (
    select(builds.c.id, builds.c.fencing_token)
    .where(builds.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(builds.c.id)
    .with_for_update(key_share=True)
)
UNSETTLED_AMONG = select(registrations.c.delivery_id).where(
    registrations.c.build_id.in_(bindparam("build_ids", expanding=True)),
    registrations.c.delivery_id.in_(bindparam("delivery_ids", expanding=True)),
    registrations.c.state.in_(UNSETTLED),
)
HOLD_REGISTRATIONS = (
    select(registrations.c.id, registrations.c.state)
    .where(registrations.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(registrations.c.id)
    .with_for_update(key_share=True)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FencedChanges:
    """Changes to a build by the visit that holds `fence`."""

    build_id: int
    fencing_token: int
    changes: tuple[Change, ...]


def write_changes_if_fenced(
    connection: Connection, _now: int, items: Sequence[FencedChanges]
) -> list[tuple[Change, ...] | None]:
    """Write changes under their fence; return them with new ids filled in, None where the fence is no longer held."""
    fences = lock_builds(connection, {item.build_id for item in items})
    held = [fences.get(item.build_id) == item.fencing_token for item in items]
    asked = _already_asked(connection, [item for item, its in zip(items, held, strict=True) if its])
    may = [its and asked.isdisjoint(_to_ask(item)) for item, its in zip(items, held, strict=True)]
    writings = [BuildChanges(item.build_id, item.changes) for item, its in zip(items, may, strict=True) if its]
    written = iter(write_changes(connection, writings))
    return [next(written) if its else None for its in may]


def lock_builds(connection: Connection, build_ids: Iterable[int]) -> dict[int, int]:
    """Let whoever else writes to these builds wait until this transaction ends; return their fences, which stay."""
    return {row.id: row.fencing_token for row in connection.execute(HOLD, {"ids": sorted(build_ids)})}


def _already_asked(connection: Connection, items: Sequence[FencedChanges]) -> set[int]:
    """Return of which deliveries that are to be registered a registration is unsettled: ids came late, unseen."""
    delivery_ids = [delivery_id for item in items for delivery_id in _to_ask(item)]
    if not delivery_ids:
        return set()
    which = {"build_ids": [item.build_id for item in items], "delivery_ids": delivery_ids}
    return set(connection.execute(UNSETTLED_AMONG, which).scalars())


def _to_ask(item: FencedChanges) -> list[int]:
    return [change.registration.delivery_id for change in item.changes if isinstance(change, AddRegistration)]


def lock_build(connection: Connection, build_id: int) -> None:
    """Let whoever else writes to the build wait until this transaction ends."""
    lock_builds(connection, [build_id])


def update_if_fenced(connection: Connection, build_id: int, fencing_token: int, values: dict[str, Any]) -> bool:
    """Update the build under its fence; False, and nothing written, where somebody else holds it."""
    statement = update(builds).where(builds.c.id == build_id, builds.c.fencing_token == fencing_token).values(values)
    return bool(connection.execute(statement).rowcount)


# -- what is written without the fence ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class LateRegistration:
    """Ids that a register answered after its visit had lost the build."""

    build_id: int
    registration: Registration
    answer: Registered


def record_late_registration(connection: Connection, now: int, items: Sequence[LateRegistration]) -> list[bool]:
    """Write ids whoever owns the build now: TestNod must be told that nothing will be uploaded there.

    Adds the run if it is new, raises the batch and pulls the build's turn forward in the same commit. False where
    the registration's row has gone or has got ids already.
    """
    return [_append_one(connection, now, item) for item in items]


def _append_one(connection: Connection, now: int, item: LateRegistration) -> bool:
    answer = item.answer
    lock_build(connection, item.build_id)
    # One that is lost although it has ids is lost at TestNod, which no longer knows it.
    nameless = and_(
        registrations.c.state.in_((RegistrationState.REQUESTED, RegistrationState.LOST)),
        registrations.c.upload_id.is_(None),
    )
    statement = update(registrations).where(registrations.c.id == item.registration.id, nameless)
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
    run = AddRun(answer.test_run_id, answer.test_run_url, Instant(now), answer.project_id)
    insert_new(connection, runs, [{"build_id": item.build_id, **columns_of_run(run)}])
    raised = {"report_seq": builds.c.report_seq + 1, "due_at": earlier(builds.c.due_at, now)}
    connection.execute(update(builds).where(builds.c.id == item.build_id).values(raised))
    return True


def record_stored(
    connection: Connection, _now: int, items: Sequence[tuple[SetRegistration | SetDelivery, ...]]
) -> list[bool]:
    """Write that storage has a report, where its registration is named; False where it is neither that nor stored.

    `items` are the changes of effects.put.stored: the registration's first, then its delivery's. One that is stored
    already was written by this very visit, perhaps, and the answer to that commit was lost.
    """
    named = [next(change for change in changes if isinstance(change, SetRegistration)) for changes in items]
    found = connection.execute(HOLD_REGISTRATIONS, {"ids": sorted({life.id for life in named})})
    states = {row.id: row.state for row in found}
    still = [states.get(life.id) == life.leaves for life in named]
    set_rows(connection, [change for changes, its in zip(items, still, strict=True) if its for change in changes])
    return [its or states.get(life.id) == RegistrationState.STORED for life, its in zip(named, still, strict=True)]
