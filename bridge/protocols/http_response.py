"""An HTTP response as a value, and what all protocols read from it: JSON, Retry-After, error codes and messages."""

import json
import re
from collections.abc import Mapping
from dataclasses import field
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache
from typing import Any, TypeAlias

from bridge.domain.secret_search import search_for
from bridge.values import dataclass

Json: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None

MAX_MESSAGE_CHARACTERS = 300
"""An upstream's message is shown in tables and logs: enough for a sentence or two."""

MAX_MESSAGE_SOURCE = 4096
"""Only this much of a message is processed, so that a hostile one costs nothing."""

MAX_RETRY_AFTER_DIGITS = 9
"""Thirty years in seconds; a longer number is a mistake and could overflow a float."""

MAX_DIGITS = 16
"""Of a number: enough for milliseconds since 1970."""

SECOND = 1_000_000

_URL_QUERY = re.compile(r"(?i)\b(https?://[^\s?#\"'<>]*)[?#][^\s\"'<>]*")
_URL_USER = re.compile(r"(?i)\b(https?://)[^\s/?#\"'<>]*@")
_SIGNATURE = re.compile(
    r"(?i)\b(X-Amz-[A-Za-z-]+|AWSAccessKeyId|Signature|Project-Token|X-Auth-Token)(\s*[=:]\s*)[^\s&\"'<>,;]+"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpResponse:
    """A complete HTTP response: header names in lower case, the body decompressed and of limited size."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: int  # microseconds UTC on our clock
    secrets: tuple[str, ...] = field(default=(), repr=False)  # of the request; an upstream may repeat them in a message

    @property
    def dated_at(self) -> int:
        """Return the response's Date (microseconds UTC), else our time; both clocks may be hours apart."""
        return http_date(self.headers.get("date", "")) or self.received_at


@lru_cache(maxsize=64)
def http_date(text: str) -> int | None:
    """Return an HTTP date (RFC 9110, 5.6.7) in microseconds UTC, None if the text is not one."""
    try:
        parsed = parsedate_tz(text)
        return int(mktime_tz(parsed)) * SECOND if parsed else None
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def retry_after_seconds(response: HttpResponse) -> float | None:
    """Return Retry-After in seconds (also from a date, by the upstream's clock), None if it is missing or unreadable.

    The caller must cap it (RFC 9110, 10.2.3).
    """
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value) if len(value) <= MAX_RETRY_AFTER_DIGITS else None
    again_at = http_date(value)
    return None if again_at is None else max(0.0, (again_at - response.dated_at) / SECOND)


def read_json(body: bytes) -> Json:
    """Return the JSON value in `body`, None if there is none."""
    try:
        value: Json = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`, an empty one if there is none."""
    value = read_json(body)
    return value if isinstance(value, dict) else {}


def clean(text: str, *, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """Return `text` fit for display and storage: without URL queries, signatures and unprintable characters.

    The result has at most `limit` characters. Lone surrogates and NUL are escaped too, because PostgreSQL rejects them.
    """
    text = text[:MAX_MESSAGE_SOURCE].strip()
    text = _SIGNATURE.sub(r"\1\2…", _URL_QUERY.sub(r"\1?…", _URL_USER.sub(r"\1", text)))
    shown = _printable(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def describe_error(response: HttpResponse, message: object) -> str:
    """Return the upstream's `message` cleaned; if it has none, a text with the HTTP status."""
    text = clean_of(response, message) if isinstance(message, str) else ""
    return text or f"HTTP {response.status} without a readable message"


def clean_of(response: HttpResponse, text: str, *, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """Return a text of the response, cleaned, and without the secrets of its request in any form."""
    return clean(search_for(*response.secrets).redact(text[:MAX_MESSAGE_SOURCE], "…"), limit=limit)


def scalar(value: object, *, limit: int) -> str | None:
    """Return a string or integer from JSON as printable text; None if it is empty, too long or of another type."""
    if isinstance(value, int) and not isinstance(value, bool):
        # str() raises for an integer of thousands of digits; ids have at most 64 bits.
        value = str(value) if value.bit_length() <= 64 else None
    if not isinstance(value, str) or len(value) > limit:
        return None
    text = _printable(value.strip())
    return text if 0 < len(text) <= limit else None


def whole_number(value: object) -> int | None:
    """Return a whole number from JSON, which may be a string of digits; None if it is none or too long."""
    text = scalar(value, limit=MAX_DIGITS)
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def read_error(value: Json) -> tuple[str, str]:
    """Return code and message of a Huawei Cloud error in any of its known forms; empty strings if there is none.

    The forms: `{"error_code", "error_msg"}`, `{"error": {"code", "message" | "reason"}}` (IAM's code is a number), and
    a JSON string, which may contain one of these.
    """
    if isinstance(value, str):
        inner = read_json(value.encode("utf-8", "replace"))
        return read_error(inner) if isinstance(inner, dict) else ("", value)
    if not isinstance(value, dict):
        return "", ""
    error = value.get("error")
    nested = error if isinstance(error, dict) else {"message": error}
    code = _first(value.get("error_code"), nested.get("code"), nested.get("error_code"))
    text = _first(value.get("error_msg"), nested.get("message"), nested.get("reason"), nested.get("error_msg"))
    return code, text


def _first(*values: object) -> str:
    return next((value for value in values if isinstance(value, str) and value), "")
