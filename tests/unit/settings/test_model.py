from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.settings.model import MAX_SIZE, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize("empty", ['""', '[""]', "[]"])
def test_a_secret_that_is_left_empty_is_none_as_the_contract_writes_its_default(loads, empty):
    settings = loads(
        '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n'
        f"[admin]\ntoken = {empty}\n[webhook]\nsecret = {empty}\n"
        '[[routes]]\nname = "shop"\nproject_token = "tok-shop"\n'
    )
    assert (settings.admin.token, settings.webhook.secret) == ((), ())


def test_of_several_secrets_the_empty_one_opens_nothing(loads):
    settings = loads(
        '[server]\nhost = "127.0.0.1"\n[callers]\nauth = "open"\n[admin]\ntoken = ["", "canary"]\n'
        '[[routes]]\nname = "shop"\nproject_token = "tok-shop"\n'
    )
    assert [token.get_secret_value() for token in settings.admin.token] == ["canary"]


UNITS = ("d", "h", "m", "s", "ms")
NAMES = ("days", "hours", "minutes", "seconds", "milliseconds")


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("1.5s", timedelta(milliseconds=1500)),
        ("5s", timedelta(seconds=5)),
        ("15m", timedelta(minutes=15)),
        ("1h30m", timedelta(minutes=90)),
        ("30d", timedelta(days=30)),
        ("0.5ms", timedelta(microseconds=500)),
        ("1.5h", timedelta(minutes=90)),
        ("0.1s", timedelta(milliseconds=100)),
        ("1m0.25s", timedelta(seconds=60.25)),
        ("1.5h30m", timedelta(hours=2)),
        ("1d1s", timedelta(seconds=86_401)),
        ("1d2h3m4s5ms", timedelta(days=1, hours=2, minutes=3, seconds=4, milliseconds=5)),
        ("0.000001s", timedelta(microseconds=1)),
        ("90m", timedelta(minutes=90)),
        ("1000ms", timedelta(seconds=1)),
        ("0s", timedelta(0)),
        ("0.0s", timedelta(0)),
        (" 5s ", timedelta(seconds=5)),
        ("3650d", timedelta(days=3650)),
    ],
)
def test_durations_are_read_as_people_write_them(text, duration):
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "1.5", "s", "ms", ".", "5 s", "-5s", "+5s", "5S", "5MS", "٥s", "١.5s", "½s", "5s\n5s", "5\0s"),
        *("5m1h", "5ms5s", "5s5m", "1h1h", "5s 5ms", "1h,30m", "1h30", "30 1h"),
        *(".5s", "5.s", "1.5.5s", "1,5s", "1e3s", "0x5s", "1_000s", "infs", "nans", "5us", "5w", "5min", "5sec"),
        *("1.0123456789s", "1234567890s"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_remedy(text):
    with pytest.raises(ValueError, match=r"is not a duration\. Use a number and a unit"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["99999d", "3650.1d", "3650d1ms", "87600.5h", "999999999.999999999d"])
def test_a_duration_of_centuries_is_a_slip(text):
    with pytest.raises(ValueError, match="longer than ten years"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0.0001ms", "0.0000001s", "1.23456789s"])
def test_a_duration_finer_than_a_microsecond_is_not_rounded(text):
    with pytest.raises(ValueError, match="is not a whole number of microseconds"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(minutes=90), "1h30m"),
        (timedelta(milliseconds=1500), "1s500ms"),
        (timedelta(microseconds=500), "0.5ms"),
        (timedelta(seconds=1, microseconds=1), "1s0.001ms"),
        (timedelta(0), "0s"),
    ],
)
def test_durations_are_written_without_units_that_are_zero(duration, text):
    assert format_duration(duration) == text


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_a_duration_survives_writing_and_reading(duration):
    assert parse_duration(format_duration(duration)) == duration


@given(st.lists(st.integers(0, 999), min_size=5, max_size=5), st.integers(1, 31))
def test_units_in_descending_order_add_up_and_no_other_order_is_read(numbers, chosen):
    used = [place for place in range(5) if chosen >> place & 1]
    parts = [f"{numbers[place]}{UNITS[place]}" for place in used]
    assert parse_duration("".join(parts)) == timedelta(**{NAMES[place]: numbers[place] for place in used})
    if len(used) > 1:
        with pytest.raises(ValueError, match="is not a duration"):
            parse_duration("".join(reversed(parts)))


@given(st.decimals(0, 1000, places=3), st.sampled_from(["h", "m", "s", "ms"]))
def test_a_fraction_is_exact(number, unit):
    microseconds = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1000}[unit]
    assert parse_duration(f"{number:f}{unit}") // timedelta(microseconds=1) == number * microseconds


@given(st.text())
def test_any_text_is_a_duration_or_is_refused(text):
    with suppress(ValueError):
        assert timedelta(0) <= parse_duration(text) <= timedelta(days=3650)


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
