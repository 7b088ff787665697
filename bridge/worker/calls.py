"""How each call of a visit is made: what is committed before it, the call, what is committed after it.

It knows neither when a call is due nor what its answer means; domain/ says both. What an upstream answered is written
down even where the visit has lost its build meanwhile: an id that nobody wrote down could never be finalized.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from bridge.domain import step
from bridge.domain.build import SECOND, Registration, RegistrationState, Target
from bridge.domain.changes import AddRegistration, Change, set_build
from bridge.domain.effects import ending, finalize, put, register
from bridge.domain.effects.signals import of_codearts, of_register, of_storage, of_testnod
from bridge.domain.outcomes import Damaged, FailureNoted, Registered, RunStatus, Stored
from bridge.domain.routing import choose, facts_of, pin
from bridge.domain.rules.moment import route_of
from bridge.domain.step import AskCheck, Call, Describe, Finalize, Poll, Put, Register, ReportFailed
from bridge.errors import LeaseLost, Unavailable
from bridge.store.archives.archive import Archive
from bridge.store.bytes import kept_bytes, unlink_damaged
from bridge.store.recording import Fenced, LateIds, append_late_ids, record, record_stored
from bridge.store.spools.blobs import Spool
from bridge.worker.archiving import Archiving, free
from bridge.worker.checking import Checking
from bridge.worker.mirroring import Beside, Mirroring
from bridge.worker.rate import Rate
from bridge.worker.upstreams import Upstreams
from bridge.worker.visit import Visit

UNWRITTEN_RETRY_US = 250_000  # between tries to write what must not be forgotten

Result = TypeVar("Result")


class Observer(Protocol):
    """Where the worker counts what it brought about."""

    def delivered(self, target: str, count: int = 1) -> None: ...
    def finalized(self, lag_seconds: float) -> None: ...


log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Tails:
    """What must still be done when its visit has been cut off: finished before the process ends, or given up."""

    running: set[asyncio.Task[Any]] = field(default_factory=set)

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of `work`; it goes on where whoever waits here is cancelled."""
        task = asyncio.create_task(work)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Wait for all that is still running; whoever has no more time cancels this."""
        try:
            while self.running:
                await asyncio.wait(self.running)
        except asyncio.CancelledError:
            for task in self.running:
                task.cancel()
            raise


class Calls:
    """Makes the calls of all visits; at most as many to TestNod and its storage at once as there are `places`."""

    def __init__(  # noqa: PLR0913 -- everything it meets, each once
        self,
        upstreams: Upstreams,
        spool: Spool,
        archive: Archive | None,
        observe: Observer,
        *,
        tails: Tails,
        beside: Beside,
        places: asyncio.Semaphore,
        polls_a_second: float,
    ) -> None:
        self.upstreams = upstreams
        self._observe = observe
        self.tails = tails
        self._spool = spool
        self._mirroring = Mirroring(upstreams.codearts, upstreams.reports, spool, observe, beside)
        self._archiving = Archiving(archive, spool, observe)
        self._places = places
        self._rate = Rate(polls_a_second)
        self._checking = Checking(upstreams.check, self._rate)

    async def make(self, call: Call, visit: Visit) -> None:
        """Make one call and write down what came of it."""
        match call:
            case Describe(reserved=reserved):
                await self._describe(visit, reserved=reserved)
            case Poll(reserved=reserved):
                await self._poll(visit, reserved=reserved)
            case Register(delivery_id):
                await self._register(visit, delivery_id)
            case Put(registration_id):
                await self._put(visit, visit.build.registrations[registration_id])
            case ReportFailed(registration_id):
                await self._report_failed(visit, visit.build.registrations[registration_id])
            case Finalize(confirm=confirm):
                await self._finalize(visit, confirm=confirm)
            case AskCheck():
                await self._checking.ask(visit, call)
            case step.Mirror() | step.CompareMirror():
                await self._mirroring.begin(visit, call)
            case step.Archive(delivery_id):
                await self._archiving.keep(visit, delivery_id)

    # -- CodeArts ------------------------------------------------------------------------------------------------

    async def _describe(self, visit: Visit, *, reserved: bool) -> None:
        if self.upstreams.codearts is None:
            return
        if not reserved and (slot_at := await self._rate.next_place(visit)):
            await visit.record(*ending.describe_deferred(slot_at))
            return
        outcome = await self.upstreams.codearts.record_info(visit.build.job_id, visit.build.build_no)
        await visit.tell(of_codearts(outcome))
        await self._rate.obey(visit, outcome)
        await visit.record(*ending.after_describe(visit.build, outcome, visit.now(), visit.desk.policy))

    async def _poll(self, visit: Visit, *, reserved: bool) -> None:
        if self.upstreams.codearts is None:
            return
        if not reserved and (slot_at := await self._rate.next_place(visit)):
            await visit.record(*ending.poll_deferred(slot_at))
            return
        asked_at = visit.now()
        outcome = await self.upstreams.codearts.build_info(visit.build.job_id, visit.build.build_no)
        await visit.tell(of_codearts(outcome))
        await self._rate.obey(visit, outcome)
        now, away = visit.now(), self._away_us(visit)
        await visit.record(*ending.after_poll(visit.build, outcome, now, visit.desk.policy, away, asked_at=asked_at))

    def _away_us(self, visit: Visit) -> int:
        route = route_of(visit.build, visit.desk.policy)
        return visit.gates.away_us(route, visit.now()) if route else 0

    # -- register ------------------------------------------------------------------------------------------------

    async def _register(self, visit: Visit, delivery_id: int) -> None:
        async with self._places:
            life = await self._ask(visit, delivery_id)
            if life is not None:
                await self.tails.run(self._register_asked(visit, life))

    async def _ask(self, visit: Visit, delivery_id: int) -> Registration | None:
        """Commit that TestNod will be asked; with the first of a build, what all its runs are opened with."""
        now = visit.now()
        asked = Registration(
            id=0,
            delivery_id=delivery_id,
            state=RegistrationState.ASKED,
            asked_at=now,
            fence=visit.build.fence,
        )
        changes: list[Change] = [AddRegistration(asked)]
        if visit.build.pin is None:
            route = choose(visit.desk.policy.routes, facts_of(visit.build))
            if route is None:
                return None
            changes.append(set_build(pin=pin(route, visit.build, now)))
        written = await visit.record(*changes)
        return next(change.registration for change in written if isinstance(change, AddRegistration))

    async def _register_asked(self, visit: Visit, life: Registration) -> None:
        pinned = visit.build.pin
        if pinned is None:
            return
        outcome = await self.upstreams.testnod.register(self.upstreams.token(pinned.route), pinned)
        if isinstance(outcome, Registered):
            await self._name(visit, life, outcome)
        else:
            now, policy = visit.now(), visit.desk.policy
            changes = register.after_register(visit.build, life, outcome, now, policy, self._away_us(visit))
            await self._record_if_owned(visit, changes)
        await visit.tell(of_register(outcome, pinned.route))

    async def _name(self, visit: Visit, life: Registration, answer: Registered) -> None:
        changes = register.named(visit.build, life, answer, visit.now())
        if await self._record_if_owned(visit, changes):
            return
        late = LateIds(build_id=visit.build.id, registration=life, answer=answer)
        if await self._until_written(visit, append_late_ids, late):
            log.warning("ids of a register came after its visit had lost the build", **visit.names())

    async def _record_if_owned(self, visit: Visit, changes: tuple[Change, ...]) -> bool:
        fenced = Fenced(build_id=visit.build.id, fence=visit.build.fence, changes=changes)
        written = await self._until_written(visit, record, fenced)
        if written is None:
            return False
        visit.take_over(*written)
        return True

    async def _until_written(self, visit: Visit, batch: Any, item: object) -> Any:
        """Write what must not be forgotten, for as long as the ledger takes to be there again."""
        never = asyncio.Event()
        while True:
            try:
                return await visit.desk.database.write(batch, item)
            except Unavailable as error:
                log.warning("cannot write to the ledger, trying again", error=str(error), **visit.names())
                await visit.desk.clock.wait(never, visit.desk.clock.now() + UNWRITTEN_RETRY_US)

    # -- PUT and upload_failed -----------------------------------------------------------------------------------

    async def _put(self, visit: Visit, life: Registration) -> None:
        pinned = visit.build.pin
        if pinned is None or life.presigned_url is None:
            return
        delivery = visit.build.deliveries[life.delivery_id]
        report = visit.build.reports[delivery.report_id]
        async with self._places:
            kept = await visit.desk.database.read(kept_bytes, report.id)
            if kept.body is None and kept.blob is None:
                outcome: Any = Damaged(message="The report's bytes are gone. Send the report again from CI.")
            else:
                chunks = kept.body if kept.body is not None else self._spool.read(kept.blob or "")
                url = life.presigned_url
                outcome = await self.upstreams.storage.put(
                    url, chunks, size=report.sent_size, sha256=report.sent_sha256
                )
        if isinstance(outcome, Stored):
            await self.tails.run(self._stored(visit, life, report.id))
        else:
            now, policy = visit.now(), visit.desk.policy
            await visit.record(*put.after_put(visit.build, life, outcome, now, policy, self._away_us(visit)))
        if isinstance(outcome, Damaged) and kept.blob is not None:
            await self._set_aside(visit, report.id, kept.blob)
        await visit.tell(of_storage(outcome, pinned.route))

    async def _stored(self, visit: Visit, life: Registration, report_id: int) -> None:
        """Write that storage has the report, whoever owns the build now; then its bytes may go."""
        changes = put.stored(visit.build, life, visit.now())
        if await self._until_written(visit, record_stored, changes):
            visit.take_over(*changes)
            self._observe.delivered(Target.TESTNOD)
            await free(visit, self._spool, report_id)

    async def _set_aside(self, visit: Visit, report_id: int, blob: str) -> None:
        """Keep a damaged blob out of the way of "send again", for somebody to look at; it may be gone altogether."""
        if await visit.desk.database.write(unlink_damaged, (report_id, blob)):
            log.error("a damaged blob was set aside", blob=blob, **visit.names())
            with suppress(Unavailable):
                await self._spool.set_aside(blob)

    async def _report_failed(self, visit: Visit, life: Registration) -> None:
        pinned = visit.build.pin
        if pinned is None or life.test_run_id is None or life.upload_id is None:
            return
        async with self._places:
            outcome = await self.upstreams.testnod.upload_failed(
                self.upstreams.token(pinned.route),
                test_run_id=life.test_run_id,
                upload_id=life.upload_id,
                failure_message=life.failure or "the upload did not go through",
            )
        await visit.record(*put.after_upload_failed(visit.build, life, outcome, visit.now(), visit.desk.policy))
        if isinstance(outcome, FailureNoted) and outcome.status != "failed":
            self._observe.delivered(Target.TESTNOD)
            await free(visit, self._spool, visit.build.deliveries[life.delivery_id].report_id)
        await visit.tell(of_testnod(outcome, pinned.route))

    # -- finalize ------------------------------------------------------------------------------------------------

    async def _finalize(self, visit: Visit, *, confirm: bool) -> None:
        pinned = visit.build.pin
        if pinned is None:
            raise LeaseLost("A build without a pin has nothing to finalize.")
        async with self._places:
            outcome = await self.upstreams.testnod.finalize(self.upstreams.token(pinned.route), pinned.build_id)
        now, policy = visit.now(), visit.desk.policy
        if confirm:
            changes = finalize.after_confirm(visit.build, outcome, now, policy)
        else:
            changes = finalize.after_finalize(visit.build, outcome, now, policy, self._away_us(visit))
        await visit.record(*changes)
        if isinstance(outcome, RunStatus) and not confirm:
            self._observe.finalized((now - (visit.build.ended_at or now)) / SECOND)
            log.info("run finalized", status=outcome.status, build_id=pinned.build_id, **visit.names())
        await visit.tell(of_testnod(outcome, pinned.route))
