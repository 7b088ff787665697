"""Reads answers of S3 (to a PUT, to a GET of a range, errors) and the expiry of presigned URLs.

It follows "PutObject", "GetObject", "Error responses" and "Authenticating requests: using query parameters" of the S3
API reference, https://docs.aws.amazon.com/AmazonS3/latest/API/.
"""

import errno
import re
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.parsers.expat import ExpatError

import xmltodict

from bridge.domain.outcomes import OutcomeUnknown, PutRejected, Stored
from bridge.errors import Unavailable, UnexpectedResponse
from bridge.protocols.http_response import SECOND, HttpResponse, clean, clean_of, describe_error, retry_after_seconds
from bridge.values import dataclass

MAX_ERROR_BYTES = 16 * 1024
"""S3's errors have a few hundred bytes: a larger body is not one, and is not parsed."""

MAX_LIFETIME_SECONDS = 7 * 24 * 3600
"""The longest lifetime that S3 gives a presigned URL: a longer one is not believed."""

MAX_CODE_CHARACTERS = 64
MAX_SHOWN_HEADER = 64
CHECK_ENDPOINT = "Check s3.endpoint_url, and what stands between the bridge and S3."

MAX_QUERY_FIELDS = 100
HARMLESS_PARAMETERS = frozenset(
    {"x-amz-algorithm", "x-amz-date", "x-amz-expires", "x-amz-signedheaders", "expires", "x-id"}
)

