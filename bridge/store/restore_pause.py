"""The restore pause: a restored ledger accepts uploads but sends nothing until an operator resumes it.

A report that was pending for TestNod when the ledger was copied is uncertain: it may have been delivered since. The
operator decides what becomes of these reports.
"""

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update

from bridge.domain.build import BuildNo, BuildState, DeliveryState, DeliveryTarget, RegistrationState
from bridge.domain.circuit_breaker import (
    RESTORE_PAUSE,
    CircuitBreaker,
    close_breaker,
    register_breaker,
    storage_breaker,
)
from bridge.domain.instants import Instant
from bridge.domain.text_format import counted
from bridge.errors import ResumeRejected
from bridge.store.circuit_breakers import lock_breaker_row, open_breakers, wake_waiting
from bridge.store.duplicates import build_of_key
from bridge.store.row_mapping import to_breaker
from bridge.store.schema import builds, circuit_breakers, deliveries, registrations, reports
from bridge.values import dataclass

LISTED_REPORTS: Final = 1_000
"""Uncertain reports that are listed; all are counted."""

REASON: Final = (
    "The ledger was restored from a copy, so nothing is sent. "
    "Look at the uncertain reports in /api/v1/paused, then run `bridge resume`."
)
ASSUMED: Final = "Assumed delivered when the restored ledger was resumed."

MARK_COPY: Final = f"""
INSERT INTO circuit_breakers
    (name, failures, opened_at, reason, probes, probe_at, total_outage_us)
VALUES (
    '{RESTORE_PAUSE}', 1, max(:since, coalesce((SELECT max(pending_since) FROM deliveries), 0)), '{REASON}',
    0, NULL, 0
)
ON CONFLICT (name) DO UPDATE SET
    opened_at = excluded.opened_at,
    total_outage_us = total_outage_us
        + iif(opened_at IS NULL, 0, coalesce(max(0, outage_ended_at - outage_began_at), 0)),
    outage_began_at = coalesce(opened_at, outage_began_at),
    outage_ended_at = iif(opened_at IS NULL, outage_ended_at, excluded.opened_at),
    reason = excluded.reason
"""  # noqa: S608 -- constants of this module
"""Pauses a copy while it is made, over sqlite3 alone.

All that is pending in it becomes uncertain, also what arrived while the copy was made or while the copied ledger was
paused itself."""


class UncertainDeliveries(StrEnum):
    """What becomes of the uncertain reports."""

    ASSUME_DELIVERED = "assume-delivered"
    REDELIVER = "redeliver"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumption:
    """The operator's decision, None if there was none. A build then waits at most this long for earlier ones."""

    uncertain: UncertainDeliveries | None
    max_finalize_delay_us: int


@dataclass(frozen=True, kw_only=True, slots=True)
class UncertainReport:
    """A report that may have been delivered after the ledger was copied; times are microseconds UTC."""

    delivery_id: int
    job_id: str
    build_no: BuildNo
    name: str
    node_id: str
    sent_sha256: str
    accepted_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RestorePause:
    """When the pause began (microseconds UTC), the number of uncertain reports, and the oldest of them."""

    since: int
    count: int
    reports: list[UncertainReport]


def pause_ledger(connection: Connection, now: int) -> int:
    """Pause the ledger unless it is paused; return since when it is (microseconds UTC).

    A copy without a mark was made at an unknown time after its newest delivery became pending.
    """
    since: int | None = lock_breaker_row(connection, RESTORE_PAUSE).opened_at
    if since is None:
        since = connection.execute(select(func.max(deliveries.c.pending_since))).scalar() or now
        values = {"failures": 1, "opened_at": since, "reason": REASON, "probes": 0, "probe_at": None}
        connection.execute(update(circuit_breakers).where(circuit_breakers.c.name == RESTORE_PAUSE).values(values))
    return since


def paused_since(connection: Connection) -> int | None:
    """Return since when the ledger is paused, in microseconds UTC; None if it is not."""
    return next((breaker.opened_at for breaker in open_breakers(connection) if breaker.name == RESTORE_PAUSE), None)


def restore_pause(connection: Connection) -> RestorePause | None:
    """Return the pause with its uncertain reports, oldest first; None if the ledger is not paused."""
    since = paused_since(connection)
    if since is None:
        return None
    query = (
        select(
            deliveries.c.id.label("delivery_id"),
            builds.c.source,
            builds.c.key,
            reports.c.name,
            reports.c.node_id,
            reports.c.sent_sha256,
            reports.c.accepted_at,
        )
        .join(reports, reports.c.id == deliveries.c.report_id)
        .join(builds, builds.c.id == deliveries.c.build_id)
        .where(_is_uncertain(since))
        .order_by(deliveries.c.id)
        .limit(LISTED_REPORTS)
    )
    found = [_uncertain(dict(row)) for row in connection.execute(query).mappings()]
    count = connection.execute(select(func.count()).select_from(deliveries).where(_is_uncertain(since))).scalar_one()
    return RestorePause(since=since, count=count, reports=found)


