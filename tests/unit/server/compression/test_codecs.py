import pytest

from bridge.errors import UnknownEncoding
from bridge.server.compression.codecs import ContentCoding, content_coding_of, content_codings


@pytest.mark.parametrize(
    ("content_encoding", "compressed"),
    [
        (None, ()),
        ("", ()),
        ("identity", ()),
        ("gzip", (ContentCoding.GZIP,)),
        (" X-GZip ", (ContentCoding.GZIP,)),
        ("deflate", (ContentCoding.DEFLATE,)),
        ("br", (ContentCoding.BROTLI,)),
        ("zstd", (ContentCoding.ZSTD,)),
        ("gzip, identity", (ContentCoding.GZIP,)),
        ("gzip,br", (ContentCoding.GZIP, ContentCoding.BROTLI)),
    ],
)
def test_a_content_encoding_names_codings_in_their_order(content_encoding, compressed):
    assert content_codings(content_encoding) == compressed


@pytest.mark.parametrize("unknown", ["compress", "lzma", "gzip;q=1", "*", "报"])
def test_an_unknown_encoding_is_rejected_by_its_name(unknown):
    with pytest.raises(UnknownEncoding, match="is not supported") as refused:
        content_codings(f"gzip, {unknown}")
    assert unknown in str(refused.value)
    assert refused.value.status == 415


def test_three_codings_on_top_of_each_other_are_rejected():
    with pytest.raises(UnknownEncoding, match="3 compressions, more than 2"):
        content_codings("gzip, br, gzip")


def test_brotli_in_brotli_is_rejected():
    with pytest.raises(UnknownEncoding, match="br twice"):
        content_codings("br, br")


@pytest.mark.parametrize(
    ("head", "coding"),
    [
        (b"\x1f\x8b\x08\x00", ContentCoding.GZIP),
        (b"\x28\xb5\x2f\xfd", ContentCoding.ZSTD),
        (b"\x78\x01\x00\x00", ContentCoding.DEFLATE),
        (b"\x78\x9c\x00\x00", ContentCoding.DEFLATE),
        (b"\x78\xda\x00\x00", ContentCoding.DEFLATE),
        (b"", None),
        (b"x", None),
        (b"xm", None),
        (b"<?xm", None),
        (b"\xef\xbb\xbf<", None),
        (b"\xff\xfe<\x00", None),
        (b"PK\x03\x04", None),
    ],
)
def test_a_coding_is_known_by_its_first_bytes(head, coding):
    assert content_coding_of(head) is coding
