"""Transitions that time, settings and new reports cause without any call. `plan` applies them before it makes calls."""

from collections.abc import Iterator
from dataclasses import replace

from bridge.domain.build import (
    BuildState,
    Delivery,
    DeliveryState,
    DeliveryTarget,
    EndReason,
    Registration,
    RegistrationState,
    is_pending,
)
from bridge.domain.changes import BumpReportSeq, Change, set_build, set_delivery, set_registration
from bridge.domain.circuit_breaker import outage_since
from bridge.domain.code_check.models import CodeCheckStatus
from bridge.domain.instants import SECOND, ZERO, Duration, Instant, after, between
from bridge.domain.lifecycle.build_end import end_build, is_declared_complete
from bridge.domain.lifecycle.context import PlanContext, given_up
from bridge.domain.policy import Policy
from bridge.domain.retry import back_off_register, failure_unreported_values
from bridge.domain.routing import choose_run_parameters
from bridge.domain.steps import Apply

INTERRUPTED = "TestNod's answer was lost when the gateway was interrupted"
URL_EXPIRED = "the presigned URL expired before the upload went through"

WRONG_ROUTE = (
    'Caller "{}" may not send to route "{}", which takes this build. Correct [[routes]], and delivery resumes '
    "automatically; or add the route to the caller, and send the report again."
)
STATED_ROUTE = (
    'Caller "{}" may not send to route "{}", which the uploads of this build lead to. '
    "Set codearts.endpoint, so that the record of CodeArts decides; or match routes by job_id; or add the "
    "route to the caller, then send the report again."
)
NO_MIRROR = 'Route "{}" does not mirror to CodeArts (any more). Set mirror = true, and the copy goes there.'
NO_ARCHIVE = "No gateway with an archive took the copy: store.archive is empty."

PUT_MARGIN = Duration(5 * SECOND)
"""No PUT is started this shortly before its URL expires: it would arrive too late."""


def mark_interrupted_registers_lost(context: PlanContext) -> Apply | None:
    """Return the loss of registrations whose register call was interrupted."""
    changes: list[Change] = []
    for registration in context.unsettled:
        if registration.state is RegistrationState.REQUESTED:
            changes.append(set_registration(registration, state=RegistrationState.LOST))
            changes.extend(_register_again(context, registration, INTERRUPTED))
    return Apply("register_interrupted", tuple(changes)) if changes else None


def reopen_after_late_report(context: PlanContext) -> Apply | None:
    """Return the state `ended` for a finalized build that has got a report since."""
    build = context.build
    if build.state not in (BuildState.FINALIZED, BuildState.NO_RUN) or build.report_seq == build.finalized_seq:
        return None
    values = {
        "state": BuildState.ENDED,
        "finalize_hold_since": context.now,
        "outage_us_at_hold": context.total_outage_us,
        "finalize_attempts": 0,
        "finalize_due_at": 0,
    }
    return Apply("build_reopened", (set_build(**values),))


def revert_inferred_end(context: PlanContext) -> Apply | None:
    """Return the state `open` for a build with an inferred end that has got a report since."""
    build = context.build
    if build.state is not BuildState.ENDED or not build.end_is_inferred:
        return None
    if build.last_report_at == build.ended_report_at:
        return None
    values = {"state": BuildState.OPEN, "ended_at": None, "end_reason": None, "not_found_since": None}
    if build.code_check is not None and build.code_check.state is CodeCheckStatus.WAITING:
        values["code_check"] = None  # starts again at the next end
    return Apply("end_reverted", (set_build(**values, polls=0, poll_due_at=0, poll_reserved=False),))


