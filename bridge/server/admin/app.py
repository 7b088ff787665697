"""The application that operators reach: health with reasons, metrics, and the API.

It knows no handler's inside but health and metrics, and nothing of the worker but how its loops fare.
"""

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Protocol, TypedDict

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from bridge.clock import Clock
from bridge.domain.build import SECOND
from bridge.domain.callers import AuthScheme, Caller, Credential, hash_token
from bridge.domain.circuit_breaker import OPENS_AFTER, RESTORE_PAUSE, CircuitBreaker, CircuitBreakers
from bridge.domain.clock_trust import Verdict, trusting
from bridge.domain.text_format import rfc3339
from bridge.errors import Forbidden, Unavailable
from bridge.server.admin.builds import BuildsApi
from bridge.server.admin.config import AdminConfig
from bridge.server.admin.rejections import RejectionsApi
from bridge.server.admin.reports import ReportsApi
from bridge.server.admin.restore import RestoreApi
from bridge.server.auth.authenticator import Authenticator
from bridge.server.health import Readiness
from bridge.server.http.responses import answer_errors, json_answer, quote_for_display
from bridge.server.http.tls import Certificate
from bridge.store.archive.base import Archive
from bridge.store.circuit_breakers import all_breakers
from bridge.store.engine.base import Database
from bridge.store.queries import counts
from bridge.telemetry.metrics import CONTENT_TYPE, Metrics

# Who may use the admin listener: whoever holds its token, or, where it has none, programs of this machine.
#
# It knows no handler. A page from elsewhere that a browser on this machine has open is nobody (DNS rebinding).


OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Health checks come from anywhere, under any name, and carry no token."""

_OPERATOR = Caller(scheme=AuthScheme.TOKEN, name="operator", routes=None, scopes=frozenset({"status"}))


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
                await Authenticator(credentials, now=clock.now).caller_of(request)
            else:
                _require_local_name(request.host, host)
        return await handler(request)

    return guard


def _require_local_name(header: str, host: str) -> None:
    name = host_name(header)
    if name not in ("localhost", host.lower()) and not _is_loopback(name):
        raise Forbidden(
            f"The Host {quote_for_display(header)} is not the name of this listener. "
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


WAITS = "Until the clock is trusted, nothing is given up or deleted for its age."


class TaskState(Protocol):
    """How one loop of the gateway fares (`bridge.worker.supervisor.SupervisedTask`)."""

    @property
    def name(self) -> str: ...
    @property
    def beat_at(self) -> int: ...
    @property
    def falls(self) -> int: ...
    @property
    def last_error(self) -> str | None: ...


class TaskView(TypedDict):
    """A loop in /readyz: how long ago it last turned, and how often it fell over."""

    name: str
    beat_age_seconds: float
    falls: int
    last_error: str | None


class UpstreamView(TypedDict):
    """A closed gate in /readyz: what is away since when and why, and when it is probed next."""

    name: str
    away_since: str | None  # null: calls fail, but for too few builds to hold all of them back
    failing_since: str | None
    failures: int
    reason: str | None
    next_probe_at: str | None


def admin_app(  # noqa: PLR0913 -- everything it shows, each once
    *,
    database: Database,
    readiness: Readiness,
    metrics: Metrics,
    loops: Callable[[], Sequence[TaskState]],
    operators: Callable[[], AdminConfig],
    archive: Archive | None,
    certificate: Certificate | None,
    host: str,
    clock: Clock,
    trust: Callable[[], Verdict] = trusting,
) -> web.Application:
    """Return the application of the admin listener; `operators` says what holds now."""
    guard = admin_guard(lambda: operators().tokens, host, clock)
    app = web.Application(middlewares=[answer_errors, guard])
    health = _Health(database, readiness, metrics, loops, certificate, clock, trust)
    app.router.add_get("/livez", readiness.livez)
    app.router.add_get("/readyz", health.readyz)
    app.router.add_get("/metrics", health.metrics)
    BuildsApi(database=database, codearts=lambda: operators().codearts, trust=trust).add_routes(app)
    RejectionsApi(database=database, sending=lambda: operators().sending).add_routes(app)
    ReportsApi(database=database, archive=archive).add_routes(app)
    RestoreApi(database=database, max_finalize_delay_us=lambda: operators().max_finalize_delay_us).add_routes(app)
    return app


class _Health:
    """What the gateway knows of itself."""

    def __init__(
        self,
        database: Database,
        readiness: Readiness,
        metrics: Metrics,
        loops: Callable[[], Sequence[TaskState]],
        certificate: Certificate | None,
        clock: Clock,
        trust: Callable[[], Verdict],
    ) -> None:
        self._database = database
        self._readiness = readiness
        self._metrics = metrics
        self._loops = loops
        self._certificate = certificate
        self._clock = clock
        self._trust = trust

    async def readyz(self, _request: web.Request) -> web.Response:
        """Answer 200 or 503 with reasons. Upstreams, loops, the certificate and the clock never turn it red."""
        reasons, breakers = await self._readiness.reasons(), await self._breakers()
        body: dict[str, object] = {
            "ready": not reasons,
            "reasons": reasons,
            "paused": breakers.paused_reason if breakers else None,
            "upstreams": _upstreams(breakers),
            "loops": [self._loop_view(loop) for loop in self._loops()],
            "certificate_fault": self._certificate.fault if self._certificate else None,
        }
        if (doubt := self._trust().reason) is not None:
            body["clock_doubt"] = f"{doubt} {WAITS}"
        return json_answer(body, status=503 if reasons else 200)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Answer in Prometheus' text format; what the ledger cannot say now stays as it was last."""
        now = self._database.now()
        try:
            counted = await self._database.read(counts)
            breakers = await self._database.read(all_breakers)
        except Unavailable:
            pass
        else:
            away = ((breaker.name, breaker.opened_at) for breaker in breakers.known.values())
            self._metrics.away({name: (now - since) / SECOND for name, since in away if since is not None})
            self._metrics.deliveries(counted.deliveries)
            self._metrics.builds(stuck=counted.stuck, blocked=counted.blocked)
        for loop in self._loops():
            self._metrics.heartbeat(loop.name, self._age_seconds(loop))
        if (free := self._readiness.spool_free_bytes()) is not None:
            self._metrics.spool_free(free)
        if self._certificate is not None:
            self._metrics.certificate(refused=self._certificate.fault is not None)
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _breakers(self) -> CircuitBreakers | None:
        """Return all gates; None where the ledger cannot say."""
        try:
            return await self._database.read(all_breakers)
        except Unavailable:
            return None

    def _loop_view(self, loop: TaskState) -> TaskView:
        age = self._age_seconds(loop)
        return {"name": loop.name, "beat_age_seconds": age, "falls": loop.falls, "last_error": loop.last_error}

    def _age_seconds(self, loop: TaskState) -> float:
        return max(0, self._clock.now() - loop.beat_at) / SECOND


def _upstreams(breakers: CircuitBreakers | None) -> list[UpstreamView] | None:
    """Return the upstreams that are away or keep failing; None if the ledger cannot be read."""
    if breakers is None:
        return None
    return [
        _upstream_view(breaker)
        for name, breaker in breakers.known.items()
        if name != RESTORE_PAUSE and (breaker.opened_at is not None or breaker.failures >= OPENS_AFTER)
    ]


def _upstream_view(breaker: CircuitBreaker) -> UpstreamView:
    return {
        "name": breaker.name,
        "away_since": None if breaker.opened_at is None else rfc3339(breaker.opened_at),
        "failing_since": None if breaker.first_failure_at is None else rfc3339(breaker.first_failure_at),
        "failures": breaker.failures,
        "reason": breaker.reason,
        "next_probe_at": None if breaker.probe_at is None else rfc3339(breaker.probe_at),
    }
