import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.backoff import delay_us, retry_at

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
    ("planned", "asked_seconds", "after"),
    [
        (5_000_000, None, 5_000_000),
        (5_000_000, 2, 5_000_000),
        (5_000_000, 7.5, 7_500_000),
        (5_000_000, 1e9, LARGEST),
    ],
    ids=["not asked for", "sooner", "later", "much too late"],
)
def test_retry_after_is_honoured_where_it_is_later_up_to_the_largest_delay(planned, asked_seconds, after):
    assert retry_at(100, planned, asked_seconds, max_us=LARGEST) == 100 + after
