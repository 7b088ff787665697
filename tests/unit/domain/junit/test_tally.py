"""How times are read in the notations of many locales."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.junit.tally import read_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0.001", 0.001),
        (" 1.5 ", 1.5),
        ("1.4e-05", 0.000014),
        ("-0.25", -0.25),
        ("1,234.5", 1234.5),
        ("1,234,567.8", 1234567.8),
        ("1.234,5", 1234.5),
        ("1,234", 1234),
        ("12,5", 12.5),
        ("0,123", 0.123),
        ("-1,5", -1.5),
        (",5", 0.5),
        ("1967986371", 1967986371),
    ],
)
def test_a_time_is_read_as_its_locale_writes_it(text: str, seconds: float):
    assert read_time(text) == round(seconds * 1e6)


@pytest.mark.parametrize("text", [None, "", "soon", "1.5s", "00:00:01", "nan", "inf", "1e300", "1,2,x", "--1"])
def test_what_is_no_time_is_none(text: str | None):
    assert read_time(text) is None


@given(st.floats(min_value=-1e9, max_value=1e9))
def test_any_thousands_grouping_reads_as_without(seconds: float):
    assert read_time(f"{seconds:,.3f}") == read_time(f"{seconds:.3f}")


@given(st.text(max_size=12) | st.text(st.sampled_from("0123456789,.-+eE "), max_size=12))
def test_any_text_is_read_or_none_and_stays_in_bounds(text: str):
    time_us = read_time(text)
    assert time_us is None or abs(time_us) < 2**53
