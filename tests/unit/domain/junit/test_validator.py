"""The validator: dialects and their counts, encodings, limits, and the message of each rejection."""

import time
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.junit.validator import (
    Invalid,
    JUnitValidator,
    TestCounts,
    Valid,
    ValidationResult,
    validate_bytes,
    validate_source,
)

ZERO = {"suites": 0, "tests": 0, "failures": 0, "errors": 0, "skipped": 0, "flaky": 0, "time_us": 0} | {
    "suite_errors": 0,
    "disabled": 0,
}


def stream(data: bytes, size: int = 1 << 20) -> ValidationResult:
    return validate_source(lambda: (data[start : start + size] for start in range(0, len(data), size)))


def accepted(data: bytes) -> Valid:
    """Both ways must agree, whatever the chunks."""
    verdict = validate_bytes(data)
    assert stream(data) == stream(data, 7) == verdict
    assert isinstance(verdict, Valid), verdict
    return verdict


def refused(data: bytes) -> Invalid:
    verdict = validate_bytes(data)
    assert stream(data) == stream(data, 7) == verdict
    assert isinstance(verdict, Invalid), verdict
    return verdict


DIALECTS = {
    "surefire": (
        """<?xml version="1.0" encoding="UTF-8"?>
<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="https://x/s.xsd"
  name="shop.CartTest" time="1,234.5" tests="5" errors="1" skipped="1" failures="1">
  <properties><property name="java.version" value="17"/></properties>
  <testcase name="adds" classname="shop.CartTest" time="0.001"/>
  <testcase name="removes"><failure message="x" type="E"><![CDATA[at <init>]]></failure></testcase>
  <testcase name="pays"><error type="E"/><system-out>hello</system-out></testcase>
  <testcase name="ships"><skipped message="later"/></testcase>
  <testcase name="flakes"><flakyFailure type="E"><stackTrace>at</stackTrace></flakyFailure></testcase>
</testsuite>""",
        {"suites": 1, "tests": 5, "failures": 1, "errors": 1, "skipped": 1, "flaky": 1, "time_us": 1_234_500_000},
    ),
    "surefire rerun that failed every time": (
        '<testsuite><testcase name="a"><failure/><rerunFailure/><rerunError/></testcase></testsuite>',
        {"suites": 1, "tests": 1, "failures": 1},
    ),
    "rerun marks on a case that passed": (
        '<testsuite><testcase name="a"><flakyError/><rerunFailure/></testcase></testsuite>',
        {"suites": 1, "tests": 1, "flaky": 1},
    ),
    "pytest": (
        """<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests">
<testsuite name="pytest" errors="0" failures="1" skipped="1" tests="3" time="0.019">
<testcase classname="t" name="a[1]" time="0.002"/>
<testcase classname="t" name="b"><skipped type="pytest.xfail" message=""/></testcase>
<testcase classname="t" name="c"><failure message="assert False">def c(): ...</failure></testcase>
</testsuite></testsuites>""",
        {"suites": 1, "tests": 3, "failures": 1, "skipped": 1, "time_us": 19_000},
    ),
    "jest suite that failed to run": (
        """<testsuites name="jest tests" tests="1" failures="0" errors="1" time="0.646">
<testsuite name="libs/foo.spec.ts"><testcase classname="Test suite failed to run" name="libs/foo.spec.ts">
<error>● TS6258</error></testcase></testsuite></testsuites>""",
        {"suites": 1, "tests": 1, "errors": 1, "time_us": 646_000},
    ),
    "phpunit nests suites": (
        """<testsuites><testsuite name="CLI" tests="2" time="2.5">
<testsuite name="A" time="1.5"><testcase name="a" time="1.5"/></testsuite>
<testsuite name="B" time="1"><testcase name="b"><skipped/></testcase></testsuite>
</testsuite></testsuites>""",
        {"suites": 3, "tests": 2, "skipped": 1, "time_us": 2_500_000},
    ),
    "gradle retry repeats the case": (
        """<testsuite time="2"><testcase name="a" classname="C"><failure/></testcase>
<testcase name="a" classname="C"/></testsuite>""",
        {"suites": 1, "tests": 2, "failures": 1, "time_us": 2_000_000},
    ),
    "cases with more than one outcome": (
        """<testsuite><testcase name="a"><skipped/><failure/><error/></testcase>
<testcase name="b"><skipped/><failure/></testcase></testsuite>""",
        {"suites": 1, "tests": 2, "errors": 1, "failures": 1},
    ),
    "two failures in one case": (
        '<testsuite><testcase name="a"><failure/><failure/></testcase></testsuite>',
        {"suites": 1, "tests": 1, "failures": 1},
    ),
    "outcomes outside of cases": (
        "<testsuite><failure/><properties><error/></properties><testcase><system-out/></testcase></testsuite>",
        {"suites": 1, "tests": 1, "suite_errors": 1},
    ),
    "times only on cases": (
        '<testsuites><testsuite><testcase time="0.25"/><testcase time="-0.05"/></testsuite></testsuites>',
        {"suites": 1, "tests": 2, "time_us": 200_000},
    ),
    "a suite without time beside one with": (
        """<testsuites><testsuite time="3"><testcase time="9"/></testsuite>
<testsuite><testcase time="1"/></testsuite></testsuites>""",
        {"suites": 2, "tests": 2, "time_us": 4_000_000},
    ),
    "namespaced": (
        """<testsuites xmlns="urn:junit" time="1"><testsuite><testcase><failure/></testcase></testsuite>
</testsuites>""",
        {"suites": 1, "tests": 1, "failures": 1, "time_us": 1_000_000},
    ),
    "prefixed": (
        '<j:testsuite xmlns:j="urn:junit"><j:testcase name="a"><j:flakyFailure/></j:testcase></j:testsuite>',
        {"suites": 1, "tests": 1, "flaky": 1},
    ),
    "an undeclared prefix": (
        '<testsuite xsi:a="b"><x:y/><testcase name="a"/></testsuite>',
        {"suites": 1, "tests": 1},
    ),
    "no cases": ('<testsuites name="jest tests" tests="0" time="11.299"/>', {"time_us": 11_299_000}),
    "nothing at all": ("<testsuites/>", {}),
    "a doctype": ('<!DOCTYPE testsuite SYSTEM "http://127.0.0.1:9/x.dtd"><testsuite/>', {"suites": 1}),
    "a long licence before the root": (
        f"<!-- {'licence ' * 9000}-->\n<testsuite><testcase/></testsuite>\n",
        {"suites": 1, "tests": 1},
    ),
    "blank lines before the declaration": ('\r\n \n<?xml version="1.0"?>\n<testsuite/>', {"suites": 1}),
}


