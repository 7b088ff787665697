"""Identify the caller of a request by the scheme that it uses. A rejection reveals nothing that helps to guess."""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial

from aiohttp import web

from bridge.domain.callers import OPEN_CALLER, AuthScheme, Caller, Credential, find_credential, hash_token
from bridge.domain.instants import Instant
from bridge.errors import Forbidden, Unauthenticated, Unavailable
from bridge.server.auth.iam_tokens import IamTokens
from bridge.server.auth.signatures import SignatureVerifier, SignedBody, expired, is_signature
from bridge.server.http.protocol import mark_verified
from bridge.server.http.requests import network_of
from bridge.values import dataclass

TOKEN_HEADER = "X-Auth-Token"  # noqa: S105 -- a header's name
BEARER = "bearer "

MISSING = (
    "The request has no token (Huawei: x-auth-token not found). "
    "Send a token of this bridge in the header X-Auth-Token or Authorization."
)
SEVERAL = (
    "The request has several tokens (Huawei: decrypt token fail). "
    "Send one token of this bridge in the header X-Auth-Token or Authorization."
)
INVALID = (
    "No caller of this bridge has this token (Huawei: decrypt token fail). Check the variable that holds the token."
)
UNEXPANDED = (
    "The token is a variable that was not expanded (Huawei: decrypt token fail). "
    "Define it for the build task, or correct the quoting in the shell."
)
UNPROVEN = "This request must be sent without a body if it is signed. Send no body, or use a token."

_VARIABLE = re.compile(r"\$\{\w+\}|\$\w+|%\w+%", re.ASCII)


class UnsignedBody:
    """The body of a caller that does not sign: any body is accepted."""

    certain = True
    signature_verified = True

    def feed(self, piece: bytes) -> None:
        """Accept any piece."""

    async def finish(self) -> None:
        """Accept any body."""


UNSIGNED_BODY = UnsignedBody()


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthResult:
    """A caller, and the check that its body must pass before anything of it counts."""

    caller: Caller
    body: SignedBody | UnsignedBody = UNSIGNED_BODY

    def feed_body(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Return the pieces of the body, each fed to the check; call `body.finish` after the last one."""
        return pieces if self.body is UNSIGNED_BODY else self._fed(pieces)

    async def _fed(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self.body.feed(piece)
            yield piece


class Authenticator:
    """Identifies callers by the bridge's tokens, IAM's tokens and signatures, as far as these are configured.

    With `open_to_all` every other caller is accepted too, but a wrong signature is always rejected. `now` returns
    microseconds UTC. `own` are hashes of further secrets of the bridge: not accepted here, and never forwarded.
    """

    def __init__(
        self,
        credentials: Sequence[Credential] = (),
        *,
        now: Callable[[], Instant],
        iam: IamTokens | None = None,
        signatures: SignatureVerifier | None = None,
        open_to_all: bool = False,
        own: Iterable[str] = (),
    ) -> None:
        self._credentials = credentials
        self._own = frozenset(own) | {credential.hash for credential in credentials}
        self._iam = iam
        self._signatures = signatures
        self._now = now
        self._open_to_all = open_to_all

    async def identify(self, request: web.Request) -> AuthResult:
        """Return who sent this request.

        Read its body through `AuthResult.feed_body`, and use it only after `body.finish`. Until `body.certain`, nothing
        may be recorded or answered for the caller, and until `body.signature_verified`, its body may only be received.
        Use `identify_caller` if the body is not read.

        Raises Unauthenticated, which quotes Huawei's wording, or Unavailable if IAM does not answer. That a token has
        expired is shown only to a client that has it.
        """
        if self._signatures is not None and TOKEN_HEADER not in request.headers and is_signature(request):
            caller, body = await self._signatures.identify(request)
            if body.signature_verified:
                mark_verified(request, caller.name)
            else:
                body.on_certain = partial(mark_verified, request, caller.name)
            return AuthResult(caller=caller, body=body)
        try:
            caller = await self._identify_by_token(request)
        except (Unauthenticated, Unavailable):
            if not self._open_to_all:
                raise
            caller = OPEN_CALLER
        mark_verified(request, party_of(caller, request.remote))
        return AuthResult(caller=caller)

    async def identify_caller(self, request: web.Request) -> Caller:
        """Return who sent a request whose body is not read; raise as `identify`, also if the body would be needed."""
        identity = await self.identify(request)
        if not identity.body.certain:
            raise Unauthenticated(UNPROVEN)
        return identity.caller

    async def _identify_by_token(self, request: web.Request) -> Caller:
        token = presented_token(request)
        if not token:
            several = any(request.headers.getall(TOKEN_HEADER, []))
            raise Unauthenticated(SEVERAL if several else MISSING, reason="" if several else "no_token")
        found = find_credential(token, self._credentials, now=self._now())
        if found is not None:
            if found.is_valid(self._now()):
                return found.caller
            raise expired("token", found.caller, found.expires_at)  # IAM must not receive it
        if self._iam is not None and TOKEN_HEADER in request.headers and not self.is_token_of_bridge(token):
            return await self._iam.identify(
                token, origin=network_of(request.remote), is_gone=lambda: request.transport is None
            )
        raise Unauthenticated(UNEXPANDED if _VARIABLE.fullmatch(token) else INVALID, reason="unknown_token")

    def is_token_of_bridge(self, token: str) -> bool:
        """Return whether this is a secret of the bridge, even an expired one; such secrets are never forwarded."""
        return hash_token(token) in self._own


def party_of(caller: Caller, address: str | None) -> str:
    """Return what counts as one caller in limits: its name, or where it comes from if the bridge is open."""
    return network_of(address) if caller.scheme is AuthScheme.OPEN else caller.name


def require(caller: Caller, scope: str) -> None:
    """Raise Forbidden unless `caller` has `scope` (`bridge.domain.callers.SCOPES`)."""
    if scope not in caller.scopes:
        raise Forbidden(
            f'The caller "{caller.name}" lacks the scope "{scope}". Use another token, or let an operator add it.'
        )


def presented_token(request: web.Request) -> str:
    """Return the token of a request, from X-Auth-Token or Authorization; empty if it has none."""
    headers = request.headers
    tokens = headers.getall(TOKEN_HEADER, [])
    if any(tokens):
        return tokens[0] if len(tokens) == 1 else ""  # of several, it is unclear which one is meant
    return bearer_token(request)


def bearer_token(request: web.Request) -> str:
    """Return the bearer token in Authorization; empty if there is none."""
    authorization = request.headers.get("Authorization", "")
    return authorization[len(BEARER) :].strip() if authorization[: len(BEARER)].lower() == BEARER else ""
