"""When a copy of what TestNod has goes to the archive: last, so that one that fails holds nothing else back.

It knows neither where the archive is nor how it is written.
"""

from bridge.domain.build import Delivery, DeliveryState, DeliveryTarget
from bridge.domain.changes import Change, set_delivery
from bridge.domain.circuit_breaker import ARCHIVE
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.lifecycle.time_transitions import given_up
from bridge.domain.lifecycle.unreadable_body import unread
from bridge.domain.outcomes import (
    CorruptBody,
    NotSent,
    OutcomeUnknown,
    PutOutcome,
    PutRejected,
    SpoolUnreadable,
    Stored,
    UrlRejected,
    put_message,
)
from bridge.domain.policy import Policy
from bridge.domain.retry import again_at, start_give_up_clock
from bridge.domain.steps import Apply, CopyToArchive, Execute, Probe, Step

NO_ARCHIVE = "There is no archive (any more): store.archive is empty."


def archive(moment: PlanContext) -> Step | None:
    """Copy what TestNod has, or give a copy up."""
    at_testnod = _at_testnod(moment)
    ready = [delivery for delivery in moment.build.owed(DeliveryTarget.ARCHIVE) if delivery.report_id in at_testnod]
    dead = [(delivery, reason) for delivery in ready if (reason := _death(moment, delivery))]
    if dead:
        lost = (set_delivery(delivery, state=DeliveryState.DEAD, last_error=reason) for delivery, reason in dead)
        return Apply("archive copy given up", tuple(lost))
    if ready and moment.clock_suspect():  # a copy lies, and is removed, by the day of its delivery
        return None
    due = [
        CopyToArchive(delivery.id)
        for delivery in ready
        if moment.due(delivery.due_at) and moment.open(ARCHIVE, probed_by_visits=True)
    ]
    if due:
        return Execute(tuple(due[: 1 if moment.breakers.probing else moment.policy.concurrency_per_build]))
    return Probe(moment.probe) if moment.probe else None


def _at_testnod(moment: PlanContext) -> set[int]:
    return {
        delivery.report_id
        for delivery in moment.build.deliveries.values()
        if delivery.target is DeliveryTarget.TESTNOD and delivery.state is DeliveryState.DELIVERED
    }


def _death(moment: PlanContext, delivery: Delivery) -> str | None:
    return given_up(moment, delivery, ARCHIVE) if moment.policy.has_archive else NO_ARCHIVE


# What the archive's answer to a copy changes: delivered, again later, or dead.


def after_archive(
    delivery: Delivery, outcome: PutOutcome, now: int, policy: Policy, total_outage_us: int
) -> tuple[Change, ...]:
    """Return what the archive's answer changes; whatever it refuses may be mended, so only damage is final."""
    match outcome:
        case Stored():
            return (set_delivery(delivery, state=DeliveryState.DELIVERED, delivered_at=now, last_error=None),)
        case CorruptBody(message=message):
            return (set_delivery(delivery, state=DeliveryState.DEAD, last_error=message),)
        case SpoolUnreadable():
            return (unread(delivery, outcome, now, policy),)
        case PutRejected() | UrlRejected() | NotSent() | OutcomeUnknown():
            attempts = delivery.attempts + 1
            at = again_at(now, policy, attempts, f"archive/{delivery.id}", outcome)
            tried = {"attempts": attempts, "due_at": at, **start_give_up_clock(delivery, now, total_outage_us)}
            return (set_delivery(delivery, last_error=put_message(outcome), **tried),)


def deferred(delivery: Delivery, until: int) -> tuple[Change, ...]:
    """Return what changes when there is no place for the copy before `until`."""
    return (set_delivery(delivery, due_at=until),)
