"""Decide with whose credentials a proxied call is forwarded: the caller's, or the bridge's.

The bridge's are used if `[proxy]` allows it, and for uploads of coverage reports.
"""

from collections.abc import Sequence
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import parse_qsl

from bridge.domain.callers import AuthScheme, Caller
from bridge.domain.routing import Route, RoutingKeys, candidate_routes, canonical_job_id
from bridge.domain.text_format import quote_for_display
from bridge.errors import BadParameter, Forbidden
from bridge.server.http.requests import UPLOAD_PATH, read_parameters
from bridge.server.proxy.request_target import RequestTarget, Upstream, job_ids_in
from bridge.values import dataclass

ALL_PATHS: Final = "*"
LOGIN_PATH: Final = "/v3/auth/tokens"
COVERAGE_PATH: Final = "/v1/report/junit/coverage/upload"


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
    max_upload_bytes: int  # of a coverage upload that is forwarded with the bridge's credentials

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


COVERAGE_PARAMETERS = frozenset({"job_id", "build_no", "node_id"})
"""CodeArts' own: another one might name a job of another route."""


def is_coverage_upload(method: str, target: RequestTarget) -> bool:
    """Return whether this call uploads coverage reports to CodeArts ("Uploading a Unit Test Coverage Report")."""
    return method == "POST" and target.path in (COVERAGE_PATH, f"{COVERAGE_PATH}/")


def is_bound(caller: Caller, mode: AuthorizationMode) -> bool:
    """Return whether a coverage upload may be for jobs of the caller's routes only, also with a token of its own."""
    return mode is AuthorizationMode.BRIDGE or (mode is AuthorizationMode.CALLER_TOKEN and "proxy" not in caller.scopes)


def authorization_mode(
    caller: Caller,
    method: str,
    target: RequestTarget,
    *,
    policy: ProxyPolicy,
    routes: Sequence[Route],
) -> AuthorizationMode:
    """Return the credentials for a call of `caller`; raise Forbidden with the reason if there are none.

    A caller that the bridge does not know gets none: any page in a browser of the network may be it.
    """
    if caller.scheme is AuthScheme.OPEN:
        return AuthorizationMode.UNCHANGED
    is_free = caller.scheme is AuthScheme.IAM and "proxy" in caller.scopes
    if is_coverage_upload(method, target) and not is_free and {"upload", "proxy"} & caller.scopes != {"proxy"}:
        return _coverage_mode(caller, target, routes)
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


def _coverage_mode(caller: Caller, target: RequestTarget, routes: Sequence[Route]) -> AuthorizationMode:
    if "upload" not in caller.scopes:
        raise Forbidden(
            f'The caller {quote_for_display(caller.name)} lacks the scope "upload". '
            "Use another token, or let an operator add it."
        )
    pairs = parse_qsl(target.query, keep_blank_values=True)
    parameters = dict(pairs)
    if unknown := sorted(parameters.keys() - COVERAGE_PARAMETERS):
        raise BadParameter(
            f"The query of the coverage upload has {quote_for_display(unknown[0])}. Send job_id, build_no and node_id."
        )
    if len(parameters) != len(pairs) or ";" in target.query:  # a server may read another job from it
        raise BadParameter("The query of the coverage upload names a parameter more than once. Send each of them once.")
    _require_own_job(caller, read_parameters(parameters).job_id, routes)
    return AuthorizationMode.CALLER_TOKEN if caller.scheme is AuthScheme.IAM else AuthorizationMode.BRIDGE


def _require_own_job(caller: Caller, job_id: str, routes: Sequence[Route]) -> None:
    keys = RoutingKeys(job_id=canonical_job_id(job_id))  # as for uploads: CodeArts may ignore case
    if not any(caller.may_use(route.name) for route in candidate_routes(routes, keys)):
        raise Forbidden(
            f"The job {quote_for_display(job_id)} belongs to no route of the caller {quote_for_display(caller.name)}. "
            "Use the token of the job's own project, or add the route to the caller's routes."
        )
