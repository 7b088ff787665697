"""Hand each call of a step to the component that makes it.

`domain/lifecycle/` decides when a call is due and what its outcome changes. Each component commits what must be durable
before the call, makes the call, and commits the changes.
"""

from collections.abc import Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING

import structlog

from bridge.domain import steps
from bridge.domain.attempts import CallKind
from bridge.domain.build import Build, DeliveryTarget
from bridge.domain.circuit_breaker import ARCHIVE
from bridge.domain.instants import SECOND, after
from bridge.domain.lifecycle import finalize
from bridge.domain.lifecycle.archive import after_archive, defer_copy
from bridge.domain.lifecycle.breaker_signals import of_archive, of_testnod
from bridge.domain.lifecycle.replacement import is_replaced_if_pending, lost_registrations, reports_to_send_again
from bridge.domain.lifecycle.unreadable_body import clear_unread, tolerate_recent_damage
from bridge.domain.outcomes import CorruptBody, FinalizeOutcome, PutOutcome, RunStatus, SpoolUnreadable, Stored
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
from bridge.errors import LeaseLost
from bridge.store.archive.base import Archive, copy_of
from bridge.store.blobs.base import Spool
from bridge.store.retention import body_location
from bridge.telemetry.metrics import Metrics
from bridge.worker.background_tasks import BackgroundTasks
from bridge.worker.blob_reader import BlobReader, pieces_of, release_bodies, release_bodies_at_end
from bridge.worker.build_status import BuildStatusFetcher
from bridge.worker.call_slots import CallSlots
from bridge.worker.code_check import CodeCheckFetcher
from bridge.worker.config import UpstreamClients
from bridge.worker.delivery_slots import DeliverySlots
from bridge.worker.mirror_upload import MirrorUploader
from bridge.worker.reconcile import BuildReconciler
from bridge.worker.report_upload import ReportUploader
from bridge.worker.request_rates import RequestRates

if TYPE_CHECKING:
    from bridge.telemetry.otel import Tracer

log = structlog.get_logger(__name__)


class RunFinalizer:
    """Makes the calls for runs; `slots` are shared with the calls for reports."""

    def __init__(self, clients: UpstreamClients, spool: Spool, metrics: Metrics, *, slots: DeliverySlots) -> None:
        self._clients = clients
        self._spool = spool
        self._reader = BlobReader(spool)
        self._metrics = metrics
        self._slots = slots

    async def finalize(self, reconciler: BuildReconciler, *, confirm: bool) -> None:
        """Call finalize; with `confirm`, call it again to see whether the run is still pending."""
        before, policy = reconciler.build, reconciler.config.policy
        run = before.run_parameters
        if run is None:
            raise LeaseLost("A build without run parameters has no run to finalize.")
        replaceable = confirm and is_replaced_if_pending(before, reconciler.now(), policy, reconciler.health())
        unreadable = await self._unreadable(reconciler) if replaceable else None
        build_id = finalize.build_id_to_finalize(before, confirm=confirm)
        async with self._slots:
            start = reconciler.start_call()
            with reconciler.running_call():
                outcome = await self._clients.testnod.finalize(self._clients.token(run.route), build_id)
        now, health = reconciler.now(), reconciler.health()
        if not confirm:
            changes = finalize.after_finalize(before, outcome, now, policy, health.testnod_outage_us)
        else:
            changes = finalize.after_confirm(
                before, outcome, now, policy, health, replaceable=replaceable, unreadable=unreadable
            )
        reconciler.defer_changes(*changes, reconciler.attempt(CallKind.FINALIZE, outcome, start))
        self._observe(reconciler, before, outcome, build_id, confirm=confirm)
        release_bodies_at_end(reconciler, self._spool)
        await reconciler.report_upstream_health(of_testnod(outcome, run.route))

    def _observe(
        self, reconciler: BuildReconciler, before: Build, outcome: FinalizeOutcome, build_id: str, *, confirm: bool
    ) -> None:
        fields = {"build_id": build_id, **reconciler.log_fields()}
        after = reconciler.build
        if isinstance(outcome, RunStatus) and not confirm:
            self._metrics.observe_finalize_lag((reconciler.now() - (after.ended_at or reconciler.now())) / SECOND)
            log.info("run_finalized", status=outcome.status, **fields)
        if after.generation > before.generation:
            self._metrics.count_replaced()
            log.warning("run_replaced", lost_registrations=lost_registrations(before), **fields)
        elif after.generation < before.generation:
            log.warning("run_replacement_withdrawn", **fields)

    async def _unreadable(self, reconciler: BuildReconciler) -> str | None:
        """Return why a report that a replacement would send again cannot be read; None if all can be."""
        for delivery in reports_to_send_again(reconciler.build):
            report = reconciler.build.reports[delivery.report_id]
            location = await reconciler.config.database.read(body_location, report.id)
            if location.body is None and location.blob is None:
                return f"The bytes of {report.name} are gone."
            fault = await self._reader.check(location, report)
            if fault is not None:
                return fault.message
        return None


