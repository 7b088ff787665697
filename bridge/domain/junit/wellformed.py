"""Finds the first position at which a rejected document is not well-formed, or that it ends too early.

libxml2's push parser buffers what it cannot parse yet, such as a bare `&`, and reports it at the end of the file.
expat, which is used here, reports it at once.
"""

import codecs
import re
from collections.abc import Callable, Iterator
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
    JOIN_HALVES,
    KEEP_CONTROLS_OUT,
    ONE_BY_ONE,
    QUOTE_VALUES,
    WRITE_WHOLE,
)
from bridge.values import dataclass

Text = Callable[[], Iterator[str]]
"""Opens a document's text from its start: pieces of any size, the same text at every call."""

WINDOW_SIZE: Final = 64 << 10  # bytes before and after a fault that are searched for its name
LEADING_BYTE: Final = b" "  # parsed first; otherwise expat takes a document whose second byte is NUL for UTF-16
MISALIGNED: Final = "\u3c00"  # `<` with its bytes swapped; real text does not contain this character
TAIL_SIZE: Final = 64 << 10  # characters at the end of the file that are searched for the last end tag
MAX_BLANKS: Final = 60  # in an end tag, after its name
MAX_SHOWN_NAME: Final = 60  # characters of a name from the file
MAX_ATTRIBUTE: Final = 1_000  # characters of a tag that are searched for its last attribute, from each of them on

CODES: Final = errors.codes
DUPLICATE_ATTRIBUTE: Final = CODES[errors.XML_ERROR_DUPLICATE_ATTRIBUTE]
MISMATCH: Final = CODES[errors.XML_ERROR_TAG_MISMATCH]
UNDEFINED_ENTITY: Final = CODES[errors.XML_ERROR_UNDEFINED_ENTITY]
BAD_REFERENCE: Final = CODES[errors.XML_ERROR_BAD_CHAR_REF]
JUNK: Final = CODES[errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT]
SECOND_DECLARATION: Final = CODES[errors.XML_ERROR_MISPLACED_XML_PI]
UNCLOSED_TOKEN: Final = CODES[errors.XML_ERROR_UNCLOSED_TOKEN]
END_ERRORS: Final = frozenset(
    {UNCLOSED_TOKEN, CODES[errors.XML_ERROR_NO_ELEMENTS], CODES[errors.XML_ERROR_UNCLOSED_CDATA_SECTION]}
)

PREDEFINED: Final = frozenset({"amp", "lt", "gt", "quot", "apos"})
ENTITY: Final = re.compile(r"&([^#;&<>\s][^;&<>\s]{0,99});")
REFERENCE: Final = re.compile(r"&#(?:x[0-9A-Fa-f]+|[0-9]+);")
HIGH_DIGITS: Final = r"(x0*[dD][89abAB][0-9a-fA-F]{2}|0*5(?:529[6-9]|5[3-9]\d{2}|6[0-2]\d{2}|63[01]\d))"
LOW_DIGITS: Final = (
    r"(x0*[dD][c-fC-F][0-9a-fA-F]{2}|0*5(?:63[2-9][0-9]|6[4-9][0-9]{2}|7[0-2][0-9]{2}|73[0-3][0-9]|734[0-3]))"
)
SURROGATES: Final = re.compile(rf"&#{HIGH_DIGITS};&#{LOW_DIGITS};")
HALVES: Final = re.compile(rf"&#(?:{HIGH_DIGITS}|{LOW_DIGITS});")
OPEN_REFERENCE: Final = re.compile(r"""&[^\s;&<>"']*\Z""")
TAG_SO_FAR: Final = re.compile(r"""<[^\s<>&"'=/!?](?:[^<>"']|"[^"]*"|'[^']*')*+""")
PUNCTUATION: Final = frozenset("!#$%&()*+,-./:;=?@[]^_{|}~<>")
CUT_TAG: Final = re.compile(r"<(?:[\w.-]+:)?([\w.-]+)(?=[\s/]|\Z)")
BEHIND_THE_ROOT: Final = (("-->", "<!--"), ("?>", "<?"))
END_TAG: Final = re.compile(r"</([^\s<>/]+)\s*>\Z")
CONSTRUCTS: Final = {
    "<!--": ("a comment that never ends", 'The test runner must write the "<" as &lt;, or end the comment with "-->".'),
    "<![CDATA[": ("a CDATA section that never ends", 'The test runner must end it with "]]>".'),
    "<?": ("a processing instruction that never ends", 'The test runner must write the "<" as &lt;.'),
}
"""Constructs whose content is not parsed as markup: name and remedy if one never ends."""

