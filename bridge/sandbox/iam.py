"""IAM over HTTP: tokens for passwords, validation of tokens, and ids of projects.

Source: "Obtaining a User Token Through Password Authentication", "Verifying a Token" and "Querying Project Information"
of the IAM API reference.
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
WRONG_LOGIN = "The username or password is wrong."  # also for an unknown or locked user
NOT_SIGNED_IN = "The request you have made requires authentication."


class IamApi:
    """IAM for the accounts of the sandbox."""

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._api_gateway = ApiGateway(state)

    def application(self) -> web.Application:
        observe = self._state.listener().observe
        app = web.Application()
        app.router.add_post("/v3/auth/tokens", observe("iam.log_in", self._log_in))
        app.router.add_get("/v3/auth/tokens", observe("iam.validate", self._validate))  # and HEAD
        app.router.add_get("/v3/projects", observe("iam.projects", self._projects))
        app.router.add_route("*", "/{path:.*}", observe("iam.unknown", _no_such_api))
        return app

    async def _log_in(self, request: web.Request) -> web.Response:
        fields = _object(_read(await request.read()).get("auth"))
        identity = _object(fields.get("identity"))
        user = _object(_object(identity.get("password")).get("user"))
        name, password, domain = user.get("name"), user.get("password"), _object(user.get("domain")).get("name")
        texts = isinstance(name, str) and isinstance(password, str) and isinstance(domain, str)
        if identity.get("methods") != ["password"] or not texts:
            return _error(400, "The request body is invalid.")
        accounts, at = self._state.accounts, self._state.micros()
        known = accounts.log_in(str(name), str(password), str(domain), at=at)
        if known is None:
            return _error(401, WRONG_LOGIN)
        scope = _object(_object(fields.get("scope")).get("project"))
        project = scope.get("id") or scope.get("name")
        token = accounts.issue_token(
            known, str(project) if project else None, at=at, seconds=self._state.behavior.token_seconds
        )
        return self._token_answer(201, token, request)

    async def _validate(self, request: web.Request) -> web.Response:
        requester = self._valid_token(request.headers.get("X-Auth-Token", ""))
        if requester is None:
            return _error(401, NOT_SIGNED_IN)
        value = request.headers.get("X-Subject-Token", "")
        subject = self._valid_token(value)
        if subject is None:
            return _error(404, "Could not find token.") if value else _error(400, "X-Subject-Token is missing.")
        if subject.user.id != requester.user.id and not requester.user.security_admin:
            return _error(403, "You are not authorized to perform the requested action: identity:validate_token")
        return self._token_answer(200, subject, request)

    async def _projects(self, request: web.Request) -> web.Response:
        rejection = await self._api_gateway.rejection(request)
        if rejection is not None:
            return _error(401, rejection.message)
        project = project_of(request.query.get("name", REGION))
        return web.json_response({"projects": [project], "links": {}})

    def _valid_token(self, value: str) -> SandboxToken | None:
        token = self._state.accounts.token(value)
        return token if token is not None and self._state.micros() < token.expires_at else None

    def _token_answer(self, status: int, token: SandboxToken, request: web.Request) -> web.Response:
        body: dict[str, object] = {
            "expires_at": _format_time(token.expires_at),
            "issued_at": _format_time(token.issued_at),
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
        dated = formatdate(self._state.now(), usegmt=True)  # by the same clock as the token's expiry
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


def _format_time(at: int) -> str:
    return datetime.fromtimestamp(at / 1_000_000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
