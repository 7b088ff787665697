"""Rewrites a report as a stream: removes elements, renames cases, closes a cut document."""

from collections import Counter
from collections.abc import Mapping
from typing import Final, cast

from lxml import etree

from bridge.domain.junit import xml_errors
from bridge.domain.junit.counter import CASE, KINDS, SUITE, local_name
from bridge.domain.junit.encoding import UTF_8_DECLARATION, trim
from bridge.domain.junit.libxml2_errors import message_of
from bridge.domain.junit.result import InvalidReport
from bridge.domain.junit.rewrite_rules import NameRewriter
from bridge.domain.junit.tally import ERROR, FAILURE

XML_NAMESPACE: Final = "http://www.w3.org/XML/1998/namespace"
TEXT_ESCAPES: Final = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\r", "&#13;"))
VALUE_ESCAPES: Final = (*TEXT_ESCAPES, ('"', "&quot;"), ("\t", "&#9;"), ("\n", "&#10;"))


def escape(text: str, escapes: tuple[tuple[str, str], ...] = TEXT_ESCAPES) -> str:
    """Return text escaped so that a parser reads it unchanged, including line ends that XML would normalize."""
    for character, reference in escapes:
        if character in text:
            text = text.replace(character, reference)
    return text


def parser_into(target: "XmlWriter") -> etree.XMLParser:
    """Return a streaming parser for documents that validation has found free of entities.

    Unlike validation's it resolves XML's own entities; otherwise lxml returns `&amp;` in a value as `&#38;`.
    """
    parts = cast("etree.ParserTarget", target)
    return etree.XMLParser(target=parts, huge_tree=True, resolve_entities=True, no_network=True)


class XmlWriter:
    """Target of a streaming lxml parser that writes what it receives as UTF-8, in constant memory.

    Elements, attributes, namespaces, text, comments and instructions stay. CDATA sections become escaped text. The
    DOCTYPE, blanks outside of the root and undeclared prefixes are lost, because lxml does not report them.
    """

    def __init__(self) -> None:
        self._out = [UTF_8_DECLARATION, "\n"]
        self._open: list[str] = []  # qualified names
        self._scopes = [{"": "", "xml": XML_NAMESPACE}]  # namespaces by prefix, of each open element
        self._in_tag = False  # the last start tag is not closed yet, so that an empty element stays one

    def start(self, tag: str, attributes: Mapping[str, str], nsmap: Mapping[str, str]) -> None:
        self._end_tag()
        declared = {prefix or "": uri for prefix, uri in nsmap.items()}
        if "}" not in tag and declared.get("", self._scopes[-1][""]):
            declared[""] = ""
        scope = {**self._scopes[-1], **declared} if declared else self._scopes[-1]
        name = _qualified(tag, scope)
        pairs = [(f"xmlns:{prefix}" if prefix else "xmlns", uri) for prefix, uri in declared.items()]
        pairs += [(_qualified(key, scope, attribute=True), value) for key, value in attributes.items()]
        self._out += [f"<{name}", *(f' {key}="{escape(value, VALUE_ESCAPES)}"' for key, value in pairs)]
        self._open.append(name)
        self._scopes.append(scope)
        self._in_tag = True

    def end(self, _tag: str) -> None:
        name = self._open.pop()
        self._scopes.pop()
        self._out.append("/>" if self._in_tag else f"</{name}>")
        self._in_tag = False

    def data(self, text: str) -> None:
        self._end_tag()
        self._out.append(escape(text))

    def comment(self, text: str) -> None:
        self._end_tag()
        self._out.append(f"<!--{text}-->")

    def pi(self, name: str, text: str | None = None) -> None:
        self._end_tag()
        self._out.append(f"<?{name} {text}?>" if text else f"<?{name}?>")

    def close(self) -> None:
        """Do nothing; lxml calls it on every target."""

    def close_open(self) -> None:
        """Write the end tags of all open elements."""
        while self._open:
            self.end("")

    def take(self) -> bytes:
        """Return what was written since the last call."""
        written = "".join(self._out).encode()
        self._out.clear()
        return written

    def _end_tag(self) -> None:
        if self._in_tag:
            self._out.append(">")
            self._in_tag = False


