import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.protocols.answers import Answer
from bridge.protocols.s3_documents import (
    Listing,
    complete_body,
    is_complete,
    read_listing,
    read_upload_id,
    refusal,
    total_bytes,
)

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def answer(body=b"", status=200, **headers):
    return Answer(status=status, headers=headers, body=body, received_at=1)


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


@pytest.mark.parametrize(
    ("said", "total"),
    [
        *(("bytes 0-3/11", 11), ("bytes */0", 0), ("bytes 0-3/*", None), ("", None), ("x/٣", None)),
        ("x/" + "9" * 5000, None),
    ],
)
def test_a_range_says_the_size_of_the_whole(said, total):
    assert total_bytes(answer(**{"content-range": said})) == total


def test_a_refusal_is_told_in_s3s_words():
    assert refusal(answer(DENIED, 403)) == "storage answered 403 AccessDenied Access Denied"
    assert "HTTP 500" in refusal(answer(b"", 500))


@given(body=st.binary(max_size=300), status=st.sampled_from([200, 206, 403, 500]))
def test_whatever_comes_is_read_or_none(body, status):
    read = read_upload_id(answer(body, status))
    assert read is None or isinstance(read, str)
    assert isinstance(is_complete(answer(body, status)), bool)
    assert isinstance(refusal(answer(body, status)), str)
    read_listing(answer(body, status))
