"""When the report of CodeArts Check is fetched: after the end of a build, while its run waits to be finalized."""

from bridge.domain.build import Build, BuildState
from bridge.domain.code_check.models import CodeCheckRules, CodeCheckStatus
from bridge.domain.code_check.outcomes import start_waiting, stop_waiting
from bridge.domain.instants import Instant
from bridge.domain.policy import Policy
from bridge.domain.steps import Apply, Execute, FetchCheckReport, Wait


def rules_for(build: Build, route: str | None, policy: Policy) -> CodeCheckRules | None:
    """Return the `[routes.code_check]` for which the run of `build` still waits; None if it waits for no report.

    A build without uploaded reports of its route waits for none: no run is opened for the report of Check alone.
    """
    if build.state is not BuildState.ENDED or not build.has_report_for(route):
        return None
    if build.code_check is not None and build.code_check.state is not CodeCheckStatus.WAITING:
        return None
    return next((known.code_check for known in policy.routes if known.name == route), None)


def next_check_step(build: Build, rules: CodeCheckRules, now: Instant, policy: Policy) -> Apply | Execute | Wait:
    """Return the next step of a build whose run waits for the report of Check."""
    code_check = build.code_check
    if code_check is None:
        return Apply("code_check_started", start_waiting(rules, now))
    if now >= code_check.until:
        return Apply("code_check_missed", stop_waiting(code_check, rules, now, policy))
    if now >= code_check.due_at:
        return Execute((FetchCheckReport(reserved=code_check.reserved, in_background=code_check.in_background),))
    return Wait(until=min(code_check.due_at, code_check.until))
