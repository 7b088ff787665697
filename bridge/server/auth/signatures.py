"""Identify callers by AK/SK signatures (SDK-HMAC-SHA256), verified against the request as received.

`protocols/aksk_signing.py` has the canonical request. This module adds what a server needs: a lockout after failures,
and the check of a body that arrives after the headers. Which body a signature was used for is in the ledger, so that a
captured signature serves no second body after a restart or at another gateway.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from secrets import token_hex

from aiohttp import web

from bridge.domain.callers import AccessKey, Caller
from bridge.domain.instants import SECOND
from bridge.domain.text_format import rfc3339
from bridge.errors import Unauthenticated
from bridge.protocols import aksk_signing
from bridge.store.signature_uses import SignatureUse
from bridge.values import dataclass

MAX_FAILURES = 5
"""Huawei locks a key after more than five failures."""

LOCKOUT_US = 5 * 60 * SECOND
"""As long as at Huawei; a failure counts for as long."""

METHODS_WITHOUT_BODY = ("GET", "HEAD")
"""The SDK leaves the body out of the signatures of these too, but they have none that could be replaced."""

KEPT_US = 2 * aksk_signing.MAX_SKEW_US
"""From the signed date on. A signature is valid for half of it; the ledger's clock may differ from this machine's."""

MAX_PAIRS = 10_000
"""Pairs of key and address with failures; if there are more, the oldest is forgotten, which only permits a retry."""

MAX_USES = 10_000
"""Signatures whose bodies are remembered beside the ledger, so that a repeated one costs no write."""

FAILED = (
    "The signature does not match the request, or its key is unknown (Huawei: verify aksk signature fail). "
    "Check the access key, the secret key, and that nothing changes the request on its way."
)
LATE = (
    "X-Sdk-Date of the signed request is not a time within 15 minutes of now (Huawei: verify aksk signature fail). "
    "Set this machine's clock and sign again."
)
LOCKED = (
    "This key failed too often from this address (Huawei: AK access failed to reach the limit,forbidden). "
    "Check the secret key, and try again in 5 minutes."
)
ANOTHER_BODY = (
    "This signature was used with another body (Huawei: verify aksk signature fail). "
    "Sign each request separately, or sign its body's digest."
)


@dataclass(slots=True)
class _Failures:
    count: int
    last_at: int


class Lockout:
    """Locks a key for one address after repeated failures; other addresses are not affected.

    `steady` returns microseconds of a clock that is never set: a lock lasts no longer if the machine's is set back.
    """

    def __init__(self, steady: Callable[[], int]) -> None:
        self._steady = steady
        self._failures: OrderedDict[bytes, _Failures] = OrderedDict()

    def is_locked(self, access_key: str, address: str) -> bool:
        """Return whether this key may not be used from this address now."""
        failures = self._failures.get(_pair(access_key, address))
        return failures is not None and failures.count > MAX_FAILURES and self._is_recent(failures)

    def count_failure(self, access_key: str, address: str) -> None:
        """Count a failure. Requests of a locked key are not verified and not counted, so that a lock ends."""
        pair = _pair(access_key, address)
        failures = self._failures.pop(pair, None)
        count = failures.count if failures is not None and self._is_recent(failures) else 0
        self._failures[pair] = _Failures(count + 1, self._steady())
        if len(self._failures) > MAX_PAIRS:
            self._failures.popitem(last=False)

    def clear(self, access_key: str, address: str) -> None:
        """Forget the failures after a success."""
        self._failures.pop(_pair(access_key, address), None)

    def _is_recent(self, failures: _Failures) -> bool:
        return self._steady() - failures.last_at < LOCKOUT_US


def _pair(access_key: str, other: str) -> bytes:
    """Return a key of fixed size for both, however long the access key is that a client sent."""
    return sha256(f"{other}\0{access_key}".encode("utf-8", "surrogateescape")).digest()


RecordUse = Callable[[SignatureUse], Awaitable[bytes]]
"""Records the body that a signature is used for, unless it has been used; returns the digest of the recorded body."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _SignedRequest:
    request: aksk_signing.RawRequest
    authorization: aksk_signing.Authorization
    address: str

    @property
    def omits_body(self) -> bool:
        return self.request.values(aksk_signing.PAYLOAD_HEADER) == [aksk_signing.UNSIGNED_PAYLOAD]

    @property
    def announced_digest(self) -> str | None:
        """The digest of the body in hex, as X-Sdk-Content-Sha256 has it; None if it has none, or several."""
        values = self.request.values(aksk_signing.PAYLOAD_HEADER)
        return values[0] if len(values) == 1 and not self.omits_body else None


