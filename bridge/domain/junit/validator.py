"""Validates and counts JUnit reports, given as bytes, as a file that can be read again, or in chunks.

Small files are parsed as a tree. All others, and small ones that fail, go through the streaming JUnitValidator.
"""

import codecs
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, cast

from lxml import etree

from bridge.domain.junit import xml_errors
from bridge.domain.junit.counter import TagCounter, count_tree
from bridge.domain.junit.encoding import (
    C1_NOTE,
    MAX_DECLARATION_SIZE,
    NATIVE,
    PIECE_SIZE,
    UTF_8,
    DeclaredEncoding,
    EncodingChecker,
    EncodingFault,
    Utf8Converter,
    contains_c1_controls,
    declared,
    mismatched_encoding,
    regroup,
    trim,
    unknown_encoding,
)
from bridge.domain.junit.encoding_guess import Utf8Survey, wrong_encoding
from bridge.domain.junit.foreign_formats import foreign_bytes
from bridge.domain.junit.libxml2_errors import BAD_BYTES, NO_MEMORY, UNKNOWN_ENCODING, code_of, message_of
from bridge.domain.junit.result import Invalid, InvalidReport, TestCounts, Valid, ValidationResult
from bridge.domain.junit.tally import ReportTally
from bridge.domain.junit.text_before import find_report
from bridge.domain.junit.wellformed import Source, SyntaxFault, Text, Truncated, find_fault, text_of

__all__ = [
    "WHOLE_SIZE",
    "Invalid",
    "JUnitValidator",
    "TestCounts",
    "Valid",
    "ValidationResult",
    "validate_bytes",
    "validate_source",
]

WHOLE_SIZE: Final = 1 << 20  # bytes; a tree takes about ten times as much memory
FIRST_HEAD_SIZE: Final = 4 << 10  # bytes in which nearly every report's root begins
PLAIN_STARTS: Final = (b"<", codecs.BOM_UTF8 + b"<")  # other files need their leading blanks removed, which is rare
MAX_HEAD_SIZE: Final = 1 << 20  # bytes up to the end of the root's start tag, comments included

WHOLE_PARSER: Final = etree.XMLParser(
    resolve_entities=False,
    no_network=True,
    collect_ids=False,
    remove_blank_text=True,
    remove_comments=True,
    remove_pis=True,
)
"""Shared, and without what lxml would keep for a tree that is edited: saves a fifth of a small file's time. Text around
a comment is one text, as in a stream."""

DOCTYPE: Final = b"<!DOCTYPE"
ATTLIST: Final = b"<!ATTLIST"

BAD_ENCODING_NAME: Final = "Invalid XML encoding name"
"""libxml2's message for a declaration whose encoding is empty or no name."""

XML_1_1: Final = re.compile(rb"""\A[^<]*<\?xml\s+version\s*=\s*["']1\.1["']""")

NO_ROOT: Final = Invalid(
    reason="token_too_long",
    found=f"the start tag of its root element does not end within the first {MAX_HEAD_SIZE >> 20} MiB.",
    remedy=xml_errors.AS_WRITTEN,
)


def validate_bytes(data: bytes) -> ValidationResult:
    """Validate a file in memory; the result is that of `validate_source`, at nearly the cost of parsing."""
    return _check_whole(data) or _check_streaming(data)


def _check_whole(data: bytes) -> Valid | None:
    if len(data) > WHOLE_SIZE or not data.startswith(PLAIN_STARTS) or data[1:2] == b"\0":  # UTF-16 and UTF-32
        return None
    if DOCTYPE in data:  # read with more care
        return None
    if data.startswith(codecs.BOM_UTF8) and not declared(data[:MAX_DECLARATION_SIZE]).native:
        return None
    try:
        root = etree.fromstring(data, WHOLE_PARSER)
    except etree.XMLSyntaxError:
        return None
    document = root.getroottree().docinfo
    encoding = (document.encoding or UTF_8).lower()
    tally = None if document.internalDTD is not None or encoding not in NATIVE else count_tree(root)
    if tally is None:
        return None
    return _valid(tally, encoding, has_c1_controls=encoding == "iso-8859-1" and contains_c1_controls(data))


