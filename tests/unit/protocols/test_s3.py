import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.domain.outcomes import OutcomeUnknown, PutRejected, Stored
from bridge.errors import Unavailable, UnexpectedResponse
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.s3 import (
    CHECK_ENDPOINT,
    Piece,
    describe_failure,
    holds_document,
    presigned_expiry,
    read_piece,
    read_put,
    without_query,
)

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


# -- the answer to a GET of a range ----------------------------------------------------------------------------------

DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def ranged(body, content_range, status=206, **headers):
    return answer(status, body, **{"content-range": content_range, **headers})


@pytest.mark.parametrize(
    ("given", "first", "piece"),
    [
        (ranged(b"abcd", "bytes 0-3/11"), 0, Piece(body=b"abcd", total=11)),
        (ranged(b"ijk", "bytes 8-10/11"), 8, Piece(body=b"ijk", total=11)),
        (answer(200, b"abc"), 0, Piece(body=b"abc", total=3)),  # a server without ranges: the whole object
        (answer(200, b""), 0, Piece(body=b"", total=0)),
        (ranged(b"", "bytes */0", 416), 0, Piece(body=b"", total=0)),
    ],
)
def test_a_part_of_an_object_is_returned_with_the_size_of_the_whole(given, first, piece):
    assert read_piece(given, first=first, requested_bytes=4) == piece


@pytest.mark.parametrize(
    "given",
    [
        ranged(b"abc", "bytes 0-2/11"),
        ranged(b"abc", "bytes 0-3/11"),
        ranged(b"abcde", "bytes 0-4/11"),
        ranged(b"abcd", "bytes 1-4/11"),
        ranged(b"abcd", "bytes 0-3/3"),
        ranged(b"abcd", "bytes 0-3/*"),
        ranged(b"abcd", ""),
        ranged(b"abcd", "bytes 0-3/" + "9" * 5000),
        ranged(b"abcd", "bytes 0-3/١١"),
        ranged(b"", "bytes 0-3/11"),
        answer(200, b"<!DOCTYPE html><title>Log in</title>"),
        answer(200, b"Log in", **{"content-type": "text/html; charset=utf-8"}),
        answer(204),
        answer(301),
        answer(307, location="http://other.test/?X-Amz-Signature=canary"),
        answer(301, b"<Error><Code>PermanentRedirect</Code></Error>"),
        answer(404, b"<html>404</html>"),
        answer(404),
        answer(404, b"<Error><Code>NoSuchBucket</Code></Error>"),
        answer(416, b"<html>416</html>"),
        answer(403, DENIED),
        answer(401),
        answer(400, b"<Error><Code>ExpiredToken</Code></Error>"),
    ],
)
def test_any_other_answer_is_odd_and_its_error_has_what_came_and_what_to_check(given):
    with pytest.raises(UnexpectedResponse) as caught:
        read_piece(given, first=0, requested_bytes=4)
    assert str(given.status) in caught.value.received
    assert caught.value.remedy.startswith("Check ")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 416])
def test_an_answer_about_the_whole_object_is_odd_in_its_middle(status):
    with pytest.raises(UnexpectedResponse):
        read_piece(answer(status, b"abcd"), first=4, requested_bytes=4)


@pytest.mark.parametrize(
    ("status", "body", "remedy"),
    [
        (403, DENIED, "Check the key's right to GetObject."),
        (403, b"<Error><Code>InvalidAccessKeyId</Code></Error>", "Check the keys of [s3]."),
        (404, b"<Error><Code>NoSuchBucket</Code></Error>", "Check the bucket, and its name in the settings."),
        (302, b"", "Check s3.endpoint_url and s3.region."),
        (404, b"<html>", CHECK_ENDPOINT),
    ],
)
def test_the_remedy_is_for_what_was_answered(status, body, remedy):
    with pytest.raises(UnexpectedResponse) as caught:
        read_piece(answer(status, body), first=0, requested_bytes=4)
    assert caught.value.remedy == remedy


def test_a_key_is_missing_only_if_s3_itself_says_so():
    gone = b"<Error><Code>NoSuchKey</Code><Message>The key does not exist.</Message></Error>"
    with pytest.raises(FileNotFoundError) as caught:
        read_piece(answer(404, gone), first=0, requested_bytes=4)
    assert caught.value.strerror == "404 NoSuchKey The key does not exist"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_the_answer_of_an_overloaded_or_broken_s3_is_not_about_the_object(status):
    with pytest.raises(Unavailable, match=f"S3 did not return an object: .*{status}.* tried again later") as caught:
        read_piece(answer(status), first=0, requested_bytes=4)
    assert not isinstance(caught.value, UnexpectedResponse)


@given(body=st.binary(max_size=300), status=st.integers(200, 599), text=st.text(max_size=40), first=st.integers(0, 9))
@example(body=b"\x00", status=416, text="", first=0)
def test_a_piece_never_has_more_bytes_than_came(body, status, text, first):
    try:
        piece = read_piece(ranged(body, text, status), first=first, requested_bytes=4)
    except (FileNotFoundError, Unavailable):
        return
    # The body of a 416 is an error document: the object is empty.
    came = b"" if status == 416 else body
    assert piece.body == came
    assert first + len(came) <= piece.total


# -- documents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["CopyObjectResult", "InitiateMultipartUpload", "x:Result xmlns:x='urn:x'"])
def test_a_document_may_have_any_root_element(root):
    assert holds_document(answer(200, f"<{root}>text</{root.split()[0]}>".encode()))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        DENIED,
        b"<html><title>Log in</title></html>",
        b"<ListBucketResult",
        b"\xff",
        b'<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>',
    ],
)
def test_errors_pages_and_broken_xml_are_no_documents(body):
    assert not holds_document(answer(200, body))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (answer(403, DENIED), "403 AccessDenied Access Denied"),
        (answer(200, b"<Error><Code>InternalError</Code></Error>"), "200 InternalError HTTP 200 without a readable"),
        (answer(502, b"<html>Bad gateway</html>"), "502 with an HTML page"),
        (answer(200, b"OK", **{"content-type": "text/plain"}), "200 with 2 bytes (text/plain)"),
        (answer(500), "HTTP 500 without a readable message"),
    ],
)
def test_a_failure_is_described_by_what_came(given, text):
    assert text in describe_failure(given)


@given(body=st.binary(max_size=300), status=st.sampled_from([200, 206, 403, 500]))
def test_any_bytes_are_a_document_or_not_and_can_be_described(body, status):
    assert isinstance(holds_document(answer(status, body)), bool)
    assert str(status) in describe_failure(answer(status, body))
