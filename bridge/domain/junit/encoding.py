"""In what encoding a report says it is, where its bytes are not, and what they may be instead.

It knows byte order marks, XML declarations and codecs; it decides nothing: lxml reads, this explains.
"""

import codecs
from typing import Final, NamedTuple

from lxml import etree

from bridge.domain.junit.encoding_detection import alternatives, candidates, decodes
from bridge.domain.junit.result import Invalid

DEFAULT: Final = "utf-8"  # of XML without mark and declaration
BLANKS: Final = b" \t\r\n"
MAX_DECLARATION_SIZE: Final = 1024  # bytes: version, encoding and standalone take a tenth of it, also in UTF-16
SAMPLE_SIZE: Final = 4096  # bytes from the first bad line on: some hundred characters tell Han from Latin
WRITE_ENCODING: Final = "Write the right encoding into the XML declaration of the report."

WIDER: Final = {"gb2312": "gbk", "shift_jis": "cp932", "euc-kr": "cp949"}  # what runners mean that declare the left
MARKS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class DeclaredEncoding(NamedTuple):
    """The encoding of a file, lower case, and whether the file itself says so."""

    name: str
    stated: bool


class EncodingFault(NamedTuple):
    """The first byte that is not of the encoding, its line counted from 1, and what stands there."""

    byte: int
    line: int
    sample: bytes


def trim(data: bytes) -> tuple[bytes, int]:
    """Cut blanks off before the document, which XML forbids there and some runners write; keep the mark.

    Gives the rest and the number of lines that went.
    """
    mark = next((mark for mark, _ in MARKS if data.startswith(mark)), b"")
    body = data[len(mark) :]
    wide = body[:1] == b"\0" or body[1:2] == b"\0"
    rest = _trim_wide(body) if wide else body.lstrip(BLANKS)
    if not rest:
        return b"", 0
    return mark + rest, data[: len(data) - len(rest)].count(b"\n")


def _trim_wide(body: bytes) -> bytes:
    blanks = {bytes((blank, 0)) for blank in BLANKS} | {bytes((0, blank)) for blank in BLANKS}
    at = 0
    while body[at : at + 2] in blanks:
        at += 2
    return body[at:]


def declared(trimmed: bytes) -> DeclaredEncoding:
    """Tell the encoding that lxml will read, from the mark or else from the XML declaration."""
    for mark, name in MARKS:
        if trimmed.startswith(mark):
            return DeclaredEncoding(name, stated=True)
    head = trimmed[:MAX_DECLARATION_SIZE]
    for unit in ("ascii", "utf-16-le", "utf-16-be"):
        before, end, _ = head.partition("?>".encode(unit))
        if not (end and before.startswith("<?xml".encode(unit))):
            continue
        found = _read(before + end + "<x/>".encode(unit))  # lxml reads the declaration, before an empty document
        if found:
            return DeclaredEncoding(
                found, stated="encoding".encode(unit) in before
            )  # lxml says utf-8 for want of another
    return DeclaredEncoding(DEFAULT, stated=False)


def _read(document: bytes) -> str | None:
    try:
        encoding = etree.fromstring(document, etree.XMLParser(resolve_entities=False)).getroottree().docinfo.encoding
    except etree.XMLSyntaxError:
        return None
    return encoding.lower() if encoding else None


EVERY_ASCII = bytes(range(128)) + b"\x1b$B!!\x1b(B"  # and a shift as ISO-2022 writes it


class EncodingChecker:
    """Follows the bytes of a file and remembers the first that is not of its encoding, as Python's codecs see it.

    `lines`: line ends that were cut off before.
    """

    def __init__(self, encoding: str, lines: int = 0) -> None:
        self.fault: EncodingFault | None = None
        self._lines = lines
        self._decoder: codecs.IncrementalDecoder | None = None
        try:
            self._decoder = codecs.getincrementaldecoder(encoding)()
            # Not so in encodings with shift states (utf-7, hz, iso-2022): there ASCII bytes may mean anything.
            self._keeps_ascii = EVERY_ASCII.decode(encoding, errors="replace") == EVERY_ASCII.decode("ascii")
        except LookupError:  # lxml knows encodings that Python does not: then there is nothing to explain
            return

    @property
    def readable(self) -> bool:
        """Whether Python's codec has read everything so far."""
        return self._decoder is not None and self.fault is None

    def feed(self, piece: bytes) -> None:
        if self.fault or self._decoder is None:
            return
        if not (self._keeps_ascii and piece.isascii() and not self._decoder.getstate()[0]):
            try:
                self._decoder.decode(piece)
            except UnicodeDecodeError as error:
                self.fault = self._fault(error)
            except UnicodeError:  # no mark where the codec wants one: nothing to explain
                self._decoder = None
        self._lines += piece.count(b"\n")

    def _fault(self, error: UnicodeDecodeError) -> EncodingFault:
        seen = error.object
        line_start = seen.rfind(b"\n", 0, error.start) + 1
        line = self._lines + seen.count(b"\n", 0, error.start) + 1
        return EncodingFault(seen[error.start], line, seen[line_start : error.start + SAMPLE_SIZE])


def _wider(encoding: str, sample: bytes) -> str | None:
    wider = WIDER.get(encoding)
    return wider if wider and decodes(sample, wider) else None


def wrong_bytes(encoding: DeclaredEncoding, fault: EncodingFault | None, *, line: int, column: int | None) -> Invalid:
    """Refuse a file whose bytes are not of its encoding; `line` and `column` are lxml's, for want of a better fault."""
    said = f"declared {encoding.name}" if encoding.stated else f"without a declared encoding it is {encoding.name}"
    if fault is None:
        return Invalid(
            reason="encoding",
            found=f"{said}, but its bytes are not, at line {line}.",
            remedy=WRITE_ENCODING,
            line=line,
            column=column,
        )
    wider = _wider(encoding.name, fault.sample)
    likely = (wider,) if wider else candidates(fault.sample)
    looks = f"; it looks like {alternatives(likely)}" if likely and likely != (encoding.name,) else ""
    return Invalid(
        reason="encoding",
        found=f"{said}, but byte 0x{fault.byte:02x} at line {fault.line} is not{looks}.",
        remedy=WRITE_ENCODING,
        line=fault.line,
    )


def narrow_utf16(trimmed: bytes) -> Invalid | None:
    """Refuse a file that calls itself UTF-16 and is not: .NET writes such from a StringWriter."""
    declaration, end, _ = trimmed[:MAX_DECLARATION_SIZE].partition(b"?>")
    if not end or b"utf-16" not in declaration.lower():
        return None
    return Invalid(
        reason="encoding",
        found="declared utf-16, but its characters are one byte wide; it looks like utf-8.",
        remedy=WRITE_ENCODING,
        line=1,
    )
