"""What the answers of CodeArts Check change: one suite for each build, or that none came while the run waited.

It follows docs/decisions/0020-quality.md.
"""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

from bridge.domain.build import Build, Delivery, DeliveryState, DeliveryTarget, Report
from bridge.domain.changes import AddReport, BumpReportSeq, Change, set_build
from bridge.domain.code_check.models import CodeCheckRules, CodeCheckState, CodeCheckStatus, summary_of
from bridge.domain.code_check.suite import FILE_NAME, SUITE, Suite, answered, missing
from bridge.domain.outcomes import (
    CheckOutcome,
    CheckReportFetched,
    CheckReportPending,
    CredentialsRejected,
    NotSent,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from bridge.domain.policy import Policy
from bridge.domain.retry import again_at
from bridge.domain.text_format import clause_or_unknown

MAKER = "bridge"
"""Who is shown as the caller of a report that nobody uploaded."""


def begun(rules: CodeCheckRules, now: int) -> tuple[Change, ...]:
    """Let the run wait for CodeArts Check from now on."""
    return (set_build(code_check=CodeCheckState(state=CodeCheckStatus.WAITING, until=now + rules.wait_us, due_at=now)),)


def deferred(code_check: CodeCheckState, at: int, *, reserved: bool) -> tuple[Change, ...]:
    """Ask at `at` and not before: then there is a place, `reserved` under the common rate or to be looked for."""
    return (set_build(code_check=replace(code_check, due_at=at, reserved=reserved)),)


def after_check(
    build: Build, code_check: CodeCheckState, rules: CodeCheckRules, outcome: CheckOutcome, now: int, policy: Policy
) -> tuple[Change, ...]:
    """Return what an answer of CodeArts Check changes; anything but a report is asked for again."""
    if isinstance(outcome, CheckReportFetched):
        return _answered(code_check, rules, outcome, now, policy)
    attempts = code_check.attempts + 1
    due_at = again_at(now, policy, attempts, f"check/{build.id}", outcome)
    tried = replace(code_check, attempts=attempts, due_at=due_at, reserved=False, in_background=False)
    match outcome:
        case CheckReportPending():
            return (set_build(code_check=tried),)
        case OutcomeUnknown(status=None, message=message):  # too slow to be waited for, or cut off while it worked
            return (set_build(code_check=replace(tried, in_background=not code_check.in_background, summary=message)),)
        case CredentialsRejected() | Throttled() | Rejected() | NotSent() | OutcomeUnknown():
            return (set_build(code_check=replace(tried, summary=outcome.message)),)


def _answered(
    code_check: CodeCheckState, rules: CodeCheckRules, outcome: CheckReportFetched, now: int, policy: Policy
) -> tuple[Change, ...]:
    suite = answered(outcome.report, rules, requested_at=now)
    told = replace(
        code_check, state=CodeCheckStatus.ANSWERED, answered_at=now, summary=summary_of(outcome.report, rules)
    )
    return (set_build(code_check=told), *_added(suite, now, policy))


def given_up(code_check: CodeCheckState, rules: CodeCheckRules, now: int, policy: Policy) -> tuple[Change, ...]:
    """Let the run go without a report of Check, and say so where the route does not leave it out."""
    reason = clause_or_unknown(code_check.summary or "it was not asked, because nobody had a turn")
    state = CodeCheckStatus.OMITTED if rules.omit_missing else CodeCheckStatus.MISSING
    told = set_build(code_check=replace(code_check, state=state, summary=reason))
    if rules.omit_missing:
        return (told,)
    return (told, *_added(missing(rules, requested_at=now, reason=reason), now, policy))


def _added(suite: Suite, now: int, policy: Policy) -> Iterator[Change]:
    """Yield that the suite is a report of the build like any other, owed to TestNod and to the archive."""
    targets = (DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE) if policy.archives else (DeliveryTarget.TESTNOD,)
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
            Delivery(id=0, report_id=0, target=target, state=DeliveryState.PENDING, pending_since=now, due_at=now)
            for target in targets
        ),
        suite.body,
        suite.counts,
    )
    yield BumpReportSeq()
