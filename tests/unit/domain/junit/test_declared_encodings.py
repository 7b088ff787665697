"""Reports in every encoding that Python knows, under each of its names: names come out right, or are rejected."""

import encodings
import pkgutil
from encodings.aliases import aliases

import pytest
from lxml import etree

from bridge.domain.junit.encoding import codec_of
from bridge.domain.junit.repair.repair import Repaired, prepare, repair
from bridge.domain.junit.result import Invalid
from bridge.domain.junit.validator import validate_bytes

MODULES = {module.name for module in pkgutil.iter_modules(encodings.__path__)}
NAMES = sorted(MODULES | set(aliases))
TEXTS = [
    "ascii", "a\\b~c", "crème «é»", "Straße größer", "zahlt 5 € bar", "žluť", "ÆØÅ", "привет", "Қазақ", "δοκιμή",
    "עברית",
    "ไทย", "ﷺ", "购物车測試", "購物車", "로그인 버튼 클릭", "똠방각하", "가각갂", "テスト表①", "ｱｲｳ ｶﾞ〜－", "¥ ‾", "😀",
]  # fmt: skip


def encoded(name: str, text: str) -> bytes | None:
    document = f'<?xml version="1.0" encoding="{name}"?>\n<testsuite><testcase name="{text}"/></testsuite>'
    try:
        data = document.encode(name)
        return data if data.decode(name) == document else None
    except (LookupError, ValueError):  # no codec of text on this system, or it lacks a character
        return None


def sent(data: bytes) -> list[Repaired | Invalid]:
    return [prepare(validate_bytes(data), lambda: iter((data,))), repair(lambda: iter((data,)))]


OF_TEXT = [name for name in NAMES if any(encoded(name, text) for text in TEXTS)]  # others are of bytes, such as base64


@pytest.mark.parametrize("initial", sorted({name[:2] for name in OF_TEXT}))
def test_every_name_of_every_codec_is_read_right_or_rejected_by_that_name(initial: str):
    judged = 0
    for name in (name for name in OF_TEXT if name.startswith(initial)):
        for text in TEXTS:
            for spelled in {name, name.upper(), name.replace("_", "-")}:
                data = encoded(spelled, text)
                for result in sent(data) if data else ():
                    judged += 1
                    if isinstance(result, Invalid):
                        assert spelled.lower() in result.found, (spelled, text, result)
                    else:
                        report = etree.fromstring(b"".join(result.chunks()))
                        assert report[0].get("name") == text, (spelled, result)
    assert judged


@pytest.mark.parametrize(
    ("names", "codec"),
    [
        ("Cp437 IBM437 cp00437 x-cp437 csIBM437", "cp437"),
        ("ISO8859_15 8859_15 ISO-8859-15", "iso8859-15"),
        ("ks_c_5601-1987 EUC_KR csEUCKR korean", "euc_kr"),
        ("MS949 x-windows-949 windows-949 ms_949", "cp949"),
        ("Cp1252 windows-1252 x-cp1252 ibm-1252 ANSI", "cp1252"),
        ("MS932 windows-31j Windows-31J csWindows31J x-PCK", "cp932"),
        ("SJIS x-sjis shift-jis csShiftJIS", "shift_jis"),
        ("Big5_HKSCS x-MS950-HKSCS", "big5hkscs"),
        ("IBM00858 Cp858 x-IBM858", "cp858"),
        ("x-MacRoman MacRoman macintosh mac", "mac-roman"),
        ("x-MacCyrillic MacUkraine", "mac-cyrillic"),
        ("x-MacCentralEurope", "mac-latin2"),
        ("MS936 windows-936 x-mswin-936", "gbk"),
        ("EUC_CN csISO58GB231280 gb_2312-80", "gb2312"),
        ("TIS620 TIS-620", "tis-620"),
        ("Cp037 IBM037", "cp037"),
        ("IBM01140", "cp1140"),
        ("iso-8859-8-i", "iso8859-8"),
        ("UTF8 utf_8 UTF-8N utf8mb4 csUTF8 unicode-1-1-utf-8", "utf-8"),
        ("x-euc-jp-linux EUC_JP x-eucJP-Open", "euc_jp"),
        ("klingon-8 IBM-Thai EUC_TW x-JISAutoDetect unicode_escape hex x cs x- 8859_99 undefined", ""),
        ("测试 a\0b " + "x" * 200, ""),
    ],
)
def test_names_of_java_windows_and_browsers_are_known(names: str, codec: str):
    assert {name: codec_of(name.lower()) for name in names.split(" ") if name} == {
        name: codec for name in names.split(" ") if name
    }


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("blanks", ["", "\n\t"])
def test_the_declaration_is_corrected_and_all_else_stays(quote: str, blanks: str):
    body = "\n<testsuite>\r\n<testcase name='größer'/><![CDATA[&#0;]]></testsuite>\n"
    head = f"<?xml version={quote}1.0{quote}  encoding={quote}Cp437{quote} standalone={quote}yes{quote} ?>"
    data = (blanks + head + body).encode("cp437")
    for result in sent(data):
        assert isinstance(result, Repaired)
        assert b"".join(result.chunks()).decode() == f'<?xml version="1.0" encoding="UTF-8"?>{body}'
        assert result.done == ("It was converted from cp437 to UTF-8.",)
        assert (result.accepted.encoding, result.accepted.codec) == ("utf-8", "")


def test_bytes_that_do_not_fit_a_declared_encoding_are_named():
    data = b'<?xml version="1.0" encoding="MS949"?>\n<testsuite>\n<testcase name="\xff"/></testsuite>'
    invalid = validate_bytes(data)
    assert isinstance(invalid, Invalid)
    assert invalid.found == "it declares ms949, but byte 0xff at line 3 is not valid ms949."


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'<?xml version="1.0" encoding="cp037"?><testsuite/>', "it declares cp037, but its bytes are not."),
        ('<?xml version="1.0" encoding="cp1047"?><testsuite/>'.encode("cp037"), '"cp1047"'),
        ('<?xml version="1.0"?><testsuite/>'.encode("cp037"), '"ebcdic"'),
        ('<?xml version="1.0" encoding="IBM-Thai"?><testsuite/>'.encode("cp037"), '"ibm-thai"'),
    ],
)
def test_a_declaration_that_contradicts_the_bytes_is_rejected_by_name(data: bytes, found: str):
    for result in (validate_bytes(data), validate_bytes(data + b" " * (2 << 20))):
        assert isinstance(result, Invalid)
        assert (result.reason, found in result.found) == ("encoding", True), result


@pytest.mark.parametrize("encoding", ["Cp437", "utf-32", "shift_jis"])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_large_report_is_converted_in_pieces(encoding: str, size: int):
    case = "<testcase name='a\\b'><failure/></testcase>\n"
    report = f'<?xml version="1.0" encoding="{encoding}"?><testsuite>{case * 3000}</testsuite>'
    data = report.encode(encoding)

    def source():
        return (data[at : at + size] for at in range(0, len(data), size))

    result = repair(source)
    assert isinstance(result, Repaired)
    assert result.accepted.counts.failures == 3000
    assert b"".join(result.chunks()).decode().endswith(f"<testsuite>{case * 3000}</testsuite>")