class SignatureVerifier:
    """Verifies signatures with the configured keys. `now` returns microseconds UTC; `lockout` survives a reload."""

    def __init__(
        self, keys: Sequence[AccessKey], *, now: Callable[[], int], lockout: Lockout, record_use: RecordUse
    ) -> None:
        self._keys = {key.access_key: key for key in keys}
        self._lockout = lockout
        self._record_use = record_use
        self._uses: OrderedDict[bytes, bytes] = OrderedDict()  # digests of bodies by signature, as in the ledger
        self._now = now
        self._decoy = token_hex(32)  # rejecting an unknown key takes as long as rejecting a known one

    async def identify(self, request: web.Request) -> tuple[Caller, "SignedBody"]:
        """Return who signed a request, and the check of its body; raise Unauthenticated with Huawei's wording.

        A signature over the body's digest is verified at once if the headers announce that digest, and else after the
        body was read: see `SignedBody`.
        """
        signed = _read_signed(request)
        access_key = signed.authorization.access_key
        if self._lockout.is_locked(access_key, signed.address):
            raise Unauthenticated(LOCKED)
        if not aksk_signing.is_timely(signed.request, self._now()):
            raise Unauthenticated(LATE)
        key = self._keys.get(access_key)
        if not request.body_exists or request.content_length == 0:
            self._verify(signed, key, aksk_signing.EMPTY_SHA256)
        elif signed.omits_body or key is None:
            self._verify(signed, key, None)
        elif signed.announced_digest is not None:
            self._verify(signed, key, signed.announced_digest)
        if key is None:
            raise Unauthenticated(FAILED)
        body = SignedBody(self, signed, key)
        if not request.body_exists:
            await body.finish()
        return key.caller, body

    async def verify_signed_body(self, signed: _SignedRequest, key: AccessKey, body: "hashlib._Hash") -> None:
        """Raise Unauthenticated if a complete body does not belong to its signature, Unavailable if that is not known.

        A signature that leaves the body out is accepted for one body only, as long as its date is valid.
        """
        if not signed.omits_body:
            self._verify(signed, key, body.hexdigest())
        elif signed.request.method not in METHODS_WITHOUT_BODY:
            date = aksk_signing.signed_at(signed.request) or 0  # it is timely, so it has a date
            use = SignatureUse(
                signature_key=_pair(key.access_key, signed.authorization.signature),
                body_sha256=body.digest(),
                kept_until=date + KEPT_US,
            )
            if await self._body_of(use) != use.body_sha256:
                raise Unauthenticated(ANOTHER_BODY)

    async def _body_of(self, use: SignatureUse) -> bytes:
        """Return the digest of the only body that a signature may be used for; that is the first one."""
        recorded = self._uses.get(use.signature_key)
        if recorded is None:
            recorded = self._uses[use.signature_key] = await self._record_use(use)
            if len(self._uses) > MAX_USES:
                self._uses.popitem(last=False)
        return recorded

    def _verify(self, signed: _SignedRequest, key: AccessKey | None, body_sha256: str | None) -> None:
        secret = self._decoy if key is None else key.secret_key
        access_key = signed.authorization.access_key
        matches = aksk_signing.is_signed_with(signed.request, signed.authorization, secret, body_sha256)
        if key is None or not matches:
            self._lockout.count_failure(access_key, signed.address)
            raise Unauthenticated(FAILED)
        self._lockout.clear(access_key, signed.address)
        if key.expires_at is not None and key.expires_at <= self._now():
            raise expired("key", key.caller, key.expires_at)


def expired(what: str, caller: Caller, at: int | None) -> Unauthenticated:
    """Return the error for a token or key that was proven and has expired; `at` is in microseconds UTC."""
    day = "" if at is None else f" on {rfc3339(at)[:10]}"
    return Unauthenticated(
        f'The {what} of the caller "{caller.name}" expired{day}. '
        f"Use its current {what}, or let an operator set a later expires_at.",
        reason=f"expired_{what}",
    )


class SignedBody:
    """Computes the digest of a body while it arrives, and checks it against the signature at the end.

    `certain` is whether the caller is verified. Until then, nothing may be recorded or answered for it.
    `signature_verified` is whether the headers alone have proven that the owner of the key made the signature. Until
    then, nothing may be done with the body but to receive it within bounds.
    """

    def __init__(self, verifier: SignatureVerifier, signed: _SignedRequest, key: AccessKey) -> None:
        self.certain = signed.omits_body
        self.signature_verified = signed.omits_body or signed.announced_digest is not None
        self.on_certain: Callable[[], None] = lambda: None  # called when `certain` becomes true
        self._verifier = verifier
        self._signed = signed
        self._key = key
        self._digest = hashlib.sha256()

    def feed(self, piece: bytes) -> None:
        """Add the next piece of the body, as received."""
        self._digest.update(piece)

    async def finish(self) -> None:
        """Check the complete body; raise Unauthenticated if it is not the one that was signed."""
        await self._verifier.verify_signed_body(self._signed, self._key, self._digest)
        self.certain = self.signature_verified = True
        self.on_certain()


def is_signature(request: web.Request) -> bool:
    """Return whether a request carries an AK/SK signature, valid or not."""
    return any(value.startswith(aksk_signing.ALGORITHM) for value in request.headers.getall("Authorization", []))


def _read_signed(request: web.Request) -> _SignedRequest:
    values = request.headers.getall("Authorization")
    authorization = aksk_signing.read_authorization(values[0]) if len(values) == 1 else None
    if authorization is None or not request.raw_path.startswith("/"):
        raise Unauthenticated(FAILED)
    path, _, query = request.raw_path.partition("?")
    headers = tuple((_text(name), _text(value)) for name, value in request.raw_headers)
    raw = aksk_signing.RawRequest(method=request.method, path=path, query=query, headers=headers)
    return _SignedRequest(request=raw, authorization=authorization, address=request.remote or "")


def _text(header: bytes) -> str:
    return header.decode("utf-8", "surrogateescape")
