"""Upload reports to CodeArts' report API, beside all reconcilers: none waits for such a call.

A delivery's due time is set before the call and later than the call's end, so no two calls send the same delivery. If
the gateway dies meanwhile, the delivery is sent again at that time.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

import structlog

from bridge.client.codearts import CodeArts, CodeArtsReports, ReportFile
from bridge.domain.attempts import CallKind
from bridge.domain.build import Build, Delivery, DeliveryTarget
from bridge.domain.changes import Change
from bridge.domain.circuit_breaker import MIRROR
from bridge.domain.instants import SECOND, Duration, Instant, after, between
from bridge.domain.lifecycle.mirror import (
    CallFailure,
    MirrorRejected,
    MirrorUploaded,
    ReportNode,
    ReportStage,
    ReportStages,
    SummaryOutcome,
    TestTotals,
    UploadOutcome,
    after_summary,
    after_upload,
    defer_comparison,
    node_for,
    node_without_stages,
    of_mirror,
    reserve_deliveries,
    totals_with,
)
from bridge.domain.lifecycle.unreadable_body import clear_unread, tolerate_recent_damage
from bridge.domain.outcomes import CorruptBody, NoSuchBuild, OutcomeUnknown, RecordFetched, Rejected, SpoolUnreadable
from bridge.domain.steps import CompareMirror, UploadToMirror
from bridge.errors import BridgeError
from bridge.store.blobs.base import Spool
from bridge.store.mirror import MirrorChanges, mirrored_totals, record_mirrored
from bridge.store.retention import BodyLocation, body_location
from bridge.telemetry.metrics import Metrics
from bridge.worker.background_tasks import BackgroundTasks, write_with_retry
from bridge.worker.blob_reader import pieces_of, release_bodies
from bridge.worker.reconcile import BuildReconciler

BUSY_US = SECOND
CALL_SECONDS = 200.0  # for one request: its node, its upload, both once more with a new token
LEASE_US = Duration(280 * SECOND)  # CALL_SECONDS, one summary, and the time until the ledger is available again
MAX_CACHED_BUILDS = 1_000  # whose nodes are cached: the files of a build arrive within minutes

GONE = "The report's bytes are gone, so it cannot be mirrored. Send it again from CI."
LATE = OutcomeUnknown(message="CodeArts did not accept the reports in time.")

log = structlog.get_logger(__name__)


class MirrorUploader:
    """Uploads reports and compares counts; `codearts` and `reports` are None if CodeArts is not configured."""

    def __init__(
        self,
        codearts: CodeArts | None,
        reports: CodeArtsReports | None,
        spool: Spool,
        metrics: Metrics,
        background: BackgroundTasks,
    ) -> None:
        self._codearts = codearts
        self._reports = reports
        self._spool = spool
        self._metrics = metrics
        self._background = background
        self._stages: OrderedDict[int, tuple[ReportStage, ...]] = OrderedDict()

    async def start(self, reconciler: BuildReconciler, call: UploadToMirror | CompareMirror) -> None:
        """Start an upload of reports or a comparison of counts, and return without waiting for it."""
        if isinstance(call, CompareMirror):
            if await self._take_rate_slot(reconciler, defer_comparison):
                self._start(reconciler, partial(self._compare, reconciler, reconciler.build))
            return
        deliveries = [reconciler.build.deliveries[delivery_id] for delivery_id in call.delivery_ids]
        if await self._take_rate_slot(reconciler, partial(reserve_deliveries, deliveries)):
            self._start(reconciler, partial(self._upload, reconciler, reconciler.build, deliveries))

    async def _take_rate_slot(
        self, reconciler: BuildReconciler, lease: Callable[[Instant], tuple[Change, ...]]
    ) -> bool:
        """Take a slot and lease the work; if no slot is free, postpone the work for a second and return False."""
        slots = self._background.mirror_slots
        if slots.locked():
            await reconciler.write_changes(*lease(after(reconciler.now(), BUSY_US)))
            return False
        await slots.acquire()
        try:
            await reconciler.write_changes(*lease(after(reconciler.now(), LEASE_US)))
        except BaseException:
            slots.release()
            raise
        return True

    def _start(self, reconciler: BuildReconciler, work: Callable[[], Awaitable[None]]) -> None:
        breakers = reconciler.breakers
        reconciler.breakers = replace(breakers, probing=breakers.probing - {MIRROR})  # this call is the probe
        self._background.start(self._run(reconciler.log_fields(), work))

    async def _run(self, fields: dict[str, object], work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except BridgeError as error:
            log.warning("mirror_interrupted", error=str(error), **fields)
        except Exception:
            # A bug here must not stop the gateway; the deliveries are due again when their lease ends.
            log.exception("mirror_failed", **fields)
        finally:
            self._background.mirror_slots.release()

    # -- upload --------------------------------------------------------------------------------------------------

    async def _upload(self, reconciler: BuildReconciler, build: Build, deliveries: Sequence[Delivery]) -> None:
        start = reconciler.start_call()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                outcome = await self._send(reconciler, build, deliveries)
        except TimeoutError:
            outcome = LATE
        if isinstance(outcome, OutcomeUnknown) and await self._has_arrived(reconciler, build, deliveries):
            outcome = MirrorUploaded()
        now = reconciler.now()
        read = tuple[Change, ...]()
        if len(deliveries) == 1:  # of several, it is not known which one failed: each is then sent alone
            outcome = tolerate_recent_damage(deliveries[0], outcome, now)
        if not isinstance(outcome, SpoolUnreadable):
            read = tuple(change for delivery in deliveries for change in clear_unread(delivery))
        outage_us = reconciler.breakers.outage_us_of(MIRROR, now)
        changes = after_upload(deliveries, outcome, now, reconciler.config.policy, outage_us)
        failed = () if isinstance(outcome, MirrorUploaded) else deliveries
        attempts = (reconciler.attempt(CallKind.MIRROR, outcome, start, delivery_id=each.id) for each in failed)
        await self._write(reconciler, (*read, *changes, *attempts))
        await reconciler.report_upstream_health(of_mirror(outcome))
        if isinstance(outcome, MirrorUploaded):
            self._metrics.count_delivered(DeliveryTarget.CODEARTS, len(deliveries))
            for delivery in deliveries:
                await release_bodies(reconciler, self._spool, delivery.report_id)

    async def _send(self, reconciler: BuildReconciler, build: Build, deliveries: Sequence[Delivery]) -> UploadOutcome:
        files = [await self._file(reconciler, build, delivery.report_id) for delivery in deliveries]
        readable = [file for file in files if file is not None]
        if self._reports is None or len(readable) < len(files):
            return CorruptBody(message=GONE, gone=True)
        uploaded_node = build.reports[deliveries[0].report_id].node_id
        waited_us = between(min(delivery.pending_since for delivery in deliveries), reconciler.now())
        node = await self._node(build, uploaded_node, waited_us, self._reports)
        if not isinstance(node, ReportNode):
            return node
        outcome = await self._reports.upload(build.job_id, build.number, node.node_id, readable)
        if isinstance(outcome, MirrorRejected) and node.unproven:  # perhaps because of the node
            return Rejected(status=outcome.status, message=outcome.message)
        return outcome

    async def _has_arrived(self, reconciler: BuildReconciler, build: Build, deliveries: Sequence[Delivery]) -> bool:
        """Return whether CodeArts counts these reports although it did not answer: sent again, they count twice.

        That is sure only if its totals are those of all delivered reports and these.
        """
        sent = totals_with(TestTotals(), (build.reports[delivery.report_id] for delivery in deliveries))
        if self._reports is None or not sent.total:
            return False
        ours = await reconciler.config.database.read(mirrored_totals, build.id)
        outcome = await self._reports.summary(build.job_id, build.number)
        return outcome == totals_with(ours, (build.reports[delivery.report_id] for delivery in deliveries))

    async def _file(self, reconciler: BuildReconciler, build: Build, report_id: int) -> ReportFile | None:
        report = build.reports[report_id]
        location = await reconciler.config.database.read(body_location, report_id)
        if location.body is None and location.blob is None:
            return None
        read = partial(self._read, location)
        return ReportFile(name=report.name, size=report.sent_size, sha256=report.sent_sha256, read=read)

    def _read(self, location: BodyLocation) -> AsyncGenerator[bytes]:
        return pieces_of(location, self._spool)

    async def _node(
        self, build: Build, uploaded_node: str, waited_us: Duration, reports: CodeArtsReports
    ) -> ReportNode | CallFailure:
        """Return a node that CodeArts lists, or the uploaded one if CodeArts does not list nodes.

        The list is cached until a node is uploaded that it does not contain.
        """
        stages = self._stages.get(build.id, ())
        if not any(stage.node_id == uploaded_node for stage in stages):
            record_id = await self._record_id(build)
            if isinstance(record_id, NoSuchBuild):
                return record_id
            outcome = await reports.full_stages(record_id) if isinstance(record_id, str) else record_id
            if not isinstance(outcome, ReportStages):
                return node_without_stages(uploaded_node, outcome, waited_us) or outcome
            stages = self._stages[build.id] = outcome.stages
            while len(self._stages) > MAX_CACHED_BUILDS:
                self._stages.popitem(last=False)
        return ReportNode(node_id=node_for(uploaded_node, stages))

    async def _record_id(self, build: Build) -> str | ReportStages | CallFailure:
        """Return the id for full-stages, or no stages if the build's record has no id."""
        record = build.record
        if (record is None or record.build_record_id is None) and self._codearts is not None:
            outcome = await self._codearts.record_info(build.job_id, build.number)
            if not isinstance(outcome, RecordFetched):
                return outcome
            record = outcome.record
        return (record.build_record_id if record else None) or ReportStages(stages=())

    # -- comparison ----------------------------------------------------------------------------------------------

    async def _compare(self, reconciler: BuildReconciler, build: Build) -> None:
        outcome: SummaryOutcome = LATE
        if self._reports is not None:
            outcome = await self._reports.summary(build.job_id, build.number)
        ours = await reconciler.config.database.read(mirrored_totals, build.id)
        changes = after_summary(build, outcome, ours, reconciler.now(), reconciler.config.policy)
        await self._write(reconciler, changes)

    async def _write(self, reconciler: BuildReconciler, changes: tuple[Change, ...]) -> None:
        await write_with_retry(
            reconciler, record_mirrored, MirrorChanges(build_id=reconciler.build.id, changes=changes)
        )
