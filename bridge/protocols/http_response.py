"""x"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None

MAX_MESSAGE_CHARACTERS = 300
"""An upstream's own words are shown in tables and logs: enough for a sentence or two."""

MAX_MESSAGE_SOURCE = 4096
"""Only this much of a message is looked at, so that a hostile one costs nothing."""

MAX_RETRY_AFTER_DIGITS = 9
"""Thirty years in seconds: more is a mistake, and a longer number could overflow a float."""

SECOND = 1_000_000

_URL_QUERY = re.compile(r"(?i)\b(https?://[^\s?#\"'<>]*)[?#][^\s\"'<>]*")
_URL_USER = re.compile(r"(?i)\b(https?://)[^\s/?#\"'<>]*@")
_SIGNATURE = re.compile(
    r"(?i)\b(X-Amz-[A-Za-z-]+|AWSAccessKeyId|Signature|Project-Token|X-Auth-Token)(\s*[=:]\s*)[^\s&\"'<>,;]+"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpResponse:
    """A complete HTTP answer: header names in lower case, the body unfolded, bounded by the session that read it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: int  # microseconds UTC on our clock
    secrets: tuple[str, ...] = field(default=(), repr=False)  # that the request held: an upstream may repeat them

    @property
    def dated_at(self) -> int:
        """Return the upstream's own time of the answer (its Date), else ours: both clocks may be hours apart."""
        return http_date(self.headers.get("date", "")) or self.received_at


def http_date(text: str) -> int | None:
    """Return an HTTP date (RFC 9110, 5.6.7) as microseconds UTC, None when it is none."""
    try:
        parsed = parsedate_tz(text)
        return int(mktime_tz(parsed)) * SECOND if parsed else None
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def retry_after_seconds(answer: HttpResponse) -> float | None:
    """Return what Retry-After asks for (seconds, or a date by the upstream's clock), None when it says nothing.

    It is as large as the upstream pleases: whoever waits caps it (RFC 9110, 10.2.3).
    """
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value) if len(value) <= MAX_RETRY_AFTER_DIGITS else None
    again_at = http_date(value)
    return None if again_at is None else max(0.0, (again_at - answer.dated_at) / SECOND)


def read_json(body: bytes) -> Json:
    """Return the JSON value in `body`, None when it holds none."""
    try:
        value: Json = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`, an empty one when it holds none."""
    value = read_json(body)
    return value if isinstance(value, dict) else {}


def clean(text: str, *, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """Return `text` fit to be shown and kept: no query of a URL, no signature, nothing unprintable, at most `limit`.

    Lone surrogates and NUL are escaped too: PostgreSQL refuses them.
    """
    text = text[:MAX_MESSAGE_SOURCE].strip()
    text = _SIGNATURE.sub(r"\1\2…", _URL_QUERY.sub(r"\1?…", _URL_USER.sub(r"\1", text)))
    shown = _printable(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def say(answer: HttpResponse, message: object) -> str:
    """Return the upstream's own `message` made fit to be shown, or, where it has none, what can be said instead."""
    text = clean(_without(message, answer.secrets)) if isinstance(message, str) else ""
    return text or f"HTTP {answer.status} without a readable message"


def _without(message: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        message = message.replace(secret, "…")
    return message


def scalar(value: object, *, limit: int) -> str | None:
    """Return a string or whole number from JSON as printable text; None for all else, empty, or longer than `limit`."""
    if isinstance(value, int) and not isinstance(value, bool):
        # str() of an integer of thousands of digits raises; no id is longer than a 64-bit number.
        value = str(value) if value.bit_length() <= 64 else None
    if not isinstance(value, str) or len(value) > limit:
        return None
    text = _printable(value.strip())
    return text if 0 < len(text) <= limit else None


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def read_error(value: Json) -> tuple[str, str]:
    """Return code and message of an error in any of the shapes met; empty where there is none.

    `{"error_code", "error_msg"}`, `{"error": {"code", "message" | "reason"}}` (IAM's code is a number), and a JSON
    string, which may hold another of these.
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
