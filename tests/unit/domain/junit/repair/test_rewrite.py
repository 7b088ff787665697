"""Rewriting: escapes, namespaces, stripping of elements, and closing of truncated reports."""

from html import escape as escape_html

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from bridge.domain.junit.encoding import UTF_8_DECLARATION
from bridge.domain.junit.repair.rewrite import (
    VALUE_ESCAPES,
    ElementStripper,
    TruncationRepairer,
    XmlWriter,
    escape,
    parser_into,
)
from bridge.domain.junit.result import InvalidReport
from bridge.domain.junit.validator import Valid, validate_bytes

CHARACTERS = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"))


@given(text=CHARACTERS | st.text("<>&\"'\t\n\r]"))
def test_escaped_text_is_read_again_exactly(text: str):
    root = etree.fromstring(f'<a b="{escape(text, VALUE_ESCAPES)}">{escape(text)}</a>')
    assert (root.get("b"), root.text or "") == (text, text)


def test_what_is_open_is_closed_innermost_first():
    writer = XmlWriter()
    parser = parser_into(writer)
    parser.feed(b"<a><x:b xmlns:x='u'>c<d>")
    writer.close_open()
    assert writer.take().decode() == f'{UTF_8_DECLARATION}\n<a><x:b xmlns:x="u">c<d/></x:b></a>'


def test_what_was_taken_is_not_given_again():
    writer = XmlWriter()
    writer.start("a", {}, {})
    writer.data("b")
    assert writer.take().endswith(b"<a>b")
    writer.end("a")
    assert writer.take() == b"</a>"


@pytest.mark.parametrize("value", ["&amp;", "&lt;", "&amp;#38;", "&#38;#38;"])
def test_references_in_values_are_read_as_xml_says(value: str):
    writer = XmlWriter()
    parser_into(writer).feed(f'<a b="{value}"/>'.encode())
    assert etree.fromstring(writer.take()).get("b") == etree.fromstring(f'<a b="{value}"/>').get("b")


SECRETS = frozenset({"properties", "system-out", "system-err"})
SUREFIRE = b"""<?xml version="1.0" encoding="UTF-8"?>
<!-- kept --><?keep this?>
<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="https://x/s.xsd"
  name="shop.CartTest" time="1,234.5" tests="3">
  <properties><property name="aws.key" value="hunter2"/><properties/></properties>
  <testcase name="pays" classname="C"><error type="E" message="a&#10;&quot;b&quot;">at &lt;init&gt;</error>
    <system-out><![CDATA[hunter2 <testcase/>]]></system-out></testcase>
  <testcase name="ships"><failure><![CDATA[a < b && c]]></failure><system-err>hunter2<!--x--></system-err></testcase>
  <testcase name="ends"/>
</testsuite><!-- after -->
"""


def strip(data: bytes, elements: frozenset[str] = SECRETS, size: int = 1 << 20) -> tuple[bytes, dict[str, int]]:
    stripper = ElementStripper(elements)
    out = b"".join(stripper.feed(data[start : start + size]) for start in range(0, len(data), size))
    return out + stripper.close(), dict(stripper.removed)


def canonical(data: bytes) -> bytes:
    return etree.canonicalize(etree.fromstring(data), with_comments=True).encode()


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_named_elements_go_with_all_that_is_in_them(size: int):
    out, removed = strip(SUREFIRE, size=size)
    assert removed == {"properties": 1, "system-out": 1, "system-err": 1}
    assert b"hunter2" not in out
    declaration, opening, *rest = out.decode().splitlines()
    assert declaration == '<?xml version="1.0" encoding="UTF-8"?>'
    assert opening == (
        '<!-- kept --><?keep this?><testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        ' xsi:noNamespaceSchemaLocation="https://x/s.xsd" name="shop.CartTest" time="1,234.5" tests="3">'
    )
    assert rest == [
        "  ",
        '  <testcase name="pays" classname="C"><error type="E" message="a&#10;&quot;b&quot;">at &lt;init&gt;</error>',
        "    </testcase>",
        '  <testcase name="ships"><failure>a &lt; b &amp;&amp; c</failure></testcase>',
        '  <testcase name="ends"/>',
        "</testsuite><!-- after -->",
    ]


def test_only_what_is_named_goes():
    out, removed = strip(SUREFIRE, frozenset({"system-err"}))
    assert removed == {"system-err": 1}
    assert out.count(b"hunter2") == 2


@pytest.mark.parametrize(
    "document",
    [
        '<j:testsuite xmlns:j="urn:j" j:a="1" a="2"><j:testcase j:name="x" xml:lang="de"/></j:testsuite>',
        '<testsuite xmlns="urn:a"><testcase xmlns=""><x xmlns="urn:b" xmlns:c="urn:b" c:d="e"/></testcase></testsuite>',
        '<testsuite a="&lt;&amp;&amp;#38;&gt;&quot;&apos;&#9;&#10;&#13;"/>',
        "<testsuite>\t\r\n&#13;&amp;lt;]]&gt;<![CDATA[&amp;]]></testsuite>",
        "<testsuite><testcase name='\"'>a<b/>c<!--d--><?e f?><?g?></testcase></testsuite>",
        "<testsuite>支付失败 é 한 𠀀</testsuite>",
    ],
)
def test_all_else_stays_as_it_was(document: str):
    assert canonical(strip(document.encode())[0]) == canonical(document.encode())


def test_an_element_without_a_namespace_stays_so_where_its_prefix_was_never_declared():
    out, _ = strip(b'<testsuite xmlns="urn:a"><x:y b="c"/></testsuite>')
    assert out.endswith(b'<testsuite xmlns="urn:a"><y xmlns="" b="c"/></testsuite>')


