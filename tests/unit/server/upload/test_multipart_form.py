from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BadParameter, CallerError, TooLarge, UnknownEncoding
from bridge.server.upload.multipart_form import (
    MAX_FIELD_BYTES,
    MAX_FOLDED_LINES,
    MAX_PLAIN_PARTS,
    FileStart,
    UploadForm,
)
from tests.support.calls import calls_of

BOUNDARY = "b0undary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    head = "\r\n".join((f"Content-Disposition: form-data; {disposition}", *headers))
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def read(body: bytes, *, at: tuple[int, ...] = (), content_type: str | None = CONTENT_TYPE, max_files: int = 10):
    """Read `body` cut at the given places; return the files as (name, content) and the fields."""
    form = UploadForm(content_type, max_files=max_files)
    files: list[tuple[str, bytes]] = []
    name, content = "", b""
    for begin, end in zip((0, *at), (*at, len(body)), strict=True):
        if begin == end:
            continue
        for event in form.feed(body[begin:end]):
            if event is None:
                files.append((name, content))
            elif isinstance(event, FileStart):
                name, content = event.name, b""
            else:
                content += event
    form.close()
    return files, form.fields


@pytest.mark.parametrize("field", ["files", "file", "files[]", "files[0]", "file[12]"])
def test_a_file_is_read_under_each_name_that_people_write(field):
    files, _ = read(part(f'name="{field}"; filename="a.xml"', b"<a/>", "Content-Type: text/xml") + END)
    assert files == [("a.xml", b"<a/>")]


def test_the_encoding_of_a_part_comes_with_its_name():
    form = UploadForm(CONTENT_TYPE, max_files=10)
    body = part('name="files"; filename="a.xml"', b"x", "content-encoding: gzip") + END
    assert next(form.feed(body)) == FileStart("a.xml", "gzip")
    form = UploadForm(CONTENT_TYPE, max_files=10)
    body = part('name="files"; filename="a.xml"', b"x", "Content-transfer-encoding: base64") + END
    assert next(form.feed(body)) == FileStart("a.xml", None, "base64")


@pytest.mark.parametrize(
    ("encoding", "value"),
    [
        ("base64", b64encode("登录".encode())),
        ("BASE64", b"\r\n55m75b2V\r\n"),
        ("quoted-printable", b"=E7=99=BB=\r\n=E5=BD=95"),
    ],
)
def test_a_field_is_decoded_from_its_transfer_encoding(encoding, value):
    body = part('name="branch"', value, f"Content-Transfer-Encoding: {encoding}") + END
    assert read(body)[1] == {"branch": "登录"}


def test_a_field_that_cannot_be_decoded_is_named():
    with pytest.raises(UnknownEncoding, match='form field "branch": The Content-Transfer-Encoding "x-uue" is not'):
        read(part('name="branch"', b"x", "Content-Transfer-Encoding: x-uue") + END)
    with pytest.raises(BadParameter, match='The form field "branch" is not valid base64'):
        read(part('name="branch"', b"m*in", "Content-Transfer-Encoding: base64") + END)
    assert read(part('name="comment"', b"x", "Content-Transfer-Encoding: x-uue") + END) == ([], {})


@pytest.mark.parametrize(
    "parts",
    [
        [part('name="branch"', "登录".encode("gbk"), "Content-Type: text/plain; charset=gbk")],
        [part('name="branch"', "登录".encode("utf-16"), "Content-Type: text/plain; charset=UTF-16")],
        [part('name="branch"', "登录".encode("gbk"))],
        [part('name="branch"', "登录".encode("gbk"), "Content-Type: text/plain; charset=utf-8")],
        [part('name="branch"', "登錄".encode("big5")), part('name="_charset_"', b"big5")],
        [part('name="_charset_"', b"nope"), part('name="branch"', "登录".encode())],
    ],
    ids=["gbk", "utf-16", "unstated", "misstated", "_charset_", "unknown"],
)
def test_a_field_is_decoded_in_its_charset(parts):
    assert read(b"".join(parts) + END)[1]["branch"] in {"登录", "登錄"}


def test_bytes_before_and_after_the_parts_are_ignored():
    body = b"This is a multi-part message.\r\n" + part('name="files"; filename="a.xml"', b"x") + END + b"the end\r\n"
    assert read(body) == ([("a.xml", b"x")], {})


def test_a_field_that_says_two_things_is_rejected():
    with pytest.raises(BadParameter, match='branch is given twice, as "main" and as "dev"'):
        read(part('name="branch"', b"main") + part('name="branch"', b"dev") + END)


def test_files_and_fields_may_stand_in_any_order():
    body = (
        part('name="branch"', b"main")
        + part('name="files"; filename="a.xml"', b"one")
        + part('name="commit"', b"c0ffee")
        + part('name="files"; filename="b.xml"', b"")
        + part('name="complete"', b"true")
        + END
    )
    assert read(body) == (
        [("a.xml", b"one"), ("b.xml", b"")],
        {"branch": "main", "commit": "c0ffee", "complete": "true"},
    )


