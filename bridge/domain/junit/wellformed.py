"""x"""

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final
from xml.parsers import expat
from xml.parsers.expat import errors

from bridge.domain.junit.encoding import MAX_DECLARATION_SIZE, declared, trim
from bridge.domain.junit.xml_errors import (
    AS_WRITTEN,
    ESCAPE_AMPERSAND,
    ESCAPE_ENTITY,
    ESCAPE_LESS_THAN,
    KEEP_CONTROLS_OUT,
    ONE_BY_ONE,
)

Text = Callable[[], Iterator[str]]
"""Opens a document's text from its start: pieces of any size, the same text at every call."""

WINDOW_SIZE: Final = 64 << 10  # bytes before and behind a fault that are looked at to name it
LEAD: Final = b" "  # read before the document: else expat takes one whose second byte is a NUL for UTF-16
SHIFTED: Final = "\u3c00"  # `<` with its bytes in the wrong order, and a character that no text uses
TAIL_SIZE: Final = 64 << 10  # characters at the end of the file in which the last end tag is looked for
MAX_BLANKS: Final = 60  # in an end tag, behind its name
MAX_SHOWN_NAME: Final = 60  # characters of a name from the file

CODES: Final = errors.codes
DUPLICATE_ATTRIBUTE: Final = CODES[errors.XML_ERROR_DUPLICATE_ATTRIBUTE]
MISMATCH: Final = CODES[errors.XML_ERROR_TAG_MISMATCH]
UNDEFINED_ENTITY: Final = CODES[errors.XML_ERROR_UNDEFINED_ENTITY]
BAD_REFERENCE: Final = CODES[errors.XML_ERROR_BAD_CHAR_REF]
SECOND_DECLARATION: Final = CODES[errors.XML_ERROR_MISPLACED_XML_PI]
UNCLOSED_TOKEN: Final = CODES[errors.XML_ERROR_UNCLOSED_TOKEN]
UNENDED: Final = frozenset(
    {UNCLOSED_TOKEN, CODES[errors.XML_ERROR_NO_ELEMENTS], CODES[errors.XML_ERROR_UNCLOSED_CDATA_SECTION]}
)

PREDEFINED: Final = frozenset({"amp", "lt", "gt", "quot", "apos"})
ENTITY: Final = re.compile(r"&([^#;&<>\s][^;&<>\s]{0,99});")
REFERENCE: Final = re.compile(r"&#(?:x[0-9A-Fa-f]+|[0-9]+);")
OPEN_REFERENCE: Final = re.compile(r"""&[^\s;&<>"']*\Z""")
BEGUN_TAG: Final = re.compile(r"<(?:[\w.-]+:)?([\w.-]+)(?=[\s/]|\Z)")
BEHIND_THE_ROOT: Final = (("-->", "<!--"), ("?>", "<?"))
END_TAG: Final = re.compile(r"</([^\s<>/]+)\s*>\Z")
CONSTRUCTS: Final = {
    "<!--": ("a comment that never ends", 'The test runner must write the "<" as &lt;, or end the comment with "-->".'),
    "<![CDATA[": ("a CDATA section that never ends", 'The test runner must end it with "]]>".'),
    "<?": ("a processing instruction that never ends", 'The test runner must write the "<" as &lt;.'),
}
"""What holds markup without reading it: what it is called if it never ends, and what to do then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The document is well-formed as far as it goes, but it ends too early."""

    line: int  # of its end
    column: int
    begun: str  # local name in a start tag that the end cuts off; empty if there is none


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntaxFault:
    """The document is not well-formed, wherever it ends."""

    line: int
    column: int
    found: str = ""  # a noun phrase; empty if the fault has no plain name
    forbidden: str = ""  # the character or the reference, if it is one that XML forbids
    remedy: str = AS_WRITTEN


def look(text: Text) -> Cut | SyntaxFault | None:
    """Return the first fault of a document, or that it is cut off; None if expat finds nothing wrong.

    The text holds no lone surrogates and no XML declaration; it may begin with blanks.
    """
    reader = _Reader()
    try:
        for piece in text():
            reader.feed(piece)
        reader.flush()
    except expat.ExpatError as error:
        return _fault(text, reader, error.code)
    try:
        reader.close()
    except expat.ExpatError as error:
        return (_unended if error.code in UNENDED else _fault)(text, reader, error.code)
    return None


