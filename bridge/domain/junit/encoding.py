"""The encoding that a report declares, Python's codec for it, and the first byte that does not fit it."""

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import Final, NamedTuple

from bridge.domain.junit.result import Invalid

UTF_8: Final = "utf-8"  # of XML without byte order mark and declaration
BLANKS: Final = b" \t\r\n"
MAX_DECLARATION_SIZE: Final = 1024  # bytes; version, encoding and standalone take a tenth of it, even in UTF-16
MAX_NAME_SIZE: Final = 40  # characters of an encoding's name; the longest of Java and of Python have 22
PIECE_SIZE: Final = 64 << 10  # bytes that are processed at once; long enough for every XML declaration
SAMPLE_SIZE: Final = 4096  # bytes from the first bad line on: a few hundred characters distinguish Han from Latin
WRITE_ENCODING: Final = "Declare the encoding that the report is written in, or write UTF-8."
WRITE_UTF_8: Final = "Configure the test runner to write UTF-8."

MARKS: Final = (
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WIDE_STARTS: Final = (
    (b"<\0\0\0", "utf-32-le"),
    (b"\0\0\0<", "utf-32-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
"""How a document begins whose characters are wider than a byte, if it has no mark."""

EBCDIC_START: Final = "<?xm".encode("cp037")  # the same in every EBCDIC code page
WIDE: Final = frozenset({"utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"})
NOT_CHARSETS: Final = frozenset({"charmap", "idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined"})
"""Python's codecs for text that are no encodings of files."""

ISO_8859: Final = frozenset(f"iso-8859-{part}" for part in (*range(1, 12), *range(13, 17)))
NATIVE: Final = (
    frozenset({UTF_8, "utf8", "us-ascii", "ascii", "gbk", "gb2312", "koi8-r", "koi8-u"})
    | ISO_8859
    | frozenset(f"windows-{page}" for page in (1250, 1251, 1252, 1253, 1254, 1256, 1257))
)
"""Encodings that libxml2 reads under this name exactly as Python does. All others are converted to UTF-8 before they
are validated and sent: libxml2 lacks most of them, and it reads other characters in Shift_JIS, EUC-KR or gb18030."""

UTF_16_NAMES: Final = frozenset({"utf-16", "utf-16le", "utf-16be", "utf-16-le", "utf-16-be"})
WIDER: Final = {"gb2312": "gbk", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}
"""Codecs that are declared, and supersets that are written."""

ALIASES: Final = {
    "ansi": "cp1252",
    "big5_solaris": "big5",
    "euc_cn": "gb2312",
    "euc_jp_linux": "euc_jp",
    "eucjp_open": "euc_jp",
    "eucjpms": "euc_jp",
    "gb_2312_80": "gb2312",
    "iso_10646_ucs_2": "utf_16",
    "iso_10646_ucs_4": "utf_32",
    "mac": "mac_roman",
    "mac_ce": "mac_latin2",
    "mac_croatia": "mac_croatian",
    "mac_romania": "mac_romanian",
    "mac_ukraine": "mac_cyrillic",
    "ms932_0213": "shift_jisx0213",
    "ms950_hkscs": "big5hkscs",
    "pck": "cp932",
    "sjis_0213": "shift_jisx0213",
    "ucs_2": "utf_16",
    "ucs_4": "utf_32",
    "unicode": "utf_16",
    "unicode_1_1_utf_8": "utf_8",
    "utf8mb4": "utf_8",
    "utf_8_bom": "utf_8",
    "utf_8n": "utf_8",
    "windows31j": "cp932",
    "windows_31j": "cp932",
}
"""Names of Java, Windows and browsers that Python lacks, with underscores and without `x-` and `cs`."""

SPELLINGS: Final = (
    (re.compile(r"(?:ibm|dos|oem|ccsid|cp|ms|windows|mswin)_?0*([1-9][0-9]{2,4})"), "cp{}"),  # IBM00858, MS949
    (re.compile(r"(?:ibm|cp)_?0*(37)"), "cp0{}"),
    (re.compile(r"(?:iso_?)?8859_?([0-9]{1,2})(?:_[ei])?"), "iso8859_{}"),
    (re.compile(r"mac_?([a-z]+[0-9]?)"), "mac_{}"),
    (re.compile(r"koi8_?([rtu])"), "koi8_{}"),
    (re.compile(r"iso_?2022_?(jp|kr)"), "iso2022_{}"),
)
"""Patterns of such names, and the codec."""


class DeclaredEncoding(NamedTuple):
    """The encoding of a file."""

    name: str  # in lower case, as the file states it
    stated: bool  # by a byte order mark or the XML declaration
    codec: str  # Python's codec that reads the bytes; empty if none does
    native: bool  # left to libxml2; else it must be converted


class EncodingFault(NamedTuple):
    """The first byte that does not fit the encoding, its line (from 1) and offset (from 0), and the bytes around it."""

    byte: int
    line: int
    offset: int
    sample: bytes


def trim(data: bytes) -> tuple[bytes, int]:
    """Return a document without leading blanks, and how many lines were removed; a byte order mark stays.

    XML forbids blanks before a declaration, but some runners write them.
    """
    mark, name = next(((mark, name) for mark, name in MARKS if data.startswith(mark)), (b"", ""))
    body = data[len(mark) :]
    rest = body.lstrip(BLANKS)
    if name == "utf-32" or body[:4].count(0) == 3:
        rest = _trim_wide(body, 4)
    elif name == "utf-16" or 0 in body[:2]:
        rest = _trim_wide(body, 2)
    elif len(rest) < len(body) and (0 in rest[:2] or rest.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))):
        return data, 0  # a narrow blank before wide characters
    if not rest:
        return b"", 0
    return mark + rest, data[: len(data) - len(rest)].count(b"\n")


def _trim_wide(body: bytes, size: int) -> bytes:
    blanks = {bytes((blank,)).rjust(size, b"\0") for blank in BLANKS}
    blanks |= {bytes((blank,)).ljust(size, b"\0") for blank in BLANKS}
    at = 0
    while body[at : at + size] in blanks:
        at += size
    return body[at:]


def declared(trimmed: bytes) -> DeclaredEncoding:
    """Return the encoding of a document: from its byte order mark or first bytes, else from its XML declaration."""
    for mark, name in MARKS:
        if trimmed.startswith(mark):
            stated = _stated_name(trimmed[len(mark) :], _unmarked(mark, name))
            fitting = UTF_16_NAMES if name == "utf-16" else {name, "utf8"} if name == UTF_8 else frozenset[str]()
            return DeclaredEncoding(
                name,
                stated=True,
                codec="utf-8-sig" if name == UTF_8 and stated not in {None, *fitting} else name,
                native=name != "utf-32" and stated in {None, *fitting},
            )
    for start, name in WIDE_STARTS:
        if trimmed.startswith(start):
            stated = _stated_name(trimmed, name)
            says_so = stated in UTF_16_NAMES and name.startswith("utf-16")
            return DeclaredEncoding(
                stated if stated and says_so else name, stated=stated is not None, codec=name, native=says_so
            )
    name = _stated_name(trimmed, "ascii") or _stated_elsewhere(trimmed)
    if not name:
        return DeclaredEncoding(UTF_8, stated=False, codec=UTF_8, native=True)
    codec = codec_of(name)
    if not codec:  # libxml2 may have it
        return DeclaredEncoding(name, stated=True, codec="", native=True)
    if codec in WIDE or _stated_name(trimmed, codec) != name:
        return DeclaredEncoding(name, stated=True, codec="", native=False)
    return DeclaredEncoding(name, stated=True, codec=codec, native=name in NATIVE)


def _unmarked(mark: bytes, name: str) -> str:
    if name == UTF_8:
        return name
    return f"{name}-le" if mark in {codecs.BOM_UTF16_LE, codecs.BOM_UTF32_LE} else f"{name}-be"


UTF_8_DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>'
DECLARATION: Final = re.compile(r"""<\?xml\s[^?>]*?encoding\s*=\s*(?:"([^"]*)"|'([^']*)')[^?>]*\?>""")


RIGHT_TO_LEFT_START: Final = re.compile(rb"[\x80-\xff].xml")
EBCDIC_NAME: Final = re.compile(r"encoding[^a-zA-Z0-9]{1,8}([a-zA-Z0-9._-]+)")


def _stated_name(data: bytes, codec: str) -> str | None:
    """Return the encoding that an XML declaration names in lower case, None if there is none."""
    head = data[:MAX_DECLARATION_SIZE].decode(codec, errors="replace")
    found = DECLARATION.match(head)
    return (found[1] or found[2] or "").strip().lower() if found else None


def _stated_elsewhere(data: bytes) -> str:
    """Return the encoding that a document names whose markup is not in ASCII, empty if there is none."""
    if RIGHT_TO_LEFT_START.match(data):  # Python writes punctuation of these two as bytes of their own
        return _stated_name(data, "mac_arabic") or _stated_name(data, "mac_farsi") or ""
    if not data.startswith(EBCDIC_START):
        return ""
    # In EBCDIC, letters are the same in all code pages, but quotation marks are not.
    found = EBCDIC_NAME.search(data[:MAX_DECLARATION_SIZE].decode("cp037"))
    return found[1].lower() if found else "ebcdic"


@lru_cache(maxsize=256)
def codec_of(name: str) -> str:
    """Return Python's codec for the name of an encoding, in any spelling of IANA, Java or Windows; empty if none."""
    if len(name) > MAX_NAME_SIZE or not name.isascii():
        return ""
    if found := _known(name):
        return found
    key = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    for plain in (key, key.removeprefix("x_"), key.removeprefix("cs"), key.removeprefix("x_").removeprefix("x_")):
        if found := _known(ALIASES.get(plain, plain)):
            return found
        for spelling, codec in SPELLINGS:
            match = spelling.fullmatch(plain)
            spelled = codec.format(match[1]) if match else ""
            if found := _known(ALIASES.get(spelled, spelled)):
                return found
    return ""


def _known(name: str) -> str:
    """Return the name of a codec, empty if Python has none for text under this name."""
    if not name:
        return ""
    try:
        found = codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError):  # not a codec, or not of text
        return ""
    return "" if found.name in NOT_CHARSETS or found.name in {"mbcs", "oem"} else found.name


