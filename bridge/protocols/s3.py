"""What S3 says to a PUT, and what a presigned URL says of itself.

It follows "PutObject", "Error responses" and "Authenticating requests: using query parameters" of the S3 API reference;
it knows neither sessions nor registrations.
"""

from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.parsers.expat import ExpatError

import xmltodict

from bridge.domain.outcomes import OutcomeUnknown, PutRejected, Stored
from bridge.protocols.http_response import SECOND, HttpResponse, clean, retry_after_seconds, say

MAX_ERROR_BYTES = 16 * 1024
"""S3's errors have a few hundred bytes: a larger body is not one, and is not parsed."""

MAX_LIFETIME_SECONDS = 7 * 24 * 3600
"""The longest life that S3 gives a presigned URL: a URL that claims more is not read."""

MAX_CODE_CHARACTERS = 64


def read_put(answer: HttpResponse) -> Stored | PutRejected | OutcomeUnknown:
    """Say what an answer to a PUT means: only 200 is stored, and only a 4xx is a refusal."""
    if answer.status == 200:
        return Stored(etag=answer.headers.get("etag", ""))
    code, message = read_error(answer)
    wait = retry_after_seconds(answer)
    if 400 <= answer.status < 500:
        return PutRejected(status=answer.status, code=code, message=message, retry_after_seconds=wait)
    return OutcomeUnknown(
        status=answer.status, message=f"{code}: {message}" if code else message, retry_after_seconds=wait
    )


def presigned_expiry(url: str, *, now_us: int, signed_at: int) -> int | None:
    """Return when a URL that was just handed out ends, in microseconds UTC of our own clock; None if it does not say.

    `now_us` is our clock, `signed_at` the same moment by the clock of whoever handed it out. Only the length of the
    URL's life is taken from it, never its date: the two clocks may be an hour apart.
    """
    try:
        query = parse_qs(urlsplit(url).query, max_num_fields=100)
    except ValueError:
        return None
    lifetime_seconds = _number(query.get("X-Amz-Expires"))
    if lifetime_seconds is None and (end := _number(query.get("Expires"))) is not None:
        lifetime_seconds = end - signed_at // SECOND
    if lifetime_seconds is None or not 0 < lifetime_seconds <= MAX_LIFETIME_SECONDS:
        return None
    return now_us + lifetime_seconds * SECOND


def without_query(url: str) -> str:
    """Return `url` fit for a log: scheme, host and path, without user, query and fragment."""
    try:
        parts = urlsplit(url)
        return clean(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
    except ValueError:
        return "an unreadable URL"


def read_error(answer: HttpResponse) -> tuple[str, str]:
    """Return the code (empty if there is none) and the message of an error of S3, fit to be shown."""
    error = _error_element(answer.body)
    code = error.get("Code")
    return clean(code, limit=MAX_CODE_CHARACTERS) if isinstance(code, str) else "", say(answer, error.get("Message"))


def _error_element(body: bytes) -> dict[str, Any]:
    if not body or len(body) > MAX_ERROR_BYTES:
        return {}
    try:
        error = xmltodict.parse(body, disable_entities=True).get("Error")
    except (ExpatError, ValueError, LookupError):
        return {}
    return error if isinstance(error, dict) else {}


def _number(values: list[str] | None) -> int | None:
    value = values[0] if values else ""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 12 else None
