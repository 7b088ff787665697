"""Takes out of a report's text what XML forbids: control characters, colour codes, references to such, bare `&`.

It knows characters and the few marks between which they mean something else; whether the rest is XML, lxml says.
"""

import codecs
from typing import Final

from bridge.domain.junit.repair.rewrite import DECLARATION
from bridge.domain.junit.wellformed import PREDEFINED, STAND_IN, forbids

ESCAPE: Final = "\x1b"
CDATA_BEGIN, CDATA_END = "<![CDATA[", "]]>"
BLANKS: Final = "\ufeff \t\r\n"
MAX_DECLARATION_SIZE: Final = 1024  # characters, as the gate's
MAX_TOKEN_SIZE: Final = 64  # characters of a colour code or a reference: what is longer is neither
PARAMETERS: Final = "0123456789;:?"  # of a control sequence, ECMA-48 5.4; codes in reports use no other
FINAL_FIRST, FINAL_LAST = "@", "~"  # what may end it
FORBIDDEN: Final = dict.fromkeys(code for code in range(0x10000) if forbids(code))


class ControlCharFilter:
    """Reads a document in a known encoding, and gives it in UTF-8 without what XML forbids.

    Bytes at the end that are no whole character go. Text that XML allows stays, also `&#27;` inside of CDATA and a
    backslash that only looks like an escape. With `ampersands` each `&` that begins no reference of XML's own becomes
    `&amp;`. With `keeps_places` nothing moves: blanks and the declaration stay, and a stand-in takes the place of each
    character that would go.
    """

    def __init__(self, encoding: str, *, ampersands: bool = False, keeps_places: bool = False) -> None:
        self.colours = 0  # colour codes that were cut
        self.controls = 0  # forbidden characters and references to such that were dropped
        self.ampersands = 0  # bare ones that were escaped
        self.declares = False  # the declaration named another encoding and was replaced
        self.trimmed = False  # blanks before the document were cut off
        self.dangling = 0  # bytes at the end that are no whole character
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._stand_in = STAND_IN if keeps_places else ""
        self._forbidden = dict.fromkeys(FORBIDDEN, STAND_IN) if keeps_places else FORBIDDEN
        self._escapes_ampersands = ampersands
        self._held = ""
        self._began = keeps_places
        self._in_cdata = False
        self._brackets = ""  # the last of the open CDATA section, as far as it may belong to its end

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
        done = []
        while text:
            if self._in_cdata:
                before, mark, text = text.partition(CDATA_END)
                before = self._keep_apart(self._clean(before))
                self._in_cdata = not mark
                self._brackets = "" if mark else self._brackets
            else:
                before, mark, text = text.partition(CDATA_BEGIN)
                before = self._clean(self._resolve(before))
                self._in_cdata = bool(mark)
            done += [before, mark]
        return "".join(done)

    def _clean(self, text: str) -> str:
        text = self._cut_colours(text)
        kept = text.translate(self._forbidden)
        self.controls += len(text) - len(kept)
        return kept

    def _keep_apart(self, text: str) -> str:
        """Leave one forbidden character where brackets would otherwise join to an end of the CDATA section.

        Whether it ends there cannot be told, so the gate must reject it.
        """
        joined = self._brackets + text
        kept = joined.replace(CDATA_END, f"]]{ESCAPE}>")[len(self._brackets) :]
        self._brackets = "]" * min(2, len(joined) - len(joined.rstrip("]")))
        return kept

    def _resolve(self, text: str) -> str:
        """Make references to forbidden characters those characters, and escape what begins no reference."""
        first, *others = text.split("&")
        done = [first]
        for other in others:
            name, end, rest = other.partition(";")
            number = name[1:] if end and name.startswith("#") and len(name) <= MAX_TOKEN_SIZE else ""
            code = _character(number)
            if code is not None and forbids(code):
                done.append(self._replace(code, len(name), rest))
            elif self._escapes_ampersands and not (end and (code is not None or name in PREDEFINED)):
                self.ampersands += 1
                done.append((self._stand_in or "&amp;") + other)
            else:
                done.append(f"&{other}")
        return "".join(done)

    def _replace(self, code: int, size: int, rest: str) -> str:
        if code == ord(ESCAPE):
            return self._stand_in * (size + 1) + ESCAPE + rest
        self.controls += 1
        return self._stand_in * (size + 2) + rest

    def _cut_colours(self, text: str) -> str:
        first, *others = text.split(ESCAPE)
        done = [first]
        for other in others:
            rest = other[1:].lstrip(PARAMETERS) if other.startswith("[") else ""
            if rest and FINAL_FIRST <= rest[0] <= FINAL_LAST:
                self.colours += 1
                done.append(self._stand_in * (len(other) - len(rest) + 2) + rest[1:])
            else:
                self.controls += 1
                done.append(self._stand_in + other)
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
