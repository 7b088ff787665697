"""The polling rate that all gateways of a ledger share: each call to CodeArts takes the next free slot."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.instants import SECOND
from bridge.store.circuit_breakers import lock_breaker_row, update_breaker

MAX_WAIT_US: Final = 24 * 3600 * SECOND
"""No slot is further away than this. If one is, a wrong clock assigned it."""


def take_rate_slot(connection: Connection, now: int, items: Sequence[int]) -> list[int]:
    """Take one slot for each item, its interval in microseconds; return the times of the slots.

    Slots are assigned in order, and each only once over all gateways. An unused slot is lost.
    """
    slots = []
    next_at = max(_next_slot_at(connection), now)
    if next_at > now + MAX_WAIT_US:
        next_at = now
    for interval_us in items:
        slots.append(next_at)
        next_at += interval_us
    _set_next_slot(connection, next_at)
    return slots


def pause_rate(connection: Connection, now: int, items: Sequence[int]) -> list[None]:
    """Assign no slot for the given microseconds from now."""
    for pause_us in items:
        _set_next_slot(connection, max(_next_slot_at(connection), now + pause_us))
    return [None for _ in items]


def _next_slot_at(connection: Connection) -> int:
    at: int = lock_breaker_row(connection, CODEARTS).next_rate_slot_at
    return at


def _set_next_slot(connection: Connection, at: int) -> None:
    update_breaker(connection, CODEARTS, {"next_rate_slot_at": at})
