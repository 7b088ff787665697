"""What a gateway stands on from its start to its end, whatever becomes of its settings meanwhile.

It knows what lasts, and nothing of what the settings say of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bridge.client.passing import Passage
from bridge.client.session import GuardedSession
from bridge.client.way_out import WayOut
from bridge.clock import Clock
from bridge.domain.acceptance import Acceptance, Entry
from bridge.server.callers.signatures import SignatureMemory
from bridge.server.checking.checking import Checker
from bridge.server.proxy.headers import Via
from bridge.server.proxy.places import PLACES, Places
from bridge.server.readiness import Readiness
from bridge.server.upload.quarantine import Quarantine
from bridge.store.archives.archive import Archive
from bridge.store.engine.database import Database
from bridge.store.hints import Look
from bridge.store.spools.blobs import Spool
from bridge.telemetry.metrics import Metrics
from bridge.worker.ledger_trust import LedgerTrust
from bridge.worker.mirroring import Beside
from bridge.worker.tails import Tails


@dataclass(frozen=True, kw_only=True, slots=True)
class Sessions:
    """One guarded session for each upstream that the bridge calls by itself."""

    testnod: GuardedSession
    storage: GuardedSession
    codearts: GuardedSession
    check: GuardedSession
    iam: GuardedSession


class Passages:
    """The ways of proxied calls: one for each endpoint that was ever in force, opened when it is, closed together."""

    def __init__(self, ends: AsyncExitStack, way_out: WayOut) -> None:
        self._ends = ends
        self._way_out = way_out
        self._open: dict[str, Passage] = {}

    async def to(self, endpoint: str) -> Passage:
        """Return the way to `endpoint`."""
        if endpoint not in self._open:
            passage = Passage(endpoint, places=PLACES, way_out=self._way_out)
            self._open[endpoint] = await self._ends.enter_async_context(passage)
        return self._open[endpoint]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """Ledger, bytes and connections; what is remembered of callers; what is under way."""

    clock: Clock
    metrics: Metrics
    database: Database
    trust: LedgerTrust
    spool: Spool
    archive: Archive | None
    checker: Checker
    quarantine: Quarantine
    readiness: Readiness
    sessions: Sessions
    passages: Passages
    signed: SignatureMemory
    accept: Callable[[Acceptance], Awaitable[Entry]]
    look: Callable[[Look], Awaitable[int]]
    via: Via = field(default_factory=Via)
    places: Places = field(default_factory=Places)
    tails: Tails = field(default_factory=Tails)
    beside: Beside = field(default_factory=Beside)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
