from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.settings.units import MAX_SIZE, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("15m", 900), ("30d", 2_592_000), ("1h30m", 5400), ("1d1s", 86_401), ("250ms", 0.25), ("0s", 0)],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "1.5h", "5m1h", "5S", "٥s", "5s\n5s", "5ms5s"])
def test_what_is_no_duration_is_refused_with_the_remedy(text):
    with pytest.raises(ValueError, match=r'is not a duration\. Write a number and a unit in quotes, like "5s"'):
        parse_duration(text)


def test_a_duration_of_centuries_is_a_slip():
    with pytest.raises(ValueError, match="longer than ten years"):
        parse_duration("99999d")


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_a_duration_survives_writing_and_reading(duration):
    whole = timedelta(milliseconds=duration // timedelta(milliseconds=1))
    assert parse_duration(format_duration(whole)) == whole


@pytest.mark.parametrize(
    ("text", "size"), [("50 MiB", 50 << 20), ("1GiB", 1 << 30), ("1.5 KiB", 1536), ("0 B", 0), ("7 b", 7)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "50", "50 MB", "MiB", "-1 B", "1e3 B", "٥ MiB", "nan B"])
def test_what_is_no_size_is_refused_with_the_remedy(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_a_size_beyond_all_disks_is_a_slip():
    with pytest.raises(ValueError, match="more than 1024 TiB"):
        parse_size("1025 TiB")


@given(st.integers(min_value=0, max_value=MAX_SIZE))
def test_a_size_survives_writing_and_reading(size):
    assert parse_size(format_size(size)) == size
