"""Decide with whose credentials a proxied call is forwarded: the caller's, or the bridge's if `[proxy]` allows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

from bridge.domain.callers import AuthScheme, Caller
from bridge.domain.routing import Route, RoutingKeys, candidate_routes
from bridge.errors import Forbidden
from bridge.server.http.requests import UPLOAD_PATH
from bridge.server.http.responses import quote_for_display
from bridge.server.proxy.request_target import RequestTarget, Upstream, job_ids_in

ALL_PATHS: Final = "*"
LOGIN_PATH: Final = "/v3/auth/tokens"


class AuthorizationMode(Enum):
    """The credentials that a call is forwarded with."""

    UNCHANGED = "unchanged"  # what the caller sent, without secrets of the bridge
    CALLER_TOKEN = "caller_token"  # noqa: S105 -- not a secret
    BRIDGE = "bridge"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyPolicy:
    """What callers may ask with the bridge's credentials: `[proxy]`.

    A path is a glob in which each `*` matches one segment. It may start with a method, which then replaces `methods`.
    The path `*` matches everything.
    """

    paths: tuple[str, ...]
    methods: tuple[str, ...]

    def allows(self, method: str, target: RequestTarget) -> bool:
        """Return whether one of the paths matches `target` and `method`."""
        return any(self._matches(entry, method, target) for entry in self.paths)

    def _matches(self, entry: str, method: str, target: RequestTarget) -> bool:
        own_method, _, path = entry.rpartition(" ")
        if method not in ((own_method,) if own_method else self.methods):
            return False
        if path == ALL_PATHS:
            return True
        globs = path[1:].split("/")
        return len(globs) == len(target.segments) and all(map(fnmatchcase, target.segments, globs))


def is_login(method: str, target: RequestTarget) -> bool:
    """Return whether this call requests an IAM token, which needs no authentication."""
    return method == "POST" and target.path == LOGIN_PATH


def authorization_mode(
    caller: Caller, method: str, target: RequestTarget, *, policy: ProxyPolicy, routes: Sequence[Route]
) -> AuthorizationMode:
    """Return the credentials for a call of `caller`; raise Forbidden with the reason if there are none."""
    if caller.scheme is AuthScheme.OPEN:
        return AuthorizationMode.UNCHANGED
    if "proxy" not in caller.scopes:
        raise Forbidden(
            f"The bridge itself has nothing at {method} {quote_for_display(target.path)}, and the caller "
            f'{quote_for_display(caller.name)} lacks the scope "proxy" to call CodeArts through it. '
            f"Upload reports with POST to {UPLOAD_PATH}, or let an operator add the scope."
        )
    if caller.scheme is AuthScheme.IAM:
        return AuthorizationMode.CALLER_TOKEN
    if target.upstream is Upstream.IAM:
        raise Forbidden(
            "The bridge does not call IAM with its own credentials for a caller. "
            "Use an IAM token of your own, or call IAM directly."
        )
    if not policy.allows(method, target):
        raise Forbidden(
            f"{method} {quote_for_display(target.path)} is not among the calls that the bridge makes with its own "
            "credentials. Use an IAM token of your own, or have it added to proxy.paths."
        )
    for job_id in sorted(job_ids_in(target)):
        _require_own_job(caller, job_id, routes)
    return AuthorizationMode.BRIDGE


def _require_own_job(caller: Caller, job_id: str, routes: Sequence[Route]) -> None:
    if not any(caller.may_use(route.name) for route in candidate_routes(routes, RoutingKeys(job_id=job_id))):
        raise Forbidden(
            f"The job {quote_for_display(job_id)} belongs to no route of the caller {quote_for_display(caller.name)}. "
            "Use the token of the job's own project, or add the route to the caller's routes."
        )