def end_build_without_call(context: PlanContext) -> Apply | None:
    """Return the end of a build that was listed as finished, or declared complete, or got no report for long enough.

    No build is ended because of its age before the clock is trusted. An idle one is ended unless the clock is suspect:
    a later report reverts that.
    """
    build, policy = context.build, context.policy
    if build.state is not BuildState.OPEN:
        return None
    if build.listed_at is not None:
        return _end(context, EndReason.BUILD_INFO, build_result=build.listed_result)
    if is_declared_complete(build, policy):
        return _end(context, EndReason.CALLER)
    idle = not policy.has_codearts and context.wait_until(after(build.last_report_at, policy.idle_timeout))
    if idle and context.require_unsuspected_clock():
        return _end(context, EndReason.IDLE)
    if context.wait_until(after(build.last_report_at, policy.max_age)) and context.require_trusted_clock():
        return _end(context, EndReason.MAX_AGE)
    return None


def _end(context: PlanContext, reason: EndReason, **values: str | None) -> Apply:
    return Apply("build_ended", end_build(context.build, reason, context.now, context.total_outage_us, **values))


def expire_urls(context: PlanContext) -> Apply | None:
    """Return the failure of registrations whose URL expired. The later upload_failed shows whether a PUT arrived."""
    changes: list[Change] = []
    for registration in context.unsettled:
        last_start = Instant((registration.expires_at or 0) - PUT_MARGIN)
        if registration.state is RegistrationState.REGISTERED and context.wait_until(last_start):
            changes.append(_fail(context, registration, URL_EXPIRED))
            changes.extend(_register_again(context, registration, registration.failure or URL_EXPIRED))
    return Apply("url_expired", tuple(changes)) if changes else None


def choose_route_again(context: PlanContext) -> Apply | None:
    """Return the removal of run parameters that TestNod has recorded nothing with, if the settings now lead to others.

    A removed route keeps its builds: they wait until it is back.
    """
    build, parameters, choice = context.build, context.build.run_parameters, context.choice
    if parameters is None or build.registrations or build.runs or not context.pending or context.route is None:
        return None
    if parameters.generation > 1 or not parameters.replaceable or choice.route is None or choice.is_contested:
        return None
    chosen = choose_run_parameters(choice.route, build, parameters.chosen_at)
    if replace(chosen, branch=parameters.branch, commit=parameters.commit) == parameters:
        return None
    # The clocks of failures count the outages of the route.
    clocks = {"first_failure_at": None, "outage_us_at_first_failure": ZERO, "rejected_since": None}
    deliveries = (set_delivery(delivery, **clocks, send_alone=False) for delivery in context.pending)
    return Apply("run_parameters_dropped", (set_build(run_parameters=None), *deliveries))


def follow_settings(context: PlanContext) -> Apply | None:
    """Return which deliveries the settings block since now, or no longer.

    The settings may be wrong for a while, or at this gateway only. So these deliveries wait, their other clocks stand
    still, and they are given up only if they have been blocked for `delivery.give_up_after` without a break.
    """
    blocked: list[Change] = []
    unblocked: list[Change] = []
    resumes = False
    decided = context.route is None or not context.pending or context.require_record()
    for delivery in context.all_pending:
        if delivery.target is DeliveryTarget.TESTNOD and not decided:
            continue
        reason = _obstacle(context, delivery)
        if reason is not None and delivery.blocked_since is None:
            blocked.append(set_delivery(delivery, blocked_since=context.now, last_error=reason))
        elif reason is None and delivery.blocked_since is not None:
            unblocked.append(_unblock(context, delivery, delivery.blocked_since))
            resumes = resumes or delivery.target is DeliveryTarget.TESTNOD
        elif reason is not None:
            context.wake_times.append(after(context.now, context.policy.retry_max_delay))
            if delivery.target is DeliveryTarget.TESTNOD:
                context.block_report(reason)
    if resumes and context.build.state in (BuildState.FINALIZED, BuildState.NO_RUN):
        unblocked.append(BumpReportSeq())
    if blocked or unblocked:
        return Apply("delivery_blocked" if blocked else "delivery_unblocked", (*blocked, *unblocked))
    return None


