"""A restored ledger is held: it takes uploads, and nothing is sent until a person says what to do with the doubtful.

It knows neither the spool nor who asks. Doubtful is what was owed to TestNod when the ledger was copied: it may have
been delivered since.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select, update

from bridge.domain.build import DeliveryState, DeliveryTarget, RegistrationState
from bridge.domain.circuit_breaker import HELD
from bridge.domain.text_format import counted
from bridge.errors import LedgerHeld
from bridge.store.circuit_breakers import lock_breaker_row, open_breakers, wake_waiting
from bridge.store.schema import builds, circuit_breakers, deliveries, registrations, reports

SHOWN = 1_000  # doubtful reports that are named; all are counted
REASON = "The ledger was restored from a copy, so nothing is sent. Look at what is doubtful, then run `bridge resume`."
ASSUMED = "Assumed delivered when the restored ledger was resumed."

MARK_COPY = f"""
INSERT INTO circuit_breakers (name, failures, failing_since, reason, probes, probe_at, total_outage_us, next_rate_slot_at)
VALUES (
    '{HELD}', 1, max(:since, coalesce((SELECT max(pending_since) FROM deliveries), 0)), '{REASON}', 0, NULL, 0, 0
)
ON CONFLICT (name) DO UPDATE SET
    failing_since = excluded.failing_since,
    total_outage_us = total_outage_us + coalesce(excluded.failing_since - failing_since, 0),
    reason = excluded.reason
"""  # noqa: S608 -- constants of this room
"""Marks a copy while it is made: over sqlite3 alone, in whatever schema the copied ledger has.

All that is owed in it is doubtful: also what came while the copy was made, or while the copied ledger was held."""


class UncertainDeliveries(StrEnum):
    """What becomes of the doubtful reports."""

    ASSUME_DELIVERED = "assume-delivered"
    SEND_AGAIN = "send-again"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumption:
    """What a person said; `doubtful` None: nothing. `hold_run_us`: how long a build may wait for earlier ones."""

    doubtful: UncertainDeliveries | None
    hold_run_us: int


@dataclass(frozen=True, kw_only=True, slots=True)
class UncertainReport:
    """A report that may have been delivered after the ledger was copied; times are microseconds UTC."""

    delivery_id: int
    job_id: str
    build_no: int
    name: str
    node_id: str
    sent_sha256: str
    accepted_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreHold:
    """Since when the ledger is held (microseconds UTC), how much of it is doubtful, and the oldest of that."""

    since: int
    count: int
    reports: list[UncertainReport]


def pause_ledger(connection: Connection, now: int, items: Sequence[None]) -> list[int]:
    """Hold the ledger, unless it is; return since when it is held (microseconds UTC).

    A copy that carries no mark was made after the last delivery in it was owed, and nobody can say how long after.
    """
    row = lock_breaker_row(connection, HELD)
    since = row.failing_since
    if since is None:
        since = connection.execute(select(func.max(deliveries.c.pending_since))).scalar() or now
        closed = {"failures": 1, "failing_since": since, "reason": REASON, "probes": 0, "probe_at": None}
        connection.execute(update(circuit_breakers).where(circuit_breakers.c.name == HELD).values(closed))
    return [since for _ in items]


def paused_since(connection: Connection) -> int | None:
    """Return since when the ledger is held, in microseconds UTC; None where it is not."""
    return next((gate.failing_since for gate in open_breakers(connection) if gate.name == HELD), None)


def restore_hold(connection: Connection) -> RestoreHold | None:
    """Return what is doubtful in a held ledger, oldest first; None where it is not held."""
    since = paused_since(connection)
    if since is None:
        return None
    named = (
        select(
            deliveries.c.id.label("delivery_id"),
            builds.c.job_id,
            builds.c.build_no,
            reports.c.name,
            reports.c.node_id,
            reports.c.sent_sha256,
            reports.c.accepted_at,
        )
        .join(reports, reports.c.id == deliveries.c.report_id)
        .join(builds, builds.c.id == deliveries.c.build_id)
        .where(_doubtful(since))
        .order_by(deliveries.c.id)
        .limit(SHOWN)
    )
    found = [UncertainReport(**row._mapping) for row in connection.execute(named)]  # noqa: SLF001 -- public in SQLAlchemy
    count = connection.execute(select(func.count()).select_from(deliveries).where(_doubtful(since))).scalar_one()
    return RestoreHold(since=since, count=count, reports=found)


def resume(connection: Connection, now: int, items: Sequence[Resumption]) -> list[int]:
    """Let the ledger go, and do with the doubtful as is said; return how many these were.

    Raise Held where it is not held, or where some are doubtful and nothing is said of them.
    """
    return [_resume_one(connection, now, item) for item in items]


def _resume_one(connection: Connection, now: int, said: Resumption) -> int:
    found = restore_hold(connection)
    if found is None:
        raise LedgerHeld("The ledger is not held, so there is nothing to resume. Look at `held` in /readyz.")
    if found.count and said.doubtful is None:
        raise LedgerHeld(
            f"{counted(found.count, 'report')} may have been delivered since this ledger was copied. "
            "Look in /api/v1/held, then resume with --assume-delivered or --send-again."
        )
    if said.doubtful is UncertainDeliveries.ASSUME_DELIVERED:
        _assume_delivered(connection, now, found.since)
    gate = lock_breaker_row(connection, HELD)
    opened = {
        "failures": 0,
        "failing_since": None,
        "reason": None,
        "total_outage_us": gate.total_outage_us + max(0, now - found.since),
    }
    connection.execute(update(circuit_breakers).where(circuit_breakers.c.name == HELD).values(opened))
    wake_waiting(connection, HELD, now, hold_run_us=said.hold_run_us)
    return found.count


def _assume_delivered(connection: Connection, now: int, since: int) -> None:
    """Write what the lost ledger may have known; a URL that was open then is asked about no more."""
    of_doubtful = registrations.c.delivery_id.in_(_ids(since))
    named = and_(of_doubtful, registrations.c.state == RegistrationState.REGISTERED)
    stored = {"state": RegistrationState.STORED, "stored_at": now, "presigned_url": None}
    connection.execute(update(registrations).where(named).values(stored))
    delivered = {"state": DeliveryState.DELIVERED, "delivered_at": now, "last_error": ASSUMED}
    connection.execute(update(deliveries).where(_doubtful(since)).values(delivered))


def _ids(since: int) -> Select[Any]:
    return select(deliveries.c.id).where(_doubtful(since))


def _doubtful(since: int) -> Any:
    owed = and_(deliveries.c.state == DeliveryState.PENDING, deliveries.c.target == DeliveryTarget.TESTNOD)
    return and_(owed, deliveries.c.pending_since <= since)  # what was adopted or uploaded since is owed since then
