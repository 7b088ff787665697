"""SDK-HMAC-SHA256, the signature of requests to Huawei Cloud, for signing ours and for verifying others'.

It knows raw requests and keys as values, but no clock, no sockets, and not who may hold which key. It follows "Signing
API requests" (AK/SK) of Huawei's help as the official Python SDK (`huaweicloudsdkcore.signer.signer`) does it, and
where the two leave room, the SDK decides. Its quirks, each kept on purpose:

- The path is unquoted as a whole and then divided, so `%2F` counts as a slash; it always ends in `/`, though the real
  one does not. Segments and query are quoted anew, with `~` as the only safe sign beside letters, digits and `_.-`.
- `+` in a query is a plus, not a blank; `k` alone is `k=`; pairs are sorted unquoted, by name and then by value.
- A body that is not JSON is not hashed: `X-Sdk-Content-Sha256: UNSIGNED-PAYLOAD` stands for it. With an empty body the
  SDK sends that header all the same, and yet hashes the empty string.
- A header whose name holds `_` is not signed.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

ALGORITHM = "SDK-HMAC-SHA256"
DATE_HEADER = "X-Sdk-Date"
PAYLOAD_HEADER = "X-Sdk-Content-Sha256"
SECURITY_TOKEN_HEADER = "X-Security-Token"  # noqa: S105  # a header's name
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

MAX_SKEW_US = 15 * 60 * 1_000_000
"""Huawei refuses a signature whose date is further than this from its own clock, on either side."""

MAX_AUTHORIZATION_CHARACTERS = 8 * 1024
"""The SDK names about ten headers; whoever names thousands wants them joined for every guess."""

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} +Access=(?P<access>[^,\s]+), *SignedHeaders=(?P<names>[^,\s]+), *"
    r"Signature=(?P<signature>[0-9a-fA-F]{64})"
)
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_DATE_FORMAT = "%Y%m%dT%H%M%SZ"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessKeyPair:
    """An access key; a temporary one comes with a security token."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRequest:
    """A request as it stands on the wire: path and query still quoted, header names in any case, in their order."""

    method: str
    path: str  # from the first slash to before the question mark
    query: str = ""  # without the question mark
    headers: Sequence[tuple[str, str]] = ()

    def values(self, name: str) -> list[str]:
        """Return every value of a header, trimmed."""
        return [value.strip() for other, value in self.headers if other.lower() == name.lower()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Authorization:
    """What an Authorization header of this algorithm says."""

    access_key: str
    signed_headers: tuple[str, ...]  # lower case, in the order in which they were signed
    signature: str


def read_authorization(value: str) -> Authorization | None:
    """Read an Authorization header; None when it is not one of this algorithm, or does not sign its date."""
    if len(value) > MAX_AUTHORIZATION_CHARACTERS or not (found := _AUTHORIZATION.fullmatch(value.strip())):
        return None
    names = tuple(found["names"].lower().split(";"))
    if DATE_HEADER.lower() not in names or len(set(names)) < len(names):
        return None
    return Authorization(access_key=found["access"], signed_headers=names, signature=found["signature"].lower())


def signed_at(request: RawRequest) -> int | None:
    """Return X-Sdk-Date in microseconds UTC, None when it is missing, repeated, or no date."""
    dates = request.values(DATE_HEADER)
    if len(dates) != 1 or not _DATE.fullmatch(dates[0]):
        return None
    try:
        date = datetime.strptime(dates[0], _DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
    return (date - _EPOCH) // timedelta(microseconds=1)


def is_timely(request: RawRequest, now: int) -> bool:
    """Tell whether a request was signed at most 15 minutes from `now` (microseconds UTC), before or after."""
    at = signed_at(request)
    return at is not None and abs(now - at) <= MAX_SKEW_US


def payload_hashes(request: RawRequest, body_sha256: str | None) -> tuple[str, ...]:
    """Return what the canonical request may end in, given the body's own digest in hex.

    None for a body that has not been read yet and is not empty. No entry means that the signature cannot hold: the
    body is not the one that was announced, or it must be read first.
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
    """Tell whether `secret_key` made this signature; how old it is must be asked of `is_timely`.

    `body_sha256` is the hex digest of the body, None while it has not been read: then only UNSIGNED-PAYLOAD verifies.
    A signed header that is missing or stands there twice verifies never: nobody could say which one was meant.
    """
    headers = _canonical_headers(request, authorization.signed_headers)
    if headers is None or signed_at(request) is None:
        return False
    return any(
        hmac.compare_digest(_signature(request, authorization.signed_headers, headers, digest, secret_key), given)
        for digest in payload_hashes(request, body_sha256)
        for given in [authorization.signature]
    )


def sign(
    request: RawRequest, key: AccessKeyPair, *, at: int, payload_sha256: str = EMPTY_SHA256
) -> tuple[tuple[str, str], ...]:
    """Return the headers that sign `request` at `at` (microseconds UTC), to be sent besides its own.

    All headers of `request` are signed, so name only those that arrive as they leave, Host (with its port) among them.
    `payload_sha256` is the body's digest in hex, or UNSIGNED_PAYLOAD; for an empty body it stays as it is.
    """
    added = [(DATE_HEADER, written_date(at))]
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
        raise ValueError("A header stands there twice, so it cannot be signed. Sign only headers that stand once.")
    signature = _signature(whole, names, headers, payload_sha256, key.secret_key)
    value = f"{ALGORITHM} Access={key.access_key}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return (*added, ("Authorization", value))


def written_date(at: int) -> str:
    """Return microseconds UTC as X-Sdk-Date has them, to the second."""
    return (_EPOCH + timedelta(microseconds=at)).strftime(_DATE_FORMAT)


def canonical_path(path: str) -> str:
    """Return a raw path as it is signed."""
    quoted = "/".join(quote(segment, safe="~") for segment in unquote(path).split("/"))
    return quoted if quoted.endswith("/") else quoted + "/"


def canonical_query(query: str) -> str:
    """Return a raw query as it is signed."""
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
    """Return UTF-8; what a server could not decode (PEP 383) becomes the bytes that came."""
    return text.encode("utf-8", "surrogateescape")
