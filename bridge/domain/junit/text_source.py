"""Reads the bytes of a document as text in which every character keeps its line and column."""

import codecs
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from bridge.domain.junit.encoding import MAX_DECLARATION_SIZE, declared, trim
from bridge.domain.junit.wellformed import Text, forbids

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
