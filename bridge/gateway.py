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

from bridge.client.codearts import CodeArts
from bridge.client.guard import StorageRules
from bridge.client.iam import IAM_HEADER_BYTES, Iam
from bridge.client.passing import Passage
from bridge.client.session import GuardedSession
from bridge.client.storage import Storage
from bridge.client.testnod import TestNod
from bridge.clock import Clock, SystemClock
from bridge.domain.acceptance import Acceptance, Entry
from bridge.domain.build import Target
from bridge.domain.gates import Signal, route_gate
from bridge.places import Surroundings, open_archive, open_spool
from bridge.server.admin import admin_app
from bridge.server.app import server_app
from bridge.server.callers import Callers
from bridge.server.checking import Checker
from bridge.server.crowd import Crowd
from bridge.server.hook import Hook
from bridge.server.intake import Intake
from bridge.server.listener import Listener
from bridge.server.proxy.asking import Asking
from bridge.server.proxy.overheard import Overheard
from bridge.server.proxy.proxy import PLACES, Proxy
from bridge.server.quarantine import Quarantine
from bridge.server.readiness import Readiness
from bridge.server.sending import Sending
from bridge.server.status import Status
from bridge.server.tls import Certificate
from bridge.server.under_way import UnderWay
from bridge.settings import Settings
from bridge.store.accepting import accept
from bridge.store.archive import Archive
from bridge.store.blobs import Spool
from bridge.store.connecting import is_postgres
from bridge.store.hints import Look, look_now
from bridge.store.keeping import pinned_routes, probe_now
from bridge.store.ledger import open_ledger
from bridge.store.nudges import Nudges
from bridge.store.upstreams import Told, tell
from bridge.telemetry.metrics import Metrics
from bridge.wiring import (
    microseconds,
    to_account,
    to_allowance,
    to_callers,
    to_certificate,
    to_endpoints,
    to_limits,
    to_policy,
    to_way_out,
)
from bridge.worker.calls import Calls
from bridge.worker.carriers import Carriers
from bridge.worker.janitor import Janitor
from bridge.worker.prober import Prober
from bridge.worker.supervisor import Supervisor
from bridge.worker.upstreams import Upstreams
from bridge.worker.visit import Desk

MAX_NODE_NAME = 40  # of an owner's name, which has room for 64
CUT_OFF_SECONDS = 1.0  # for answers that are being written; what `drain` did not wait for is not waited for again

log = structlog.get_logger(__name__)