def _qualified(tag: str, scope: Mapping[str, str], *, attribute: bool = False) -> str:
    uri, brace, name = tag.rpartition("}")
    if not brace:
        return tag
    for prefix, known in scope.items():
        if known == uri[1:] and (prefix or not attribute):
            return f"{prefix}:{name}" if prefix else name
    raise AssertionError(tag)  # libxml2 reports no name in a namespace that is not in scope


MIN_HEAD_SIZE = 4  # bytes: a byte order mark and one character


class _ReportFilter:
    """Takes chunks of any size of a valid document in any encoding and returns UTF-8.

    Names, attributes, namespaces, text, comments and instructions stay. CDATA sections become escaped text; a DOCTYPE
    and blanks outside of the root are left out. Raises InvalidReport if the document is not valid after all.
    """

    def __init__(self, target: XmlWriter) -> None:
        self._target = target
        self._parser = parser_into(target)
        self._head: bytes | None = b""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes and return those that are ready."""
        if self._head is not None:
            self._head += chunk
            chunk = trim(self._head)[0]
            if len(chunk) < MIN_HEAD_SIZE:
                return b""
            self._head = None
        try:
            self._parser.feed(chunk)
        except etree.XMLSyntaxError as error:
            raise _invalid_report(error, at_end=False) from error
        return self._target.take()

    def close(self) -> bytes:
        """Return the rest; call it after the whole document was fed."""
        if self._head is not None:
            raise InvalidReport(xml_errors.EMPTY)
        try:
            self._parser.close()
        except etree.XMLSyntaxError as error:
            raise _invalid_report(error, at_end=True) from error
        return self._target.take()


class ElementStripper(_ReportFilter):
    """Removes elements by name, in any namespace and with all their content, such as surefire's system properties.

    If `removed` stays empty, use the original.
    """

    def __init__(self, elements: frozenset[str]) -> None:
        self._skipping = _SkippingWriter(elements)
        super().__init__(self._skipping)

    @property
    def removed(self) -> Mapping[str, int]:
        """Return the number of removed elements by name, without those inside of other removed ones."""
        return dict(self._skipping.removed)


class CaseRenamer(_ReportFilter):
    """Rewrites the names of the cases that count. If nothing was changed, use the original."""

    def __init__(self, names: NameRewriter) -> None:
        super().__init__(_RenamingWriter(names))


def _invalid_report(error: etree.XMLSyntaxError, *, at_end: bool) -> InvalidReport:
    line, column = error.position
    if at_end:
        return InvalidReport(xml_errors.cut_off("an element has no end tag", line=line, column=column))
    return InvalidReport(xml_errors.unnamed(message_of(error), line=line, column=column))


class _SkippingWriter(XmlWriter):
    """Writes nothing from the start to the end of a removed element."""

    def __init__(self, elements: frozenset[str]) -> None:
        super().__init__()
        self.removed: Counter[str] = Counter()
        self._elements = elements
        self._depth = 0  # of open elements, counted from the removed one

    def start(self, tag: str, attributes: Mapping[str, str], nsmap: Mapping[str, str]) -> None:
        if self._depth:
            self._depth += 1
        elif (name := local_name(tag)) in self._elements:
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


class _RenamingWriter(XmlWriter):
    """Renames cases below suites only: elsewhere, such as in system-out, markup is text."""

    def __init__(self, names: NameRewriter) -> None:
        super().__init__()
        self._names = names
        self._depth = self._inert_from = 0  # of open elements; of the outermost one in which nothing is renamed

    def start(self, tag: str, attributes: Mapping[str, str], nsmap: Mapping[str, str]) -> None:
        self._depth += 1
        if not self._inert_from:
            kind = KINDS.get(local_name(tag), 0)
            if kind == CASE:
                attributes = self._names.rewrite(attributes)
            if kind != SUITE and self._depth > 1:
                self._inert_from = self._depth
        super().start(tag, attributes, nsmap)

    def end(self, tag: str) -> None:
        if self._depth == self._inert_from:
            self._inert_from = 0
        self._depth -= 1
        super().end(tag)


class TruncationRepairer:
    """Rewrites a truncated UTF-8 document up to its last complete token, and closes the open elements.

    The unfinished case stays as failed if its failure or error has begun; otherwise it is left out, because its outcome
    is unknown. In constant memory this takes two runs: the first finds `unfinished`; the second stops there, or keeps
    the case if it has `failed`. `cut_tag` is the name of a start tag that the end of the file cuts; a failure or error
    that begins so is written without attributes. The document must be free of entities, which validation checks.
    """

    def __init__(self, stop_at: int | None = None, *, cut_tag: str = "") -> None:
        self._target = _Cases(stop_at)
        self._parser = parser_into(self._target)
        self._begun = cut_tag
        self._ended = False
        self.unfinished: int | None = None  # set by close: the number of the outermost open case among all start tags
        self.failed = False  # set by close: that case has a failure or an error
        self.contains_finished_cases = False  # set by close: that case contains finished cases

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes and return those that are ready; bytes after the end are ignored."""
        if not self._ended:
            try:
                self._parser.feed(piece)
            except (etree.XMLSyntaxError, _StopParsing):
                self._ended = True
        return self._target.take() if self._target.tags else b""

    def close(self) -> bytes:
        """Return the end tags of all open elements; nothing if not even the root has begun."""
        if not self._ended:
            try:
                self._parser.close()
            except (etree.XMLSyntaxError, _StopParsing):
                self._ended = True
        if self._begun:
            self._target.begin(self._begun)
        self.unfinished = self._target.unfinished
        self.failed, self.contains_finished_cases = self._target.failed, self._target.contains_finished_cases
        self._target.close_open()
        return self._target.take() if self._target.tags else b""


