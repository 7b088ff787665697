"""Callers who sign: SDK-HMAC-SHA256 verified against the request as it came over the wire.

It knows what a request says and not what it asks for. The canonical request stands in protocols/aksk_signing.py.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_hex
from typing import NamedTuple

from aiohttp import web

from bridge.domain.callers import AccessKey
from bridge.errors import Unauthenticated
from bridge.protocols import aksk_signing
from bridge.server.auth.identity import AuthResult

# Which body came with which signature: where a signature leaves the body out, it still serves one body only.
#
# It knows neither requests nor keys. It remembers a signature while its date lets it be used, and not longer.


MAX_REMEMBERED = 50_000
"""Of one key, some 12 MB: 28 uploads a second for half an hour, the longest a date counts; then the oldest goes."""


class _Seen(NamedTuple):
    body_sha256: bytes
    until: int


class ReplayCache:
    """The signatures of one key; `now` is microseconds UTC."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def admits(self, signature: str, body_sha256: bytes, *, until: int) -> bool:
        """Tell whether this body may come with this signature, and remember it until `until` (microseconds UTC)."""
        self._forget_old()
        seen = self._seen.setdefault(signature, _Seen(body_sha256, until))
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        return seen.body_sha256 == body_sha256

    def _forget_old(self) -> None:
        # Dates may lie a little ahead, so the first in is not quite the first to end: what is late goes a little later.
        now = self._now()
        while self._seen and next(iter(self._seen.values())).until < now:
            self._seen.popitem(last=False)


# Who has failed so often that nobody looks at the next try: a key from one address, for a while.
#
# It knows neither requests nor how a key is checked. Nobody can lock out a key for another address than the own.


MAX_FAILURES = 5
"""Huawei locks a key after more than five failures."""

LOCKED_US = 5 * 60 * 1_000_000
"""As long as Huawei does; a failure counts as long."""

MAX_PAIRS = 10_000
"""Pairs of key and address that are remembered; beyond that the oldest is forgotten, which only lets it try again."""


@dataclass(slots=True)
class _Failures:
    count: int
    last_at: int


class Lockout:
    """Counts failures; `now` is microseconds UTC."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()

    def is_locked(self, access_key: str, address: str) -> bool:
        """Tell whether this key may not be tried from this address now."""
        found = self._failures.get(_pair(access_key, address))
        return found is not None and found.count > MAX_FAILURES and self._counts(found)

    def failed(self, access_key: str, address: str) -> None:
        """Count a failure; those while locked are not asked about, so that a lock ends."""
        pair = _pair(access_key, address)
        found = self._failures.pop(pair, None)
        count = found.count if found is not None and self._counts(found) else 0
        self._failures[pair] = _Failures(count + 1, self._now())
        if len(self._failures) > MAX_PAIRS:
            self._failures.popitem(last=False)

    def succeeded(self, access_key: str, address: str) -> None:
        """Forget the failures: they were mistakes."""
        self._failures.pop(_pair(access_key, address), None)

    def _counts(self, failures: _Failures) -> bool:
        return self._now() - failures.last_at < LOCKED_US


def _pair(access_key: str, address: str) -> bytes:
    """Return what stands for both, of one size however long the key that somebody made up."""
    return sha256(f"{address}\0{access_key}".encode("utf-8", "surrogateescape")).digest()


FAILED = (
    "Incorrect IAM authentication information: verify aksk signature fail. "
    "Check the access key, the secret key, and that nothing changes the request on its way."
)
LATE = (
    "Incorrect IAM authentication information: verify aksk signature fail, X-Sdk-Date is no time within 15 minutes "
    "of now. Set this machine's clock and sign again."
)
LOCKED = (
    "Incorrect IAM authentication information: AK access failed to reach the limit,forbidden. "
    "Check the secret key, and try again in 5 minutes."
)
ANOTHER_BODY = (
    "Incorrect IAM authentication information: verify aksk signature fail, this signature came with another body "
    "before. Sign each request anew, or sign its body's digest."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Signed:
    """One request whose signature is looked at."""

    request: aksk_signing.RawRequest
    authorization: aksk_signing.Authorization
    address: str

    @property
    def leaves_body_out(self) -> bool:
        return self.request.values(aksk_signing.PAYLOAD_HEADER) == [aksk_signing.UNSIGNED_PAYLOAD]


class SignatureState:
    """What is remembered of signatures whatever becomes of the settings: bodies that came, and who is locked out."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.lockout = Lockout(now)
        self._seen: dict[str, ReplayCache] = {}  # of keys that are, or were, in the settings: few
        self._now = now

    def seen(self, access_key: str) -> ReplayCache:
        """Return what came with the signatures of a key of ours."""
        return self._seen.setdefault(access_key, ReplayCache(self._now))


