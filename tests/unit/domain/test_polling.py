import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.polling import interval_us

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
