"""Is this a JUnit report, and what does it count: the gate that every uploaded file passes.

It takes bytes and gives a verdict; it knows no file, no clock and no limit on size, and it changes nothing.
`check` judges bytes at hand, `judge` a file that can be read again.
Small files are read whole; the others, and all that is odd, go through the streaming Gate, whose word is final.
"""

import codecs
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, cast

from lxml import etree

from bridge.domain.junit import xml_errors
from bridge.domain.junit.counter import TagCounter, count_tree
from bridge.domain.junit.encoding import DEFAULT, EncodingChecker, declared, narrow_utf16, trim, wrong_bytes
from bridge.domain.junit.foreign_formats import foreign_bytes
from bridge.domain.junit.result import Invalid, InvalidReport, TestCounts, Valid, ValidationResult
from bridge.domain.junit.wellformed import Cut, Source, SyntaxFault, Text, look, text_of
from bridge.domain.junit.xml_errors import code_of, message_of

__all__ = ["WHOLE_SIZE", "Invalid", "JUnitValidator", "TestCounts", "Valid", "ValidationResult", "check", "judge"]

WHOLE_SIZE: Final = 1 << 20  # bytes read as one tree, which takes about ten times as much memory
PIECE_SIZE: Final = 64 << 10  # bytes given to lxml at once: more is no faster and holds others up longer
FIRST_HEAD_SIZE: Final = 4 << 10  # bytes in which nearly every report's root begins
PLAIN_STARTS: Final = (b"<", codecs.BOM_UTF8 + b"<")  # others need their blanks cut off: rare
MAX_HEAD_SIZE: Final = 1 << 20  # bytes before the root's end: a licence in a comment is honest, a book is not

WHOLE_PARSER: Final = etree.XMLParser(
    resolve_entities=False, no_network=True, collect_ids=False, remove_blank_text=True
)
"""Made once and with less of a tree than lxml would keep: a fifth of a small file's time."""

NO_ROOT: Final = Invalid(
    reason="token_too_long",
    found=f"its root element does not begin and end its tag within {MAX_HEAD_SIZE >> 20} MiB.",
    remedy=xml_errors.AS_WRITTEN,
)


def check(data: bytes) -> ValidationResult:
    """Judge a file that is at hand; the same verdict as from a Gate, at nearly the cost of the bare parse."""
    return _check_whole(data) or _check_streaming(data)


def _check_whole(data: bytes) -> Valid | None:
    if len(data) > WHOLE_SIZE or not data.startswith(PLAIN_STARTS):
        return None
    try:
        root = etree.fromstring(data, WHOLE_PARSER)
    except etree.XMLSyntaxError:
        return None
    document = root.getroottree().docinfo
    counted = None if document.internalDTD is not None else count_tree(root)
    if counted is None:
        return None
    counts, notes = counted
    return Valid(counts=counts, encoding=(document.encoding or DEFAULT).lower(), notes=notes)


def _check_streaming(data: bytes) -> ValidationResult:
    return judge(lambda: iter((data,)))


def judge(source: Source, text: Text | None = None) -> ValidationResult:
    """Judge a file of any size, reading no further than its first fault; `text` as for `JUnitValidator.close`."""
    gate = JUnitValidator()
    for chunk in source():
        gate.feed(chunk)
        if gate.refused is not None:
            break
    return gate.close(source, text)


class JUnitValidator:
    """Judges a report that comes in chunks of any size, in constant memory but for its longest single token.

    lxml holds a CDATA section, a comment or a start tag until its end; an attribute is refused by its size then.
    After a refusal further chunks are ignored; `refused` tells early that no more need come.
    """

    def __init__(self) -> None:
        self.refused: Invalid | None = None
        self._head = bytearray()
        self._head_size = FIRST_HEAD_SIZE
        self._body: _Body | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file; never raises for what they hold."""
        for piece in _pieces(chunk):
            if self.refused is not None:
                return
            self._take(piece)

    def close(self, again: Source, text: Text | None = None) -> ValidationResult:
        """Return the verdict, once the whole file was fed, or as much of it as there is before `refused`.

        `again` reads the same file from its beginning, to find the place of a syntax fault. `text` may stand for what
        it reads, if faults are to be placed in another form of the document.
        """
        if self.refused is None and self._body is None:
            self._open(ended=True)
        body, self._body = self._body, None
        verdict = self.refused or (body.close() if body else xml_errors.EMPTY)
        if body is None or body.syntax is None:
            return verdict
        seen, body = body.syntax, None  # its parser may hold as much memory as expat is about to take
        return _explained(seen, look(text or text_of(again)))

    def _take(self, piece: bytes) -> None:
        if self._body is not None:
            self.refused = self._body.feed(piece)
            return
        self._head += piece
        if len(self._head) >= self._head_size:
            self._open(ended=False)

    def _open(self, *, ended: bool) -> None:
        """Look at the head; go on to the body once the root has begun, or once nothing more will come."""
        head, lines = trim(bytes(self._head))
        if not head and ended:
            return
        opening = _Opening(head)
        if opening.declares_entities:
            self.refused = xml_errors.ENTITIES
        elif opening.root_began or opening.broken or ended:
            self._head.clear()
            self._body = _Body(head, trusted=opening.root_began, first_line=lines)
            self.refused = self._body.feed(head)
        elif len(self._head) >= MAX_HEAD_SIZE:
            self.refused = NO_ROOT
        else:
            self._head_size = 2 * len(self._head)  # so that what is read again and again stays linear


def _pieces(chunk: bytes) -> Iterator[bytes]:
    if len(chunk) <= PIECE_SIZE:
        yield chunk
        return
    for start in range(0, len(chunk), PIECE_SIZE):
        yield chunk[start : start + PIECE_SIZE]


class _Opening:
    """What stands before the root's content, read with libxml2's own bounds; the content itself is not looked at."""

    def __init__(self, head: bytes) -> None:
        self.root_began = self.broken = self.declares_entities = False
        try:
            etree.XMLParser(target=cast("etree.ParserTarget", _Scout()), no_network=True).feed(head)
        except etree.XMLSyntaxError:
            self.broken = True
        except _RootMet:
            self.root_began = True
        except _DoctypeMet:
            self._read_doctype(head)

    def _read_doctype(self, head: bytes) -> None:
        """Read the DTD up to the root's tag, byte by byte, to stop there.

        One byte more and lxml may touch freed memory: it makes elements of what an entity in the content holds.
        """
        parser = etree.XMLPullParser(events=("start",), resolve_entities=False, no_network=True)
        events = parser.read_events()
        try:
            for at in range(len(head)):
                parser.feed(head[at : at + 1])
                for _, root in events:
                    dtd = root.getroottree().docinfo.internalDTD  # type: ignore[union-attr]  # "start" gives elements only
                    self.root_began = True
                    self.declares_entities = dtd is not None and next(dtd.iterentities(), None) is not None  # type: ignore[union-attr]
                    return
        except etree.XMLSyntaxError:
            self.broken = True


class _RootMet(Exception):
    """The root's tag was read, and no DOCTYPE before it."""