TOKENS: Final = (
    ("<!--", "a comment"),
    ("<![", "a CDATA section"),
    ("<!", "a declaration"),
    ("<?", "a processing instruction"),
    ("</", "an end tag"),
    ("<", "a tag"),
)
"""How tokens begin, and what they are called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Truncated:
    """The document is well-formed as far as it goes, but it ends too early."""

    line: int  # of its end
    column: int
    open: str  # what the end of the file cuts, as a clause
    cut_tag: str  # local name of a start tag that the end of the file cuts; empty if there is none


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntaxFault:
    """The document is not well-formed, regardless of where it ends."""

    line: int
    column: int
    found: str = ""  # a noun phrase; empty if the fault has no plain name
    excerpt: str = ""  # the text at the fault; empty if it is not printable
    forbidden: str = ""  # the character or reference, if XML forbids it
    remedy: str = AS_WRITTEN


def find_fault(text: Text) -> Truncated | SyntaxFault | None:
    """Return the first fault of a document, or that it is truncated; None if expat finds nothing wrong."""
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
        return (_classify_end if error.code in END_ERRORS else _fault)(text, reader, error.code)
    return None


class _Reader:
    """expat, with the state that explaining its errors takes."""

    def __init__(self) -> None:
        self.open: list[tuple[str, int]] = []  # name and position of each open element
        self.root = ""
        self.cdata_at: int | None = None  # position of the open CDATA section
        self.misaligned_at: int | None = None  # position of the first `<` formed by halves of two UTF-16 characters
        self.tail = ""
        self._fed = 0
        self._pending = b""
        self._parser = parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.StartCdataSectionHandler = self._start_cdata
        parser.EndCdataSectionHandler = self._end_cdata
        parser.Parse(LEADING_BYTE, False)

    @property
    def error_at(self) -> int:
        """Bytes of UTF-8 before the error."""
        return max(0, self._parser.ErrorByteIndex - len(LEADING_BYTE))

    @property
    def _at(self) -> int:
        return self._parser.CurrentByteIndex - len(LEADING_BYTE)

    @property
    def size(self) -> int:
        return self._fed

    def feed(self, piece: str) -> None:
        self.tail = (self.tail + piece)[-TAIL_SIZE:]
        if self.misaligned_at is None and MISALIGNED in piece:
            self.misaligned_at = self._fed + len(self._pending) + len(piece.partition(MISALIGNED)[0].encode())
        self._pending += piece.encode()
        # expat parses an unfinished token again with every piece, so the pieces grow with the token.
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


def _classify_end(text: Text, reader: _Reader, code: int) -> Truncated | SyntaxFault:
    """Return whether the document is truncated, or contains a construct that hides its end."""
    token_at = reader.error_at if code == UNCLOSED_TOKEN else reader.cdata_at
    cut_tag = ""
    if token_at is not None:
        _, token = _around(text, token_at)
        construct = next((opening for opening in CONSTRUCTS if token.startswith(opening)), None)
        if construct and (_ends_with(reader.tail, reader.root) or _runs_past_parent(text, token_at, reader.open)):
            found, remedy = CONSTRUCTS[construct]
            return _at(text, token_at, found=found, remedy=remedy)
        if not reader.root and not token.startswith("<"):
            return _at(text, token_at, excerpt=_excerpt(token))  # a word in place of the root
        tag = CUT_TAG.match(token)
        cut_tag = tag[1] if tag else ""
    elif reader.open and _ends_with(reader.tail, reader.root):
        name, begins_at = reader.open[-1]
        found = f'"<{_shorten(name)}>" has no end tag, although the file ends with "</{_shorten(reader.root)}>"'
        return _at(text, begins_at, found=found)
    if reader.misaligned_at is not None:
        found = "a byte is missing or superfluous before this position, so that all characters after it are wrong"
        return _at(text, reader.misaligned_at, found=found)
    line, column = _line_and_column(text, reader.size)
    return Truncated(line=line, column=column, open=_open_at_end(text, reader, token_at), cut_tag=cut_tag)


def _open_at_end(text: Text, reader: _Reader, token_at: int | None) -> str:
    if token_at is not None:
        _, token = _around(text, token_at)
        name = next((name for opening, name in TOKENS if token.startswith(opening)), "a reference")
        return f"{name} that begins at line {_line_and_column(text, token_at)[0]} has no end"
    if reader.open:
        name, begins_at = reader.open[-1]
        return f'"<{_shorten(name)}>" of line {_line_and_column(text, begins_at)[0]} has no end tag'
    return "no element has begun"


def _ends_with(tail: str, root: str) -> bool:
    """Return whether the root's end tag ends the file, except for blanks, comments and processing instructions."""
    tail = tail.rstrip()
    while opening := next((opening for ending, opening in BEHIND_THE_ROOT if tail.endswith(ending)), None):
        tail = tail[: max(0, tail.rfind(opening))].rstrip()
    last = END_TAG.match(tail, max(0, tail.rfind("</")))
    return bool(root) and last is not None and last[1] == root


