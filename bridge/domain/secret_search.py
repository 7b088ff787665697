"""Find known secrets in text, also if they are percent-encoded, escaped, in base64 or hex, split by quotes, or cut.

Hex may be separated by colons, and escapes may be those of quoted-printable or octal.

An upstream may repeat what it was sent in any of these forms, and its message is shown to people.
"""

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from bridge.values import dataclass

MIN_SECRET_CHARACTERS = 6
"""Shorter values would also match ordinary words."""

ANCHOR_CHARACTERS = 16
"""A text that holds this much of the beginning or end of a secret holds a part of it: the message may have been cut."""

DECODING_ROUNDS = 3
"""A text may be encoded twice, for example percent-encoded inside JSON inside JSON."""

_SEPARATORS = "\"'`\\+ \t\r\n,\u200b"
_DROP = str.maketrans("", "", _SEPARATORS)
"""Quotes and what stands between the pieces of a split text are left out of the search, in secret and text."""

_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=".lower())


class SecretSearch:
    """Searches for one set of secrets. Secrets shorter than MIN_SECRET_CHARACTERS are ignored."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._exact = frozenset(secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS)
        self._needles = tuple(sorted({needle for secret in self._exact for needle in _needles_of(secret)}))
        self._anchors = tuple({anchor for needle in self._needles for anchor in (needle.first, needle.last)})

    def may_be_in(self, text: str) -> bool:
        """Return whether `redact` could change the text; False is certain."""
        if not self._exact:
            return False
        if "%" in text or "&" in text or "\\" in text or ("=" in text and _SPELLED_WITH_EQUALS.search(text)):
            return True
        if _COLON_PAIRS.search(text) and _SPELLED_WITH_COLONS.search(text):
            return True
        squeezed = text.translate(_DROP).casefold()
        for anchor in self._anchors:  # no generator: log lines of uploads come here
            if anchor in squeezed:
                return True
        for secret in self._exact:  # noqa: SIM110 -- as above
            if secret in text:
                return True
        return False

    def redact(self, text: str, replacement: str) -> str:
        """Return `text` with every occurrence of a secret, in any of the forms, replaced."""
        if not self.may_be_in(text):
            return text
        spans = [match.span() for secret in self._exact for match in re.finditer(re.escape(secret), text)]
        decoded = _Decoded.plain(text)
        for _ in range(DECODING_ROUNDS + 1):
            spans += decoded.find(self._needles)
            following = decoded.decode()
            if following is None:
                break
            decoded = following
        return _replace(text, spans, replacement)


@lru_cache(maxsize=64)
def search_for(*secrets: str) -> SecretSearch:
    """Return the search for secrets that are searched for again and again, such as the token of a route."""
    return SecretSearch(secrets)


class _Needle(NamedTuple):
    """What to search for in squeezed, casefolded text; `encoded` text goes on as long as its alphabet."""

    whole: str
    encoded: bool

    @property
    def first(self) -> str:
        return self.whole[:ANCHOR_CHARACTERS]

    @property
    def last(self) -> str:
        return self.whole[-ANCHOR_CHARACTERS:]


@lru_cache(maxsize=64)
def _needles_of(secret: str) -> tuple[_Needle, ...]:
    """Return the needles of a secret; those of a key or token come with every presigned URL."""
    return tuple(_needles(secret))


def _needles(secret: str) -> Iterator[_Needle]:
    squeezed = secret.translate(_DROP).casefold()
    if len(squeezed) >= MIN_SECRET_CHARACTERS:
        yield _Needle(squeezed, encoded=False)
    octets = secret.encode("utf-8", "surrogatepass")
    yield _Needle(octets.hex(), encoded=True)
    for shift in range(3):  # the secret may stand behind other text, like a user's name: three alignments
        # The first and last characters of the encoded text depend on what stands beside the secret.
        begin, end = (0, 2, 3)[shift], (shift + len(octets)) * 8 // 6
        encoded = base64.b64encode(bytes(shift) + octets).decode("ascii")[begin:end].lower()
        for text in {encoded, encoded.replace("+", "-").replace("/", "_")}:  # the second is urlsafe_b64encode's
            core = text.translate(_DROP)
            if len(core) >= MIN_SECRET_CHARACTERS:
                yield _Needle(core, encoded=True)


# -- decoding ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Decoded:
    """Decoded text; character `i` comes from `starts[i]` to `ends[i]` of the source."""

    text: str
    starts: list[int]
    ends: list[int]

    @classmethod
    def plain(cls, text: str) -> "_Decoded":
        return cls(text, list(range(len(text))), list(range(1, len(text) + 1)))

    def decode(self) -> "_Decoded | None":
        """Return the text with one layer of encoding removed, None if it has no further one."""
        if _SEARCHED.search(self.text) is None:
            return None
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        for match in _SEARCHED.finditer(self.text):
            pieces.append(self.text[at : match.start()])
            starts += self.starts[at : match.start()]
            ends += self.ends[at : match.start()]
            decoded = _decoder(match)(match[0])
            pieces.append(decoded)
            starts += [self.starts[match.start()]] * len(decoded)
            ends += [self.ends[match.end() - 1]] * len(decoded)
            at = match.end()
        pieces.append(self.text[at:])
        return _Decoded("".join(pieces), starts + self.starts[at:], ends + self.ends[at:])

    def find(self, needles: Iterable[_Needle]) -> Iterator[tuple[int, int]]:
        """Yield the places in the source of every needle, or of its beginning or end."""
        kept = [at for at, char in enumerate(self.text) if char not in _SEPARATORS]
        squeezed = self.text.translate(_DROP)
        folded = squeezed.casefold()
        if len(folded) != len(kept):  # a few characters fold to two, and positions would not match
            folded = "".join(char if len(char.casefold()) > 1 else char.casefold() for char in squeezed)
        for needle in needles:
            for start, end in _occurrences(folded, needle):
                yield self.starts[kept[start]], self.ends[kept[end - 1]]


def _occurrences(text: str, needle: _Needle) -> Iterator[tuple[int, int]]:
    """Yield the places of a needle, and of as much of its beginning or end as the text holds."""
    for anchor, is_first in ((needle.first, True), (needle.last, False)):
        at = text.find(anchor)
        while at >= 0:
            start, end = at, at + len(anchor)
            whole = needle.whole
            if is_first:
                while end < len(text) and end - start < len(whole) and text[end] == whole[end - start]:
                    end += 1
            else:
                while start > 0 and end - start < len(whole) and text[start - 1] == whole[start - 1 - end]:
                    start -= 1
            if needle.encoded:
                while end < len(text) and text[end] in _BASE64:
                    end += 1
                while start > 0 and text[start - 1] in _BASE64:
                    start -= 1
            yield start, end
            at = text.find(anchor, end)


_PERCENT = r"(?:%[0-9A-Fa-f]{2})+"
_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});?"
_UNICODE = r"(?:\\u[0-9A-Fa-f]{4})+"
_HEX = r"(?:\\x[0-9A-Fa-f]{2})+"
_OCTAL = r"(?:\\[0-3][0-7]{2})+"
_QUOTED = r"(?:=[0-9A-Fa-f]{2}){3,}|=3[Dd]"
_COLONS = r"\b[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5,}\b"
_ENCODED = re.compile(f"(?P<percent>{_PERCENT})|(?P<entity>{_ENTITY})|(?P<unicode>{_UNICODE})|(?P<hex>{_HEX})")
_SPELLED_WITH_EQUALS = re.compile(_QUOTED)
_SPELLED_WITH_COLONS = re.compile(_COLONS)
_COLON_PAIRS = re.compile(":[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}:")  # begins with a literal: found much faster
_SPELLED = f"(?P<octal>{_OCTAL})|(?P<quoted>{_QUOTED})|(?P<colons>{_COLONS})"
_SEARCHED = re.compile(f"{_ENCODED.pattern}|{_SPELLED}")
"""What is decoded to search for secrets. `decode` leaves out what honest text may hold, like `=3D` in a query."""


def decode(text: str) -> str:
    """Return `text` without percent-encoding, entities and escapes, of up to DECODING_ROUNDS layers."""
    for _ in range(DECODING_ROUNDS):
        decoded = _ENCODED.sub(lambda match: _decoder(match)(match[0]), text)
        if decoded == text:
            break
        text = decoded
    return text


def _from_octets(digits: str) -> str:
    return bytes.fromhex(digits).decode("utf-8", "replace")


_DECODERS: dict[str, Callable[[str], str]] = {
    "percent": lambda text: _from_octets(text.replace("%", "")),
    "entity": html.unescape,
    "unicode": lambda text: str(json.loads(f'"{text}"')),
    "hex": lambda text: _from_octets(text.replace("\\x", "")),
    "octal": lambda text: bytes(int(digits, 8) for digits in text.split("\\")[1:]).decode("utf-8", "replace"),
    "quoted": lambda text: _from_octets(text.replace("=", "")),
    "colons": lambda text: _from_octets(text.replace(":", "")),
}


def _decoder(match: re.Match[str]) -> Callable[[str], str]:
    return _DECODERS[str(match.lastgroup)]


def _replace(text: str, spans: Iterable[tuple[int, int]], replacement: str) -> str:
    pieces: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if end <= done:
            continue
        if start >= done:
            pieces += [text[done:start], replacement]
        done = end
    return "".join([*pieces, text[done:]])
