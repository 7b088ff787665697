"""Presigned URLs of S3 (signature version 4 in the query), created and verified with botocore's signer.

As with TestNod, only `host` is signed, and metadata is in the query. Source:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

from botocore.auth import S3SigV4QueryAuth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from bridge.values import dataclass

ALGORITHM = "AWS4-HMAC-SHA256"
TIMESTAMP = "%Y%m%dT%H%M%SZ"
MAX_EXPIRES_SECONDS = 604_800  # a week; S3 rejects longer ones
SKEW_SECONDS = 900  # S3 accepts signatures up to this far in the future
_SECONDS = re.compile(r"[0-9]{1,9}")
_PARAMETERS = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """The keys of a storage account."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str


@dataclass(frozen=True, kw_only=True, slots=True)
class S3ErrorResponse:
    """An error of S3: HTTP status, code, message, and further XML elements."""

    status: int
    code: str
    message: str
    extra: Mapping[str, str] = field(default_factory=dict)


def presign(keys: Keys, url: str, *, metadata: Mapping[str, str], at: int, expires_seconds: int) -> str:
    """Return `url` with a signature for a PUT at `at` (microseconds) in its query, valid for `expires_seconds`."""
    timestamp = datetime.fromtimestamp(at // 1_000_000, UTC).strftime(TIMESTAMP)
    parameters = {f"x-amz-meta-{name}": value for name, value in metadata.items()} | {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key}/{timestamp[:8]}/{keys.region}/s3/aws4_request",
        "X-Amz-Date": timestamp,
        "X-Amz-Expires": str(expires_seconds),
        "X-Amz-SignedHeaders": "host",
    }
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in parameters.items())
    unsigned = f"{url}?{query}"
    signature = _signature(keys, unsigned, {"host": urlsplit(url).netloc}, timestamp)
    return f"{unsigned}&X-Amz-Signature={signature}"


def check(keys: Keys, target: str, headers: Mapping[str, str], *, at: int) -> S3ErrorResponse | None:
    """Return why S3 rejects a PUT to `target` at `at` (microseconds), None if it does not.

    `target` is path and query as received; `headers` must be case-insensitive. S3 itself normalizes the query before it
    compares; here a URL that a client rewrote (%2F as /) is rejected, so that such clients are found.
    """
    given = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
    read = {name: given.get(f"X-Amz-{name}", "") for name in _PARAMETERS}
    return (
        _malformed(keys, read)
        or _outside_validity(read, at)
        or _unsigned_headers(read, headers)
        or _wrong_signature(keys, target, headers, read)
    )


def _malformed(keys: Keys, read: Mapping[str, str]) -> S3ErrorResponse | None:
    if not any(read.values()):
        return S3ErrorResponse(status=403, code="AccessDenied", message="Access Denied")
    if not all(read.values()) or read["Algorithm"] != ALGORITHM:
        return _bad_query(
            f"Query-string authentication version 4 requires {', '.join(f'X-Amz-{p}' for p in _PARAMETERS)}."
        )
    if not _SECONDS.fullmatch(read["Expires"]) or int(read["Expires"]) > MAX_EXPIRES_SECONDS:
        return _bad_query(f"X-Amz-Expires must be a number of seconds, at most {MAX_EXPIRES_SECONDS}")
    try:
        datetime.strptime(read["Date"], TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        return _bad_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    return _wrong_credential(keys, read)


def _wrong_credential(keys: Keys, read: Mapping[str, str]) -> S3ErrorResponse | None:
    access_key, _, scope = read["Credential"].partition("/")
    if access_key != keys.access_key:
        message = "The AWS Access Key Id you provided does not exist in our records."
        return S3ErrorResponse(status=403, code="InvalidAccessKeyId", message=message)
    if scope != f"{read['Date'][:8]}/{keys.region}/s3/aws4_request":
        return _bad_query(f"Error parsing the X-Amz-Credential parameter; the region or date is wrong in {scope!r}.")
    return None


def _bad_query(message: str) -> S3ErrorResponse:
    return S3ErrorResponse(status=400, code="AuthorizationQueryParametersError", message=message)


def _outside_validity(read: Mapping[str, str], at: int) -> S3ErrorResponse | None:
    signed = datetime.strptime(read["Date"], TIMESTAMP).replace(tzinfo=UTC).timestamp()
    expires, now = signed + int(read["Expires"]), at / 1_000_000
    if now <= expires and signed - now <= SKEW_SECONDS:
        return None
    message = "Request has expired" if now > expires else "Request is not valid yet"
    extra = {"X-Amz-Expires": read["Expires"], "Expires": _iso(expires), "ServerTime": _iso(now)}
    return S3ErrorResponse(status=403, code="AccessDenied", message=message, extra=extra)


def _unsigned_headers(read: Mapping[str, str], headers: Mapping[str, str]) -> S3ErrorResponse | None:
    signed = read["SignedHeaders"].split(";")
    unsigned = sorted(
        name.lower() for name in headers if name.lower().startswith("x-amz-") and name.lower() not in signed
    )
    if not unsigned and "host" in signed:
        return None
    message = "There were headers present in the request which were not signed"
    return S3ErrorResponse(
        status=403, code="AccessDenied", message=message, extra={"HeadersNotSigned": ", ".join(unsigned or ["host"])}
    )


def _wrong_signature(
    keys: Keys, target: str, headers: Mapping[str, str], read: Mapping[str, str]
) -> S3ErrorResponse | None:
    path, _, query = target.partition("?")
    kept = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-Signature="))
    signed = {name: headers.get(name, "") for name in read["SignedHeaders"].split(";")}
    url = f"http://{signed['host']}{path}?{kept}"
    if hmac.compare_digest(_signature(keys, url, signed, read["Date"]).encode(), read["Signature"].encode()):
        return None
    message = (
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method."
    )
    return S3ErrorResponse(status=403, code="SignatureDoesNotMatch", message=message)


def _signature(keys: Keys, url: str, signed: Mapping[str, str], timestamp: str) -> str:
    # add_auth() would use the current time, so these are the steps that it takes afterwards.
    auth = S3SigV4QueryAuth(Credentials(keys.access_key, keys.secret_key), "s3", keys.region)
    request = AWSRequest(method="PUT", url=url, headers=dict(signed))
    request.context["timestamp"] = timestamp
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
