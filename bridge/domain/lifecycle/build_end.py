"""Poll CodeArts for the record and the end of a build: when a call is due, and what the answer to a poll changes."""

from collections.abc import Iterator
from typing import Any

from bridge.domain import outcomes
from bridge.domain.build import INFERRED_END_REASONS, Build, BuildState, EndReason
from bridge.domain.changes import Change, set_build
from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.instants import EPOCH, MINUTE, SECOND, ZERO, Duration, Instant, after, between
from bridge.domain.lifecycle.build_result import polls_for_result, result_is_missing
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.policy import Policy
from bridge.domain.routing import possible_routes
from bridge.domain.steps import FetchRecord, Poll, UpstreamCall

MIN_POLL_GAP = SECOND
"""Between two polls of one build, however often they are requested: a webhook may send several notices of one end."""

LEFT_TO_POLLER = Duration(30 * MINUTE)

GROWTH = 1.5  # of the interval with each poll: most builds end within minutes, long ones need few polls


def due_polls(context: PlanContext) -> Iterator[UpstreamCall]:
    """Yield the calls to CodeArts that are due now."""
    build = context.build
    waits = bool(context.pending) and build.described_at is None and not context.require_record()
    if waits and _is_due(context, build.describe_due_at):
        yield FetchRecord()
    polls = context.policy.has_codearts and (build.state is BuildState.OPEN or polls_for_result(context))
    if polls and _poll_is_due(context):
        yield Poll(reserved=build.poll_reserved)


def _poll_is_due(context: PlanContext) -> bool:
    build = context.build
    # A reserved slot of the shared rate limit is waited for, also if a poll was requested.
    requested = not build.poll_reserved and context.wait_until(
        requested_poll_due_at(build.poll_requested_at, build.polled_at)
    )
    due_at = build.poll_due_at or after(build.accepted_at, context.policy.poll_initial_delay)
    if build.ended_at is not None:  # by an upload: the build goes on until its upload step has returned
        due_at = max(due_at, after(build.ended_at, context.policy.grace_period))
    return _is_due(context, context.now if requested else due_at)


def _is_due(context: PlanContext, at: Instant) -> bool:
    return context.wait_until(at) and context.require_circuit(CODEARTS, may_probe=True)


def requested_poll_due_at(poll_requested_at: Instant | None, polled_at: Instant | None) -> Instant | None:
    """Return when a poll that was requested is due; None if none was, or if it has been made."""
    if poll_requested_at is None or (polled_at is not None and polled_at >= poll_requested_at):
        return None
    return max(poll_requested_at, after(polled_at or EPOCH, MIN_POLL_GAP))


def poll_interval(polls: int, *, min_us: Duration, max_us: Duration) -> Duration:
    """Return the wait after the `polls`-th poll that found the build still running."""
    return min(max_us, Duration(int(min_us * GROWTH ** min(max(polls - 1, 0), 60))))


def end_build(
    build: Build, reason: EndReason, now: Instant, total_outage_us: Duration, **values: Any
) -> tuple[Change, ...]:
    """Return the changes that end the build, with further `values`; an inferred end stores which reports it saw."""
    seen = build.last_report_at if reason in INFERRED_END_REASONS else None
    end = {"state": BuildState.ENDED, "ended_at": now, "end_reason": reason, "ended_report_at": seen}
    return (set_build(**end, finalize_hold_since=now, outage_us_at_hold=total_outage_us, **values),)


def is_declared_complete(build: Build, policy: Policy) -> bool:
    """Return whether an upload declared the build complete, and its caller may use the route of the build.

    While the route is not known, its caller must be able to use every route that the build may get.
    """
    if build.complete_at is None or build.complete_routes is None:
        return build.complete_at is not None
    possible = possible_routes(policy.routes, build)
    return bool(possible) and set(possible) <= set(build.complete_routes)


