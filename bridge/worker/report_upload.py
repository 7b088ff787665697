"""Send reports to TestNod: register, PUT, and upload_failed for an upload that did not succeed.

An upstream's answer is written even if another worker has claimed the build meanwhile: a registration whose id is
lost could never be finalized.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress

import structlog

from bridge.domain.attempts import CallKind, is_first_put
from bridge.domain.build import Delivery, DeliveryState, DeliveryTarget, Registration, RegistrationState, Report
from bridge.domain.changes import AddAttempt, AddRegistration, Change, set_build, set_delivery
from bridge.domain.instants import SECOND, after
from bridge.domain.lifecycle import upload
from bridge.domain.lifecycle.breaker_signals import of_register, of_storage, of_testnod
from bridge.domain.lifecycle.unreadable_body import clear_unread, retry_unread, tolerate_recent_damage
from bridge.domain.outcomes import (
    CorruptBody,
    FailureRecorded,
    PutOutcome,
    Registered,
    RegisterOutcome,
    SpoolUnreadable,
    Stored,
)
from bridge.domain.routing import choose_route, choose_run_parameters
from bridge.domain.steps import Put
from bridge.errors import BridgeError
from bridge.store.blobs.base import Spool
from bridge.store.fenced_writes import LateRegistration, record_late_registration, record_stored
from bridge.store.retention import BodyLocation, unlink_corrupt_body
from bridge.telemetry.metrics import Metrics
from bridge.worker.background_tasks import BackgroundTasks, retry_write, write_with_retry
from bridge.worker.blob_reader import BlobReader, BodyLocations, release_bodies
from bridge.worker.config import UpstreamClients
from bridge.worker.delivery_slots import DeliverySlots
from bridge.worker.reconcile import BuildReconciler, CallStart

BUSY_US = SECOND
GONE = "The report's bytes are gone. Send the report again from CI."

log = structlog.get_logger(__name__)


class ReportUploader:
    """Makes the calls for single reports; `slots` limits them."""

    def __init__(
        self,
        clients: UpstreamClients,
        spool: Spool,
        metrics: Metrics,
        *,
        background: BackgroundTasks,
        slots: DeliverySlots,
    ) -> None:
        self._clients = clients
        self._spool = spool
        self._metrics = metrics
        self._background = background
        self._slots = slots
        self._reader = BlobReader(spool)
        self._locations = BodyLocations()

    # -- register ------------------------------------------------------------------------------------------------

    async def register(self, reconciler: BuildReconciler, delivery_id: int) -> Put | None:
        """Register an upload of the delivery's report, if the report can be read; return its PUT, if it may follow."""
        if not await self._is_readable(reconciler, reconciler.build.deliveries[delivery_id]):
            return None
        async with self._slots:
            registration = await self._add_registration(reconciler, delivery_id)
            if registration is not None:
                await self._background.run_shielded(self._call_register(reconciler, registration))
        if registration is None:
            return None
        known = reconciler.build.registrations.get(registration.id)
        return Put(known.id) if known is not None and known.state is RegistrationState.REGISTERED else None

    async def _add_registration(self, reconciler: BuildReconciler, delivery_id: int) -> Registration | None:
        """Commit a registration in state `requested`, and with a build's first one its run parameters."""
        build, now = reconciler.build, reconciler.now()
        requested = Registration(
            id=0,
            delivery_id=delivery_id,
            state=RegistrationState.REQUESTED,
            requested_at=now,
            fencing_token=build.fencing_token,
            generation=build.generation,
        )
        changes: list[Change] = [AddRegistration(requested)]
        if build.run_parameters is None:
            route = choose_route(reconciler.config.policy.routes, build).route
            if route is None:
                return None
            changes.append(set_build(run_parameters=choose_run_parameters(route, build, now)))
        written = await reconciler.write_changes(*changes)
        return next(change.registration for change in written if isinstance(change, AddRegistration))

    async def _call_register(self, reconciler: BuildReconciler, registration: Registration) -> None:
        run = reconciler.build.run_parameters
        if run is None:
            return
        start = reconciler.start_call(at=registration.requested_at)
        with reconciler.running_call():
            outcome = await self._clients.testnod.register(self._clients.token(run.route), run)
        await self._record_registered(reconciler, registration, outcome, start)
        await reconciler.report_upstream_health(of_register(outcome, run.route))

    async def _record_registered(
        self, reconciler: BuildReconciler, registration: Registration, outcome: RegisterOutcome, start: CallStart
    ) -> None:
        build, now = reconciler.build, reconciler.now()
        if isinstance(outcome, Registered) and outcome.presigned_url:  # no attempt: the registration has its times
            changes = upload.registration_succeeded(build, registration, outcome, now)
        else:
            attempt = reconciler.attempt(CallKind.REGISTER, outcome, start, delivery_id=registration.delivery_id)
            policy, health = reconciler.config.policy, reconciler.health()
            changes = (*upload.after_register(build, registration, outcome, now, policy, health), attempt)
        written = await self._write_if_owned(reconciler, changes)
        if not written and isinstance(outcome, Registered):
            await self._record_late(reconciler, registration, outcome)

    async def _record_late(self, reconciler: BuildReconciler, registration: Registration, answer: Registered) -> None:
        """Record the ids of an upload although another worker has claimed the build."""
        late = LateRegistration(build_id=reconciler.build.id, registration=registration, answer=answer)
        if await write_with_retry(reconciler, record_late_registration, late):
            log.warning("registration_recorded_late", **reconciler.log_fields())

    async def _write_if_owned(self, reconciler: BuildReconciler, changes: tuple[Change, ...]) -> bool:
        """Write changes if no other worker has claimed the build; return whether they were written."""
        return await retry_write(reconciler, lambda: reconciler.write_if_owned(*changes)) is not None

    # -- PUT and upload_failed -----------------------------------------------------------------------------------

    async def put(self, reconciler: BuildReconciler, registration: Registration) -> None:
        """PUT the report to the registration's presigned URL."""
        run = reconciler.build.run_parameters
        if run is None or registration.presigned_url is None:
            return
        delivery = reconciler.build.deliveries[registration.delivery_id]
        report = reconciler.build.reports[delivery.report_id]
        body = reconciler.take_body(report.id)
        location = BodyLocation(body=body, blob=None)
        if body is None:
            location = await self._locations.find(reconciler.config.database, report.id)
        leaves = reconciler.config.own_faults.shared
        start, outcome = await self._put(reconciler, location, report, registration.presigned_url, leaves=leaves)
        outcome = tolerate_recent_damage(delivery, outcome, reconciler.now())
        if isinstance(outcome, Stored):
            # Of a first one that succeeds at once, the registration has the times.
            repeated = not is_first_put(registration)
            attempts = (reconciler.attempt(CallKind.PUT, outcome, start, delivery_id=delivery.id),) if repeated else ()
            await self._background.run_shielded(self._record_stored(reconciler, registration, report.id, attempts))
        else:
            attempt = reconciler.attempt(CallKind.PUT, outcome, start, delivery_id=delivery.id)
            read = () if isinstance(outcome, SpoolUnreadable) else clear_unread(delivery)
            now, policy, health = reconciler.now(), reconciler.config.policy, reconciler.health()
            changes = upload.after_put(reconciler.build, registration, outcome, now, policy, health)
            await reconciler.write_changes(*read, *changes, attempt)
        await self._handle_unreadable(reconciler, delivery, outcome, location)
        await reconciler.report_upstream_health(of_storage(outcome, run.route))

    async def _put(
        self, reconciler: BuildReconciler, location: BodyLocation, report: Report, url: str, *, leaves: bool
    ) -> tuple[CallStart, PutOutcome]:
        """Return when the call began, and its outcome."""
        start = reconciler.start_call()
        if report.failure is not None:  # there is nothing to send: TestNod gets upload_failed
            return start, CorruptBody(message=report.failure, gone=True)
        if location.body is None and location.blob is None:
            return start, CorruptBody(message=GONE, gone=True)
        if location.body is not None:
            return await self._put_bytes(reconciler, location.body, report, url)
        async with self._reader.open_slots:  # before an upload slot: while the spool hangs, reports in rows are sent
            chunks = await self._reader.open(location, leaves=leaves)
            if isinstance(chunks, CorruptBody | SpoolUnreadable):
                return start, chunks
            async with AsyncExitStack() as stack:
                if isinstance(chunks, AsyncGenerator):
                    stack.push_async_callback(chunks.aclose)
                return await self._put_bytes(reconciler, chunks, report, url)

    async def _put_bytes(
        self, reconciler: BuildReconciler, chunks: AsyncGenerator[bytes] | bytes, report: Report, url: str
    ) -> tuple[CallStart, PutOutcome]:
        async with self._slots:
            start = reconciler.start_call()
            put = self._clients.storage.put(url, chunks, size=report.sent_size, sha256=report.sent_sha256)
            return start, await put

    async def _record_stored(
        self,
        reconciler: BuildReconciler,
        registration: Registration,
        report_id: int,
        attempts: tuple[AddAttempt, ...],
    ) -> None:
        """Record that storage has the report, even if the build was claimed by another worker; release its bytes."""
        changes = upload.upload_succeeded(reconciler.build, registration, reconciler.now())
        written = await self._write_if_owned(reconciler, (*changes, *attempts))
        if not written and (written := await write_with_retry(reconciler, record_stored, changes)):
            reconciler.apply_written(*changes)
        if written:
            self._metrics.count_delivered(DeliveryTarget.TESTNOD)
            await release_bodies(reconciler, self._spool, report_id)

    async def report_upload_failed(self, reconciler: BuildReconciler, registration: Registration) -> None:
        """Call upload_failed, so that TestNod does not wait for the upload."""
        run = reconciler.build.run_parameters
        if run is None or registration.test_run_id is None or registration.upload_id is None:
            return
        async with self._slots:
            start = reconciler.start_call()
            with reconciler.running_call():
                outcome = await self._clients.testnod.upload_failed(
                    self._clients.token(run.route),
                    test_run_id=registration.test_run_id,
                    upload_id=registration.upload_id,
                    failure_message=registration.failure or "the upload did not succeed",
                )
        build, now, policy = reconciler.build, reconciler.now(), reconciler.config.policy
        attempt = reconciler.attempt(CallKind.UPLOAD_FAILED, outcome, start, delivery_id=registration.delivery_id)
        await reconciler.write_changes(*upload.after_upload_failed(build, registration, outcome, now, policy), attempt)
        if isinstance(outcome, FailureRecorded) and outcome.status != "failed":
            self._metrics.count_delivered(DeliveryTarget.TESTNOD)
            await release_bodies(reconciler, self._spool, build.deliveries[registration.delivery_id].report_id)
        await reconciler.report_upstream_health(of_testnod(outcome, run.route))

    # -- reports that cannot be read -----------------------------------------------------------------------------

    async def _is_readable(self, reconciler: BuildReconciler, delivery: Delivery) -> bool:
        """Return whether the report can be read; if it cannot, record when to read it again."""
        if delivery.unread_since is None and self._reader.failure is None:
            return True
        report = reconciler.build.reports[delivery.report_id]
        location = await self._locations.find(reconciler.config.database, report.id)
        if location.blob is None:  # in a row, or gone; the PUT handles both
            return True
        async with self._reader.check_slots.slot() as has_slot:
            if not has_slot:
                await reconciler.write_changes(set_delivery(delivery, due_at=after(reconciler.now(), BUSY_US)))
                return False
            checked = await self._reader.check(location, report, leaves=reconciler.config.own_faults.shared)
        outcome = tolerate_recent_damage(delivery, checked, reconciler.now())
        match outcome:
            case None:
                await reconciler.write_changes(*clear_unread(delivery))
            case SpoolUnreadable():
                await reconciler.write_changes(
                    retry_unread(delivery, outcome, reconciler.now(), reconciler.config.policy)
                )
            case CorruptBody(message=message):
                await reconciler.write_changes(set_delivery(delivery, state=DeliveryState.DEAD, last_error=message))
        await self._handle_unreadable(reconciler, delivery, outcome, location)
        return outcome is None

    async def _handle_unreadable(
        self, reconciler: BuildReconciler, before: Delivery, outcome: object, location: BodyLocation
    ) -> None:
        """Leave a report that cannot be read to other gateways, log it if that is news; move a corrupt blob aside."""
        if isinstance(outcome, SpoolUnreadable):
            reconciler.leave_unread(before.id)
        if isinstance(outcome, SpoolUnreadable) and outcome.message != before.unread:
            fields = {"report": before.report_id, **reconciler.log_fields()}
            log.warning("report_unreadable", reason=outcome.message, **fields)
        if isinstance(outcome, CorruptBody) and location.blob is not None:
            await self._move_aside(reconciler, before.report_id, location.blob)

    async def _move_aside(self, reconciler: BuildReconciler, report_id: int, blob: str) -> None:
        """Move a corrupt blob aside for inspection, so that the report can be uploaded again; it may be missing."""
        if await reconciler.config.database.write(unlink_corrupt_body, (report_id, blob)):
            log.error("corrupt_blob_moved", blob=blob, **reconciler.log_fields())
            with suppress(BridgeError):
                await self._spool.set_aside(blob)
