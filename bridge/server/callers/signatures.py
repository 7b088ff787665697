"""Callers who sign: SDK-HMAC-SHA256 verified against the request as it came over the wire.

It knows what a request says and not what it asks for. The canonical request stands in protocols/signing.py.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import token_hex

from aiohttp import web

from bridge.domain.callers import AccessKey
from bridge.errors import Unauthenticated
from bridge.protocols import signing
from bridge.server.callers.identity import Identity
from bridge.server.callers.lockout import Lockout
from bridge.server.callers.seen_signatures import SeenSignatures

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

    request: signing.RawRequest
    authorization: signing.Authorization
    address: str

    @property
    def leaves_body_out(self) -> bool:
        return self.request.values(signing.PAYLOAD_HEADER) == [signing.UNSIGNED_PAYLOAD]


class SignatureMemory:
    """What is remembered of signatures whatever becomes of the settings: bodies that came, and who is locked out."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.lockout = Lockout(now)
        self._seen: dict[str, SeenSignatures] = {}  # of keys that are, or were, in the settings: few
        self._now = now

    def seen(self, access_key: str) -> SeenSignatures:
        """Return what came with the signatures of a key of ours."""
        return self._seen.setdefault(access_key, SeenSignatures(self._now))


class Signatures:
    """Knows the keys that callers sign with; `now` is microseconds UTC."""

    def __init__(
        self, keys: Sequence[AccessKey], *, now: Callable[[], int], memory: SignatureMemory | None = None
    ) -> None:
        self._keys = {key.access_key: key for key in keys}
        self._memory = memory or SignatureMemory(now)
        self._lockout = self._memory.lockout
        self._now = now
        self._decoy = token_hex(32)  # a key that nobody has takes as long to refuse as one that somebody has

    def identify(self, request: web.Request) -> Identity:
        """Return who signed this; raise Unauthenticated in Huawei's words.

        A signature over the body's digest is verified when the body has been read: see `BodyProof.certain`.
        """
        signed = _signed(request)
        access_key = signed.authorization.access_key
        if self._lockout.is_locked(access_key, signed.address):
            raise Unauthenticated(LOCKED)
        if not signing.is_timely(signed.request, self._now()):
            raise Unauthenticated(LATE)
        key = self._key(access_key)
        if not request.body_exists or request.content_length == 0:
            self._verify(signed, key, signing.EMPTY_SHA256)
        elif signed.leaves_body_out or key is None:
            self._verify(signed, key, None)
        if key is None:
            raise Unauthenticated(FAILED)
        proof = _Proof(self, signed, key)
        if not request.body_exists:
            proof.finish()
        return Identity(caller=key.caller, body=proof)

    def settle(self, signed: _Signed, key: AccessKey, body: "hashlib._Hash") -> None:
        """Compare a body that has ended with its signature; raise Unauthenticated where they do not belong together."""
        if not signed.leaves_body_out:
            self._verify(signed, key, body.hexdigest())
            return
        date = signing.signed_at(signed.request) or 0  # it is timely, so it has one
        until = date + signing.MAX_SKEW_US
        if not self._memory.seen(key.access_key).admits(signed.authorization.signature, body.digest(), until=until):
            raise Unauthenticated(ANOTHER_BODY)

    def _key(self, access_key: str) -> AccessKey | None:
        key = self._keys.get(access_key)
        return key if key is not None and (key.not_after is None or self._now() < key.not_after) else None

    def _verify(self, signed: _Signed, key: AccessKey | None, body_sha256: str | None) -> None:
        secret = self._decoy if key is None else key.secret_key
        access_key = signed.authorization.access_key
        matches = signing.is_signed_with(signed.request, signed.authorization, secret, body_sha256)
        if key is None or not matches:
            self._lockout.failed(access_key, signed.address)
            raise Unauthenticated(FAILED)
        self._lockout.succeeded(access_key, signed.address)


class _Proof:
    """Takes the digest of a body as it comes, and compares it with the signature at the end."""

    def __init__(self, signatures: Signatures, signed: _Signed, key: AccessKey) -> None:
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
    return any(value.startswith(signing.ALGORITHM) for value in request.headers.getall("Authorization", []))


def _signed(request: web.Request) -> _Signed:
    values = request.headers.getall("Authorization")
    authorization = signing.read_authorization(values[0]) if len(values) == 1 else None
    if authorization is None or not request.raw_path.startswith("/"):
        raise Unauthenticated(FAILED)
    path, _, query = request.raw_path.partition("?")
    headers = tuple((_text(name), _text(value)) for name, value in request.raw_headers)
    raw = signing.RawRequest(method=request.method, path=path, query=query, headers=headers)
    return _Signed(request=raw, authorization=authorization, address=request.remote or "")


def _text(header: bytes) -> str:
    return header.decode("utf-8", "surrogateescape")
