"""The ledger's page on upstreams: which gates are closed, whose turn it is to probe, and the common polling rate.

It knows no call. A gate that opens is only a nudge to the builds that wait for it: each would look again by itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, or_, select, update

from bridge.domain.build import SECOND
from bridge.domain.circuit_breaker import (
    CLOCK,
    CODEARTS,
    CircuitBreaker,
    CircuitBreakers,
    HealthSignal,
    apply_signal,
    early_probe_at,
)
from bridge.domain.instants import Duration, Instant
from bridge.domain.job_order import queue_of
from bridge.store.job_order import queue_by_build_number
from bridge.store.row_mapping import to_breaker
from bridge.store.schema import builds, circuit_breakers
from bridge.store.sql_helpers import earlier, insert_new


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerSignal:
    """One signal of an upstream; a gate that closes is probed `probe_delay_us` from now.

    `source` is the id of the build whose call it comes from, gates.PROBER for the prober's, None for none of these.
    After one that opens, a build waits for earlier ones of its job for at most `max_finalize_delay_us`.
    """

    breaker: str
    signal: HealthSignal
    reason: str
    probe_delay_us: Duration
    max_finalize_delay_us: int = 0
    source: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WakeForProbe:
    """Ask for the next build to probe a closed gate, after the build `after`; `first_us` is the shortest wait."""

    breaker: str
    after: int
    first_us: Duration


NUDGED_AT_ONCE = 10_000
"""Builds, in one commit: with a backlog of a hundred thousand it takes longer than it may on PostgreSQL, and the gate
would never open. With these there is enough to do until the others look by themselves."""

LONGEST_QUEUE_US = 24 * 3600 * SECOND
"""The common rate has no place that is further away: one that is was given out by another clock."""

ALL_BREAKERS = select(circuit_breakers)


def all_breakers(connection: Connection) -> CircuitBreakers:
    """Return every gate that was ever closed or doubted."""
    return CircuitBreakers.of(to_breaker(row) for row in connection.execute(ALL_BREAKERS))


def apply_breaker_signals(connection: Connection, now: int, items: Sequence[BreakerSignal]) -> list[CircuitBreaker]:
    """Write signals down and nudge the builds that waited for a gate which opens by it; return the gates."""
    for breaker in sorted({told.breaker for told in items}):  # all first, in this order: nobody locks another one out
        lock_breaker_row(connection, breaker)
    return [_tell_one(connection, now, told) for told in items]


def _tell_one(connection: Connection, now: int, told: BreakerSignal) -> CircuitBreaker:
    row = lock_breaker_row(connection, told.breaker)
    before = to_breaker(row)
    after = apply_signal(before, told.signal, told.reason, Instant(now), told.probe_delay_us, build_id=told.source)
    if after != before:
        connection.execute(
            update(circuit_breakers).where(circuit_breakers.c.name == told.breaker).values(asdict(after))
        )
    if before.opened_at is not None and after.opened_at is None:
        wake_waiting(connection, told.breaker, now, max_finalize_delay_us=told.max_finalize_delay_us)
    return after


def wake_waiting(connection: Connection, breaker: str, now: int, *, max_finalize_delay_us: int) -> None:
    """Let the oldest builds that wait for `gate` be looked at now, those of one job in the order of their numbers.

    The others look again by themselves, within `delivery.retry_max_delay`.
    """
    waiting = select(builds.c.id).where(builds.c.waiting_on == breaker, builds.c.due_at > now)
    oldest = waiting.order_by(builds.c.id).limit(NUDGED_AT_ONCE).with_for_update(key_share=True)
    ids = connection.execute(oldest).scalars().all()
    if ids:
        queue_by_build_number(connection, waiting.where(builds.c.id <= ids[-1]), now, max_finalize_delay_us)


def wake_builds_waiting_for_clock(connection: Connection, now: int, items: Sequence[None]) -> list[None]:
    """Let the oldest builds that wait until the clock is trusted be looked at now: it is."""
    wake_waiting(connection, CLOCK, now, max_finalize_delay_us=0)
    return [None for _ in items]


def wake_waiting_builds(connection: Connection, now: int, items: Sequence[None]) -> list[None]:
    """Let the oldest builds that are held, or wait for a gate, be looked at now: the settings have just changed."""
    # Not those in line: they are called in order, and an earlier one is looked at.
    waiting = select(builds.c.id).where(
        or_(builds.c.blocked_reason.is_not(None), builds.c.waiting_on.not_like(queue_of("%")))
    )
    in_order = waiting.where(builds.c.due_at > now).order_by(builds.c.id).limit(NUDGED_AT_ONCE)
    in_order = in_order.with_for_update(key_share=True)
    connection.execute(update(builds).where(builds.c.id.in_(in_order)).values(due_at=now))
    return [None for _ in items]


def lock_breaker_row(connection: Connection, name: str) -> Any:
    """Return the row of a gate, made where there was none; nobody else writes to it until the commit."""
    query = select(circuit_breakers).where(circuit_breakers.c.name == name).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        columns = {**asdict(CircuitBreaker(name=name)), "next_rate_slot_at": 0}
        insert_new(connection, circuit_breakers, [columns])
        row = connection.execute(query).one()
    return row


def recovered_breakers(connection: Connection, breakers: Iterable[str]) -> set[str]:
    """Return which of `gates` were closed or doubted before and are open now; none opens before this commit."""
    query = select(circuit_breakers.c.name, circuit_breakers.c.opened_at).where(
        circuit_breakers.c.name.in_(sorted(breakers))
    )
    rows = connection.execute(query.order_by(circuit_breakers.c.name).with_for_update(read=True)).all()
    return {row.name for row in rows if row.opened_at is None}


def take_probe(connection: Connection, now: int, items: Sequence[tuple[str, int]]) -> list[bool]:
    """Become the one that probes a closed gate, each (gate, microseconds until somebody else may).

    True for one asker only, and only once the probe is due.
    """
    due = and_(circuit_breakers.c.opened_at.is_not(None), circuit_breakers.c.probe_at <= now)
    return [
        bool(
            connection.execute(
                update(circuit_breakers)
                .where(circuit_breakers.c.name == breaker, due)
                .values(probe_at=now + next_us, probed_at=now, probes=circuit_breakers.c.probes + 1)
            ).rowcount
        )
        for breaker, next_us in items
    ]


def wake_for_probe(connection: Connection, now: int, items: Sequence[WakeForProbe]) -> list[int | None]:
    """Wake one build that waits for a closed gate, so that it probes it; return its id, None if none may probe now.

    Builds take turns in the order of their ids. Those that did not fail at the gate go first, and earlier.
    """
    return [_wake_one(connection, now, item) for item in items]


def _wake_one(connection: Connection, now: int, item: WakeForProbe) -> int | None:
    breaker = to_breaker(lock_breaker_row(connection, item.breaker))
    if breaker.opened_at is None or breaker.probe_at is None:
        return None
    waiting = select(builds.c.id).where(builds.c.waiting_on == item.breaker)
    turns = [waiting.where(builds.c.id > item.after), waiting]
    build_id = None
    if early_probe_at(breaker, first_us=item.first_us) <= now:
        build_id = _first(connection, [turn.where(builds.c.id.not_in(breaker.builds)) for turn in turns])
    if build_id is None and breaker.probe_at <= now:
        build_id = _first(connection, turns)
    if build_id is not None:
        connection.execute(
            update(circuit_breakers)
            .where(circuit_breakers.c.name == item.breaker)
            .values(probe_at=min(breaker.probe_at, now))
        )
        connection.execute(update(builds).where(builds.c.id == build_id).values(due_at=earlier(builds.c.due_at, now)))
    return build_id


def _first(connection: Connection, queries: Sequence[Select[Any]]) -> int | None:
    """Return the lowest id that one of the queries finds, asked in turn."""
    for query in queries:
        found: int | None = connection.execute(query.order_by(builds.c.id).limit(1)).scalar()
        if found is not None:
            return found
    return None


def open_breakers(connection: Connection) -> list[CircuitBreaker]:
    """Return the gates that are closed now."""
    query = select(circuit_breakers).where(circuit_breakers.c.opened_at.is_not(None)).order_by(circuit_breakers.c.name)
    return [to_breaker(row) for row in connection.execute(query)]


def troubled_breakers(connection: Connection) -> list[CircuitBreaker]:
    """Return the gates that are closed, or whose last calls failed."""
    query = select(circuit_breakers).where(circuit_breakers.c.failures > 0).order_by(circuit_breakers.c.name)
    return [to_breaker(row) for row in connection.execute(query)]


def take_slot(connection: Connection, now: int, items: Sequence[int]) -> list[int]:
    """Take the next place under the common polling rate, each with its interval in microseconds; return when it is.

    Places are handed out in order and never twice, to all replicas alike; one that nobody came for is gone.
    """
    slots = []
    next_at = max(lock_breaker_row(connection, CODEARTS).next_rate_slot_at, now)
    if next_at > now + LONGEST_QUEUE_US:
        next_at = now
    for interval_us in items:
        slots.append(next_at)
        next_at += interval_us
    _set_next_slot(connection, next_at)
    return slots


def slow_down(connection: Connection, now: int, items: Sequence[int]) -> list[None]:
    """Give out no place under the common rate for the given microseconds from now."""
    for pause_us in items:
        _set_next_slot(connection, max(lock_breaker_row(connection, CODEARTS).next_rate_slot_at, now + pause_us))
    return [None for _ in items]


def _set_next_slot(connection: Connection, at: int) -> None:
    connection.execute(update(circuit_breakers).where(circuit_breakers.c.name == CODEARTS).values(next_rate_slot_at=at))
