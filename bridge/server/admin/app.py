"""The application of the admin listener: health with reasons, metrics, and the API."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol, TypedDict
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from bridge.clock import Clock
from bridge.domain.circuit_breaker import OPENS_AFTER, CircuitBreaker, CircuitBreakers, is_pause
from bridge.domain.clock_trust import Verdict, trusting
from bridge.domain.instants import DAY, SECOND
from bridge.domain.request_rate import Api, RequestRate, describe_rate
from bridge.domain.text_format import quote_for_display, rfc3339
from bridge.errors import Forbidden, NotFound, Unavailable
from bridge.server.admin.access import (
    CSRF_HEADER,
    PERSON,
    SAFE_METHODS,
    AdminAccess,
    Person,
    require_csrf,
    require_operator,
    require_own_page,
    require_same_site,
)
from bridge.server.admin.actions import ActionsApi, OperatorActions
from bridge.server.admin.builds import BuildsApi
from bridge.server.admin.console.routes import Console
from bridge.server.admin.events import EventsApi
from bridge.server.admin.identification import Identification
from bridge.server.admin.job_tests import TestHistory, TestsApi
from bridge.server.admin.openapi import OPENAPI_PATH, openapi
from bridge.server.admin.rejections import RejectionsApi
from bridge.server.admin.reports import ReportsApi
from bridge.server.admin.restore import RestoreApi
from bridge.server.config import ServerConfig
from bridge.server.health import Readiness
from bridge.server.http.protocol import mark_verified
from bridge.server.http.requests import network_of, resembles_upload_path
from bridge.server.http.responses import handle_errors, json_response
from bridge.server.http.tls import Certificate
from bridge.store.archive.base import Archive
from bridge.store.blobs.base import Spool
from bridge.store.circuit_breakers import all_breakers
from bridge.store.engine.base import Database
from bridge.store.notices import failing_targets
from bridge.store.queries import count_mismatches, counts
from bridge.telemetry.metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from bridge.server.admin.console.pages import ConsolePages

OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Health checks come from anywhere, under any host name, and carry no token."""

FORM_PATH = "/act"
"""Forms of the console are sent there; its handler verifies their CSRF token."""

PUBLIC_PATHS = frozenset({"/sign-in", "/sign-out"})
"""A person that signs in is not identified yet, and everyone may end a session."""

MISMATCHES_FOR = DAY
"""How long after its end a build counts in the metric of mismatches, so that an alert resolves without an action."""

CLOCK_EFFECT = "Until the clock is trusted, nothing is given up or deleted because of its age."


