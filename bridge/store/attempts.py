"""The newest attempts of each delivery, and of finalizing each build: written with what the call changed, and read."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, func, literal, select, true

from bridge.domain.attempts import KEPT_ATTEMPTS, Attempt, AttemptOutcome, CallKind
from bridge.domain.instants import Duration, Instant
from bridge.store.engine.compiled import Statement, own_insert
from bridge.store.schema import attempts

GIVEN = ("build_id", "delivery_id", "call", "at", "duration_us", "outcome", "status", "reason")
NEW = {name: bindparam(f"new_{name}", type_=attempts.c[name].type) for name in GIVEN}


def _add(dialect: str) -> Any:
    """Return the insert of an attempt, which replaces the oldest one if there are KEPT_ATTEMPTS."""
    same = (attempts.c.build_id == NEW["build_id"], attempts.c.delivery_id == NEW["delivery_id"])
    last = select(func.coalesce(func.max(attempts.c.number) + 1, 0).label("number")).where(*same).subquery()
    slot = last.c.number % literal(KEPT_ATTEMPTS, BigInteger)
    row = select(slot, last.c.number, *NEW.values()).where(true())
    insert = own_insert(dialect)(attempts).from_select(["slot", "number", *GIVEN], row)
    replaced = {name: insert.excluded[name] for name in ("number", *GIVEN)}
    return insert.on_conflict_do_update(index_elements=["build_id", "delivery_id", "slot"], set_=replaced)


ADD = Statement(_add)


def add_attempts(connection: Connection, new: Sequence[tuple[int, Attempt]]) -> None:
    """Write attempts, each with the id of its build, which must be locked."""
    ADD.run_each(
        connection,
        [
            {
                "new_build_id": build_id,
                "new_delivery_id": attempt.delivery_id,
                "new_call": attempt.call,
                "new_at": attempt.at,
                "new_duration_us": attempt.duration,
                "new_outcome": attempt.outcome,
                "new_status": attempt.status,
                "new_reason": attempt.reason,
            }
            for build_id, attempt in new
        ],
    )


def attempts_of(connection: Connection, build_ids: Iterable[int]) -> dict[int, list[Attempt]]:
    """Return the attempts that are kept of each build, those of one delivery oldest first."""
    columns = (attempts.c[name] for name in GIVEN)
    query = select(*columns).where(attempts.c.build_id.in_(list(build_ids)))
    found: dict[int, list[Attempt]] = defaultdict(list)
    for row in connection.execute(query.order_by(attempts.c.build_id, attempts.c.delivery_id, attempts.c.number)):
        found[row.build_id].append(
            Attempt(
                delivery_id=row.delivery_id,
                call=CallKind(row.call),
                at=Instant(row.at),
                duration=Duration(row.duration_us),
                outcome=AttemptOutcome(row.outcome),
                status=row.status,
                reason=row.reason,
            )
        )
    return found
