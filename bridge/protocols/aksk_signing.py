"""SDK-HMAC-SHA256, the signature of requests to Huawei Cloud: signs ours and verifies those of others.

Source: "Signing API requests" (AK/SK) of Huawei's help and the official Python SDK
(`huaweicloudsdkcore.signer.signer`). If they differ, this follows the SDK, including its quirks:

- The path is unquoted as a whole and then split, so `%2F` counts as a slash. It always ends in `/`, even if the real
one does not. Segments and query are quoted again; only `~`, letters, digits and `_.-` stay.
- `+` in a query is a plus, not a blank; `k` alone is `k=`; pairs are sorted unquoted, by name and then by value.
- A body that is not JSON is not hashed: `X-Sdk-Content-Sha256: UNSIGNED-PAYLOAD` replaces its hash. With an empty body,
the SDK sends that header but hashes the empty string.
- A header whose name contains `_` is not signed.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import field
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from bridge.values import dataclass

ALGORITHM = "SDK-HMAC-SHA256"
DATE_HEADER = "X-Sdk-Date"
PAYLOAD_HEADER = "X-Sdk-Content-Sha256"
SECURITY_TOKEN_HEADER = "X-Security-Token"  # noqa: S105  # a header's name
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

MAX_SKEW_US = 15 * 60 * 1_000_000
"""Huawei rejects a signature whose date differs more than this from its own clock."""

MAX_AUTHORIZATION_CHARACTERS = 8 * 1024
"""The SDK signs about ten headers; a list of thousands would make each verification expensive."""

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} +Access=(?P<access>[^,\s]+), *SignedHeaders=(?P<names>[^,\s]+), *"
    r"Signature=(?P<signature>[0-9a-fA-F]{64})"
)
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_DATE_FORMAT = "%Y%m%dT%H%M%SZ"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessKeyPair:
    """An access key and its secret; a temporary one has a security token too."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRequest:
    """A request as received: path and query quoted, header names in any case, in their order."""

    method: str
    path: str  # from the first slash to before the question mark
    query: str = ""  # without the question mark
    headers: Sequence[tuple[str, str]] = ()

    def values(self, name: str) -> list[str]:
        """Return all values of a header, trimmed."""
        return [value.strip() for other, value in self.headers if other.lower() == name.lower()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Authorization:
    """The content of an Authorization header of this algorithm."""

    access_key: str
    signed_headers: tuple[str, ...]  # lower case, in the order in which they were signed
    signature: str


def read_authorization(value: str) -> Authorization | None:
    """Return a parsed Authorization header; None if it is of another algorithm or does not sign its date."""
    if len(value) > MAX_AUTHORIZATION_CHARACTERS or not (found := _AUTHORIZATION.fullmatch(value.strip())):
        return None
    names = tuple(found["names"].lower().split(";"))
    if DATE_HEADER.lower() not in names or len(set(names)) < len(names):
        return None
    return Authorization(access_key=found["access"], signed_headers=names, signature=found["signature"].lower())


def signed_at(request: RawRequest) -> int | None:
    """Return X-Sdk-Date in microseconds UTC, None if it is missing, repeated, or not a date."""
    dates = request.values(DATE_HEADER)
    if len(dates) != 1 or not _DATE.fullmatch(dates[0]):
        return None
    try:
        date = datetime.strptime(dates[0], _DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return (date - _EPOCH) // timedelta(microseconds=1)


def is_timely(request: RawRequest, now: int) -> bool:
    """Return whether a request was signed at most 15 minutes before or after `now` (microseconds UTC)."""
    at = signed_at(request)
    return at is not None and abs(now - at) <= MAX_SKEW_US


def possible_payload_hashes(request: RawRequest, body_sha256: str | None) -> tuple[str, ...]:
    """Return the hashes that the canonical request may end in, given the body's digest in hex.

    `body_sha256` is None if the body has not been read and is not empty. If the result is empty, the signature cannot
    be valid: the body is not the announced one, or must be read first.
    """
    announced = request.values(PAYLOAD_HEADER)
    if not announced:
        return (body_sha256,) if body_sha256 is not None else ()
    if len(announced) > 1:
        return ()
    empty = (EMPTY_SHA256,) if body_sha256 == EMPTY_SHA256 else ()
    if announced[0] == UNSIGNED_PAYLOAD:
        return (UNSIGNED_PAYLOAD, *empty)
    return (announced[0],) if announced[0] == body_sha256 else empty


def is_signed_with(
    request: RawRequest, authorization: Authorization, secret_key: str, body_sha256: str | None = None
) -> bool:
    """Return whether `secret_key` made this signature; `is_timely` checks its age.

    `body_sha256` is the hex digest of the body, None if it has not been read; then only UNSIGNED-PAYLOAD verifies. If a
    signed header is missing or repeated, the signature is never valid, because it is ambiguous.
    """
    headers = _canonical_headers(request, authorization.signed_headers)
    if headers is None or signed_at(request) is None:
        return False
    return any(
        hmac.compare_digest(_signature(request, authorization.signed_headers, headers, digest, secret_key), given)
        for digest in possible_payload_hashes(request, body_sha256)
        for given in [authorization.signature]
    )


def sign(
    request: RawRequest, key: AccessKeyPair, *, at: int, payload_sha256: str = EMPTY_SHA256
) -> tuple[tuple[str, str], ...]:
    """Return the headers that sign `request` at `at` (microseconds UTC), to be sent in addition to its own.

    All headers of `request` are signed, so it must contain only those that arrive unchanged, including Host with its
    port. `payload_sha256` is the body's digest in hex, or UNSIGNED_PAYLOAD; the default is that of an empty body.
    """
    added = [(DATE_HEADER, format_date(at))]
    if payload_sha256 == UNSIGNED_PAYLOAD:
        added.append((PAYLOAD_HEADER, UNSIGNED_PAYLOAD))
    if key.security_token:
        added.append((SECURITY_TOKEN_HEADER, key.security_token))
    whole = RawRequest(
        method=request.method, path=request.path, query=request.query, headers=(*request.headers, *added)
    )
    names = tuple(sorted({name.lower() for name, _ in whole.headers if "_" not in name}))
    headers = _canonical_headers(whole, names)
    if headers is None:
        raise ValueError("A header occurs twice, so it cannot be signed. Sign only headers that occur once.")
    signature = _signature(whole, names, headers, payload_sha256, key.secret_key)
    value = f"{ALGORITHM} Access={key.access_key}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return (*added, ("Authorization", value))


def format_date(at: int) -> str:
    """Return microseconds UTC in the format of X-Sdk-Date, to the second."""
    return (_EPOCH + timedelta(microseconds=at)).strftime(_DATE_FORMAT)


def canonical_path(path: str) -> str:
    """Return a raw path in its canonical form for signing."""
    quoted = "/".join(quote(segment, safe="~") for segment in unquote(path).split("/"))
    return quoted if quoted.endswith("/") else quoted + "/"


def canonical_query(query: str) -> str:
    """Return a raw query in its canonical form for signing."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    unquoted = sorted((unquote(name), unquote(value)) for name, _, value in pairs)
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in unquoted)


def _canonical_headers(request: RawRequest, names: Sequence[str]) -> str | None:
    lines = []
    for name in names:
        values = request.values(name)
        if len(values) != 1:
            return None
        lines.append(f"{name}:{values[0]}\n")
    return "".join(lines)


def _signature(request: RawRequest, names: Sequence[str], headers: str, payload_sha256: str, secret_key: str) -> str:
    canonical = "\n".join(
        (
            request.method.upper(),
            canonical_path(request.path),
            canonical_query(request.query),
            headers,
            ";".join(names),
            payload_sha256,
        )
    )
    digest = hashlib.sha256(_encoded(canonical)).hexdigest()
    text = f"{ALGORITHM}\n{request.values(DATE_HEADER)[0]}\n{digest}"
    return hmac.new(_encoded(secret_key), _encoded(text), hashlib.sha256).hexdigest()


def _encoded(text: str) -> bytes:
    """Return UTF-8; undecodable bytes (PEP 383) become the original bytes."""
    return text.encode("utf-8", "surrogateescape")
