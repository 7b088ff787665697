"""Who is calling: a request in, a known caller out, by whichever scheme the request uses.

It knows neither settings nor what callers may see. What it refuses tells nothing that helps to guess.
"""

from collections.abc import Callable, Sequence

from aiohttp import web

from bridge.domain.callers import OPEN_CALLER, Caller, Credential, find_credential
from bridge.errors import Forbidden, Unauthenticated
from bridge.server.identity import Identity

BEARER = "bearer "


class Callers:
    """Identifies callers by token (`X-Auth-Token`, or a bearer token); takes everybody else too where `open_to_all`.

    `now` is microseconds UTC.
    """

    def __init__(
        self, credentials: Sequence[Credential] = (), *, now: Callable[[], int], open_to_all: bool = False
    ) -> None:
        self._credentials = credentials
        self._now = now
        self._open_to_all = open_to_all

    async def identify(self, request: web.Request) -> Identity:
        """Return whose request this is; raise Unauthenticated in Huawei's own words, Unavailable where nobody can tell.

        Where the request has a body, it counts only when `Identity.body.finish` has accepted it.
        """
        token = presented_token(request)
        found = find_credential(token, self._credentials, now=self._now()) if token else None
        if found is not None and found.holds(self._now()):
            return Identity(caller=found.caller)
        if self._open_to_all:
            return Identity(caller=OPEN_CALLER)
        fault = "invalid" if token else "missing"
        raise Unauthenticated(
            f"Incorrect IAM authentication information: token is {fault}. "
            "Send a token of this bridge in the header X-Auth-Token."
        )


def require(caller: Caller, scope: str) -> None:
    """Raise Forbidden unless `caller` has `scope` (bridge.domain.callers.SCOPES)."""
    if scope not in caller.scopes:
        raise Forbidden(f'The caller "{caller.name}" lacks the scope "{scope}". Use another token, or have it added.')


def presented_token(request: web.Request) -> str:
    """Return the token that a request carries in X-Auth-Token or as a bearer token, empty where it has none."""
    headers = request.headers
    tokens = headers.getall("X-Auth-Token", [])
    if any(tokens):
        return tokens[0] if len(tokens) == 1 else ""  # nobody could say which one was meant
    authorization = headers.get("Authorization", "")
    return authorization[len(BEARER) :].strip() if authorization[: len(BEARER)].lower() == BEARER else ""
