"""What a gateway stands on from its start to its end, whatever becomes of its settings meanwhile.

It knows what lasts, and nothing of what the settings say of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.passthrough import UpstreamConnection
from bridge.client.session import GuardedSession
from bridge.clock import Clock
from bridge.domain.intake import AcceptedUpload, UploadReceipt
from bridge.server.auth.signatures import SignatureState
from bridge.server.health import Readiness
from bridge.server.proxy.handler import PLACES, ConcurrencyLimits
from bridge.server.proxy.headers import Via
from bridge.server.upload.quarantine import Quarantine
from bridge.server.validation.pool import ValidationPool
from bridge.store.archive.base import Archive
from bridge.store.blobs.base import Spool
from bridge.store.engine.base import Database
from bridge.store.leases import PollRequest
from bridge.telemetry.metrics import Metrics
from bridge.worker.background_tasks import UncancellableTasks
from bridge.worker.clock_skew import LedgerClockCheck
from bridge.worker.mirror_upload import BackgroundTasks


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSessions:
    """One guarded session for each upstream that the bridge calls by itself."""

    testnod: GuardedSession
    storage: GuardedSession
    codearts: GuardedSession
    check: GuardedSession
    iam: GuardedSession


class ProxyConnections:
    """The ways of proxied calls: one for each endpoint that was ever in force, opened when it is, closed together."""

    def __init__(self, ends: AsyncExitStack, way_out: OutboundProxy) -> None:
        self._ends = ends
        self._way_out = way_out
        self._open: dict[str, UpstreamConnection] = {}

    async def to(self, endpoint: str) -> UpstreamConnection:
        """Return the way to `endpoint`."""
        if endpoint not in self._open:
            passage = UpstreamConnection(endpoint, places=PLACES, way_out=self._way_out)
            self._open[endpoint] = await self._ends.enter_async_context(passage)
        return self._open[endpoint]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Ledger, bytes and connections; what is remembered of callers; what is under way."""

    clock: Clock
    metrics: Metrics
    database: Database
    trust: LedgerClockCheck
    spool: Spool
    archive: Archive | None
    checker: ValidationPool
    quarantine: Quarantine
    readiness: Readiness
    sessions: HttpSessions
    passages: ProxyConnections
    signed: SignatureState
    accept: Callable[[AcceptedUpload], Awaitable[UploadReceipt]]
    look: Callable[[PollRequest], Awaitable[int]]
    via: Via = field(default_factory=Via)
    places: ConcurrencyLimits = field(default_factory=ConcurrencyLimits)
    tails: UncancellableTasks = field(default_factory=UncancellableTasks)
    beside: BackgroundTasks = field(default_factory=BackgroundTasks)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
