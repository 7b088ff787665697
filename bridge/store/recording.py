"""What a visit decided and met becomes rows.

It knows neither why a change was decided nor who makes the calls. Every fenced transaction begins by taking hold of
the build by id and fence, and stops when no row matched: a late owner's write changes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, bindparam, select, update

from bridge.domain.build import UNSETTLED, Registration, RegistrationState
from bridge.domain.changes import AddRegistration, AddRun, Change, SetDelivery, SetRegistration
from bridge.domain.outcomes import Registered
from bridge.store.changing import Writing, columns_of_run, set_rows, write_changes
from bridge.store.schema import builds, registrations, runs
from bridge.store.statements import earlier, insert_new

HOLD = (
    select(builds.c.id, builds.c.fence)
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
class Fenced:
    """Changes to a build by the visit that holds `fence`."""

    build_id: int
    fence: int
    changes: tuple[Change, ...]


def record(connection: Connection, _now: int, items: Sequence[Fenced]) -> list[tuple[Change, ...] | None]:
    """Write changes under their fence; return them with new ids filled in, None where the fence is no longer held."""
    fences = hold_all(connection, {item.build_id for item in items})
    held = [fences.get(item.build_id) == item.fence for item in items]
    asked = _already_asked(connection, [item for item, its in zip(items, held, strict=True) if its])
    may = [its and asked.isdisjoint(_to_ask(item)) for item, its in zip(items, held, strict=True)]
    writings = [Writing(item.build_id, item.changes) for item, its in zip(items, may, strict=True) if its]
    written = iter(write_changes(connection, writings))
    return [next(written) if its else None for its in may]


def hold_all(connection: Connection, build_ids: Iterable[int]) -> dict[int, int]:
    """Let whoever else writes to these builds wait until this transaction ends; return their fences, which stay."""
    return {row.id: row.fence for row in connection.execute(HOLD, {"ids": sorted(build_ids)})}


def _already_asked(connection: Connection, items: Sequence[Fenced]) -> set[int]:
    """Return of which deliveries that are to be registered a registration is unsettled: ids came late, unseen."""
    delivery_ids = [delivery_id for item in items for delivery_id in _to_ask(item)]
    if not delivery_ids:
        return set()
    which = {"build_ids": [item.build_id for item in items], "delivery_ids": delivery_ids}
    return set(connection.execute(UNSETTLED_AMONG, which).scalars())


def _to_ask(item: Fenced) -> list[int]:
    return [change.registration.delivery_id for change in item.changes if isinstance(change, AddRegistration)]


def hold(connection: Connection, build_id: int) -> None:
    """Let whoever else writes to the build wait until this transaction ends."""
    hold_all(connection, [build_id])


def touch(connection: Connection, build_id: int, fence: int, values: dict[str, Any]) -> bool:
    """Update the build under its fence; False, and nothing written, where somebody else holds it."""
    statement = update(builds).where(builds.c.id == build_id, builds.c.fence == fence).values(values)
    return bool(connection.execute(statement).rowcount)


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
    run = AddRun(answer.test_run_id, answer.test_run_url, now, answer.project_id)
    insert_new(connection, runs, [{"build_id": item.build_id, **columns_of_run(run)}])
    raised = {"batch_seq": builds.c.batch_seq + 1, "due_at": earlier(builds.c.due_at, now)}
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
