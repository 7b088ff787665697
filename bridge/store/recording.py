"""What a visit decided and met becomes rows.

It knows neither why a change was decided nor who makes the calls. Every fenced transaction begins with an update of
the build by id and fence, and stops when no row matched: a late owner's write changes nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, select, update

from bridge.domain.build import UNSETTLED, DeliveryState, Registration, RegistrationState
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
from bridge.domain.outcomes import Registered
from bridge.store.made_reports import add_report
from bridge.store.rows import columns_of_build
from bridge.store.schema import builds, deliveries, registrations, runs
from bridge.store.statements import earlier, insert_new


@dataclass(frozen=True, kw_only=True, slots=True)
class Fenced:
    """Changes to a build by the visit that holds `fence`."""

    build_id: int
    fence: int
    changes: tuple[Change, ...]


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
    if not touch(connection, item.build_id, item.fence, values):
        return None
    return tuple(_write(connection, item.build_id, change) for change in item.changes)


def _already_asked(connection: Connection, item: Fenced) -> bool:
    """Whether a report is to be registered that has an unsettled registration: ids came late, unseen by the visit."""
    delivery_ids = [change.registration.delivery_id for change in item.changes if isinstance(change, AddRegistration)]
    if not delivery_ids:
        return False
    hold(connection, item.build_id)  # ids that come late meanwhile wait for this commit
    unsettled = registrations.c.state.in_(UNSETTLED)
    of_these = and_(registrations.c.build_id == item.build_id, registrations.c.delivery_id.in_(delivery_ids))
    return connection.execute(select(registrations.c.id).where(of_these, unsettled).limit(1)).first() is not None


def hold(connection: Connection, build_id: int) -> None:
    """Let whoever else writes to the build wait until this transaction ends."""
    connection.execute(select(builds.c.id).where(builds.c.id == build_id).with_for_update(key_share=True))


def touch(connection: Connection, build_id: int, fence: int, values: dict[str, Any]) -> bool:
    """Update the build under its fence; False, and nothing written, where somebody else holds it."""
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
        case AddDelivery(delivery):
            columns = {**asdict(delivery), "build_id": build_id}
            del columns["id"]
            inserted = connection.execute(insert(deliveries).returning(deliveries.c.id), columns)
            return AddDelivery(replace(delivery, id=inserted.scalar_one()))
        case AddRegistration(registration):
            columns = {**asdict(registration), "build_id": build_id}
            del columns["id"]
            inserted = connection.execute(insert(registrations).returning(registrations.c.id), columns)
            return AddRegistration(replace(registration, id=inserted.scalar_one()))
        case DropRegistration(registration_id):
            asked = registrations.c.state == RegistrationState.ASKED
            connection.execute(delete(registrations).where(registrations.c.id == registration_id, asked))
        case AddReport():
            return add_report(connection, build_id, change)
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
    hold(connection, item.build_id)
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
