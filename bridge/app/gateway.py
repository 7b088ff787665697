"""The one place that wires everything together: settings in, a running gateway out.

Every room gets here what it needs and knows nothing of the others; what starts here ends here, in reverse order.
"""

import asyncio
import os
import uuid
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

import structlog
from aiohttp import web

from bridge.app.active_config import ActiveConfig, build_active_config
from bridge.app.backends import BackendContext, open_archive, open_spool
from bridge.app.config_mapping import microseconds, routes_of, to_certificate, to_way_out
from bridge.app.resources import HttpSessions, ProxyConnections, Resources
from bridge.client.iam import IAM_HEADER_BYTES
from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.session import GuardedSession
from bridge.clock import Clock, SystemClock
from bridge.domain.build import SECOND, DeliveryTarget
from bridge.domain.intake import AcceptedUpload, UploadReceipt
from bridge.errors import Unavailable
from bridge.server.admin.app import admin_app
from bridge.server.app import server_app
from bridge.server.auth.signatures import SignatureState
from bridge.server.health import Readiness
from bridge.server.http.connection_limits import ConnectionLimiter
from bridge.server.http.listener import InFlightRequests, Listener
from bridge.server.http.tls import Certificate
from bridge.server.upload.quarantine import Quarantine
from bridge.server.upload.spool_recovery import SpoolRecovery
from bridge.server.validation.pool import ValidationPool
from bridge.settings import Settings
from bridge.store.blobs.base import hour_of
from bridge.store.circuit_breakers import make_probes_due, wake_waiting_builds
from bridge.store.engine.notifications import Notifier
from bridge.store.engine.postgres import is_postgres
from bridge.store.leases import PollRequest, request_poll
from bridge.store.ledger import open_ledger
from bridge.store.restore_pause import pause_ledger, paused_since
from bridge.store.uploads import accept
from bridge.telemetry.metrics import Metrics
from bridge.worker.circuit_probe import CircuitProber, trip_breakers_of_removed_routes
from bridge.worker.cleanup import Cleanup
from bridge.worker.clock_skew import ClockSkewMonitor, LedgerClockCheck
from bridge.worker.dispatcher import Dispatcher
from bridge.worker.supervisor import Supervisor

MAX_NODE_NAME = 40  # of an owner's name, which has room for 64
SHARED_SPOOL_US = 24 * 3600 * SECOND  # younger bytes on a shared ledger may belong to uploads still coming in
SPOOL_AHEAD_US = 24 * 3600 * SECOND  # a clock that was set back must not hide what was begun before
CUT_OFF_SECONDS = 1.0  # for answers that are being written; what `drain` did not wait for is not waited for again

log = structlog.get_logger(__name__)


