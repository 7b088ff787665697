import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.polling import LOOK_AGAIN_US, interval_us, look_due_at

SHORT, LONG = 5_000_000, 60_000_000


@pytest.mark.parametrize(
    ("polls", "seconds"), [(0, 5), (1, 5), (2, 7.5), (3, 11.25), (7, 56.953125), (8, 60), (100_000, 60)]
)
def test_builds_that_run_long_are_looked_at_more_seldom(polls, seconds):
    assert interval_us(polls, min_us=SHORT, max_us=LONG) == seconds * 1_000_000


@given(st.integers(0, 10_000))
def test_the_interval_never_shrinks_and_stays_within_its_bounds(polls):
    interval = interval_us(polls, min_us=SHORT, max_us=LONG)

    assert SHORT <= interval <= interval_us(polls + 1, min_us=SHORT, max_us=LONG) <= LONG


@pytest.mark.parametrize(
    ("look_at", "polled_at", "due_at"),
    [
        (None, None, None),
        (None, LONG, None),
        (LONG, None, LONG),
        (LONG, LONG, None),
        (LONG, LONG + 1, None),
        (LONG, LONG - 1, LONG - 1 + LOOK_AGAIN_US),
        (LONG, SHORT, LONG),
    ],
)
def test_who_asks_to_look_is_heard_once_and_not_twice_a_second(look_at, polled_at, due_at):
    assert look_due_at(look_at, polled_at) == due_at
