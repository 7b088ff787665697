"""The gateway: start, drain, stop, and the swap of the configuration in between. Read it from top to bottom."""
# ruff: noqa: PLC0415 -- drivers are imported if the settings need them

import asyncio
import platform
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog
from aiohttp import web

from bridge.app.active_config import ActiveConfig, build_active_config
from bridge.app.config_mapping import microseconds, routes_of, to_certificate, to_outbound_proxy
from bridge.app.notices import open_notice_client
from bridge.app.resources import BackendContext, ProxyConnections, Resources, open_archive, open_spool
from bridge.app.start_errors import blamed_on_listener, require_reach
from bridge.app.tracing import open_tracing
from bridge.client.iam import IAM_HEADER_BYTES
from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.session import GuardedSession
from bridge.clock import Clock, SystemClock
from bridge.domain.build import DeliveryTarget
from bridge.domain.circuit_breaker import CircuitBreaker
from bridge.domain.instants import SECOND
from bridge.domain.intake import AcceptedUpload, UploadReceipt
from bridge.domain.notice_events import events_of_upload
from bridge.domain.request_rate import Api, RequestRate
from bridge.errors import Unavailable
from bridge.server.admin.app import admin_app
from bridge.server.app import server_app
from bridge.server.auth.fair_queue import MAX_CHECKS
from bridge.server.auth.signatures import Lockout
from bridge.server.health import Readiness
from bridge.server.http.connections import ConnectionLimiter
from bridge.server.http.listener import InFlightRequests, Listener, connection_limits
from bridge.server.http.passed_sockets import PassedSockets
from bridge.server.http.tls import Certificate
from bridge.server.upload.file_store import Quarantine
from bridge.server.upload.spool_recovery import SpoolRecovery
from bridge.server.validation.pool import ValidationPool
from bridge.settings import Settings
from bridge.settings.model import AdminSettings, ServerSettings
from bridge.store.blobs.base import hour_of
from bridge.store.circuit_breakers import make_probes_due, wake_waiting_builds
from bridge.store.engine.forked_writer import SpareWriter
from bridge.store.engine.postgres_url import is_postgres
from bridge.store.leases import PollRequest, request_poll
from bridge.store.ledger import open_ledger
from bridge.store.operator_actions import Actor, record_action
from bridge.store.restore_pause import pause_ledger, paused_since
from bridge.store.submissions import accept_submitted
from bridge.store.uploads import accept
from bridge.telemetry.instance import new_instance
from bridge.telemetry.logs import redact_text
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.traces import call_span
from bridge.worker.background_tasks import Supervisor
from bridge.worker.circuit_probe import CircuitProber, trip_breakers_of_removed_routes
from bridge.worker.cleanup import Cleanup
from bridge.worker.clock_skew import ClockSkewMonitor, LedgerClockCheck
from bridge.worker.dispatcher import Dispatcher
from bridge.worker.notice_faults import events_or_none
from bridge.worker.notices import CertificateEnd, NoticeSender
from bridge.worker.own_faults import OwnFaults
from bridge.worker.status_poller import StatusPoller
from bridge.worker.submission_expiry import SubmissionExpiry

if TYPE_CHECKING:
    from bridge.store.engine.notifications import Notifier
    from bridge.telemetry.otel import Tracer

SHARED_SPOOL_US = 24 * 3600 * SECOND  # younger blobs of a shared ledger may belong to uploads that are still arriving
CLOCK_AHEAD_US = 24 * 3600 * SECOND  # a clock that was set back must not hide blobs that were begun before
MAX_DETAIL_CHARACTERS = 2_000  # of the changes of a reload in the audit log
IAM_CONNECTIONS = MAX_CHECKS + 2  # each check of a caller's token that has its turn, and the bridge's own login
CLOSE_SECONDS = 1.0  # for responses that are being written; `drain` has waited for requests already

log = structlog.get_logger(__name__)


