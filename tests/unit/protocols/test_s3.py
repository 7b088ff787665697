import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.outcomes import OutcomeUnknown, PutRejected, Stored
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.s3 import presigned_expiry, read_put, without_query

SECOND = 1_000_000
HOUR = 3600 * SECOND
NOON = 1_700_000_000 * SECOND


def answer(status, body=b"", **headers):
    return HttpResponse(status=status, headers=headers, body=body, received_at=NOON)


def error(code, message="Words."):
    head = b'<?xml version="1.0" encoding="UTF-8"?>\n'
    return head + f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>".encode()


@pytest.mark.parametrize("body", [b"", b"unexpected"])
def test_only_a_200_is_stored(body):
    assert read_put(answer(200, body)) == Stored()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (403, "SignatureDoesNotMatch"),
        (400, "ExpiredToken"),
        (400, "RequestTimeout"),
        (400, "InvalidDigest"),
        (413, "EntityTooLarge"),
        (404, "NoSuchBucket"),
        (411, "MissingContentLength"),
    ],
)
def test_a_4xx_is_a_refusal_with_s3s_own_code(status, code):
    assert read_put(answer(status, error(code))) == PutRejected(status=status, code=code, message="Words.")


@pytest.mark.parametrize("status", [100, 201, 204, 206, 301, 304, 307, 500, 503, 600])
def test_any_other_status_is_unknown(status):
    outcome = read_put(answer(status, error("SlowDown")))
    assert isinstance(outcome, OutcomeUnknown)
    assert outcome.status == status
    assert outcome.message == "SlowDown: Words."


@pytest.mark.parametrize("status", [403, 503])
def test_retry_after_is_handed_on(status):
    assert read_put(answer(status, b"", **{"retry-after": "5"})).retry_after_seconds == 5.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>no</html>",
        b"<Error>",
        b"<Error/>",
        b"<Error>text</Error>",
        b"<Error><Code><a/></Code><Message a='1'/></Error>",
        b"<?xml version='1.0' encoding='no-such'?><Error><Code>A</Code></Error>",
        b'<!DOCTYPE Error [<!ENTITY a "aaaa">]><Error><Code>&a;</Code></Error>',
        b'<!DOCTYPE Error [<!ENTITY a SYSTEM "file:///etc/passwd">]><Error><Code>&a;</Code></Error>',
        b"<Error><Code>A</Code>" + b" " * 17_000 + b"</Error>",
        b"\xff\xfe\x00",
    ],
)
def test_a_refusal_that_cannot_be_read_has_no_code(body):
    assert read_put(answer(403, body)) == PutRejected(
        status=403, code="", message="HTTP 403 without a readable message"
    )


def test_an_error_in_a_namespace_is_read():
    body = b'<Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Code>AccessDenied</Code></Error>'
    assert read_put(answer(403, body)).code == "AccessDenied"


def test_a_message_loses_the_presigned_query():
    outcome = read_put(answer(403, error("AccessDenied", "https://b.example/k?X-Amz-Signature=canary")))
    assert "canary" not in outcome.message


@given(st.integers(0, 999), st.binary() | st.text(alphabet="<>/!&;[]Error ACode\"'").map(str.encode))
def test_any_status_and_bytes_come_to_an_outcome(status, body):
    assert isinstance(read_put(answer(status, body)), Stored | PutRejected | OutcomeUnknown)


@pytest.mark.parametrize("off", [-HOUR, 0, HOUR])
@pytest.mark.parametrize("date", ["20231114T221320Z", "20231114T211320Z", "garbage"])
def test_the_end_is_counted_on_our_clock_whatever_the_signers_says(off, date):
    url = f"https://b.example/k?X-Amz-Date={date}&X-Amz-Expires=300&X-Amz-Signature=s"
    assert presigned_expiry(url, now_us=NOON, signed_at=NOON + off) == NOON + 300 * SECOND


@pytest.mark.parametrize("off", [-HOUR, 0, HOUR])
def test_an_absolute_end_is_taken_as_a_length_by_the_signers_clock(off):
    url = f"https://b.example/k?AWSAccessKeyId=a&Expires={(NOON + off) // SECOND + 300}&Signature=s"
    assert presigned_expiry(url, now_us=NOON, signed_at=NOON + off) == NOON + 300 * SECOND


@pytest.mark.parametrize(
    "query", ["", "X-Amz-Expires=", "X-Amz-Expires=0", "X-Amz-Expires=-1", "X-Amz-Expires=999999", "Expires=1"]
)
def test_a_url_that_says_no_sensible_end_has_none(query):
    assert presigned_expiry(f"https://b.example/k?{query}", now_us=NOON, signed_at=NOON) is None


@given(st.text())
def test_no_url_raises(url):
    assert isinstance(presigned_expiry(url, now_us=NOON, signed_at=NOON), int | None)
    assert isinstance(without_query(url), str)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://b.example:8443/a/k?X-Amz-Signature=canary#canary", "https://b.example:8443/a/k"),
        ("https://user:canary@b.example/k", "https://b.example/k"),
        ("http://[broken", "an unreadable URL"),
    ],
)
def test_a_url_for_a_log_has_no_query_and_no_user(url, shown):
    assert without_query(url) == shown
