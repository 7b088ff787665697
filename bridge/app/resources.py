"""What lasts from the start of a gateway to its end, whatever a reload changes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.passthrough import UpstreamConnection
from bridge.client.session import GuardedSession
from bridge.clock import Clock
from bridge.domain.intake import AcceptedUpload, UploadReceipt
from bridge.server.auth.signatures import SignatureState
from bridge.server.health import Readiness
from bridge.server.proxy.handler import MAX_CALLS, ConcurrencyLimits
from bridge.server.proxy.headers import Via
from bridge.server.upload.file_store import Quarantine
from bridge.server.validation.pool import ValidationPool
from bridge.server.webhook import RequestPoll
from bridge.store.archive.base import Archive
from bridge.store.blobs.base import Spool
from bridge.store.engine.base import Database
from bridge.telemetry.metrics import Metrics
from bridge.worker.background_tasks import BackgroundTasks
from bridge.worker.clock_skew import LedgerClockCheck


class ProxyConnections:
    """The connections of forwarded calls: opened when an endpoint is configured, closed together at the end."""

    def __init__(self, stack: AsyncExitStack, outbound: OutboundProxy) -> None:
        self._stack = stack
        self._outbound = outbound
        self._open: dict[str, UpstreamConnection] = {}

    async def open(self, endpoint: str) -> UpstreamConnection:
        """Return the connection to `endpoint`, opened at the first call."""
        if endpoint not in self._open:
            connection = UpstreamConnection(endpoint, max_connections=MAX_CALLS, outbound_proxy=self._outbound)
            self._open[endpoint] = await self._stack.enter_async_context(connection)
        return self._open[endpoint]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Ledger, blobs, connections, caches of callers, and what is in flight."""

    clock: Clock
    metrics: Metrics
    database: Database
    clock_check: LedgerClockCheck
    spool: Spool
    archive: Archive | None
    validation: ValidationPool
    quarantine: Quarantine
    readiness: Readiness
    sessions: Mapping[str, GuardedSession]  # by upstream: testnod, storage, codearts, check, iam
    proxy_connections: ProxyConnections
    signature_state: SignatureState
    accept: Callable[[AcceptedUpload], Awaitable[UploadReceipt]]  # commits an upload and wakes the dispatcher
    request_poll: RequestPoll
    via: Via = field(default_factory=Via)
    proxy_limits: ConcurrencyLimits = field(default_factory=ConcurrencyLimits)
    background: BackgroundTasks = field(default_factory=BackgroundTasks)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