def is_utf_8(encoding: str) -> bool:
    """Return whether a text in this encoding can be read as UTF-8."""
    return codec_of(encoding) in {UTF_8, "ascii"}


EVERY_ASCII: Final = bytes(range(128)) + b"\x1b$B!!\x1b(B"  # and a shift sequence of ISO-2022


class EncodingChecker:
    """Decodes the bytes of a file and records the first that does not fit its encoding, by Python's codecs.

    `lines` and `offset`: line ends and bytes that were removed before the first byte.
    """

    def __init__(self, codec: str, lines: int = 0, offset: int = 0) -> None:
        self.fault: EncodingFault | None = None
        self.has_c1_controls = False  # in ISO-8859-1, where windows-1252 has letters and quotation marks
        self._is_latin_1 = codec == "iso8859-1"
        self._lines = lines
        self._offset = offset
        self._decoder: codecs.IncrementalDecoder | None = None
        if codec:
            self._decoder = codecs.getincrementaldecoder(codec)()
            # False for encodings with shift states (utf-7, hz, iso-2022), in which ASCII bytes have other meanings.
            self._keeps_ascii = keeps_ascii(codec)

    @property
    def readable(self) -> bool:
        """Return whether Python's codec has decoded everything so far."""
        return self._decoder is not None and self.fault is None

    def feed(self, piece: bytes) -> None:
        if self.fault or self._decoder is None:
            return
        pending = self._decoder.getstate()[0]
        if not (self._keeps_ascii and piece.isascii() and not pending):
            try:
                self._decoder.decode(piece)
            except UnicodeDecodeError as error:
                self.fault = self._fault(error, len(pending))
            except UnicodeError:  # the codec requires a byte order mark: no explanation possible
                self._decoder = None
        self.has_c1_controls |= self._is_latin_1 and contains_c1_controls(piece)
        self._lines += piece.count(b"\n")
        self._offset += len(piece)

    def _fault(self, error: UnicodeDecodeError, pending: int) -> EncodingFault:
        seen = error.object
        line_start = seen.rfind(b"\n", 0, error.start) + 1
        line = self._lines + seen.count(b"\n", 0, error.start) + 1
        offset = self._offset - pending + error.start
        return EncodingFault(seen[error.start], line, offset, seen[line_start : error.start + SAMPLE_SIZE])


