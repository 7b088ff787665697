"""What S3 says beside the answer to a PUT: listings, multipart uploads, and why it refuses.

It follows "ListObjectsV2", "CreateMultipartUpload" and "CompleteMultipartUpload" of the S3 API reference; it knows
neither sessions nor what the keys mean.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus
from xml.parsers.expat import ExpatError

import xmltodict

from bridge.protocols.http_response import HttpResponse, clean
from bridge.protocols.s3 import read_error, read_put

LISTED_KEYS = 100
"""Asked for at a time: with the longest keys a listing then stays below what a session takes of an answer."""

MAX_SHOWN_RANGE = 64
LOOK_BETWEEN = "Check s3.endpoint_url, and what stands between the bridge and S3."

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.ASCII)  # 19 digits: 2⁶³ at most


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """One page of a listing: keys, what they begin with up to the delimiter, and how to go on."""

    keys: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    following: str | None = None  # ContinuationToken of the next page


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of an object, and the size of the whole object."""

    body: bytes
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """S3 itself says that no object has this key; `saw` are its words."""

    saw: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Odd:
    """An answer that is no part of the object and does not say that it is missing."""

    saw: str
    remedy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """An answer that says nothing about the object: S3 is overloaded or broken."""

    saw: str


def read_piece(answer: HttpResponse, *, first: int, asked_bytes: int) -> Piece | Missing | Odd | Failed:
    """Return what the answer to a GET of `asked_bytes` bytes from byte `first` on holds.

    It follows "GetObject" of the S3 API reference and RFC 9110, 14.4 and 15.3.7. A 200 is a whole object; whether it is
    the right one only its digest shows.
    """
    size = len(answer.body)
    match answer.status:
        case 206:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
            start, end, total = (int(number) for number in found.groups()) if found else (-1, -1, -1)
            if size and start == first and end + 1 == first + size == min(first + asked_bytes, total):
                return Piece(body=answer.body, total=total)
            said = clean(answer.headers.get("content-range", ""), limit=MAX_SHOWN_RANGE)
            saw = f'206 with {size} bytes and the Content-Range "{said}" to a request for bytes {first} and following'
            return Odd(saw=saw, remedy=LOOK_BETWEEN)
        case 200 if first == 0 and not _is_page(answer):
            return Piece(body=answer.body, total=size)
        case 416 if first == 0 and not _is_page(answer):
            return Piece(body=b"", total=0)
        case 404 if read_error(answer)[0] == "NoSuchKey":
            return Missing(saw=refusal_of(answer))
        case 408 | 425 | 429:
            return Failed(saw=refusal_of(answer))
        case status if status >= 500:
            return Failed(saw=refusal_of(answer))
    return Odd(saw=refusal_of(answer), remedy=_remedy(answer))


def refusal_of(answer: HttpResponse) -> str:
    """Return status, code and message of an answer that is not what was asked for, fit to be shown."""
    if _is_page(answer):
        return f"{answer.status} with an HTML page"
    code, message = read_error(answer)
    return " ".join(f"{answer.status} {code} {message}".split()).removesuffix(".")


def _is_page(answer: HttpResponse) -> bool:
    """Return whether the answer is a page for people, from something in front of S3."""
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
    return LOOK_BETWEEN


def refusal(answer: HttpResponse) -> str:
    """Return what an answer that is no success says, fit to be shown."""
    outcome = read_put(answer)
    return str(getattr(outcome, "said", "") or getattr(outcome, "message", ""))


def read_listing(answer: HttpResponse) -> Listing | None:
    """Return the page, None where the answer is none."""
    root = _element(answer, "ListBucketResult")
    if root is None:
        return None
    read = unquote_plus if root.get("EncodingType") == "url" else str
    truncated = root.get("IsTruncated") == "true"
    return Listing(
        keys=tuple(read(key) for key in _texts(root.get("Contents"), "Key")),
        prefixes=tuple(read(prefix) for prefix in _texts(root.get("CommonPrefixes"), "Prefix")),
        following=str(root["NextContinuationToken"]) if truncated and root.get("NextContinuationToken") else None,
    )


def read_upload_id(answer: HttpResponse) -> str | None:
    """Return the id of a multipart upload that has begun, None where the answer says no such thing."""
    root = _element(answer, "InitiateMultipartUploadResult")
    upload_id = root.get("UploadId") if root else None
    return upload_id if isinstance(upload_id, str) else None


def is_complete(answer: HttpResponse) -> bool:
    """Tell whether a multipart upload was completed: S3 may begin with 200 and then say that it failed."""
    return _element(answer, "CompleteMultipartUploadResult") is not None


def complete_body(etags: Sequence[str]) -> bytes:
    """Return the body of CompleteMultipartUpload for parts 1, 2, … with these ETags."""
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    return xmltodict.unparse({"CompleteMultipartUpload": {"Part": parts}}).encode()


def _element(answer: HttpResponse, name: str) -> dict[str, Any] | None:
    if answer.status != 200:
        return None
    try:
        root = xmltodict.parse(answer.body, disable_entities=True).get(name)
    except (ExpatError, ValueError, LookupError):
        return None
    return root if isinstance(root, dict) else None


def _texts(elements: object, name: str) -> list[str]:
    """Return the text of `name` in each of `elements`, of which there may be none, one or many."""
    many = elements if isinstance(elements, list) else [elements]
    found = [element.get(name) for element in many if isinstance(element, dict)]
    return [text for text in found if isinstance(text, str)]
