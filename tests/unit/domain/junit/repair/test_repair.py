"""Repairs are described, yield valid reports, and change nothing else."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from bridge.domain.junit.repair.repair import Repaired, Source, apply_filter, regroup, repair
from bridge.domain.junit.result import Invalid
from bridge.domain.junit.validator import Valid, validate_bytes


class Doubled:
    """Gives what it got before, twice, one piece late."""

    def __init__(self):
        self.blocked_reason = b""

    def feed(self, piece):
        out, self.blocked_reason = self.blocked_reason * 2, piece
        return out

    def close(self):
        return self.blocked_reason * 2


def test_a_filter_is_fed_and_closed_and_gives_no_empty_chunks():
    assert list(apply_filter(Doubled(), iter([b"a", b"b", b""]))) == [b"aa", b"bb"]
    assert list(apply_filter(Doubled(), iter([]))) == []


@given(chunks=st.lists(st.binary(max_size=20)), size=st.integers(1, 9))
def test_regrouped_bytes_are_the_same_in_pieces_of_one_size(chunks: list[bytes], size: int):
    pieces = list(regroup(iter(chunks), size))
    assert b"".join(pieces) == b"".join(chunks)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(0 < len(piece) <= size for piece in pieces)


def test_pieces_come_as_soon_as_they_are_whole():
    chunks = iter([b"abc", b"d"])
    assert next(regroup(chunks, 2)) == b"ab"
    assert next(chunks) == b"d"


HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
CLOSED = "The file ended too early and was closed; cases may be missing."
TRUNCATED = CLOSED + " Finished cases kept: {}, unfinished ones left out: {}."
KEPT_AS_FAILED = CLOSED + " Finished cases kept: {}, unfinished ones kept as failed: 1."


def source(data: bytes, size: int = 1000) -> Source:
    def chunks() -> Iterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    return chunks


def repaired_bytes(data: bytes, size: int = 1000) -> tuple[bytes, tuple[str, ...]]:
    repaired = repair(source(data, size))
    assert isinstance(repaired, Repaired), repaired
    out = b"".join(repaired.chunks())
    assert validate_bytes(out) == repaired.accepted
    again = repair(source(out))
    assert isinstance(again, Repaired)
    assert (again.done, b"".join(again.chunks())) == ((), out)
    return out, repaired.done


def refuse(data: bytes) -> Invalid:
    refused = repair(source(data))
    assert isinstance(refused, Invalid), refused
    return refused


@pytest.mark.parametrize(
    "data",
    [
        b"<testsuite><testcase/></testsuite>\n",
        "\n<?xml version='1.0' encoding='utf-8'?><testsuite name='测试'/>".encode(),
        "<?xml version='1.0' encoding='utf-8'?><testsuite name='测试'/>".encode("utf-8-sig"),
        b"<?xml version='1.0' encoding='us-ascii'?><testsuite name='&#233;'/>",
        rb"<testsuite><![CDATA[&#27;[31m \x1b[31m &#0;]]>\u001b[0m &amp;#27;[1m</testsuite>",
    ],
)
def test_a_sound_report_stays_byte_for_byte_and_nothing_is_reported(data: bytes):
    assert repaired_bytes(data) == (data, ())


@pytest.mark.parametrize("encoding", ["GBK", "gb2312", "Big5", "ISO-8859-1", "windows-1252", "UTF-16"])
def test_a_sound_report_in_another_encoding_becomes_utf_8(encoding: str):
    text = {"Big5": "購物", "ISO-8859-1": "crème", "windows-1252": "“crème”"}.get(encoding, "购物")
    data = f"<?xml version='1.0' encoding='{encoding}'?>\n<testsuite name='{text}'/>\r\n".encode(encoding)
    for size in (1, 1000):
        out, done = repaired_bytes(data, size)
        assert out.decode() == f"{HEAD}\n<testsuite name='{text}'/>\r\n"
        assert done == (f"It was converted from {encoding.lower()} to UTF-8.",)


def test_a_report_in_an_encoding_that_only_the_parser_knows_stays_as_it_is():
    data = b"<?xml version='1.0' encoding='VISCII'?><testsuite name='\xe1'/>"
    assert repaired_bytes(data) == (data, ())
    assert refuse(data[:-2]).reason == "truncated"


@pytest.mark.parametrize(
    ("text", "actual", "chosen"),
    [("登录失败", "gbk", "gb18030"), ("crème brûlée", "windows-1252", "windows-1252")],
)
@pytest.mark.parametrize("head", [HEAD, "", '<?xml version="1.0" encoding="us-ascii"?>'])
def test_bytes_of_another_encoding_become_utf_8(head: str, text: str, actual: str, chosen: str):
    out, done = repaired_bytes(f'{head}<testsuite name="{text}"><testcase/></testsuite>'.encode(actual))
    assert out.decode() == f'{HEAD if head else ""}<testsuite name="{text}"><testcase/></testsuite>'
    declared = "us-ascii" if "ascii" in head else "utf-8"
    assert done == (f"Its bytes are {chosen}, not {declared}; it was converted to UTF-8.",)


def test_a_narrow_file_that_calls_itself_utf_16_is_read_as_utf_8():
    out, done = repaired_bytes('<?xml version="1.0" encoding="utf-16"?><testsuite name="é"/>'.encode())
    assert out.decode() == f'{HEAD}<testsuite name="é"/>'
    assert done == ("Its bytes are utf-8, not utf-16; it was converted to UTF-8.",)


def test_a_declaration_that_no_one_can_read_is_replaced():
    out, done = repaired_bytes('<?xml version="1.0" encoding="klingon-8"?><testsuite name="é"/>'.encode())
    assert out.decode() == f'{HEAD}<testsuite name="é"/>'
    assert done == ("Its bytes are utf-8, not klingon-8; it was converted to UTF-8.",)
    assert "klingon-8" in refuse(b'<?xml version="1.0" encoding="klingon-8"?><testsuite name="e"/>').found


def test_an_ambiguous_encoding_is_rejected_with_all_named():
    refused = refuse(b'<testsuite>\n<testcase name="\xc4\xd6"/></testsuite>')
    assert (refused.reason, refused.line) == ("encoding", 2)
    assert "gbk, big5, euc-kr or windows-1252" in refused.found


COLOURED = "<testsuite><testcase><failure message='{0}'>{0}</failure></testcase></testsuite>"


@pytest.mark.parametrize(
    ("dirty", "clean", "done"),
    [
        ("\x1b[31mred\x1b[0m", "red", "Color codes removed: 4."),
        ("&#27;[1;31mred&#x1b;[0m", "red", "Color codes removed: 4."),
        ("\x1b[38;5;196mred\x1b[K", "red", "Color codes removed: 4."),
        ("a\x00b\x08c\x0bd", "abcd", "Characters that XML forbids removed: 6."),
        ("a&#0;b&#xFFFE;c&#x1F;&#99999999;", "abc", "Characters that XML forbids removed: 8."),
        ("a&#xD83D;b&#56832;", "a\ufffdb\ufffd", "References to half a character replaced by U+FFFD: 4."),
        ("a&#xD83D;&#56832;b", "a😀b", "References to the two halves of a character joined: 2."),
        ("a\ufffeb\x1bc", "abc", "Characters that XML forbids removed: 4."),
        ("\x1b[31", "[31", "Characters that XML forbids removed: 2."),
    ],
)
def test_what_xml_forbids_is_taken_out_and_counted(dirty: str, clean: str, done: str):
    for size in (1, 1000):
        assert repaired_bytes(COLOURED.format(dirty).encode(), size) == (COLOURED.format(clean).encode(), (done,))


@pytest.mark.parametrize("encoding", ["UTF-8", "GBK", "Cp437"])
def test_xml_1_1_becomes_xml_1_0_without_control_characters(encoding: str):
    report = f"<?xml version='1.1' encoding='{encoding}'?>{COLOURED.format('&#27;[31mred&#27;[0m')}"
    out, done = repaired_bytes(report.encode(encoding))
    assert out.decode() == HEAD + COLOURED.format("red")
    assert "Its declaration now names XML 1.0." in done
    assert "Color codes removed: 4." in done


def test_xml_1_1_without_control_characters_stays():
    report = b"<?xml version='1.1' encoding='UTF-8'?><testsuite/>"
    assert repaired_bytes(report) == (report, ())


@pytest.mark.parametrize("pair", ["&#55357;&#56832;", "&#xD83D;&#xDE00;", "&#x00d83d;&#056832;"])
@pytest.mark.parametrize("offset", range(-20, 3))
def test_halves_of_a_character_are_joined_wherever_a_piece_ends(pair: str, offset: int):
    before = "<testsuite><testcase name='"
    padding = "x" * ((64 << 10) - len(before) + offset)
    out, done = repaired_bytes(f"{before}{padding}{pair}'/><![CDATA[{pair}]]></testsuite>".encode())
    assert out.decode() == f"{before}{padding}😀'/><![CDATA[{pair}]]></testsuite>"
    assert done == ("References to the two halves of a character joined: 1.",)


@pytest.mark.parametrize("before", ["log\n", "log\n\nlog\n", "a < b & c\n", "x" * 100_000 + "\n", "log "])
def test_text_before_the_report_is_removed(before: str):
    report = f"{HEAD}\n<testsuite><testcase name='测'/></testsuite>\n"
    out, (done,) = repaired_bytes((before + report).encode(), 1000)
    assert out.decode() == report
    lines = before.count("\n")
    assert done == f"Text before the report removed: {lines} line{'' if lines == 1 else 's'}."


def test_text_before_a_report_with_another_fault_is_removed_with_it():
    out, done = repaired_bytes(f"log\n{HEAD}{COLOURED.format('a & b')}".encode())
    assert out.decode() == HEAD + COLOURED.format("a &amp; b")
    assert done == ("Text before the report removed: 1 line.", 'Bare "&" escaped as "&amp;": 2.')


@pytest.mark.parametrize("rest", ["<failure/></testcase></testsuite>\n", "name='a'/></testsuite>\n", "<error \n"])
def test_what_is_left_of_another_report_is_not_removed(rest: str):
    refused = refuse(f"x {rest}{HEAD}<testsuite><testcase/></testsuite>".encode())
    assert refused.remedy == "Upload each report as a file of its own, with nothing after it."


def test_allowed_references_and_cdata_stay_where_others_go():
    text = "\x07&#10;&#x4E2D;&amp;#0;<![CDATA[&#27;[0m&#0;]]>&#1;"
    out, _ = repaired_bytes(f"<testsuite>{text}</testsuite>".encode())
    assert out == b"<testsuite>&#10;&#x4E2D;&amp;#0;<![CDATA[&#27;[0m&#0;]]></testsuite>"


@pytest.mark.parametrize("token", ["\x1b[31m", "&#27;[31m", "&#0;", "<![CDATA[&#0;\x00]]>", "]]&gt;<![CDATA[]]]]>"])
def test_what_is_cut_in_two_by_the_pieces_is_still_seen(token: str):
    piece = 64 << 10
    for cut in range(-12, 3):
        padding = "x" * (piece - len("<testsuite>") + cut)
        report = f"<testsuite>{padding}{token}\x07<testcase/></testsuite>"
        clean = "" if token.startswith(("\x1b", "&")) else token.replace("\x00", "")
        assert repaired_bytes(report.encode())[0].decode() == f"<testsuite>{padding}{clean}<testcase/></testsuite>"


@pytest.mark.parametrize(
    ("data", "expected", "done"),
    [
        (
            '<testsuites name="a">\n<testsuite><testcase name="b"><failure/></testcase>\n<testcase name="c"><skipped>x',
            '<testsuites name="a">\n<testsuite><testcase name="b"><failure/></testcase>\n</testsuite></testsuites>',
            TRUNCATED.format(1, 1),
        ),
        (
            '<testsuite><testcase name="b"/><testcase name="c"><failure>x',
            '<testsuite><testcase name="b"/><testcase name="c"><failure>x</failure></testcase></testsuite>',
            KEPT_AS_FAILED.format(1),
        ),
        (
            '<testsuite><testcase name="b"/><testcase name="c"><error/><a>x',
            '<testsuite><testcase name="b"/><testcase name="c"><error/><a>x</a></testcase></testsuite>',
            KEPT_AS_FAILED.format(1),
        ),
        (
            '<testsuite><testcase name="b"/><testcase name="c"><failure message="expected 1 but',
            '<testsuite><testcase name="b"/><testcase name="c"><failure/></testcase></testsuite>',
            KEPT_AS_FAILED.format(1),
        ),
        (
            '<j:testsuite xmlns:j="u"><j:testcase name="b"/><j:testcase name="c"><j:error ',
            '<j:testsuite xmlns:j="u"><j:testcase name="b"/><j:testcase name="c"><j:error/></j:testcase></j:testsuite>',
            KEPT_AS_FAILED.format(1),
        ),
        (
            '<testsuite><testcase name="b"/><testcase name="c"><system-out><failure ',
            '<testsuite><testcase name="b"/></testsuite>',
            TRUNCATED.format(1, 1),
        ),
        (
            '<testsuite><testcase name="b"/><testcase name="c"><fail',
            '<testsuite><testcase name="b"/></testsuite>',
            TRUNCATED.format(1, 1),
        ),
        (
            '<testsuite><testcase name="b"/><system-out>ab',
            '<testsuite><testcase name="b"/><system-out>ab</system-out></testsuite>',
            TRUNCATED.format(1, 0),
        ),
        ("<testsuite><testcase/><testcase name='", "<testsuite><testcase/></testsuite>", TRUNCATED.format(1, 0)),
    ],
)
def test_a_truncated_report_is_closed_after_its_finished_cases(data: str, expected: str, done: str):
    for size in (1, 1000):
        assert repaired_bytes(data.encode(), size) == (f"{HEAD}\n{expected}".encode(), (done,))


def test_everything_at_once_is_repaired_and_said():
    report = (
        '\n<?xml version="1.0" encoding="utf-8"?><testsuite><testcase name="登录失败"/>\x1b[1m\x01<testcase name="登'
    )
    out, done = repaired_bytes(report.encode("gbk")[:-1])
    assert out.decode() == f'{HEAD}\n<testsuite><testcase name="登录失败"/></testsuite>'
    assert done == (
        "Its bytes are gb18030, not utf-8; it was converted to UTF-8.",
        "Blanks before the document were removed.",
        "Color codes removed: 1.",
        "Characters that XML forbids removed: 1.",
        "Bytes of an incomplete character at the end removed: 1.",
        TRUNCATED.format(1, 0),
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08\xff", "not_xml"),
        (b'{"a": "\xff"}', "not_xml"),
        (b"<report/>", "not_junit"),
        (b"\x07<report>", "not_junit"),
        (b"<report>\x07", "not_junit"),
        (b"<testsuite/><testsuite/>", "extra_content"),
        (b"<testsuite><a></testsuite>", "not_xml"),
        (b"<testsuite>\x1b[1m<a></testsuite>", "not_xml"),
        (b"<testsuite na", "truncated"),
        (b"<testsuite>", "truncated"),
        (b"<testsuite><testcase name='a'>", "truncated"),
        (b"<testsuite><testcase name='a'><failure>x", "truncated"),
        (b"<testsuite><testcase name='a'/><testcase><system-out><testcase/>", "truncated"),
        (b'<?xml version="1.0" enc', "truncated"),
        (b'<!DOCTYPE testsuite [<!ENTITY a "b">]><testsuite><testcase/>\x07', "entities"),
        (b'<!DOCTYPE testsuite [<!ENTITY a "b">', "truncated"),
        (b"<testsuite>" + b"<a>" * 300, "too_deep"),
    ],
)
def test_what_cannot_be_repaired_is_rejected_with_its_reason(data: bytes, reason: str):
    assert refuse(data).reason == reason


def test_a_rejection_after_a_repair_names_the_fault_that_is_left():
    refused = refuse(b"<testsuite>\x1b[1m<a></testsuite>")
    assert refused.found == 'line 1, column 19: "</testsuite>" does not end "<a>" of line 1.'


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "utf-16"])
def test_a_fault_that_is_left_is_placed_in_the_file_as_it_came(encoding: str):
    lines = [
        "", f" <?xml version='1.0' encoding='{encoding}'?>", "<testsuite>\x1b[31m", "<testcase/>",
        "\0&#0;&#27;[0m测<![CDATA[\x1b[1m&]]>\x07&amp; <a b='c' b='d'/>", "</testsuite>",
    ]  # fmt: skip
    refused = refuse("\n".join(lines).encode(encoding))
    assert "twice" in refused.found
    assert (refused.line, refused.column) == (5, 1 + lines[4].index("b='d'"))


def test_a_cut_that_cannot_be_closed_is_placed_in_the_file_as_it_came():
    refused = refuse(b"\n<testsuite>\n\0\x1b[1m<system-out>")
    assert (refused.reason, refused.line, refused.column) == ("truncated", 3, 18)


AMPERSANDS = "&nbsp;", "a &", "&&", "&#;", "&#xZ;", "&x &amp; y", "&a.b;", "&X41;", "&amp &lt"


@pytest.mark.parametrize("text", AMPERSANDS)
def test_a_bare_ampersand_is_escaped_and_every_case_stays(text: str):
    report = (
        '<testsuite><testcase name="a"/><testcase name="{0}"><failure message="{0}">{0}<![CDATA[&{1}]]></failure>'
        '</testcase><!--&{1}--><testcase name="c"><error>&lt;&#38;&#x26;</error></testcase></testsuite>'
    )
    for size in (1, 1000):
        out, done = repaired_bytes(report.format(text, "nbsp;").encode(), size)
        assert out.decode().count("<![CDATA[&nbsp;]]>") == 1
        root = etree.fromstring(out)
        assert [case.get("name") for case in root] == ["a", text.replace("&amp;", "&"), None, "c"]
        assert root.findtext(".//failure") == text.replace("&amp;", "&") + "&nbsp;"
        assert root.findtext(".//error") == "<&&"
        assert done == (f'Bare "&" escaped as "&amp;": {1 + 3 * (text.count("&") - text.count("&amp;"))}.',)


def test_ampersands_of_a_sound_report_stay_in_comments():
    report = "<?xml version='1.0' encoding='gbk'?><testsuite><!-- a & b --><testcase name='测'/></testsuite>"
    assert "<!-- a & b -->" in repaired_bytes(report.encode("gbk"))[0].decode()


@pytest.mark.parametrize("text", ["a ]]> b", "<![CDATA[a ]]> & ]]>", "a < b", "<?php x>", "<a b='' b=''/>", "<b>"])
def test_other_faults_in_the_middle_are_rejected_with_their_place(text: str):
    failed = f"<testcase><failure>{text}</failure></testcase><testcase><error/></testcase>"
    refused = refuse(f"<testsuite>\n<testcase/>{failed}</testsuite>".encode())
    assert (refused.reason, refused.line) == ("not_xml", 2)
    assert refused.column


@pytest.mark.parametrize("brackets", ["]{0}]>", "]]{0}>", "]{0}]{0}>"])
@pytest.mark.parametrize("dropped", ["\x1b[0m", "\x07"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_would_end_a_cdata_section_if_characters_were_dropped_is_rejected(brackets: str, dropped: str, size: int):
    inside = f"{brackets.format(dropped)} <testcase/>"
    report = f"<testsuite><testcase><failure>\n<![CDATA[{inside}]]></failure></testcase></testsuite>"
    refused = repair(source(report.encode(), size))
    assert isinstance(refused, Invalid), refused
    assert (refused.reason, refused.line) == ("not_xml", 2)
    assert "a character that XML forbids" in refused.found


def test_a_stray_byte_that_would_make_a_letter_of_a_name_is_rejected():
    failed = '<testcase name="{}"><failure/></testcase>'
    data = f"<testsuite>{failed.format('支付失败')}{failed.format('登录')}</testsuite>".encode("gbk")
    for stray in (b"\xb5", b"\xb5\xb5"):
        refused = refuse(data.replace(b"<failure", b"<" + stray + b"failure", 1))
        assert refused.reason in ("encoding", "not_xml")


@pytest.mark.parametrize("size", [1, 50, 1000])
def test_a_hole_of_zeros_is_rejected_since_it_would_join_two_cases(size: int):
    data = b'<testsuite><testcase name="a%s"/></testsuite>'
    refused = repair(source(data % (b"\0" * 64), size))
    assert isinstance(refused, Invalid), refused
    assert "U+0000 at line 1, column 29" in refused.found
    assert repaired_bytes(data % (b"\0" * 63), size)[0] == data % b""


def test_a_byte_too_many_in_utf_16_is_no_cut():
    case = '<testcase name="{}"><failure/></testcase>\n'
    head = f'<?xml version="1.0" encoding="utf-16"?>\n<testsuite>\n{case.format("登录")}<!--'.encode("utf-16")
    rest = f" -->\n{case.format('b')}</testsuite>\n".encode("utf-16")[2:]
    refused = refuse(head + b"\xb5" + rest)
    assert (refused.reason, refused.line) == ("not_xml", 4)
    assert "a byte is missing or superfluous" in refused.found


def test_a_valid_report_is_converted_without_any_other_change():
    body = "<testsuite name='测'><?a ?&#0;><testcase/><?b?></testsuite>"
    report = f"<?xml version='1.0' encoding='gbk'?>{body}".encode("gbk")
    assert repaired_bytes(report) == (f"{HEAD}{body}".encode(), ("It was converted from gbk to UTF-8.",))


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_half_a_character_before_the_end_of_a_cdata_section_hides_no_case(size: int):
    failed = '<testcase name="{0}"><failure><![CDATA[{1}]]></failure></testcase>'
    report = f"{HEAD}<testsuite>{failed.format('支付失败', '登录失@@')}{failed.format('b', '登录失败')}</testsuite>"
    data = report.encode("gbk").replace(b"@@", "败".encode("gbk")[:1])
    refused = repair(source(data, size))
    assert isinstance(refused, Invalid), refused
    assert (refused.reason, refused.found) == (
        "encoding", "decoded as gb18030, half a character hides the end of a CDATA section."
    )  # fmt: skip


LETTERS = st.characters(codec="gb18030", exclude_categories=["Cc", "Cs", "Cn", "Co"], exclude_characters="<>&\"'")
TEXTS = st.text(LETTERS, max_size=8)
CASES = st.lists(
    st.builds(
        "<testcase name='{0}' time='1'>{1}</testcase>".format,
        TEXTS,
        st.sampled_from(
            ["", "<failure message='&lt;'/>", "<system-out><![CDATA[<testcase/>]]></system-out>", "<!--c-->"]
        )
        | TEXTS,
    )
    | st.just("<testcase/>"),
    min_size=1,
    max_size=8,
)


@given(cases=CASES, encoding=st.sampled_from(["utf-8", "utf-8-sig", "gb18030", "utf-16"]), data=st.data())
def test_any_prefix_yields_its_finished_cases_or_is_rejected_if_there_are_none(
    cases: list[str], encoding: str, data: st.DataObject
):
    declared = encoding.removesuffix("-sig")
    opening = f"<?xml version='1.0' encoding='{declared}'?>\n<testsuites><testsuite name='a'>"
    inside = "</testsuite><testsuite>".join(cases)
    whole = f"{opening}{inside}</testsuite></testsuites>".encode(encoding)
    cut = data.draw(st.integers(len(opening.encode(encoding)), len(whole) - (2 if encoding == "utf-16" else 1)))
    prefix = whole[:cut].decode(encoding, errors="ignore")
    ends = [len(opening) + len("</testsuite><testsuite>".join(cases[: at + 1])) for at in range(len(cases))]
    repaired = repair(source(whole[:cut], 7))
    finished = sum(end <= len(prefix) for end in ends)
    if not finished:
        assert isinstance(repaired, Invalid)
        assert repaired.reason == "truncated"
        return
    assert isinstance(repaired, Repaired), repaired
    verdict = validate_bytes(b"".join(repaired.chunks()))
    assert isinstance(verdict, Valid)
    kept_as_failed = KEPT_AS_FAILED.format(finished) in repaired.done
    assert verdict.counts.tests == finished + kept_as_failed
    assert (
        kept_as_failed
        or TRUNCATED.format(finished, 0) in repaired.done
        or TRUNCATED.format(finished, 1) in repaired.done
    )


@given(data=st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"<testsuite><testcase/>" + tail))
def test_whatever_comes_is_rejected_or_becomes_what_validation_accepts_for_good(data: bytes):
    repaired = repair(source(data, 3))
    if isinstance(repaired, Repaired):
        repaired_bytes(data, 3)
        assert repaired.done or isinstance(validate_bytes(data), Valid)
    else:
        assert not isinstance(validate_bytes(data), Valid)


@given(
    parts=st.lists(
        st.sampled_from(
            ["\x1b[31m", "\x1b", "&#27;", "[0m", "&#0;", "<![CDATA[", "]]>", "]", "&amp;", "\x00", "中", "<a/>"]
        )
    )
)
def test_a_repair_does_not_depend_on_the_chunks(parts: list[str]):
    data = f"<testsuite>{''.join(parts)}</testsuite>".encode()
    one, other = repair(source(data, 1)), repair(source(data))
    assert isinstance(one, Repaired) == isinstance(other, Repaired)
    if isinstance(one, Repaired) and isinstance(other, Repaired):
        assert b"".join(one.chunks()) == b"".join(other.chunks())


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-7", b"+AAA-"), ("utf-7", b"+//8"), ("hz", b"~{!!"), ("hz", b"~x"), ("iso-2022-kr", b"\x1b$)C\x0e!"),
     ("iso-2022-jp", b"\x1b$B!")],
)  # fmt: skip
def test_encodings_with_shift_states_are_repaired_or_rejected_and_never_fail(encoding, name):
    declaration = f'<?xml version="1.0" encoding="{encoding}"?>'.encode()
    report = declaration + b'<testsuite><testcase name="' + name + b'"/></testsuite>'

    assert isinstance(repair(lambda: iter([report])), Repaired | Invalid)


def test_a_byte_order_mark_behind_a_blank_is_rejected_and_never_fails():
    assert refuse(b"\r\xff\xfe<testsuite><testcase/>&a;</testsuite>").reason in ("encoding", "not_xml")
