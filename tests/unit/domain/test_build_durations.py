import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.build_durations import LEARNED_FROM, MIN_SPREAD, UNKNOWN, learn
from bridge.domain.instants import HOUR, MINUTE

ages = st.integers(0, 1000 * HOUR)


def test_a_job_without_ended_builds_has_wide_durations():
    assert learn([]) == UNKNOWN


def test_the_median_of_the_last_builds_is_learned_and_one_outlier_does_not_matter():
    learned = learn([10 * MINUTE] * 10 + [20 * HOUR])
    assert learned.median == pytest.approx(10 * MINUTE, rel=0.01)
    assert learned.spread < UNKNOWN.spread


def test_only_the_newest_builds_count():
    learned = learn([5 * MINUTE] * LEARNED_FROM + [10 * HOUR] * 100)
    assert learned.median == pytest.approx(5 * MINUTE, rel=0.01)
    assert learned.spread >= MIN_SPREAD


def test_more_builds_make_it_surer():
    assert learn([MINUTE] * 10).spread < learn([MINUTE] * 2).spread < learn([MINUTE]).spread


@given(st.lists(ages, max_size=30), ages, ages)
def test_the_longer_a_build_goes_unseen_the_more_probable_is_its_end(durations, seen, later):
    learned = learn(durations)
    first, second = sorted((seen, later))
    assert 0 <= learned.running_after(second) <= learned.running_after(first) <= 1
    assert 0 <= learned.ended_between(first, second) <= 1


def test_a_build_that_takes_far_longer_than_usual_is_not_expected_to_end_at_once():
    learned = learn([10 * MINUTE] * 20)
    usual = learned.ended_between(9 * MINUTE, 11 * MINUTE)
    long = learned.ended_between(5 * HOUR, 5 * HOUR + 2 * MINUTE)
    assert usual > 0.5
    assert long < 0.05