def admin_app(  # noqa: PLR0913 -- everything that it shows
    *,
    database: Database,
    readiness: Readiness,
    metrics: Metrics,
    tasks: Callable[[], Sequence["TaskState"]],
    config: Callable[[], ServerConfig],
    archive: Archive | None,
    spool: Spool,
    certificate: Certificate | None,
    host: str,
    clock: Clock,
    clock_verdict: Callable[[], Verdict] = trusting,
    own_breakers: Callable[[], Sequence[CircuitBreaker]] = lambda: (),
    wake: Callable[[], None] = lambda: None,
    rates: Callable[[], Mapping[Api, RequestRate]] = dict,
) -> web.Application:
    """Return the application of the admin listener; `config` returns the configuration for each new request.

    `own_breakers` returns the breakers that are open for this gateway alone, `rates` those of CodeArts' APIs; `wake`
    wakes the dispatchers.
    """
    actions = OperatorActions(
        database=database,
        routes=lambda: config().routes,
        spool=spool,
        archive=archive,
        wake=wake,
        max_finalize_delay_us=lambda: config().max_finalize_delay_us,
    )
    identification = Identification(database=database, access=lambda: config().access, clock=clock)
    tests = TestHistory(database)

    def new_pages() -> "ConsolePages":
        from bridge.server.admin.console.pages import ConsolePages  # noqa: PLC0415 -- 30 ms and 6 MB

        return ConsolePages(
            actions=actions,
            identification=identification,
            tests=tests,
            resender=lambda: config().resender,
            codearts=lambda: config().codearts,
            database=database,
            spool=spool,
            archive=archive,
            access=lambda: config().access,
            routes=lambda: config().routes,
            reasons=readiness.reasons,
            free_bytes=readiness.spool_free_bytes,
            clock_verdict=clock_verdict,
        )

    console = Console(new_pages)
    guard = admin_guard(lambda: config().access, host, identification)
    app = web.Application(middlewares=[_error_pages(console), handle_errors, guard])
    app.on_response_prepare.append(_protect_answer)
    health = _Health(
        database, readiness, metrics, tasks, certificate, clock, clock_verdict, own_breakers, rates, config
    )
    app.router.add_get("/livez", readiness.livez)
    app.router.add_get("/readyz", health.readyz)
    app.router.add_get("/metrics", health.metrics)
    BuildsApi(database=database, codearts=lambda: config().codearts, clock_verdict=clock_verdict).add_routes(app)
    ActionsApi(actions).add_routes(app)
    TestsApi(tests).add_routes(app)
    app.router.add_get(OPENAPI_PATH, openapi)
    RejectionsApi(database=database, resender=lambda: config().resender).add_routes(app)
    ReportsApi(database=database, archive=archive).add_routes(app)
    EventsApi(database=database, identification=identification, stopping=lambda: readiness.draining).add_routes(app)
    console.add_routes(app)
    RestoreApi(database=database, max_finalize_delay_us=lambda: config().max_finalize_delay_us).add_routes(app)
    return app


# -- authorization -----------------------------------------------------------------------------------------------


def admin_guard(access: Callable[[], AdminAccess], host: str, identification: Identification) -> Middleware:
    """Return the middleware that identifies the person behind each request; `host` is `admin.host`.

    It raises Unauthenticated if the request has no current token and no session. If neither tokens nor a proxy's header
    are configured, it raises Forbidden unless the Host header is a loopback name or `host`: a page of another site that
    a browser on this machine shows must not reach the listener (DNS rebinding). Viewers may only look.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN_PATHS:
            rules = access()
            require_own_page(request)
            if rules.is_open:
                _require_local_name(request.host, host)
            if not _is_public(request.path) or rules.is_open:
                request[PERSON] = await _authorize(request, rules, identification)
            mark_verified(request, network_of(request.remote))
        try:
            return await handler(request)
        except web.HTTPNotFound as error:
            raise NotFound(_nothing_at(request)) from error

    return guard


async def _protect_answer(_request: web.Request, response: web.StreamResponse) -> None:
    """Have no browser or cache keep an answer, or take it for another type; static files set their own headers."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith("/static/")


async def _authorize(request: web.Request, rules: AdminAccess, identification: Identification) -> Person:
    """Return the person; raise Unauthenticated, or Forbidden if the person may not do this."""
    person = await identification.identify(request)
    if request.method not in SAFE_METHODS:
        if person.csrf:
            require_same_site(request)
            if not rules.is_open and request.path != FORM_PATH:
                require_csrf(person, request.headers.get(CSRF_HEADER))
        require_operator(person)
    return person


def _error_pages(console: Console) -> Middleware:
    """Return the middleware that shows errors of the console's pages as pages, and asks a browser to sign in."""

    @web.middleware
    async def show(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        wants_page = "text/html" in request.headers.get("Accept", "") and not request.path.startswith("/api/")
        is_error = response.status >= web.HTTPBadRequest.status_code and response.content_type == "application/json"
        if not wants_page or not is_error or not isinstance(response, web.Response):
            return response
        if response.status == web.HTTPUnauthorized.status_code and "HX-Request" not in request.headers:
            location = f"/sign-in?next={quote(request.path_qs, safe='')}"
            return web.Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})
        message = json.loads(response.text or "{}").get("error_msg", "")
        return await console.error(request, response.status, message)

    return show


