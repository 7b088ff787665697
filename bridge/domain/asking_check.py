"""When CodeArts Check is asked about a build: once, after its end, while its run still waits to be finalized.

It knows neither the other steps of a build's life (plan.py) nor what answers change (effects/quality.py).
"""

from bridge.domain.build import Build, BuildState
from bridge.domain.effects.quality import begun, given_up
from bridge.domain.policy import Policy
from bridge.domain.quality import QualityRules, QualityState
from bridge.domain.step import AskCheck, Do, Write


def rules_for(build: Build, route: str | None, policy: Policy) -> QualityRules | None:
    """Return by which rules the run of `build` still waits for CodeArts Check; None: it does not.

    A build without reports waits for nothing: a run that holds no test is not opened for Check's sake.
    """
    if build.state is not BuildState.ENDED or not build.reports:
        return None
    if build.quality is not None and build.quality.state is not QualityState.WAITING:
        return None
    return next((known.quality for known in policy.routes if known.name == route), None)


def check_step(build: Build, rules: QualityRules, now: int, policy: Policy) -> Write | Do | int:
    """Return what is to be done now about a build that waits for Check, or when to look again (microseconds UTC)."""
    quality = build.quality
    if quality is None:
        return Write("asking CodeArts Check", begun(rules, now))
    if now >= quality.until:
        return Write("CodeArts Check gave no report", given_up(quality, rules, now, policy))
    if now >= quality.due_at:
        return Do((AskCheck(reserved=quality.reserved, in_background=quality.in_background),))
    return min(quality.due_at, quality.until)
