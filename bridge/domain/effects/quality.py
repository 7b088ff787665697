"""What the answers of CodeArts Check change: one suite for each build, or that none came while the run waited.

It follows docs/decisions/0020-quality.md.
"""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

from bridge.domain.build import Build, Delivery, DeliveryState, Report, Target
from bridge.domain.changes import AddReport, Change, RaiseBatch, set_build
from bridge.domain.effects.timing import again_at
from bridge.domain.outcomes import (
    Checked,
    CheckOutcome,
    NotSent,
    Refreshing,
    Rejected,
    SlowDown,
    Unauthorized,
    Unknown,
)
from bridge.domain.policy import Policy
from bridge.domain.quality import Quality, QualityRules, QualityState, summary_of
from bridge.domain.quality_suite import FILE_NAME, SUITE, Suite, answered, missing
from bridge.domain.words import said

MAKER = "bridge"
"""Who is shown as the caller of a report that nobody uploaded."""


def begun(rules: QualityRules, now: int) -> tuple[Change, ...]:
    """Let the run wait for CodeArts Check from now on."""
    return (set_build(quality=Quality(state=QualityState.WAITING, until=now + rules.wait_us, due_at=now)),)


def deferred(quality: Quality, at: int, *, reserved: bool) -> tuple[Change, ...]:
    """Ask at `at` and not before: then there is a place, `reserved` under the common rate or to be looked for."""
    return (set_build(quality=replace(quality, due_at=at, reserved=reserved)),)


def after_check(
    build: Build, quality: Quality, rules: QualityRules, outcome: CheckOutcome, now: int, policy: Policy
) -> tuple[Change, ...]:
    """Return what an answer of CodeArts Check changes; anything but a report is asked for again."""
    if isinstance(outcome, Checked):
        return _answered(quality, rules, outcome, now, policy)
    attempts = quality.attempts + 1
    due_at = again_at(now, policy, attempts, f"check/{build.id}", outcome)
    tried = replace(quality, attempts=attempts, due_at=due_at, reserved=False, in_background=False)
    match outcome:
        case Refreshing():
            return (set_build(quality=tried),)
        case Unknown(status=None, message=message):  # too slow to be waited for, or cut off while it worked
            return (set_build(quality=replace(tried, in_background=not quality.in_background, summary=message)),)
        case Unauthorized() | SlowDown() | Rejected() | NotSent() | Unknown():
            return (set_build(quality=replace(tried, summary=outcome.message)),)


def _answered(quality: Quality, rules: QualityRules, outcome: Checked, now: int, policy: Policy) -> tuple[Change, ...]:
    at = now if outcome.heard_at is None else outcome.heard_at
    suite = answered(outcome.report, rules, asked_at=at, overheard=outcome.heard_at is not None)
    told = replace(quality, state=QualityState.ANSWERED, answered_at=at, summary=summary_of(outcome.report, rules))
    return (set_build(quality=told), *_added(suite, now, policy))


def given_up(quality: Quality, rules: QualityRules, now: int, policy: Policy) -> tuple[Change, ...]:
    """Let the run go without a report of Check, and say so where the route does not leave it out."""
    reason = said(quality.summary or "it was not asked, because nobody had a turn")
    state = QualityState.OMITTED if rules.omit_missing else QualityState.MISSING
    told = set_build(quality=replace(quality, state=state, summary=reason))
    if rules.omit_missing:
        return (told,)
    return (told, *_added(missing(rules, asked_at=now, reason=reason), now, policy))


def _added(suite: Suite, now: int, policy: Policy) -> Iterator[Change]:
    """Yield that the suite is a report of the build like any other, owed to TestNod and to the archive."""
    targets = (Target.TESTNOD, Target.ARCHIVE) if policy.archives else (Target.TESTNOD,)
    yield AddReport(
        Report(
            id=0,
            name=FILE_NAME,
            node_id=SUITE,
            size=len(suite.body),
            sent_size=len(suite.body),
            sent_sha256=sha256(suite.body).hexdigest(),
            accepted_at=now,
            caller=MAKER,
            caller_routes=None,
            has_bytes=True,
        ),
        tuple(
            Delivery(id=0, report_id=0, target=target, state=DeliveryState.OWED, owed_since=now, due_at=now)
            for target in targets
        ),
        suite.body,
        suite.counts,
    )
    yield RaiseBatch()
