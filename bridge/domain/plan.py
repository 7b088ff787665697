"""plan(build, now, policy, gates) -> Step: what to do next with a build. Read it from top to bottom.

It knows no I/O, no clock and no ledger; what an outcome changes stands in effects.py. Both follow the tables of
docs/design.md, whose sentences were model-checked.
"""

from bridge.domain.build import Build
from bridge.domain.gates import CLOCK, HELD, Gates
from bridge.domain.policy import Policy
from bridge.domain.rules.archive import archive
from bridge.domain.rules.codearts import check, questions
from bridge.domain.rules.facts import (
    build_ended,
    deliveries_died,
    interrupted,
    late,
    stuck,
    taken_back,
    url_expired,
)
from bridge.domain.rules.finalize import finalize
from bridge.domain.rules.mirror import mirror_given_up, owed_to_mirror, uploads_to_mirror
from bridge.domain.rules.moment import Moment
from bridge.domain.rules.uploads import uploads
from bridge.domain.step import Do, Probe, Step, Wait, Write

FACTS = (
    interrupted,
    late,
    taken_back,
    build_ended,
    url_expired,
    deliveries_died,
    stuck,
    owed_to_mirror,
    mirror_given_up,
)
"""What may have become true without any call, in the order in which it is asked."""


def plan(build: Build, now: int, policy: Policy, gates: Gates) -> Step:
    """Return the one next step of `build`; `now` and all times are microseconds UTC."""
    if gates.held:
        return Wait(until=now + policy.max_delay, waits_for=HELD, held=gates.held)
    moment = Moment(build, now, policy, gates)
    return _fact(moment) or _calls(moment) or check(moment) or finalize(moment) or archive(moment) or _wait(moment)


def _fact(moment: Moment) -> Write | None:
    """Return the first thing that has become true without any call."""
    return next(filter(None, (fact(moment) for fact in FACTS)), None)


def _calls(moment: Moment) -> Do | Probe | None:
    """Return all that can be asked now, side by side; while a gate is probed, one call has to do."""
    calls = [*questions(moment), *uploads(moment)]
    if moment.gates.probing:
        calls = calls[:1]
    calls += uploads_to_mirror(moment)
    if calls:
        return Do(tuple(calls))
    return Probe(moment.probe) if moment.probe else None


def _wait(moment: Moment) -> Wait:
    """Return when to look again: whatever rule found itself waiting has said so to the moment."""
    waits_for = moment.waits_for or (CLOCK if moment.waits_for_clock else None)
    return Wait(until=min(moment.later, default=None), waits_for=waits_for, held=moment.held)
