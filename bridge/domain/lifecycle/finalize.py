"""Finalize the run of a build, and confirm that it leaves `pending`: when due, and what each outcome changes."""

from typing import Any

from bridge.domain import outcomes
from bridge.domain.build import Build, BuildState, DeliveryTarget
from bridge.domain.changes import BumpReportSeq, Change, set_build
from bridge.domain.circuit_breaker import RouteHealth
from bridge.domain.code_check.when import rules_for
from bridge.domain.instants import Duration, Instant, after
from bridge.domain.lifecycle.build_result import waits_for_result
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.lifecycle.replacement import (
    confirm_over_at,
    damage_obstacle,
    is_replaced_if_pending,
    is_unopened,
    lost_registrations,
    must_ask_again,
    must_finalize_again,
    next_ask_at,
    obstacle_to_replacement,
    replace_run,
    set_status,
    still_replaced,
    take_back,
)
from bridge.domain.lifecycle.time_transitions import show_failing_call
from bridge.domain.policy import Policy
from bridge.domain.retry import backoff_us, next_attempt_at
from bridge.domain.steps import Apply, Execute, Finalize, Step
from bridge.domain.text_format import counted, span


def next_finalize_step(context: PlanContext) -> Step | None:
    """Return the finalize of a run if all is delivered and `polling.grace_period` has passed, or its confirm."""
    build, policy = context.build, context.policy
    if must_ask_again(build, context.now):
        return _confirm(context)
    if build.state is BuildState.FINALIZED:
        return _next_confirm(context)
    if build.state is not BuildState.ENDED or build.unsettled() or rules_for(build, context.route, policy):
        return None
    if build.awaits_files:  # the PUT, or the end of its URL, makes the build due
        return None
    if context.sendable and must_finalize_again(build):
        return _finalize(context)
    if context.sendable and not context.wait_for_finalize_delay():
        return None
    if waits_for_result(context) or not context.wait_for_grace_period():
        return None
    if not build.registrations:
        if context.pending:  # all of them blocked by the settings, which may be corrected
            return None
        no_run = set_build(state=BuildState.NO_RUN, **_finalized_values(build, context.now))
        return Apply("build_without_run", (no_run,))
    return _finalize(context)


def _finalize(context: PlanContext) -> Step | None:
    if context.wait_until(context.build.finalize_due_at) and context.require_testnod():
        return Execute((Finalize(confirm=False),))
    return None


def _next_confirm(context: PlanContext) -> Step | None:
    build = context.build
    if build.confirm_until is None or context.sendable or build.unsettled():
        return None
    return _confirm(context)


def _confirm(context: PlanContext) -> Step | None:
    build = context.build
    if context.wait_until(build.confirm_due_at) and context.require_testnod():
        return Execute((Finalize(confirm=True),))
    return None


def build_id_to_finalize(build: Build, *, confirm: bool) -> str:
    """Return the build_id of the run that a finalize is for: a confirm may be for the run that is replaced."""
    parameters = build.run_parameters
    if parameters is None:
        return ""
    return parameters.build_id_of(parameters.generation - (confirm and is_unopened(build)))


# -- finalize ------------------------------------------------------------------------------------------------------


def after_finalize(
    build: Build, outcome: outcomes.FinalizeOutcome, now: Instant, policy: Policy, testnod_outage_us: Duration
) -> tuple[Change, ...]:
    """Return what the outcome of the first finalize since the last report changes."""
    match outcome:
        case outcomes.RunStatus(status=status):
            return _finalized(build, status, now, policy, testnod_outage_us)
        case outcomes.RunMissing(message=message) | outcomes.RunEmpty(message=message):
            return _without_run(build, message, now)
        case outcomes.ProjectMissing():
            return ()
        case outcomes.Rejected() | outcomes.UnrecognizedResponse() | outcomes.NotSent() | outcomes.OutcomeUnknown():
            since = build.finalize_failing_since or now
            attempts = build.finalize_attempts + 1
            at = next_attempt_at(now, policy, attempts, f"finalize/{build.id}", outcome)
            values = {"finalize_attempts": attempts, "finalize_due_at": at, "finalize_failing_since": since}
            return (set_build(**values), show_failing_call(since, now, policy, "finalize", outcome.message))


def _finalized_values(build: Build, now: Instant) -> dict[str, Any]:
    """Return the values that both `finalized` and `no_run` set; `report_seq` is as the reconciler read it."""
    return {
        "finalized_seq": build.report_seq,
        "finalized_at": now,
        "finalize_attempts": 0,
        "finalize_failing_since": None,
        "last_error": None,
        "confirm_until": None,
        "confirm_attempts": 0,
    }


def _finalized(
    build: Build, status: str, now: Instant, policy: Policy, testnod_outage_us: Duration
) -> tuple[Change, ...]:
    values = _finalized_values(build, now)
    values |= {"state": BuildState.FINALIZED, "finalize_hold_since": now, "outage_us_at_hold": testnod_outage_us}
    until = after(now, policy.confirm_timeout)
    if status == "pending":
        values |= {"confirm_until": until, "confirm_due_at": after(now, _confirm_delay(build, 1, policy))}
    elif lost_registrations(build):
        values |= {"confirm_until": until, "confirm_due_at": until}
    values["stuck_reason"] = _left_in_another_project(build)
    run = set_status(build.current_runs, status, finalized_at=now)
    return (set_build(**values), *_reopen_if_pending(build), *run)