@pytest.mark.parametrize(("report", "counts"), DIALECTS.values(), ids=DIALECTS.keys())
def test_every_dialect_is_accepted_with_its_counts(report: str, counts: dict[str, int]):
    assert asdict(accepted(report.encode()).counts) == ZERO | counts


def test_totals_that_disagree_with_the_cases_are_noted():
    verdict = accepted(
        b'<testsuites tests="8" failures="0" errors="" time="1"><testsuite><testcase/></testsuite></testsuites>'
    )
    assert verdict.notes[0] == "the totals disagree with the cases: the root has tests 8 (counted 1)"


def test_totals_that_agree_are_not_noted():
    assert (
        accepted(
            b'<testsuites tests="1" failures=" 0 " time="1"><testsuite><testcase name="a"/></testsuite></testsuites>'
        ).notes
        == ()
    )


@pytest.mark.parametrize("time", ["soon", "1e400", "nan", "00:00:01.5", "99999999999999"])
def test_an_unreadable_time_is_noted_and_the_next_below_is_taken(time: str):
    verdict = accepted(f'<testsuite time="{time}"><testcase name="a" time="2"/></testsuite>'.encode())
    assert verdict.counts.time_us == 2_000_000
    assert verdict.notes == (f'1 unreadable time(s), such as "{time}"',)


def test_a_hostile_attribute_does_not_flood_the_notes():
    verdict = accepted(b'<testsuite tests="%s" time="%s"/>' % (b"9" * 5000, b"x" * 5000))
    assert sum(map(len, verdict.notes)) < 300


TEXTS = {
    "utf-8": "支付失败 é 한",
    "utf-16": "支付失败 é 한",
    "utf-16-le": "支付失败",
    "iso-8859-1": "crème",
    "iso-8859-2": "žluť",
    "iso-8859-15": "5 €",
    "windows-1250": "žluť",
    "windows-1251": "привет",
    "windows-1252": "“crème” 5 €",
    "gbk": "购物车測試",
    "gb2312": "购物车",
    "gb18030": "购物车𠀀",
    "big5": "購物車",
    "shift_jis": "テスト表",
    "euc-kr": "한국어",
}


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("padding", [0, 5000, 200_000], ids=["small", "past the head", "past a piece"])
def test_every_encoding_is_read_by_its_declaration(encoding: str, padding: int):
    report = (
        f'<?xml version="1.0" encoding="{encoding}"?>\n<testsuite name="{"x" * padding}">'
        f'<testcase name="{TEXTS[encoding]}"><failure>{TEXTS[encoding]}</failure></testcase></testsuite>'
    )
    verdict = accepted(report.encode(encoding))
    assert (verdict.counts.tests, verdict.counts.failures) == (1, 1)
    assert verdict.encoding.replace("-", "") == encoding.replace("-", "")


