"""When a run is ended, and how its end is confirmed.

It knows neither how reports get there nor what TestNod answers.
"""

from bridge.domain.build import BuildState
from bridge.domain.changes import set_build
from bridge.domain.effects.finalize import finalized_now
from bridge.domain.rules.codearts import awaits_check
from bridge.domain.rules.moment import Moment
from bridge.domain.step import Do, Finalize, Step, Write


def finalize(moment: Moment) -> Step | None:
    """End the run once everything has arrived and the build has settled."""
    build = moment.build
    if build.state is BuildState.FINALIZED:
        return _confirm(moment)
    if build.state is not BuildState.ENDED or build.unsettled() or awaits_check(moment):
        return None
    if moment.owed and not moment.hold_is_over:
        return None
    settled_at = max(build.ended_at or 0, build.last_report_at) + moment.policy.settle
    if not moment.due(settled_at):
        return None
    if not build.registrations:
        closed = set_build(state=BuildState.CLOSED, **finalized_now(build, moment.now))
        return Write("nothing to finalize", (closed,))
    if moment.due(build.finalize_due_at) and moment.testnod_open():
        return Do((Finalize(confirm=False),))
    return None


def _confirm(moment: Moment) -> Step | None:
    build = moment.build
    if build.confirm_until is None or moment.owed or build.unsettled():
        return None
    if moment.due(build.confirm_due_at) and moment.testnod_open():
        return Do((Finalize(confirm=True),))
    return None
