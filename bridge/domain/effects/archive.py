"""What the archive's answer to a copy changes: delivered, again later, or dead."""

from bridge.domain.build import Delivery, DeliveryState
from bridge.domain.changes import Change, set_delivery
from bridge.domain.effects.timing import again_at, trying
from bridge.domain.effects.unread import unread
from bridge.domain.outcomes import (
    Damaged,
    NotSent,
    PutOutcome,
    PutRefused,
    SpoolUnreadable,
    Stored,
    Unknown,
    UrlRefused,
    put_message,
)
from bridge.domain.policy import Policy


def after_archive(
    delivery: Delivery, outcome: PutOutcome, now: int, policy: Policy, away_us: int
) -> tuple[Change, ...]:
    """Return what the archive's answer changes; whatever it refuses may be mended, so only damage is final."""
    match outcome:
        case Stored():
            return (set_delivery(delivery, state=DeliveryState.DELIVERED, delivered_at=now, last_error=None),)
        case Damaged(message=message):
            return (set_delivery(delivery, state=DeliveryState.DEAD, last_error=message),)
        case SpoolUnreadable():
            return (unread(delivery, outcome, now, policy),)
        case PutRefused() | UrlRefused() | NotSent() | Unknown():
            attempts = delivery.attempts + 1
            at = again_at(now, policy, attempts, f"archive/{delivery.id}", outcome)
            tried = {"attempts": attempts, "due_at": at, **trying(delivery, now, away_us)}
            return (set_delivery(delivery, last_error=put_message(outcome), **tried),)


def deferred(delivery: Delivery, until: int) -> tuple[Change, ...]:
    """Return what changes when there is no place for the copy before `until`."""
    return (set_delivery(delivery, due_at=until),)
