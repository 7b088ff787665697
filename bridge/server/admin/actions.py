"""The admin API's actions: retry, finalize, forget, pause, resume; the routes with their state, and the audit log."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypedDict

import structlog
from aiohttp import web

from bridge.domain.build import BuildNo
from bridge.domain.circuit_breaker import CircuitBreakers
from bridge.domain.routing import Route
from bridge.domain.text_format import counted, quote_for_display, rfc3339
from bridge.errors import BadParameter, BridgeError, NotFound
from bridge.server.admin.access import PERSON, actor_of
from bridge.server.admin.params import read_forgotten, read_page, require_id
from bridge.server.http.responses import json_response
from bridge.store.archive.base import Archive
from bridge.store.blobs.base import Spool
from bridge.store.circuit_breakers import all_breakers
from bridge.store.engine.base import Database
from bridge.store.operator_actions import (
    FORGOTTEN,
    AuditEntry,
    AuditQuery,
    BuildContents,
    Complete,
    Forget,
    ForgetRejections,
    Retried,
    Retry,
    RoutePause,
    build_contents,
    complete,
    forget,
    forget_caller,
    forget_rejections,
    list_audit,
    pause_route,
    record_action,
    retry,
)

ROUTES_PATH: Final = "/api/v1/routes"
AUDIT_PATH: Final = "/api/v1/audit"

_BYTES_LEFT: Final = "Some bytes could not be deleted now. They are deleted after store.retention."

_log = structlog.get_logger(__name__)


class RouteView(TypedDict):
    """A route with its state."""

    name: str
    tags: list[str]
    job_id: list[str]
    project_id: list[str]
    repo: list[str]
    branch: list[str]
    paused: bool
    paused_since: str | None
    paused_reason: str | None
    blocked_reason: str | None
    mirror: bool


class AuditView(TypedDict):
    """One action of an operator."""

    id: int
    at: str
    person: str
    role: str
    proof: str  # of the name
    address: str
    action: str
    target: str
    detail: str


class OperatorActions:
    """What operators may do, for the API and the pages. Each action is logged and written to the audit log."""

    def __init__(
        self,
        *,
        database: Database,
        routes: Callable[[], Sequence[Route]],
        spool: Spool,
        archive: Archive | None,
        wake: Callable[[], None],
        max_finalize_delay_us: Callable[[], int],
    ) -> None:
        self._database = database
        self._routes = routes
        self._spool = spool
        self._archive = archive
        self._wake = wake
        self._max_finalize_delay_us = max_finalize_delay_us

    async def retry(self, request: web.Request, **which: Any) -> str:
        """Send dead deliveries again; return what happened, as a sentence."""
        if "route" in which:
            self._require_route(which["route"])
        done = await self._database.write(retry, Retry(actor=actor_of(request), **which))
        self._finish(request, "deliveries_retried", retried=done.retried, **which)
        return _retried_text(done)

    async def finalize(self, request: web.Request, build_id: int) -> str:
        """End a build now, so that its run is finalized; return what happened."""
        changed = await self._database.write(complete, Complete(actor=actor_of(request), build_id=build_id))
        self._finish(request, "build_completed", build_id=build_id)
        if changed:
            return "The build is ended now, and its run is finalized once its reports are delivered."
        return "The build had ended already, so nothing changed."

    async def loss(self, build_id: int | None) -> str:
        """Return what is lost if a build is forgotten; raise NotFound if there is no such build."""
        if build_id is None:
            raise NotFound("The ledger has no build with this id. Look for it in /api/v1/builds.")
        return _loss_text(await self._database.read(build_contents, build_id), "has", "have")

    async def forget(self, request: web.Request, build_id: int) -> str:
        """Delete a build with its rejections and all bytes; return what was lost."""
        done = await self._database.write(forget, Forget(actor=actor_of(request), build_id=build_id))
        contents = done.contents
        self._finish(request, "build_forgotten", build=contents.name, undelivered=contents.undelivered)
        text = f"Forgotten. {_loss_text(contents, 'had', 'had')}"
        return text if await self._delete_bytes(done.blobs, done.copies) else f"{text} {_BYTES_LEFT}"

    async def forget_rejections(self, request: web.Request, job_id: str, build_no: BuildNo | None) -> tuple[int, str]:
        """Delete the rejections of a job, or of one of its builds, with all bytes; return how many, and a sentence."""
        item = ForgetRejections(actor=actor_of(request), job_id=job_id, build_no=build_no)
        count, whole = 0, True
        while (done := await self._database.write(forget_rejections, item)).count:
            count += done.count
            whole = await self._delete_bytes(done.blobs) and whole
        if count:
            self._finish(request, "rejections_forgotten", job_id=job_id, build_no=build_no, rejections=count)
        text = f"Forgotten: {counted(count, 'rejection')}."
        return count, text if whole else f"{text} {_BYTES_LEFT}"

    async def forget_caller(self, request: web.Request, name: str) -> str:
        """Replace the name of a caller, and its addresses, in all uploads; return what happened."""
        if name == FORGOTTEN:
            raise BadParameter(f'"{FORGOTTEN}" stands for names that were forgotten. Name a caller.')
        rows = 0
        while changed := await self._database.write(forget_caller, name):
            rows += changed
        if not rows:
            raise NotFound("The ledger has no upload of this caller. Look for its name in /api/v1/builds.")
        # The name itself is not written to the audit log: it would not be forgotten.
        await self._database.write(record_action, (actor_of(request), "forget", "a caller", counted(rows, "row")))
        self._finish(request, "caller_forgotten", rows=rows)
        return f'Forgotten. {counted(rows, "row")} {"has" if rows == 1 else "have"} "{FORGOTTEN}" in place of the name.'

    async def _delete_bytes(self, blobs: Sequence[str], copies: Sequence[str] = ()) -> bool:
        """Delete bytes that no row names any more; return False if some are left to the cleanup."""
        whole = True
        for blob in blobs:
            try:
                await self._spool.delete(blob)
            except BridgeError as error:
                _log.warning("blob_delete_failed", blob=blob, error=str(error))
                whole = False
        if self._archive is not None and copies:
            try:
                await self._archive.delete(copies)
            except* BridgeError as errors:
                _log.warning("archive_delete_failed", copies=len(copies), error=str(errors.exceptions[0]))
                whole = False
        return whole

    async def pause(self, request: web.Request, name: str, *, pause: bool) -> str:
        """Pause a route, or resume it; return what happened."""
        self._require_route(name)
        item = RoutePause(
            actor=actor_of(request), route=name, pause=pause, max_finalize_delay_us=self._max_finalize_delay_us()
        )
        changed = await self._database.write(pause_route, item)
        self._finish(request, "route_paused" if pause else "route_resumed", route=name)
        state = "paused: reports are accepted, and nothing is sent" if pause else "resumed"
        return f'Route "{name}" {"is" if changed else "was already"} {state}.'

    async def record(self, request: web.Request, action: str, target: str) -> None:
        """Write the audit row of an action that the caller has made."""
        await self._database.write(record_action, (actor_of(request), action, target, ""))

    async def routes(self) -> list[RouteView]:
        """Return all routes with their state."""
        breakers = await self._database.read(all_breakers)
        return [_route_view(route, breakers) for route in self._routes()]

    async def audit(self, query: AuditQuery) -> list[AuditEntry]:
        """Return a page of actions, newest first."""
        return await self._database.read(list_audit, query)

    def _require_route(self, name: str) -> None:
        if name not in {route.name for route in self._routes()}:
            raise NotFound(f"There is no route {quote_for_display(name)}. Look for its name in {ROUTES_PATH}.")

    def _finish(self, request: web.Request, event: str, **fields: object) -> None:
        _log.info(event, person=request[PERSON].name, **{name: value for name, value in fields.items() if value})
        self._wake()


class ActionsApi:
    """Handlers of the actions below /api/v1."""

    def __init__(self, actions: OperatorActions) -> None:
        self._actions = actions

    def add_routes(self, app: web.Application) -> None:
        """Add the handlers to `app`."""
        app.router.add_post("/api/v1/builds/{id}/retry", self.retry_build)
        app.router.add_post("/api/v1/builds/{id}/finalize", self.finalize)
        app.router.add_post("/api/v1/builds/{id}/forget", self.forget)
        app.router.add_post("/api/v1/callers/{name}/forget", self.forget_caller)
        app.router.add_post("/api/v1/rejections/forget", self.forget_rejections)
        app.router.add_post("/api/v1/deliveries/{id}/retry", self.retry_delivery)
        app.router.add_get(ROUTES_PATH, self.routes)
        app.router.add_post(f"{ROUTES_PATH}/{{name}}/{{action:pause|resume|retry}}", self.act_on_route)
        app.router.add_get(AUDIT_PATH, self.audit)

    async def retry_build(self, request: web.Request) -> web.Response:
        """Send the dead deliveries of a build again."""
        build_id = require_id(request, "build", "/api/v1/builds")
        return json_response({"result": await self._actions.retry(request, build_id=build_id)})

    async def retry_delivery(self, request: web.Request) -> web.Response:
        """Send a dead delivery again."""
        delivery_id = require_id(request, "delivery", "/api/v1/builds")
        return json_response({"result": await self._actions.retry(request, delivery_id=delivery_id)})

    async def finalize(self, request: web.Request) -> web.Response:
        """End a build now."""
        build_id = require_id(request, "build", "/api/v1/builds")
        return json_response({"result": await self._actions.finalize(request, build_id)})

    async def forget(self, request: web.Request) -> web.Response:
        """Delete a build with everything that is kept of it."""
        build_id = require_id(request, "build", "/api/v1/builds")
        return json_response({"result": await self._actions.forget(request, build_id)})

    async def forget_caller(self, request: web.Request) -> web.Response:
        """Replace the name of a caller in all uploads."""
        return json_response({"result": await self._actions.forget_caller(request, request.match_info["name"])})

    async def forget_rejections(self, request: web.Request) -> web.Response:
        """Delete the rejections of a job, or of one of its builds."""
        count, text = await self._actions.forget_rejections(request, *read_forgotten(request.query))
        return json_response({"result": text, "rejections": count})

    async def routes(self, _request: web.Request) -> web.Response:
        """Return the routes in file order, with their state."""
        return json_response({"routes": await self._actions.routes()})

    async def act_on_route(self, request: web.Request) -> web.Response:
        """Pause or resume a route, or send all its dead deliveries again."""
        name, action = request.match_info["name"], request.match_info["action"]
        if action == "retry":
            return json_response({"result": await self._actions.retry(request, route=name)})
        return json_response({"result": await self._actions.pause(request, name, pause=action == "pause")})

    async def audit(self, request: web.Request) -> web.Response:
        """Return a page of what operators did, newest first."""
        query = read_page(request.query)
        found = await self._actions.audit(replace(query, limit=query.limit + 1))
        page = found[: query.limit]
        following = str(page[-1].id) if len(found) > query.limit else None
        return json_response({"audit": [_audit_view(entry) for entry in page], "next": following})


def _loss_text(contents: BuildContents, has: str, have: str) -> str:
    verb = has if contents.undelivered == 1 else have
    lost = f"{counted(contents.undelivered, 'report')} {verb} not been delivered." if contents.undelivered else ""
    kept = f"Build {contents.name}: {counted(contents.reports, 'report')}"
    kept += f" and {counted(contents.rejections, 'rejection')}." if contents.rejections else "."
    return f"{kept} {lost}".strip()


def _retried_text(done: Retried) -> str:
    text = f"{counted(done.retried, 'report')} {'is' if done.retried == 1 else 'are'} sent again."
    if done.without_bytes:
        kept = "has no bytes" if done.without_bytes == 1 else "have no bytes"
        text += f" {counted(done.without_bytes, 'report')} {kept} any more. Upload them again from CI."
    if done.left:
        text += f" {done.left} more are dead. Repeat the action for them."
    return text


def _route_view(route: Route, breakers: CircuitBreakers) -> RouteView:
    pause, blocked = breakers.pause_of(route.name), breakers.route_blocked_reason(route.name)
    return {
        "name": route.name,
        "tags": list(route.tags),
        "job_id": list(route.job_id),
        "project_id": list(route.project_id),
        "repo": list(route.repo),
        "branch": list(route.branch),
        "paused": pause is not None or route.paused,
        "paused_since": rfc3339(pause.opened_at) if pause and pause.opened_at is not None else None,
        "paused_reason": pause.reason if pause else ("paused = true in the settings" if route.paused else None),
        "blocked_reason": blocked,
        "mirror": route.mirror,
    }


def _audit_view(entry: AuditEntry) -> AuditView:
    return {
        "id": entry.id,
        "at": rfc3339(entry.at),
        "person": entry.person,
        "role": entry.role,
        "proof": entry.proof,
        "address": entry.address,
        "action": entry.action,
        "target": entry.target,
        "detail": entry.detail,
    }
