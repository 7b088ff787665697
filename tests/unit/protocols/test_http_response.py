"""What all protocols read from a response: messages, Retry-After, JSON, Huawei Cloud's errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.protocols.http_response import (
    HttpResponse,
    clean,
    describe_error,
    http_date,
    read_error,
    read_object,
    retry_after_seconds,
    scalar,
)
from tests.support.writings import WRITINGS

SECOND = 1_000_000
NOON = 1_700_000_000 * SECOND  # Tue, 14 Nov 2023 22:13:20 GMT


def answer(status=503, body=b"", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status=status, headers=named, body=body, received_at=NOON)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:12:20 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 400, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_garbage_is_nothing(value, seconds):
    assert retry_after_seconds(answer(retry_after=value)) == seconds


def test_retry_after_as_a_date_is_counted_by_the_upstreams_own_clock():
    an_hour_ahead = answer(date="Tue, 14 Nov 2023 23:13:20 GMT", retry_after="Tue, 14 Nov 2023 23:13:50 GMT")
    assert retry_after_seconds(an_hour_ahead) == 30.0


def test_a_response_without_a_readable_date_is_dated_by_our_clock():
    assert answer().dated_at == NOON
    assert answer(date="yesterday").dated_at == NOON


@given(st.text())
def test_no_retry_after_raises(value):
    seconds = retry_after_seconds(answer(retry_after=value))
    assert seconds is None or seconds >= 0


@given(st.text())
def test_no_date_raises(value):
    assert isinstance(http_date(value), int | None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  plain ", "plain"),
        ("two\nlines\x00\x1b[31m", r"two\nlines\x00\x1b[31m"),
        ("right\u202eleft", r"right\u202eleft"),
        ("lone \ud800", r"lone \ud800"),
        ("用户不存在", "用户不存在"),
        ("see https://s3.example/b/k?X-Amz-Signature=canary&a=b now", "see https://s3.example/b/k?… now"),
        ("<https://u:canary@s3.example/b#canary>", "<https://s3.example/b?…>"),
        ("bad X-Amz-Signature=canary&x=1", "bad X-Amz-Signature=…&x=1"),
        ("header Project-Token: canary refused", "header Project-Token: … refused"),
    ],
)
def test_a_message_loses_secrets_and_what_cannot_be_printed(text, shown):
    assert clean(text) == shown


@given(st.text(st.characters(exclude_categories=[])))
def test_a_message_is_bounded_printable_and_encodable(text):
    shown = clean(text)
    assert len(shown) <= 300
    assert shown.isprintable()
    shown.encode()


def test_a_long_message_says_that_it_was_cut():
    assert clean("x" * 301) == "x" * 299 + "…"
    assert clean("x" * 300) == "x" * 300


def test_a_response_without_words_is_named_by_its_status():
    assert describe_error(answer(502), None) == "HTTP 502 without a readable message"
    assert describe_error(answer(502), "  ") == "HTTP 502 without a readable message"
    assert describe_error(answer(502), "away") == "away"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("main", "main"),
        (" main ", "main"),
        (42, "42"),
        ("a\x00b", r"a\x00b"),
        ("", None),
        (None, None),
        (True, None),
        (1.5, None),
        (["main"], None),
        ("x" * 11, None),
        pytest.param(10**5000, None, id="huge"),
    ],
)
def test_a_scalar_is_a_string_or_whole_number_of_bounded_length(value, text):
    assert scalar(value, limit=10) == text


@given(
    st.binary().filter(lambda body: b"{" not in body)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_whatever_is_not_an_object_reads_as_an_empty_one(body):
    assert read_object(body) == {}


def test_deeply_nested_json_reads_as_nothing():
    assert read_object(b"[" * 60_000) == {}


def test_what_the_request_held_in_secret_is_not_repeated_from_the_response():
    echo = HttpResponse(status=500, headers={}, body=b"", received_at=NOON, secrets=("tell-nobody", "nor-this"))
    assert describe_error(echo, "no project for tell-nobody or nor-this") == "no project for … or …"
    assert "tell-nobody" not in repr(echo)


@pytest.mark.parametrize("writing", list(WRITINGS))
def test_what_the_request_held_in_secret_is_not_repeated_in_any_writing(writing):
    echo = HttpResponse(status=500, headers={}, body=b"", received_at=NOON, secrets=("secret-of-this-project",))
    written = WRITINGS[writing]("secret-of-this-project")
    assert written not in describe_error(echo, f"no project for {written}!")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"error_code": "APIGW.0301", "error_msg": "bad token", "request_id": "r"}, ("APIGW.0301", "bad token")),
        ({"error": {"code": "CB.1", "message": "no"}, "status": "error"}, ("CB.1", "no")),
        ({"error": {"code": "CB.1", "reason": "why"}}, ("CB.1", "why")),
        ({"error": {"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}},
         ("", "The username or password is wrong.")),
        ({"error": "plain"}, ("", "plain")),
        ('{"error_code": "A.1", "error_msg": "inside"}', ("A.1", "inside")),
        ("only words", ("", "only words")),
        (None, ("", "")),
        ([], ("", "")),
    ],
)  # fmt: skip
def test_every_shape_of_an_error_is_read(value, expected):
    assert read_error(value) == expected