def _uncertain(row: dict[str, Any]) -> UncertainReport:
    job_id, build_no = build_of_key(row.pop("source"), row.pop("key"))
    return UncertainReport(job_id=job_id, build_no=build_no, **row)


def resume(connection: Connection, now: int, items: Sequence[Resumption]) -> list[int]:
    """End the pause and apply the decision about uncertain reports; return their number.

    Raise ResumeRejected if the ledger is not paused, or has uncertain reports without a decision.
    """
    return [_resume_one(connection, now, item) for item in items]


def _resume_one(connection: Connection, now: int, resumption: Resumption) -> int:
    pause = restore_pause(connection)
    if pause is None:
        raise ResumeRejected("The ledger is not paused, so there is nothing to resume. Look at `paused` in /readyz.")
    if pause.count and resumption.uncertain is None:
        raise ResumeRejected(
            f"{counted(pause.count, 'report')} may have been delivered since this ledger was copied. "
            "Look at /api/v1/paused, then resume with --assume-delivered or --redeliver."
        )
    if resumption.uncertain is UncertainDeliveries.ASSUME_DELIVERED:
        _assume_delivered(connection, now, pause.since)
    if resumption.uncertain is not UncertainDeliveries.REDELIVER:
        _forbid_replacements(connection)
    _close(connection, to_breaker(lock_breaker_row(connection, RESTORE_PAUSE)), now)
    _close_unneeded_breakers(connection, now)
    wake_waiting(connection, RESTORE_PAUSE, now, max_finalize_delay_us=resumption.max_finalize_delay_us)
    return pause.count


def _close_unneeded_breakers(connection: Connection, now: int) -> None:
    """Close the register and storage breakers of routes for which nothing is pending: no build would probe them."""
    pending = (deliveries.c.state == DeliveryState.PENDING, deliveries.c.target == DeliveryTarget.TESTNOD)
    query = select(builds.c.route).distinct().join(deliveries, deliveries.c.build_id == builds.c.id).where(*pending)
    needed = set(connection.execute(query).scalars())
    if "" in needed:  # a build whose route is not known yet
        return
    probed_by_builds = {register_breaker(""), storage_breaker("")}
    for breaker in open_breakers(connection):
        kind, _, route = breaker.name.partition(":")
        if f"{kind}:" in probed_by_builds and route not in needed:
            _close(connection, breaker, now)


def _close(connection: Connection, breaker: CircuitBreaker, now: int) -> None:
    closed = asdict(close_breaker(breaker, Instant(now)))
    connection.execute(update(circuit_breakers).where(circuit_breakers.c.name == breaker.name).values(closed))


def _assume_delivered(connection: Connection, now: int, since: int) -> None:
    """Mark uncertain reports as delivered; TestNod is not asked about upload URLs that were open."""
    ids = select(deliveries.c.id).where(_is_uncertain(since))
    registered = and_(registrations.c.delivery_id.in_(ids), registrations.c.state == RegistrationState.REGISTERED)
    stored = {"state": RegistrationState.STORED, "stored_at": now, "presigned_url": None}
    connection.execute(update(registrations).where(registered).values(stored))
    delivered = {"state": DeliveryState.DELIVERED, "delivered_at": now, "last_error": ASSUMED}
    connection.execute(update(deliveries).where(_is_uncertain(since)).values(delivered))


def _forbid_replacements(connection: Connection) -> None:
    """Let no run of an unfinished build be replaced: the gateway of the original ledger may have replaced it since."""
    unfinished = or_(builds.c.state != BuildState.FINALIZED, builds.c.confirm_until.is_not(None))
    found = connection.execute(
        select(builds.c.id, builds.c.run_parameters).where(unfinished, builds.c.run_parameters.is_not(None))
    )
    for build_id, parameters in found.all():
        values = {"run_parameters": {**parameters, "replaceable": False}}
        connection.execute(update(builds).where(builds.c.id == build_id).values(values))


def _is_uncertain(since: int) -> ColumnElement[bool]:
    pending = and_(deliveries.c.state == DeliveryState.PENDING, deliveries.c.target == DeliveryTarget.TESTNOD)
    return and_(
        pending, deliveries.c.pending_since <= since
    )  # later uploads and recovered blobs are pending since later
