"""Copy delivered reports to the archive: when a copy is due, and what each outcome changes.

Copies come last of all steps, so that a failing archive delays nothing else.
"""

from collections.abc import Iterable

from bridge.domain import outcomes
from bridge.domain.build import Delivery, DeliveryState, DeliveryTarget
from bridge.domain.changes import Change, set_delivery
from bridge.domain.circuit_breaker import ARCHIVE
from bridge.domain.instants import Duration, Instant
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.lifecycle.unreadable_body import retry_unread
from bridge.domain.policy import Policy
from bridge.domain.retry import next_attempt_at, start_give_up_clock
from bridge.domain.steps import Apply, CopyToArchive, Execute, Probe, Step


def next_archive_step(context: PlanContext) -> Step | None:
    """Return the copies of delivered reports that are due, or that are given up."""
    copies = context.pending_to(DeliveryTarget.ARCHIVE)
    at_testnod = frozenset[int]().union(*context.build.deliveries.by_page(_reports_at_testnod) if copies else ())
    ready = [copy for copy in copies if copy.report_id in at_testnod]
    dead = [(copy, reason) for copy in ready if (reason := _death(context, copy))]
    if dead:
        changes = (set_delivery(copy, state=DeliveryState.DEAD, last_error=reason) for copy, reason in dead)
        return Apply("delivery_died", tuple(changes))
    if not context.policy.has_archive:
        return None
    if ready and not context.require_unsuspected_clock():  # a copy is stored, and deleted, by the day of its delivery
        return None
    due = [
        CopyToArchive(copy.id)
        for copy in ready
        if context.wait_until(copy.due_at) and context.require_circuit(ARCHIVE, may_probe=True)
    ]
    if due:
        return Execute(tuple(due[: 1 if context.breakers.probing else context.policy.concurrency_per_build]))
    return Probe(context.probe) if context.probe else None


def _reports_at_testnod(deliveries: Iterable[Delivery]) -> frozenset[int]:
    return frozenset(
        delivery.report_id
        for delivery in deliveries
        if delivery.target is DeliveryTarget.TESTNOD and delivery.state is DeliveryState.DELIVERED
    )


def _death(context: PlanContext, delivery: Delivery) -> str | None:
    if delivery.blocked_since is not None:  # another replica may have an archive, or this one again after a restart
        return context.give_up_blocked(delivery)
    return context.give_up_reason(delivery, ARCHIVE)


def after_archive(
    delivery: Delivery, outcome: outcomes.PutOutcome, now: Instant, policy: Policy, total_outage_us: Duration
) -> tuple[Change, ...]:
    """Return what the outcome of a copy changes. Only a corrupt body is final: the archive may take the copy later."""
    match outcome:
        case outcomes.Stored():
            return (set_delivery(delivery, state=DeliveryState.DELIVERED, delivered_at=now, last_error=None),)
        case outcomes.CorruptBody(message=message):
            return (set_delivery(delivery, state=DeliveryState.DEAD, last_error=message),)
        case outcomes.SpoolUnreadable():
            return (retry_unread(delivery, outcome, now, policy),)
        case outcomes.PutRejected() | outcomes.UrlRejected() | outcomes.NotSent() | outcomes.OutcomeUnknown():
            attempts = delivery.attempts + 1
            at = next_attempt_at(now, policy, attempts, f"archive/{delivery.id}", outcome)
            retry = {"attempts": attempts, "due_at": at, **start_give_up_clock(delivery, now, total_outage_us)}
            return (set_delivery(delivery, last_error=outcomes.put_message(outcome), **retry),)


def defer_copy(delivery: Delivery, until: Instant) -> tuple[Change, ...]:
    """Return the changes that defer a copy to `until`, when a call may be free."""
    return (set_delivery(delivery, due_at=until),)
