"""What is written is what a parser heard: exact, and nothing left open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from bridge.domain.junit.repair.xml_writer import DECLARATION, VALUE_ESCAPES, XmlWriter, escape, parser_into

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
    assert writer.take().decode() == f'{DECLARATION}\n<a><x:b xmlns:x="u">c<d/></x:b></a>'


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
