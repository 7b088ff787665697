"""What the answers of CodeArts change: what a build is, and that it has ended.

It follows the rows `CodeArts` of design.md, What each answer means.
"""

from collections.abc import Iterator
from typing import Any

from bridge.domain.build import INFERRED_END_REASONS, Build, BuildState, EndReason
from bridge.domain.changes import Change, set_build
from bridge.domain.circuit_breaker import CODEARTS
from bridge.domain.code_check.when import check_step, rules_for
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.outcomes import (
    BuildInfo,
    CredentialsRejected,
    NoSuchBuild,
    NotSent,
    OutcomeUnknown,
    PollOutcome,
    RecordFetched,
    RecordOutcome,
    Rejected,
    Throttled,
)
from bridge.domain.policy import Policy
from bridge.domain.retry import again_at
from bridge.domain.routing import metadata_mismatch
from bridge.domain.steps import Apply, Execute, FetchRecord, Poll, UpstreamCall

# When to look at a build again at CodeArts.
#
# It knows no clock and no rate: the common rate is the ledger's, this is only what one build would like.


LOOK_AGAIN_US = 1_000_000
"""Between two looks at one build, however many ask for them: a hook that is told everything says much of one end."""

GROWTH = 1.5  # builds that run long are looked at more seldom; most end within minutes


def interval_us(polls: int, *, min_us: int, max_us: int) -> int:
    """Return the wait after the `polls`-th look that found the build still running, in microseconds."""
    return min(max_us, int(min_us * GROWTH ** min(max(polls - 1, 0), 60)))


def look_due_at(poll_requested_at: int | None, polled_at: int | None) -> int | None:
    """Return when a build that was asked to be looked at, at `poll_requested_at`, is due for it; None where that was done."""
    if poll_requested_at is None or (polled_at is not None and polled_at >= poll_requested_at):
        return None
    return max(poll_requested_at, (polled_at or 0) + LOOK_AGAIN_US)


def end_build(build: Build, by: EndReason, now: int, total_outage_us: int, **also: Any) -> tuple[Change, ...]:
    """Say that the build has ended; a guess remembers which reports it has seen."""
    seen = build.last_report_at if by in INFERRED_END_REASONS else None
    values = {"state": BuildState.ENDED, "ended_at": now, "end_reason": by, "ended_report_at": seen}
    return (set_build(**values, finalize_hold_since=now, outage_us_at_hold=total_outage_us, **also),)


def after_poll(
    build: Build, outcome: PollOutcome, now: int, policy: Policy, total_outage_us: int, *, requested_at: int
) -> tuple[Change, ...]:
    """Return what the answer of build-info to a question of `requested_at` changes.

    Whoever asks to look while the answer is under way has something newer to tell: it counts as asked, not as answered.
    """
    polls = build.polls + 1
    next_at = now + interval_us(polls, min_us=policy.poll_min_interval, max_us=policy.poll_max_interval)
    looked: dict[str, Any] = {"polled_at": requested_at, "polls": polls, "poll_due_at": next_at, "poll_reserved": False}
    if build.state is not BuildState.OPEN:
        return (set_build(**looked),)
    match outcome:
        case BuildInfo(building=True):
            return (set_build(**looked, not_found_since=None, last_error=None),)
        case BuildInfo(result=result):
            return end_build(
                build, EndReason.BUILD_INFO, now, total_outage_us, **looked, build_result=result, not_found_since=None
            )
        case NoSuchBuild(message=message):
            since = _unknown_since(build, now, policy.poll_max_interval)
            if now - since >= policy.not_found_timeout:
                return end_build(
                    build,
                    EndReason.NOT_FOUND,
                    now,
                    total_outage_us,
                    **looked,
                    not_found_since=since,
                    last_error=message,
                )
            return (set_build(**looked, not_found_since=since, last_error=message),)
        case Throttled(message=message):
            not_found_since = _unknown_since(build, now, 0) if build.not_found_since is not None else None
            return (set_build(**looked, not_found_since=not_found_since, last_error=message),)
        case CredentialsRejected() | Rejected() | NotSent() | OutcomeUnknown():
            # Only definite answers in a row count towards `not_found_timeout`.
            return (set_build(**looked, not_found_since=None, last_error=outcome.message),)


def _unknown_since(build: Build, now: int, counts_us: int) -> int:
    """Return since when CodeArts has said that it knows no such build, as if it had said so all along.

    Of the time since the last look no more than `counts_us` counts: while its gate is closed nobody asks.
    """
    if build.not_found_since is None:
        return now
    unasked = max(0, now - (build.polled_at or now) - counts_us)
    return min(now, build.not_found_since + unasked)


def poll_deferred(slot_at: int) -> tuple[Change, ...]:
    """Return what changes when the common rate has no place before `slot_at`."""
    return (set_build(poll_due_at=slot_at, poll_reserved=True),)


def describe_deferred(slot_at: int) -> tuple[Change, ...]:
    """Return what changes when the common rate has no place for record-info before `slot_at`."""
    return (set_build(describe_due_at=slot_at, describe_reserved=True),)


def after_describe(build: Build, outcome: RecordOutcome, now: int, policy: Policy) -> tuple[Change, ...]:
    """Return what the answer of record-info changes."""
    match outcome:
        case RecordFetched(record=record):
            mismatch = metadata_mismatch(build.upload_metadata, record)
            known = {"record": record, "described_at": now, "metadata_mismatch": mismatch, "last_error": None}
            return (set_build(**known, describe_reserved=False),)
        case NoSuchBuild() | CredentialsRejected() | Throttled() | Rejected() | NotSent() | OutcomeUnknown():
            attempts = build.describe_attempts + 1
            due_at = again_at(now, policy, attempts, f"describe/{build.id}", outcome)
            tried = {"describe_attempts": attempts, "describe_due_at": due_at, "describe_reserved": False}
            return (set_build(**tried, last_error=outcome.message),)


# What is asked of CodeArts about a build: its record, whether it has ended, and Check's report.
#
# It knows no upload.


def questions(moment: PlanContext) -> Iterator[UpstreamCall]:
    """Yield the questions that are due now."""
    yield from _describe(moment)
    yield from _poll(moment)


def _describe(moment: PlanContext) -> Iterator[UpstreamCall]:
    build = moment.build
    if not moment.owed or moment.described:
        return
    if moment.due(build.describe_due_at) and moment.open(CODEARTS, probed_by_visits=True):
        yield FetchRecord(reserved=build.describe_reserved)


def _poll(moment: PlanContext) -> Iterator[UpstreamCall]:
    build = moment.build
    if build.state is not BuildState.OPEN or not moment.policy.has_codearts:
        return
    # A reserved place under the common rate is waited for.
    asked_to_look = not build.poll_reserved and moment.due(look_due_at(build.poll_requested_at, build.polled_at))
    due_at = build.poll_due_at or build.accepted_at + moment.policy.poll_initial_delay
    if (asked_to_look or moment.due(due_at)) and moment.open(CODEARTS, probed_by_visits=True):
        yield Poll(reserved=build.poll_reserved)


def awaits_check(moment: PlanContext) -> bool:
    """Whether the run still waits for CodeArts Check."""
    return rules_for(moment.build, moment.route, moment.policy) is not None


def check(moment: PlanContext) -> Apply | Execute | None:
    """Ask CodeArts Check last of all: however slow it is, it keeps no report waiting."""
    rules = rules_for(moment.build, moment.route, moment.policy)
    if rules is None or not moment.described:
        return None
    step = check_step(moment.build, rules, moment.now, moment.policy)
    if not isinstance(step, int):
        return step
    moment.later.append(step)
    return None
