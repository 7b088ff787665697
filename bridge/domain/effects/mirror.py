"""What the answers of CodeArts' report API change: deliveries to it, and what the comparison of both sides says.

It knows no delivery to TestNod: nothing here holds one back. A lost answer is sent again, and may then count twice.
"""

from collections.abc import Iterable, Sequence

from bridge.domain.build import Build, Delivery, DeliveryState
from bridge.domain.changes import Change, set_build, set_delivery
from bridge.domain.effects.signals import Signals, failure_signal
from bridge.domain.effects.timing import again_at, trying
from bridge.domain.effects.unread import unread
from bridge.domain.gates import MIRROR, Signal
from bridge.domain.mirror import (
    AGREES,
    COMPARE_AGAIN,
    Refused,
    SummaryOutcome,
    TooLargeToSign,
    Totals,
    Uploaded,
    UploadOutcome,
    last_mirrored_at,
)
from bridge.domain.outcomes import (
    Damaged,
    NoSuchBuild,
    NotSent,
    Rejected,
    SlowDown,
    SpoolUnreadable,
    Unauthorized,
    Unknown,
)
from bridge.domain.policy import Policy


def leased(deliveries: Iterable[Delivery], until: int) -> tuple[Change, ...]:
    """Return what keeps everybody else from these deliveries before `until`."""
    return tuple(set_delivery(delivery, due_at=until) for delivery in deliveries)


def after_upload(
    deliveries: Sequence[Delivery], outcome: UploadOutcome, now: int, policy: Policy, away_us: int
) -> tuple[Change, ...]:
    """Return what the answer to one request changes of its deliveries."""
    return tuple(_after(each, outcome, now, policy, away_us, shared=len(deliveries) > 1) for each in deliveries)


def _after(
    delivery: Delivery, outcome: UploadOutcome, now: int, policy: Policy, away_us: int, *, shared: bool
) -> Change:
    if isinstance(outcome, Uploaded):
        return set_delivery(delivery, state=DeliveryState.DELIVERED, delivered_at=now, last_error=None)
    refused = isinstance(outcome, TooLargeToSign | Damaged | SpoolUnreadable | Refused)
    if refused and shared:  # for one of them, and the answer does not name it
        return set_delivery(delivery, conflicted=True, due_at=now, last_error=outcome.message)
    if isinstance(outcome, SpoolUnreadable):
        return unread(delivery, outcome, now, policy)
    unknown = isinstance(outcome, NoSuchBuild) and _lasts(delivery, now, policy.unknown_for)
    if refused or unknown:
        return set_delivery(delivery, state=DeliveryState.DEAD, last_error=outcome.message)
    attempts = delivery.attempts + 1
    at = again_at(now, policy, attempts, f"mirror/{delivery.id}", outcome)
    tried = {"attempts": attempts, "due_at": at, **trying(delivery, now, away_us)}
    if isinstance(outcome, Rejected) and shared:  # perhaps by a firewall in front, for one of them: the others go on
        tried["conflicted"] = True
    return set_delivery(delivery, last_error=outcome.message, **tried)


def _lasts(delivery: Delivery, now: int, patience_us: int) -> bool:
    return delivery.trying_since is not None and now - delivery.trying_since >= patience_us


def comparing(until: int) -> tuple[Change, ...]:
    """Return what keeps everybody else from comparing before `until`."""
    return (set_build(mirror_due_at=until),)


def after_summary(build: Build, outcome: SummaryOutcome, ours: Totals, now: int, policy: Policy) -> tuple[Change, ...]:
    """Return what CodeArts' report summary says of the mirror of `build`, whose delivered reports count `ours`."""
    since = now - (last_mirrored_at(build) or now)
    again = now + min(max(since // 2, COMPARE_AGAIN), policy.max_delay)
    if not isinstance(outcome, Totals):
        if since < policy.confirm_for:
            return (set_build(mirror_due_at=again),)
        return (set_build(mirror=f"is not known: {outcome.message}", mirror_compared_at=now, mirror_due_at=again),)
    said = AGREES if outcome == ours else f"differs: CodeArts counts {outcome.said()}, the bridge {ours.said()}"
    return (set_build(mirror=said, mirror_compared_at=now, mirror_due_at=again),)


def of_mirror(outcome: UploadOutcome) -> Signals:
    """Return what an upload shows of the report API, which has a gate of its own: polls go on while it is away."""
    match outcome:
        case TooLargeToSign() | Damaged() | SpoolUnreadable():
            return ()
        case Unauthorized(message=message):
            return ((MIRROR, Signal.SHUT, f"CodeArts refuses the bridge's credentials: {message}"),)
        case NotSent() | Unknown():
            return ((MIRROR, failure_signal(outcome), outcome.message),)
        case SlowDown(message=message) | Rejected(message=message):
            return ((MIRROR, Signal.ODD, message),)
    return ((MIRROR, Signal.GOOD, ""),)
