"""Whose rights a proxied call goes on with: the caller's own, or the bridge's, and then only for what is allowed.

It knows no headers and no endpoint. The bridge's own rights never reach IAM.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

from bridge.domain.callers import AuthScheme, Caller
from bridge.domain.routing import Route, RoutingKeys, candidate_routes
from bridge.errors import Forbidden
from bridge.server.auth.authenticator import require
from bridge.server.http.responses import quote_for_display
from bridge.server.proxy.request_target import RequestTarget, Upstream, jobs_named

EVERYTHING: Final = "*"
LOGIN_PATH: Final = "/v3/auth/tokens"


class AuthorizationMode(Enum):
    """With what a call goes on."""

    AS_IT_CAME = "as it came"
    CALLERS_TOKEN = "the caller's token"  # noqa: S105 -- no secret
    OURS = "the bridge's"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyPolicy:
    """What callers without rights of their own may ask: `[proxy]`.

    A path is a glob, each `*` one segment, after a method of its own where `methods` are not meant; `*` alone is all.
    """

    paths: tuple[str, ...]
    methods: tuple[str, ...]

    def allows(self, method: str, target: RequestTarget) -> bool:
        """Tell whether one of the paths takes `target` under `method`."""
        return any(self._matches(entry, method, target) for entry in self.paths)

    def _matches(self, entry: str, method: str, target: RequestTarget) -> bool:
        own_method, _, path = entry.rpartition(" ")
        if method not in ((own_method,) if own_method else self.methods):
            return False
        if path == EVERYTHING:
            return True
        globs = path[1:].split("/")
        return len(globs) == len(target.segments) and all(map(fnmatchcase, target.segments, globs))


def is_login(method: str, target: RequestTarget) -> bool:
    """Tell whether this is somebody asking IAM for a token: whoever has none yet is nobody's caller."""
    return method == "POST" and target.path == LOGIN_PATH


def authorization_mode_of(
    caller: Caller, method: str, target: RequestTarget, *, allowance: ProxyPolicy, routes: Sequence[Route]
) -> AuthorizationMode:
    """Return with whose rights `caller` may ask `target`; raise Forbidden where with nobody's, saying why."""
    if caller.scheme is AuthScheme.OPEN:
        return AuthorizationMode.AS_IT_CAME
    require(caller, "proxy")
    if caller.scheme is AuthScheme.IAM:
        return AuthorizationMode.CALLERS_TOKEN
    if target.upstream is Upstream.IAM:
        raise Forbidden(
            "The bridge lends its own rights to nobody at IAM. Ask IAM with an IAM token of your own, or ask it itself."
        )
    if not allowance.allows(method, target):
        raise Forbidden(
            f"{method} {quote_for_display(target.path)} is not among what this bridge asks CodeArts in its own name. "
            "Use an IAM token of your own, or have it added to proxy.paths."
        )
    for job_id in sorted(jobs_named(target)):
        _require_own_job(caller, job_id, routes)
    return AuthorizationMode.OURS


def _require_own_job(caller: Caller, job_id: str, routes: Sequence[Route]) -> None:
    if not any(caller.may_use(route.name) for route in candidate_routes(routes, RoutingKeys(job_id=job_id))):
        raise Forbidden(
            f"The job {quote_for_display(job_id)} is of no route of the caller {quote_for_display(caller.name)}. "
            "Use the token of its own project, or have its routes widened."
        )
