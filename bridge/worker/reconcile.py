"""Reconcile one leased build: plan one step, execute it, record the outcome, repeat.

A crash, a kill and a stop are one case: the next reconciler reads the same rows and continues.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace

import structlog

from bridge.domain.attempts import OF_BUILD, CallKind, new_attempt
from bridge.domain.build import Build, BuildState, Delivery, DeliveryState, RegistrationState
from bridge.domain.changes import AddAttempt, Change, set_delivery, set_registration
from bridge.domain.circuit_breaker import CircuitBreaker, CircuitBreakers, HealthSignal, RouteHealth, probe_delay_us
from bridge.domain.instants import SECOND, ZERO, Duration, Instant, after
from bridge.domain.job_order import wakes_next_build
from bridge.domain.lifecycle.breaker_signals import Signals
from bridge.domain.lifecycle.context import route_of
from bridge.domain.notice_events import Block, events_of_block
from bridge.domain.plan import plan
from bridge.domain.steps import (
    BACKGROUND_CALLS,
    REPEATABLE_CALLS,
    UPLOAD_CALLS,
    Apply,
    Execute,
    Finalize,
    Probe,
    Put,
    Register,
    UpstreamCall,
    Wait,
)
from bridge.errors import LeaseLost, Unavailable
from bridge.store.circuit_breakers import all_breakers, take_probe
from bridge.store.fenced_writes import has_ids
from bridge.store.leases import LeasedBuild, Marks, Release, Renewal, read_marks, read_newer, renew
from bridge.store.retention import BodyRelease
from bridge.telemetry.traces import TRACE_ID
from bridge.values import dataclass
from bridge.worker.build_log import LOGGED_HERE, log_blocked, log_changes, log_deliveries
from bridge.worker.change_writer import ChangeWriter
from bridge.worker.config import CallExecutor, WorkerConfig
from bridge.worker.notice_faults import events_or_none

SUCCESS_EVERY_US = Duration(60 * SECOND)
"""A success of a healthy upstream is written this often: only its age is ever read."""

MAX_STEPS = 40  # then the build goes to the end of the queue, so that builds take fair turns
LARGE_BUILD = 500  # reports: to read them takes as long as to deliver several
UPLOAD_GAP_US = Duration(2 * SECOND)  # an open large build of which nothing is due waits so long for CI's next upload
UPLOAD_CHECK_US = SECOND // 10  # between two checks for it
LONG_STEP_US = SECOND  # a step that has lasted that long starts no more calls, and the build is planned again
RENEWALS_PER_LEASE = 3  # two may fail before the lease is lost
CLOCK_STEP_WAIT_US = SECOND  # until the ledger's times are corrected after a step of its clock

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CallStart:
    """When a call began: by the ledger's clock, and by the steady one, which measures its duration."""

    at: Instant
    steady: int


