"""Takes out of a report's text what XML forbids: control characters, colour codes, references to such.

It knows characters and the few marks between which they mean something else; whether the rest is XML, lxml says.
"""

import codecs
from typing import Final

from bridge.domain.repair.writer import DECLARATION

ESCAPE: Final = "\x1b"
CDATA_BEGIN, CDATA_END = "<![CDATA[", "]]>"
BLANKS: Final = "\ufeff \t\r\n"
MAX_DECLARATION_SIZE: Final = 1024  # characters, as the gate's
MAX_TOKEN_SIZE: Final = 64  # characters of a colour code or a reference: what is longer is neither
PARAMETERS: Final = "0123456789;:?"  # of a control sequence, ECMA-48 5.4; codes in reports use no other
FINAL_FIRST, FINAL_LAST = "@", "~"  # what may end it
FORBIDDEN: Final = dict.fromkeys(
    [*(set(range(0x20)) - {0x09, 0x0A, 0x0D}), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF]
)  # https://www.w3.org/TR/xml/#charsets
MAX_CHARACTER: Final = 0x10FFFF


class TextMender:
    """Reads a document in a known encoding, and gives it in UTF-8 without what XML forbids.

    Bytes at the end that are no whole character go. Text that XML allows stays, also `&#27;` inside of CDATA and a
    backslash that only looks like an escape.
    """

    def __init__(self, encoding: str) -> None:
        self.colours = 0  # colour codes that were cut
        self.controls = 0  # forbidden characters and references to such that were dropped
        self.declares = False  # the declaration named another encoding and was replaced
        self.trimmed = False  # blanks before the document were cut off
        self.dangling = 0  # bytes at the end that are no whole character
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._held = ""
        self._began = False
        self._in_cdata = False

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes, give those that are ready. Raises UnicodeDecodeError for those of another encoding."""
        text = self._held + self._decoder.decode(piece)
        if not self._began:
            text = self._begin(text)
        ready = _whole_tokens(text)
        self._held = text[ready:]
        return self._mend(text[:ready]).encode()

    def close(self) -> bytes:
        """Give the rest, once the whole file was fed."""
        held, self._held = self._held, ""
        self.dangling = len(self._decoder.getstate()[0])
        return self._mend(held).encode()

    def _begin(self, text: str) -> str:
        """Cut blanks off before the document, and a declaration that would now be wrong."""
        size = len(text)
        text = text.lstrip(BLANKS)
        self.trimmed |= len(text) < size
        self._began = bool(text)
        declaration, end, rest = text.partition("?>")
        if not (end and declaration.startswith("<?xml") and len(declaration) <= MAX_DECLARATION_SIZE):
            return text
        if "encoding" not in declaration or "utf-8" in declaration.lower():
            return text
        self.declares = True
        return DECLARATION + rest

    def _mend(self, text: str) -> str:
        text = self._cut_colours(self._resolve(text))
        kept = text.translate(FORBIDDEN)
        self.controls += len(text) - len(kept)
        return kept

    def _resolve(self, text: str) -> str:
        """Make references to forbidden characters those characters, where they are references."""
        done = []
        while text:
            if self._in_cdata:
                before, mark, text = text.partition(CDATA_END)
                self._in_cdata = not mark
            else:
                before, mark, text = text.partition(CDATA_BEGIN)
                self._in_cdata = bool(mark)
                before = self._resolve_markup(before)
            done += [before, mark]
        return "".join(done)

    def _resolve_markup(self, text: str) -> str:
        first, *others = text.split("&#")
        done = [first]
        for other in others:
            number, end, rest = other.partition(";")
            code = _character(number) if end and len(number) < MAX_TOKEN_SIZE else None
            if code is None or (code not in FORBIDDEN and code <= MAX_CHARACTER):
                done.append(f"&#{other}")
            elif code == ord(ESCAPE):
                done.append(ESCAPE + rest)
            else:
                self.controls += 1
                done.append(rest)
        return "".join(done)

    def _cut_colours(self, text: str) -> str:
        first, *others = text.split(ESCAPE)
        done = [first]
        for other in others:
            rest = other[1:].lstrip(PARAMETERS) if other.startswith("[") else ""
            if rest and FINAL_FIRST <= rest[0] <= FINAL_LAST:
                self.colours += 1
                done.append(rest[1:])
            else:
                self.controls += 1
                done.append(other)
        return "".join(done)


def _character(number: str) -> int | None:
    digits, base = (number[1:], 16) if number.startswith("x") else (number, 10)
    try:
        return int(digits, base) if digits.isascii() and digits.isalnum() else None
    except ValueError:
        return None


OPEN_MARKS: Final = ((ESCAPE, MAX_TOKEN_SIZE), ("&", 2 * MAX_TOKEN_SIZE), ("<", len(CDATA_BEGIN)))


def _whole_tokens(text: str) -> int:
    """Find where a token begins that the next piece may go on with; the length of the text when there is none."""
    end = len(text)
    starts = [end - len(CDATA_END[:size]) for size in (2, 1) if text.endswith(CDATA_END[:size])]
    starts += [text.rfind(mark, max(0, end - size)) for mark, size in OPEN_MARKS]
    return min((start for start in starts if start >= 0), default=end)