def _runs_past_parent(text: Text, token_at: int, path: list[tuple[str, int]]) -> bool:
    """Return whether an unended construct extends beyond the end tag of the element that contains it."""
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
    if code == JUNK:
        return _at(text, at, excerpt=_excerpt(after))
    if code == MISMATCH and reader.open:
        at -= len(b"</")
        name, begins_at = reader.open[-1]
        ending = re.match(r"[^\s>]*", after)
        line, _ = _line_and_column(text, begins_at)
        found = f'"</{_shorten(ending[0] if ending else "")}>" does not end "<{_shorten(name)}>" of line {line}'
        return _at(text, at, found=found)
    named = _named(code, before, after)
    if named is None:
        return _at(text, at, excerpt=_excerpt(after))
    moved, found, remedy = named
    at += len(after[:moved].encode()) if moved >= 0 else -len(before[moved:].encode())
    if remedy == KEEP_CONTROLS_OUT:
        return _at(text, at, forbidden=found, remedy=remedy)
    return _at(text, at, found=found, remedy=remedy)


def _named(code: int, before: str, after: str) -> tuple[int, str, str] | None:
    """Return how many characters away the fault begins, its name, and the remedy."""
    if code == DUPLICATE_ATTRIBUTE:
        name = re.match(r"[^\s=/>]*", after)
        found = f'an element has the attribute "{_shorten(name[0] if name else "")}" twice'
        return 0, found, "The test runner must write each attribute once."
    if code == UNDEFINED_ENTITY:
        entity = next((entity for entity in ENTITY.finditer(after) if entity[1] not in PREDEFINED), None)
        if entity:
            return entity.start(), f'the entity "{_shorten(entity[0])}", which XML does not define', ESCAPE_ENTITY
    if code == BAD_REFERENCE:
        reference = next((found for found in REFERENCE.finditer(after) if _is_forbidden(found[0])), None)
        if reference and (pair := SURROGATES.match(after, reference.start())):
            return pair.start(), f'"{_shorten(pair[0])}" are two references to the halves of one character', JOIN_HALVES
        if reference and HALVES.fullmatch(reference[0]):
            return reference.start(), f'"{_shorten(reference[0])}" is a reference to half a character', WRITE_WHOLE
        if reference:
            return reference.start(), f'"{_shorten(reference[0])}"', KEEP_CONTROLS_OUT
    if code == SECOND_DECLARATION:
        return 0, "an XML declaration that is not at the start of the file", ONE_BY_ONE
    return _token_named(before, after)