@given(st.data())
def test_where_the_network_cuts_the_body_changes_nothing(data):
    content = data.draw(st.binary(max_size=300).filter(lambda drawn: BOUNDARY.encode() not in drawn))
    body = part('name="branch"', b"main") + part('name="files"; filename="a.xml"', content) + END
    at = tuple(sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8))))
    assert read(body, at=at) == ([("a.xml", content)], {"branch": "main"})


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('name="files"; filename="TEST-报告.xml"', "TEST-报告.xml"),
        ('name="files"; filename="../../etc/passwd"', "../../etc/passwd"),
        ('name="files"; filename="%2e%2e/a.xml"', "%2e%2e/a.xml"),
        ('name="files"; filename="a\x00b.xml"', "a\x00b.xml"),
        ('name="files"; filename="a%22b.xml"', 'a"b.xml'),
        ('name="files"', "report.xml"),
        ('name="files"; filename=""', "report.xml"),
        ("name=\"files\"; filename*=UTF-8''%E6%8A%A5.xml", "报.xml"),
        (f'name="files"; filename="{"n" * 4096}"', "n" * 4096),
    ],
)
def test_a_name_is_data_and_comes_through_as_it_was_sent(disposition, name):
    assert read(part(disposition, b"x") + END)[0] == [(name, b"x")]


@pytest.mark.parametrize("blank", [" ", "\t"])
def test_a_header_may_be_folded_into_some_lines_and_costs_no_more_with_thousands(blank):
    def folded(lines: int) -> bytes:
        return part('name="files"; filename="a.xml"', b"x", "X-Folded: a" + f"\r\n{blank}a" * lines) + END

    def is_refused() -> None:
        with pytest.raises(TooLarge, match="too large a header"):
            read(folded(20 * MAX_FOLDED_LINES))

    assert read(folded(MAX_FOLDED_LINES))[0] == [("a.xml", b"x")]
    assert calls_of(is_refused) < 2 * calls_of(lambda: read(folded(MAX_FOLDED_LINES)))


def test_a_name_in_gbk_is_legible():
    body = part('name="files"; filename="GBK"', b"x").replace(b"GBK", "报告.xml".encode("gbk")) + END
    assert read(body)[0] == [("报告.xml", b"x")]


def test_unknown_fields_are_ignored():
    assert read(part('name="comment"', b"x" * 100_000) + END) == ([], {})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (part('name="files"; filename="a.xml"', b"x"), "not a complete"),
        (part('name="files"; filename="a.xml"', b"x") + END[:-4], "not a complete"),
        (b"no form at all", "not a complete"),
        (f"--{BOUNDARY}\r\nno header\r\n\r\nx".encode() + END, "not a complete"),
        (f"--{BOUNDARY}\r\nContent-Type: text/xml\r\n\r\nx\r\n".encode() + END, "not a complete"),
        (part('name="report"; filename="a.xml"', b"x") + END, 'field "report"'),
        (part('name="branch"', b"x" * (MAX_FIELD_BYTES + 1)) + END, "longer than"),
        (part('name="files"', b"x", "Content-Type: multipart/mixed; boundary=c") + END, "itself multipart"),
        (part('name="files"; filename="a"', b"abc", "Content-Length: 2") + END, "not a complete"),
        (part('name="files"; filename="a"', b"abc", "Content-Length: 4") + END, "not a complete"),
    ],
    ids=[
        "no end",
        "cut end",
        "no form",
        "bad header",
        "no disposition",
        "misnamed",
        "long field",
        "nested",
        "lies",
        "lacks",
    ],
)
def test_a_form_that_is_not_whole_is_rejected(body, says):
    with pytest.raises(BadParameter, match=says):
        read(body)


@pytest.mark.parametrize(
    "body",
    [
        part('name="files"; filename="a"', b"x") * 11 + END,
        part('name="x"', b"") * (MAX_PLAIN_PARTS + 11) + END,
        part('name="files"; filename="a"', b"x", "X-Long: " + "h" * 1_000_000) + END,
        part('name="files"; filename="a"', b"x", *(f"X-{number}: h" for number in range(20))) + END,
    ],
    ids=["files", "parts", "long header", "many headers"],
)
def test_too_much_of_anything_is_rejected(body):
    with pytest.raises(TooLarge):
        read(body)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/xml",
        "multipart/mixed; boundary=b",
        "multipart/form-data",
        "multipart/form-data; boundary=",
    ],
)
def test_a_body_that_is_no_form_is_rejected(content_type):
    with pytest.raises(BadParameter):
        read(END, content_type=content_type)


def test_a_boundary_of_any_length_is_not_taken():
    with pytest.raises(BadParameter, match="boundary"):
        read(END, content_type="multipart/form-data; boundary=" + "b" * 1000)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_form_or_a_rejection(body):
    for candidate in (
        body,
        part('name="files"; filename="a"', b"x") + body,
        b"--" + BOUNDARY.encode() + b"\r\n" + body,
    ):
        try:
            read(candidate)
        except CallerError as error:
            assert error.status in {400, 413}  # noqa: PT017 -- both outcomes are right