class BuildReconciler:
    """One build under a lease that was requested at `requested_at` (this machine's clock, microseconds UTC)."""

    def __init__(self, config: WorkerConfig, leased: LeasedBuild, requested_at: int) -> None:
        self.config = config
        self._writer = ChangeWriter(config.database, leased.build, config.notices)
        self.breakers: CircuitBreakers = leased.breakers
        config.newest_breakers.update(leased.breakers.known)
        self._hold_lease(requested_at, config.clock.steady() - (config.clock.now() - requested_at))
        self._due_at = leased.due_at
        self._blocked_before = leased.build.blocked_reason
        self._claimed_at = leased.now
        self._freed: tuple[BodyRelease, Callable[[Iterable[str]], Awaitable[None]]] | None = None
        self._bodies = dict(leased.bodies)
        self._beat: Callable[[], None] = lambda: None
        self._taken = 0  # by how much `report_seq` was raised by uploads that were read after the claim
        self._unread: set[int] = set()  # ids of deliveries whose reports this gateway could not read

    @property
    def build(self) -> Build:
        """Return the build as far as it is known now."""
        return self._writer.build

    def _hold_lease(self, requested_at: int, requested_steady: int) -> None:
        """Hold the lease that was requested then, by this machine's clock and by the steady one."""
        self._lease_ends_at = requested_at + self.config.lease_us  # at the earliest
        self._lease_ends_steady = requested_steady + self.config.lease_us

    def _lease_left_us(self) -> int:
        """Return how long the lease still lasts by the clock that says less.

        The machine's clock may be set back; the steady one stands still while the machine sleeps.
        """
        clock = self.config.clock
        return min(self._lease_ends_at - clock.now(), self._lease_ends_steady - clock.steady())

    def now(self) -> Instant:
        """Return the ledger's time in microseconds UTC."""
        return self.config.database.now()

    def health(self) -> RouteHealth:
        """Return the state of the upstreams of the build's route."""
        route = route_of(self.build, self.config.policy)
        breakers = self.breakers.with_clock(self.config.clock_verdict())
        return breakers.health(route, self.now()) if route else RouteHealth(total_outage_us=Duration(0))

    def take_body(self, report_id: int) -> bytes | None:
        """Return the bytes of a report that came with the claim, once; None if they are still to be read."""
        return self._bodies.pop(report_id, None)

    def start_call(self, at: Instant | None = None) -> CallStart:
        """Return when a call begins, for `attempt`: now, or `at` by the ledger's clock."""
        return CallStart(at=self.now() if at is None else at, steady=self.config.clock.steady())

    def running_call(self) -> AbstractContextManager[None]:
        """Return a context in which a call to TestNod counts as running."""
        return self.config.recent_calls.running(self.config.clock)

    def attempt(self, call: CallKind, outcome: object, start: CallStart, *, delivery_id: int = OF_BUILD) -> AddAttempt:
        """Return the record of a call that began then and has ended now."""
        duration = Duration(max(0, self.config.clock.steady() - start.steady))
        return AddAttempt(new_attempt(call, outcome, at=start.at, duration=duration, delivery_id=delivery_id))

    def log_fields(self) -> dict[str, object]:
        """Return the fields that identify this build in a log line."""
        build = self.build
        fields: dict[str, object] = {"job_id": build.job_id, "build_no": build.build_no}
        if build.run_parameters is not None:
            fields["route"] = build.run_parameters.route
        if contexts := build.trace_contexts:
            fields["trace_id"] = contexts[0][TRACE_ID]
        return {**fields, "fencing_token": build.fencing_token}

    # -- steps ---------------------------------------------------------------------------------------------------

    async def run(self, executor: CallExecutor, beat: Callable[[], None] = lambda: None) -> None:
        """Execute steps until none is due; raise LeaseLost if another worker owns the build.

        `beat` is called after each call, so that the task does not seem to hang while all slots are taken.
        """
        self._beat = beat
        async with asyncio.TaskGroup() as tasks:
            renewal = tasks.create_task(self._renew_lease())
            end = await self._execute_steps(executor)
            renewal.cancel()
        await self._release(end)

    async def _execute_steps(self, executor: CallExecutor) -> Wait:
        just_read = True
        for _ in range(MAX_STEPS):
            if self.config.stopping.is_set():
                # Not now: if the clock is wrong, no other row may show that, and the next start would wait for it.
                return Wait(until=min(self.now(), Instant(self._due_at)))
            if self._lease_left_us() <= 0:  # this process was suspended; others took over
                raise self._lease_lost()
            verdict = self.config.clock_verdict()
            if verdict.outdates(self._claimed_at, self.now()):
                return Wait(until=after(self.now(), CLOCK_STEP_WAIT_US))
            step = plan(self.build, self.now(), self.config.policy, self._breakers_here().with_clock(verdict))
            match step:
                case Wait() if not await self._take_uploads(step):
                    return step
                case Apply():
                    await self._apply(step)
                case Probe(name):
                    await self._take_probe(name)
                case Execute(calls):
                    if not just_read and not await self._may_make(calls):
                        break
                    await self._make_calls(calls, executor)
            just_read = (
                just_read
                and isinstance(step, Execute)
                and all(isinstance(call, BACKGROUND_CALLS) for call in step.calls)
            )
        return Wait(until=self.now())

    async def _apply(self, step: Apply) -> None:
        if has_ids(step.changes):
            await self.write_changes(*step.changes)
        else:
            self.defer_changes(*step.changes)
        if step.event not in LOGGED_HERE:
            log.info(step.event, **self.log_fields(), **({"reason": step.reason} if step.reason else {}))

    async def _may_make(self, calls: tuple[UpstreamCall, ...]) -> bool:
        """Return whether calls may be made although the build was read some time ago.

        A run is finalized only if the ledger has nothing of the build that came after it was read, like new reports.
        """
        if not any(isinstance(call, Finalize) for call in calls):
            return True
        marks = await self.config.database.read(read_marks, self.build.id)
        return marks == (self._claimed_report_seq, self._due_at)

    @property
    def _claimed_report_seq(self) -> int:
        """Return `report_seq` as the ledger has it if nothing came after the claim."""
        return self.build.report_seq - self._taken

    async def _take_uploads(self, end: Wait) -> bool:
        """Wait a moment for what uploads bring to a large build, and read it; return whether to plan the build again.

        Otherwise all of its reports would be read for each upload, which takes longer than to deliver what came. The
        ledger's marks differ from those of the claim, so the build is read whole once more before it is finalized.
        """
        if len(self.build.reports) < LARGE_BUILD or end.waiting_on or end.blocked_reason or end.left_to_others:
            return False
        if self._writer.is_ahead:
            await self.write_changes()
        until = after(self.now(), UPLOAD_GAP_US if self.build.state is BuildState.OPEN else ZERO)
        if end.until is not None:
            until = min(until, end.until)
        marks = await self._wait_for_change(until)
        if marks is None or marks.report_seq == self.build.report_seq:
            return marks == (self.build.report_seq, self._due_at) and until == end.until
        newer = await self.config.database.read(read_newer, self.build)
        if newer is None or not newer.reports:
            return False
        self._taken += newer.report_seq - self.build.report_seq
        self._writer.take_uploads(newer)
        return True

    async def _wait_for_change(self, until: Instant) -> Marks | None:
        """Return the marks of the build as soon as an upload or a request has changed them, or at `until`."""
        config, known = self.config, (self.build.report_seq, self._due_at)
        while (marks := await config.database.read(read_marks, self.build.id)) == known:
            if config.stopping.is_set() or self.now() >= until:
                break
            await config.clock.wait(config.stopping, config.clock.now() + UPLOAD_CHECK_US)
        return marks

    async def _make_calls(self, calls: tuple[UpstreamCall, ...], executor: CallExecutor) -> None:
        uploads: deque[UpstreamCall] = deque(call for call in calls if isinstance(call, UPLOAD_CALLS))
        if self._writer.is_ahead and not all(isinstance(call, (*REPEATABLE_CALLS, Register)) for call in calls):
            await self.write_changes()
        until = self.config.clock.steady() + LONG_STEP_US
        follows = len(uploads) > 1  # one alone may open the run; then the others go beside its PUT
        work: list[Coroutine[object, object, object]] = [
            executor.make(call, self) for call in calls if not isinstance(call, UPLOAD_CALLS)
        ]
        own = min(len(uploads), self.config.policy.concurrency_per_build)
        spare = min(len(uploads) - own, executor.free_slots - own - self.config.policy.concurrency_per_build)
        work += [self._make_uploads(uploads, executor, until, follows=follows) for _ in range(own)]
        work += [self._make_uploads(uploads, executor, until, follows=follows, spare=True) for _ in range(spare)]
        self._writer.begin_calls(len(work))
        before = self.build
        if len(work) == 1:
            await self._counted(work[0])
        else:
            async with asyncio.TaskGroup() as tasks:
                for each in work:
                    tasks.create_task(self._counted(each))
        log_deliveries(before, self.build, self.log_fields)

    async def _counted(self, work: Coroutine[object, object, object]) -> None:
        try:
            await work
        finally:
            self._writer.end_call()
            self._beat()

    async def _make_uploads(
        self,
        calls: deque[UpstreamCall],
        executor: CallExecutor,
        until: int,
        *,
        follows: bool,
        spare: bool = False,
    ) -> None:
        """Make calls one after the other until one of them fails or the step lasts long; the first one in any case.

        If `follows`, the PUT of a report follows its register. With `spare`, calls are made only while as many slots
        stay free as another build may take, which therefore never waits for this one.
        """
        while calls and not (spare and executor.free_slots <= self.config.policy.concurrency_per_build):
            call = calls.popleft()
            following = await executor.make(call, self)
            self._beat()
            if follows and following is not None:
                call = following
                await executor.make(call, self)
                self._beat()
            went_well = isinstance(call, Put) and self._is_stored(call.registration_id)
            if not went_well or self.config.stopping.is_set() or self.config.clock.steady() >= until:
                calls.clear()

    def _is_stored(self, registration_id: int) -> bool:
        registration = self.build.registrations.get(registration_id)
        return registration is not None and registration.state is RegistrationState.STORED

    async def _take_probe(self, name: str) -> None:
        policy, database = self.config.policy, self.config.database
        next_us = probe_delay_us(
            self.breakers.known[name], self.now(), first_us=policy.retry_initial_delay, max_us=policy.retry_max_delay
        )
        if await database.write(take_probe, (name, next_us)):
            self.breakers = replace(self.breakers, probing=self.breakers.probing | {name})
        else:
            self.breakers = replace(await database.read(all_breakers), probing=self.breakers.probing)

    # -- writes --------------------------------------------------------------------------------------------------

    async def write_changes(self, *changes: Change) -> tuple[Change, ...]:
        """Write changes under the fencing token and apply them; return them with the ids of new rows.

        Calls that run side by side share a write. Raise LeaseLost if another worker has claimed the build; then nothing
        was written.
        """
        written = await self.write_if_owned(*changes)
        if written is None:
            raise LeaseLost(f"Build {self.build.job_id}/{self.build.build_no} has a newer owner. Nothing was written.")
        return written

    async def write_if_owned(self, *changes: Change) -> tuple[Change, ...] | None:
        """Write as `write_changes` does; return None if another worker has claimed the build."""
        before = self.build
        written = await self._writer.write(changes)
        if written is not None:
            log_changes(before, changes, self.log_fields)
        return written

    def defer_changes(self, *changes: Change) -> None:
        """Apply changes now and write them with the next ones; for what is done again if the process ends before."""
        before = self.build
        self._writer.defer(changes)
        log_changes(before, changes, self.log_fields)

    def apply_written(self, *changes: Change) -> None:
        """Apply changes that the ledger has to the build in memory."""
        self._writer.apply(changes)

    def free_bodies(self, bodies: BodyRelease, delete: Callable[[Iterable[str]], Awaitable[None]]) -> None:
        """Free the bytes of reports with the write that ends the lease, and then `delete` their blobs."""
        self._freed = bodies, delete

    async def report_upstream_health(self, signals: Signals) -> None:
        """Write what an answer shows of its upstream's health, unless the ledger has it already."""
        now = self.now()
        for name, signal, reason in signals:
            before = self.config.newest_breakers.get(name) or CircuitBreaker(name=name)
            if signal is HealthSignal.SUCCESS:
                self.config.own_faults.accept(name)
            if signal is HealthSignal.SUCCESS and name not in self.breakers.probing and not self._is_news(before, now):
                continue
            breaker = await self.config.send_signal(name, signal, reason, self.build.id)
            known = {**self.breakers.known, name: breaker}
            self.breakers = replace(self.breakers, known=known, probing=self.breakers.probing - {name})

    def _is_news(self, breaker: CircuitBreaker, now: Instant) -> bool:
        """Return whether a success would change the breaker's row."""
        known = self.breakers.known.get(breaker.name) or breaker
        recent = breaker.succeeded_at is not None and 0 <= now - breaker.succeeded_at < SUCCESS_EVERY_US
        return breaker.failures > 0 or known.failures > 0 or not recent

    async def _release(self, end: Wait) -> None:
        faults, now = self.config.own_faults, self.now()
        unread = [self.build.deliveries[delivery_id] for delivery_id in self._unread]
        unread = [delivery for delivery in unread if delivery.state is DeliveryState.PENDING]
        had_time = faults.have_others_had_time(self.build.id, now)
        leaves = (end.left_to_others or bool(unread)) and faults.leave(self.build.id, now, end.until)
        announced = self._blocked_before is not None and not self.build.blocked_quietly
        is_quiet = end.is_pause or (leaves and not had_time and not announced)
        if leaves:
            await self._make_due(unread, now)
            end = replace(end, until=now)
        released = Release(
            build_id=self.build.id,
            fencing_token=self.build.fencing_token,
            report_seq=self._claimed_report_seq,
            due_at=self._due_at,
            until=end.until,
            waiting_on=end.waiting_on,
            blocked_reason=end.blocked_reason,
            is_quiet=end.blocked_reason is not None and is_quiet,
            wakes_next=wakes_next_build(self.build, end),
            notices=events_or_none(lambda: events_of_block(self._block(end, is_quiet=is_quiet), self.config.notices)),
        )
        bodies, delete = self._freed or (None, None)
        blobs = await self._writer.finish(released, bodies)
        log_blocked(self.build, end.blocked_reason, self.log_fields, quietly=is_quiet)
        if leaves:
            faults.wake_others()
        if delete is not None:
            await delete(blobs)

    def _block(self, end: Wait, *, is_quiet: bool) -> Block:
        build = self.build
        return Block(
            job_id=build.job_id,
            build_no=build.build_no,
            route=build.run_parameters.route if build.run_parameters else "",
            before=self._blocked_before,
            reason=end.blocked_reason,
            waiting_on=end.waiting_on,
            was_quiet=build.blocked_quietly,
            is_quiet=is_quiet,
        )

    def _breakers_here(self) -> CircuitBreakers:
        now, config = self.now(), self.config
        unusable = config.own_faults.unusable(config.clients.credential_digests, now)
        replaces = self.build.generation > 1  # only such a build waits for calm
        age = config.recent_calls.disturbance_age(config.clock.steady(), self.build.id) if replaces else None
        if age is None and not unusable:  # nearly always
            return self.breakers
        return replace(self.breakers, rejected_here=unusable, disturbed_at=None if age is None else Instant(now - age))

    def is_left_to_others(self, breaker: str) -> bool:
        """Return whether an upstream rejects the credentials of this gateway, while those of another one work."""
        return self._breakers_here().is_left_to_others(breaker)

    def leave_unread(self, delivery_id: int) -> None:
        """Leave a delivery to other gateways, because the spool does not return its report to this one."""
        self._unread.add(delivery_id)

    async def _make_due(self, unread: list[Delivery], now: Instant) -> None:
        """Make deliveries due for other gateways; this one waits all the same, because it leaves the build to them."""
        ids = {delivery.id for delivery in unread}
        registered = [
            registration
            for registration in self.build.registrations.values()
            if registration.delivery_id in ids and registration.state is RegistrationState.REGISTERED
        ]
        if unread:
            await self.write_changes(
                *(set_delivery(delivery, due_at=now) for delivery in unread),
                *(set_registration(registration, due_at=now) for registration in registered),
            )

    async def _renew_lease(self) -> None:
        """Renew the lease while steps run; raise LeaseLost, which cancels their calls, if that fails."""
        config = self.config
        renewal = Renewal(build_id=self.build.id, fencing_token=self.build.fencing_token, lease_us=config.lease_us)
        owned = True
        while owned and self._lease_left_us() > 0:
            await config.clock.sleep_until(config.clock.now() + config.lease_us // RENEWALS_PER_LEASE)
            renewed_at, renewed_steady = config.clock.now(), config.clock.steady()
            try:
                async with asyncio.timeout(max(0, self._lease_left_us()) / SECOND):
                    owned = await config.database.write(renew, renewal)
            except (Unavailable, TimeoutError):  # retried until the lease has run out
                continue
            self._hold_lease(renewed_at, renewed_steady)
        raise self._lease_lost()

    def _lease_lost(self) -> LeaseLost:
        return LeaseLost(f"The lease of build {self.build.job_id}/{self.build.build_no} could not be renewed.")
