"""Removes characters from a report that XML forbids, color codes, and references to them; escapes bare `&`."""

import codecs
import re
from functools import lru_cache
from typing import Final

from bridge.domain.junit.encoding import UTF_8_DECLARATION
from bridge.domain.junit.wellformed import HIGH_DIGITS, PLACEHOLDER, PREDEFINED, SURROGATES, forbids

ESCAPE: Final = "\x1b"
CDATA_BEGIN, CDATA_END = "<![CDATA[", "]]>"
BLANKS: Final = "\ufeff \t\r\n"
MAX_DECLARATION_SIZE: Final = 1024  # characters, as for validation
MAX_TOKEN_SIZE: Final = 64  # characters; longer strings are neither color codes nor references
PARAMETERS: Final = "0123456789;:?"  # parameter characters of a control sequence (ECMA-48, 5.4) that occur in reports
FINAL_FIRST, FINAL_LAST = "@", "~"  # range of its final character
XML_1_1: Final = re.compile(r"""<\?xml\s+version\s*=\s*["']1\.1["']""")
FIRST_SURROGATE, FIRST_LOW_SURROGATE, LAST_SURROGATE = 0xD800, 0xDC00, 0xDFFF
UNUSUAL: Final = (*range(0x20), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF)  # asking for all code points takes 5 ms
FORBIDDEN: Final = dict.fromkeys(code for code in UNUSUAL if forbids(code))