C1_CONTROLS: Final = re.compile(rb"[\x80-\x9f]")
C1_NOTE: Final = "it declares iso-8859-1, but has bytes that are letters or quotation marks only in windows-1252"


def contains_c1_controls(latin_1: bytes) -> bool:
    """Return whether a text in ISO-8859-1 contains control characters above ASCII."""
    return C1_CONTROLS.search(latin_1) is not None


@cache
def keeps_ascii(codec: str) -> bool:
    """Return whether ASCII bytes are ASCII characters in this encoding, whatever precedes them."""
    return EVERY_ASCII.decode(codec, errors="replace") == EVERY_ASCII.decode("ascii")


def wider_codec(codec: str) -> str:
    """Return the codec of a superset that is often written under the name of this one; empty if there is none."""
    return WIDER.get(codec, "")


def regroup(chunks: Iterable[bytes], size: int = PIECE_SIZE) -> Iterator[bytes]:
    """Yield the same bytes in pieces of `size`; the last may be shorter."""
    buffered = bytearray()
    for chunk in chunks:
        buffered += chunk
        whole = len(buffered) - len(buffered) % size
        for start in range(0, whole, size):
            yield bytes(buffered[start : start + size])
        del buffered[:whole]
    if buffered:
        yield bytes(buffered)