class SignatureVerifier:
    """Knows the keys that callers sign with; `now` is microseconds UTC."""

    def __init__(
        self, keys: Sequence[AccessKey], *, now: Callable[[], int], memory: SignatureState | None = None
    ) -> None:
        self._keys = {key.access_key: key for key in keys}
        self._memory = memory or SignatureState(now)
        self._lockout = self._memory.lockout
        self._now = now
        self._decoy = token_hex(32)  # a key that nobody has takes as long to refuse as one that somebody has

    def identify(self, request: web.Request) -> AuthResult:
        """Return who signed this; raise Unauthenticated in Huawei's words.

        A signature over the body's digest is verified when the body has been read: see `BodyProof.certain`.
        """
        signed = _signed(request)
        access_key = signed.authorization.access_key
        if self._lockout.is_locked(access_key, signed.address):
            raise Unauthenticated(LOCKED)
        if not aksk_signing.is_timely(signed.request, self._now()):
            raise Unauthenticated(LATE)
        key = self._key(access_key)
        if not request.body_exists or request.content_length == 0:
            self._verify(signed, key, aksk_signing.EMPTY_SHA256)
        elif signed.leaves_body_out or key is None:
            self._verify(signed, key, None)
        if key is None:
            raise Unauthenticated(FAILED)
        proof = _Proof(self, signed, key)
        if not request.body_exists:
            proof.finish()
        return AuthResult(caller=key.caller, body=proof)

    def settle(self, signed: _Signed, key: AccessKey, body: "hashlib._Hash") -> None:
        """Compare a body that has ended with its signature; raise Unauthenticated where they do not belong together."""
        if not signed.leaves_body_out:
            self._verify(signed, key, body.hexdigest())
            return
        date = aksk_signing.signed_at(signed.request) or 0  # it is timely, so it has one
        until = date + aksk_signing.MAX_SKEW_US
        if not self._memory.seen(key.access_key).admits(signed.authorization.signature, body.digest(), until=until):
            raise Unauthenticated(ANOTHER_BODY)

    def _key(self, access_key: str) -> AccessKey | None:
        key = self._keys.get(access_key)
        return key if key is not None and (key.expires_at is None or self._now() < key.expires_at) else None

    def _verify(self, signed: _Signed, key: AccessKey | None, body_sha256: str | None) -> None:
        secret = self._decoy if key is None else key.secret_key
        access_key = signed.authorization.access_key
        matches = aksk_signing.is_signed_with(signed.request, signed.authorization, secret, body_sha256)
        if key is None or not matches:
            self._lockout.failed(access_key, signed.address)
            raise Unauthenticated(FAILED)
        self._lockout.succeeded(access_key, signed.address)


class _Proof:
    """Takes the digest of a body as it comes, and compares it with the signature at the end."""

    def __init__(self, signatures: SignatureVerifier, signed: _Signed, key: AccessKey) -> None:
        self.certain = signed.leaves_body_out
        self._signatures = signatures
        self._signed = signed
        self._key = key
        self._digest = hashlib.sha256()

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body, as it came over the wire."""
        self._digest.update(piece)

    def finish(self) -> None:
        """Take note that the body has ended; raise Unauthenticated where it is not the one that was signed."""
        self._signatures.settle(self._signed, self._key, self._digest)
        self.certain = True


def is_signature(request: web.Request) -> bool:
    """Tell whether a request is signed with an access key, well or badly."""
    return any(value.startswith(aksk_signing.ALGORITHM) for value in request.headers.getall("Authorization", []))


def _signed(request: web.Request) -> _Signed:
    values = request.headers.getall("Authorization")
    authorization = aksk_signing.read_authorization(values[0]) if len(values) == 1 else None
    if authorization is None or not request.raw_path.startswith("/"):
        raise Unauthenticated(FAILED)
    path, _, query = request.raw_path.partition("?")
    headers = tuple((_text(name), _text(value)) for name, value in request.raw_headers)
    raw = aksk_signing.RawRequest(method=request.method, path=path, query=query, headers=headers)
    return _Signed(request=raw, authorization=authorization, address=request.remote or "")


def _text(header: bytes) -> str:
    return header.decode("utf-8", "surrogateescape")
