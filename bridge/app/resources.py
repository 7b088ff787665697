"""What lasts from the start of a gateway to its end, whatever a reload changes."""
# ruff: noqa: PLC0415 -- the library for S3 is imported if the settings name S3

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.app.start_errors import blamed_on_path
from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.passthrough import UpstreamConnection
from bridge.client.presigned_put import PresignedUploader
from bridge.client.session import CallObserver, DateObserver, GuardedSession, Timeouts
from bridge.client.ssrf_guard import StorageUrlPolicy
from bridge.clock import Clock
from bridge.domain.intake import AcceptedUpload, UploadReceipt
from bridge.server.auth.signatures import Lockout
from bridge.server.compression.decompress import DecompressionMemory
from bridge.server.health import Readiness
from bridge.server.proxy.headers import Via
from bridge.server.proxy.places import MAX_CALLS, MAX_UNVERIFIED, CallPlaces
from bridge.server.upload.file_store import Quarantine
from bridge.server.upload.unproven_bodies import UnprovenBodies
from bridge.server.validation.pool import ValidationPool
from bridge.server.webhook import RequestPoll
from bridge.settings import Settings
from bridge.settings.rules import S3Location, s3_location
from bridge.store.archive.base import Archive
from bridge.store.archive.disk import DiskArchive
from bridge.store.archive.s3 import S3Archive
from bridge.store.blobs.base import Spool
from bridge.store.blobs.disk import DiskSpool
from bridge.store.blobs.s3 import ObjectStore, S3Spool
from bridge.store.blobs.temp_file import TempFolder
from bridge.store.engine.base import Database
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.traces import call_span
from bridge.values import dataclass
from bridge.worker.background_tasks import BackgroundTasks
from bridge.worker.clock_skew import LedgerClockCheck
from bridge.worker.own_faults import OwnFaults
from bridge.worker.recent_calls import RecentCalls
from bridge.worker.status_poller import PollerWaker

if TYPE_CHECKING:
    from bridge.telemetry.otel import Tracer


class ProxyConnections:
    """The connections of forwarded calls: opened when an endpoint is configured, closed together at the end."""

    def __init__(self, stack: AsyncExitStack, outbound: OutboundProxy) -> None:
        self._stack = stack
        self._outbound = outbound
        self._open: dict[str, UpstreamConnection] = {}

    async def open(self, endpoint: str) -> UpstreamConnection:
        """Return the connection to `endpoint`, opened at the first call."""
        if endpoint not in self._open:
            connections = MAX_CALLS + 2 * MAX_UNVERIFIED  # and as many uploads whose signature may be a copy
            connection = UpstreamConnection(endpoint, max_connections=connections, outbound_proxy=self._outbound)
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
    lockout: Lockout
    tracer: "Tracer | None"
    accept: Callable[[AcceptedUpload], Awaitable[UploadReceipt]]  # commits an upload and wakes the dispatcher
    request_poll: RequestPoll
    via: Via = field(default_factory=Via)
    call_places: CallPlaces = field(default_factory=CallPlaces)
    unproven_bodies: UnprovenBodies = field(default_factory=UnprovenBodies)
    decompression_memory: DecompressionMemory = field(default_factory=DecompressionMemory)
    own_faults: OwnFaults = field(default_factory=OwnFaults)
    recent_calls: RecentCalls = field(default_factory=RecentCalls)
    poller: PollerWaker = field(default_factory=PollerWaker)
    background: BackgroundTasks = field(default_factory=BackgroundTasks)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


LIMITS = Timeouts(connect_seconds=5, read_seconds=10, total_seconds=20)
"""S3 answers in a tenth of a second. An upload waits for it, so these limits are shorter than for TestNod's storage."""

STALL_SECONDS = 10.0
OWN_RULES = StorageUrlPolicy(allow_private=True)  # the operator configured this server, so it may be private


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendContext:
    """What opening a spool or an archive needs beside the settings."""

    clock: Clock
    outbound_proxy: OutboundProxy
    observer: CallObserver
    shared: bool  # other gateways may use the same folder
    now: Callable[[], int]  # the ledger's time
    dated: DateObserver  # receives the Date of every answer


@asynccontextmanager
async def open_spool(settings: Settings, around: BackendContext) -> AsyncIterator[Spool]:
    """Open the spool that `store.spool` names, and remove temporary files that a crash left in it."""
    async with AsyncExitStack() as ends:
        location = s3_location(settings.store.spool)
        spool: Spool
        if location is None:
            folder = await _make_folder("store.spool", settings.store.spool)
            spool = DiskSpool(folder, shared=around.shared, now=around.now)
        else:
            scratch = await asyncio.to_thread(TempFolder)
            ends.callback(scratch.close)
            bucket = await open_bucket(ends, settings, location, around)
            spool = S3Spool(bucket, scratch, around.clock, around.now, location=settings.store.spool)
        await spool.sweep_temporaries()
        yield spool


@asynccontextmanager
async def open_archive(settings: Settings, around: BackendContext) -> AsyncIterator[Archive | None]:
    """Open the archive that `store.archive` names; None if it is empty."""
    async with AsyncExitStack() as ends:
        if not settings.store.archive:
            yield None
            return
        location = s3_location(settings.store.archive)
        if location is None:
            folder = await _make_folder("store.archive", settings.store.archive)
            yield DiskArchive(folder, min_free=settings.store.min_free_space)
        else:
            yield S3Archive(await open_bucket(ends, settings, location, around))


async def _make_folder(key: str, path: str) -> Path:
    """Create the folder that a setting names; raise SettingsError if that fails."""
    folder = Path(path)
    with blamed_on_path(key, folder):
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    return folder


async def open_bucket(
    ends: AsyncExitStack, settings: Settings, location: S3Location, around: BackendContext
) -> ObjectStore:
    """Open a bucket with the account of `[s3]`, until `ends` is closed."""
    from bridge.client.s3 import S3Account, S3Bucket

    s3 = settings.s3
    account = S3Account(
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        access_key_id=s3.access_key_id.get_secret_value(),
        secret_access_key=s3.secret_access_key.get_secret_value(),
    )
    session = GuardedSession(
        "s3",
        limits=LIMITS,
        outbound_proxy=around.outbound_proxy,
        observer=around.observer,
        dated=around.dated,
        traced=call_span,
    )
    await ends.enter_async_context(session)
    storage = PresignedUploader(session, OWN_RULES, stall_seconds=STALL_SECONDS, limits=LIMITS)
    bucket = S3Bucket(account, session, storage, bucket=location.bucket, prefix=location.prefix)
    return await ends.enter_async_context(bucket)
