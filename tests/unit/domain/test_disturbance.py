"""When TestNod was last disturbed."""

from functools import reduce

import pytest

from bridge.domain.circuit_breaker import PROBER, HealthSignal
from bridge.domain.disturbance import SLOW_US, TOGETHER_US, Disturbance

FAILURE, UNEXPECTED = HealthSignal.FAILURE, HealthSignal.UNEXPECTED
NOW = 1000 * TOGETHER_US


def met(*failures):
    return reduce(lambda known, failure: known.after_failure(*failure), failures, Disturbance())


@pytest.mark.parametrize(
    ("failures", "last_at"),
    [
        ([], None),
        ([(FAILURE, 1, 5)], 5),
        ([(FAILURE, PROBER, 5), (FAILURE, 1, 9)], 9),
        ([(UNEXPECTED, 1, 5), (UNEXPECTED, 1, 6)], None),  # perhaps the fault of this build
        ([(UNEXPECTED, 1, 5), (UNEXPECTED, 2, 6)], 6),
        ([(UNEXPECTED, 1, 5), (UNEXPECTED, 2, 5 + TOGETHER_US)], 5 + TOGETHER_US),
        ([(UNEXPECTED, 1, 5), (UNEXPECTED, 2, 6 + TOGETHER_US)], None),
        ([(UNEXPECTED, 1, 5), (UNEXPECTED, 2, 6), (UNEXPECTED, 2, 7)], 6),
        ([(UNEXPECTED, 1, 5), (FAILURE, 1, 6)], 6),
        ([(FAILURE, 1, 5), (HealthSignal.SUCCESS, 2, 6)], 5),  # a breaker would forget the failure
        ([(HealthSignal.TRIP, 1, 5)], None),
    ],
)
def test_a_call_without_an_answer_or_unexpected_responses_to_two_builds_are_a_disturbance(failures, last_at):
    assert met(*failures).last_at == last_at


@pytest.mark.parametrize(
    ("failures", "began", "age"),
    [
        ([], [], None),
        ([], [NOW - SLOW_US + 1], None),
        ([], [NOW - 1, NOW - SLOW_US], 0),
        ([(FAILURE, 1, NOW - 7)], [], 7),
        ([(FAILURE, 1, NOW - 7)], [NOW - 1], 7),
        ([(FAILURE, 1, NOW - 7)], [NOW - SLOW_US], 0),
        ([(UNEXPECTED, 1, NOW - 7)], [], 7),  # to the build that asks
        ([(UNEXPECTED, 2, NOW - 7)], [], None),
        ([(FAILURE, 2, NOW - 5), (UNEXPECTED, 1, NOW - 7)], [], 5),
    ],
)
def test_a_call_that_has_had_no_answer_for_long_is_one_too(failures, began, age):
    assert met(*failures).age(began, NOW, 1) == age
