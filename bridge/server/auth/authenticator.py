"""Who is calling: a request in, a known caller out, by whichever scheme the request uses.

It knows neither settings nor what callers may see. What it refuses tells nothing that helps to guess.
"""

from collections.abc import Callable, Iterable, Sequence

from aiohttp import web

from bridge.domain.callers import OPEN_CALLER, Caller, Credential, find_credential, hash_token
from bridge.domain.instants import Instant
from bridge.errors import Forbidden, Unauthenticated, Unavailable
from bridge.server.auth.iam_tokens import IamTokens
from bridge.server.auth.identity import AuthResult
from bridge.server.auth.signatures import SignatureVerifier, is_signature

TOKEN_HEADER = "X-Auth-Token"  # noqa: S105 -- a header's name
BEARER = "bearer "

MISSING = (
    "Incorrect IAM authentication information: x-auth-token not found. "
    "Send a token of this bridge in the header X-Auth-Token."
)
INVALID = (
    "Incorrect IAM authentication information: decrypt token fail. "
    "Send a token of this bridge in the header X-Auth-Token."
)


class Authenticator:
    """Identifies callers by their tokens, by IAM's and by signatures, as far as these are given.

    Everybody else is taken too where `open_to_all`; only signatures must always be right. `now` is microseconds UTC.
    `own` are hashes of the bridge's secrets that let nobody in here: they open other doors, or stand in the settings.
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
        """Return whose request this is; raise Unauthenticated in Huawei's own words, Unavailable where nobody can tell.

        The body of the request must be heard by the identity, and counts only when `body.finish` has taken it. Until
        the identity is `body.certain`, nothing may be told or done: whoever leaves the body alone asks `caller_of`.
        """
        if self._signatures is not None and TOKEN_HEADER not in request.headers and is_signature(request):
            return self._signatures.identify(request)
        try:
            return AuthResult(caller=await self._by_token(request))
        except (Unauthenticated, Unavailable):
            if self._open_to_all:
                return AuthResult(caller=OPEN_CALLER)
            raise

    async def caller_of(self, request: web.Request) -> Caller:
        """Return whose request this is where its body does not matter; raise likewise, also where the body would."""
        identity = await self.identify(request)
        if not identity.body.certain:
            raise Unauthenticated(INVALID)
        return identity.caller

    async def _by_token(self, request: web.Request) -> Caller:
        token = presented_token(request)
        if not token:
            raise Unauthenticated(MISSING)
        found = find_credential(token, self._credentials, now=self._now())
        if found is not None:
            if found.is_valid(self._now()):
                return found.caller
            raise Unauthenticated(INVALID)  # one of ours that ended: IAM must not see it
        if self._iam is not None and TOKEN_HEADER in request.headers and not self.is_token_of_bridge(token):
            return await self._iam.identify(token)
        raise Unauthenticated(INVALID)

    def is_token_of_bridge(self, token: str) -> bool:
        """Tell whether this is a secret of the bridge's own, be it one that has ended: none of them is for others."""
        return hash_token(token) in self._own


def require(caller: Caller, scope: str) -> None:
    """Raise Forbidden unless `caller` has `scope` (bridge.domain.callers.SCOPES)."""
    if scope not in caller.scopes:
        raise Forbidden(f'The caller "{caller.name}" lacks the scope "{scope}". Use another token, or have it added.')


def presented_token(request: web.Request) -> str:
    """Return the token that a request carries in X-Auth-Token or as a bearer token, empty where it has none."""
    headers = request.headers
    tokens = headers.getall(TOKEN_HEADER, [])
    if any(tokens):
        return tokens[0] if len(tokens) == 1 else ""  # nobody could say which one was meant
    authorization = headers.get("Authorization", "")
    return authorization[len(BEARER) :].strip() if authorization[: len(BEARER)].lower() == BEARER else ""