class _DoctypeMet(Exception):
    """A DOCTYPE was read, up to what it declares."""


class _Scout:
    """Target of a parser that is to stop at the first thing of interest."""

    def start(self, _tag: str, _attributes: Mapping[str, str]) -> None:
        raise _RootMet

    def doctype(self, _name: str, _public_id: str, _system_url: str) -> None:
        raise _DoctypeMet

    def close(self) -> None:
        """Nothing is left to do; lxml asks every target for it."""


class _Syntax(NamedTuple):
    """A syntax fault as libxml2 reports it."""

    words: str
    line: int
    column: int
    at_end: bool  # only when the whole file had been read


def _explained(seen: _Syntax, found: Cut | SyntaxFault | None) -> Invalid:
    """Name a syntax fault: at the place that expat finds, in plain words if there are any, else in libxml2's."""
    if isinstance(found, SyntaxFault):
        line, column = found.line, found.column
        if found.forbidden:
            return xml_errors.forbidden(found.forbidden, line=line, column=column)
        if found.found:
            return xml_errors.named(found.found, found.remedy, line=line, column=column)
        return xml_errors.unnamed(seen.words, line=line, column=column)
    if isinstance(found, Cut) and seen.at_end:
        return xml_errors.cut_off(seen.words, line=found.line, column=found.column)
    return xml_errors.unnamed(seen.words, line=seen.line, column=seen.column)  # expat has fewer bounds than libxml2


class _Body:
    """The whole document through a target parser: no tree, no text, only tags."""

    def __init__(self, head: bytes, *, trusted: bool, first_line: int) -> None:
        self.syntax: _Syntax | None = None
        self._start = head[:FIRST_HEAD_SIZE]
        self._encoding = declared(head)
        self._watch = EncodingChecker(self._encoding.name, first_line)
        self._counter = TagCounter()
        # The stubs ask for comment() and data(), which lxml does not, and which would cost a call for every text.
        target = cast("etree.ParserTarget", self._counter)
        # huge_tree lifts libxml2's bound of 10 MB on a CDATA section, and with it that on entities: only after the
        # opening has shown that there are none.
        self._parser = etree.XMLParser(target=target, huge_tree=trusted, resolve_entities=False, no_network=True)
        self._first_line = first_line

    def feed(self, piece: bytes) -> Invalid | None:
        self._counter.unread += len(piece)
        self._watch.feed(piece)
        try:
            self._parser.feed(piece)
        except etree.XMLSyntaxError as error:
            return self._explain(error, at_end=False)
        except InvalidReport as refusal:
            return refusal.refused
        return None

    def close(self) -> ValidationResult:
        try:
            self._parser.close()
        except etree.XMLSyntaxError as error:
            return self._explain(error, at_end=True)
        except InvalidReport as refusal:
            return refusal.refused
        counts, notes = self._counter.result()
        return Valid(counts=counts, encoding=self._encoding.name, notes=notes)

    def _explain(self, error: etree.XMLSyntaxError, *, at_end: bool) -> Invalid:
        line, column = error.position
        code = code_of(error)
        line += self._first_line
        if code == xml_errors.NO_MEMORY:
            return xml_errors.TOO_MUCH_MEMORY
        if code in xml_errors.UNKNOWN_ENCODING:
            return xml_errors.unknown_encoding(error, line=line)
        if code == xml_errors.BAD_BYTES:
            return wrong_bytes(self._encoding, self._watch.fault, line=line, column=column)
        foreign = None if self._counter.root_began else narrow_utf16(self._start) or foreign_bytes(self._start)
        if foreign:
            return foreign
        words = message_of(error)
        if self._counter.root_closed:
            return xml_errors.extra_content(words, line=line, column=column)
        self.syntax = _Syntax(words, line, column, at_end)
        return xml_errors.unnamed(words, line=line, column=column)  # until it has been looked for again
