"""How a report gets to TestNod: register, PUT, and upload_failed for what did not get there.

It knows neither when a call is due nor what its answer means; domain/ says both. What an upstream answered is written
down even where the visit has lost its build meanwhile: an id that nobody wrote down could never be finalized.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress

import structlog

from bridge.domain.build import SECOND, Delivery, DeliveryState, DeliveryTarget, Registration, RegistrationState, Report
from bridge.domain.changes import AddRegistration, Change, set_build, set_delivery
from bridge.domain.lifecycle import upload
from bridge.domain.lifecycle.breaker_signals import of_register, of_storage, of_testnod
from bridge.domain.lifecycle.unreadable_body import clear_unread, retry_unread, tolerate_recent_damage
from bridge.domain.outcomes import CorruptBody, FailureRecorded, PutOutcome, Registered, SpoolUnreadable, Stored
from bridge.domain.routing import choose_run_parameters, match_route, routing_keys_of
from bridge.errors import BridgeError
from bridge.store.blobs.base import Spool
from bridge.store.fenced_writes import (
    FencedChanges,
    LateRegistration,
    record_late_registration,
    record_stored,
    write_changes_if_fenced,
)
from bridge.store.retention import BodyLocation, body_location, unlink_corrupt_body
from bridge.worker.archive_copy import free
from bridge.worker.background_tasks import UncancellableTasks, write_with_retry
from bridge.worker.blob_reader import BlobReader
from bridge.worker.clients import UpstreamClients
from bridge.worker.events import DeliveryEvents
from bridge.worker.reconcile import BuildReconciler

BUSY_US = SECOND
GONE = "The report's bytes are gone. Send the report again from CI."

log = structlog.get_logger(__name__)


class ReportUploader:
    """Makes the calls for single reports, at most as many at once as there are `places`."""

    def __init__(
        self,
        upstreams: UpstreamClients,
        spool: Spool,
        observe: DeliveryEvents,
        *,
        tails: UncancellableTasks,
        places: asyncio.Semaphore,
    ) -> None:
        self._upstreams = upstreams
        self._spool = spool
        self._observe = observe
        self._tails = tails
        self._places = places
        self._reading = BlobReader(spool)

    # -- register ------------------------------------------------------------------------------------------------

    async def register(self, visit: BuildReconciler, delivery_id: int) -> None:
        if not await self._readable(visit, visit.build.deliveries[delivery_id]):
            return
        async with self._places:
            life = await self._ask(visit, delivery_id)
            if life is not None:
                await self._tails.run(self._register_asked(visit, life))

    async def _ask(self, visit: BuildReconciler, delivery_id: int) -> Registration | None:
        """Commit that TestNod will be asked; with the first of a build, what all its runs are opened with."""
        now = visit.now()
        asked = Registration(
            id=0,
            delivery_id=delivery_id,
            state=RegistrationState.REQUESTED,
            requested_at=now,
            fencing_token=visit.build.fencing_token,
        )
        changes: list[Change] = [AddRegistration(asked)]
        if visit.build.run_parameters is None:
            route = match_route(visit.desk.policy.routes, routing_keys_of(visit.build))
            if route is None:
                return None
            changes.append(set_build(run_parameters=choose_run_parameters(route, visit.build, now)))
        written = await visit.record(*changes)
        return next(change.registration for change in written if isinstance(change, AddRegistration))

    async def _register_asked(self, visit: BuildReconciler, life: Registration) -> None:
        pinned = visit.build.run_parameters
        if pinned is None:
            return
        outcome = await self._upstreams.testnod.register(self._upstreams.token(pinned.route), pinned)
        if isinstance(outcome, Registered):
            await self._name(visit, life, outcome)
        else:
            now, policy = visit.now(), visit.desk.policy
            changes = upload.after_register(visit.build, life, outcome, now, policy, visit.health())
            await self._record_if_owned(visit, changes)
        await visit.tell(of_register(outcome, pinned.route))

    async def _name(self, visit: BuildReconciler, life: Registration, answer: Registered) -> None:
        changes = upload.registration_succeeded(
            visit.build, life, answer, visit.now(), visit.desk.policy, visit.health()
        )
        if await self._record_if_owned(visit, changes):
            return
        late = LateRegistration(build_id=visit.build.id, registration=life, answer=answer)
        if await write_with_retry(visit, record_late_registration, late):
            log.warning("ids of a register came after its visit had lost the build", **visit.names())

    async def _record_if_owned(self, visit: BuildReconciler, changes: tuple[Change, ...]) -> bool:
        fenced = FencedChanges(build_id=visit.build.id, fencing_token=visit.build.fencing_token, changes=changes)
        written = await write_with_retry(visit, write_changes_if_fenced, fenced)
        if written is None:
            return False
        visit.take_over(*written)
        return True

    # -- PUT and upload_failed -----------------------------------------------------------------------------------

    async def put(self, visit: BuildReconciler, life: Registration) -> None:
        pinned = visit.build.run_parameters
        if pinned is None or life.presigned_url is None:
            return
        delivery = visit.build.deliveries[life.delivery_id]
        report = visit.build.reports[delivery.report_id]
        kept = await visit.desk.database.read(body_location, report.id)
        outcome = tolerate_recent_damage(delivery, await self._put(kept, report, life.presigned_url), visit.now())
        if isinstance(outcome, Stored):
            await self._tails.run(self._stored(visit, life, report.id))
        else:
            read = () if isinstance(outcome, SpoolUnreadable) else clear_unread(delivery)
            now, policy = visit.now(), visit.desk.policy
            await visit.record(*read, *upload.after_put(visit.build, life, outcome, now, policy, visit.health()))
        await self._after_reading(visit, delivery, outcome, kept)
        await visit.tell(of_storage(outcome, pinned.route))

    async def _put(self, kept: BodyLocation, report: Report, url: str) -> PutOutcome:
        if kept.body is None and kept.blob is None:
            return CorruptBody(message=GONE, gone=True)
        async with AsyncExitStack() as held:
            if kept.body is None:  # before it takes a place: while the spool hangs, reports in rows go on
                await held.enter_async_context(self._reading.opening)
            chunks = await self._reading.opened(kept)
            if isinstance(chunks, CorruptBody | SpoolUnreadable):
                return chunks
            if isinstance(chunks, AsyncGenerator):
                held.push_async_callback(chunks.aclose)
            async with self._places:
                return await self._upstreams.storage.put(url, chunks, size=report.sent_size, sha256=report.sent_sha256)

    async def _stored(self, visit: BuildReconciler, life: Registration, report_id: int) -> None:
        """Write that storage has the report, whoever owns the build now; then its bytes may go."""
        changes = upload.upload_succeeded(visit.build, life, visit.now())
        if await write_with_retry(visit, record_stored, changes):
            visit.take_over(*changes)
            self._observe.delivered(DeliveryTarget.TESTNOD)
            await free(visit, self._spool, report_id)

    # -- the bridge's own spool ----------------------------------------------------------------------------------

    async def _readable(self, visit: BuildReconciler, delivery: Delivery) -> bool:
        """Return whether a report is worth an upload at TestNod; one that cannot be read now is read again later."""
        if delivery.unread_since is None and not self._reading.fails:
            return True
        report = visit.build.reports[delivery.report_id]
        kept = await visit.desk.database.read(body_location, report.id)
        if kept.blob is None:  # it is in a row, or gone: the PUT finds out
            return True
        if self._reading.checking.locked():
            await visit.record(set_delivery(delivery, due_at=visit.now() + BUSY_US))
            return False
        async with self._reading.checking:
            outcome = tolerate_recent_damage(delivery, await self._reading.checked(kept, report), visit.now())
        match outcome:
            case None:
                await visit.record(*clear_unread(delivery))
            case SpoolUnreadable():
                await visit.record(retry_unread(delivery, outcome, visit.now(), visit.desk.policy))
            case CorruptBody(message=message):
                await visit.record(set_delivery(delivery, state=DeliveryState.DEAD, last_error=message))
        await self._after_reading(visit, delivery, outcome, kept)
        return outcome is None

    async def _after_reading(
        self, visit: BuildReconciler, before: Delivery, outcome: object, kept: BodyLocation
    ) -> None:
        if isinstance(outcome, SpoolUnreadable) and outcome.message != before.unread:
            names = {"report": before.report_id, **visit.names()}
            log.warning("a report cannot be read from the spool", reason=outcome.message, **names)
        if isinstance(outcome, CorruptBody) and kept.blob is not None:
            await self._set_aside(visit, before.report_id, kept.blob)

    async def _set_aside(self, visit: BuildReconciler, report_id: int, blob: str) -> None:
        """Keep a damaged blob out of the way of "send again", for somebody to look at; it may be gone altogether."""
        if await visit.desk.database.write(unlink_corrupt_body, (report_id, blob)):
            log.error("a damaged blob was set aside", blob=blob, **visit.names())
            with suppress(BridgeError):
                await self._spool.set_aside(blob)

    async def report_failed(self, visit: BuildReconciler, life: Registration) -> None:
        pinned = visit.build.run_parameters
        if pinned is None or life.test_run_id is None or life.upload_id is None:
            return
        async with self._places:
            outcome = await self._upstreams.testnod.upload_failed(
                self._upstreams.token(pinned.route),
                test_run_id=life.test_run_id,
                upload_id=life.upload_id,
                failure_message=life.failure or "the upload did not go through",
            )
        await visit.record(*upload.after_upload_failed(visit.build, life, outcome, visit.now(), visit.desk.policy))
        if isinstance(outcome, FailureRecorded) and outcome.status != "failed":
            self._observe.delivered(DeliveryTarget.TESTNOD)
            await free(visit, self._spool, visit.build.deliveries[life.delivery_id].report_id)
        await visit.tell(of_testnod(outcome, pinned.route))
