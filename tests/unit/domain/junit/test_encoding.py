"""Where a file stops being of its encoding, and what may stand before its first character."""

import pytest

from bridge.domain.junit.encoding import EncodingChecker, trim


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_the_first_bad_byte_is_found_across_pieces(size: int):
    data = "测试\n测试\n好".encode() + b"\xd6\xd0\n"
    watch = EncodingChecker("utf-8")
    for start in range(0, len(data), size):
        watch.feed(data[start : start + size])
    assert watch.fault is not None
    assert (watch.fault.byte, watch.fault.line) == (0xD6, 3)


def test_good_bytes_leave_no_fault_and_unknown_encodings_are_not_watched():
    for encoding, data in (("gbk", "测试".encode("gbk")), ("x-unheard-of", b"\xff\xff")):
        watch = EncodingChecker(encoding)
        for start in range(len(data)):
            watch.feed(data[start : start + 1])
        assert watch.fault is None


@pytest.mark.parametrize(
    ("data", "rest", "lines"),
    [
        (b"<a/>", b"<a/>", 0),
        (b" \n\r\n\t<a/>\n", b"<a/>\n", 2),
        (b"\xef\xbb\xbf\n<a/>", b"\xef\xbb\xbf<a/>", 1),
        ("\n\n<a/>".encode("utf-16-le"), "<a/>".encode("utf-16-le"), 2),
        (b"\xfe\xff" + "\n<a/>".encode("utf-16-be"), b"\xfe\xff" + "<a/>".encode("utf-16-be"), 1),
    ],
)
def test_blanks_before_the_document_are_cut_off_and_the_mark_is_kept(data: bytes, rest: bytes, lines: int):
    assert trim(data) == (rest, lines)
