"""Single raw or cut bytes in UTF-8 are named and replaced; text in another encoding never is."""

import codecs

import pytest

from bridge.domain.junit.encoding_guess import WESTERN
from bridge.domain.junit.repair.repair import Repaired, repair
from bridge.domain.junit.result import Invalid
from bridge.domain.junit.validator import validate_bytes
from tests.unit.domain.junit.repair.test_encoding_detection import CHINESE_TEXTS, UNDECIDABLE, WESTERN_TEXTS, report
from tests.unit.domain.junit.test_encoding import JAPANESE, KOREAN, TAIWANESE

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def repaired(data: bytes) -> Repaired | Invalid:
    return repair(lambda: iter((data,)))


def in_a_report(content: bytes) -> bytes:
    return HEAD.encode() + b"<testsuite><testcase name='a'/>\n<system-out>" + content + b"</system-out></testsuite>"


STRAYS = [
    (b"boot \xff done", 1),
    (b"took 5 \xc2 [output cut]", 1),
    (b"took 5 \xc3", 1),
    (b"\xe6\xb5", 2),
    (b"\xf0\x9f\x98 \xf0\x9f ", 5),
    (b"\xfe \x80 \xbf", 3),
    (b"NUL of Java: \xc0\x80", 2),
    ("测试通过".encode() + b"\xff\xfe\x81\x82", 4),
    ("期待".encode() + b"\xe5\xbe", 2),
    ("café crème".encode() + b" \xe9t\xe9", 2),
    ("emoji 😀".encode() + b"\xed\xa0\xbd", 3),
    ("测试".encode() * 30_000 + b"\xff" + "通过".encode() * 30_000, 1),
]


@pytest.mark.parametrize(("content", "count"), STRAYS, ids=range(len(STRAYS)))
def test_stray_and_cut_bytes_are_counted_and_only_they_are_replaced(content: bytes, count: int):
    data = in_a_report(content)
    result = repaired(data)
    assert isinstance(result, Repaired), result
    assert b"".join(result.chunks()).decode() == data.decode(errors="replace")
    assert result.done == (f"Bytes that are not UTF-8 replaced by U+FFFD: {count}.",)
    assert not result.lossless


@pytest.mark.parametrize(("content", "count"), STRAYS, ids=range(len(STRAYS)))
def test_without_repair_the_first_is_named_with_its_offset_and_line(content: bytes, count: int):
    data = in_a_report(content)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        offset = error.start
    result = validate_bytes(data)
    assert isinstance(result, Invalid)
    others = {0: "all others are", 1: "one more of its bytes is not either"}
    rest = others.get(count - 1, f"{count - 1} more of its bytes are not either")
    assert result.found == (
        f"it declares utf-8, but byte 0x{data[offset]:02x} at line 3 (byte offset {offset}) is not valid utf-8; {rest}."
    )
    assert (result.reason, result.line) == ("encoding", 3)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *UNDECIDABLE,
        *((text, "gbk") for text in CHINESE_TEXTS),
        *((text, WESTERN) for text in WESTERN_TEXTS),
        *((text, "big5") for text in TAIWANESE),
        *((text, "euc-kr") for text in KOREAN),
        *((text, "shift_jis") for text in JAPANESE),
        *((text, "windows-1251") for text in ("и", "тест", "не найден файл: a.txt")),
        *((text, "cp437") for text in ("größer", "prüfen")),
        *((text, "iso-8859-2") for text in ("błąd", "żółty")),
    ],
)
def test_text_in_another_encoding_is_never_replaced(text: str, encoding: str):
    for data in (report(text).encode(encoding), f"<testsuite name='{text}'/>".encode(encoding)):
        result = repaired(data)
        assert isinstance(result, Invalid) or "\ufffd" not in b"".join(result.chunks()).decode(), result


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("text", CHINESE_TEXTS)
def test_a_byte_anywhere_in_utf_8_changes_no_other_character(text: str, encoding: str):
    data = report(text).encode(encoding)
    for at in range(data.index(b"<testcase"), len(data), 3):
        broken = data[:at] + b"\xff" + data[at:]
        result = repaired(broken)
        if isinstance(result, Repaired):
            expected = broken.removeprefix(codecs.BOM_UTF8).decode(errors="replace")
            assert b"".join(result.chunks()).decode() == expected
