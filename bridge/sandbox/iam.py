"""The stand-in of IAM over HTTP: tokens for passwords, whether a token is good, and the ids of projects.

It must not know CodeArts or the bridge. Pages: "Obtaining a User Token Through Password Authentication", "Verifying a
Token", "Querying Project Information" of the IAM API reference.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import formatdate

from aiohttp import web

from bridge.sandbox.api_gateway import ApiGateway
from bridge.sandbox.builds import REGION
from bridge.sandbox.state import SandboxState, SandboxToken, domain_of, project_of

TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
WRONG_LOGIN = "The username or password is wrong."  # the same for an unknown user and for one that is locked
NOT_SIGNED_IN = "The request you have made requires authentication."


class IamApi:
    """Answers for the accounts of a world."""

    def __init__(self, world: SandboxState) -> None:
        self._world = world
        self._gatekeeper = ApiGateway(world)

    def application(self) -> web.Application:
        over = self._world.observer().over
        app = web.Application()
        app.router.add_post("/v3/auth/tokens", over("iam.log_in", self._log_in))
        app.router.add_get("/v3/auth/tokens", over("iam.validate", self._validate))  # HEAD too
        app.router.add_get("/v3/projects", over("iam.projects", self._projects))
        app.router.add_route("*", "/{path:.*}", over("iam.unknown", _no_such_api))
        return app

    async def _log_in(self, request: web.Request) -> web.Response:
        asked = _object(_read(await request.read()).get("auth"))
        identity = _object(asked.get("identity"))
        user = _object(_object(identity.get("password")).get("user"))
        name, password, domain = user.get("name"), user.get("password"), _object(user.get("domain")).get("name")
        texts = isinstance(name, str) and isinstance(password, str) and isinstance(domain, str)
        if identity.get("methods") != ["password"] or not texts:
            return _error(400, "The request body is invalid.")
        accounts, at = self._world.accounts, self._world.micros()
        known = accounts.log_in(str(name), str(password), str(domain), at=at)
        if known is None:
            return _error(401, WRONG_LOGIN)
        scope = _object(_object(asked.get("scope")).get("project"))
        project = scope.get("id") or scope.get("name")
        token = accounts.hand_out(
            known, str(project) if project else None, at=at, seconds=self._world.behaviour.token_seconds
        )
        return self._token_answer(201, token, request)

    async def _validate(self, request: web.Request) -> web.Response:
        asker = self._living(request.headers.get("X-Auth-Token", ""))
        if asker is None:
            return _error(401, NOT_SIGNED_IN)
        value = request.headers.get("X-Subject-Token", "")
        subject = self._living(value)
        if subject is None:
            return _error(404, "Could not find token.") if value else _error(400, "X-Subject-Token is missing.")
        if subject.user.id != asker.user.id and not asker.user.security_admin:
            return _error(403, "You are not authorized to perform the requested action: identity:validate_token")
        return self._token_answer(200, subject, request)

    async def _projects(self, request: web.Request) -> web.Response:
        refused = await self._gatekeeper.refusal(request)
        if refused is not None:
            return _error(401, refused.message)
        project = project_of(request.query.get("name", REGION))
        return web.json_response({"projects": [project], "links": {}})

    def _living(self, value: str) -> SandboxToken | None:
        token = self._world.accounts.token(value)
        return token if token is not None and self._world.micros() < token.expires_at else None

    def _token_answer(self, status: int, token: SandboxToken, request: web.Request) -> web.Response:
        body: dict[str, object] = {
            "expires_at": _written(token.expires_at),
            "issued_at": _written(token.issued_at),
            "methods": ["password"],
            "roles": [{"id": "0", "name": "devcloud_durable"}],
            "user": {"id": token.user.id, "name": token.user.name, "domain": domain_of(token.user.domain)},
        }
        project = project_of(token.project)
        if project is None:
            body["domain"] = domain_of(token.user.domain)
        else:
            body["project"] = {**project, "domain": domain_of(token.user.domain)}
        if "nocatalog" not in request.query:
            body["catalog"] = []
        dated = formatdate(self._world.now(), usegmt=True)  # by the clock that the token's end is told by
        headers = {"X-Subject-Token": token.value, "Date": dated}
        return web.json_response({"token": body}, status=status, headers=headers)


async def _no_such_api(_request: web.Request) -> web.Response:
    return _error(404, "The resource could not be found.")


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"code": status, "message": message, "title": TITLES[status]}}, status=status)


def _read(body: bytes) -> Mapping[str, object]:
    try:
        return _object(json.loads(body))
    except ValueError:
        return {}


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _written(at: int) -> str:
    return datetime.fromtimestamp(at / 1_000_000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
