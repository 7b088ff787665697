"""What the answers of CodeArts' report API change: deliveries to it, and what the comparison of both sides says.

It knows no delivery to TestNod: nothing here holds one back. A lost answer is sent again, and may then count twice.
"""

from collections.abc import Iterable, Sequence

from bridge.domain.build import Build, Delivery, DeliveryState, DeliveryTarget
from bridge.domain.changes import AddDelivery, Change, set_build, set_delivery
from bridge.domain.circuit_breaker import MIRROR, HealthSignal
from bridge.domain.lifecycle.breaker_signals import Signals, failure_signal
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.lifecycle.time_transitions import given_up
from bridge.domain.lifecycle.unreadable_body import unread
from bridge.domain.mirror import (
    AGREES,
    COMPARE_AGAIN,
    MirrorRejected,
    MirrorUploaded,
    SummaryOutcome,
    TestTotals,
    TooLargeToSign,
    UploadOutcome,
    compare_due_at,
    last_mirrored_at,
    new_delivery,
    not_owed_yet,
    requests_of,
)
from bridge.domain.outcomes import (
    CorruptBody,
    CredentialsRejected,
    NoSuchBuild,
    NotSent,
    OutcomeUnknown,
    Rejected,
    SpoolUnreadable,
    Throttled,
)
from bridge.domain.policy import Policy
from bridge.domain.retry import again_at, start_give_up_clock
from bridge.domain.steps import Apply, CompareMirror, UploadToMirror, UpstreamCall


def leased(deliveries: Iterable[Delivery], until: int) -> tuple[Change, ...]:
    """Return what keeps everybody else from these deliveries before `until`."""
    return tuple(set_delivery(delivery, due_at=until) for delivery in deliveries)


def after_upload(
    deliveries: Sequence[Delivery], outcome: UploadOutcome, now: int, policy: Policy, total_outage_us: int
) -> tuple[Change, ...]:
    """Return what the answer to one request changes of its deliveries."""
    return tuple(_after(each, outcome, now, policy, total_outage_us, shared=len(deliveries) > 1) for each in deliveries)


def _after(
    delivery: Delivery, outcome: UploadOutcome, now: int, policy: Policy, total_outage_us: int, *, shared: bool
) -> Change:
    if isinstance(outcome, MirrorUploaded):
        return set_delivery(delivery, state=DeliveryState.DELIVERED, delivered_at=now, last_error=None)
    refused = isinstance(outcome, TooLargeToSign | CorruptBody | SpoolUnreadable | MirrorRejected)
    if refused and shared:  # for one of them, and the answer does not name it
        return set_delivery(delivery, send_alone=True, due_at=now, last_error=outcome.message)
    if isinstance(outcome, SpoolUnreadable):
        return unread(delivery, outcome, now, policy)
    unknown = isinstance(outcome, NoSuchBuild) and _lasts(delivery, now, policy.not_found_timeout)
    if refused or unknown:
        return set_delivery(delivery, state=DeliveryState.DEAD, last_error=outcome.message)
    attempts = delivery.attempts + 1
    at = again_at(now, policy, attempts, f"mirror/{delivery.id}", outcome)
    tried = {"attempts": attempts, "due_at": at, **start_give_up_clock(delivery, now, total_outage_us)}
    if isinstance(outcome, Rejected) and shared:  # perhaps by a firewall in front, for one of them: the others go on
        tried["send_alone"] = True
    return set_delivery(delivery, last_error=outcome.message, **tried)


def _lasts(delivery: Delivery, now: int, patience_us: int) -> bool:
    return delivery.first_failure_at is not None and now - delivery.first_failure_at >= patience_us


def defer_comparison(until: int) -> tuple[Change, ...]:
    """Return what keeps everybody else from comparing before `until`."""
    return (set_build(mirror_due_at=until),)