def _obstacle(context: PlanContext, delivery: Delivery) -> str | None:
    """Return why the settings of this gateway keep a delivery from its target; None if they do not."""
    if delivery.target is DeliveryTarget.ARCHIVE:
        return None if context.policy.has_archive else NO_ARCHIVE
    if context.route is None:  # the build is blocked, and has no route to compare with
        return None
    if delivery.target is DeliveryTarget.CODEARTS:
        return None if context.mirrors else NO_MIRROR.format(context.route)
    report = context.foreign_reports.get(delivery.report_id)
    if report is None:
        return None
    template = WRONG_ROUTE if context.choice.is_certain else STATED_ROUTE
    return template.format(report.caller, context.route)


def _unblock(context: PlanContext, delivery: Delivery, since: Instant) -> Change:
    values: dict[str, object] = {"blocked_since": None, "last_error": None}
    if delivery.first_failure_at is not None:
        values["first_failure_at"] = after(delivery.first_failure_at, between(since, context.now))
    return set_delivery(delivery, **values)


def give_up_deliveries(context: PlanContext) -> Apply | None:
    """Return the death of deliveries that failed, or were blocked by the settings, for too long."""
    changes: list[Change] = []
    for delivery in context.build.deliveries.where(_may_die):
        if delivery.target is DeliveryTarget.TESTNOD and (reason := _death(context, delivery)):
            dead = {"state": DeliveryState.DEAD, "last_error": reason, "due_at": context.now}
            changes.append(set_delivery(delivery, **dead))
            changes.extend(
                _fail(context, registration, reason)
                for registration in context.registrations[delivery.id]
                if registration.state is RegistrationState.REGISTERED
            )
    return Apply("delivery_died", tuple(changes)) if changes else None


def _may_die(delivery: Delivery) -> bool:
    """Return whether a delivery is pending and has failed, or is blocked: few are, even in a large build."""
    return is_pending(delivery) and not (delivery.blocked_since is None and delivery.first_failure_at is None)


def _death(context: PlanContext, delivery: Delivery) -> str | None:
    """Return why a report will not go to TestNod; None while it may."""
    if context.route is None or not context.require_record():
        return None
    if delivery.blocked_since is not None:
        return context.give_up_blocked(delivery)
    if delivery.first_failure_at is None or delivery.unread_since is not None:  # the bridge's own spool is at fault
        return None
    outage_us = outage_since(context.total_outage_us, delivery.outage_us_at_first_failure)
    over_at = after(delivery.first_failure_at, context.policy.give_up_after, outage_us)
    if context.wait_until_outside_outages(over_at, context.route) and context.require_trusted_clock():
        return given_up(delivery)
    return None


def mark_stuck(context: PlanContext) -> Apply | None:
    """Return `stuck_reason` for a build whose finalize has failed for too long, also while its breaker blocks calls."""
    build = context.build
    if build.stuck_reason or build.finalize_failing_since is None:
        return None
    if not context.wait_until(after(build.finalize_failing_since, context.policy.confirm_timeout)):
        return None
    return Apply("build_stuck", (set_build(stuck_reason=_failing("finalize", build.last_error)),))


def show_failing_call(since: Instant, now: Instant, policy: Policy, call: str, message: str) -> Change:
    """Return the error of a call that has failed `since`; after `polling.confirm_timeout` it makes the build stuck."""
    if between(since, now) >= policy.confirm_timeout:
        return set_build(last_error=message, stuck_reason=_failing(call, message))
    return set_build(last_error=message)


def _failing(call: str, message: str | None) -> str:
    return f"TestNod has been failing {call}: {message}"


def _register_again(context: PlanContext, registration: Registration, reason: str) -> Iterator[Change]:
    delivery = context.build.deliveries[registration.delivery_id]
    if delivery.state is DeliveryState.PENDING:
        again = back_off_register(delivery, context.now, context.policy, context.health)
        yield set_delivery(delivery, last_error=delivery.unread or reason, **again)


def _fail(context: PlanContext, registration: Registration, reason: str) -> Change:
    values = failure_unreported_values(
        registration, context.now, context.policy, fencing_token=context.build.fencing_token
    )
    return set_registration(registration, **values, failure=registration.failure or reason)