MAX_COPIES = 32  # half of all reconcilers: if the archive hangs, the others still deliver to TestNod
BUSY_US = SECOND
GONE = "The report's bytes are gone, so no copy can be kept. The report is at TestNod."


class ArchiveCopier:
    """Writes copies into `archive`, which is None if it is not configured."""

    def __init__(self, archive: Archive | None, spool: Spool, metrics: Metrics) -> None:
        self._archive = archive
        self._spool = spool
        self._metrics = metrics
        self._slots = CallSlots(MAX_COPIES)

    async def copy(self, reconciler: BuildReconciler, delivery_id: int) -> None:
        """Copy the report of this delivery and record the outcome."""
        delivery, archive = reconciler.build.deliveries[delivery_id], self._archive
        if archive is None:
            return
        async with self._slots.slot() as has_slot:
            if not has_slot:
                await reconciler.write_changes(*defer_copy(delivery, after(reconciler.now(), BUSY_US)))
                return
            start = reconciler.start_call()
            outcome = await self._copy(reconciler, archive, delivery.report_id)
        now, policy = reconciler.now(), reconciler.config.policy
        outcome = tolerate_recent_damage(delivery, outcome, now)
        read = () if isinstance(outcome, SpoolUnreadable) else clear_unread(delivery)
        outage_us = reconciler.breakers.outage_us_of(ARCHIVE, now)
        changes = after_archive(delivery, outcome, now, policy, outage_us)
        attempt = reconciler.attempt(CallKind.ARCHIVE, outcome, start, delivery_id=delivery_id)
        failed = () if isinstance(outcome, Stored) else (attempt,)
        await reconciler.write_changes(*read, *changes, *failed)
        if isinstance(outcome, SpoolUnreadable):
            reconciler.leave_unread(delivery_id)
        if isinstance(outcome, Stored):
            self._metrics.count_delivered(DeliveryTarget.ARCHIVE)
            await release_bodies(reconciler, self._spool, delivery.report_id)
        await reconciler.report_upstream_health(of_archive(outcome))

    async def _copy(self, reconciler: BuildReconciler, archive: Archive, report_id: int) -> PutOutcome:
        database = reconciler.config.database
        copy = await database.read(copy_of, report_id)
        location = await database.read(body_location, report_id)
        if copy is None or copy.entry is None or (location.body is None and location.blob is None):
            return CorruptBody(message=GONE, gone=True)
        return await archive.keep(copy.entry, lambda: pieces_of(location, self._spool))


TRACE_NAMES: Mapping[type[UpstreamCall], str] = {
    FetchRecord: "record_info",
    Poll: "build_info",
    Register: "register",
    Put: "put",
    ReportUploadFailed: "upload_failed",
    Finalize: "finalize",
    FetchCheckReport: "refresh",
    steps.UploadToMirror: "mirror_upload",
    steps.CompareMirror: "mirror_compare",
    steps.CopyToArchive: "archive",
}
"""The attribute `bridge.call` of the spans of each kind of call."""


