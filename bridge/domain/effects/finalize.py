"""What the answers to finalize change, the first and those that confirm."""

from typing import Any

from bridge.domain.build import Build, BuildState, RegistrationState, Target
from bridge.domain.changes import Change, RaiseBatch, set_build, set_run
from bridge.domain.effects.stuck import failing
from bridge.domain.effects.timing import again_at, backoff_us
from bridge.domain.outcomes import (
    FinalizeOutcome,
    Foreign,
    NotSent,
    ProjectMissing,
    Rejected,
    RunEmpty,
    RunMissing,
    RunStatus,
    Unknown,
)
from bridge.domain.policy import Policy
from bridge.domain.words import counted, span


def finalized_now(build: Build, now: int) -> dict[str, Any]:
    """Return the values that every finalized or closed build gets; batch_seq is what its visit read."""
    return {
        "finalized_seq": build.batch_seq,
        "finalized_at": now,
        "finalize_attempts": 0,
        "finalize_failing_since": None,
        "last_error": None,
        "confirm_until": None,
        "confirm_attempts": 0,
    }


def after_finalize(
    build: Build, outcome: FinalizeOutcome, now: int, policy: Policy, away_us: int
) -> tuple[Change, ...]:
    """Return what the answer to the finalize of a batch changes."""
    match outcome:
        case RunStatus(status=status):
            return _finalized(build, status, now, policy, away_us)
        case RunMissing(message=message) | RunEmpty(message=message):
            return _closed(build, message, now)
        case ProjectMissing():
            return ()
        case Rejected() | Foreign() | NotSent() | Unknown():
            since = build.finalize_failing_since or now
            attempts = build.finalize_attempts + 1
            at = again_at(now, policy, attempts, f"finalize/{build.id}", outcome)
            values = {"finalize_attempts": attempts, "finalize_due_at": at, "finalize_failing_since": since}
            return (set_build(**values), failing(since, now, policy, "finalize", outcome.message))


def _finalized(build: Build, status: str, now: int, policy: Policy, away_us: int) -> tuple[Change, ...]:
    values = finalized_now(build, now)
    values |= {"state": BuildState.FINALIZED, "hold_since": now, "hold_away_us": away_us}
    if status == "pending":
        until = now + policy.confirm_for
        values |= {"confirm_until": until, "confirm_due_at": now + _confirm_delay(build, 1, policy)}
    elif _any_lost(build):
        until = now + policy.confirm_for
        values |= {"confirm_until": until, "confirm_due_at": until}
    values["stuck"] = _left_in_another_project(build)
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
        f"so it stays pending in that project. Finalize build_id {build.pin.build_id if build.pin else ''} there."
    )


def _closed(build: Build, message: str, now: int) -> tuple[Change, ...]:
    values = finalized_now(build, now) | {"state": BuildState.CLOSED, "stuck": None, "hold_since": now}
    if any(life.test_run_id is not None for life in build.registrations.values()):
        values["stuck"] = f"TestNod answered finalize with: {message} Reports had been registered there."
    return (set_build(**values), *_stragglers(build))


def _stragglers(build: Build) -> tuple[Change, ...]:
    """What is still owed is the next batch."""
    return (RaiseBatch(),) if build.owed(Target.TESTNOD) else ()


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
            answered = {"finalize_failing_since": None, "last_error": None, "stuck": _left_in_another_project(build)}
            return (set_build(**answered, **again), *_newest_run(build, status=status))
        case RunMissing(message=message) | RunEmpty(message=message):
            return (set_build(confirm_until=None, stuck=f"TestNod no longer has the run: {message}"),)
        case ProjectMissing():
            return ()
        case Rejected() | Foreign() | NotSent() | Unknown():
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
        stuck = f"run is pending {span(policy.confirm_for)} after finalize{because}"
        return (set_build(confirm_until=None, stuck=stuck, **answered),)
    attempts = build.confirm_attempts + 1
    due_at = min(until, now + _confirm_delay(build, attempts + 1, policy))
    return (set_build(confirm_attempts=attempts, confirm_due_at=due_at, **answered),)
