"""Presigned URLs of S3 (Signature Version 4 in the query): made and checked with botocore's own signer.

It must not know HTTP servers or the clock. As TestNod makes them: only `host` is signed, metadata stands in the query.
Page: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

from botocore.auth import S3SigV4QueryAuth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

ALGORITHM = "AWS4-HMAC-SHA256"
TIMESTAMP = "%Y%m%dT%H%M%SZ"
LONGEST_SECONDS = 604_800  # a week: S3 refuses longer presigned URLs
SKEW_SECONDS = 900  # S3 takes a signature from up to this far in the future
_SECONDS = re.compile(r"[0-9]{1,9}")
_PARAMETERS = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """What a storage account signs with."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str


@dataclass(frozen=True, kw_only=True, slots=True)
class S3ErrorResponse:
    """Why S3 refuses: HTTP status, code, message, and what else stands in its XML."""

    status: int
    code: str
    message: str
    extra: Mapping[str, str] = field(default_factory=dict)


def presign(keys: Keys, url: str, *, metadata: Mapping[str, str], at: int, expires_seconds: int) -> str:
    """Return `url` with a PUT's signature of `at` (microseconds) in its query, good for `expires_seconds`."""
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
    """Return why S3 refuses a PUT to `target` at `at` (microseconds), None when it does not.

    `target` is path and query as they came, `headers` are looked up without regard to case, as aiohttp's are.
    S3 itself would read the query before it compares; here a URL that was rewritten on its way (%2F as /) is refused,
    so that a client that rewrites what it was given shows.
    """
    given = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
    read = {name: given.get(f"X-Amz-{name}", "") for name in _PARAMETERS}
    return (
        _malformed(keys, read)
        or _out_of_time(read, at)
        or _unsigned_headers(read, headers)
        or _forged(keys, target, headers, read)
    )


def _malformed(keys: Keys, read: Mapping[str, str]) -> S3ErrorResponse | None:
    if not any(read.values()):
        return S3ErrorResponse(status=403, code="AccessDenied", message="Access Denied")
    if not all(read.values()) or read["Algorithm"] != ALGORITHM:
        return _bad_query(
            f"Query-string authentication version 4 requires {', '.join(f'X-Amz-{p}' for p in _PARAMETERS)}."
        )
    if not _SECONDS.fullmatch(read["Expires"]) or int(read["Expires"]) > LONGEST_SECONDS:
        return _bad_query(f"X-Amz-Expires must be a number of seconds, at most {LONGEST_SECONDS}")
    try:
        datetime.strptime(read["Date"], TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        return _bad_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    return _foreign(keys, read)


def _foreign(keys: Keys, read: Mapping[str, str]) -> S3ErrorResponse | None:
    access_key, _, scope = read["Credential"].partition("/")
    if access_key != keys.access_key:
        message = "The AWS Access Key Id you provided does not exist in our records."
        return S3ErrorResponse(status=403, code="InvalidAccessKeyId", message=message)
    if scope != f"{read['Date'][:8]}/{keys.region}/s3/aws4_request":
        return _bad_query(f"Error parsing the X-Amz-Credential parameter; the region or date is wrong in {scope!r}.")
    return None


def _bad_query(message: str) -> S3ErrorResponse:
    return S3ErrorResponse(status=400, code="AuthorizationQueryParametersError", message=message)


def _out_of_time(read: Mapping[str, str], at: int) -> S3ErrorResponse | None:
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


def _forged(keys: Keys, target: str, headers: Mapping[str, str], read: Mapping[str, str]) -> S3ErrorResponse | None:
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
    # add_auth() would take the signer's own clock; these are the three steps it takes afterwards.
    auth = S3SigV4QueryAuth(Credentials(keys.access_key, keys.secret_key), "s3", keys.region)
    request = AWSRequest(method="PUT", url=url, headers=dict(signed))
    request.context["timestamp"] = timestamp
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
