"""x"""

from collections import Counter
from collections.abc import Mapping
from typing import Final, cast

from lxml import etree

from bridge.domain.junit import xml_errors
from bridge.domain.junit.counter import CASE, ERROR, FAILURE, KINDS, local
from bridge.domain.junit.encoding import trim
from bridge.domain.junit.result import InvalidReport

DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>'
XML_NAMESPACE: Final = "http://www.w3.org/XML/1998/namespace"
TEXT_ESCAPES: Final = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\r", "&#13;"))
VALUE_ESCAPES: Final = (*TEXT_ESCAPES, ('"', "&quot;"), ("\t", "&#9;"), ("\n", "&#10;"))


def escape(text: str, escapes: tuple[tuple[str, str], ...] = TEXT_ESCAPES) -> str:
    """Write text so that a parser reads exactly it again, also line ends that XML would make others of."""
    for character, reference in escapes:
        if character in text:
            text = text.replace(character, reference)
    return text


def parser_into(target: "XmlWriter") -> etree.XMLParser:
    """Make the gate's parser, for documents whose opening the gate has found free of entities.

    Unlike the gate's it resolves those that XML itself has: else lxml gives `&amp;` in a value as `&#38;`.
    """
    parts = cast("etree.ParserTarget", target)
    return etree.XMLParser(target=parts, huge_tree=True, resolve_entities=True, no_network=True)


class XmlWriter:
    """Target of a streaming lxml parser: gives back what it hears, in constant memory.

    Elements, attributes, namespaces, text, comments and instructions stay. CDATA sections become escaped text, the
    DOCTYPE and blanks outside of the root go, and so does a prefix that nobody declared: lxml does not tell of them.
    """

    def __init__(self) -> None:
        self._out = [DECLARATION, "\n"]
        self._open: list[str] = []  # names as they were written
        self._scopes = [{"": "", "xml": XML_NAMESPACE}]  # namespaces by prefix, of each open element
        self._in_tag = False  # the last start tag still lacks its end, so that an empty element stays one

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
        """Nothing is left to do; lxml asks every target for it."""

    def close_open(self) -> None:
        """End every element that is still open."""
        while self._open:
            self.end("")

    def take(self) -> bytes:
        """Give what was written since the last call."""
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
    raise AssertionError(tag)  # libxml2 gives no name in a namespace that is not in scope


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


class TruncationRepairer:
    """Writes a truncated UTF-8 document anew up to its last sound place, and ends there what is open.

    Memory is constant, so it takes two runs: the first finds `unfinished`, the second stops there, or keeps the case
    if it has `failed`. `begun` is the name in a start tag that the end of the file cuts off: a failure or an error
    that begins so is written without attributes. The document's opening must be free of entities, as the gate has it.
    """

    def __init__(self, stop_at: int | None = None, *, begun: str = "") -> None:
        self._target = _Cases(stop_at)
        self._parser = parser_into(self._target)
        self._begun = begun
        self._ended = False
        self.unfinished: int | None = None  # from the close on: the outermost open case, by its number among all tags
        self.failed = False  # from the close on: that case holds a failure or an error
        self.holds_cases = False  # from the close on: finished cases stand within that case

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes, give those that are ready; what follows the end is ignored."""
        if not self._ended:
            try:
                self._parser.feed(piece)
            except (etree.XMLSyntaxError, _StopHere):
                self._ended = True
        return self._target.take() if self._target.tags else b""

    def close(self) -> bytes:
        """Give the ends of all that was open; nothing when not even the root had begun."""
        if not self._ended:
            try:
                self._parser.close()
            except (etree.XMLSyntaxError, _StopHere):
                self._ended = True
        if self._begun:
            self._target.begin(self._begun)
        self.unfinished = self._target.unfinished
        self.failed, self.holds_cases = self._target.failed, self._target.holds_cases
        self._target.close_open()
        return self._target.take() if self._target.tags else b""


class _StopHere(Exception):
    """The unfinished case begins."""


class _Cases(XmlWriter):
    """Follows which case is open, and stops before a given start tag."""

    def __init__(self, stop_at: int | None) -> None:
        super().__init__()
        self.tags = 0
        self.unfinished: int | None = None
        self.failed = False  # so is the open case
        self.holds_cases = False  # so does the open case
        self._stop_at = stop_at
        self._depth = 0
        self._case_depth = 0
        self._case_tag = ""

    def start(self, tag: str, attributes: Mapping[str, str], nsmap: Mapping[str, str]) -> None:
        if self.tags + 1 == self._stop_at:
            raise _StopHere
        self.tags += 1
        self._depth += 1
        kind = KINDS.get(local(tag))
        if self.unfinished is None and kind == CASE:
            self.unfinished, self._case_depth, self._case_tag = self.tags, self._depth, tag
        elif kind in (FAILURE, ERROR) and self._depth == self._case_depth + 1:
            self.failed = True
        super().start(tag, attributes, nsmap)

    def end(self, tag: str) -> None:
        if self._depth == self._case_depth:
            self.unfinished, self._case_depth = None, 0
            self.failed = self.holds_cases = False
        elif self._case_depth and KINDS.get(local(tag)) == CASE:
            self.holds_cases = True
        self._depth -= 1
        super().end(tag)

    def begin(self, name: str) -> None:
        """Begin a failure or an error of the open case, of whose tag only the name is known."""
        if self._case_depth and self._depth == self._case_depth and KINDS.get(name) in (FAILURE, ERROR):
            namespace = self._case_tag.removesuffix(local(self._case_tag))
            self.start(f"{namespace}{name}", {}, {})
