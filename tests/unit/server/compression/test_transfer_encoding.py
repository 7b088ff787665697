import quopri
from base64 import b64encode, encodebytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadReport, UnknownEncoding
from bridge.server.compression.transfer_encoding import transfer_decoder

REPORT = '<testsuite name="登录"><testcase name="a=3D" time="0.1"/></testsuite>\n'.encode() * 5


def decode(encoding: str, data: bytes, *, at: tuple[int, ...] = ()) -> bytes:
    decoder = transfer_decoder(encoding, what="a.xml")
    assert decoder is not None
    pieces = (data[begin:end] for begin, end in zip((0, *at), (*at, len(data)), strict=True))
    return b"".join([*map(decoder.feed, pieces), decoder.close()])


@pytest.mark.parametrize("encoding", [None, "", "7bit", "8BIT", " binary "])
def test_what_is_sent_as_it_is_needs_no_decoder(encoding):
    assert transfer_decoder(encoding, what="a.xml") is None


@pytest.mark.parametrize("encoding", ["x-uuencode", "gzip", "base-64"])
def test_an_encoding_that_is_not_supported_is_named(encoding):
    with pytest.raises(UnknownEncoding, match=f'The Content-Transfer-Encoding "{encoding}" is not supported'):
        transfer_decoder(encoding, what="a.xml")


@pytest.mark.parametrize(
    "encoded",
    [
        b64encode(REPORT),
        b64encode(REPORT).rstrip(b"="),
        encodebytes(REPORT),
        encodebytes(REPORT).replace(b"\n", b"\r\n"),
        b"\r\n" + b64encode(REPORT) + b" \t\r\n",
    ],
    ids=["one line", "no padding", "lines", "CRLF", "blanks"],
)
@pytest.mark.parametrize("encoding", ["base64", "BASE64", " Base64"])
def test_base64_is_decoded(encoding, encoded):
    assert decode(encoding, encoded) == REPORT


@pytest.mark.parametrize(
    "broken",
    [REPORT, b"YWJj=", b"YWJjZ", b"YWI=YWI=", b"YW-_", b"====", b"YWJj*"],
    ids=["plain", "padding", "one letter", "two values", "for URLs", "only padding", "no letter"],
)
def test_broken_base64_is_named(broken):
    for at in ((), tuple(range(1, len(broken)))):
        with pytest.raises(BadReport, match=r"a\.xml is not valid base64, which the Content-Transfer-Encoding"):
            decode("base64", broken, at=at)


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        (b"a=3Db", b"a=b"),
        (b"a=\r\nb", b"ab"),
        (b"a=\nb", b"ab"),
        (b"a= \t\r\nb", b"ab"),
        (b"a=e6=B5=8b\r\n", "a测\r\n".encode()),
        (b"a=", b"a"),
        (b"a=\r", b"a"),
        ("测".encode(), "测".encode()),
        (b"", b""),
    ],
)
def test_quoted_printable_is_decoded_wherever_it_is_cut(encoded, decoded):
    assert decode("Quoted-Printable", encoded) == decoded
    assert decode("quoted-printable", encoded, at=tuple(range(1, len(encoded)))) == decoded


@pytest.mark.parametrize("broken", [REPORT, b"a=G1", b"a=4", b"a=x\r\n", b"a==3D"])
def test_a_part_that_is_not_quoted_printable_is_named_and_never_changed(broken):
    for at in ((), tuple(range(1, len(broken)))):
        with pytest.raises(BadReport, match=r"a\.xml is not valid quoted-printable"):
            decode("quoted-printable", broken, at=at)


@given(st.data())
def test_what_a_library_encodes_comes_back_wherever_the_network_cuts_it(data):
    content = data.draw(st.binary(max_size=300))
    for encoding, encoded in (("base64", encodebytes(content)), ("quoted-printable", quopri.encodestring(content))):
        at = tuple(sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=8))))
        assert decode(encoding, encoded, at=at) == content


@pytest.mark.parametrize(("encoding", "piece"), [("base64", b"\r\n" * 1000), ("quoted-printable", b"= \t" * 1000)])
def test_nothing_is_held_back_for_long(encoding, piece):
    decoder = transfer_decoder(encoding, what="a.xml")
    try:
        for _ in range(100):
            decoder.feed(piece)
            assert len(decoder._rest) < 100
    except BadReport:
        assert encoding == "quoted-printable"
