"""What an outcome of CodeArts Check changes: it adds one generated report to the build, or the run has none.

Reasons: docs/decisions/0020-code-check.md.
"""

from dataclasses import replace

from bridge.domain.build import Build
from bridge.domain.changes import Change, set_build
from bridge.domain.code_check.models import CodeCheckRules, CodeCheckState, CodeCheckStatus, summary_of
from bridge.domain.code_check.suite import missing_suite, suite_of
from bridge.domain.generated_report import add_generated
from bridge.domain.instants import Instant, after
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
from bridge.domain.retry import next_attempt_at
from bridge.domain.text_format import clause_or_unknown


def start_waiting(rules: CodeCheckRules, now: Instant) -> tuple[Change, ...]:
    """Return the changes that let the run wait for the report of Check."""
    until = after(now, rules.wait_us)
    return (set_build(code_check=CodeCheckState(state=CodeCheckStatus.WAITING, until=until, due_at=now)),)


def defer_fetch(code_check: CodeCheckState, at: Instant, *, reserved: bool) -> tuple[Change, ...]:
    """Return the changes that defer the fetch to `at`; `reserved`: that is a slot of the shared rate limit."""
    return (set_build(code_check=replace(code_check, due_at=at, reserved=reserved)),)


def after_check(
    build: Build, code_check: CodeCheckState, rules: CodeCheckRules, outcome: CheckOutcome, now: Instant, policy: Policy
) -> tuple[Change, ...]:
    """Return what the outcome of a fetch changes; everything but a report is fetched again."""
    if isinstance(outcome, CheckReportFetched):
        return _answered(code_check, rules, outcome, now, policy)
    attempts = code_check.attempts + 1
    due_at = next_attempt_at(now, policy, attempts, f"check/{build.id}", outcome)
    retry = replace(code_check, attempts=attempts, due_at=due_at, reserved=False, in_background=False)
    match outcome:
        case CheckReportPending():
            pass
        case OutcomeUnknown(status=None, message=message):  # too slow, or interrupted while Check made the report
            retry = replace(retry, in_background=not code_check.in_background, summary=message)
        case CredentialsRejected() | Throttled() | Rejected() | NotSent() | OutcomeUnknown():
            retry = replace(retry, summary=outcome.message)
    return (set_build(code_check=retry),)


def _answered(
    code_check: CodeCheckState, rules: CodeCheckRules, outcome: CheckReportFetched, now: Instant, policy: Policy
) -> tuple[Change, ...]:
    suite = suite_of(outcome.report, rules, requested_at=now)
    summary = summary_of(outcome.report, rules)
    done = replace(code_check, state=CodeCheckStatus.ANSWERED, answered_at=now, summary=summary)
    return (set_build(code_check=done), *add_generated(suite, now, policy))


def stop_waiting(code_check: CodeCheckState, rules: CodeCheckRules, now: Instant, policy: Policy) -> tuple[Change, ...]:
    """Return the changes that let the run go without a report of Check.

    A suite states that none came, unless `on_missing = "omit"`.
    """
    reason = clause_or_unknown(code_check.summary or "it was not asked, because no call was free")
    state = CodeCheckStatus.OMITTED if rules.omit_missing else CodeCheckStatus.MISSING
    done = set_build(code_check=replace(code_check, state=state, summary=reason))
    if rules.omit_missing:
        return (done,)
    return (done, *add_generated(missing_suite(rules, requested_at=now, reason=reason), now, policy))
