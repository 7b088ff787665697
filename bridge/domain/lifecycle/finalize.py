"""What the answers to finalize change, the first and those that confirm."""

from typing import Any

from bridge.domain.build import Build, BuildState, DeliveryTarget, RegistrationState
from bridge.domain.changes import BumpReportSeq, Change, set_build, set_run
from bridge.domain.lifecycle.build_end import awaits_check
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.outcomes import (
    FinalizeOutcome,
    NotSent,
    OutcomeUnknown,
    ProjectMissing,
    Rejected,
    RunEmpty,
    RunMissing,
    RunStatus,
    UnrecognizedResponse,
)
from bridge.domain.policy import Policy
from bridge.domain.retry import again_at, backoff_us
from bridge.domain.steps import Apply, Execute, Finalize, Step
from bridge.domain.text_format import counted, span

# When a call that keeps failing means that a build is stuck.
#
# It knows no outcome.


def failing(since: int, now: int, policy: Policy, call: str, message: str) -> Change:
    """Show an error; a call that has failed for longer than a run is confirmed is a build that is stuck."""
    if now - since >= policy.confirm_timeout:
        return set_build(last_error=message, stuck_reason=f"TestNod has been failing {call}: {message}")
    return set_build(last_error=message)


def finalized_now(build: Build, now: int) -> dict[str, Any]:
    """Return the values that every finalized or closed build gets; report_seq is what its visit read."""
    return {
        "finalized_seq": build.report_seq,
        "finalized_at": now,
        "finalize_attempts": 0,
        "finalize_failing_since": None,
        "last_error": None,
        "confirm_until": None,
        "confirm_attempts": 0,
    }


def after_finalize(
    build: Build, outcome: FinalizeOutcome, now: int, policy: Policy, total_outage_us: int
) -> tuple[Change, ...]:
    """Return what the answer to the finalize of a batch changes."""
    match outcome:
        case RunStatus(status=status):
            return _finalized(build, status, now, policy, total_outage_us)
        case RunMissing(message=message) | RunEmpty(message=message):
            return _closed(build, message, now)
        case ProjectMissing():
            return ()
        case Rejected() | UnrecognizedResponse() | NotSent() | OutcomeUnknown():
            since = build.finalize_failing_since or now
            attempts = build.finalize_attempts + 1
            at = again_at(now, policy, attempts, f"finalize/{build.id}", outcome)
            values = {"finalize_attempts": attempts, "finalize_due_at": at, "finalize_failing_since": since}
            return (set_build(**values), failing(since, now, policy, "finalize", outcome.message))


def _finalized(build: Build, status: str, now: int, policy: Policy, total_outage_us: int) -> tuple[Change, ...]:
    values = finalized_now(build, now)
    values |= {"state": BuildState.FINALIZED, "finalize_hold_since": now, "outage_us_at_hold": total_outage_us}
    if status == "pending":
        until = now + policy.confirm_timeout
        values |= {"confirm_until": until, "confirm_due_at": now + _confirm_delay(build, 1, policy)}
    elif _any_lost(build):
        until = now + policy.confirm_timeout
        values |= {"confirm_until": until, "confirm_due_at": until}
    values["stuck_reason"] = _left_in_another_project(build)
    return (set_build(**values), *_stragglers(build), *_newest_run(build, status=status, finalized_at=now))


def _left_in_another_project(build: Build) -> str | None:
    """Return what to do about runs that were opened with an earlier project_token; None if there are none.

    Finalize reaches the project of today's token alone, so such a run stays pending.
    """
    left = [run for run in build.runs[:-1] if run.is_pending and not run.may_be_of(build.runs[-1].project_id)]
    if not left:
        return None
    return (
        f"Its run {left[0].test_run_url or left[0].test_run_id} was opened with an earlier project_token of the route, "
        f"so it stays pending in that project. Finalize build_id {build.run_parameters.build_id if build.run_parameters else ''} there."
    )


def _closed(build: Build, message: str, now: int) -> tuple[Change, ...]:
    values = finalized_now(build, now) | {"state": BuildState.NO_RUN, "stuck_reason": None, "finalize_hold_since": now}
    if any(life.test_run_id is not None for life in build.registrations.values()):
        values["stuck_reason"] = f"TestNod answered finalize with: {message} Reports had been registered there."
    return (set_build(**values), *_stragglers(build))


