"""Read file names as clients and packers write them, so that one name in any of these forms is one report.

A name in a form is taken from `filename*` (RFC 5987, RFC 2231), else from `filename`. In `filename`, encoded words
(RFC 2047) and percent-encoded names are decoded. Bytes without a stated encoding are UTF-8; else GB18030, which
includes GBK, if they read as Chinese; else a Western encoding.
"""

import re
from collections.abc import Sequence
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from typing import Final
from urllib.parse import unquote_to_bytes

from multipart import parse_content_disposition  # type: ignore[import-untyped]  # the package brings no type marker

CHINESE: Final = "gb18030"
WESTERN: Final = "cp1252"  # of Windows and, apart from control characters, of Latin-1
HIGH: Final = 0x80  # the first byte that is not ASCII
PRIVATE_USE: Final = range(0xE000, 0xF900)  # what gb18030 decodes pairs of bytes to that are no characters

MAX_PARAMETERS: Final = 100  # of a header; a name of 4 KB that is continued line by line (RFC 2231) has 60

_PERCENT_ENCODED: Final = re.compile(r"(?:[\w.~!*'()\"\r\n-]|%[0-9A-F]{2})+", re.ASCII)
"""A name as `encodeURIComponent` and aiohttp write it. The parser has decoded %22, %0D and %0A, as for browsers."""

_BETWEEN_LETTERS: Final = re.compile(r"[a-z][^\x00-\x7f][a-z]", re.IGNORECASE)
_COMMON: Final = range(0xB0, 0xD8)  # the first byte of the Chinese characters that GB 2312 calls common


def decode_text(raw: bytes, *, western: str = WESTERN) -> str:
    """Return text whose encoding is not stated. Bytes that `western` does not have are read as Latin-1."""
    text = _as_utf_8_or_chinese(raw)
    if text is not None:
        return text
    try:
        return raw.decode(western)
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def decode_in_charset(raw: bytes, charset: str | None) -> str:
    """Return text in its stated charset, or as `decode_text` if none is stated or the bytes do not fit it."""
    text = _decoded(raw, charset) if charset else None
    return decode_text(raw) if text is None else text


def file_name(disposition: str) -> str | None:
    """Return the file name in a Content-Disposition header that was decoded as Latin-1; None if it has none."""
    header = decode_text(disposition.encode("latin-1"))
    quoted = 'filename="' in header
    plain: str | None = parse_content_disposition(header)[2] if quoted else None
    if not quoted or "*" in header:
        for name, value in _parameters(header):
            if name != "filename":
                continue
            if isinstance(value, tuple):
                charset, _, text = value
                extended = _decoded(_latin_1(text), charset or "utf-8")
                if extended:
                    return extended
            elif plain is None:
                plain = value
    return plain and _unescaped(plain)


def _unescaped(name: str) -> str:
    if "=?" in name:
        name = _without_encoded_words(name)
    if "%" in name and _PERCENT_ENCODED.fullmatch(name):
        name = _as_utf_8_or_chinese(unquote_to_bytes(name)) or name
    return name.replace("\\\\", "\\")  # Go, and curl before 7.81, escape a backslash


def _without_encoded_words(name: str) -> str:
    try:
        parts = decode_header(name)
        # The module returns text beside encoded words in this encoding.
        return "".join(
            part if isinstance(part, str) else part.decode(charset or "raw-unicode-escape") for part, charset in parts
        )
    except (HeaderParseError, LookupError, ValueError):  # damaged, or an unknown charset
        return name


def _parameters(header: str) -> Sequence[tuple[str, str | tuple[str | None, str | None, str]]]:
    """Return the header's parameters; extended ones (RFC 2231) have charset, language and value, decoded as Latin-1.

    A header with more than MAX_PARAMETERS has none: the module searches all of it for each semicolon.
    """
    if header.count(";") > MAX_PARAMETERS:
        return []
    message = Message()
    message["Content-Disposition"] = header
    try:
        return message.get_params([], "content-disposition")
    except (TypeError, ValueError):  # continuations with and without a number, or with one of thousands of digits
        return []


def _latin_1(text: str) -> bytes:
    return text.encode("latin-1") if max(text, default="") <= "\xff" else text.encode()


def _decoded(raw: bytes, charset: str) -> str | None:
    try:
        return raw.decode(charset)
    except (LookupError, ValueError):
        return None


def _as_utf_8_or_chinese(raw: bytes) -> str | None:
    text = _decoded(raw, "utf-8")
    if text is not None:
        return text
    text = _decoded(raw, CHINESE)
    return text if text is not None and _reads_as_chinese(text) else None


def _reads_as_chinese(text: str) -> bool:
    """Return whether text that was decoded as GB18030 is more likely Chinese than accented letters.

    Both bytes of most Chinese characters are high, but accented letters stand mostly alone among ASCII ones.
    """
    foreign = [character for character in text if not character.isascii()]
    if len(foreign) == 1 and _BETWEEN_LETTERS.search(text):
        return foreign[0].encode(CHINESE)[0] in _COMMON  # in Latin-1, a capital letter within a word
    return 2 * sum(map(_is_high_pair, foreign)) > len(foreign)


def _is_high_pair(character: str) -> bool:
    encoded = character.encode(CHINESE)
    return len(encoded) == 2 and encoded[1] >= HIGH and ord(character) not in PRIVATE_USE