def _valid(tally: ReportTally, encoding: str, *, has_c1_controls: bool, codec: str = "") -> Valid:
    notes = tally.notes() + ((C1_NOTE,) if has_c1_controls else ())
    return Valid(
        counts=tally.counts(),
        encoding=encoding,
        notes=notes,
        highlights=tally.highlights(),
        codec=codec,
        case_digest=tally.case_digest(),
    )


def _check_streaming(data: bytes) -> ValidationResult:
    return validate_source(lambda: iter((data,)))


def validate_source(source: Source, text: Text | None = None, *, records_cases: bool = True) -> ValidationResult:
    """Validate a file of any size, reading up to its first fault; `text` as for `JUnitValidator.close`.

    Without `records_cases` the result has no digest of the cases.
    """
    validator = JUnitValidator(records_cases=records_cases)
    for chunk in source():
        validator.feed(chunk)
        if validator.invalid is not None:
            break
    return validator.close(source, text)


class JUnitValidator:
    """Validates a report that comes in chunks of any size.

    Memory is constant except for the longest token, because lxml buffers a CDATA section, a comment or a start tag up
    to its end. Once `invalid` is set, further chunks are ignored and need not be fed.
    """

    def __init__(self, *, records_cases: bool = True) -> None:
        self.invalid: Invalid | None = None
        self._records_cases = records_cases
        self._head = bytearray()
        self._head_size = FIRST_HEAD_SIZE
        self._body: _Body | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file; never raises because of their content."""
        for piece in _pieces(chunk):
            if self.invalid is not None:
                return
            self._take(piece)

    def close(self, again: Source, text: Text | None = None) -> ValidationResult:
        """Return the result; call it after the whole file was fed, or after `invalid` was set.

        `again` opens the same file from its beginning, to find the position of a syntax fault. `text`, if given, is
        read instead, so that positions refer to another form of the document.
        """
        if self.invalid is None and self._body is None:
            self._open(ended=True)
        body, self._body = self._body, None
        result = self.invalid or (body.close() if body else xml_errors.EMPTY)
        if body is not None and body.misread is not None:
            return _misread(body.encoding, body.misread, again)
        if body is None or body.syntax is None:
            return result
        if not body.syntax.root_began and (other := _other_file(body, again)):
            return other
        seen, body = body.syntax, None  # frees lxml's parser before expat takes as much memory
        return _to_invalid(seen, find_fault(text or text_of(again)))

    def _take(self, piece: bytes) -> None:
        if self._body is not None:
            self.invalid = self._body.feed(piece)
            return
        self._head += piece
        if len(self._head) >= self._head_size:
            self._open(ended=False)

    def _open(self, *, ended: bool) -> None:
        """Parse the head; begin the body if the root has begun or the file has ended."""
        whole = bytes(self._head)
        head, lines = trim(whole)
        if not head and ended:
            return
        encoding = declared(head)
        opening = _Opening(_readable(head, encoding))
        if mismatch := mismatched_encoding(encoding):
            self.invalid = mismatch
        elif opening.declares_entities:
            self.invalid = xml_errors.ENTITIES
        elif opening.declares_attributes:
            self.invalid = xml_errors.ATTRIBUTES
        elif opening.root_began or opening.broken or ended:
            self._head.clear()
            checker = EncodingChecker(encoding.codec, lines, len(whole) - len(head))
            counter = TagCounter(records_cases=self._records_cases)
            self._body = _Body(head, encoding, checker, counter, trusted=opening.root_began, first_line=lines)
            self.invalid = self._body.feed(head)
        elif len(self._head) >= MAX_HEAD_SIZE:
            self.invalid = NO_ROOT
        else:
            self._head_size = 2 * len(self._head)  # doubled, so that repeated parsing stays linear


def _pieces(chunk: bytes) -> Iterator[bytes]:
    if len(chunk) <= PIECE_SIZE:
        yield chunk
        return
    for start in range(0, len(chunk), PIECE_SIZE):
        yield chunk[start : start + PIECE_SIZE]


class _Opening:
    """The document up to the root's start tag, parsed with libxml2's default limits."""

    def __init__(self, head: bytes) -> None:
        self.root_began = self.broken = self.declares_entities = self.declares_attributes = False
        try:
            etree.XMLParser(target=cast("etree.ParserTarget", _OpeningTarget()), no_network=True).feed(head)
        except etree.XMLSyntaxError:
            self.broken = True
        except _RootFound:
            self.root_began = True
        except _DoctypeFound:
            self._read_doctype(head)

    def _read_doctype(self, head: bytes) -> None:
        """Parse the DTD byte by byte, to stop at the root's start tag.

        One more byte and lxml may touch freed memory, because it creates elements from an entity in the content.
        """
        parser = etree.XMLPullParser(events=("start",), resolve_entities=False, no_network=True)
        events = parser.read_events()
        try:
            for at in range(len(head)):
                parser.feed(head[at : at + 1])
                for _, root in events:
                    tree = root.getroottree()  # type: ignore[union-attr]  # "start" events have elements only
                    dtd = tree.docinfo.internalDTD
                    self.root_began = True
                    self.declares_entities = dtd is not None and next(dtd.iterentities(), None) is not None  # type: ignore[union-attr]
                    # lxml lists attributes only of elements that are declared too.
                    self.declares_attributes = not self.declares_entities and ATTLIST in etree.tostring(tree)
                    return
        except etree.XMLSyntaxError:
            self.broken = True


class _RootFound(Exception):
    """Raised at the root's start tag, if no DOCTYPE precedes it."""