def after_poll(
    build: Build,
    outcome: outcomes.PollOutcome,
    now: Instant,
    policy: Policy,
    total_outage_us: Duration,
    *,
    requested_at: Instant,
) -> tuple[Change, ...]:
    """Return what the outcome of a poll that was sent at `requested_at` changes.

    A poll that is requested while this one is in progress is still due: the build may have ended since.
    """
    polls = build.polls + 1
    interval = poll_interval(polls, min_us=policy.poll_min_interval, max_us=policy.poll_max_interval)
    polled: dict[str, Any] = {
        "polled_at": requested_at,
        "polls": polls,
        "poll_due_at": after(now, interval),
        "poll_reserved": False,
    }
    if build.state is not BuildState.OPEN:
        return (set_build(**polled, **_late_result(build, outcome, now, policy)),)
    match outcome:
        case outcomes.BuildInfo(building=True):
            return (set_build(**polled, running_at=requested_at, not_found_since=None, last_error=None),)
        case outcomes.BuildInfo(result=result):
            polled |= {"build_result": result, "not_found_since": None}
            return end_build(build, EndReason.BUILD_INFO, now, total_outage_us, **polled)
        case outcomes.NoSuchBuild(message=message):
            since = _not_found_since(build, now, policy.poll_max_interval)
            polled |= {"not_found_since": since, "last_error": message}
            if between(since, now) >= policy.not_found_timeout:
                return end_build(build, EndReason.NOT_FOUND, now, total_outage_us, **polled)
            return (set_build(**polled),)
        case outcomes.Throttled(message=message):
            not_found = build.not_found_since is not None
            not_found_since = _not_found_since(build, now, ZERO) if not_found else None
            return (set_build(**polled, not_found_since=not_found_since, last_error=message),)
        case outcomes.CredentialsRejected() | outcomes.Rejected() | outcomes.NotSent() | outcomes.OutcomeUnknown():
            # Only definite answers in a row count towards polling.not_found_timeout.
            return (set_build(**polled, not_found_since=None, last_error=outcome.message),)


def _late_result(build: Build, outcome: outcomes.PollOutcome, now: Instant, policy: Policy) -> dict[str, Any]:
    """Return what a poll shows of a build that has ended: its result, empty if CodeArts has none and will have none."""
    if not result_is_missing(build):
        return {}
    match outcome:
        case outcomes.BuildInfo(building=False, result=result):
            return {"build_result": result or "", "not_found_since": None}
        case outcomes.NoSuchBuild():
            since = _not_found_since(build, now, policy.poll_max_interval)
            over = between(since, now) >= policy.not_found_timeout
            return {"not_found_since": since} | ({"build_result": ""} if over else {})
    return {"not_found_since": None}


def _not_found_since(build: Build, now: Instant, counts_us: Duration) -> Instant:
    """Return since when CodeArts has answered that there is no such build, without the time in which it was not asked.

    Of the time since the last poll at most `counts_us` counts: while the breaker of CodeArts is open, no poll is made.
    """
    if build.not_found_since is None:
        return now
    gap = Duration(max(0, between(build.polled_at or now, now) - counts_us))
    return min(now, after(build.not_found_since, gap))


def defer_poll(turn_at: Instant) -> tuple[Change, ...]:
    """Return the changes that defer a poll to its turn in the queue of all calls."""
    return (set_build(poll_due_at=turn_at, poll_reserved=True),)


def can_wait(build: Build) -> bool:
    """Return whether `worker/status_poller.py` may choose when the build is polled: it runs, and no notice came."""
    requested = requested_poll_due_at(build.poll_requested_at, build.polled_at) is not None
    return build.state is BuildState.OPEN and not requested


def leave_to_poller(now: Instant) -> tuple[Change, ...]:
    """Return the changes that leave the poll to `worker/status_poller.py`, which chooses the build whose turn it is.

    It answers by granting a poll, or with what a list shows. Without that, the build is left to it again.
    """
    return (set_build(poll_due_at=after(now, LEFT_TO_POLLER), poll_reserved=False),)


def defer_record(turn_at: Instant) -> tuple[Change, ...]:
    """Return the changes that defer a question about the record to its turn in the queue of all calls."""
    return (set_build(describe_due_at=turn_at),)
