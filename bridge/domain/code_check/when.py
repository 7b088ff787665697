"""When CodeArts Check is asked about a build: once, after its end, while its run still waits to be finalized.

It knows neither the other steps of a build's life (plan.py) nor what answers change (effects/quality.py).
"""

from bridge.domain.build import Build, BuildState
from bridge.domain.code_check.models import CodeCheckRules, CodeCheckStatus
from bridge.domain.code_check.outcomes import begun, given_up
from bridge.domain.policy import Policy
from bridge.domain.steps import Apply, Execute, FetchCheckReport


def rules_for(build: Build, route: str | None, policy: Policy) -> CodeCheckRules | None:
    """Return by which rules the run of `build` still waits for CodeArts Check; None: it does not.

    A build without reports waits for nothing: a run that holds no test is not opened for Check's sake.
    """
    if build.state is not BuildState.ENDED or not build.reports:
        return None
    if build.code_check is not None and build.code_check.state is not CodeCheckStatus.WAITING:
        return None
    return next((known.code_check for known in policy.routes if known.name == route), None)


def check_step(build: Build, rules: CodeCheckRules, now: int, policy: Policy) -> Apply | Execute | int:
    """Return what is to be done now about a build that waits for Check, or when to look again (microseconds UTC)."""
    code_check = build.code_check
    if code_check is None:
        return Apply("asking CodeArts Check", begun(rules, now))
    if now >= code_check.until:
        return Apply("CodeArts Check gave no report", given_up(code_check, rules, now, policy))
    if now >= code_check.due_at:
        return Execute((FetchCheckReport(reserved=code_check.reserved, in_background=code_check.in_background),))
    return min(code_check.due_at, code_check.until)
