import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.protocols.http_response import HttpResponse
from bridge.protocols.s3_documents import (
    LOOK_BETWEEN,
    Failed,
    Listing,
    Missing,
    Odd,
    Piece,
    complete_body,
    is_complete,
    read_listing,
    read_piece,
    read_upload_id,
    refusal,
)

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def answer(body=b"", status=200, **headers):
    return HttpResponse(status=status, headers=headers, body=body, received_at=1)


def listing(inner, encoding=""):
    return answer(f"<ListBucketResult {NAMESPACE}>{encoding}{inner}</ListBucketResult>".encode())


@pytest.mark.parametrize(
    ("inner", "page"),
    [
        ("<IsTruncated>false</IsTruncated>", Listing()),
        ("<Contents><Key>a</Key></Contents>", Listing(keys=("a",))),
        ("<Contents><Key>a</Key></Contents><Contents><Key>b</Key></Contents>", Listing(keys=("a", "b"))),
        ("<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>", Listing(prefixes=("a/",))),
        (
            "<IsTruncated>true</IsTruncated><NextContinuationToken>t==</NextContinuationToken>",
            Listing(following="t=="),
        ),
        ("<IsTruncated>true</IsTruncated>", Listing()),
        ("<IsTruncated>false</IsTruncated><NextContinuationToken>t</NextContinuationToken>", Listing()),
        ("<Contents><Size>1</Size></Contents>", Listing()),
    ],
)
def test_a_listing_is_read_however_many_it_holds(inner, page):
    assert read_listing(listing(inner)) == page


def test_keys_are_decoded_where_the_listing_says_that_they_are_encoded():
    inner = "<Contents><Key>a%2Fb%2B</Key></Contents>"
    assert read_listing(listing(inner, "<EncodingType>url</EncodingType>")).keys == ("a/b+",)
    assert read_listing(listing(inner)).keys == ("a%2Fb%2B",)


@pytest.mark.parametrize(
    "other",
    [
        answer(DENIED, 403),
        answer(DENIED),
        answer(b"<html/>"),
        answer(b""),
        answer(b"<ListBucketResult"),
        answer(b"\xff"),
    ],
)
def test_what_is_no_listing_is_none(other):
    assert read_listing(other) is None
    assert read_upload_id(other) is None
    assert not is_complete(other)


def test_a_multipart_upload_is_known_by_its_id():
    begun = f"<InitiateMultipartUploadResult {NAMESPACE}><UploadId>u-1</UploadId></InitiateMultipartUploadResult>"
    assert read_upload_id(answer(begun.encode())) == "u-1"
    assert read_upload_id(answer(begun.replace("UploadId", "Other").encode())) is None


def test_a_200_that_says_error_completes_nothing():
    done = f"<CompleteMultipartUploadResult {NAMESPACE}><ETag>e</ETag></CompleteMultipartUploadResult>"
    assert is_complete(answer(done.encode()))
    assert not is_complete(answer(b"<Error><Code>InternalError</Code></Error>"))


def test_parts_are_named_in_order():
    body = complete_body(['"one"', '"two&"'])
    assert body.index(b'<PartNumber>1</PartNumber><ETag>"one"</ETag>') < body.index(b"<PartNumber>2</PartNumber>")
    assert b"two&amp;" in body


def ranged(body, said, status=206, **headers):
    return answer(body, status, **{"content-range": said, **headers})