class _Reader:
    """expat with the little that is kept to explain its errors."""

    def __init__(self) -> None:
        self.open: list[tuple[str, int]] = []  # name and place of each open element
        self.root = ""
        self.cdata_at: int | None = None  # where the open CDATA section begins
        self.shifted_at: int | None = None  # where the first `<` is made of halves of two characters of UTF-16
        self.tail = ""
        self._fed = 0
        self._pending = b""
        self._parser = parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartCdataSectionHandler = self._start_cdata
        parser.EndCdataSectionHandler = self._end_cdata
        parser.Parse(LEAD, False)

    @property
    def error_at(self) -> int:
        """Bytes of UTF-8 before the error."""
        return max(0, self._parser.ErrorByteIndex - len(LEAD))

    @property
    def _at(self) -> int:
        return self._parser.CurrentByteIndex - len(LEAD)

    @property
    def size(self) -> int:
        return self._fed

    def feed(self, piece: str) -> None:
        self.tail = (self.tail + piece)[-TAIL_SIZE:]
        if self.shifted_at is None and SHIFTED in piece:
            self.shifted_at = self._fed + len(self._pending) + len(piece.partition(SHIFTED)[0].encode())
        self._pending += piece.encode()
        # expat reads an unfinished token from its beginning again with every piece: pieces grow with the token.
        if len(self._pending) >= self._fed - self._at:
            self.flush()

    def flush(self) -> None:
        pending, self._pending = self._pending, b""
        self._fed += len(pending)
        self._parser.Parse(pending, False)

    def close(self) -> None:
        self._parser.Parse(b"", True)

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self.root = self.root or name
        self.open.append((name, self._at))

    def _end(self, _name: str) -> None:
        self.open.pop()

    def _start_cdata(self) -> None:
        self.cdata_at = self._at

    def _end_cdata(self) -> None:
        self.cdata_at = None


def _unended(text: Text, reader: _Reader, code: int) -> Cut | SyntaxFault:
    """Tell a document that ends too early from one in which something hides the end."""
    token_at = reader.error_at if code == UNCLOSED_TOKEN else reader.cdata_at
    begun = ""
    if token_at is not None:
        _, token = _around(text, token_at)
        construct = next((opening for opening in CONSTRUCTS if token.startswith(opening)), None)
        if construct and (_ends_with(reader.tail, reader.root) or _swallows(text, token_at, reader.open)):
            found, remedy = CONSTRUCTS[construct]
            return _at(text, token_at, found=found, remedy=remedy)
        if not reader.root and not token.startswith("<"):
            return _at(text, token_at)  # a word in place of the root
        tag = BEGUN_TAG.match(token)
        begun = tag[1] if tag else ""
    elif reader.open and _ends_with(reader.tail, reader.root):
        name, begins_at = reader.open[-1]
        found = f'"<{_shown(name)}>" is never ended, though the file ends with "</{_shown(reader.root)}>"'
        return _at(text, begins_at, found=found)
    if reader.shifted_at is not None:
        found = "a byte is missing or too many before here, so that each character is made of halves of two"
        return _at(text, reader.shifted_at, found=found)
    line, column = _place(text, reader.size)
    return Cut(line=line, column=column, begun=begun)


def _ends_with(tail: str, root: str) -> bool:
    """Return whether the last thing in the file but blanks, comments and instructions is the end tag of the root."""
    tail = tail.rstrip()
    while opening := next((opening for ending, opening in BEHIND_THE_ROOT if tail.endswith(ending)), None):
        tail = tail[: max(0, tail.rfind(opening))].rstrip()
    last = END_TAG.match(tail, max(0, tail.rfind("</")))
    return bool(root) and last is not None and last[1] == root


