"""The header Project-Token: which caller it stands for, and which of its routes an upload goes to."""

from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from bridge.domain.build import SubmittedRun
from bridge.domain.callers import Caller, Credential, find_credential
from bridge.domain.instants import Instant
from bridge.domain.routing import Route, RoutingKeys, candidate_routes, match_route
from bridge.server.http.protocol import mark_verified
from bridge.server.submission.fields import SubmissionError

HEADER: Final = "Project-Token"
PROJECT_NOT_FOUND: Final = "Project not found."
HEADER_REMEDY: Final = (
    f"Send a token of this bridge with the scope upload, or the project_token of a route, in the header {HEADER}."
)


class ProjectTokens:
    """Identifies callers by Project-Token: `credentials` are those of callers and the project tokens of `routes`."""

    def __init__(
        self, credentials: Sequence[Credential], routes: Sequence[Route], *, now: Callable[[], Instant]
    ) -> None:
        self._credentials = credentials
        self._routes = routes
        self._now = now

    def identify(self, request: web.Request) -> Caller:
        """Return the caller; raise SubmissionError with TestNod's 404 if there is none that may upload."""
        tokens = [token.strip() for token in request.headers.getall(HEADER, [])]
        found = find_credential(tokens[0], self._credentials, now=self._now()) if len(tokens) == 1 else None
        if found is None:
            raise SubmissionError(PROJECT_NOT_FOUND, f"The {HEADER} is missing or wrong. {HEADER_REMEDY}", status=404)
        if not found.is_valid(self._now()):
            fault = f"The token of the caller {found.caller.name} has expired. Use a new one."
            raise SubmissionError(PROJECT_NOT_FOUND, fault, status=404)
        if "upload" not in found.caller.scopes:
            fault = f"The caller {found.caller.name} lacks the scope upload. {HEADER_REMEDY}"
            raise SubmissionError(PROJECT_NOT_FOUND, fault, status=404)
        mark_verified(request, found.caller.name)
        return found.caller

    def routes_of(self, caller: Caller) -> list[Route]:
        """Return the routes that the caller may use, in file order."""
        return [route for route in self._routes if caller.may_use(route.name)]

    def route_for(self, caller: Caller, run: SubmittedRun) -> Route:
        """Return the route of a run: the caller's only one, else the first that its branch certainly matches.

        Such a build has no job and no repository, so routes that ask for one match only if they are the only ones left.
        Raise SubmissionError with TestNod's 404 if that leaves none, or several.
        """
        allowed = self.routes_of(caller)
        if len(allowed) == 1:
            return allowed[0]
        keys = RoutingKeys(job_id=None, branch=run.branch or None)
        possible = candidate_routes(allowed, keys)
        route = match_route(allowed, keys) or (possible[0] if len(possible) == 1 else None)
        if route is None:
            fault = f"The caller {caller.name} may use {len(allowed)} routes, and nothing decides between them."
            remedy = "Use the project_token of the route, or a token that is bound to one route."
            raise SubmissionError(PROJECT_NOT_FOUND, f"{fault} {remedy}", status=404)
        return route
