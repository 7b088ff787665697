"""Changes that visits decided become rows: those of one shape together, so that a commit of many is few statements.

It knows neither fences nor why something changes. A way to a PostgreSQL and back costs more than what is done there.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, Update, and_, bindparam, delete, insert, update

from bridge.domain.build import RegistrationState
from bridge.domain.changes import (
    AddDelivery,
    AddRegistration,
    AddReport,
    AddRun,
    Change,
    DropRegistration,
    RaiseBatch,
    SetBuild,
    SetDelivery,
    SetRegistration,
    SetRun,
)
from bridge.store.made_reports import add_report
from bridge.store.rows import columns_of_build
from bridge.store.schema import builds, deliveries, registrations, runs
from bridge.store.statements import insert_new

ADD_REGISTRATIONS = insert(registrations).returning(registrations.c.id, sort_by_parameter_order=True)
RAISE_BATCH = (
    update(builds).where(builds.c.id == bindparam("its_id")).values(batch_seq=builds.c.batch_seq + 1)
)  # each time it is said
DROP_REGISTRATION = delete(registrations).where(
    registrations.c.id == bindparam("its_id"), registrations.c.state == RegistrationState.ASKED
)


class Writing(NamedTuple):
    """What one visit has written of the build `build_id`, which the caller holds."""

    build_id: int
    changes: tuple[Change, ...]


class _Row(NamedTuple):
    """New values of one row, which `where` finds."""

    table: Table
    where: Mapping[str, Any]
    values: Mapping[str, Any]


def write_changes(connection: Connection, writings: Sequence[Writing]) -> list[tuple[Change, ...]]:
    """Write them; return the changes with the ids of what is new filled in."""
    registered = iter(_registered(connection, writings))
    written = [
        tuple(_added(connection, build_id, change, registered) for change in changes) for build_id, changes in writings
    ]
    _set(connection, [row for writing in writings for row in _rows(writing)])
    each = [(writing.build_id, change) for writing in writings for change in writing.changes]
    raised = [{"its_id": build_id} for build_id, change in each if isinstance(change, RaiseBatch)]
    dropped = [{"its_id": change.id} for _, change in each if isinstance(change, DropRegistration)]
    for statement, parameters in ((RAISE_BATCH, raised), (DROP_REGISTRATION, dropped)):
        if parameters:
            connection.execute(statement, parameters)
    return written


def set_rows(connection: Connection, changes: Sequence[SetRegistration | SetDelivery]) -> None:
    """Write new values of registrations and deliveries, each where it is still in the state that it names."""
    _set(connection, [_row_of_life(change) for change in changes])


# -- what is new -------------------------------------------------------------------------------------------------


def _registered(connection: Connection, writings: Sequence[Writing]) -> Iterator[int]:
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


def _rows(writing: Writing) -> Iterator[_Row]:
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