def _swallows(text: Text, token_at: int, path: list[tuple[str, int]]) -> bool:
    """Return whether what never ends goes on past the end tag of the element that it stands in."""
    if not path:
        return False
    ending = re.compile(rf"</{re.escape(path[-1][0])}\s*>")
    at, rest = 0, ""
    for piece in text():
        size = len(piece.encode())
        if at + size > token_at:
            rest += piece if at >= token_at else _split(piece, token_at - at)[1]
            if ending.search(rest):
                return True
            rest = rest[-len(path[-1][0]) - MAX_BLANKS :]
        at += size
    return False


def _fault(text: Text, reader: _Reader, code: int) -> SyntaxFault:
    at = reader.error_at
    before, after = _around(text, at)
    if code == MISMATCH and reader.open:
        at -= len(b"</")
        name, begins_at = reader.open[-1]
        ending = re.match(r"[^\s>]*", after)
        line, _ = _place(text, begins_at)
        found = f'"</{_shown(ending[0] if ending else "")}>" does not end "<{_shown(name)}>" of line {line}'
        return _at(text, at, found=found)
    named = _named(code, before, after)
    if named is None:
        return _at(text, at)
    moved, found, remedy = named
    at += len(after[:moved].encode()) if moved >= 0 else -len(before[moved:].encode())
    if remedy == KEEP_CONTROLS_OUT:
        return _at(text, at, forbidden=found, remedy=remedy)
    return _at(text, at, found=found, remedy=remedy)


def _named(code: int, before: str, after: str) -> tuple[int, str, str] | None:
    """Return how many characters away the fault begins, its name, and what to do."""
    if code == DUPLICATE_ATTRIBUTE:
        name = re.match(r"[^\s=/>]*", after)
        found = f'a second "{_shown(name[0] if name else "")}" among the attributes of one element'
        return 0, found, "The test runner must write each attribute once."
    if code == UNDEFINED_ENTITY:
        entity = next((entity for entity in ENTITY.finditer(after) if entity[1] not in PREDEFINED), None)
        if entity:
            return entity.start(), f'the entity "{_shown(entity[0])}", which XML does not define', ESCAPE_ENTITY
    if code == BAD_REFERENCE:
        reference = next((found for found in REFERENCE.finditer(after) if _is_forbidden(found[0])), None)
        if reference:
            return reference.start(), f'"{_shown(reference[0])}"', KEEP_CONTROLS_OUT
    if code == SECOND_DECLARATION:
        return 0, "an XML declaration, which may only begin a file", ONE_BY_ONE
    return _token_named(before, after)


def _token_named(before: str, after: str) -> tuple[int, str, str] | None:
    bad = after[:1]
    if not before.strip():  # nothing has begun: this is something else than XML
        return None
    if bad and forbids(ord(bad)):
        return 0, f"U+{ord(bad):04X}", KEEP_CONTROLS_OUT
    if before.endswith("--") and before.rfind("<!--") > before.rfind("-->"):
        return -2, 'a "--" within a comment', "The test runner must leave it out there."
    if open_reference := OPEN_REFERENCE.search(before):
        return -len(open_reference[0]), 'a bare "&"', ESCAPE_AMPERSAND
    if before.endswith("]]") and bad == ">":
        return -2, 'a "]]>" outside of a CDATA section', 'The test runner must write it as "]]&gt;".'
    if bad == "<" and _is_in_value(before):
        remedy = f"{ESCAPE_LESS_THAN.removesuffix('.')}, or a quotation mark is missing before it."
        return 0, 'a "<" in the value of an attribute', remedy
    if opening := re.search(r"<[!/]?\Z", before):
        return -len(opening[0]), 'a bare "<"', ESCAPE_LESS_THAN
    return None


def _is_in_value(before: str) -> bool:
    tag = before[before.rfind("<") :]
    return bool(re.search(r"""["']""", re.sub(r""""[^"]*"|'[^']*'""", "", tag)))


def forbids(character: int) -> bool:
    """Return whether XML forbids a character (https://www.w3.org/TR/xml/#charsets)."""
    if character < 0x20:
        return character not in (0x09, 0x0A, 0x0D)
    return 0xD800 <= character < 0xE000 or character in (0xFFFE, 0xFFFF) or character > 0x10FFFF


