"""Who is calling: the headers of a request in, a known caller out.

It knows neither settings nor what callers may see. What it refuses tells nothing that helps to guess.
"""

from collections.abc import Iterable

from aiohttp import web

from bridge.domain.callers import OPEN_CALLER, Caller, Credential, find_caller
from bridge.errors import Forbidden, Unauthenticated

BEARER = "bearer "


class Callers:
    """Identifies callers by token (`X-Auth-Token`, or a bearer token); takes everybody else too where `open_to_all`."""

    def __init__(self, credentials: Iterable[Credential] = (), *, open_to_all: bool = False) -> None:
        self._credentials = tuple(credentials)
        self._open_to_all = open_to_all

    def identify(self, request: web.Request, now_us: int) -> Caller:
        """Return whose request this is at `now_us` (microseconds UTC); raise Unauthenticated in Huawei's own words."""
        token = _token(request)
        if token and self._credentials:
            caller = find_caller(token, self._credentials, now=now_us)
            if caller is not None:
                return caller
        if self._open_to_all:
            return OPEN_CALLER
        fault = "invalid" if token else "missing"
        raise Unauthenticated(
            f"Incorrect IAM authentication information: token is {fault}. "
            "Send a token of this bridge in the header X-Auth-Token."
        )


def require(caller: Caller, scope: str) -> None:
    """Raise Forbidden unless `caller` has `scope` (bridge.domain.callers.SCOPES)."""
    if scope not in caller.scopes:
        raise Forbidden(f'The caller "{caller.name}" lacks the scope "{scope}". Use another token, or have it added.')


def _token(request: web.Request) -> str:
    headers = request.headers
    token = headers.get("X-Auth-Token", "")
    if token:
        return token
    authorization = headers.get("Authorization", "")
    return authorization[len(BEARER) :].strip() if authorization[: len(BEARER)].lower() == BEARER else ""
