from dataclasses import replace

import pytest

from bridge.domain.build import SECOND
from bridge.domain.effects.timing import URL_LIVES, again_at, failed_owed, register_again, trying
from bridge.domain.gates import RouteHealth
from bridge.domain.outcomes import Conflict, Unknown
from tests.unit.domain.builders import FENCE, MINUTE, NOW, POLICY, named, owed


def test_retry_after_of_an_answer_is_honoured_up_to_the_largest_delay():
    asks = [None, 120, 10**9]

    times = [again_at(NOW, POLICY, 1, "salt", Unknown(message="", retry_after_seconds=ask)) - NOW for ask in asks]

    assert times[0] <= SECOND
    assert times[1:] == [120 * SECOND, POLICY.max_delay]


def test_an_answer_without_retry_after_is_backed_off():
    first, tenth = (again_at(NOW, POLICY, attempts, "salt", Conflict(message="")) - NOW for attempts in (1, 10))

    assert SECOND // 2 <= first <= SECOND
    assert 256 * SECOND <= tenth <= 512 * SECOND


def test_the_give_up_clock_starts_with_the_first_try_that_came_to_nothing_and_is_not_set_back():
    assert trying(owed(), NOW, 5) == {"trying_since": NOW, "trying_away_us": 5}
    assert trying(owed(1, trying_since=NOW - MINUTE), NOW, 5) == {}


def test_the_next_registration_of_a_report_is_backed_off_by_those_that_came_to_nothing():
    first = register_again(owed(), NOW, POLICY, RouteHealth(away_us=5))
    fifth = register_again(owed(1, attempts=4, trying_since=NOW - MINUTE), NOW, POLICY, RouteHealth(away_us=5))

    assert first.items() >= {"attempts": 1, "trying_since": NOW, "trying_away_us": 5}.items()
    assert NOW + SECOND // 2 <= first["due_at"] <= NOW + SECOND
    assert NOW + 8 * SECOND <= fifth["due_at"] <= NOW + 16 * SECOND
    assert fifth.keys() == {"attempts", "due_at"}


EXPIRES = NOW + MINUTE


@pytest.mark.parametrize(
    ("life", "at"),
    [
        (named(1, expires_at=EXPIRES), NOW),
        (named(1, expires_at=EXPIRES, put_uncertain=True), EXPIRES + POLICY.max_put),
        (named(1, expires_at=EXPIRES, fence=FENCE - 1), EXPIRES + POLICY.max_put),
        (named(1, expires_at=NOW - 2 * POLICY.max_put, fence=FENCE - 1), NOW),
        (named(1, expires_at=None, put_uncertain=True), NOW - MINUTE + URL_LIVES + POLICY.max_put),
        (named(1, expires_at=None, named_at=None, put_uncertain=True), NOW - MINUTE + URL_LIVES + POLICY.max_put),
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
def test_upload_failed_is_called_only_when_no_put_can_still_arrive(life, at):
    values = failed_owed(life, NOW, POLICY, fence=FENCE)

    assert values["due_at"] == at
    assert values["put_uncertain"] is (life.put_uncertain or life.fence != FENCE)


def test_a_longer_put_is_waited_for_longer():
    patient = replace(POLICY, max_put=POLICY.max_put + MINUTE)

    due_at = failed_owed(named(1, put_uncertain=True), NOW, patient, fence=FENCE)["due_at"]
    assert due_at == NOW + 4 * MINUTE + patient.max_put
