"""Hand each call of a step to the component that makes it.

`domain/lifecycle/` decides when a call is due and what its outcome changes. Each component commits what must be durable
before the call, makes the call, and commits the changes.
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
from bridge.telemetry.metrics import Metrics
from bridge.worker.archive_copy import ArchiveCopier
from bridge.worker.background_tasks import BackgroundTasks
from bridge.worker.build_status import BuildStatusFetcher, SharedRateLimit
from bridge.worker.code_check import CodeCheckFetcher
from bridge.worker.mirror_upload import MirrorUploader
from bridge.worker.reconcile import BuildReconciler, UpstreamClients
from bridge.worker.report_upload import ReportUploader
from bridge.worker.run_finalize import RunFinalizer


class UpstreamCallExecutor:
    """Makes the calls of all reconcilers. `delivery_slots` limits calls to TestNod and its storage at once."""

    def __init__(
        self,
        clients: UpstreamClients,
        spool: Spool,
        archive: Archive | None,
        metrics: Metrics,
        *,
        background: BackgroundTasks,
        delivery_slots: asyncio.Semaphore,
        requests_per_minute: float,
    ) -> None:
        rate_limit = SharedRateLimit(requests_per_minute)
        self._build_status = BuildStatusFetcher(clients.codearts, rate_limit)
        self._code_check = CodeCheckFetcher(clients.check, rate_limit)
        self._uploader = ReportUploader(clients, spool, metrics, background=background, slots=delivery_slots)
        self._finalizer = RunFinalizer(clients, metrics, slots=delivery_slots)
        self._mirror = MirrorUploader(clients.codearts, clients.reports, spool, metrics, background)
        self._copier = ArchiveCopier(archive, spool, metrics)

    async def make(self, call: UpstreamCall, reconciler: BuildReconciler) -> None:
        """Make one call and record its outcome."""
        match call:
            case FetchRecord(reserved=reserved):
                await self._build_status.fetch_record(reconciler, reserved=reserved)
            case Poll(reserved=reserved):
                await self._build_status.poll(reconciler, reserved=reserved)
            case Register(delivery_id):
                await self._uploader.register(reconciler, delivery_id)
            case Put(registration_id):
                await self._uploader.put(reconciler, reconciler.build.registrations[registration_id])
            case ReportUploadFailed(registration_id):
                await self._uploader.report_upload_failed(reconciler, reconciler.build.registrations[registration_id])
            case Finalize(confirm=confirm):
                await self._finalizer.finalize(reconciler, confirm=confirm)
            case FetchCheckReport():
                await self._code_check.fetch(reconciler, call)
            case steps.UploadToMirror() | steps.CompareMirror():
                await self._mirror.start(reconciler, call)
            case steps.CopyToArchive(delivery_id):
                await self._copier.copy(reconciler, delivery_id)
