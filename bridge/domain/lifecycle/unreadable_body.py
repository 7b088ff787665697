"""What changes if the bridge's own spool does not return the bytes of a pending report.

The report is read again with back-off, no breaker gets a signal, and the give-up clock stands still. The report is
given up only if a spool that otherwise works gives the same answer for DAMAGE_TIMEOUT. The delivery stores since when
(`unread`, `unread_since`, `unread_at`), so the time outlasts restarts and is shared by all gateways of a ledger.
"""

from typing import Any, TypeVar

from bridge.domain.build import Delivery, Registration
from bridge.domain.changes import Change, SetDelivery, set_delivery, set_registration
from bridge.domain.instants import HOUR, Duration, Instant, after, between
from bridge.domain.outcomes import CorruptBody, SpoolUnreadable
from bridge.domain.policy import Policy
from bridge.domain.retry import next_attempt_at
from bridge.domain.text_format import span

DAMAGE_TIMEOUT = Duration(12 * HOUR)
"""A bucket that was moved, or a disk that is not mounted, is corrected within a night; damaged bytes stay damaged."""

MAX_READ_GAP = HOUR
"""The most that the time between two reads counts: a stopped gateway or a clock that jumps shows nothing."""

FAILURE_MESSAGE = "the bridge could not read the report from its own spool in time"
"""The failure_message for TestNod, which has no use for the name of the bridge's bucket."""

Outcome = TypeVar("Outcome")


def tolerate_recent_damage(
    delivery: Delivery, outcome: Outcome, now: Instant
) -> Outcome | CorruptBody | SpoolUnreadable:
    """Return `outcome`, but a CorruptBody only after it was the same for DAMAGE_TIMEOUT; until then SpoolUnreadable."""
    if not isinstance(outcome, CorruptBody) or outcome.gone:
        return outcome
    lasted = between(_unread_since(delivery, outcome.message, now), now)
    if lasted < DAMAGE_TIMEOUT:
        return SpoolUnreadable(message=outcome.message)
    return CorruptBody(message=f"Given up after {span(lasted)} of the same: {outcome.message}")


def retry_unread(delivery: Delivery, outcome: SpoolUnreadable, now: Instant, policy: Policy) -> SetDelivery:
    """Return what a failed read changes of a delivery; the next one is backed off."""
    attempts = delivery.attempts + 1
    due_at = next_attempt_at(now, policy, attempts, f"unread/{delivery.id}", outcome)
    return set_delivery(delivery, attempts=attempts, due_at=due_at, **_unread_values(delivery, outcome, now))


def retry_unread_put(
    delivery: Delivery, registration: Registration, outcome: SpoolUnreadable, now: Instant, policy: Policy
) -> tuple[Change, ...]:
    """Return what changes if a PUT found no bytes: nothing was stored, and it is made again while its URL works."""
    attempts = registration.attempts + 1
    due_at = next_attempt_at(now, policy, attempts, f"unread/{registration.id}", outcome)
    again = set_registration(registration, attempts=attempts, due_at=due_at, failure=FAILURE_MESSAGE)
    return again, set_delivery(delivery, **_unread_values(delivery, outcome, now))


def clear_unread(delivery: Delivery) -> tuple[Change, ...]:
    """Return what changes if the spool returned the bytes: nothing, unless an earlier read had failed."""
    if delivery.unread_since is None:
        return ()
    return (set_delivery(delivery, unread=None, unread_since=None, unread_at=None),)


def _unread_values(delivery: Delivery, outcome: SpoolUnreadable, now: Instant) -> dict[str, Any]:
    message = outcome.message
    return {
        "unread": message,
        "unread_since": _unread_since(delivery, message, now),
        "unread_at": now,
        "last_error": message,
        "first_failure_at": None,
        "outage_us_at_first_failure": 0,
    }


def _unread_since(delivery: Delivery, message: str, now: Instant) -> Instant:
    """Return since when the spool has given this answer, without the time in which it was not read."""
    if delivery.unread != message or delivery.unread_since is None or delivery.unread_at is None:
        return now
    gap = Duration(max(0, between(delivery.unread_at, now) - MAX_READ_GAP))
    return min(now, after(delivery.unread_since, gap))
