from dataclasses import replace

import pytest

from bridge.domain.gates import Gates
from bridge.domain.line import calls_next, is_line, line_of
from bridge.domain.plan import plan
from bridge.domain.step import Do, Register, Wait
from tests.unit.domain.builders import NOW, PIN, POLICY, a_build, dead, delivered, owed

AT_REST = Wait(until=None)
IN_LINE = Wait(until=NOW, waits_for=line_of("job"))
AT_A_GATE = Wait(until=NOW, waits_for="testnod")


def behind(accepted_at):
    """Return a build with one report and no run, behind an earlier one of its job."""
    return a_build(owed(due_at=NOW), accepted_at=accepted_at, last_report_at=NOW, earlier_in_line=True)


def test_a_build_stands_in_line_for_as_long_as_a_run_is_held_and_not_longer():
    step = plan(behind(NOW - POLICY.hold_run + 1), NOW, POLICY, Gates())
    assert isinstance(step, Wait)
    assert (is_line(step.waits_for), step.until) == (True, NOW + 1)
    assert plan(behind(NOW - POLICY.hold_run), NOW, POLICY, Gates()) == Do((Register(1),))


def test_a_build_that_has_its_run_does_not_stand_in_line():
    build = replace(behind(NOW), pin=PIN)
    assert plan(build, NOW, POLICY, Gates()) == Do((Register(1),))


@pytest.mark.parametrize(
    ("delivery", "end", "calls"),
    [
        (owed(), AT_REST, False),  # its report is still to be tried: the next one waits
        (owed(attempts=1), AT_REST, True),
        (owed(), AT_A_GATE, True),
        (owed(attempts=1), IN_LINE, False),
        (delivered(), AT_REST, True),
        (dead(), AT_REST, True),
        (delivered(), IN_LINE, False),
    ],
)
def test_the_next_is_called_once_this_one_holds_nobody_up(delivery, end, calls):
    assert calls_next(a_build(delivery), end) is calls