class ControlCharFilter:
    """Decodes a document and returns it in UTF-8 without what XML forbids.

    Incomplete characters at the end are dropped. Text that XML allows stays, even `&#27;` inside of CDATA and a
    backslash that only looks like an escape. Two references to the halves of a character become that character. With
    `ampersands`, each `&` that does not begin a reference becomes `&amp;`. With `strays`, bytes that do not fit the
    encoding become U+FFFD. With `keeps_positions`, leading blanks and the declaration stay, and a placeholder replaces
    each removed character.
    """

    def __init__(
        self, encoding: str, *, ampersands: bool = False, strays: bool = False, keeps_positions: bool = False
    ) -> None:
        self.color_codes = 0  # removed color codes
        self.controls = 0  # removed forbidden characters, and references to them
        self.ampersands = 0  # escaped bare ones
        self.joined = 0  # pairs of references to surrogates
        self.halves = 0  # references to a surrogate without its other half
        self.declares = False  # the declaration named another encoding
        self.was_xml_1_1 = False  # the declaration named XML 1.1
        self.trimmed = False  # leading blanks were removed
        self.dangling = 0  # bytes of an incomplete character at the end
        self._decoder = codecs.getincrementaldecoder(encoding)("replace" if strays else "strict")
        self._placeholder = PLACEHOLDER if keeps_positions else ""
        self._forbidden = dict.fromkeys(FORBIDDEN, PLACEHOLDER) if keeps_positions else FORBIDDEN
        self._escapes_ampersands = ampersands
        self._buffer = ""
        self._began = keeps_positions
        self._in_cdata = False
        self._brackets = ""  # the last characters of the open CDATA section, if they may begin its end

    @property
    def is_lossless(self) -> bool:
        """Return whether the content is unchanged so far."""
        return not (self.color_codes or self.controls or self.ampersands or self.halves or self.dangling)

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes and return those that are ready.

        Raises UnicodeDecodeError if they do not fit the encoding.
        """
        text = self._buffer + self._decoder.decode(piece)
        if not self._began:
            text = self._begin(text)
        ready = _whole_tokens(text)
        self._buffer = text[ready:]
        return self._clean_sections(text[:ready]).encode()

    def close(self) -> bytes:
        """Return the rest; call it after the whole file was fed."""
        buffered, self._buffer = self._buffer, ""
        self.dangling = len(self._decoder.getstate()[0])
        return self._clean_sections(buffered).encode()

    def _begin(self, text: str) -> str:
        """Remove blanks before the document, and replace a declaration that is no longer true."""
        size = len(text)
        text = text.lstrip(BLANKS)
        self.trimmed |= len(text) < size
        self._began = bool(text)
        declaration, end, rest = text.partition("?>")
        if not (end and declaration.startswith("<?xml") and len(declaration) <= MAX_DECLARATION_SIZE):
            return text
        self.was_xml_1_1 = XML_1_1.match(declaration) is not None
        self.declares = "encoding" in declaration and "utf-8" not in declaration.lower()
        return UTF_8_DECLARATION + rest if self.declares or self.was_xml_1_1 else text

    def _clean_sections(self, text: str) -> str:
        done = []
        while text:
            if self._in_cdata:
                before, mark, text = text.partition(CDATA_END)
                before = self._separate_brackets(self._clean(before))
                self._in_cdata = not mark
                self._brackets = "" if mark else self._brackets
            else:
                before, mark, text = text.partition(CDATA_BEGIN)
                before = self._clean(self._resolve(before))
                self._in_cdata = bool(mark)
            done += [before, mark]
        return "".join(done)

    def _clean(self, text: str) -> str:
        text = self._remove_color_codes(text)
        kept = text.translate(self._forbidden)
        self.controls += len(text) - len(kept)
        return kept

    def _separate_brackets(self, text: str) -> str:
        """Keep one forbidden character if brackets would otherwise join to an end of the CDATA section.

        It is not known whether the section ends there, so validation must reject it.
        """
        joined = self._brackets + text
        kept = joined.replace(CDATA_END, f"]]{ESCAPE}>")[len(self._brackets) :]
        self._brackets = "]" * min(2, len(joined) - len(joined.rstrip("]")))
        return kept

    def _resolve(self, text: str) -> str:
        """Replace references to forbidden characters by these characters, and escape what begins no reference."""
        first, *others = self._join_surrogates(text).split("&")
        done = [first]
        for other in others:
            name, end, rest = other.partition(";")
            number = name[1:] if end and name.startswith("#") and len(name) <= MAX_TOKEN_SIZE else ""
            code = _character(number)
            if code is not None and FIRST_SURROGATE <= code <= LAST_SURROGATE:
                self.halves += 1
                done.append(PLACEHOLDER * (len(name) + 2 if self._placeholder else 1) + rest)
            elif code is not None and forbids(code):
                done.append(self._replace(code, len(name), rest))
            elif self._escapes_ampersands and not (end and (code is not None or name in PREDEFINED)):
                self.ampersands += 1
                done.append((self._placeholder or "&amp;") + other)
            else:
                done.append(f"&{other}")
        return "".join(done)

    def _join_surrogates(self, text: str) -> str:
        def join(pair: re.Match[str]) -> str:
            self.joined += 1
            return self._placeholder * len(pair[0]) or _joined(pair[0])

        return SURROGATES.sub(join, text) if "&#" in text else text

    def _replace(self, code: int, size: int, rest: str) -> str:
        if code == ord(ESCAPE):
            return self._placeholder * (size + 1) + ESCAPE + rest
        self.controls += 1
        return self._placeholder * (size + 2) + rest

    def _remove_color_codes(self, text: str) -> str:
        first, *others = text.split(ESCAPE)
        done = [first]
        for other in others:
            rest = other[1:].lstrip(PARAMETERS) if other.startswith("[") else ""
            if rest and FINAL_FIRST <= rest[0] <= FINAL_LAST:
                self.color_codes += 1
                done.append(self._placeholder * (len(other) - len(rest) + 2) + rest[1:])
            else:
                self.controls += 1
                done.append(self._placeholder + other)
        return "".join(done)


@lru_cache(maxsize=64)  # a report repeats few; each may have as many zeros as a piece of the file is long
def _joined(pair: str) -> str:
    """Return the character of two references to its halves."""
    high, low = (_character(reference.removeprefix("#")) or 0 for reference in pair[1:-1].split(";&"))
    return chr(0x10000 + ((high - FIRST_SURROGATE) << 10) + (low - FIRST_LOW_SURROGATE))


def _character(number: str) -> int | None:
    digits, base = (number[1:], 16) if number.startswith("x") else (number, 10)
    try:
        return int(digits, base) if digits.isascii() and digits.isalnum() else None
    except ValueError:
        return None


HIGH_SURROGATE: Final = re.compile(rf"&#{HIGH_DIGITS};\Z")
OPEN_MARKS: Final = ((ESCAPE, MAX_TOKEN_SIZE), ("&", 2 * MAX_TOKEN_SIZE), ("<", len(CDATA_BEGIN)))


def _whole_tokens(text: str) -> int:
    """Return the position of a token that the next piece may continue; the length of the text if there is none."""
    end = len(text)
    starts = [end - len(CDATA_END[:size]) for size in (2, 1) if text.endswith(CDATA_END[:size])]
    starts += [text.rfind(mark, max(0, end - size)) for mark, size in OPEN_MARKS]
    start = min((start for start in starts if start >= 0), default=end)
    half = HIGH_SURROGATE.search(text[max(0, start - MAX_TOKEN_SIZE) : start])
    return start - len(half[0]) if half else start