def after_summary(
    build: Build, outcome: SummaryOutcome, ours: TestTotals, now: int, policy: Policy
) -> tuple[Change, ...]:
    """Return what CodeArts' report summary says of the mirror of `build`, whose delivered reports count `ours`."""
    since = now - (last_mirrored_at(build) or now)
    again = now + min(max(since // 2, COMPARE_AGAIN), policy.retry_max_delay)
    if not isinstance(outcome, TestTotals):
        if since < policy.confirm_timeout:
            return (set_build(mirror_due_at=again),)
        return (set_build(mirror=f"is not known: {outcome.message}", mirror_compared_at=now, mirror_due_at=again),)
    said = AGREES if outcome == ours else f"differs: CodeArts counts {outcome.said()}, the bridge {ours.said()}"
    return (set_build(mirror=said, mirror_compared_at=now, mirror_due_at=again),)


def of_mirror(outcome: UploadOutcome) -> Signals:
    """Return what an upload shows of the report API, which has a gate of its own: polls go on while it is away."""
    match outcome:
        case TooLargeToSign() | CorruptBody() | SpoolUnreadable():
            return ()
        case CredentialsRejected(message=message):
            return ((MIRROR, HealthSignal.TRIP, f"CodeArts refuses the bridge's credentials: {message}"),)
        case NotSent() | OutcomeUnknown():
            return ((MIRROR, failure_signal(outcome), outcome.message),)
        case Throttled(message=message) | Rejected(message=message):
            return ((MIRROR, HealthSignal.UNEXPECTED, message),)
    return ((MIRROR, HealthSignal.SUCCESS, ""),)


# What CodeArts' own report API is sent beside TestNod, and when both are compared.
#
# It knows neither the form of an upload nor how totals are compared.


NO_MIRROR = 'Route "{}" does not mirror to CodeArts (any more).'


def owed_to_mirror(moment: PlanContext) -> Apply | None:
    """Owe CodeArts what came, before any register: bytes go as soon as nobody is owed them."""
    if moment.route is None or not _mirrors(moment) or not moment.described:
        return None
    new = tuple(AddDelivery(new_delivery(report, moment.now)) for report in not_owed_yet(moment.build, moment.route))
    return Apply("owed to the mirror", new) if new else None


def mirror_given_up(moment: PlanContext) -> Apply | None:
    """Give up what CodeArts did not take for as long as is allowed, or is to have no more."""
    owed = moment.build.owed(DeliveryTarget.CODEARTS)
    dead = [(delivery, reason) for delivery in owed if (reason := _death(moment, delivery))]
    lost = (set_delivery(delivery, state=DeliveryState.DEAD, last_error=reason) for delivery, reason in dead)
    return Apply("mirror given up", tuple(lost)) if dead else None


def uploads_to_mirror(moment: PlanContext) -> list[UpstreamCall]:
    """Return requests to CodeArts' report API; each runs by itself, and holds no other call back."""
    owed = [delivery for delivery in moment.build.owed(DeliveryTarget.CODEARTS) if moment.due(delivery.due_at)]
    if owed and _open(moment):
        free = 1 if MIRROR in moment.breakers.probing else moment.policy.concurrency_per_build
        return [UploadToMirror(ids) for ids in requests_of(moment.build, owed)[:free]]
    compared = _mirrors(moment) and moment.due(compare_due_at(moment.build, moment.policy.confirm_timeout))
    # A comparison shows nothing of uploads, so it is never the probe of their gate.
    return [CompareMirror()] if compared and not moment.breakers.is_open(MIRROR) else []


def _mirrors(moment: PlanContext) -> bool:
    return any(route.name == moment.route and route.mirror for route in moment.policy.routes)


def _death(moment: PlanContext, delivery: Delivery) -> str | None:
    if moment.route is not None and not _mirrors(moment):
        return NO_MIRROR.format(moment.route)
    return given_up(moment, delivery, MIRROR)


def _open(moment: PlanContext) -> bool:
    """Whether calls may pass to the mirror; a build never waits for its gate, but for TestNod's."""
    breaker = moment.breakers.open_breaker(MIRROR)
    if breaker is not None and breaker.probe_at is not None and moment.due(breaker.probe_at):
        moment.probe = moment.probe or MIRROR
    return breaker is None
