"""What is asked of CodeArts about a build: its record, whether it has ended, and Check's report.

It knows no upload.
"""

from collections.abc import Iterator

from bridge.domain.asking_check import check_step, rules_for
from bridge.domain.build import BuildState
from bridge.domain.gates import CODEARTS
from bridge.domain.polling import look_due_at
from bridge.domain.rules.moment import Moment
from bridge.domain.step import Call, Describe, Do, Poll, Write


def questions(moment: Moment) -> Iterator[Call]:
    """Yield the questions that are due now."""
    yield from _describe(moment)
    yield from _poll(moment)


def _describe(moment: Moment) -> Iterator[Call]:
    build = moment.build
    if not moment.owed or moment.described:
        return
    if moment.due(build.describe_due_at) and moment.open(CODEARTS, probed_by_visits=True):
        yield Describe(reserved=build.describe_reserved)


def _poll(moment: Moment) -> Iterator[Call]:
    build = moment.build
    if build.state is not BuildState.OPEN or not moment.policy.asks_codearts:
        return
    # A reserved place under the common rate is waited for.
    asked_to_look = not build.poll_reserved and moment.due(look_due_at(build.look_at, build.polled_at))
    due_at = build.poll_due_at or build.accepted_at + moment.policy.poll_first
    if (asked_to_look or moment.due(due_at)) and moment.open(CODEARTS, probed_by_visits=True):
        yield Poll(reserved=build.poll_reserved)


def awaits_check(moment: Moment) -> bool:
    """Whether the run still waits for CodeArts Check."""
    return rules_for(moment.build, moment.route, moment.policy) is not None


def check(moment: Moment) -> Write | Do | None:
    """Ask CodeArts Check last of all: however slow it is, it keeps no report waiting."""
    rules = rules_for(moment.build, moment.route, moment.policy)
    if rules is None or not moment.described:
        return None
    step = check_step(moment.build, rules, moment.now, moment.policy)
    if not isinstance(step, int):
        return step
    moment.later.append(step)
    return None