def _token_named(before: str, after: str) -> tuple[int, str, str] | None:
    bad = after[:1]
    if not before.strip() and len(before) < WINDOW_SIZE:  # nothing precedes it: this is not XML at all
        return None
    if bad and forbids(ord(bad)):
        return 0, f"U+{ord(bad):04X}", KEEP_CONTROLS_OUT
    if before.endswith("--") and before.rfind("<!--") > before.rfind("-->"):
        return -2, 'a "--" within a comment', "The test runner must not write it there."
    if open_reference := OPEN_REFERENCE.search(before):
        return -len(open_reference[0]), 'a bare "&"', ESCAPE_AMPERSAND
    if before.endswith("]]") and bad == ">":
        return -2, 'a "]]>" outside of a CDATA section', 'The test runner must write it as "]]&gt;".'
    if bad == "<" and _is_in_value(before):
        remedy = f"{ESCAPE_LESS_THAN.removesuffix('.')}, or a quotation mark is missing before it."
        return 0, 'a "<" in the value of an attribute', remedy
    if opening := re.search(r"<[!/]?\Z", before):
        return -len(opening[0]), 'a bare "<"', ESCAPE_LESS_THAN
    return _named_in_tag(before, after)


def _named_in_tag(before: str, after: str) -> tuple[int, str, str] | None:
    # Not a search that ends in \Z: it would read on to the end from every "<", which takes minutes.
    tag = next((tag[0] for tag in TAG_SO_FAR.finditer(before) if tag.end() == len(before)), None)
    if tag is None:
        return None
    tag = tag[-MAX_ATTRIBUTE:]
    if (value := re.search(r"([^\s=]+)\s*=\s*\Z", tag)) and after[:1]:
        return 0, f'the value of the attribute "{_shorten(value[1])}" is not in quotation marks', QUOTE_VALUES
    if re.search(r"""["']\Z""", tag) and not after[:1].isspace():
        return 0, "no blank between two attributes", "The test runner must write a blank there."
    name = re.search(r"""\s([^\s"'=<>/&]+)\s*\Z""", tag)
    rest = after[: re.search(r"[\s=/>]|\Z", after).start()]  # type: ignore[union-attr]  # \Z always matches
    if name and not rest.strip("\"'"):
        return (
            0,
            f'the attribute "{_shorten(name[1])}" has no value',
            QUOTE_VALUES,
        )
    return None


def _excerpt(text: str) -> str:
    line = next(iter(text.split("\n", 1)), "").strip()
    shown = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return _shorten(shown) if any(character.isalnum() or character in PUNCTUATION for character in shown) else ""


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
    number = digits.removeprefix("x").lstrip("0")[:8] or "0"  # eight digits exceed every code point
    return forbids(int(number, 16 if digits.startswith("x") else 10))


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_SHOWN_NAME else f"{name[:MAX_SHOWN_NAME]}…"


def _at(
    text: Text, at: int, *, found: str = "", excerpt: str = "", forbidden: str = "", remedy: str = AS_WRITTEN
) -> SyntaxFault:
    line, column = _line_and_column(text, at)
    return SyntaxFault(line=line, column=column, found=found, excerpt=excerpt, forbidden=forbidden, remedy=remedy)


def _line_and_column(text: Text, at: int) -> tuple[int, int]:
    """Return line and column, both from 1, of the character after so many bytes of UTF-8."""
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
    """Return the text before and after so many bytes of UTF-8, at most WINDOW_SIZE characters each."""
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
PLACEHOLDER: Final = "\ufffd"  # for a character that cannot be decoded or that XML forbids
PLACEHOLDERS: Final = dict.fromkeys([code for code in range(0x20) if forbids(code)], PLACEHOLDER)
HEAD_SIZE: Final = 4 * MAX_DECLARATION_SIZE  # bytes; long enough for every declaration, even in UTF-32


def text_of(source: Source) -> Text:
    """Return the text of a document in its declared encoding, without its XML declaration; positions are unchanged.

    If Python lacks the codec, non-ASCII characters are a guess, and control characters are replaced, because some
    encodings have letters there.
    """

    def text() -> Iterator[str]:
        chunks = source()
        head = b""
        for chunk in chunks:
            head += chunk
            if len(head) >= HEAD_SIZE:
                break
        name = declared(trim(head)[0]).codec
        decoder = codecs.getincrementaldecoder(name or "latin-1")(errors="replace")

        pieces = (decoder.decode(data) for data in chain((head,), chunks))
        for piece in without_declaration(pieces):
            sound = piece if piece.isascii() else piece.encode(errors="replace").decode()  # UTF-7 may yield surrogates
            yield sound if name else sound.translate(PLACEHOLDERS)

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
