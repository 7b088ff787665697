"""Opens the spool and the archive that the settings name: folders of this machine, or S3 buckets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.client.bucket import Bucket
from bridge.client.outbound_proxy import OutboundProxy
from bridge.client.presigned_put import PresignedUploader
from bridge.client.session import CallObserver, Dated, GuardedSession, Timeouts
from bridge.client.signer import S3Account, Signer
from bridge.client.ssrf_guard import StorageUrlPolicy
from bridge.clock import Clock
from bridge.settings import Settings
from bridge.settings.rules import S3Location, s3_location
from bridge.store.archive.base import Archive
from bridge.store.archive.disk import DiskArchive
from bridge.store.archive.s3 import S3Archive
from bridge.store.blobs.base import Spool
from bridge.store.blobs.disk import DiskSpool
from bridge.store.blobs.s3 import S3Spool
from bridge.store.blobs.temp_file import TempFolder

LIMITS = Timeouts(connect_seconds=5, read_seconds=10, total_seconds=20)
"""S3 responds within a tenth of a second. Uploads wait for it, so these limits are shorter than those for TestNod."""

STALL_SECONDS = 10.0
OWN_RULES = StorageUrlPolicy(allow_private=True)  # the operator configured this storage: its URLs are trusted


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendContext:
    """What the backends need besides the settings."""

    clock: Clock
    way_out: OutboundProxy
    observer: CallObserver
    shared: bool  # other gateways may use the same folder
    now: Callable[[], int]  # the ledger's time
    dated: Dated  # receives the Date of every response


@asynccontextmanager
async def open_spool(settings: Settings, context: BackendContext) -> AsyncIterator[Spool]:
    """Open the spool of `store.spool`, and delete the temporary files that a crash has left in it."""
    async with AsyncExitStack() as stack:
        location = s3_location(settings.store.spool)
        spool: Spool
        if location is None:
            folder = Path(settings.store.spool)
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            spool = DiskSpool(folder, shared=context.shared, now=context.now)
        else:
            scratch = await asyncio.to_thread(TempFolder)
            stack.callback(scratch.close)
            bucket = await _bucket(stack, settings, location, context)
            spool = S3Spool(bucket, scratch, context.clock, context.now, place=settings.store.spool)
        await spool.sweep_temporaries()
        yield spool


@asynccontextmanager
async def open_archive(settings: Settings, context: BackendContext) -> AsyncIterator[Archive | None]:
    """Open the archive of `store.archive`; None if it is empty."""
    async with AsyncExitStack() as stack:
        if not settings.store.archive:
            yield None
            return
        location = s3_location(settings.store.archive)
        if location is None:
            folder = Path(settings.store.archive)
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            yield DiskArchive(folder, min_free=settings.store.min_free)
        else:
            yield S3Archive(await _bucket(stack, settings, location, context))


async def _bucket(stack: AsyncExitStack, settings: Settings, location: S3Location, context: BackendContext) -> Bucket:
    s3 = settings.s3
    account = S3Account(
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        access_key_id=s3.access_key_id.get_secret_value(),
        secret_access_key=s3.secret_access_key.get_secret_value(),
    )
    signer = await stack.enter_async_context(Signer(account))
    session = GuardedSession(
        "s3", limits=LIMITS, way_out=context.way_out, observer=context.observer, dated=context.dated
    )
    await stack.enter_async_context(session)
    storage = PresignedUploader(session, OWN_RULES, stall_seconds=STALL_SECONDS, limits=LIMITS)
    return Bucket(signer, storage, session, bucket=location.bucket, prefix=location.prefix)