class _DoctypeFound(Exception):
    """Raised at a DOCTYPE, before its declarations."""


class _OpeningTarget:
    """Target of a parser that stops at the root or the DOCTYPE."""

    def start(self, _tag: str, _attributes: Mapping[str, str]) -> None:
        raise _RootFound

    def doctype(self, _name: str, _public_id: str, _system_url: str) -> None:
        raise _DoctypeFound

    def close(self) -> None:
        """Do nothing; lxml calls it on every target."""


class _Syntax(NamedTuple):
    """A syntax fault as libxml2 reports it."""

    message: str
    line: int
    column: int
    at_end: bool  # reported only after the whole file was read
    begins_as_xml: bool
    root_began: bool
    after_root: bool  # reported after the root's end tag
    is_xml_1_1: bool


def _to_invalid(seen: _Syntax, found: Truncated | SyntaxFault | None) -> Invalid:
    """Return the result for a syntax fault.

    The position is expat's; the message is a plain name if there is one, else libxml2's.
    """
    if seen.message == BAD_ENCODING_NAME:
        return unknown_encoding("")
    if isinstance(found, SyntaxFault):
        line, column = found.line, found.column
        if seen.after_root:
            return xml_errors.extra_content(found.excerpt or found.found, line=line, column=column)
        if found.forbidden:
            return xml_errors.forbidden(found.forbidden, line=line, column=column, is_xml_1_1=seen.is_xml_1_1)
        if found.found:
            return xml_errors.named(found.found, found.remedy, line=line, column=column)
        unnamed = xml_errors.unnamed if seen.begins_as_xml else xml_errors.never_xml
        return unnamed(found.excerpt, line=line, column=column)
    if seen.after_root:
        return xml_errors.extra_content("", line=seen.line, column=seen.column)
    if isinstance(found, Truncated) and seen.at_end:
        return xml_errors.cut_off(found.open, line=found.line, column=found.column)
    return xml_errors.unnamed(seen.message, line=seen.line, column=seen.column)  # expat has fewer limits than libxml2


def _readable(head: bytes, encoding: DeclaredEncoding) -> bytes:
    """Return the head of a document as libxml2 will read it."""
    if encoding.native or not encoding.codec:
        return head
    try:
        return Utf8Converter(encoding.codec).feed(head)
    except UnicodeError:
        return head


