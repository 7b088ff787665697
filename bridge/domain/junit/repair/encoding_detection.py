"""Detects the encoding of a report that is not in its declared one: gb18030, windows-1252, or undecided."""

import codecs
import contextlib
from collections.abc import Iterator, Mapping
from typing import Final, cast

from lxml import etree

from bridge.domain.junit.counter import local_name
from bridge.domain.junit.encoding import (
    EBCDIC_START,
    UTF_8,
    WRITE_ENCODING,
    DeclaredEncoding,
    EncodingChecker,
    declared,
    keeps_ascii,
    trim,
    wider_codec,
)
from bridge.domain.junit.encoding_guess import CHINESE, WESTERN, Utf8Survey, alternatives, candidates, claim_of, weigh
from bridge.domain.junit.result import Invalid
from bridge.domain.junit.wellformed import Source

SAMPLE_SIZE: Final = 64 << 10  # bytes of non-ASCII lines; tens of thousands of characters suffice
MAX_LINE_SIZE: Final = 4 << 10  # bytes per line, so that one long line does not fill the sample


class EncodingSurvey:
    """Decodes a file with every codec that it may be in, and collects the lines that distinguish them.

    The first piece must contain the XML declaration.
    """

    def __init__(self) -> None:
        self.repairable = False  # it begins as XML, in a supported encoding
        self.declared = DeclaredEncoding(UTF_8, stated=False, codec=UTF_8, native=True)
        self.stated: list[str] = []  # codecs that the file itself declares
        self._checkers: dict[str, EncodingChecker] | None = None
        self._sample = bytearray()

    def feed(self, piece: bytes) -> None:
        if self._checkers is None:
            self._checkers = self._open(piece)
        for checker in self._checkers.values():
            checker.feed(piece)
        if len(self._sample) < SAMPLE_SIZE and not piece.isascii():
            for line in piece.split(b"\n"):
                if not line.isascii():
                    self._sample += line[:MAX_LINE_SIZE] + b"\n"
                if len(self._sample) >= SAMPLE_SIZE:
                    return

    @property
    def names_unknown_encoding(self) -> bool:
        """Return whether the file declares an encoding that Python lacks."""
        return self.declared.native and not self.declared.codec

    def choose(self) -> str | None:
        """Return the codec for the whole file: the declared one if it fits; None if the evidence is insufficient."""
        fits = [name for name, checker in (self._checkers or {}).items() if checker.readable]
        if self.names_unknown_encoding:
            return UTF_8 if UTF_8 in fits and self._sample else None
        for name in (*self.stated, UTF_8):
            if name in fits:
                return name
        return weigh(bytes(self._sample), fits)

    def contains_stray_bytes(self, survey: Utf8Survey) -> bool:
        """Return whether the file is UTF-8 except for some bytes, which repair replaces."""
        fits = [name for name, checker in (self._checkers or {}).items() if checker.readable]
        return self.declared.codec == UTF_8 and survey.is_stray(bytes(self._sample), fits)

    def rejection(self) -> Invalid:
        """Return the result for a file whose encoding is undecided, with the possible encodings."""
        faults = [checker.fault for checker in (self._checkers or {}).values() if checker.fault is not None]
        name = self.declared.name
        fault = f"byte 0x{faults[0].byte:02x} at line {faults[0].line} is" if faults else "its bytes are"
        possible = candidates(bytes(self._sample)) or (CHINESE, WESTERN)
        return Invalid(
            reason="encoding",
            found=f"{claim_of(self.declared)}, but {fault} not valid {name}; it may be {alternatives(possible)}.",
            remedy=WRITE_ENCODING,
            line=faults[0].line if faults else None,
        )

    def _open(self, piece: bytes) -> dict[str, EncodingChecker]:
        head, _ = trim(piece)
        self.declared = declared(head)
        codec = self.declared.codec
        self.repairable = b"<" in head[: 2 * len(codecs.BOM_UTF32)] or head.startswith(EBCDIC_START)
        self.stated = [name for name in (codec, wider_codec(codec)) if name]
        return {name: EncodingChecker(name) for name in (*self.stated, UTF_8, CHINESE, WESTERN)}


def hides_cdata_end(source: Source, encoding: str) -> bool:
    """Return whether a character of the encoding consumes the first bracket of a `]]>`.

    In gb18030 and similar encodings the second byte of a character may be that of a bracket. After a character that was
    cut in half, the end of a CDATA section is then lost, and the section continues over the cases that follow.
    """
    if not keeps_ascii(encoding):
        return False  # UTF-16, or shift states: bytes and characters are not comparable
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    ends = 0  # number in the bytes minus number in the text
    data, text = b"", ""
    for chunk in source():
        data, text = data[-2:] + chunk, text[-2:] + decoder.decode(chunk)
        ends += data.count(b"]]>") - text.count("]]>")
    return ends > 0


def hidden_cdata_end(encoding: str) -> Invalid:
    """Return the result for a file for which `hides_cdata_end` is true."""
    return Invalid(
        reason="encoding",
        found=f"decoded as {encoding}, half a character hides the end of a CDATA section.",
        remedy="Configure the test runner to write UTF-8, and not to cut text within a character.",
    )


def has_garbled_names(chunks: Iterator[bytes]) -> bool:
    """Return whether an element of a UTF-8 document has a non-ASCII name, which no JUnit element has.

    If a stray byte is decoded as a letter, `failure` becomes another name and a failed case a passed one.
    """
    names = _NameTarget()
    parser = etree.XMLParser(target=cast("etree.ParserTarget", names), huge_tree=True, no_network=True)
    with contextlib.suppress(etree.XMLSyntaxError):  # validation rejects it, or truncation is repaired
        for chunk in chunks:
            parser.feed(chunk)
        parser.close()
    for _ in chunks:
        pass
    return names.found_non_ascii


class _NameTarget:
    """Target of a parser that reads only names."""

    def __init__(self) -> None:
        self.found_non_ascii = False

    def start(self, tag: str, _attributes: Mapping[str, str]) -> None:
        self.found_non_ascii |= not local_name(tag).isascii()

    def close(self) -> None:
        """Do nothing; lxml asks every target for it."""


def garbled_names(encoding: str) -> Invalid:
    """Return the result for a file for which `has_garbled_names` is true."""
    return Invalid(
        reason="encoding",
        found=f"read as {encoding}, the name of an element is not ASCII.",
        remedy="Configure the test runner to write UTF-8.",
    )
