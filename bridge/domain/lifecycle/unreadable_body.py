"""What changes when the bridge's own spool does not return the bytes of a report that is owed.

The report is read again with back-off, no upstream is blamed, and the give-up clock stands still. Only if a spool that
otherwise works gives the same answer for DAMAGE_LASTS is the report given up. The time is kept in the delivery
(`unread`, `unread_since`, `unread_at`), so it outlasts restarts and is shared by all gateways of a ledger.
"""

from typing import Any, TypeVar

from bridge.domain.build import SECOND, Delivery, Registration
from bridge.domain.changes import Change, SetDelivery, set_delivery, set_registration
from bridge.domain.outcomes import CorruptBody, SpoolUnreadable
from bridge.domain.policy import Policy
from bridge.domain.retry import again_at
from bridge.domain.text_format import span

DAMAGE_LASTS = 12 * 3600 * SECOND
"""A bucket that was moved, or a disk that is not mounted, is put right within a night; damaged bytes stay so."""

SEEN_FOR = 3600 * SECOND
"""The most that the time between two looks counts: a stopped gateway or a clock that jumps shows nothing."""

NOT_READ = "the bridge could not read the report from its own spool in time"
"""What TestNod is sent as failure_message: it has no use for the name of the bridge's bucket."""

Outcome = TypeVar("Outcome")


def judged(delivery: Delivery, outcome: Outcome, now: int) -> Outcome | CorruptBody | SpoolUnreadable:
    """Return the `outcome` of a try to send; damage is final (Damaged) only if it was the same for DAMAGE_LASTS."""
    if not isinstance(outcome, CorruptBody) or outcome.gone:
        return outcome
    lasted = now - _since(delivery, outcome.message, now)
    if lasted < DAMAGE_LASTS:
        return SpoolUnreadable(message=outcome.message)
    return CorruptBody(message=f"Given up after {span(lasted)} of the same: {outcome.message}")


def unread(delivery: Delivery, outcome: SpoolUnreadable, now: int, policy: Policy) -> SetDelivery:
    """Return what a look at the spool that came to nothing changes of a delivery; the next one is backed off."""
    attempts = delivery.attempts + 1
    due_at = again_at(now, policy, attempts, f"unread/{delivery.id}", outcome)
    return set_delivery(delivery, attempts=attempts, due_at=due_at, **_noted(delivery, outcome, now))


def unread_put(
    delivery: Delivery, life: Registration, outcome: SpoolUnreadable, now: int, policy: Policy
) -> tuple[Change, ...]:
    """Return what changes when a PUT found no bytes: it is made again while its URL lives, and nothing was stored."""
    attempts = life.attempts + 1
    due_at = again_at(now, policy, attempts, f"unread/{life.id}", outcome)
    again = set_registration(life, attempts=attempts, due_at=due_at, failure=NOT_READ)
    return again, set_delivery(delivery, **_noted(delivery, outcome, now))


def read_again(delivery: Delivery) -> tuple[Change, ...]:
    """Return what changes when the spool returned the bytes: nothing if it had done so before."""
    if delivery.unread_since is None:
        return ()
    return (set_delivery(delivery, unread=None, unread_since=None, unread_at=None),)


def _noted(delivery: Delivery, outcome: SpoolUnreadable, now: int) -> dict[str, Any]:
    message = outcome.message
    since = {"unread": message, "unread_since": _since(delivery, message, now), "unread_at": now}
    return {**since, "last_error": message, "first_failure_at": None, "outage_us_at_first_failure": 0}


def _since(delivery: Delivery, message: str, now: int) -> int:
    """Return since when the spool has given this answer, as if it had been read all along."""
    if delivery.unread != message or delivery.unread_since is None or delivery.unread_at is None:
        return now
    unseen = max(0, now - delivery.unread_at - SEEN_FOR)
    return min(now, delivery.unread_since + unseen)