def _other_file(body: "_Body", again: Source) -> Invalid | None:
    """Return the result for a file whose root never begins, if it is of another format or has text first."""
    foreign = foreign_bytes(body.start)
    before = find_report(again)
    if before is None or not before.size or (foreign and not before.ends_line):
        return foreign
    return xml_errors.text_before(before.excerpt, line=before.lines + 1, is_plain=before.is_plain)


class _Misread(NamedTuple):
    """Where bytes do not fit the encoding: the first one by Python's codec, else libxml2's position."""

    fault: EncodingFault | None
    line: int
    column: int | None


def _misread(encoding: DeclaredEncoding, seen: _Misread, again: Source) -> Invalid:
    survey = None
    if encoding.codec == UTF_8 and seen.fault is not None:
        survey = Utf8Survey(regroup(again()))
    return wrong_encoding(encoding, seen.fault, line=seen.line, column=seen.column, survey=survey)


class _Body:
    """Parses the whole document with a target: only tags and the text of the first failures, no tree."""

    def __init__(
        self,
        head: bytes,
        encoding: DeclaredEncoding,
        checker: EncodingChecker,
        counter: TagCounter,
        *,
        trusted: bool,
        first_line: int,
    ) -> None:
        self.syntax: _Syntax | None = None
        self.misread: _Misread | None = None
        self.encoding = encoding
        self.start = head[:FIRST_HEAD_SIZE]
        self._checker = checker
        self._converter = None if encoding.native else Utf8Converter(encoding.codec)
        self._counter = counter
        target = cast("etree.ParserTarget", self._counter)  # the stubs require comment(), but lxml does not
        # huge_tree lifts libxml2's limit of 10 MB for a CDATA section, and also that for entities: only allowed
        # if _Opening has found no entities.
        self._parser = etree.XMLParser(target=target, huge_tree=trusted, resolve_entities=False, no_network=True)
        self._first_line = first_line

    def feed(self, piece: bytes) -> Invalid | None:
        self._counter.unread += len(piece)
        self._checker.feed(piece)
        try:
            readable = self._converter.feed(piece) if self._converter else piece
            if readable:
                self._parser.feed(readable)
        except UnicodeError:
            return self._reject_bytes(self._first_line + 1, None)
        except etree.XMLSyntaxError as error:
            return self._explain(error, at_end=False)
        except InvalidReport as error:
            return error.invalid
        return None

    def close(self) -> ValidationResult:
        try:
            if self._converter and (rest := self._converter.close()):
                self._parser.feed(rest)
            self._parser.close()
        except UnicodeError:
            return self._reject_bytes(self._first_line + 1, None)
        except etree.XMLSyntaxError as error:
            return self._explain(error, at_end=True)
        except InvalidReport as error:
            return error.invalid
        codec = self.encoding.codec if self._converter else ""
        return _valid(
            self._counter.tally, self.encoding.name, has_c1_controls=self._checker.has_c1_controls, codec=codec
        )

    def _explain(self, error: etree.XMLSyntaxError, *, at_end: bool) -> Invalid:
        line, column = error.position
        code = code_of(error)
        line += self._first_line
        if code == NO_MEMORY:
            return xml_errors.TOO_MUCH_MEMORY
        if code in UNKNOWN_ENCODING:  # libxml2 may be built without iconv
            return unknown_encoding(self.encoding.name)
        if code == BAD_BYTES:
            return self._reject_bytes(line, column)
        message = message_of(error)
        self.syntax = _Syntax(
            message,
            line,
            column,
            at_end,
            begins_as_xml=self.start.lstrip(codecs.BOM_UTF8)[:1] == b"<",
            root_began=self._counter.root_began,
            after_root=self._counter.root_closed,
            is_xml_1_1=XML_1_1.search(self.start) is not None,
        )
        return xml_errors.unnamed(
            message, line=line, column=column
        )  # provisional: close() looks for the position with expat

    def _reject_bytes(self, line: int, column: int | None) -> Invalid:
        self.misread = _Misread(self._checker.fault, line, column)
        return wrong_encoding(self.encoding, self._checker.fault, line=line, column=column)
