"""plan(build, now, policy, gates) -> Step: what to do next with a build. Read it from top to bottom.

It knows no I/O, no clock and no ledger; what an outcome changes stands in effects.py. Both follow the tables of
docs/design.md, whose sentences were model-checked.
"""

from bridge.domain.build import Build
from bridge.domain.circuit_breaker import CLOCK, RESTORE_PAUSE, CircuitBreakers
from bridge.domain.lifecycle.archive import archive
from bridge.domain.lifecycle.build_end import check, questions
from bridge.domain.lifecycle.context import PlanContext
from bridge.domain.lifecycle.finalize import finalize
from bridge.domain.lifecycle.mirror import mirror_given_up, owed_to_mirror, uploads_to_mirror
from bridge.domain.lifecycle.time_transitions import (
    build_ended,
    deliveries_died,
    mark_interrupted_registers_lost,
    reopen_after_late_report,
    revert_inferred_end,
    stuck,
    url_expired,
)
from bridge.domain.lifecycle.upload import uploads
from bridge.domain.policy import Policy
from bridge.domain.steps import Apply, Execute, Probe, Step, Wait

FACTS = (
    mark_interrupted_registers_lost,
    reopen_after_late_report,
    revert_inferred_end,
    build_ended,
    url_expired,
    deliveries_died,
    stuck,
    owed_to_mirror,
    mirror_given_up,
)
"""What may have become true without any call, in the order in which it is asked."""


def plan(build: Build, now: int, policy: Policy, breakers: CircuitBreakers) -> Step:
    """Return the one next step of `build`; `now` and all times are microseconds UTC."""
    if breakers.paused_reason:
        return Wait(until=now + policy.retry_max_delay, waiting_on=RESTORE_PAUSE, blocked_reason=breakers.paused_reason)
    moment = PlanContext(build, now, policy, breakers)
    return _fact(moment) or _calls(moment) or check(moment) or finalize(moment) or archive(moment) or _wait(moment)


def _fact(moment: PlanContext) -> Apply | None:
    """Return the first thing that has become true without any call."""
    return next(filter(None, (fact(moment) for fact in FACTS)), None)


def _calls(moment: PlanContext) -> Execute | Probe | None:
    """Return all that can be asked now, side by side; while a gate is probed, one call has to do."""
    calls = [*questions(moment), *uploads(moment)]
    if moment.breakers.probing:
        calls = calls[:1]
    calls += uploads_to_mirror(moment)
    if calls:
        return Execute(tuple(calls))
    return Probe(moment.probe) if moment.probe else None


def _wait(moment: PlanContext) -> Wait:
    """Return when to look again: whatever rule found itself waiting has said so to the moment."""
    waiting_on = moment.waiting_on or (CLOCK if moment.waits_for_clock else None)
    return Wait(until=min(moment.later, default=None), waiting_on=waiting_on, blocked_reason=moment.blocked_reason)
