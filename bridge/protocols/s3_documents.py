"""What S3 says beside the answer to a PUT: listings, multipart uploads, and why it refuses.

It follows "ListObjectsV2", "CreateMultipartUpload" and "CompleteMultipartUpload" of the S3 API reference; it knows
neither sessions nor what the keys mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus
from xml.parsers.expat import ExpatError

import xmltodict

from bridge.protocols.answers import Answer
from bridge.protocols.s3 import read_put

LISTED_KEYS = 100
"""Asked for at a time: with the longest keys a listing then stays below what a session takes of an answer."""

MAX_SIZE_DIGITS = 19
"""Of 2⁶³: no object is larger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """One page of a listing: keys, what they begin with up to the delimiter, and how to go on."""

    keys: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    following: str | None = None  # ContinuationToken of the next page


def refusal(answer: Answer) -> str:
    """Return what an answer that is no success says, fit to be shown."""
    outcome = read_put(answer)
    return str(getattr(outcome, "said", "") or getattr(outcome, "message", ""))


def read_listing(answer: Answer) -> Listing | None:
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


def read_upload_id(answer: Answer) -> str | None:
    """Return the id of a multipart upload that has begun, None where the answer says no such thing."""
    root = _element(answer, "InitiateMultipartUploadResult")
    upload_id = root.get("UploadId") if root else None
    return upload_id if isinstance(upload_id, str) else None


def is_complete(answer: Answer) -> bool:
    """Tell whether a multipart upload was completed: S3 may begin with 200 and then say that it failed."""
    return _element(answer, "CompleteMultipartUploadResult") is not None


def complete_body(etags: Sequence[str]) -> bytes:
    """Return the body of CompleteMultipartUpload for parts 1, 2, … with these ETags."""
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    return xmltodict.unparse({"CompleteMultipartUpload": {"Part": parts}}).encode()


def total_bytes(answer: Answer) -> int | None:
    """Return the size of the whole object that a ranged GET answered a part of (RFC 9110, 14.4)."""
    total = answer.headers.get("content-range", "").rpartition("/")[2]
    return int(total) if total.isascii() and total.isdigit() and len(total) <= MAX_SIZE_DIGITS else None


def _element(answer: Answer, name: str) -> dict[str, Any] | None:
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