@pytest.mark.parametrize("blanks", ["", "\n", " \r\n\t"])
@pytest.mark.parametrize("declaration", ["", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-16"?>'])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_decides_and_blanks_after_it_are_forgiven(encoding: str, declaration: str, blanks: str):
    report = f"{blanks}{declaration}<testsuite><testcase name='中'/></testsuite>"
    assert accepted(report.encode(encoding)).encoding == encoding.removesuffix("-sig")


@pytest.mark.parametrize(
    ("declaration", "text", "actual", "found"),
    [
        (
            'encoding="utf-8"',
            "测试失败",
            "gbk",
            "it declares utf-8, but byte 0xb2 at line 3 is not valid utf-8; it looks like gbk.",
        ),
        (
            'encoding="UTF-8"',
            "crème",
            "windows-1252",
            "it declares utf-8, but byte 0xe8 at line 3 is not valid utf-8; it looks like windows-1252.",
        ),
        (
            "",
            "测试失败",
            "gbk",
            (
                "it declares no encoding, which means utf-8, but byte 0xb2 at line 3 is not valid utf-8; "
                "it looks like gbk."
            ),
        ),
        (
            'encoding="gb2312"',
            "測試",
            "gbk",
            "it declares gb2312, but byte 0x9c at line 3 is not valid gb2312; it looks like gbk.",
        ),
        (
            'encoding="utf-8"',
            "ÄÖ",
            "windows-1252",
            (
                "it declares utf-8, but byte 0xc4 at line 3 is not valid utf-8; "
                "it looks like gbk, big5, euc-kr or windows-1252."
            ),
        ),
        (
            'encoding="utf-8"',
            "預期結果與實際不符",
            "big5",
            "it declares utf-8, but byte 0xb9 at line 3 is not valid utf-8; it looks like gbk or big5.",
        ),
        (
            'encoding="utf-8"',
            "привет",
            "windows-1251",
            "it declares utf-8, but byte 0xef at line 3 is not valid utf-8.",
        ),
    ],
)
@pytest.mark.parametrize("wrap", ['<testcase name="{}"/>', "<system-out><![CDATA[{}]]></system-out>"])
@pytest.mark.parametrize("padding", [0, 200_000])
def test_bytes_of_another_encoding_are_named_with_byte_line_and_likely_encoding(
    declaration: str, text: str, actual: str, found: str, wrap: str, padding: int
):
    head = f'<?xml version="1.0" {declaration}?>\n<testsuite a="{"x" * padding}">\n'
    report = head.encode() + wrap.format(text).encode(actual) + b"\n</testsuite>"
    verdict = refused(report)
    assert (verdict.reason, verdict.found, verdict.line) == ("encoding", found, 3)


@pytest.mark.parametrize("padding", [0, 2 << 20])
@pytest.mark.parametrize("encoding", ["ISO-8859-1", "latin1"])
def test_letters_of_windows_1252_under_iso_8859_1_are_noted(encoding: str, padding: int):
    head = f'<?xml version="1.0" encoding="{encoding}"?><testsuite><testcase name="'.encode()
    tail = b'"/></testsuite>' + b" " * padding
    assert accepted(head + "crème".encode("latin-1") + tail).notes == ()
    [note] = accepted(head + "“crème”".encode("windows-1252") + tail).notes
    assert "windows-1252" in note


FORBIDDEN = ["\x1b[31m", "\x01", "\0", "\ufffe", "&#27;", "&#x1b;", "&#x001B;", "&#0;", "&#xFFFF;"]
PLACES = ["{}", '<failure message="{}"/>', "<failure>x{}</failure>"]
RAW_PLACES = [*PLACES, "<failure><![CDATA[a\n{}]]></failure>", "<!-- {} -->", "<?x {}?>"]


@pytest.mark.parametrize("character", FORBIDDEN)
@pytest.mark.parametrize("padding", [0, 70_000])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_every_spelling_of_a_control_character_gets_the_same_words(character: str, padding: int, version: str):
    for place in PLACES if character.startswith("&") else RAW_PLACES:
        case = f'<testcase name="a"/>{" " * padding}{place.format(character)}'
        verdict = refused(f'<?xml version="{version}"?>\n<testsuite>{case}</testsuite>'.encode())
        name = f'"{character}"' if character.startswith("&") else f"U+{ord(character[0]):04X}"
        position = f"at line {verdict.line}, column {verdict.column}."
        if version == "1.0":
            assert verdict.found == f"it contains a character that XML forbids: {name} {position}"
            assert verdict.remedy.startswith("Keep control characters")
        else:
            assert (
                verdict.found == f"it declares XML 1.1, which is not supported, and XML 1.0 forbids {name} {position}"
            )
            assert verdict.remedy.startswith("The test runner must write XML 1.0, without control characters")


def test_lines_that_were_cut_off_before_the_declaration_are_counted():
    report = '\n\n<?xml version="1.0" encoding="utf-8"?>\n<testsuite name="测试"/>'.encode("gbk")
    assert refused(report).line == 4
    assert refused(b"\n\n<testsuite>\n</testsuites>").line == 4


def test_a_narrow_file_that_calls_itself_utf_16_is_told_so():
    verdict = refused(b'<?xml version="1.0" encoding="utf-16"?><testsuite/>')
    assert (verdict.reason, verdict.found) == (
        "encoding",
        "it declares utf-16, but its characters are one byte wide; it looks like utf-8.",
    )


def test_an_encoding_that_no_one_knows_is_rejected_by_its_name():
    verdict = refused(b'<?xml version="1.0" encoding="klingon-8"?><testsuite/>')
    assert verdict.reason == "encoding"
    assert "klingon-8" in verdict.found


TRX = b'<TestRun xmlns="http://microsoft.com/schemas/VisualStudio/TeamTest/2010"/>'
JACOCO = b'<!DOCTYPE report PUBLIC "-//JACOCO//DTD Report 1.1//EN" "report.dtd"><report name="a"/>'


@pytest.mark.parametrize(
    ("data", "reason", "name"),
    [
        (b'{"tests": 3}', "not_xml", "JSON"),
        (b'[\n  {"name": "a"}]', "not_xml", "JSON"),
        (b"[1, 2]", "not_xml", "JSON"),
        (b"\x1f\x8b\x08\x00\x00\x00", "not_xml", "a gzip archive"),
        (b"PK\x03\x04\x14\x00", "not_xml", "a zip archive"),
        (b"BZh91AY&SY\x8f\x9a\x00", "not_xml", "a bzip2 archive"),
        (b"\xfd7zXZ\x00\x00\x04", "not_xml", "an xz archive"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "not_xml", "a 7z archive"),
        (b"Rar!\x1a\x07\x01\x00", "not_xml", "a RAR archive"),
        (b"\x89PNG\r\n\x1a\n", "not_xml", "a picture"),
        (b"\xff\xd8\xff\xe0\x00\x10", "not_xml", "a picture"),
        (b"\xca\xfe\xba\xbe\x00\x00\x00\x3d", "not_xml", "a Java class"),
        (b"\x01\xc0\xc0\x10\x07", "not_xml", "a JaCoCo execution file"),
        (b"<!doctype html><html></html>", "not_xml", "an HTML page"),
        (b"<!DOCTYPE html><html><body/></html>", "not_junit", "an HTML page"),
        (JACOCO, "not_junit", "a JaCoCo coverage report"),
        (b'<test-run id="2"/>', "not_junit", "an NUnit 3 result"),
        (TRX, "not_junit", "a Visual Studio TRX result"),
        (b'<coverage line-rate="0.5"/>', "not_junit", "a Cobertura coverage report"),
        (b'<coverage generated="1"/>', "not_junit", "a Clover coverage report"),
        (b"<assemblies/>", "not_junit", "an xUnit.net result"),
        (b"<failsafe-summary/>", "not_junit", "a Maven Failsafe summary"),
        (b"<checkstyle/>", "not_junit", "a Checkstyle report"),
    ],
)
def test_other_files_are_rejected_by_their_real_name(data: bytes, reason: str, name: str):
    verdict = refused(data)
    assert (verdict.reason, verdict.found) == (reason, f"this is {name}, not JUnit.")


@pytest.mark.parametrize("scrap", [b"null", b"ok\n", b"0", b"\x00\x01"])
def test_a_scrap_that_never_began_is_not_called_cut_off(scrap: bytes):
    assert refused(scrap).found.startswith("it is not XML: it begins with ")


@pytest.mark.parametrize("log", [b"[INFO] Scanning for projects...\n", b"[12:04:05] go\n", b"{running} 3 tests\n"])
def test_a_build_log_is_not_taken_for_json(log: bytes):
    verdict = refused(log)
    assert verdict.reason == "not_xml"
    assert verdict.found.startswith("it is not XML: it begins with ")


@pytest.mark.parametrize("name", [b"", b" ", b"-x", b"&"])
def test_a_declaration_without_a_valid_encoding_is_named(name):
    result = validate_bytes(b'<?xml version="1.0" encoding="%b"?>\n<testsuite><testcase name="a"/></testsuite>' % name)
    assert (result.reason, result.found) == ("encoding", "its XML declaration names no valid encoding.")


@pytest.mark.parametrize("root", ["foo", "testcase"])
def test_an_unknown_root_is_named(root: str):
    verdict = refused(f"<{root}/>".encode())
    assert (verdict.reason, verdict.found) == (
        "not_junit",
        f"its root element is <{root}>, not testsuites or testsuite.",
    )


NO_END = "that begins at line 2 has no end."
TWO = "another document at line 2, column 1."
QUOTES = "is not in quotation marks"
ENDS = "the file ends too early: at line 2, column"
MORE = "there is more after the end of the report:"


@pytest.mark.parametrize(
    ("data", "reason", "found", "line", "column"),
    [
        (b"hello", "not_xml", 'it is not XML: it begins with "hello" at line 1, column 1.', 1, 1),
        (b"<testsuite a=b/>", "not_xml", f'line 1, column 14: the value of the attribute "a" {QUOTES}.', 1, 14),
        (b"<testsuite a/>", "not_xml", 'line 1, column 13: the attribute "a" has no value.', 1, 13),
        (b"<testsuite a='b'c='d'/>", "not_xml", "line 1, column 17: no blank between two attributes.", 1, 17),
        (b"<testsuite ;/>", "not_xml", 'it is not well-formed XML: ";/>" is not allowed at line 1, column 12.', 1, 12),
        (b"<testsuite>\n<testcase>", "truncated", f'{ENDS} 11, "<testcase>" of line 2 has no end tag.', 2, 11),
        (b"<testsuite>\n<testcase", "truncated", f"{ENDS} 10, a tag {NO_END}", 2, 10),
        (b"<testsuite>\n<a><![CDATA[ab", "truncated", f"{ENDS} 15, a CDATA section {NO_END}", 2, 15),
        (b"<?xml version='1.0'?>\n", "truncated", f"{ENDS} 1, no element has begun.", 2, 1),
        (b"<testsuite/>\n<testsuite/>", "extra_content", f"{MORE} {TWO}", 2, 1),
        (b"<testsuite/>\n<?xml version='1.0'?><a/>", "extra_content", f"{MORE} {TWO}", 2, 1),
        (b"<testsuite/>\nDone in 3 s.\n", "extra_content", f'{MORE} "Done in 3 s." at line 2, column 1.', 2, 1),
    ],
)  # fmt: skip
def test_a_rejection_names_the_fault_and_its_place(data: bytes, reason: str, found: str, line: int, column: int):
    verdict = refused(data)
    assert (verdict.reason, verdict.found, verdict.line, verdict.column) == (reason, found, line, column)
    assert verdict.remedy.endswith(".")


LOGS = "TypeError: undefined is not an object\n\n"
REPORT = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuite tests="1"><testcase name="a"/></testsuite>\n'


@pytest.mark.parametrize(
    "before",
    [LOGS, "TAP version 13\nok 1\n", '{"level": "info"}\n', "# a < b\n", "\ufeff测试\n", "x" * 200_000 + "\n"],
)
@pytest.mark.parametrize("report", [REPORT, "<testsuites><testsuite/></testsuites>"])
def test_text_before_the_report_is_named_with_the_line_of_the_report(before: str, report: str):
    verdict = refused((before + report).encode())
    begins = before.count("\n") + 1
    assert verdict.found.endswith(f"; the report itself begins at line {begins}.")
    assert (verdict.reason, verdict.line) == ("not_xml", begins)
    assert before.strip("\ufeff")[:10].split("\n")[0] in verdict.found


def test_json_that_quotes_a_report_is_json():
    assert refused(b'{"report": "<?xml version=\'1.0\'?>\\n<testsuite>"}').found == "this is JSON, not JUnit."


IN_A_FAILURE = '<testsuite>\n<testcase name="a"/>\n<testcase name="b"><failure>测{}</failure></testcase></testsuite>'
FAULTS = {
    "&": 'line 3, column 30: a bare "&".',
    "& ": 'line 3, column 30: a bare "&".',
    "&;": 'line 3, column 30: a bare "&".',
    "&#;": 'line 3, column 30: a bare "&".',
    "&nbsp y": 'line 3, column 30: a bare "&".',
    "&nbsp;": 'line 3, column 30: the entity "&nbsp;", which XML does not define.',
    "<a b='\n &lt;&nbsp;'/>": 'line 4, column 6: the entity "&nbsp;", which XML does not define.',
    "<": 'line 3, column 30: a bare "<".',
    "< 1": 'line 3, column 30: a bare "<".',
    "<1>": 'line 3, column 30: a bare "<".',
    "<!x>": 'line 3, column 30: a bare "<".',
    "]]>": 'line 3, column 30: a "]]>" outside of a CDATA section.',
    "<![CDATA[a ]]> b ]]>": 'line 3, column 47: a "]]>" outside of a CDATA section.',
    "<![CDATA[a": "line 3, column 30: a CDATA section that never ends.",
    "<!-- a": "line 3, column 30: a comment that never ends.",
    "<!-- a -- b -->": 'line 3, column 37: a "--" within a comment.',
    "<?php a>": "line 3, column 30: a processing instruction that never ends.",
    "<?xml version='1.0'?>": "line 3, column 30: an XML declaration that is not at the start of the file.",
    "<a b='c' b='d'/>": 'line 3, column 39: an element has the attribute "b" twice.',
    "<a b='x<y'/>": 'line 3, column 37: a "<" in the value of an attribute.',
    "<a b='c>": 'line 3, column 38: a "<" in the value of an attribute.',
    "<b>": 'line 3, column 33: "</failure>" does not end "<b>" of line 3.',
    "</b>": 'line 3, column 30: "</b>" does not end "<failure>" of line 3.',
    "\x1b[1m": "it contains a character that XML forbids: U+001B at line 3, column 30.",
    "\0": "it contains a character that XML forbids: U+0000 at line 3, column 30.",
    "<![CDATA[\x1b]]>": "it contains a character that XML forbids: U+001B at line 3, column 39.",
    "<!--\x1b-->": "it contains a character that XML forbids: U+001B at line 3, column 34.",
    "<?a \x1b?>": "it contains a character that XML forbids: U+001B at line 3, column 34.",
    "<a b='\uffff'/>": "it contains a character that XML forbids: U+FFFF at line 3, column 36.",
    "&#27;": 'it contains a character that XML forbids: "&#27;" at line 3, column 30.',
    "<a b='&#9;&#x1B;'/>": 'it contains a character that XML forbids: "&#x1B;" at line 3, column 40.',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030"])
@pytest.mark.parametrize("content", FAULTS)
def test_a_fault_in_the_middle_is_named_with_its_place_and_never_called_cut_off(content: str, encoding: str):
    report = f"<?xml version='1.0' encoding='{encoding}'?>{IN_A_FAILURE.format(content)}"
    verdict = refused(report.encode(encoding))
    assert (verdict.reason, verdict.found) == ("not_xml", FAULTS[content])
    assert f"line {verdict.line}, column {verdict.column}" in verdict.found


@pytest.mark.parametrize("behind", ["\n", "<!-- a --> <!-- b -->\n", "<?a?>\n", "\n<!-- a --><?b?> "])
@pytest.mark.parametrize("content", ["&", "<![CDATA[a"])
def test_what_may_follow_the_root_makes_no_cut_of_a_fault(content: str, behind: str):
    assert refused(f"{IN_A_FAILURE.format(content)}{behind}".encode()).found == FAULTS[content]


@pytest.mark.parametrize("content", ["x & y", "<?php x>", "<![CDATA[x", "<a b='c' b='d'/>"])
def test_a_fault_is_placed_in_the_file_also_behind_blanks_and_far_from_its_beginning(content: str):
    many = '<testcase name="测"/>\n' * 10_000
    report = f"\n \n<?xml version='1.0'\n encoding='utf-8'?>\n<testsuite>\n{many}<a>{content}</a>\n{many}</testsuite>"
    verdict = refused(report.encode("utf-8-sig"))
    assert (verdict.reason, verdict.line) == ("not_xml", 10_006)
    assert 4 <= (verdict.column or 0) <= 13


@pytest.mark.parametrize("opening", ["<!--", "<![CDATA[", "<?php "])
def test_what_never_ends_and_holds_cases_is_no_cut_even_with_a_log_line_behind(opening: str):
    report = IN_A_FAILURE.format(opening).replace("</testsuite>", '<testcase name="c"/></testsuite>\nDone in 3 s\n')
    verdict = refused(report.encode())
    assert (verdict.reason, verdict.line, verdict.column) == ("not_xml", 3, 30)


def test_a_suite_that_is_never_ended_is_no_cut_if_the_file_ends_like_its_root():
    verdict = refused(b"<testsuite>\n <testsuite><testcase/></testsuite>\n<!-- end -->\n")
    assert (verdict.reason, verdict.line, verdict.column) == ("not_xml", 1, 1)
    assert (
        verdict.found == 'line 1, column 1: "<testsuite>" has no end tag, although the file ends with "</testsuite>".'
    )


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [
        (b"<testsuites>\n<testsuite><testcase/></testsuite>\n", 3, 1),
        (b"<testsuite>\n<testcase name='a", 2, 18),
        (b"<testsuite>\n<testcase><!-- a", 2, 17),
        (b"<testsuite>\n<?a", 2, 4),
        (b"<testsuite>\n&am", 2, 4),
        (b"<testsuite>\n<![CDATA[a </testsuites", 2, 24),
        (b"<testsuite>\n\xe6\xb5\x8b\xe6", 2, 2),
    ],
)
def test_a_file_that_really_ends_too_early_is_called_so_with_the_place_of_its_end(data: bytes, line: int, column: int):
    verdict = refused(data)
    assert (verdict.reason, verdict.line, verdict.column) == ("truncated", line, column)


@pytest.mark.parametrize("odd", ["\U00020000", "\U0010fffd", "\u2028", "\ufffd", "\u00b7", "\u0300", "测"])
@pytest.mark.parametrize(
    "markup", ["<{0}>", "<a {0}='b'>", "<a{0} >", "</{0}>", "&{0};", "<?{0} ?>&", "<!{0}>", "<{0}"]
)
def test_a_broken_file_with_any_letters_in_its_markup_has_a_place(markup: str, odd: str):
    verdict = refused(f"<testsuite>\n测{markup.format(odd)}</testsuite>".encode())
    assert (verdict.reason, verdict.line) == ("not_xml", 2)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("blanks", ["", "\n ", "\r\n"])
@pytest.mark.parametrize("declaration", ["", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-8"?>'])
def test_wide_characters_are_read_whatever_the_file_declares(encoding: str, blanks: str, declaration: str):
    report = f"{blanks}{declaration}<testsuite><testcase name='测试'><failure/></testcase></testsuite>"
    verdict = accepted(report.encode(encoding))
    assert (verdict.counts.tests, verdict.counts.failures) == (1, 1)
    assert refused(report.removesuffix("</testsuite>").encode(encoding)).reason == "truncated"


@pytest.mark.parametrize("text", ["I\0\ufffd", "I\0\ufffd<testsuite/>", "测\u2028"])
def test_text_that_is_no_xml_has_a_place_whatever_its_letters(text: str):
    verdict = refused(text.encode())
    assert (verdict.reason, verdict.line) == ("not_xml", 1)


def test_a_long_token_in_a_broken_file_is_read_in_linear_time():
    report = b'<testsuite><testcase name="' + b"x" * (8 << 20) + b'"><failure>&</failure></testcase></testsuite>'
    began = time.process_time()
    assert validate_bytes(report).found.endswith('a bare "&".')
    assert time.process_time() - began < 10  # of CPU; read again with each piece it takes minutes


@pytest.mark.parametrize("data", [b"", b"\n", b"\xef\xbb\xbf \n", "\n".encode("utf-16")])
def test_an_empty_file_is_rejected_as_empty(data: bytes):
    assert refused(data).reason == "empty"


@pytest.mark.parametrize(
    "subset",
    [
        '<!ENTITY a "b">',
        '<!ENTITY % a "b">',
        '<!ENTITY a SYSTEM "file:///etc/hostname">',
        '<!ENTITY % a SYSTEM "http://127.0.0.1:9/"> %a;',
    ],
)
@pytest.mark.parametrize("root", ["<testsuite/>", "<testsuite>&a;</testsuite>"])
def test_any_declared_entity_is_rejected(subset: str, root: str):
    assert refused(f"<!DOCTYPE testsuite [{subset}]>{root}".encode()).reason == "entities"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gbk", "iso-8859-1"])
@pytest.mark.parametrize("padding", [0, 5000, 70_000, 1_100_000])
@pytest.mark.parametrize(
    "subset",
    [
        '<!ATTLIST testcase a CDATA "b">',
        "<!ATTLIST testcase a CDATA #IMPLIED>",
        '<!ELEMENT testcase ANY><!ATTLIST testcase a CDATA "b">',
        '<!-- > --><!ATTLIST testcase xmlns:a CDATA "b">',
        "<!ATTLIST testsuite a (b|c) 'b'>",
    ],
)
def test_declared_attributes_are_rejected(subset: str, encoding: str, padding: int):
    head = f"<?xml version='1.0' encoding='{encoding}'?><!DOCTYPE testsuite [{subset}]>"
    report = f"{head}<testsuite><testcase name='{'x' * padding}'/></testsuite>"
    assert refused(report.encode(encoding)).reason == "entities"


def test_default_values_of_attributes_do_not_multiply_a_small_report():
    names = " ".join(f'a{number} CDATA "{"v" * 20}"' for number in range(500))
    report = f"<!DOCTYPE testsuite [<!ATTLIST testcase {names}>]><testsuite>{'<testcase/>' * 20_000}</testsuite>"
    began = time.process_time()
    assert refused(report.encode()).found.startswith("its DOCTYPE declares attributes")
    assert time.process_time() - began < 1  # of CPU; ten million attributes take more than ten seconds


@pytest.mark.parametrize("content", ["<x>", "<x/>", "<x/><y>", "a<b"])
@pytest.mark.parametrize("padding", [0, 5000, 70_000])
def test_an_entity_that_holds_elements_is_rejected_and_never_unfolded(content: str, padding: int):
    comment = f"<!--{'x' * padding}-->"  # with lxml's events its elements would be touched after they were freed
    for _ in range(5):
        subset = f'<!ENTITY a "{content}">'
        assert refused(f"<!DOCTYPE a [{subset}]>{comment}<testsuite>&a;</testsuite>".encode()).reason == "entities"


def test_an_entity_bomb_is_rejected_before_it_unfolds():
    bomb = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(12))
    report = f'<!DOCTYPE testsuite [<!ENTITY e0 "ha">{bomb}]><testsuite name="&e12;">&e12;</testsuite>'
    assert isinstance(validate_bytes(report.encode()), Invalid)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gbk"])
@pytest.mark.parametrize("padding", [0, 5000, 70_000])
def test_a_doctype_without_entities_passes(encoding: str, padding: int):
    comment = f"<!--{'x' * padding}-->"
    report = (
        f"<?xml version='1.0' encoding='{encoding}'?>{comment}<!DOCTYPE testsuite [<!ELEMENT testsuite ANY>]>{comment}"
    )
    assert accepted(f"{report}<testsuite name='中'><testcase/></testsuite>".encode(encoding)).counts.tests == 1


@given(cut=st.integers(min_value=0, max_value=len(DIALECTS["surefire"][0].encode()) - 1))
def test_any_prefix_of_a_report_is_rejected(cut: int):
    assert isinstance(validate_bytes(DIALECTS["surefire"][0].encode()[:cut]), Invalid)


@given(data=st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: b"<testsuite><testcase>" + tail))
def test_arbitrary_bytes_get_a_verdict_and_the_same_in_any_chunks(data: bytes):
    assert stream(data, 3) == stream(data) == validate_bytes(data)


OUTCOME_NAMES = st.sampled_from(
    ["failure", "error", "skipped", "flakyFailure", "flakyError", "rerunFailure", "rerunError", "system-out"]
)
CASES = st.lists(st.sets(OUTCOME_NAMES, max_size=3), max_size=12)
LETTERS = st.characters(codec="gb18030", exclude_categories=["Cc", "Cs", "Cn", "Co"], exclude_characters="<>&\"'")


@given(
    cases=CASES,
    name=st.text(LETTERS, max_size=20),
    encoding=st.sampled_from(["utf-8", "utf-16", "gb18030"]),
    size=st.integers(1, 5000),
)
def test_any_report_in_any_encoding_and_any_chunks_is_counted_exactly(
    cases: list[set[str]], name: str, encoding: str, size: int
):
    body = "".join(
        f'<testcase name="{name}">{"".join(f"<{tag}>{name}</{tag}>" for tag in tags)}</testcase>' for tags in cases
    )
    document = f"<testsuites time='1'><testsuite>{body}</testsuite></testsuites>"
    report = f"<?xml version='1.0' encoding='{encoding}'?>{document}".encode(encoding)
    verdict = validate_bytes(report)
    assert verdict == stream(report, size)
    assert isinstance(verdict, Valid)
    errors = [tags for tags in cases if "error" in tags]
    failures = [tags for tags in cases if "failure" in tags and tags not in errors]
    ended_well = [tags for tags in cases if not tags & {"error", "failure"}]
    assert verdict.counts == TestCounts(
        suites=1,
        tests=len(cases),
        errors=len(errors),
        failures=len(failures),
        skipped=sum("skipped" in tags for tags in ended_well),
        flaky=sum(
            "skipped" not in tags and any(tag.startswith(("flaky", "rerun")) for tag in tags) for tags in ended_well
        ),
        time_us=1_000_000,
    )


@pytest.mark.parametrize("opening", ["<testsuite>", "<testsuite><testcase/>"])
def test_elements_may_nest_to_the_bound_and_no_deeper(opening: str):
    def nested(depth: int) -> bytes:
        return f"{opening}{'<a>' * (depth - 1)}{'</a>' * (depth - 1)}</testsuite>".encode()

    assert accepted(nested(256)).counts.suites == 1
    assert refused(nested(257)).reason == "too_deep"


def test_a_report_that_never_ends_is_left_at_its_first_fault():
    validator = JUnitValidator()
    for _ in range(100):
        validator.feed(b"<testsuite>" * 100)
    assert validator.invalid is not None
    assert validator.close(lambda: iter(())) == validator.invalid


def test_forty_mebibytes_of_output_pass():
    output = b"y" * (40 << 20)
    for before, after in ((b"<![CDATA[", b"]]>"), (b"", b"")):
        verdict = validate_bytes(
            b"<testsuite><testcase><system-out>" + before + output + after + b"</system-out></testcase></testsuite>"
        )
        assert isinstance(verdict, Valid)
        assert verdict.counts.tests == 1


@pytest.mark.parametrize("size", [7 << 20, 9 << 20, 40 << 20])
def test_an_attribute_passes_to_its_bound_and_no_further(size: int):
    verdict = validate_bytes(b'<testsuite><testcase name="' + b"n" * size + b'"/></testsuite>')
    assert isinstance(verdict, Valid) == (size <= 8 << 20)
    assert isinstance(verdict, Valid) or verdict.reason == "token_too_long"


def test_a_root_that_does_not_begin_within_its_bound_is_rejected():
    assert refused(b"<!--" + b"x" * (2 << 20) + b"--><testsuite/>").reason == "token_too_long"


def test_a_hundred_thousand_cases_pass():
    report = b"<testsuite>" + b'<testcase name="a" time="0.01"/>\n' * 100_000 + b"</testsuite>"
    verdict = validate_bytes(report)
    assert isinstance(verdict, Valid)
    assert (verdict.counts.tests, verdict.counts.time_us) == (100_000, 1_000_000_000)