class _StopParsing(Exception):
    """Raised at the start of the unfinished case."""


class _Cases(XmlWriter):
    """Tracks which case is open, and stops before a given start tag."""

    def __init__(self, stop_at: int | None) -> None:
        super().__init__()
        self.tags = 0
        self.unfinished: int | None = None
        self.failed = False  # the open case has a failure or an error
        self.contains_finished_cases = False  # the open case contains finished cases
        self._stop_at = stop_at
        self._depth = 0
        self._case_depth = 0
        self._case_tag = ""

    def start(self, tag: str, attributes: Mapping[str, str], nsmap: Mapping[str, str]) -> None:
        if self.tags + 1 == self._stop_at:
            raise _StopParsing
        self.tags += 1
        self._depth += 1
        kind = KINDS.get(local_name(tag))
        if self.unfinished is None and kind == CASE:
            self.unfinished, self._case_depth, self._case_tag = self.tags, self._depth, tag
        elif kind in (FAILURE, ERROR) and self._depth == self._case_depth + 1:
            self.failed = True
        super().start(tag, attributes, nsmap)

    def end(self, tag: str) -> None:
        if self._depth == self._case_depth:
            self.unfinished, self._case_depth = None, 0
            self.failed = self.contains_finished_cases = False
        elif self._case_depth and KINDS.get(local_name(tag)) == CASE:
            self.contains_finished_cases = True
        self._depth -= 1
        super().end(tag)

    def begin(self, name: str) -> None:
        """Begin a failure or error of the open case of whose start tag only the name is known."""
        if self._case_depth and self._depth == self._case_depth and KINDS.get(name) in (FAILURE, ERROR):
            namespace = self._case_tag.removesuffix(local_name(self._case_tag))
            self.start(f"{namespace}{name}", {}, {})
