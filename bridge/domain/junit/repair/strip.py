"""Leaves elements out of a JUnit report while it streams: surefire writes every system property into them.

It knows names of elements and nothing of routes; it judges no report, the gate has done so before.
"""

from collections import Counter
from collections.abc import Mapping

from lxml import etree

from bridge.domain.junit import xml_errors
from bridge.domain.junit.counter import local
from bridge.domain.junit.encoding import trim
from bridge.domain.junit.repair.xml_writer import XmlWriter, parser_into
from bridge.domain.junit.result import InvalidReport

MIN_HEAD_SIZE = 4  # bytes: enough for a mark and one character, before which no blanks can be told


class ElementStripper:
    """Gives a report without some elements, wherever they stand, in any namespace, with all that is in them.

    Takes chunks of any size of a document that the gate accepts, in any encoding, and gives UTF-8: names, attributes,
    namespaces, text, comments and instructions stay as they were. CDATA sections become escaped text; a DOCTYPE and
    blanks outside of the root are left out. Where `removed` stays empty the original is as good. Memory is constant
    but for lxml's longest token. Raises Refusal where the document turns out to be none.
    """

    def __init__(self, elements: frozenset[str]) -> None:
        self._target = _Sieve(elements)
        self._parser = parser_into(self._target)
        self._head: bytes | None = b""

    @property
    def removed(self) -> Mapping[str, int]:
        """How many elements went so far, by name; those inside of others that went are not counted."""
        return dict(self._target.removed)

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes, give those that are ready."""
        if self._head is not None:
            self._head += chunk
            chunk = trim(self._head)[0]
            if len(chunk) < MIN_HEAD_SIZE:
                return b""
            self._head = None
        try:
            self._parser.feed(chunk)
        except etree.XMLSyntaxError as error:
            raise _refusal(error, at_end=False) from error
        return self._target.take()

    def close(self) -> bytes:
        """Give the rest, once the whole document was fed."""
        if self._head is not None:
            raise InvalidReport(xml_errors.EMPTY)
        try:
            self._parser.close()
        except etree.XMLSyntaxError as error:
            raise _refusal(error, at_end=True) from error
        return self._target.take()


def _refusal(error: etree.XMLSyntaxError, *, at_end: bool) -> InvalidReport:
    line, column = error.position
    refuse = xml_errors.cut_off if at_end else xml_errors.unnamed
    return InvalidReport(refuse(xml_errors.message_of(error), line=line, column=column))


class _Sieve(XmlWriter):
    """Writes nothing of an element that is named, up to its end."""

    def __init__(self, elements: frozenset[str]) -> None:
        super().__init__()
        self.removed: Counter[str] = Counter()
        self._elements = elements
        self._depth = 0  # of open elements from the removed one on

    def start(self, tag: str, attributes: Mapping[str, str], nsmap: Mapping[str, str]) -> None:
        if self._depth:
            self._depth += 1
        elif (name := local(tag)) in self._elements:
            self.removed[name] += 1
            self._depth = 1
        else:
            super().start(tag, attributes, nsmap)

    def end(self, tag: str) -> None:
        if self._depth:
            self._depth -= 1
        else:
            super().end(tag)

    def data(self, text: str) -> None:
        if not self._depth:
            super().data(text)

    def comment(self, text: str) -> None:
        if not self._depth:
            super().comment(text)

    def pi(self, name: str, text: str | None = None) -> None:
        if not self._depth:
            super().pi(name, text)
