"""Circuit breakers in the ledger: their state, their probes, and the builds that wait for them.

Waking builds when a breaker closes is only an optimization: each build becomes due by itself after
`delivery.retry_max_delay`.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Select, and_, bindparam, or_, select, update

from bridge.domain.circuit_breaker import (
    CLOCK,
    CircuitBreaker,
    CircuitBreakers,
    HealthSignal,
    apply_signal,
    early_probe_at,
)
from bridge.domain.instants import Duration, Instant
from bridge.domain.job_order import queue_of
from bridge.store.engine.base import one_statement
from bridge.store.engine.compiled import Row, Statement, is_one_of
from bridge.store.job_order import queue_by_build_number
from bridge.store.row_mapping import BREAKER_COLUMNS, BreakerRow, to_breaker
from bridge.store.schema import UNFINISHED_DELIVERY, builds, circuit_breakers, deliveries
from bridge.store.sql_helpers import earlier, insert_new
from bridge.values import dataclass

WAKE_LIMIT: Final = 10_000
"""Builds to wake in one commit: a backlog of a hundred thousand would take longer than PostgreSQL allows, and the
breaker would never close. These builds are work enough until the others become due by themselves."""

ALL_BREAKERS = select(*BREAKER_COLUMNS)
READ_ALL = Statement(ALL_BREAKERS)
OF_NAME = circuit_breakers.c.name == bindparam("of_name", type_=circuit_breakers.c.name.type)
LOCK_ONE = Statement(ALL_BREAKERS.where(OF_NAME).with_for_update())
IS_OPEN = circuit_breakers.c.opened_at.is_not(None)
LOCK_AGAINST_CLOSING = Statement(
    select(circuit_breakers.c.name, circuit_breakers.c.opened_at)
    .where(is_one_of(circuit_breakers.c.name, "names"))
    .order_by(circuit_breakers.c.name)
    .with_for_update(read=True)
)


# -- state -------------------------------------------------------------------------------------------------------


@one_statement
def all_breakers(connection: Connection) -> CircuitBreakers:
    """Return every breaker that has ever had a failure."""
    return to_breakers(READ_ALL.rows(connection))


def to_breakers(rows: Iterable[Row]) -> CircuitBreakers:
    """Return the breakers of rows with BREAKER_COLUMNS."""
    return CircuitBreakers.of(to_breaker(BreakerRow._make(row)) for row in rows)


def open_breakers(connection: Connection) -> list[CircuitBreaker]:
    """Return the open breakers in the order of their names."""
    return _breakers(connection, ALL_BREAKERS.where(IS_OPEN))


def troubled_breakers(connection: Connection) -> list[CircuitBreaker]:
    """Return the breakers that are open or whose last calls failed, in the order of their names."""
    return _breakers(connection, ALL_BREAKERS.where(circuit_breakers.c.failures > 0))


def _breakers(connection: Connection, query: Select[Any]) -> list[CircuitBreaker]:
    rows = connection.execute(query.order_by(circuit_breakers.c.name))
    return [to_breaker(BreakerRow._make(row)) for row in rows]


def lock_breaker_row(connection: Connection, name: str) -> BreakerRow:
    """Lock the row of a breaker until the commit and return it; insert it if it is missing."""
    row = LOCK_ONE.first(connection, {"of_name": name})
    if row is None:
        insert_new(connection, circuit_breakers, [asdict(CircuitBreaker(name=name))])
        [row] = LOCK_ONE.rows(connection, {"of_name": name})
    return BreakerRow._make(row)


def update_breaker(connection: Connection, name: str, values: Mapping[str, Any]) -> None:
    """Write new values of columns of a breaker."""
    _update_statement(tuple(values)).run(
        connection, {"of_name": name, **{f"new_{column}": value for column, value in values.items()}}
    )


@cache
def _update_statement(columns: tuple[str, ...]) -> Statement:
    new = {name: bindparam(f"new_{name}", type_=circuit_breakers.c[name].type) for name in columns}
    return Statement(update(circuit_breakers).where(OF_NAME).values(new))


def recovered_breakers(connection: Connection, names: AbstractSet[str]) -> set[str]:
    """Return which of the breakers `names` have failed before and are closed now; lock them against closing."""
    if not names:
        return set()
    rows = LOCK_AGAINST_CLOSING.rows(connection, {"names": list(names)})
    return {name for name, opened_at in rows if opened_at is None}


# -- signals -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerSignal:
    """The outcome of one call, as a signal to the breaker of its upstream.

    If the breaker opens by it, it is probed `probe_delay_us` from now. If it closes, a build waits for earlier builds
    of its job for at most `max_finalize_delay_us`. `source` is the id of the call's build, PROBER for a probe, or None.
    """

    breaker: str
    signal: HealthSignal
    reason: str
    probe_delay_us: Duration
    max_finalize_delay_us: int = 0
    source: int | None = None
    token: str | None = None  # digest of the token that the call sent, if gateways may differ in it


def apply_breaker_signals(connection: Connection, now: int, items: Sequence[BreakerSignal]) -> list[CircuitBreaker]:
    """Apply signals, and wake the builds that wait for a breaker that closes by them; return the breakers."""
    names = sorted({item.breaker for item in items})  # locked in this order first, which avoids deadlocks
    breakers = {name: to_breaker(lock_breaker_row(connection, name)) for name in names}
    applied = []
    for item in items:
        breakers[item.breaker] = _apply_one(connection, now, item, breakers[item.breaker])
        applied.append(breakers[item.breaker])
    return applied


def _apply_one(connection: Connection, now: int, item: BreakerSignal, before: CircuitBreaker) -> CircuitBreaker:
    after = apply_signal(
        before,
        item.signal,
        item.reason,
        Instant(now),
        item.probe_delay_us,
        build_id=item.source,
        token=item.token,
    )
    if after != before:
        update_breaker(connection, item.breaker, asdict(after))
    if before.opened_at is not None and after.opened_at is None:
        wake_waiting(connection, item.breaker, now, max_finalize_delay_us=item.max_finalize_delay_us)
    return after


def wake_waiting(connection: Connection, breaker: str, now: int, *, max_finalize_delay_us: int) -> None:
    """Make the oldest builds that wait for `breaker` due now; builds of one job in the order of their numbers."""
    waiting = select(builds.c.id).where(builds.c.waiting_on == breaker, builds.c.due_at > now)
    oldest = waiting.order_by(builds.c.id).limit(WAKE_LIMIT).with_for_update(key_share=True)
    ids = connection.execute(oldest).scalars().all()
    if ids:
        queue_by_build_number(connection, waiting.where(builds.c.id <= ids[-1]), now, max_finalize_delay_us)


def wake_builds_waiting_for_clock(connection: Connection, now: int) -> None:
    """Make the oldest builds due that wait until the clock is trusted."""
    wake_waiting(connection, CLOCK, now, max_finalize_delay_us=0)


def wake_waiting_builds(connection: Connection, now: int) -> None:
    """Make the oldest builds due that are blocked or wait for a breaker, after the settings have changed."""
    blocked = select(deliveries.c.build_id).where(UNFINISHED_DELIVERY, deliveries.c.blocked_since.is_not(None))
    # Except those that wait for an earlier build of their job: that one wakes them.
    waits = or_(
        builds.c.blocked_reason.is_not(None), builds.c.waiting_on.not_like(queue_of("%")), builds.c.id.in_(blocked)
    )
    oldest = select(builds.c.id).where(waits, builds.c.due_at > now).order_by(builds.c.id).limit(WAKE_LIMIT)
    oldest = oldest.with_for_update(key_share=True)
    connection.execute(update(builds).where(builds.c.id.in_(oldest)).values(due_at=now))


# -- probes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class WakeForProbe:
    """Asks for the next build, after the build with the id `after`, to probe an open breaker.

    `first_us` is the shortest delay of a probe.
    """

    breaker: str
    after: int
    first_us: Duration


def take_probe(connection: Connection, now: int, items: Sequence[tuple[str, int]]) -> list[bool]:
    """Take the due probe of an open breaker; items are (breaker, microseconds until the next probe).

    True for exactly one caller, once the probe is due.
    """
    probe_is_due = and_(IS_OPEN, circuit_breakers.c.probe_at <= now)
    return [
        bool(
            connection.execute(
                update(circuit_breakers)
                .where(circuit_breakers.c.name == name, probe_is_due)
                .values(probe_at=now + next_us, probed_at=now, probes=circuit_breakers.c.probes + 1)
            ).rowcount
        )
        for name, next_us in items
    ]


def wake_for_probe(connection: Connection, now: int, items: Sequence[WakeForProbe]) -> list[int | None]:
    """Make one build due that waits for an open breaker; return its id, or None if no probe is due.

    Builds take turns in the order of their ids. Builds without a failed call there go first, and earlier.
    """
    return [_wake_one(connection, now, item) for item in items]


def _wake_one(connection: Connection, now: int, item: WakeForProbe) -> int | None:
    breaker = to_breaker(lock_breaker_row(connection, item.breaker))
    if breaker.opened_at is None or breaker.probe_at is None:
        return None
    waiting = select(builds.c.id).where(builds.c.waiting_on == item.breaker)
    in_turn = [waiting.where(builds.c.id > item.after), waiting]
    build_id = None
    if early_probe_at(breaker, first_us=item.first_us) <= now:
        build_id = _first_of(connection, [query.where(builds.c.id.not_in(breaker.builds)) for query in in_turn])
    if build_id is None and breaker.probe_at <= now:
        build_id = _first_of(connection, in_turn)
    if build_id is not None:
        update_breaker(connection, item.breaker, {"probe_at": min(breaker.probe_at, now)})
        connection.execute(update(builds).where(builds.c.id == build_id).values(due_at=earlier(builds.c.due_at, now)))
    return build_id


def _first_of(connection: Connection, queries: Sequence[Select[Any]]) -> int | None:
    """Return the lowest id of the first query that finds any."""
    for query in queries:
        found: int | None = connection.execute(query.order_by(builds.c.id).limit(1)).scalar()
        if found is not None:
            return found
    return None


def make_probes_due(connection: Connection, now: int) -> None:
    """Make every open breaker due for a probe: the restart or the new settings may have fixed the cause."""
    upstreams = and_(IS_OPEN, circuit_breakers.c.probe_at.is_not(None))  # a pause has no probe
    connection.execute(update(circuit_breakers).where(upstreams).values(probe_at=now, probes=0))