@pytest.mark.parametrize(
    ("given", "first", "piece"),
    [
        (ranged(b"abcd", "bytes 0-3/11"), 0, Piece(body=b"abcd", total=11)),
        (ranged(b"ijk", "bytes 8-10/11"), 8, Piece(body=b"ijk", total=11)),
        (answer(b"abc"), 0, Piece(body=b"abc", total=3)),  # a server without ranges: the whole object
        (answer(b""), 0, Piece(body=b"", total=0)),
        (ranged(b"", "bytes */0", 416), 0, Piece(body=b"", total=0)),
    ],
)
def test_a_part_of_an_object_is_taken_with_the_size_of_the_whole(given, first, piece):
    assert read_piece(given, first=first, asked_bytes=4) == piece


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
        answer(b"<!DOCTYPE html><title>Log in</title>"),
        answer(b"Log in", **{"content-type": "text/html; charset=utf-8"}),
        answer(b"", 204),
        answer(b"", 301),
        answer(b"", 307, location="http://other.test/?X-Amz-Signature=canary"),
        answer(b"<Error><Code>PermanentRedirect</Code></Error>", 301),
        answer(b"<html>404</html>", 404),
        answer(b"", 404),
        answer(b"<Error><Code>NoSuchBucket</Code></Error>", 404),
        answer(b"<html>416</html>", 416),
        answer(DENIED, 403),
        answer(b"", 401),
        answer(b"<Error><Code>ExpiredToken</Code></Error>", 400),
    ],
)
def test_whatever_else_is_answered_is_odd_and_says_what_it_was_and_what_to_check(given):
    odd = read_piece(given, first=0, asked_bytes=4)
    assert isinstance(odd, Odd)
    assert str(given.status) in odd.saw
    assert odd.remedy.startswith("Check ")
    assert "canary" not in odd.saw


@pytest.mark.parametrize("status", [200, 416])
def test_an_answer_about_the_whole_object_is_odd_in_its_middle(status):
    assert isinstance(read_piece(answer(b"abcd", status), first=4, asked_bytes=4), Odd)


@pytest.mark.parametrize(
    ("body", "status", "remedy"),
    [
        (DENIED, 403, "Check the key's right to GetObject."),
        (b"<Error><Code>InvalidAccessKeyId</Code></Error>", 403, "Check the keys of [s3]."),
        (b"<Error><Code>NoSuchBucket</Code></Error>", 404, "Check the bucket, and its name in the settings."),
        (b"", 302, "Check s3.endpoint_url and s3.region."),
        (b"<html>", 404, LOOK_BETWEEN),
    ],
)
def test_the_remedy_is_for_what_was_answered(body, status, remedy):
    assert read_piece(answer(body, status), first=0, asked_bytes=4).remedy == remedy


def test_only_s3_itself_says_that_a_key_is_missing():
    gone = b"<Error><Code>NoSuchKey</Code><Message>The key does not exist.</Message></Error>"
    assert read_piece(answer(gone, 404), first=0, asked_bytes=4) == Missing(saw="404 NoSuchKey The key does not exist")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_an_s3_that_is_overloaded_or_broken_says_nothing_of_the_object(status):
    assert isinstance(read_piece(answer(b"", status), first=0, asked_bytes=4), Failed)


def test_a_refusal_is_told_in_s3s_words():
    assert refusal(answer(DENIED, 403)) == "storage answered 403 AccessDenied Access Denied"
    assert "HTTP 500" in refusal(answer(b"", 500))


@given(
    body=st.binary(max_size=300),
    status=st.integers(200, 599),
    said=st.text(max_size=40),
    first=st.integers(0, 9),
)
@example(body=b"\x00", status=416, upload_metadata="", first=0)
def test_a_piece_never_claims_more_bytes_than_came(body, status, said, first):
    read = read_piece(ranged(body, said, status), first=first, asked_bytes=4)
    # The body of a 416 is an error document: it says that the object is empty.
    came = b"" if status == 416 else body
    assert not isinstance(read, Piece) or (read.body == came and first + len(came) <= read.total)


@given(body=st.binary(max_size=300), status=st.sampled_from([200, 206, 403, 500]))
def test_whatever_comes_is_read_or_none(body, status):
    read = read_upload_id(answer(body, status))
    assert read is None or isinstance(read, str)
    assert isinstance(is_complete(answer(body, status)), bool)
    assert isinstance(refusal(answer(body, status)), str)
    read_listing(answer(body, status))
