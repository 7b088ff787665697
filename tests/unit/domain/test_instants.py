from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.instants import DAY, HOUR, MINUTE, SECOND, Duration, Instant, after, between

instants = st.integers(0, 10**16).map(Instant)


def test_durations_are_microseconds():
    assert (SECOND, MINUTE, HOUR, DAY) == (10**6, 60 * 10**6, 3600 * 10**6, 86_400 * 10**6)


def test_an_instant_may_lie_several_durations_after_another():
    assert after(Instant(5), Duration(2), Duration(-1)) == 6
    assert after(Instant(5)) == 5


@given(instants, instants)
def test_between_is_what_after_adds(earlier, later):
    assert after(earlier, between(earlier, later)) == later