def _is_forbidden(reference: str) -> bool:
    digits = reference[2:-1]
    number = digits.removeprefix("x").lstrip("0")[:8] or "0"  # eight digits are past every character
    return forbids(int(number, 16 if digits.startswith("x") else 10))


def _shown(name: str) -> str:
    return name if len(name) <= MAX_SHOWN_NAME else f"{name[:MAX_SHOWN_NAME]}…"


def _at(text: Text, at: int, *, found: str = "", forbidden: str = "", remedy: str = AS_WRITTEN) -> SyntaxFault:
    line, column = _place(text, at)
    return SyntaxFault(line=line, column=column, found=found, forbidden=forbidden, remedy=remedy)


def _place(text: Text, at: int) -> tuple[int, int]:
    """Return line and column, both from 1, of the character behind so many bytes of UTF-8."""
    line, column, left = 1, 1, at
    for piece in text():
        seen = piece
        if (size := len(piece.encode())) > left:
            seen = _split(piece, left)[0]
        line += seen.count("\n")
        column = len(seen) - seen.rfind("\n") if "\n" in seen else column + len(seen)
        left -= size
        if left <= 0:
            break
    return line, column


def _around(text: Text, at: int) -> tuple[str, str]:
    """Return the text before and behind so many bytes of UTF-8, as far as the window goes."""
    before, after, read = "", "", 0
    for piece in text():
        size = len(piece.encode())
        if read + size <= at:
            before = (before + piece)[-WINDOW_SIZE:]
        else:
            head, rest = _split(piece, max(0, at - read))
            before, after = (before + head)[-WINDOW_SIZE:], after + rest
        read += size
        if len(after) >= WINDOW_SIZE:
            break
    return before, after[:WINDOW_SIZE]


def _split(piece: str, at: int) -> tuple[str, str]:
    data = piece.encode()
    return data[:at].decode(), data[at:].decode()


Source = Callable[[], Iterator[bytes]]
"""Opens a file from its start: pieces of any size, the same bytes at every call."""

MARK: Final = "\ufeff"
STAND_IN: Final = "\ufffd"  # for a character that cannot be read, or must not be
STAND_INS: Final = dict.fromkeys([code for code in range(0x20) if forbids(code)], STAND_IN)
HEAD_SIZE: Final = 4 * MAX_DECLARATION_SIZE  # bytes: in UTF-32 too it holds every honest declaration


def text_of(source: Source) -> Text:
    """Return the document's text, in the encoding that it declares and without its XML declaration.

    If Python does not know the encoding, all but ASCII is a guess; so are control characters, which stand for letters
    in some encodings.
    """

    def text() -> Iterator[str]:
        chunks = source()
        head = b""
        for chunk in chunks:
            head += chunk
            if len(head) >= HEAD_SIZE:
                break
        name = _codec(head)
        decoder = codecs.getincrementaldecoder(name or "latin-1")(errors="replace")

        pieces = (decoder.decode(data) for data in chain((head,), chunks))
        for piece in without_declaration(pieces):
            sound = piece if piece.isascii() else piece.encode(errors="replace").decode()  # UTF-7 may hold surrogates
            yield sound if name else sound.translate(STAND_INS)

    return text


def without_declaration(pieces: Iterator[str]) -> Iterator[str]:
    """Yield a text with blanks in place of its XML declaration, and without its byte order mark."""
    head = ""
    for piece in pieces:
        head += piece
        if len(head) >= HEAD_SIZE:
            break
    head = head.removeprefix(MARK)
    declaration, end, rest = head.partition("?>")
    if end and declaration.lstrip().startswith("<?xml") and len(declaration) <= HEAD_SIZE:
        blank = "".join(character if character == "\n" else " " for character in declaration + end)
        head = blank + rest
    yield head
    yield from pieces


def _codec(head: bytes) -> str | None:
    trimmed, _ = trim(head)
    name = declared(trimmed).name
    if name == "utf-16" and not trimmed.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = "utf-16-be" if trimmed[:1] == b"\0" else "utf-16-le"
    try:
        codecs.getincrementaldecoder(name)(errors="replace").decode(head)
        b"".decode(name)
    except (LookupError, UnicodeError):  # unknown, or no codec for text
        return None
    return name
