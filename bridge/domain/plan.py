"""`plan` returns the next step of a build: read it from top to bottom.

It is a pure function of the build, the time, the settings and the circuit breakers. What the outcome of a step changes
is beside the rule that makes the step due, in `lifecycle/`.
"""

from bridge.domain.build import Build
from bridge.domain.circuit_breaker import CLOCK, RESTORE_PAUSE, CircuitBreakers
from bridge.domain.code_check.when import next_check_step, rules_for
from bridge.domain.instants import Instant, after
from bridge.domain.lifecycle.archive import next_archive_step
from bridge.domain.lifecycle.build_end import due_polls
from bridge.domain.lifecycle.build_result import add_result_suite, record_mismatch
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.lifecycle.finalize import next_finalize_step
from bridge.domain.lifecycle.mirror import add_mirror_deliveries, due_mirror_calls, give_up_mirror_deliveries
from bridge.domain.lifecycle.replacement import defer_replacement
from bridge.domain.lifecycle.time_transitions import (
    choose_route_again,
    end_build_without_call,
    expire_urls,
    follow_settings,
    give_up_deliveries,
    mark_interrupted_registers_lost,
    mark_stuck,
    reopen_after_late_report,
    revert_inferred_end,
)
from bridge.domain.lifecycle.upload import due_uploads
from bridge.domain.policy import Policy, policy_of_submitted
from bridge.domain.steps import Apply, Execute, Probe, Step, Wait

TRANSITIONS = (
    mark_interrupted_registers_lost,
    reopen_after_late_report,
    revert_inferred_end,
    end_build_without_call,
    expire_urls,
    choose_route_again,
    follow_settings,
    give_up_deliveries,
    mark_stuck,
    defer_replacement,
    add_mirror_deliveries,
    give_up_mirror_deliveries,
    record_mismatch,
)
"""What may become true without a call, in the order in which it is checked."""


def plan(build: Build, now: Instant, policy: Policy, breakers: CircuitBreakers) -> Step:
    """Return the one next step of `build`."""
    if paused := breakers.paused_reason:
        until = after(now, policy.retry_max_delay)
        return Wait(until=until, waiting_on=RESTORE_PAUSE, blocked_reason=paused, is_pause=True)
    if build.submitted is not None:
        policy = policy_of_submitted(policy)
    context = PlanContext(build, now, policy, breakers)
    if pause := _route_pause(context):
        return pause
    return (
        _transition(context)
        or _calls(context)
        or _code_check(context)
        or add_result_suite(context)
        or next_finalize_step(context)
        or next_archive_step(context)
        or _wait(context)
    )


def _route_pause(context: PlanContext) -> Wait | None:
    """Return the wait of a build whose route is paused, by an operator or in the settings."""
    if context.route is None:
        return None
    until = after(context.now, context.policy.retry_max_delay)
    if pause := context.breakers.pause_of(context.route):
        return Wait(until=until, waiting_on=pause.name, blocked_reason=pause.reason, is_pause=True)
    if any(route.paused for route in context.policy.routes if route.name == context.route):
        reason = f'Route "{context.route}" has paused = true in the settings. Remove that. Delivery then resumes.'
        return Wait(until=until, blocked_reason=reason, is_pause=True)
    return None


def _transition(context: PlanContext) -> Apply | None:
    return next(filter(None, (transition(context) for transition in TRANSITIONS)), None)


def _calls(context: PlanContext) -> Execute | Probe | None:
    """Return all calls that are due now, to be made side by side; only one if it is the probe of a breaker."""
    calls = [*due_polls(context), *due_uploads(context)]
    if context.breakers.probing:
        calls = calls[:1]
    calls += due_mirror_calls(context)
    if calls:
        return Execute(tuple(calls))
    return Probe(context.probe) if context.probe else None


def _code_check(context: PlanContext) -> Apply | Execute | None:
    """Fetch the report of CodeArts Check after all uploads: however slow it is, it delays no report."""
    rules = rules_for(context.build, context.route, context.policy)
    if rules is None or not context.require_record():
        return None
    step = next_check_step(context.build, rules, context.now, context.policy)
    if not isinstance(step, Wait):
        return step
    context.wait_until(step.until)
    return None


def _wait(context: PlanContext) -> Wait:
    """Return until when, and on what, the rules above have found the build to wait."""
    waiting_on = context.waiting_on or (CLOCK if context.waits_for_clock else None)
    return Wait(
        until=min(context.wake_times, default=None),
        waiting_on=waiting_on,
        blocked_reason=context.blocked_reason,
        left_to_others=context.left_to_others,
    )