class Utf8Converter:
    """Converts a document to UTF-8 and corrects its XML declaration; takes and returns pieces of any size.

    Characters, line ends included, stay as they are. Raises UnicodeError if the bytes do not fit the encoding.
    """

    def __init__(self, codec: str) -> None:
        self._decoder = codecs.getincrementaldecoder(codec)()
        self._head: str | None = ""

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes and return those that are ready."""
        return self._converted(self._decoder.decode(piece), ended=False)

    def close(self) -> bytes:
        """Return the rest; call it after the whole document was fed."""
        return self._converted(self._decoder.decode(b"", final=True), ended=True)

    def _converted(self, text: str, *, ended: bool) -> bytes:
        if self._head is not None:
            self._head += text
            if not ended and "?>" not in self._head and len(self._head) < MAX_DECLARATION_SIZE:
                return b""
            text, self._head = with_utf_8_declared(self._head.lstrip("\ufeff \t\r\n")), None
        return text.encode()


def with_utf_8_declared(text: str) -> str:
    """Return the start of a document with a declaration of UTF-8 in place of one that names another encoding."""
    declaration = DECLARATION.match(text)
    return UTF_8_DECLARATION + text[declaration.end() :] if declaration else text


def unknown_encoding(name: str) -> Invalid:
    """Return the result for a document in an encoding that Python does not know either; `name` may be empty."""
    found = f'it declares the encoding "{name[:MAX_NAME_SIZE]}", which the bridge cannot read.'
    return Invalid(
        reason="encoding",
        found=found if name else "its XML declaration names no valid encoding.",
        remedy=WRITE_UTF_8,
        line=1,
    )


def mismatched_encoding(encoding: DeclaredEncoding) -> Invalid | None:
    """Return the result for a file whose own XML declaration cannot be read in the encoding it names; None for others.

    .NET's StringWriter writes UTF-16 into declarations of files with one-byte characters.
    """
    if encoding.codec or encoding.native:
        return None
    is_wide = codec_of(encoding.name) in WIDE
    found = "its characters are one byte wide; it looks like utf-8" if is_wide else "its bytes are not"
    return Invalid(reason="encoding", found=f"it declares {encoding.name}, but {found}.", remedy=WRITE_ENCODING, line=1)
