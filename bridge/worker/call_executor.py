"""The calls of a visit, each with whoever makes it: what is committed before it, the call, what is committed after it.

It knows neither when a call is due nor what its answer means; domain/ says both.
"""

import asyncio

from bridge.domain import steps
from bridge.domain.steps import (
    FetchCheckReport,
    FetchRecord,
    Finalize,
    Poll,
    Put,
    Register,
    ReportUploadFailed,
    UpstreamCall,
)
from bridge.store.archive.base import Archive
from bridge.store.blobs.base import Spool
from bridge.worker.archive_copy import ArchiveCopier
from bridge.worker.background_tasks import UncancellableTasks
from bridge.worker.build_status import BuildStatusFetcher, SharedRateLimit
from bridge.worker.clients import UpstreamClients
from bridge.worker.code_check import CodeCheckFetcher
from bridge.worker.events import DeliveryEvents
from bridge.worker.mirror_upload import BackgroundTasks, MirrorUploader
from bridge.worker.reconcile import BuildReconciler
from bridge.worker.report_upload import ReportUploader
from bridge.worker.run_finalize import RunFinalizer


class UpstreamCallExecutor:
    """Makes the calls of all visits; at most as many to TestNod and its storage at once as there are `places`."""

    def __init__(  # noqa: PLR0913 -- everything it meets, each once
        self,
        upstreams: UpstreamClients,
        spool: Spool,
        archive: Archive | None,
        observe: DeliveryEvents,
        *,
        tails: UncancellableTasks,
        beside: BackgroundTasks,
        places: asyncio.Semaphore,
        requests_per_minute: float,
    ) -> None:
        rate = SharedRateLimit(requests_per_minute)
        self._polling = BuildStatusFetcher(upstreams.codearts, rate)
        self._checking = CodeCheckFetcher(upstreams.check, rate)
        self._delivering = ReportUploader(upstreams, spool, observe, tails=tails, places=places)
        self._finalizing = RunFinalizer(upstreams, observe, places=places)
        self._mirroring = MirrorUploader(upstreams.codearts, upstreams.reports, spool, observe, beside)
        self._archiving = ArchiveCopier(archive, spool, observe)

    async def make(self, call: UpstreamCall, visit: BuildReconciler) -> None:
        """Make one call and write down what came of it."""
        match call:
            case FetchRecord(reserved=reserved):
                await self._polling.describe(visit, reserved=reserved)
            case Poll(reserved=reserved):
                await self._polling.poll(visit, reserved=reserved)
            case Register(delivery_id):
                await self._delivering.register(visit, delivery_id)
            case Put(registration_id):
                await self._delivering.put(visit, visit.build.registrations[registration_id])
            case ReportUploadFailed(registration_id):
                await self._delivering.report_failed(visit, visit.build.registrations[registration_id])
            case Finalize(confirm=confirm):
                await self._finalizing.finalize(visit, confirm=confirm)
            case FetchCheckReport():
                await self._checking.ask(visit, call)
            case steps.UploadToMirror() | steps.CompareMirror():
                await self._mirroring.begin(visit, call)
            case steps.CopyToArchive(delivery_id):
                await self._archiving.keep(visit, delivery_id)