def _nothing_at(request: web.Request) -> str:
    """Return the message for a path that the admin listener does not have."""
    what = f"The admin listener has nothing at {request.method} {quote_for_display(request.path)}."
    if resembles_upload_path(request):
        return f"{what} Send uploads to the server listener, which is at server.port."
    paths = sorted({resource.canonical for resource in request.app.router.resources()})
    near = get_close_matches(request.path, paths, n=3, cutoff=0.5)
    return f"{what} {'Paths like it are' if near else 'Its paths are'} {', '.join(near or paths)}."


def _require_local_name(header: str, host: str) -> None:
    name = host_name(header)
    if name not in ("localhost", host.lower()) and not _is_loopback(name):
        raise Forbidden(
            f"The Host {quote_for_display(header)} is not a name of this listener. "
            "Use localhost, or set admin.token to reach it under other names."
        )


def host_name(header: str) -> str:
    """Return the name in a Host header: in lower case, without port, brackets and a final dot."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].removesuffix(".").lower()


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


# -- health and metrics ------------------------------------------------------------------------------------------


class TaskState(Protocol):
    """The state of a background task (`bridge.worker.background_tasks.SupervisedTask`)."""

    @property
    def name(self) -> str: ...
    @property
    def beat_at(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def last_error(self) -> str | None: ...


class TaskView(TypedDict):
    """A background task in /readyz."""

    name: str
    heartbeat_age_seconds: float
    restarts: int
    last_error: str | None


class UpstreamView(TypedDict):
    """An upstream in /readyz that is away (`breaker` open) or whose calls keep failing (`breaker` closed)."""

    name: str
    breaker: str
    open_since: str | None
    failing_since: str | None
    failures: int
    reason: str | None
    next_probe_at: str | None


class NoticeTargetView(TypedDict):
    """A target of notices in /readyz whose last notice did not arrive."""

    target: str
    failing_since: str
    failures: int
    reason: str


class RateView(TypedDict):
    """How often the bridge calls one API of CodeArts."""

    api: str
    calls_per_minute: float
    throttled_at: str | None
    sentence: str


class _Health:
    """/readyz and /metrics."""

    def __init__(  # noqa: PLR0913, PLR0917 -- everything that it shows
        self,
        database: Database,
        readiness: Readiness,
        metrics: Metrics,
        tasks: Callable[[], Sequence[TaskState]],
        certificate: Certificate | None,
        clock: Clock,
        clock_verdict: Callable[[], Verdict],
        own_breakers: Callable[[], Sequence[CircuitBreaker]],
        rates: Callable[[], Mapping[Api, RequestRate]],
        config: Callable[[], ServerConfig],
    ) -> None:
        self._config = config
        self._rates = rates
        self._own_breakers = own_breakers
        self._database = database
        self._readiness = readiness
        self._metrics = metrics
        self._tasks = tasks
        self._certificate = certificate
        self._clock = clock
        self._clock_verdict = clock_verdict

    async def readyz(self, _request: web.Request) -> web.Response:
        """Return 200 or 503 with reasons. Upstreams, tasks, the certificate and the clock never cause 503."""
        reasons, breakers = await self._readiness.reasons(), await self._breakers()
        body: dict[str, object] = {
            "ready": not reasons,
            "reasons": reasons,
            "paused": breakers.paused_reason if breakers else None,
            "upstreams": _upstreams(breakers),
            "codearts_rates": [self._rate_view(api, rate) for api, rate in sorted(self._rates().items())],
            "failing_notice_targets": await self._failing_notice_targets(),
            "tasks": [self._task_view(task) for task in self._tasks()],
            "certificate_fault": self._certificate.fault if self._certificate else None,
        }
        if (doubt := self._clock_verdict().reason) is not None:
            body["clock_doubt"] = f"{doubt} {CLOCK_EFFECT}"
        return json_response(body, status=503 if reasons else 200)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Return the metrics in Prometheus' text format; if the ledger is away, its gauges keep their last values."""
        now = self._database.now()
        try:
            counted = await self._database.read(counts)
            mismatches = await self._database.read(count_mismatches, now - MISMATCHES_FOR)
            breakers = self._as_here(await self._database.read(all_breakers))
        except Unavailable:
            pass
        else:
            since = {breaker.name: breaker.opened_at for breaker in breakers.known.values()}
            routes = [route.name for route in self._config().routes]
            open_seconds = {name: (now - at) / SECOND for name, at in since.items() if at is not None}
            self._metrics.set_circuits(open_seconds, routes)
            oldest = {target: max(0, now - at) / SECOND for target, at in counted.pending_since.items()}
            self._metrics.set_deliveries(counted.deliveries, oldest)
            self._metrics.set_builds(stuck=counted.stuck, blocked=counted.blocked)
            self._metrics.set_result_mismatches(mismatches, routes)
        self._metrics.set_ready(ready=not await self._readiness.reasons())
        self._metrics.set_rates({api: rate.per_minute for api, rate in self._rates().items()})
        for task in self._tasks():
            self._metrics.set_heartbeat(task.name, self._age_seconds(task))
        if (free := self._readiness.spool_free_bytes()) is not None:
            self._metrics.set_spool_free(free)
        if self._certificate is not None:
            self._metrics.set_certificate_invalid(invalid=self._certificate.fault is not None)
            self._metrics.set_certificate_expiry((self._certificate.ends_at or 0) / SECOND)
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _failing_notice_targets(self) -> list[NoticeTargetView]:
        try:
            found = await self._database.read(failing_targets)
        except Unavailable:
            return []
        return [
            NoticeTargetView(
                target=each.label,
                failing_since=rfc3339(each.failing_since),
                failures=each.failures,
                reason=each.last_error,
            )
            for each in found
        ]

    async def _breakers(self) -> CircuitBreakers | None:
        try:
            return self._as_here(await self._database.read(all_breakers))
        except Unavailable:
            return None

    def _as_here(self, breakers: CircuitBreakers) -> CircuitBreakers:
        """Return the breakers of the ledger, with those that are open for this gateway alone."""
        own = {breaker.name: breaker for breaker in self._own_breakers() if not breakers.is_open(breaker.name)}
        return replace(breakers, known={**breakers.known, **own})

    def _task_view(self, task: TaskState) -> TaskView:
        age = self._age_seconds(task)
        return {
            "name": task.name,
            "heartbeat_age_seconds": age,
            "restarts": task.restarts,
            "last_error": task.last_error,
        }

    def _rate_view(self, api: Api, rate: RequestRate) -> RateView:
        return {
            "api": api.value,
            "calls_per_minute": round(rate.per_minute, 1),
            "throttled_at": None if rate.throttled_at is None else rfc3339(rate.throttled_at),
            "sentence": describe_rate(api, rate, self._database.now()),
        }

    def _age_seconds(self, task: TaskState) -> float:
        return max(0, self._clock.steady() - task.beat_at) / SECOND


def _upstreams(breakers: CircuitBreakers | None) -> list[UpstreamView] | None:
    """Return the upstreams that are away or keep failing; None if the ledger cannot be read."""
    if breakers is None:
        return None
    return [
        _upstream_view(breaker)
        for name, breaker in breakers.known.items()
        if not is_pause(name) and (breaker.opened_at is not None or breaker.failures >= OPENS_AFTER)
    ]


def _upstream_view(breaker: CircuitBreaker) -> UpstreamView:
    return {
        "name": breaker.name,
        "breaker": "closed" if breaker.opened_at is None else "open",
        "open_since": None if breaker.opened_at is None else rfc3339(breaker.opened_at),
        "failing_since": None if breaker.first_failure_at is None else rfc3339(breaker.first_failure_at),
        "failures": breaker.failures,
        "reason": breaker.reason,
        "next_probe_at": None if breaker.probe_at is None else rfc3339(breaker.probe_at),
    }
