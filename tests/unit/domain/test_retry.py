from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.circuit_breaker import RouteHealth
from bridge.domain.instants import SECOND
from bridge.domain.outcomes import Conflict, OutcomeUnknown
from bridge.domain.retry import (
    URL_LIFETIME,
    back_off_register,
    delay_us,
    delay_with_retry_after,
    failure_unreported_values,
    next_attempt_at,
    start_give_up_clock,
)
from tests.support.builders import MINUTE, NOW, POLICY, TOKEN, pending, registered

FIRST, LARGEST = 1_000_000, 600_000_000
attempts = st.integers(0, 10_000)
salts = st.text(max_size=20)


@pytest.mark.parametrize(
    ("tries", "step"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 8), (10, 512), (11, 600), (12, 600), (9_999, 600)]
)
def test_a_delay_doubles_from_the_first_to_the_largest(tries, step):
    delays = [delay_us(tries, first_us=FIRST, max_us=LARGEST, salt=str(salt)) for salt in range(200)]

    assert step * 500_000 <= min(delays) <= step * 520_000
    assert step * 980_000 <= max(delays) <= step * 1_000_000


@given(attempts, salts)
def test_the_same_question_has_the_same_answer(tries, salt):
    first = delay_us(tries, first_us=FIRST, max_us=LARGEST, salt=salt)

    assert first == delay_us(tries, first_us=FIRST, max_us=LARGEST, salt=salt)
    assert FIRST // 2 <= first <= LARGEST


def test_what_failed_together_does_not_come_back_together():
    delays = {delay_us(5, first_us=FIRST, max_us=LARGEST, salt=f"put/{number}") for number in range(100)}

    assert len(delays) == 100


@pytest.mark.parametrize(
    ("planned", "retry_after_seconds", "expected"),
    [
        (5_000_000, None, 5_000_000),
        (5_000_000, 2, 5_000_000),
        (5_000_000, 7.5, 7_500_000),
        (5_000_000, 1e9, LARGEST),
    ],
    ids=["not asked for", "sooner", "later", "much too late"],
)
def test_retry_after_counts_if_it_is_longer_up_to_the_largest_delay(planned, retry_after_seconds, expected):
    assert delay_with_retry_after(planned, retry_after_seconds, max_us=LARGEST) == expected


def test_retry_after_of_an_answer_counts_up_to_the_largest_delay():
    asks = [None, 120, 10**9]

    times = [
        next_attempt_at(NOW, POLICY, 1, "salt", OutcomeUnknown(message="", retry_after_seconds=ask)) - NOW
        for ask in asks
    ]

    assert times[0] <= SECOND
    assert times[1:] == [120 * SECOND, POLICY.retry_max_delay]


def test_an_answer_without_retry_after_is_backed_off():
    first, tenth = (next_attempt_at(NOW, POLICY, attempts, "salt", Conflict(message="")) - NOW for attempts in (1, 10))

    assert SECOND // 2 <= first <= SECOND
    assert 256 * SECOND <= tenth <= 512 * SECOND


def test_the_give_up_clock_starts_with_the_first_try_that_came_to_nothing_and_is_not_set_back():
    assert start_give_up_clock(pending(), NOW, 5) == {"first_failure_at": NOW, "outage_us_at_first_failure": 5}
    assert start_give_up_clock(pending(1, first_failure_at=NOW - MINUTE), NOW, 5) == {}


def test_the_next_registration_of_a_report_is_backed_off_by_those_that_came_to_nothing():
    first = back_off_register(pending(), NOW, POLICY, RouteHealth(total_outage_us=5))
    fifth = back_off_register(
        pending(1, attempts=4, first_failure_at=NOW - MINUTE), NOW, POLICY, RouteHealth(total_outage_us=5)
    )

    assert first.items() >= {"attempts": 1, "first_failure_at": NOW, "outage_us_at_first_failure": 5}.items()
    assert NOW + SECOND // 2 <= first["due_at"] <= NOW + SECOND
    assert NOW + 8 * SECOND <= fifth["due_at"] <= NOW + 16 * SECOND
    assert fifth.keys() == {"attempts", "due_at"}


EXPIRES = NOW + MINUTE


@pytest.mark.parametrize(
    ("registration", "at"),
    [
        (registered(1, expires_at=EXPIRES), NOW),
        (registered(1, expires_at=EXPIRES, put_outcome_unknown=True), EXPIRES + POLICY.max_put_duration),
        (registered(1, expires_at=EXPIRES, fencing_token=TOKEN - 1), EXPIRES + POLICY.max_put_duration),
        (registered(1, expires_at=NOW - 2 * POLICY.max_put_duration, fencing_token=TOKEN - 1), NOW),
        (
            registered(1, expires_at=None, put_outcome_unknown=True),
            NOW - MINUTE + URL_LIFETIME + POLICY.max_put_duration,
        ),
        (
            registered(1, expires_at=None, registered_at=None, put_outcome_unknown=True),
            NOW - MINUTE + URL_LIFETIME + POLICY.max_put_duration,
        ),
    ],
    ids=[
        "every PUT of this very visit was refused",
        "a PUT may have got through",
        "another visit may have PUT it",
        "all is long over",
        "expiry unknown, counted from the answer",
        "expiry unknown, counted from the question",
    ],
)
def test_upload_failed_is_called_only_when_no_put_can_still_arrive(registration, at):
    values = failure_unreported_values(registration, NOW, POLICY, fencing_token=TOKEN)

    assert values["due_at"] == at
    assert values["put_outcome_unknown"] is (registration.put_outcome_unknown or registration.fencing_token != TOKEN)


def test_a_longer_put_is_waited_for_longer():
    patient = replace(POLICY, max_put_duration=POLICY.max_put_duration + MINUTE)

    due_at = failure_unreported_values(registered(1, put_outcome_unknown=True), NOW, patient, fencing_token=TOKEN)[
        "due_at"
    ]
    assert due_at == NOW + 4 * MINUTE + patient.max_put_duration