def test_elements_go_in_any_namespace():
    out, removed = strip(b'<j:testsuite xmlns:j="urn:j"><j:properties/><j:testcase/></j:testsuite>')
    assert removed == {"properties": 1}
    assert out.endswith(b'<j:testsuite xmlns:j="urn:j"><j:testcase/></j:testsuite>')


@pytest.mark.parametrize("encoding", ["utf-16", "gbk", "utf-8-sig"])
@pytest.mark.parametrize("blanks", ["", "\n \r\n"])
def test_any_encoding_becomes_utf_8(encoding: str, blanks: str):
    declared = encoding.removesuffix("-sig")
    document = f'{blanks}<?xml version="1.0" encoding="{declared}"?><testsuite name="测试"><properties/></testsuite>'
    for size in (1, 1 << 20):
        out, _ = strip(document.encode(encoding), size=size)
        assert out.decode() == '<?xml version="1.0" encoding="UTF-8"?>\n<testsuite name="测试"/>'


def test_a_doctype_is_left_out_with_the_defaults_that_it_declares():
    out, _ = strip(b'<!DOCTYPE testsuite [<!ATTLIST testsuite a CDATA "b">]><testsuite/>')
    assert out == b'<?xml version="1.0" encoding="UTF-8"?>\n<testsuite/>'


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty"), (b" \n", "empty"), (b"<testsuite>", "truncated"), (b"<testsuite></testcase>", "not_xml")],
)
def test_what_is_no_document_is_rejected(data: bytes, reason: str):
    with pytest.raises(InvalidReport) as caught:
        strip(data)
    assert caught.value.invalid.reason == reason


def test_output_comes_while_the_report_streams():
    stripper = ElementStripper(SECRETS)
    stripper.feed(b"<testsuite><testcase><failure>")
    for _ in range(20):
        assert len(stripper.feed(b"x" * (1 << 20))) > 1 << 19
    assert stripper.feed(b"</failure><system-out>").endswith(b"</failure>")
    for _ in range(20):
        assert stripper.feed(b"x" * (1 << 20)) == b""
    assert stripper.feed(b"</system-out></testcase></testsuite>").endswith(b"</testcase></testsuite>")
    assert stripper.close() == b""


LETTERS = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
TEXTS = st.text(LETTERS | st.sampled_from("<>&\"'\t\n\r"), max_size=12).map(escape_html)
ELEMENTS = st.sampled_from(["failure", "error", "skipped", "flakyFailure", "system-out", "system-err", "properties"])


@st.composite
def reports(draw: st.DrawFn) -> str:
    """Documents with suites in suites, cases, and all that a strip may take out, anywhere."""

    def children(names: list[str]) -> str:
        return "".join(f"<{name} message='{draw(TEXTS)}'>{draw(TEXTS)}</{name}>" for name in names)

    def suite(depth: int) -> str:
        cases = "".join(
            f"<testcase name='{draw(TEXTS)}' time='0.5'>{children(draw(st.lists(ELEMENTS, max_size=3)))}</testcase>\n"
            for _ in range(draw(st.integers(0, 4)))
        )
        inner = suite(depth + 1) if depth < 3 and draw(st.booleans()) else ""
        return f"<testsuite name='{draw(TEXTS)}'><properties><property/></properties>{cases}{inner}</testsuite>"

    return f"<testsuites>{suite(0)}{suite(0)}</testsuites>"


@given(report=reports(), size=st.integers(1, 200))
def test_stripping_changes_no_counts(report: str, size: int):
    before, after = validate_bytes(report.encode()), validate_bytes(strip(report.encode(), size=size)[0])
    assert isinstance(before, Valid)
    assert isinstance(after, Valid)
    assert before.counts == after.counts


@given(report=reports())
def test_stripping_nothing_changes_no_content(report: str):
    out, removed = strip(report.encode(), frozenset())
    assert (canonical(out), removed) == (canonical(report.encode()), {})


HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n'


def close(data: bytes, stop_at: int | None = None) -> tuple[bytes, int | None]:
    closer = TruncationRepairer(stop_at)
    out = b"".join(closer.feed(data[at : at + 5]) for at in range(0, len(data), 5)) + closer.close()
    return out.removeprefix(HEAD), closer.unfinished


@pytest.mark.parametrize(
    ("data", "unfinished"),
    [
        (b"<testsuite><testcase/>", None),
        (b"<testsuite><testcase/><testcase>", 3),
        (b"<testsuite><testcase><failure/></testcase><a/><testcase><failure/><b>", 5),
        (b"<testsuite><testcase><testcase/><a>", 2),
        (b"<j:testsuite xmlns:j='u'><j:testcase>", 2),
    ],
)
def test_the_outermost_open_case_is_found(data: bytes, unfinished: int | None):
    assert close(data)[1] == unfinished


def test_nothing_is_written_from_the_given_tag_on_and_all_is_closed():
    assert close(b"<testsuite><testcase/> <testcase><a>b</a>", 3)[0] == b"<testsuite><testcase/> </testsuite>"


def test_namespaces_stay_to_the_end():
    assert (
        close(b"<j:testsuite xmlns:j='u'><j:testcase/>")[0] == b'<j:testsuite xmlns:j="u"><j:testcase/></j:testsuite>'
    )


@pytest.mark.parametrize("data", [b"", b"<testsuite a='", b"<!-- a --><tests="])
def test_where_no_root_has_begun_nothing_is_written(data: bytes):
    assert close(data) == (b"", None)