def _without_run(build: Build, message: str, now: Instant) -> tuple[Change, ...]:
    values = _finalized_values(build, now)
    values |= {"state": BuildState.NO_RUN, "stuck_reason": None, "finalize_hold_since": now}
    if any(registration.test_run_id is not None for registration in build.registrations.values()):
        values["stuck_reason"] = f"TestNod answered finalize with: {message} Reports had been registered there."
    return (set_build(**values), *_reopen_if_pending(build))


def _reopen_if_pending(build: Build) -> tuple[Change, ...]:
    """Return the change that has deliveries that are still pending finalized again."""
    return (BumpReportSeq(),) if build.sendable(DeliveryTarget.TESTNOD) else ()


# -- confirm -------------------------------------------------------------------------------------------------------


def after_confirm(
    build: Build,
    outcome: outcomes.FinalizeOutcome,
    now: Instant,
    policy: Policy,
    health: RouteHealth,
    *,
    replaceable: bool = True,
    unreadable: str | None = None,
) -> tuple[Change, ...]:
    """Return what the outcome of a further finalize shows of a run that was finalized before.

    `replaceable` is whether `is_replaced_if_pending` was true before the call, so that the reports were read;
    `unreadable` is why the spool did not return one of them.
    """
    match outcome:
        case outcomes.RunStatus(status="pending") | outcomes.RunMissing() | outcomes.RunEmpty() if is_unopened(build):
            return still_replaced(build, now)
        case outcomes.RunStatus(status=status) if is_unopened(build):
            return take_back(build, status)
        case outcomes.RunStatus(status="pending"):
            return _still_pending(build, now, policy, health, replaceable=replaceable, unreadable=unreadable)
        case outcomes.RunStatus(status=status):
            until = build.confirm_until or now
            confirm_again = lost_registrations(build) and now < until
            values = {
                "finalize_failing_since": None,
                "last_error": None,
                "stuck_reason": _left_in_another_project(build),
                **({"confirm_due_at": until} if confirm_again else {"confirm_until": None}),
            }
            return (set_build(**values), *set_status(build.current_runs, status))
        case outcomes.RunMissing(message=message) | outcomes.RunEmpty(message=message):
            return (set_build(confirm_until=None, stuck_reason=f"TestNod no longer has the run: {message}"),)
        case outcomes.ProjectMissing():
            return ()
        case outcomes.Rejected() | outcomes.UnrecognizedResponse() | outcomes.NotSent() | outcomes.OutcomeUnknown():
            # These show nothing of the run: finalize is called until an answer does.
            since = build.finalize_failing_since or now
            attempts = build.confirm_attempts + 1
            at = next_attempt_at(now, policy, attempts + 1, f"confirm/{build.id}", outcome)
            retry = set_build(confirm_attempts=attempts, confirm_due_at=at, finalize_failing_since=since)
            return (retry, show_failing_call(since, now, policy, "finalize", outcome.message))


def _still_pending(
    build: Build, now: Instant, policy: Policy, health: RouteHealth, *, replaceable: bool, unreadable: str | None
) -> tuple[Change, ...]:
    over_at = confirm_over_at(build, health)
    lost = lost_registrations(build)
    obstacle = obstacle_to_replacement(build, policy) if lost else None
    if replaceable and is_replaced_if_pending(build, now, policy, health):
        if unreadable is None:
            return replace_run(build, now)
        obstacle = damage_obstacle(build, now, health, unreadable)
    if now < over_at or health.clock_doubted or (lost and obstacle is None):  # the latter: the spool is in doubt
        attempts = build.confirm_attempts + 1
        due_at = after(now, _confirm_delay(build, attempts + 1, policy))
        if now < over_at:
            due_at = min(due_at, next_ask_at(now, over_at, policy) if lost and obstacle is None else over_at, over_at)
        values = {"confirm_attempts": attempts, "confirm_due_at": due_at, "finalize_failing_since": None}
        return (set_build(**values, last_error=unreadable),)
    held = f"; {counted(lost, 'lost registration')} may hold it" if lost else ""
    kept = f", and it is not replaced: {obstacle}" if obstacle else ""
    stuck = f"run is pending {span(policy.confirm_timeout)} after finalize{held}{kept}"
    return (set_build(confirm_until=None, stuck_reason=stuck, finalize_failing_since=None, last_error=None),)


def _confirm_delay(build: Build, attempts: int, policy: Policy) -> Duration:
    return backoff_us(policy, attempts, f"confirm/{build.id}")


# -- runs ----------------------------------------------------------------------------------------------------------


def _left_in_another_project(build: Build) -> str | None:
    """Return what to do about runs that were opened with an earlier project_token; None if there are none.

    Finalize reaches only the project of the current token, so such a run stays pending.
    """
    runs = build.current_runs
    left = [run for run in runs[:-1] if run.is_pending and not run.may_be_of(runs[-1].project_id)]
    if not left:
        return None
    build_id = build.run_parameters.build_id if build.run_parameters else ""
    return (
        f"Its run {left[0].test_run_url or left[0].test_run_id} was opened with an earlier project_token of the route, "
        f"so it stays pending in that project. Finalize build_id {build_id} there."
    )