class Gateway:
    """A bridge that runs from `async with` to its end; `drain` lets it end politely."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None, held: bool = False) -> None:
        self._first = settings
        self._held = held
        self._in_force: ActiveConfig
        self.clock = clock or SystemClock()
        self.metrics = Metrics()
        self.server_url = ""
        self.admin_url = ""
        self._under_way = InFlightRequests()
        self._certificate = to_certificate(settings)
        self._nudges: Notifier | None = None  # one gateway on a file of its own has nobody to tell
        self._ends = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as ends:
            await self._start(ends)
            self._ends = ends.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._ends.aclose()

    @property
    def settings(self) -> Settings:
        """The settings that are in force now."""
        return self._in_force.settings

    async def drain(self) -> None:
        """Take no more uploads, finish what is under way for at most `server.drain`, then return.

        The listener stays until then: whoever comes is told that the gateway is stopping, and readiness shows it.
        """
        self.readiness.drain()
        self._carriers.stop()
        if self._nudges is not None:
            self._nudges.notify()  # other gateways take over; and its own loop wakes up and sees that it ends
        try:
            async with asyncio.timeout(self.settings.server.drain.total_seconds()):
                await self._under_way.ended()
                await self._server.close()
                await self._loops
                await self._ground.tails.finish()
                await self._ground.beside.finish()
        except TimeoutError:
            log.warning("drained only in part; the rest goes on at the next start")

    async def put_in_force(self, settings: Settings) -> None:
        """Go by `settings` from now on; raise BridgeError, and nothing has changed. What needs a restart must be equal.

        Requests and visits under way end as they began.
        """
        before = self._in_force
        self._in_force = await build_active_config(settings, self._ground, before)
        if self._certificate is not None:
            await self._certificate.look()
        try:
            await self._go_on()
            await self.database.transact(wake_waiting_builds)
        except Unavailable as error:
            log.warning("builds that wait look at the new settings by themselves, later", error=str(error))
        self._carriers.nudge()

    # -- start ---------------------------------------------------------------------------------------------------

    async def _start(self, ends: AsyncExitStack) -> None:
        settings = self._first
        self._ground = await self._lay_ground(settings, ends)
        self._in_force = await build_active_config(settings, self._ground)
        await self._go_on()
        await self._take_over_restored(settings)
        await self._start_worker(settings, ends)
        await self._listen_to_ci(settings, ends)
        await self._listen_to_operators(settings, ends)

    async def _go_on(self) -> None:
        """Go on where the last owner, or the last settings, stopped; routes that went away hold their builds."""
        await self.database.transact(make_probes_due)
        await trip_breakers_of_removed_routes(self.database, self._in_force.shift.desk.policy)

    async def _lay_ground(self, settings: Settings, ends: AsyncExitStack) -> Resources:
        checker = await ends.enter_async_context(ValidationPool())  # its processes start before the ledger is open
        ledger = open_ledger(settings.store.url, self.clock, self.metrics.committed)
        self.database = await ends.enter_async_context(ledger)
        trust = LedgerClockCheck(self.database, self.clock)
        await trust.begin()
        way_out = await asyncio.to_thread(to_way_out, settings)
        around = BackendContext(
            clock=self.clock,
            way_out=way_out,
            observer=self.metrics.upstream,
            shared=self.database.shared,
            now=self.database.now,
            dated=trust.heard,
        )
        spool = await ends.enter_async_context(open_spool(settings, around))
        archive = await ends.enter_async_context(open_archive(settings, around))
        self.readiness = Readiness(
            database=self.database,
            spool=spool,
            min_free=settings.store.min_free,
            clock=self.clock,
        )
        return Resources(
            clock=self.clock,
            metrics=self.metrics,
            database=self.database,
            trust=trust,
            spool=spool,
            archive=archive,
            checker=checker,
            quarantine=Quarantine(keep_us=microseconds(settings.store.keep_refused), room=self.readiness.space.take),
            readiness=self.readiness,
            sessions=await self._sessions(settings, way_out, trust, ends),
            passages=ProxyConnections(await ends.enter_async_context(AsyncExitStack()), way_out),
            signed=SignatureState(self.clock.now),
            accept=self._accept,
            look=self._look,
        )

    async def _take_over_restored(self, settings: Settings) -> None:
        """Hold the ledger where that is asked for; what a held one does not know of its spool becomes reports again."""
        if self._held:
            await self.database.transact(pause_ledger)
        if await self.database.read(paused_since) is None:
            return
        adopter = SpoolRecovery(
            database=self.database,
            spool=self._ground.spool,
            checker=self._ground.checker,
            targets=self._targets,
            routes_of=partial(routes_of, settings),
        )
        # Nobody uploads yet; on a shared ledger others do, whose bytes come before their rows.
        before = self.database.now() + (-SHARED_SPOOL_US if self.database.shared else SPOOL_AHEAD_US)
        adopted, left = await adopter.adopt(hour_of(before))
        log.warning("the ledger is held: nothing is sent until `bridge resume`", adopted=adopted, left=left)

    @property
    def _targets(self) -> tuple[DeliveryTarget, ...]:
        return (
            (DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE)
            if self.settings.store.archive
            else (DeliveryTarget.TESTNOD,)
        )

    async def _sessions(
        self, settings: Settings, way_out: OutboundProxy, trust: LedgerClockCheck, ends: AsyncExitStack
    ) -> HttpSessions:
        session = partial(
            GuardedSession,
            way_out=way_out,
            observer=self.metrics.upstream,
            clock=self.database.now,  # when a URL ends is compared with the ledger's time
            dated=trust.heard,
        )
        public_only = not settings.testnod.allow_private_storage
        return HttpSessions(
            testnod=await ends.enter_async_context(session("testnod")),
            storage=await ends.enter_async_context(session("storage", public_only=public_only)),
            codearts=await ends.enter_async_context(session("codearts")),
            check=await ends.enter_async_context(session("check")),
            iam=await ends.enter_async_context(session("iam", header_bytes=IAM_HEADER_BYTES, clock=self.clock.now)),
        )

    async def _start_worker(self, settings: Settings, ends: AsyncExitStack) -> None:
        ground = self._ground
        owner = f"{os.uname().nodename[:MAX_NODE_NAME]}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self._carriers = Dispatcher(lambda: self._in_force.shift, owner=owner)
        self.supervisor = Supervisor(self.clock)
        self.supervisor.add("carriers", self._carriers.run)
        self.supervisor.add("prober", CircuitProber(lambda: self._in_force.shift).run)
        janitor = Cleanup(
            desk=self._in_force.shift.desk,
            spool=ground.spool,
            archive=ground.archive,
            keep_us=microseconds(settings.store.keep),
            keep_refused_us=microseconds(settings.store.keep_refused),
        )
        self.supervisor.add("janitor", janitor.run)
        self.supervisor.add("clock", ClockSkewMonitor(self._in_force.shift.desk, ground.trust).run)
        if (certificate := self._certificate) is not None:
            watch = partial(certificate.watch, clock=self.clock, stopping=ground.stopping)
            self.supervisor.add("certificate", watch)
        if is_postgres(settings.store.url):
            self._nudges = Notifier(
                url=settings.store.url, clock=self.clock, notified=self._carriers.nudge, stopping=ground.stopping
            )
            self.supervisor.add("nudges", self._nudges.run)
        self._loops = asyncio.create_task(self.supervisor.run(), name="loops")
        ends.push_async_callback(self._stop_loops)

    async def _stop_loops(self) -> None:
        self._loops.cancel()
        await asyncio.gather(self._loops, return_exceptions=True)
        await self._ground.beside.stop()

    async def _listen_to_ci(self, settings: Settings, ends: AsyncExitStack) -> None:
        app = server_app(lambda: self._in_force.counter, self.readiness)
        self._under_way.watch(app)
        self._server = self._listener(app, settings.server.host, settings.server.port, self._certificate)
        self.server_url = await self._server.start()
        ends.push_async_callback(self._server.close)

    async def _listen_to_operators(self, settings: Settings, ends: AsyncExitStack) -> None:
        admin = admin_app(
            database=self.database,
            readiness=self.readiness,
            metrics=self.metrics,
            loops=lambda: self.supervisor.loops,
            operators=lambda: self._in_force.operators,
            archive=self._ground.archive,
            certificate=self._certificate,
            trust=self._ground.trust.verdict,
            host=settings.admin.host,
            clock=self.clock,
        )
        listener = self._listener(admin, settings.admin.host, settings.admin.port)
        self.admin_url = await listener.start()
        ends.push_async_callback(listener.close)

    def _listener(self, app: web.Application, host: str, port: int, certificate: Certificate | None = None) -> Listener:
        crowd = ConnectionLimiter(self.metrics.connection_cut)
        return Listener(app, host, port, crowd=crowd, patience_seconds=CUT_OFF_SECONDS, certificate=certificate)

    async def _accept(self, acceptance: AcceptedUpload) -> UploadReceipt:
        """Write what an upload brought; the worker may look at once, and would look by itself."""
        acceptance = replace(acceptance, targets=self._targets)
        entry = await self.database.write(accept, acceptance, acceptance.body_size)
        self._nudge()
        return entry

    async def _look(self, look: PollRequest) -> int:
        """Let builds be looked at that the hook named."""
        found = await self.database.write(request_poll, look)
        if found:
            self._nudge()
        return found

    def _nudge(self) -> None:
        self._carriers.nudge()
        if self._nudges is not None:
            self._nudges.notify()