def _trace_contexts(call: UpstreamCall, build: Build) -> tuple[str, ...]:
    """Return the contexts of the uploads that a call belongs to; the first one is the trace that shows it."""
    match call:
        case Register(delivery_id) | steps.CopyToArchive(delivery_id):
            pass
        case Put(registration_id) | ReportUploadFailed(registration_id):
            delivery_id = build.registrations[registration_id].delivery_id
        case _:
            return build.trace_contexts
    context = build.reports[build.deliveries[delivery_id].report_id].trace_context
    return () if context is None else (context,)


def _trace_attributes(call: UpstreamCall, reconciler: BuildReconciler) -> dict[str, str | int]:
    build = reconciler.build
    route = build.run_parameters.route if build.run_parameters else ""  # the first register chooses them
    named = {"bridge.call": TRACE_NAMES[type(call)], "bridge.job_id": build.job_id, "bridge.build_no": build.build_no}
    return named | ({"bridge.route": route} if route else {})


class UpstreamCallExecutor:
    """Makes the calls of all reconcilers. `delivery_slots` limits calls to TestNod and its storage at once."""

    def __init__(  # noqa: PLR0913 -- one parameter for each collaborator
        self,
        clients: UpstreamClients,
        spool: Spool,
        archive: Archive | None,
        metrics: Metrics,
        *,
        background: BackgroundTasks,
        delivery_slots: DeliverySlots,
        rates: RequestRates,
        tracer: "Tracer | None" = None,
    ) -> None:
        self._tracer = tracer
        self._delivery_slots = delivery_slots
        self._build_status = BuildStatusFetcher(clients.codearts, rates)
        self._code_check = CodeCheckFetcher(clients.check, rates)
        self._uploader = ReportUploader(clients, spool, metrics, background=background, slots=delivery_slots)
        self._finalizer = RunFinalizer(clients, spool, metrics, slots=delivery_slots)
        self._mirror = MirrorUploader(clients.codearts, clients.reports, spool, metrics, background)
        self._copier = ArchiveCopier(archive, spool, metrics)

    @property
    def free_slots(self) -> int:
        """Return how many more calls to TestNod and its storage could be made now."""
        return self._delivery_slots.free

    def make(self, call: UpstreamCall, reconciler: BuildReconciler) -> Coroutine[object, object, UpstreamCall | None]:
        """Make one call and record its outcome; return the call that may follow it at once."""
        making = self._make(call, reconciler)
        return making if self._tracer is None else self._traced(self._tracer, making, call, reconciler)

    async def _traced(
        self,
        tracer: "Tracer",
        making: Coroutine[object, object, UpstreamCall | None],
        call: UpstreamCall,
        reconciler: BuildReconciler,
    ) -> UpstreamCall | None:
        contexts = _trace_contexts(call, reconciler.build)
        parent, links = contexts[0] if contexts else None, contexts if isinstance(call, Finalize) else ()
        with tracer.resumed(parent, partial(_trace_attributes, call, reconciler), links):
            return await making

    def _make(self, call: UpstreamCall, reconciler: BuildReconciler) -> Coroutine[object, object, UpstreamCall | None]:
        match call:
            case FetchRecord():
                return self._build_status.fetch_record(reconciler)
            case Poll(reserved=reserved):
                return self._build_status.poll(reconciler, reserved=reserved)
            case Register(delivery_id):
                return self._uploader.register(reconciler, delivery_id)
            case Put(registration_id):
                return self._uploader.put(reconciler, reconciler.build.registrations[registration_id])
            case ReportUploadFailed(registration_id):
                return self._uploader.report_upload_failed(reconciler, reconciler.build.registrations[registration_id])
            case Finalize(confirm=confirm):
                return self._finalizer.finalize(reconciler, confirm=confirm)
            case FetchCheckReport():
                return self._code_check.fetch(reconciler, call)
            case steps.UploadToMirror() | steps.CompareMirror():
                return self._mirror.start(reconciler, call)
            case steps.CopyToArchive(delivery_id):
                return self._copier.copy(reconciler, delivery_id)