def _stragglers(build: Build) -> tuple[Change, ...]:
    """What is still owed is the next batch."""
    return (BumpReportSeq(),) if build.owed(DeliveryTarget.TESTNOD) else ()


def _newest_run(build: Build, **values: Any) -> tuple[Change, ...]:
    return (set_run(build.runs[-1], **values),) if build.runs else ()


def _any_lost(build: Build) -> bool:
    return any(life.state is RegistrationState.LOST for life in build.registrations.values())


def _confirm_delay(build: Build, attempts: int, policy: Policy) -> int:
    return backoff_us(policy, attempts, f"confirm/{build.id}")


def after_confirm(build: Build, outcome: FinalizeOutcome, now: int, policy: Policy) -> tuple[Change, ...]:
    """Return what one more finalize tells of a run that was finalized before."""
    until = build.confirm_until or now
    last = now >= until
    match outcome:
        case RunStatus(status="pending"):
            return _still_pending(build, now, policy, until)
        case RunStatus(status=status):
            again = {"confirm_due_at": until} if _any_lost(build) and not last else {"confirm_until": None}
            answered = {
                "finalize_failing_since": None,
                "last_error": None,
                "stuck_reason": _left_in_another_project(build),
            }
            return (set_build(**answered, **again), *_newest_run(build, status=status))
        case RunMissing(message=message) | RunEmpty(message=message):
            return (set_build(confirm_until=None, stuck_reason=f"TestNod no longer has the run: {message}"),)
        case ProjectMissing():
            return ()
        case Rejected() | UnrecognizedResponse() | NotSent() | OutcomeUnknown():
            # No answer says nothing of the run: it is asked for until there is one.
            since = build.finalize_failing_since or now
            attempts = build.confirm_attempts + 1
            at = again_at(now, policy, attempts + 1, f"confirm/{build.id}", outcome)
            retry = set_build(confirm_attempts=attempts, confirm_due_at=at, finalize_failing_since=since)
            return (retry, failing(since, now, policy, "finalize", outcome.message))


def _still_pending(build: Build, now: int, policy: Policy, until: int) -> tuple[Change, ...]:
    answered = {"finalize_failing_since": None, "last_error": None}
    if now >= until:
        lost = sum(life.state is RegistrationState.LOST for life in build.registrations.values())
        because = f"; {counted(lost, 'lost registration')} may hold it" if lost else ""
        stuck = f"run is pending {span(policy.confirm_timeout)} after finalize{because}"
        return (set_build(confirm_until=None, stuck_reason=stuck, **answered),)
    attempts = build.confirm_attempts + 1
    due_at = min(until, now + _confirm_delay(build, attempts + 1, policy))
    return (set_build(confirm_attempts=attempts, confirm_due_at=due_at, **answered),)


# When a run is ended, and how its end is confirmed.
#
# It knows neither how reports get there nor what TestNod answers.


def finalize(moment: PlanContext) -> Step | None:
    """End the run once everything has arrived and the build has settled."""
    build = moment.build
    if build.state is BuildState.FINALIZED:
        return _confirm(moment)
    if build.state is not BuildState.ENDED or build.unsettled() or awaits_check(moment):
        return None
    if moment.owed and not moment.hold_is_over:
        return None
    settled_at = max(build.ended_at or 0, build.last_report_at) + moment.policy.grace_period
    if not moment.due(settled_at):
        return None
    if not build.registrations:
        closed = set_build(state=BuildState.NO_RUN, **finalized_now(build, moment.now))
        return Apply("nothing to finalize", (closed,))
    if moment.due(build.finalize_due_at) and moment.testnod_open():
        return Execute((Finalize(confirm=False),))
    return None


def _confirm(moment: PlanContext) -> Step | None:
    build = moment.build
    if build.confirm_until is None or moment.owed or build.unsettled():
        return None
    if moment.due(build.confirm_due_at) and moment.testnod_open():
        return Execute((Finalize(confirm=True),))
    return None
