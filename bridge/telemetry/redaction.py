"""Redact secrets and escape control characters in text that is shown to people."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from bridge.domain.secret_search import SecretSearch, decode

MAX_TEXT_CHARACTERS = 16_384  # of one value, after redaction, so that a line stays readable
MAX_DEPTH = 6  # of nested values; deeper ones are shown as one text

CACHE_SIZE = 4096  # short texts with a cached result: log lines repeat names, callers and addresses
MAX_CACHED_CHARACTERS = 64

REDACTED = "[redacted]"
PLAIN = (bool, int, float)  # shown unchanged

_SECRET_KEY = re.compile(
    r"(?i)(^|[_.-])(token|tokens|secret|secrets|password|passwd|authorization|credential|credentials|signature"
    r"|presigned_url|access_key|secret_key|access_key_id|secret_access_key|cookie|x-bridge-hook)$"
)
_HEADER = re.compile(
    r"(?i)(['\"]?\b(?:project-token|x-auth-token|x-subject-token|x-security-token|x-bridge-hook|authorization)\b"
    # A quoted value ends at the quote before a delimiter: a secret may contain quotes itself.
    r"['\"]?\s*[:=,]\s*)(b?(?P<quote>['\"]).*?(?P=quote)(?=\s*(?:[,;)}\]\r\n]|$))|(?:\[redacted\])?[^\r\n,;)}\]]*)"
)
_QUERY = re.compile(
    r"(?i)\b((?:x-amz-(?:signature|credential|security-token)|awsaccesskeyid|signature|project[-_]token|x-auth-token"
    r"|access_token|token)(?:=|%3d))[^&\s\"'<>)]+"
)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{6,}")
_USER_INFO = re.compile(r"(://)[^/@\s:]*:[^/@\s]*@")
_SUSPICIOUS = re.compile(r"(?i)token|signature|credential|authorization|awsaccesskeyid|x-bridge|bearer|://|%3a%2f")
"""Every text that the patterns above match contains one of these, so most values need only one search."""
_SUSPICIOUS_WORDS = (
    *("token", "secret", "passw", "signature", "credential", "authorization", "cookie"),
    *("access_key", "awsaccesskeyid", "presigned_url", "x-bridge", "bearer", "://"),
)
"""Every line in which a pattern here matches a key or a text contains one of these."""
_FENCING_TOKEN = re.compile('"fencing_token": [0-9]+')
"""A number that is no secret, in every line about a build."""
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters, line and paragraph separators, marks that reorder or hide text, and lone surrogates."""


class Redactor:
    """Redacts values. Registered secrets are replaced wherever they occur, in any form that SecretSearch finds."""

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._search = SecretSearch(())
        self._clean_cached = lru_cache(maxsize=CACHE_SIZE)(self._clean)

    def register(self, secrets: Iterable[str]) -> None:
        """Add secrets and their escaped forms; secrets shorter than MIN_SECRET_CHARACTERS are ignored."""
        new = frozenset(secrets)
        self._secrets |= new | {escape(secret) for secret in new}
        self._search = SecretSearch(self._secrets)
        self._clean_cached.cache_clear()

    def text(self, text: str) -> str:
        """Return `text` on one line, with secrets redacted and control characters escaped."""
        return self._clean_cached(text) if len(text) <= MAX_CACHED_CHARACTERS else self._clean(text)

    def _clean(self, text: str) -> str:
        text = self._search.redact(text, REDACTED)
        if _SUSPICIOUS.search(text):
            decoded = decode(text)
            redacted = _redact_patterns(decoded)
            text = redacted if redacted != decoded else text
        text = escape(text)
        return text if len(text) <= MAX_TEXT_CHARACTERS else f"{text[:MAX_TEXT_CHARACTERS]}…"

    def is_clean(self, line: str) -> bool:
        """Return whether a line of JSON certainly needs no redaction; False if that is not certain."""
        if len(line) > MAX_TEXT_CHARACTERS or "\\" in line or not line.isprintable():
            return False
        lowered = _FENCING_TOKEN.sub("", line).lower()
        for word in _SUSPICIOUS_WORDS:  # no generator: log lines of uploads come here
            if word in lowered:
                return False
        return not self._search.may_be_in(line)

    def value(self, key: str, value: Any, depth: int = 0) -> Any:
        """Return the redacted value of `key`; numbers stay unchanged, other objects become text."""
        if value is None or isinstance(value, PLAIN):
            return value
        if _is_secret_key(key):
            return REDACTED if value else ""
        if isinstance(value, str):  # first, because nearly all values are
            return self.text(value)
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            return {self.text(str(name)): self.value(str(name), item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset) and depth < MAX_DEPTH:
            return [self.value("", item, depth + 1) for item in value]
        return self.text(str(value))


def _redact_patterns(text: str) -> str:
    text = _QUERY.sub(rf"\1{REDACTED}", text)
    text = _HEADER.sub(rf"\1{REDACTED}", text)
    text = _BEARER.sub(rf"\1{REDACTED}", text)
    return _USER_INFO.sub(rf"\1{REDACTED}@", text)


def escape(text: str) -> str:
    """Return `text` with control characters escaped as in Python, so that a terminal does not interpret them."""
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


@lru_cache(maxsize=1024)
def _is_secret_key(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None
