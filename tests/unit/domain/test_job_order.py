from dataclasses import replace

import pytest

from bridge.domain.circuit_breaker import CircuitBreakers
from bridge.domain.job_order import is_queue, queue_of, wakes_next_build
from bridge.domain.plan import plan
from bridge.domain.steps import Execute, Register, Wait
from tests.support.builders import NOW, PARAMETERS, POLICY, a_build, dead, delivered, pending

AT_REST = Wait(until=None)
IN_LINE = Wait(until=NOW, waiting_on=queue_of("job"))
BLOCKED = Wait(until=NOW, blocked_reason="No route takes this build.")
AT_A_BREAKER = Wait(until=NOW, waiting_on="testnod")


def behind(accepted_at):
    """Return a build with one report and no run, behind an earlier one of its job."""
    return a_build(pending(due_at=NOW), accepted_at=accepted_at, last_report_at=NOW, earlier_in_queue=True)


def test_a_build_stands_in_line_for_as_long_as_a_run_is_blocked_and_not_longer():
    step = plan(behind(NOW - POLICY.max_finalize_delay + 1), NOW, POLICY, CircuitBreakers())
    assert isinstance(step, Wait)
    assert (is_queue(step.waiting_on), step.until) == (True, NOW + 1)
    assert plan(behind(NOW - POLICY.max_finalize_delay), NOW, POLICY, CircuitBreakers()) == Execute((Register(1),))


def test_a_build_that_has_its_run_does_not_stand_in_line():
    build = replace(behind(NOW), run_parameters=PARAMETERS)
    assert plan(build, NOW, POLICY, CircuitBreakers()) == Execute((Register(1),))


@pytest.mark.parametrize(
    ("delivery", "end", "calls"),
    [
        (pending(), AT_REST, False),  # its report is still to be tried: the next one waits
        (pending(attempts=1), AT_REST, True),
        (pending(), AT_A_BREAKER, True),
        (pending(), BLOCKED, True),
        (pending(attempts=1), IN_LINE, False),
        (delivered(), AT_REST, True),
        (dead(), AT_REST, True),
        (delivered(), IN_LINE, False),
    ],
)
def test_the_next_build_is_woken_once_this_one_holds_it_up_no_longer(delivery, end, calls):
    assert wakes_next_build(a_build(delivery), end) is calls