class Gateway:
    """A bridge that runs from `async with` to its end; `drain` lets it end politely."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.metrics = Metrics()
        self.server_url = ""
        self.admin_url = ""
        self._under_way = UnderWay()
        self._certificate = to_certificate(settings)
        self._iam: Iam | None = None
        self._nudges: Nudges | None = None  # one gateway on a file of its own has nobody to tell
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

    async def drain(self) -> None:
        """Take no more uploads, finish what is under way for at most `server.drain`, then return.

        The listener stays until then: whoever comes is told that the gateway is stopping, and readiness shows it.
        """
        self.readiness.drain()
        self._carriers.stop()
        try:
            async with asyncio.timeout(self.settings.server.drain.total_seconds()):
                await self._under_way.ended()
                await self._server.close()
                await self._loops
                await self._calls.tails.finish()
        except TimeoutError:
            log.warning("drained only in part; the rest goes on at the next start")

    # -- start ---------------------------------------------------------------------------------------------------

    async def _start(self, ends: AsyncExitStack) -> None:
        settings = self.settings
        checker = await ends.enter_async_context(Checker())  # its processes start before the ledger is open
        ledger = open_ledger(settings.store.url, self.clock, self.metrics.committed)
        self.database = await ends.enter_async_context(ledger)
        around = Surroundings(
            clock=self.clock,
            way_out=to_way_out(settings),
            observer=self.metrics.upstream,
            shared=self.database.shared,
        )
        spool = await ends.enter_async_context(open_spool(settings, around))
        archive = await ends.enter_async_context(open_archive(settings, around))
        self._desk = Desk(
            database=self.database,
            clock=self.clock,
            policy=to_policy(settings),
            lease_us=microseconds(settings.delivery.lease),
            stopping=asyncio.Event(),
        )
        upstreams = await self._upstreams(ends)
        await self._take_over_ledger()
        await self._start_worker(ends, upstreams, spool, archive)
        self.readiness = Readiness(
            database=self.database,
            spool=spool,
            min_free=settings.store.min_free,
            clock=self.clock,
        )
        quarantine = Quarantine(keep_us=microseconds(settings.store.keep_refused), room=self.readiness.space.take)
        await self._listen_to_ci(ends, checker, spool, quarantine)
        sending = Sending(
            database=self.database,
            spool=spool,
            checker=checker,
            quarantine=quarantine,
            routes=self._desk.policy.routes,
            limits=to_limits(settings),
            accept=self._accept,
            admit=self.readiness.admit,
            room=self.readiness.space.take,
        )
        await self._listen_to_operators(ends, upstreams, sending, archive)

    async def _take_over_ledger(self) -> None:
        """Go on where the last owner stopped; routes that went away hold their builds."""
        await self.database.write(probe_now, None)
        known = {route.name for route in self._desk.policy.routes}
        for route in await self.database.read(pinned_routes) - known:
            told = Told(
                gate=route_gate(route), signal=Signal.SHUT, reason="It is not in the settings.", probe_delay_us=0
            )
            await self.database.write(tell, told)

    async def _upstreams(self, ends: AsyncExitStack) -> Upstreams:
        settings = self.settings
        private = settings.testnod.allow_private_storage
        way_out = to_way_out(settings)
        session = partial(GuardedSession, way_out=way_out, observer=self.metrics.upstream)
        testnod = await ends.enter_async_context(session("testnod"))
        storage = await ends.enter_async_context(session("storage", public_only=not private))
        rules = StorageRules(hosts=settings.testnod.storage_hosts, allow_private=private)
        codearts = None
        if settings.codearts.iam_url:
            asking = await ends.enter_async_context(session("iam", header_bytes=IAM_HEADER_BYTES, clock=self.clock.now))
            self._iam = Iam(asking, settings.codearts.iam_url)
        self._account = to_account(settings, self._iam, self.clock)
        if settings.codearts.endpoint:
            asking = await ends.enter_async_context(session("codearts"))
            codearts = CodeArts(asking, settings.codearts.endpoint, self._account)
        return Upstreams(
            testnod=TestNod(testnod, settings.testnod.base_url),
            storage=Storage(storage, rules),
            codearts=codearts,
            project_tokens={route.name: route.project_token for route in settings.routes},
        )

    async def _start_worker(
        self, ends: AsyncExitStack, upstreams: Upstreams, spool: Spool, archive: Archive | None
    ) -> None:
        settings = self.settings
        self._calls = Calls(
            upstreams,
            spool,
            archive,
            self.metrics,
            concurrency=settings.delivery.concurrency,
            polls_a_second=settings.polling.rate,
        )
        lanes = await self.database.read(pinned_routes) | {route.name for route in settings.routes}
        owner = f"{os.uname().nodename[:MAX_NODE_NAME]}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self._carriers = Carriers(self._desk, self._calls, owner=owner, lanes=sorted(lanes))
        self.supervisor = Supervisor(self.clock)
        self.supervisor.add("carriers", self._carriers.run)
        self.supervisor.add("prober", Prober(self._desk, upstreams).run)
        janitor = Janitor(
            desk=self._desk,
            spool=spool,
            archive=archive,
            keep_us=microseconds(settings.store.keep),
            keep_refused_us=microseconds(settings.store.keep_refused),
        )
        self.supervisor.add("janitor", janitor.run)
        if (certificate := self._certificate) is not None:
            watch = partial(certificate.watch, clock=self.clock, stopping=self._desk.stopping)
            self.supervisor.add("certificate", watch)
        if is_postgres(settings.store.url):
            self._nudges = Nudges(
                url=settings.store.url, clock=self.clock, hear=self._carriers.nudge, stopping=self._desk.stopping
            )
            self.supervisor.add("nudges", self._nudges.run)
        self._loops = asyncio.create_task(self.supervisor.run(), name="loops")
        ends.push_async_callback(self._stop_loops)

    async def _stop_loops(self) -> None:
        self._loops.cancel()
        await asyncio.gather(self._loops, return_exceptions=True)

    async def _listen_to_ci(self, ends: AsyncExitStack, checker: Checker, spool: Spool, quarantine: Quarantine) -> None:
        settings = self.settings
        callers = to_callers(settings, self._iam, self.clock)
        intake = Intake(
            routes=self._desk.policy.routes,
            limits=to_limits(settings),
            callers=callers,
            spool=spool,
            checker=checker,
            quarantine=quarantine,
            accept=self._accept,
            admit=self.readiness.admit,
            room=self.readiness.space.take,
            observe=self.metrics,
        )
        status = Status(database=self.database, callers=callers)
        hook = Hook([secret.get_secret_value() for secret in settings.hook.secret], self._look)
        proxy = await self._proxy(ends, callers) if settings.proxy.enabled else None
        app = server_app(intake, status, hook, self.readiness, proxy, settings.server.trusted_proxies)
        self._under_way.watch(app)
        self._server = self._listener(app, settings.server.host, settings.server.port, self._certificate)
        self.server_url = await self._server.start()
        ends.push_async_callback(self._server.close)

    async def _proxy(self, ends: AsyncExitStack, callers: Callers) -> Proxy:
        settings, way_out = self.settings, to_way_out(self.settings)
        passages = {
            upstream: await ends.enter_async_context(Passage(endpoint, places=PLACES, way_out=way_out))
            for upstream, endpoint in to_endpoints(settings).items()
        }
        return Proxy(
            asking=Asking(passages, self._account, callers.is_token_of_bridge),
            callers=callers,
            allowance=to_allowance(settings),
            routes=self._desk.policy.routes,
            overheard=Overheard(self.database),
            observe=self.metrics,
            is_stopping=lambda: self.readiness.draining,
        )

    async def _listen_to_operators(
        self, ends: AsyncExitStack, upstreams: Upstreams, sending: Sending, archive: Archive | None
    ) -> None:
        settings = self.settings
        admin = admin_app(
            database=self.database,
            readiness=self.readiness,
            metrics=self.metrics,
            loops=lambda: self.supervisor.loops,
            codearts=upstreams.codearts,
            sending=sending,
            archive=archive,
            certificate=self._certificate,
            tokens=tuple(token.get_secret_value() for token in settings.admin.token),
            host=settings.admin.host,
            clock=self.clock,
        )
        listener = self._listener(admin, settings.admin.host, settings.admin.port)
        self.admin_url = await listener.start()
        ends.push_async_callback(listener.close)

    def _listener(self, app: web.Application, host: str, port: int, certificate: Certificate | None = None) -> Listener:
        crowd = Crowd(self.metrics.connection_cut)
        return Listener(app, host, port, crowd=crowd, patience_seconds=CUT_OFF_SECONDS, certificate=certificate)

    async def _accept(self, acceptance: Acceptance) -> Entry:
        """Write what an upload brought; the worker may look at once, and would look by itself."""
        if self.settings.store.archive:
            acceptance = replace(acceptance, targets=(Target.TESTNOD, Target.ARCHIVE))
        entry = await self.database.write(accept, acceptance, acceptance.body_size)
        self._nudge()
        return entry

    async def _look(self, look: Look) -> int:
        """Let builds be looked at that the hook named."""
        found = await self.database.write(look_now, look)
        if found:
            self._nudge()
        return found

    def _nudge(self) -> None:
        self._carriers.nudge()
        if self._nudges is not None:
            self._nudges.tell()
