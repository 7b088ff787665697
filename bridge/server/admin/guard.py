"""Who may use the admin listener: whoever holds its token, or, where it has none, programs of this machine.

It knows no handler. A page from elsewhere that a browser on this machine has open is nobody (DNS rebinding).
"""

from collections.abc import Callable, Sequence
from ipaddress import ip_address

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from bridge.clock import Clock
from bridge.domain.callers import Caller, Credential, Scheme, hash_token
from bridge.errors import Forbidden
from bridge.server.callers.callers import Callers
from bridge.server.http.answers import shown

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Health checks come from anywhere, under any name, and carry no token."""

_OPERATOR = Caller(scheme=Scheme.TOKEN, name="operator", routes=None, scopes=frozenset({"status"}))


def admin_guard(tokens: Callable[[], Sequence[str]], host: str, clock: Clock) -> Middleware:
    """Return the middleware that lets operators in; `host` is what `admin.host` says.

    It raises Unauthenticated without one of `tokens` of now, or Forbidden where there are none and the Host header is
    neither loopback nor `host`.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS:
            credentials = [Credential(hash=hash_token(token), caller=_OPERATOR) for token in tokens()]
            if credentials:
                await Callers(credentials, now=clock.now).caller_of(request)
            else:
                _require_local_name(request.host, host)
        return await handler(request)

    return guard


def _require_local_name(header: str, host: str) -> None:
    name = host_name(header)
    if name not in ("localhost", host.lower()) and not _is_loopback(name):
        raise Forbidden(
            f"The Host {shown(header)} is not the name of this listener. "
            "Ask for localhost, or set admin.token to reach it under other names."
        )


def host_name(header: str) -> str:
    """Return the name in a Host header: without port, brackets and a final dot, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].removesuffix(".").lower()


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