class Gateway:
    """A bridge that runs inside `async with`. Call `drain` before the end to finish what is in flight.

    With `paused`, the ledger sends nothing until `bridge resume`. `spare` becomes the writer of a SQLite ledger.
    `instance` is its name in leases, log lines and traces, by default a new one.
    Listeners use `sockets` if there are any for them, else host and port of the settings.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        paused: bool = False,
        spare: SpareWriter | None = None,
        instance: str = "",
        sockets: PassedSockets | None = None,
    ) -> None:
        self._initial_settings = settings
        self._paused = paused
        self._spare = spare
        self._sockets = sockets or {}
        self._config: ActiveConfig
        self.clock = clock or SystemClock()
        self.instance = instance or new_instance()
        self.metrics = Metrics()
        self.server_url = ""
        self.admin_url = ""
        self._in_flight = InFlightRequests()
        self._certificate = to_certificate(settings)
        self._notifier: Notifier | None = None  # only for a ledger that several gateways share
        self._stack = AsyncExitStack()

    @property
    def settings(self) -> Settings:
        """The current settings."""
        return self._config.settings

    # -- start ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            settings = self._initial_settings
            self._resources = await self._open_resources(settings, stack)
            self._config = await build_active_config(settings, self._resources)
            await self._recover_state()
            await self._recover_spool(settings)
            await self._start_worker(settings, stack)
            await self._start_listeners(settings, stack)
            self._stack = stack.pop_all()
        return self

    async def _open_resources(self, settings: Settings, stack: AsyncExitStack) -> Resources:
        validation = await stack.enter_async_context(ValidationPool())
        ledger = open_ledger(settings.store.url, self.clock, self.metrics.observe_commit, spare=self._spare)
        self.database = await stack.enter_async_context(ledger)
        clock_check = LedgerClockCheck(self.database, self.clock)
        await clock_check.start()
        outbound = await asyncio.to_thread(to_outbound_proxy, settings)
        context = BackendContext(
            clock=self.clock,
            outbound_proxy=outbound,
            observer=self.metrics.observe_call,
            shared=self.database.shared,
            now=self.database.now,
            dated=clock_check.record_date,
        )
        spool = await stack.enter_async_context(open_spool(settings, context))
        archive = await stack.enter_async_context(open_archive(settings, context))
        self.readiness = Readiness(
            database=self.database,
            spool=spool,
            min_free=settings.store.min_free_space,
            clock=self.clock,
            validation_fault=validation.fault,
        )
        return Resources(
            clock=self.clock,
            metrics=self.metrics,
            database=self.database,
            clock_check=clock_check,
            spool=spool,
            archive=archive,
            validation=validation,
            quarantine=Quarantine(
                keep_us=microseconds(settings.store.rejected_retention), reserve_space=self.readiness.space.reserve
            ),
            readiness=self.readiness,
            sessions=await self._open_sessions(settings, outbound, clock_check, stack),
            proxy_connections=ProxyConnections(await stack.enter_async_context(AsyncExitStack()), outbound),
            lockout=Lockout(self.clock.steady),
            tracer=await self._open_tracer(stack),
            accept=self._accept,
            request_poll=self._request_poll,
            own_faults=OwnFaults(shared=self.database.shared, wake_others=self._notify_others),
        )

    async def _open_tracer(self, stack: AsyncExitStack) -> "Tracer | None":
        tracer = await asyncio.to_thread(open_tracing, self.instance)  # imports much
        if tracer is not None:
            stack.push_async_callback(tracer.close)
        return tracer

    async def _open_sessions(
        self, settings: Settings, outbound: OutboundProxy, clock_check: LedgerClockCheck, stack: AsyncExitStack
    ) -> dict[str, GuardedSession]:
        session = partial(
            GuardedSession,
            outbound_proxy=outbound,
            observer=self.metrics.observe_call,
            clock=self.database.now,  # the expiry of a URL is compared with the ledger's time
            dated=clock_check.record_date,
            traced=call_span,
        )
        public_only = not settings.testnod.allow_private_storage
        sessions = {
            "testnod": session("testnod"),
            "storage": session("storage", public_only=public_only),
            "codearts": session("codearts"),
            "check": session("check"),
            "iam": session("iam", connections=IAM_CONNECTIONS, header_bytes=IAM_HEADER_BYTES, clock=self.clock.now),
        }
        return {name: await stack.enter_async_context(opened) for name, opened in sessions.items()}

    async def _recover_state(self) -> None:
        """Make probes due that the last owner did not make, and open the breakers of removed routes."""
        await self.database.transact(make_probes_due)
        await trip_breakers_of_removed_routes(self.database, self._config.worker.policy)

    async def _recover_spool(self, settings: Settings) -> None:
        """If the ledger is paused, turn blobs that it has no row for into reports again."""
        if self._paused:
            await self.database.transact(pause_ledger)
        if await self.database.read(paused_since) is None:
            return
        recovery = SpoolRecovery(
            database=self.database,
            spool=self._resources.spool,
            pool=self._resources.validation,
            targets=self._targets,
            routes_of=partial(routes_of, settings),
        )
        # This gateway accepts no uploads yet; others on a shared ledger do, and their blobs come before their rows.
        before = self.database.now() + (-SHARED_SPOOL_US if self.database.shared else CLOCK_AHEAD_US)
        adopted, left = await recovery.recover(hour_of(before))
        log.warning("ledger_paused", adopted=adopted, left=left)

    async def _start_worker(self, settings: Settings, stack: AsyncExitStack) -> None:
        resources, stopping = self._resources, self._resources.stopping
        self._dispatcher = Dispatcher(lambda: self._config.worker, owner=self.instance)
        cleanup = Cleanup(
            database=self.database,
            clock=self.clock,
            stopping=stopping,
            spool=resources.spool,
            archive=resources.archive,
            keep_us=microseconds(settings.store.retention),
            keep_rejected_us=microseconds(settings.store.rejected_retention),
            keep_rows_us=None if settings.store.row_retention is None else microseconds(settings.store.row_retention),
            keeps_for_replacement=lambda: self._config.worker.policy.replace_stuck_runs,
            clock_verdict=resources.clock_check.check,
        )
        clock_skew = ClockSkewMonitor(
            database=self.database,
            clock=self.clock,
            stopping=stopping,
            policy=lambda: self._config.worker.policy,
            check=resources.clock_check,
        )
        self.supervisor = Supervisor(self.clock)
        self.supervisor.add("dispatcher", self._dispatcher.run)
        self.supervisor.add("circuit_probe", CircuitProber(lambda: self._config.worker).run)
        self.supervisor.add("cleanup", cleanup.run)
        self.supervisor.add("clock_skew", clock_skew.run)
        expiry = SubmissionExpiry(
            database=self.database,
            clock=self.clock,
            stopping=stopping,
            clock_verdict=resources.clock_check.check,
            wake=self._wake_dispatchers,
        )
        self.supervisor.add("submission_expiry", expiry.run)
        notices = NoticeSender(
            database=self.database,
            clock=self.clock,
            stopping=stopping,
            config=lambda: self._config.notices,
            client=await open_notice_client(await asyncio.to_thread(to_outbound_proxy, settings), stack),
            metrics=self.metrics,
            redact=redact_text,
            certificate=self._certificate_end,
        )
        self.supervisor.add("notices", notices.run)
        self._poller = StatusPoller(lambda: self._config.worker, resources.poller, self._wake_dispatchers)
        self.supervisor.add("status_poller", self._poller.run)
        if self._certificate is not None:
            watch = partial(self._certificate.watch, clock=self.clock, stopping=stopping)
            self.supervisor.add("certificate", watch)
        if is_postgres(settings.store.url):
            from bridge.store.engine.notifications import Notifier

            self._notifier = Notifier(
                url=settings.store.url, clock=self.clock, notified=self._dispatcher.wake, stopping=stopping
            )
            self.supervisor.add("notifications", self._notifier.run)
        self._tasks = asyncio.create_task(self.supervisor.run(), name="supervisor")
        stack.push_async_callback(self._stop_worker)

    async def _start_listeners(self, settings: Settings, stack: AsyncExitStack) -> None:
        app = server_app(lambda: self._config.server, self.readiness, self._resources.tracer)
        self._in_flight.track(app)
        connections, admin_connections = connection_limits()
        self._server = self._listener(app, "server", settings.server, connections, self._certificate)
        with blamed_on_listener("server", settings.server.host, settings.server.port):
            self.server_url = await self._server.start()
        stack.push_async_callback(self._server.close)
        admin = admin_app(
            database=self.database,
            readiness=self.readiness,
            metrics=self.metrics,
            tasks=lambda: self.supervisor.tasks,
            config=lambda: self._config.server,
            archive=self._resources.archive,
            spool=self._resources.spool,
            certificate=self._certificate,
            clock_verdict=self._resources.clock_check.check,
            own_breakers=self._own_breakers,
            wake=self._wake_dispatchers,
            rates=self._codearts_rates,
            host=settings.admin.host,
            clock=self.clock,
        )
        listener = self._listener(admin, "admin", settings.admin, admin_connections)
        with blamed_on_listener("admin", settings.admin.host, settings.admin.port):
            self.admin_url = await listener.start()
        stack.push_async_callback(listener.close)

    def _listener(
        self,
        app: web.Application,
        name: str,
        table: ServerSettings | AdminSettings,
        connections: int,
        certificate: Certificate | None = None,
    ) -> Listener:
        passed = self._sockets.get(name, [])
        require_reach(name, table.host, passed)
        return Listener(
            app,
            table.host,
            table.port,
            limiter=ConnectionLimiter(self.metrics.count_closed_connection, max_connections=connections),
            shutdown_seconds=CLOSE_SECONDS,
            certificate=certificate,
            passed=passed,
        )

    def _own_breakers(self) -> list[CircuitBreaker]:
        return self._resources.own_faults.breakers(self._config.worker.clients.credential_digests)

    def _certificate_end(self) -> CertificateEnd | None:
        """Return when the certificate that is in use ends; None for plain HTTP."""
        certificate = self._certificate
        if certificate is None or certificate.ends_at is None:
            return None
        path = self.settings.server.tls_cert_file
        return CertificateEnd(ends_at=certificate.ends_at, fingerprint=certificate.fingerprint, path=path)

    def _codearts_rates(self) -> Mapping[Api, RequestRate]:
        rates = self._config.worker.rates
        return {} if rates is None or self._config.worker.clients.codearts is None else rates.known

    # -- while it runs -------------------------------------------------------------------------------------------

    async def apply_settings(self, settings: Settings) -> None:
        """Use `settings` from now on; raise BridgeError if that is not possible, in which case nothing changes.

        Settings that need a restart must equal the current ones. Requests and reconciliations in flight keep the
        configuration they began with.
        """
        self._config = await build_active_config(settings, self._resources, self._config)
        self._resources.own_faults.forget_left()
        if self._certificate is not None:
            await self._certificate.refresh()
        try:
            await self._recover_state()
            await self.database.transact(wake_waiting_builds)
        except Unavailable as error:
            log.warning("waiting_builds_not_woken", error=str(error))
        self._dispatcher.wake()

    async def record_reload(self, changed: Mapping[str, str]) -> None:
        """Write to the audit log which settings a reload changed; if the ledger is away, only the log has them."""
        detail = "; ".join(f"{key}: {change}" for key, change in changed.items())
        gateway = Actor(name="gateway", role="gateway", address=platform.node()[:64], proof="the gateway itself")
        with suppress(Unavailable):
            await self.database.write(record_action, (gateway, "reload", "settings", detail[:MAX_DETAIL_CHARACTERS]))

    async def _accept(self, upload: AcceptedUpload) -> UploadReceipt:
        """Commit an upload, with the events that it causes, and wake the dispatcher if its build may be due."""
        worker = self._config.worker
        if notices := events_or_none(lambda: events_of_upload(upload, worker.policy.routes, worker.notices)):
            upload = replace(upload, notices=notices)
        if upload.targets != self._targets:
            upload = replace(upload, targets=self._targets)
        function = accept_submitted if isinstance(upload.build_no, str) else accept
        receipt = await self.database.write(function, upload, upload.body_size)
        if receipt.may_be_due:
            self._wake_dispatchers()
        return receipt

    async def _request_poll(self, poll: PollRequest) -> int:
        """Make the builds that a webhook names due for a poll; return how many there are."""
        builds = await self.database.write(request_poll, poll)
        if builds:
            self._wake_dispatchers()
        return builds

    def _wake_dispatchers(self) -> None:
        """Wake this gateway's dispatcher, and those of other gateways on a shared ledger."""
        self._dispatcher.wake()
        self._notify_others()

    def _notify_others(self) -> None:
        if self._notifier is not None:
            self._notifier.notify()

    @property
    def _targets(self) -> tuple[DeliveryTarget, ...]:
        if self.settings.store.archive:
            return (DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE)
        return (DeliveryTarget.TESTNOD,)

    # -- drain and stop ------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Accept no more uploads, finish what is in flight within `server.shutdown_timeout`, then return.

        The listener stays open until then, so that clients get an answer and readiness shows that the gateway stops.
        If its sockets were passed, new connections wait for the next process instead, and no upload is rejected.
        """
        self.readiness.drain(rejects=not self._server.outlives_process)
        self._dispatcher.stop()
        self._poller.stop()
        if self._notifier is not None:
            self._notifier.notify()  # other gateways take over, and the notifier's own loop sees `stopping`
        try:
            async with asyncio.timeout(self.settings.server.shutdown_timeout.total_seconds()):
                if self._server.outlives_process:
                    await self._server.stop_accepting()
                await self._in_flight.wait_until_none()
                await self._server.close()
                await self._tasks
                await self._resources.background.finish()
        except TimeoutError:
            log.warning("drain_incomplete")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _stop_worker(self) -> None:
        self._tasks.cancel()
        await asyncio.gather(self._tasks, return_exceptions=True)
        await self._resources.background.cancel()
