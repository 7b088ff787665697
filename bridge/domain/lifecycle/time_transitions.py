"""What has become true without any call: it is written down before anything is asked.

It knows what follows from time and settings; what follows from answers stands in effects/.
"""

from collections.abc import Iterator

from bridge.domain.build import BuildState, Delivery, DeliveryState, EndReason, Registration, RegistrationState
from bridge.domain.changes import Change, set_build, set_delivery, set_registration
from bridge.domain.code_check.models import CodeCheckStatus
from bridge.domain.lifecycle.build_end import end_build
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.retry import register_again, upload_failed_owed
from bridge.domain.steps import Apply

GIVEN_UP = "Given up after trying for as long as is allowed."
URL_EXPIRED = "the presigned URL expired before the upload went through"
PUT_MARGIN = 5_000_000
"""A PUT is not begun in the last 5 seconds of its URL: it would arrive too late."""


def mark_interrupted_registers_lost(moment: PlanContext) -> Apply | None:
    """Nobody is asking any more, or their answer will find the registration lost."""
    changes: list[Change] = []
    for life in moment.build.registrations.values():
        if life.state is RegistrationState.REQUESTED:
            changes.append(set_registration(life, state=RegistrationState.LOST))
            changes.extend(_register_again(moment, life, "TestNod's answer was lost when the gateway was interrupted"))
    return Apply("register interrupted", tuple(changes)) if changes else None


def reopen_after_late_report(moment: PlanContext) -> Apply | None:
    """Something came after the last finalize."""
    build = moment.build
    if build.state not in (BuildState.FINALIZED, BuildState.NO_RUN) or build.report_seq == build.finalized_seq:
        return None
    values = {
        "state": BuildState.ENDED,
        "finalize_hold_since": moment.now,
        "outage_us_at_hold": moment.total_outage_us,
        "finalize_attempts": 0,
        "finalize_due_at": 0,
    }
    return Apply("another batch", (set_build(**values),))


def revert_inferred_end(moment: PlanContext) -> Apply | None:
    """An end that was only guessed holds for the reports it has seen."""
    build = moment.build
    if build.state is not BuildState.ENDED or not build.end_is_inferred:
        return None
    if build.last_report_at == build.ended_report_at:
        return None
    values = {"state": BuildState.OPEN, "ended_at": None, "end_reason": None, "not_found_since": None}
    if build.code_check is not None and build.code_check.state is CodeCheckStatus.WAITING:
        values["code_check"] = None  # asked at the end, whenever that is
    return Apply("end taken back", (set_build(**values, polls=0, poll_due_at=0, poll_reserved=False),))


def build_ended(moment: PlanContext) -> Apply | None:
    """End the build if no upstream has to be asked.

    No build is ended for its age before the clock is trusted. An idle one is ended unless the clock is suspect: a
    report that comes later takes that back.
    """
    build, policy = moment.build, moment.policy
    if build.state is not BuildState.OPEN:
        return None
    if build.complete_at is not None:
        return _end(moment, EndReason.CALLER)
    idle = not policy.has_codearts and moment.due(build.last_report_at + policy.idle_timeout)
    if idle and not moment.clock_suspect():
        return _end(moment, EndReason.IDLE)
    if moment.due(build.last_report_at + policy.max_age) and moment.clock_trusted():
        return _end(moment, EndReason.MAX_AGE)
    return None


def _end(moment: PlanContext, by: EndReason) -> Apply:
    return Apply("build ended", end_build(moment.build, by, moment.now, moment.total_outage_us))


def url_expired(moment: PlanContext) -> Apply | None:
    """A URL that has run out is spent: whether it was used is asked with upload_failed, later."""
    changes: list[Change] = []
    for life in moment.build.registrations.values():
        if life.state is RegistrationState.REGISTERED and moment.due((life.expires_at or 0) - PUT_MARGIN):
            changes.append(_failed(moment, life, URL_EXPIRED))
            changes.extend(_register_again(moment, life, life.failure or URL_EXPIRED))
    return Apply("presigned URL expired", tuple(changes)) if changes else None


def deliveries_died(moment: PlanContext) -> Apply | None:
    """A report failed for too long, or its caller may not send there."""
    changes: list[Change] = []
    for delivery in moment.owed:
        if reason := _death(moment, delivery):
            changes.append(set_delivery(delivery, state=DeliveryState.DEAD, last_error=reason))
            named = (life for life in moment.lives[delivery.id] if life.state is RegistrationState.REGISTERED)
            changes.extend(_failed(moment, life, reason) for life in named)
    return Apply("delivery died", tuple(changes)) if changes else None


def stuck(moment: PlanContext) -> Apply | None:
    """A finalize has failed for too long: shown also while nobody calls, because its gate is closed."""
    build = moment.build
    if build.stuck_reason or build.finalize_failing_since is None:
        return None
    if not moment.due(build.finalize_failing_since + moment.policy.confirm_timeout):
        return None
    return Apply("build is stuck", (set_build(stuck_reason=f"TestNod has been failing finalize: {build.last_error}"),))


def given_up(moment: PlanContext, delivery: Delivery, breaker: str) -> str | None:
    """Say that a delivery which needs nobody but `gate` was tried for long enough; None where it was not."""
    if delivery.first_failure_at is None or delivery.unread_since is not None:
        return None
    away = moment.breakers.outage_us_of(breaker, moment.now) - delivery.outage_us_at_first_failure
    over_at = delivery.first_failure_at + moment.policy.give_up_after + away
    over = over_at <= moment.now if moment.breakers.open_breaker(breaker) else moment.due(over_at)
    return f"{GIVEN_UP} The last error was: {delivery.last_error}" if over and moment.clock_trusted() else None


def _death(moment: PlanContext, delivery: Delivery) -> str | None:
    """Say why a report will not go to TestNod; None while it may."""
    if moment.route is None or not moment.described:
        return None
    report = moment.build.reports[delivery.report_id]
    if report.caller_routes is not None and moment.route not in report.caller_routes:
        return f'Caller "{report.caller}" may not send to route "{moment.route}". Bind it there, then send again.'
    if delivery.first_failure_at is None or delivery.unread_since is not None:  # the bridge's own spool is at fault
        return None
    away = moment.total_outage_us - delivery.outage_us_at_first_failure
    over_at = delivery.first_failure_at + moment.policy.give_up_after + away
    if moment.due_while_working(over_at, moment.route) and moment.clock_trusted():
        return f"{GIVEN_UP} The last error was: {delivery.last_error}"
    return None


def _register_again(moment: PlanContext, life: Registration, because: str) -> Iterator[Change]:
    delivery = moment.build.deliveries[life.delivery_id]
    if delivery.state is DeliveryState.PENDING:
        again = register_again(delivery, moment.now, moment.policy, moment.health)
        yield set_delivery(delivery, last_error=delivery.unread or because, **again)


def _failed(moment: PlanContext, life: Registration, reason: str) -> Change:
    values = upload_failed_owed(life, moment.now, moment.policy, fencing_token=moment.build.fencing_token)
    return set_registration(life, **values, failure=life.failure or reason)
