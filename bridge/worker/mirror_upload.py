"""Makes the calls to CodeArts' report API beside all visits: no visit waits for one, so none holds TestNod's work back.

It knows neither when a call is due nor what its answer means. What keeps two from the same delivery is its own due
time, written before the call and later than its end; a gateway that dies meanwhile leaves it to be sent again then.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from bridge.client.codearts import CodeArts, CodeArtsReports, ReportFile
from bridge.domain.build import SECOND, Build, Delivery, DeliveryTarget
from bridge.domain.changes import Change
from bridge.domain.circuit_breaker import MIRROR
from bridge.domain.instants import Duration, Instant, after, between
from bridge.domain.lifecycle.mirror import (
    CallFailure,
    MirrorRejected,
    MirrorUploaded,
    ReportNode,
    ReportStage,
    ReportStages,
    SummaryOutcome,
    UploadOutcome,
    after_summary,
    after_upload,
    defer_comparison,
    node_for,
    node_without_stages,
    of_mirror,
    reserve_deliveries,
)
from bridge.domain.lifecycle.unreadable_body import clear_unread, tolerate_recent_damage
from bridge.domain.outcomes import CorruptBody, NoSuchBuild, OutcomeUnknown, RecordFetched, Rejected, SpoolUnreadable
from bridge.domain.steps import CompareMirror, UploadToMirror
from bridge.errors import BridgeError, Unavailable
from bridge.store.blobs.base import Spool
from bridge.store.mirror import MirrorChanges, mirrored_totals, record_mirrored
from bridge.store.retention import BodyLocation, body_location
from bridge.worker.archive_copy import free
from bridge.worker.blob_reader import pieces_of
from bridge.worker.events import DeliveryEvents
from bridge.worker.reconcile import BuildReconciler

PLACES = 8  # calls at once: an account may ask 200 times a second, and polls come first
BUSY_US = SECOND
CALL_SECONDS = 200.0  # all that one request may take: its node, its upload, once more with a new token
LEASE_US = Duration(240 * SECOND)  # longer than that by what the ledger may take to be there again
WRITE_AGAIN_US = SECOND // 4
KNOWN_BUILDS = 1_000  # whose nodes are remembered: a build's files come within minutes

GONE = "The report's bytes are gone, so it cannot be mirrored. Send it again from CI."
LATE = OutcomeUnknown(message="CodeArts did not take the reports in time.")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class BackgroundTasks:
    """Calls that run beside all visits, under whichever settings they began."""

    running: set[asyncio.Task[None]] = field(default_factory=set)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PLACES))

    async def finish(self) -> None:
        """Wait for all calls under way."""
        while self.running:
            await asyncio.wait(self.running)

    async def stop(self) -> None:
        """Cut off all calls under way: what they uploaded may be sent again."""
        for task in self.running:
            task.cancel()
        await self.finish()


class MirrorUploader:
    """Uploads, and compares; `codearts` and `reports` are None where no CodeArts is configured."""

    def __init__(
        self,
        codearts: CodeArts | None,
        reports: CodeArtsReports | None,
        spool: Spool,
        observe: DeliveryEvents,
        beside: BackgroundTasks,
    ) -> None:
        self._codearts = codearts
        self._reports = reports
        self._spool = spool
        self._observe = observe
        self._places = beside.places
        self._running = beside.running
        self._stages: OrderedDict[int, tuple[ReportStage, ...]] = OrderedDict()

    async def begin(self, visit: BuildReconciler, call: UploadToMirror | CompareMirror) -> None:
        """Begin to upload the reports of a request, or to compare what both sides count."""
        if isinstance(call, UploadToMirror):
            await self._begin_upload(visit, call.delivery_ids)
        elif await self._take_place(visit, defer_comparison):
            self._begin(visit, partial(self._compare, visit, visit.build))

    async def _begin_upload(self, visit: BuildReconciler, delivery_ids: Sequence[int]) -> None:
        deliveries = [visit.build.deliveries[delivery_id] for delivery_id in delivery_ids]
        if await self._take_place(visit, partial(reserve_deliveries, deliveries)):
            self._begin(visit, partial(self._upload, visit, visit.build, deliveries))

    # -- beside the visit ----------------------------------------------------------------------------------------

    async def _take_place(self, visit: BuildReconciler, lease: Callable[[Instant], tuple[Change, ...]]) -> bool:
        """Take a place and what it is for; False, and nobody looks for a second, where there is none: nobody waits."""
        if self._places.locked():
            await visit.record(*lease(after(visit.now(), BUSY_US)))
            return False
        await self._places.acquire()
        try:
            await visit.record(*lease(after(visit.now(), LEASE_US)))
        except BaseException:
            self._places.release()
            raise
        return True

    def _begin(self, visit: BuildReconciler, work: Callable[[], Awaitable[None]]) -> None:
        visit.breakers = replace(visit.breakers, probing=visit.breakers.probing - {MIRROR})  # this call is the probe
        task = asyncio.create_task(self._guarded(visit.names(), work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _guarded(self, names: dict[str, object], work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except BridgeError as error:
            log.warning("mirroring ended early", error=str(error), **names)
        except Exception:
            # A bug here must not end the gateway; the deliveries are due again when their lease ends.
            log.exception("mirroring failed", **names)
        finally:
            self._places.release()

    async def _upload(self, visit: BuildReconciler, build: Build, deliveries: Sequence[Delivery]) -> None:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                outcome = await self._send(visit, build, deliveries)
        except TimeoutError:
            outcome = LATE
        now, away = visit.now(), visit.breakers.outage_us_of(MIRROR, visit.now())
        read = tuple[Change, ...]()
        if len(deliveries) == 1:  # of several it is not known which one: each then goes alone
            outcome = tolerate_recent_damage(deliveries[0], outcome, now)
        if not isinstance(outcome, SpoolUnreadable):
            read = tuple(change for delivery in deliveries for change in clear_unread(delivery))
        await self._write(visit, (*read, *after_upload(deliveries, outcome, now, visit.desk.policy, away)))
        await visit.tell(of_mirror(outcome))
        if isinstance(outcome, MirrorUploaded):
            self._observe.delivered(DeliveryTarget.CODEARTS, len(deliveries))
            for delivery in deliveries:
                await free(visit, self._spool, delivery.report_id)

    async def _send(self, visit: BuildReconciler, build: Build, deliveries: Sequence[Delivery]) -> UploadOutcome:
        files = [await self._file(visit, build, delivery.report_id) for delivery in deliveries]
        whole = [file for file in files if file is not None]
        if self._reports is None or len(whole) < len(files):
            return CorruptBody(message=GONE, gone=True)
        sent = build.reports[deliveries[0].report_id].node_id
        waited_us = between(min(delivery.pending_since for delivery in deliveries), visit.now())
        node = await self._node(build, sent, waited_us, self._reports)
        if not isinstance(node, ReportNode):
            return node
        outcome = await self._reports.upload(build.job_id, build.build_no, node.node_id, whole)
        if isinstance(outcome, MirrorRejected) and node.unproven:  # perhaps because of the node
            return Rejected(status=outcome.status, message=outcome.message)
        return outcome

    async def _file(self, visit: BuildReconciler, build: Build, report_id: int) -> ReportFile | None:
        report, kept = build.reports[report_id], await visit.desk.database.read(body_location, report_id)
        if kept.body is None and kept.blob is None:
            return None
        read = partial(self._read, kept)
        return ReportFile(name=report.name, size=report.sent_size, sha256=report.sent_sha256, read=read)

    def _read(self, kept: BodyLocation) -> AsyncGenerator[bytes]:
        return pieces_of(kept, self._spool)

    async def _node(
        self, build: Build, sent: str, waited_us: Duration, reports: CodeArtsReports
    ) -> ReportNode | CallFailure:
        """Return the node that CodeArts knows, or `sent` if it does not say which it knows.

        Its answer is remembered until a node comes that is not in it.
        """
        known = self._stages.get(build.id, ())
        if not any(stage.node_id == sent for stage in known):
            record_id = await self._record_id(build)
            if isinstance(record_id, NoSuchBuild):
                return record_id
            outcome = await reports.full_stages(record_id) if isinstance(record_id, str) else record_id
            if not isinstance(outcome, ReportStages):
                return node_without_stages(sent, outcome, waited_us) or outcome
            known = self._stages[build.id] = outcome.stages
            while len(self._stages) > KNOWN_BUILDS:
                self._stages.popitem(last=False)
        return ReportNode(node_id=node_for(sent, known))

    async def _record_id(self, build: Build) -> str | ReportStages | CallFailure:
        """Return the id that full-stages is asked with; no stages if the build's record has none."""
        record = build.record
        if (record is None or record.build_record_id is None) and self._codearts is not None:
            described = await self._codearts.record_info(build.job_id, build.build_no)
            if not isinstance(described, RecordFetched):
                return described
            record = described.record
        return (record.build_record_id if record else None) or ReportStages(stages=())

    async def _compare(self, visit: BuildReconciler, build: Build) -> None:
        outcome: SummaryOutcome = LATE
        if self._reports is not None:
            outcome = await self._reports.summary(build.job_id, build.build_no)
        ours = await visit.desk.database.read(mirrored_totals, build.id)
        await self._write(visit, after_summary(build, outcome, ours, visit.now(), visit.desk.policy))

    # -- what is written down ------------------------------------------------------------------------------------

    async def _write(self, visit: BuildReconciler, changes: tuple[Change, ...]) -> None:
        """Write what must not be forgotten, for as long as the ledger takes to be there again."""
        never = asyncio.Event()
        while True:
            try:
                return await self._written(visit, changes)
            except Unavailable as error:
                log.warning("cannot write to the ledger, trying again", error=str(error), **visit.names())
                await visit.desk.clock.wait(never, visit.desk.clock.now() + WRITE_AGAIN_US)

    async def _written(self, visit: BuildReconciler, changes: tuple[Change, ...]) -> None:
        await visit.desk.database.write(record_mirrored, MirrorChanges(build_id=visit.build.id, changes=changes))