METADATA = "x-amz-meta-"
"""Of the object: TestNod writes ids there that are in its answer, and in the address of the run's page."""

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.ASCII)  # 19 digits: 2⁶³ at most


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectListing:
    """One page of a listing: keys, prefixes that end in the delimiter, and the token of the next page."""

    keys: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    following: str | None = None  # ContinuationToken; None on the last page


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of an object, and the size of the whole object."""

    body: bytes
    total: int


def read_put(answer: HttpResponse) -> Stored | PutRejected | OutcomeUnknown:
    """Return what an answer to a PUT means: only a 200 is stored, and only a 4xx is a rejection."""
    if answer.status == 200:
        return Stored(etag=answer.headers.get("etag", ""))
    code, message = read_error(answer)
    wait = retry_after_seconds(answer)
    if 400 <= answer.status < 500:
        return PutRejected(status=answer.status, code=code, message=message, retry_after_seconds=wait)
    return OutcomeUnknown(
        status=answer.status, message=f"{code}: {message}" if code else message, retry_after_seconds=wait
    )


def read_piece(answer: HttpResponse, *, first: int, requested_bytes: int) -> Piece:
    """Return what the answer to a GET of `requested_bytes` bytes from byte `first` on holds.

    It follows "GetObject" of the S3 API reference and RFC 9110, sections 14.4 and 15.3.7
    (https://www.rfc-editor.org/rfc/rfc9110#section-15.3.7). A 200 is the whole object; only the digest shows whether it
    is the right one.

    Raises:
        FileNotFoundError: S3 itself answers that there is no such key; `strerror` holds its message.
        UnexpectedResponse: The answer is neither part of the object nor S3's "not found".
        Unavailable: S3 is overloaded or broken, so the answer is not about the object.
    """
    size = len(answer.body)
    match answer.status:
        case 206:
            content_range = answer.headers.get("content-range", "")
            found = _CONTENT_RANGE.fullmatch(content_range)
            start, end, total = (int(number) for number in found.groups()) if found else (-1, -1, -1)
            if size and start == first and end + 1 == first + size == min(first + requested_bytes, total):
                return Piece(body=answer.body, total=total)
            shown = clean_of(answer, content_range, limit=MAX_SHOWN_HEADER)
            reason = (
                f'206 with {size} bytes and the Content-Range "{shown}" to a request for bytes {first} and following'
            )
            raise UnexpectedResponse(reason, CHECK_ENDPOINT)
        case 200 if first == 0 and not _is_page(answer):
            return Piece(body=answer.body, total=size)
        case 416 if first == 0 and not _is_page(answer):
            return Piece(body=b"", total=0)
        case 404 if read_error(answer)[0] == "NoSuchKey":
            raise FileNotFoundError(errno.ENOENT, describe_failure(answer))
        case status if status in (408, 425, 429) or status >= 500:
            raise Unavailable(f"S3 did not return an object: {describe_failure(answer)}. It is tried again later.")
    raise UnexpectedResponse(describe_failure(answer), _remedy(answer))


def holds_document(answer: HttpResponse) -> bool:
    """Return whether the body is XML that is neither an error (S3 may answer 200 and then fail) nor a page.

    The name of the root element is not checked: S3-compatible servers have names of their own.
    """
    if _is_page(answer):
        return False
    try:
        root = xmltodict.parse(answer.body, disable_entities=True)
    except (ExpatError, ValueError, LookupError):
        return False
    return "Error" not in root


def describe_failure(answer: HttpResponse) -> str:
    """Return status, code and message of an answer that is not what was asked for, fit to be shown."""
    if _is_page(answer):
        return f"{answer.status} with an HTML page"
    code, message = read_error(answer)
    if not code and 200 <= answer.status < 300:
        kind = clean_of(answer, answer.headers.get("content-type", "no type"), limit=MAX_SHOWN_HEADER)
        return f"{answer.status} with {len(answer.body)} bytes ({kind}) that are not what was asked for"
    return " ".join(f"{answer.status} {code} {message}".split()).removesuffix(".")


def presigned_expiry(url: str, *, now_us: int, signed_at: int) -> int | None:
    """Return when a URL that was just issued ends, in microseconds UTC of our own clock; None if it has no end.

    `now_us` is our clock, `signed_at` the same moment by the clock of the server that issued the URL. Only the length
    of the URL's life is taken from it, never its date: the two clocks may be an hour apart.
    """
    try:
        query = dict(reversed(_fields_of(url.partition("#")[0].partition("?")[2])))
    except ValueError:
        return None
    lifetime_seconds = _number(query.get("X-Amz-Expires", ""))
    if lifetime_seconds is None and (end := _number(query.get("Expires", ""))) is not None:
        lifetime_seconds = end - signed_at // SECOND
    if lifetime_seconds is None or not 0 < lifetime_seconds <= MAX_LIFETIME_SECONDS:
        return None
    return now_us + lifetime_seconds * SECOND


def secrets_in_query(query: str) -> tuple[str, ...]:
    """Return the values in the query of a presigned URL that must not be shown if storage repeats them in an error.

    Providers have names of their own for signature, key and token, so all values count but those known to be harmless.
    """
    try:
        pairs = _fields_of(query)
    except ValueError:
        return (query,)
    named = ((name.lower(), value) for name, value in pairs)
    secret = (value for name, value in named if name not in HARMLESS_PARAMETERS and not name.startswith(METADATA))
    return tuple(part for value in secret for part in {value, value.partition("/")[0]})


@lru_cache(maxsize=16)
def _fields_of(query: str) -> list[tuple[str, str]]:
    """Return the fields of a query, which is read twice: for the end of the URL, and for its secrets."""
    return parse_qsl(query, max_num_fields=MAX_QUERY_FIELDS)


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
    return clean_of(answer, code, limit=MAX_CODE_CHARACTERS) if isinstance(code, str) else "", describe_error(
        answer, error.get("Message")
    )


def _is_page(answer: HttpResponse) -> bool:
    """Return whether the answer is a page for people, from a login or load balancer in front of S3."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "text/html" or answer.body[:64].lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))


def _remedy(answer: HttpResponse) -> str:
    code, _ = read_error(answer)
    if answer.status in (401, 403):
        return "Check the key's right to GetObject." if code in ("", "AccessDenied") else "Check the keys of [s3]."
    if code == "NoSuchBucket":
        return "Check the bucket, and its name in the settings."
    if 300 <= answer.status < 400:
        return "Check s3.endpoint_url and s3.region."
    return CHECK_ENDPOINT


def _error_element(body: bytes) -> dict[str, Any]:
    if not body or len(body) > MAX_ERROR_BYTES:
        return {}
    try:
        error = xmltodict.parse(body, disable_entities=True).get("Error")
    except (ExpatError, ValueError, LookupError):
        return {}
    return error if isinstance(error, dict) else {}


def _number(value: str = "") -> int | None:
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 12 else None
