"""In which encoding a report is that is not in the one it declares: gb18030, windows-1252, or left open.

It follows the whole file; what its bytes look like is weighed elsewhere. It reads no XML but the declaration.
"""

import codecs
import contextlib
from collections.abc import Iterator, Mapping
from typing import Final, cast

from lxml import etree

from bridge.domain.junit.counter import local
from bridge.domain.junit.encoding import (
    CHINESE,
    EVERY_ASCII,
    UTF_8,
    WESTERN,
    WIDER,
    WRITE_ENCODING,
    DeclaredEncoding,
    EncodingChecker,
    alternatives,
    candidates,
    declared,
    narrow_utf16,
    trim,
    weigh,
)
from bridge.domain.junit.result import Invalid
from bridge.domain.junit.wellformed import Source

SAMPLE_SIZE: Final = 64 << 10  # bytes of lines that are not ASCII: tens of thousands of characters settle it
MAX_LINE_SIZE: Final = 4 << 10  # bytes of one line: so that one long line is not all that is looked at


class EncodingSurvey:
    """Follows a file through every codec that it may be in, and gathers the lines that tell them apart.

    Takes pieces of which the first holds the XML declaration.
    """

    def __init__(self) -> None:
        self.mendable = False  # it begins as XML, in an encoding that is known here
        self.declared = DeclaredEncoding(UTF_8, stated=False)
        self.stated: list[str] = []  # codecs that the file itself names
        self._watches: dict[str, EncodingChecker] | None = None
        self._sample = bytearray()

    def feed(self, piece: bytes) -> None:
        if self._watches is None:
            self._watches = self._open(piece)
        for watch in self._watches.values():
            watch.feed(piece)
        if len(self._sample) < SAMPLE_SIZE and not piece.isascii():
            for line in piece.split(b"\n"):
                if not line.isascii():
                    self._sample += line[:MAX_LINE_SIZE] + b"\n"
                if len(self._sample) >= SAMPLE_SIZE:
                    return

    def choose(self) -> str | None:
        """Name the codec to read the whole file with: the declared one where it fits; None where nothing can tell."""
        fits = [name for name, watch in (self._watches or {}).items() if watch.readable]
        for name in (*self.stated, UTF_8):
            if name in fits:
                return name
        return weigh(bytes(self._sample), fits)

    def refusal(self) -> Invalid:
        """Say that nothing can tell, and name what it may be."""
        faults = [watch.fault for watch in (self._watches or {}).values() if watch.fault is not None]
        said = f"declared {self.declared.name}" if self.declared.stated else f"it declares no encoding but {UTF_8}"
        where = f"byte 0x{faults[0].byte:02x} at line {faults[0].line} is not" if faults else "its bytes are not"
        possible = candidates(bytes(self._sample)) or (CHINESE, WESTERN)
        doubt = "whether it is" if len(possible) > 1 else "whether it is really"
        return Invalid(
            reason="encoding",
            found=f"{said}, but {where}; {doubt} {alternatives(possible)} cannot be told.",
            remedy=WRITE_ENCODING,
            line=faults[0].line if faults else None,
        )

    def _open(self, piece: bytes) -> dict[str, EncodingChecker]:
        head, _ = trim(piece)
        self.declared = declared(head)
        self.mendable = b"<" in head[:4] and _known(self.declared.name)
        if narrow_utf16(head) and not head.startswith(codecs.BOM_UTF8):
            self.declared = DeclaredEncoding("utf-16", stated=True)
        else:
            self.stated = _codecs_of(self.declared, head)
        return {name: EncodingChecker(name) for name in (*self.stated, UTF_8, CHINESE, WESTERN)}


def hides_an_end(source: Source, encoding: str) -> bool:
    """Return whether a character takes up the first bracket of a `]]>`.

    In gb18030 and its like the second byte of a character may be that of a bracket. Behind a character that was cut in
    half the end of a CDATA section is then lost, and the section goes on over the cases that follow.
    """
    if EVERY_ASCII.decode(encoding, errors="replace") != EVERY_ASCII.decode("ascii"):
        return False  # UTF-16, or shift states: bytes cannot be compared with characters
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    ends = 0  # in the bytes; those in the text are taken off
    data, text = b"", ""
    for chunk in source():
        data, text = data[-2:] + chunk, text[-2:] + decoder.decode(chunk)
        ends += data.count(b"]]>") - text.count("]]>")
    return ends > 0


def hidden_end(encoding: str) -> Invalid:
    """Refuse a file of which `hides_an_end` is true."""
    return Invalid(
        reason="encoding",
        found=f"read as {encoding}, half a character swallows the end of a CDATA section.",
        remedy="Have the test runner write UTF-8, and cut no text within a character.",
    )


def garbles_names(chunks: Iterator[bytes]) -> bool:
    """Return whether an element has a name outside of ASCII, as none in JUnit has; read all of a UTF-8 document.

    A stray byte that is read as a letter makes another name of `failure`, and a passed case of a failed one.
    """
    names = _Names()
    parser = etree.XMLParser(target=cast("etree.ParserTarget", names), huge_tree=True, no_network=True)
    with contextlib.suppress(etree.XMLSyntaxError):  # the gate rejects it, or it is closed where it ends
        for chunk in chunks:
            parser.feed(chunk)
        parser.close()
    for _ in chunks:
        pass
    return names.garbled


class _Names:
    """Target of a parser that looks at names only."""

    def __init__(self) -> None:
        self.garbled = False

    def start(self, tag: str, _attributes: Mapping[str, str]) -> None:
        self.garbled |= not local(tag).isascii()

    def close(self) -> None:
        """Do nothing; lxml asks every target for it."""


def garbled_names(encoding: str) -> Invalid:
    """Refuse a file of which `garbles_names` is true."""
    return Invalid(
        reason="encoding",
        found=f"read as {encoding}, the name of an element is garbled.",
        remedy="Have the test runner write UTF-8.",
    )


def is_utf_8(encoding: str) -> bool:
    """Tell whether a text in this encoding can be read as UTF-8."""
    return _known(encoding) and codecs.lookup(encoding).name in (UTF_8, "ascii")


def _codecs_of(said: DeclaredEncoding, head: bytes) -> list[str]:
    names = [name for name in (said.name, WIDER.get(said.name, "")) if _known(name)]
    if (
        names
        and codecs.lookup(names[0]).name == "utf-16"
        and not head.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE))
    ):
        return ["utf-16-be" if head[:1] == b"\0" else "utf-16-le"]
    return names


def _known(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True
