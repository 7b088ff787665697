"""What the answers of CodeArts change: what a build is, and that it has ended.

It follows the rows `CodeArts` of design.md, What each answer means.
"""

from typing import Any

from bridge.domain.build import GUESSES, Build, BuildState, EndedBy
from bridge.domain.changes import Change, set_build
from bridge.domain.effects.timing import again_at
from bridge.domain.outcomes import (
    BuildInfo,
    Described,
    DescribeOutcome,
    NoSuchBuild,
    NotSent,
    PollOutcome,
    Rejected,
    SlowDown,
    Unauthorized,
    Unknown,
)
from bridge.domain.policy import Policy
from bridge.domain.polling import interval_us
from bridge.domain.routing import identity_mismatch


def ended(build: Build, by: EndedBy, now: int, away_us: int, **also: Any) -> tuple[Change, ...]:
    """Say that the build has ended; a guess remembers which reports it has seen."""
    seen = build.last_report_at if by in GUESSES else None
    values = {"state": BuildState.ENDED, "ended_at": now, "ended_by": by, "ended_report_at": seen}
    return (set_build(**values, hold_since=now, hold_away_us=away_us, **also),)


def after_poll(
    build: Build, outcome: PollOutcome, now: int, policy: Policy, away_us: int, *, asked_at: int
) -> tuple[Change, ...]:
    """Return what the answer of build-info to a question of `asked_at` changes.

    Whoever asks to look while the answer is under way has something newer to tell: it counts as asked, not as answered.
    """
    polls = build.polls + 1
    next_at = now + interval_us(polls, min_us=policy.poll_min, max_us=policy.poll_max)
    looked: dict[str, Any] = {"polled_at": asked_at, "polls": polls, "poll_due_at": next_at, "poll_reserved": False}
    if build.state is not BuildState.OPEN:
        return (set_build(**looked),)
    match outcome:
        case BuildInfo(building=True):
            return (set_build(**looked, unknown_since=None, last_error=None),)
        case BuildInfo(result=result):
            return ended(build, EndedBy.BUILD_INFO, now, away_us, **looked, build_result=result, unknown_since=None)
        case NoSuchBuild(message=message):
            since = _unknown_since(build, now, policy.poll_max)
            if now - since >= policy.unknown_for:
                return ended(build, EndedBy.UNKNOWN, now, away_us, **looked, unknown_since=since, last_error=message)
            return (set_build(**looked, unknown_since=since, last_error=message),)
        case SlowDown(message=message):
            unknown_since = _unknown_since(build, now, 0) if build.unknown_since is not None else None
            return (set_build(**looked, unknown_since=unknown_since, last_error=message),)
        case Unauthorized() | Rejected() | NotSent() | Unknown():
            # Only definite answers in a row count towards `unknown_for`.
            return (set_build(**looked, unknown_since=None, last_error=outcome.message),)


def _unknown_since(build: Build, now: int, counts_us: int) -> int:
    """Return since when CodeArts has said that it knows no such build, as if it had said so all along.

    Of the time since the last look no more than `counts_us` counts: while its gate is closed nobody asks.
    """
    if build.unknown_since is None:
        return now
    unasked = max(0, now - (build.polled_at or now) - counts_us)
    return min(now, build.unknown_since + unasked)


def poll_deferred(slot_at: int) -> tuple[Change, ...]:
    """Return what changes when the common rate has no place before `slot_at`."""
    return (set_build(poll_due_at=slot_at, poll_reserved=True),)


def describe_deferred(slot_at: int) -> tuple[Change, ...]:
    """Return what changes when the common rate has no place for record-info before `slot_at`."""
    return (set_build(describe_due_at=slot_at, describe_reserved=True),)


def after_describe(build: Build, outcome: DescribeOutcome, now: int, policy: Policy) -> tuple[Change, ...]:
    """Return what the answer of record-info changes."""
    match outcome:
        case Described(record=record):
            mismatch = identity_mismatch(build.said, record)
            known = {"record": record, "described_at": now, "identity_mismatch": mismatch, "last_error": None}
            return (set_build(**known, describe_reserved=False),)
        case NoSuchBuild() | Unauthorized() | SlowDown() | Rejected() | NotSent() | Unknown():
            attempts = build.describe_attempts + 1
            due_at = again_at(now, policy, attempts, f"describe/{build.id}", outcome)
            tried = {"describe_attempts": attempts, "describe_due_at": due_at, "describe_reserved": False}
            return (set_build(**tried, last_error=outcome.message),)
