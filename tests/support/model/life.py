"""A model of everything around the domain for one build: ledger, reconciling that may stop anywhere, TestNod, faults.

Each decision is a byte of luck. If luck has run out, everything works, so that every life ends. The ledger and the copy
that reconciling works on are separate, as in the real one: it does not see what arrives meanwhile.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from bridge.domain.build import (
    Build,
    BuildRecord,
    BuildState,
    DeliveryState,
    DeliveryTarget,
    Registration,
    RegistrationState,
)
from bridge.domain.changes import (
    AddRegistration,
    AddRun,
    BumpReportSeq,
    Change,
    SetRegistration,
    apply,
    set_build,
    set_delivery,
    set_registration,
    set_run,
)
from bridge.domain.circuit_breaker import (
    PROBER,
    TESTNOD,
    CircuitBreaker,
    CircuitBreakers,
    RouteHealth,
    apply_signal,
    probe_delay_us,
    route_breaker,
)
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle import build_end, build_record, finalize, upload
from bridge.domain.lifecycle.breaker_signals import Signals, of_codearts, of_register, of_storage, of_testnod
from bridge.domain.lifecycle.build_record import RecordQuestion
from bridge.domain.lifecycle.context import UPLOADS_AHEAD
from bridge.domain.lifecycle.replacement import must_ask_again, must_finalize_again, reports_to_send_again
from bridge.domain.lifecycle.unreadable_body import clear_unread
from bridge.domain.outcomes import (
    BuildInfo,
    CorruptBody,
    NoSuchBuild,
    OutcomeUnknown,
    PutOutcome,
    PutRejected,
    RecordFetched,
    Registered,
    Rejected,
    RunStatus,
    SpoolUnreadable,
    Stored,
)
from bridge.domain.plan import plan
from bridge.domain.policy import Policy
from bridge.domain.routing import choose_route, choose_run_parameters
from bridge.domain.steps import (
    Apply,
    Execute,
    FetchRecord,
    Finalize,
    Poll,
    Probe,
    Put,
    Register,
    ReportUploadFailed,
    UpstreamCall,
    Wait,
)
from tests.support.builders import MINUTE, NOW, ROUTE, a_build, pending, report
from tests.support.model import outcomes
from tests.support.model.testnod import MAY_BE_PUT, TestNodModel

STEPS_A_TURN = 40
STEPS_WITHOUT_TIME = 120  # writes, calls and arrivals that one moment may hold: more is a busy loop
T = TypeVar("T")


class Cut(Exception):
    """The visit ends here: killed, or its lease was lost."""


class Luck:
    """Bytes of luck: half of them good, and all of them once they have run out."""

    def __init__(self, drawn: bytes) -> None:
        self._drawn = iter(drawn)

    def pick(self, good: T, bad: Sequence[T], *, odds: int = 128) -> T:
        """Return `good`, or with `odds` in 256 one of `bad`."""
        byte = next(self._drawn, 0)
        return bad[byte % len(bad)] if byte >= 256 - odds else good

    def run_out(self) -> None:
        self._drawn = iter(b"")


@dataclass(frozen=True, order=True)
class Event:
    """Something that happens at its time, under any owner of the build."""

    at: int
    number: int
    happen: Callable[[], None]


class World:
    """One build from its first report to its rest."""

    def __init__(self, luck: Luck, policy: Policy, *, url_lives: int) -> None:
        self.luck = luck
        self.policy = policy
        self.now = NOW
        self.testnod = TestNodModel(url_lives=url_lives)
        self.breakers = CircuitBreakers()
        self.ledger = a_build(report_seq=0, accepted_at=NOW, last_report_at=NOW)
        self.due_at: int | None = NOW
        self.waiting_on: str | None = None
        self.events: list[Event] = []
        self.ends_at = NOW  # when CodeArts will say that the build has ended
        self.refused_failures: set[int] = set()  # deliveries that may or may not have been stored
        self.may_die: set[int] = set()
        self.mishaps = 0  # kills, lost leases, lost answers, spent URLs: each may cost one registration
        self._ids = 0
        self._moment = (NOW, 0)

    # -- time ----------------------------------------------------------------------------------------------------

    def later(self, delay: int, happen: Callable[[], None]) -> None:
        self._ids += 1
        heapq.heappush(self.events, Event(self.now + delay, self._ids, happen))

    def happen_due(self) -> None:
        while self.events and self.events[0].at <= self.now:
            heapq.heappop(self.events).happen()
            self.check()

    def live(self) -> None:
        """Go from visit to visit until the build rests and nothing more can happen."""
        for _ in range(10_000):
            self.happen_due()
            if self.due_at is not None and self.due_at <= self.now:
                self.visit()
                continue
            self.wake_for_probe()
            times = [event.at for event in self.events[:1]] + [at for at in [self.due_at] if at is not None]
            if not times:
                return
            self.probe_testnod(min(times))
        raise AssertionError("the build never rests")

    def wake_for_probe(self) -> None:
        """Let the build take the probe of a breaker when that is due, as worker/circuit_probe.py does."""
        tripped = [breaker for breaker in self.breakers.known.values() if breaker.opened_at is not None]
        due = [
            breaker.probe_at
            for breaker in tripped
            if breaker.name == self.waiting_on not in (TESTNOD, route_breaker(ROUTE))
        ]
        if self.due_at is not None and due:
            self.due_at = min(self.due_at, max(self.now, *due))

    def probe_testnod(self, until: int) -> None:
        """Let time pass to `until`, or to the next probe of TestNod or the route, as worker/circuit_probe.py does."""
        tripped = [breaker for name in (TESTNOD, route_breaker(ROUTE)) if (breaker := self.breakers.open_breaker(name))]
        due = min((breaker.probe_at for breaker in tripped), default=until)
        self.now = max(self.now, min(until, due))
        for breaker in tripped:
            if breaker.probe_at <= self.now:
                self.take_probe(breaker.name)
                outcome = self.luck.pick(RunStatus(status="pending"), [OutcomeUnknown(message="still away")])
                self.tell(of_testnod(outcome, ROUTE), PROBER)

    def step(self) -> None:
        """Count what happens at one moment."""
        moment, steps = self._moment
        self._moment = (self.now, steps + 1 if moment == self.now else 0)
        assert steps < STEPS_WITHOUT_TIME, "busy loop"

    # -- the ledger ----------------------------------------------------------------------------------------------

    def record(self, fencing_token: int, changes: Iterable[Change]) -> list[Change]:
        if fencing_token != self.ledger.fencing_token:
            raise Cut
        written = [self._with_id(change) for change in changes]
        self.ledger = apply(self.ledger, written)
        self.check()
        return written

    def _with_id(self, change: Change) -> Change:
        if not isinstance(change, AddRegistration):
            return change
        self._ids += 1
        return AddRegistration(replace(change.registration, id=self._ids))

    def check(self) -> None:
        """Check what must hold at every moment."""
        build = self.ledger
        live = [
            registration.delivery_id
            for registration in build.registrations.values()
            if registration.state in MAY_BE_PUT
        ]
        assert len(live) == len(set(live)), "two registrations of one delivery may be PUT"
        assert build.finalized_seq <= build.report_seq
        for delivery in build.deliveries.values():
            arrived = self.testnod.arrivals(delivery.id, self.build_id)
            assert arrived <= 1 or delivery.id in self.refused_failures, "doubled"
            assert arrived or delivery.state is not DeliveryState.DELIVERED, "said delivered and is not there"
            if delivery.state is DeliveryState.DEAD and delivery.id not in self.may_die:
                assert delivery.last_error is not None
                assert delivery.last_error.startswith("Given up"), delivery.last_error
                assert delivery.first_failure_at is not None
                assert self.now >= delivery.first_failure_at + self.policy.give_up_after

    @property
    def build_id(self) -> str:
        """Return the build_id of the runs that count."""
        return self.ledger.run_parameters.build_id if self.ledger.run_parameters else ""

    def tell(self, signals: Signals, build_id: int) -> None:
        """Keep the breakers as store/circuit_breakers.py does."""
        for name, signal, reason in signals:
            before = self.breakers.known.get(name, CircuitBreaker(name=name))
            after = apply_signal(before, signal, reason, self.now, self.policy.retry_initial_delay, build_id=build_id)
            self.breakers = CircuitBreakers.of(
                [*(breaker for breaker in self.breakers.known.values() if breaker.name != name), after]
            )
            if before.opened_at is not None and after.opened_at is None and self.due_at is not None:
                self.due_at = min(self.due_at, self.now)

    def take_probe(self, name: str) -> None:
        breaker = self.breakers.known[name]
        delay = probe_delay_us(
            breaker, self.now, first_us=self.policy.retry_initial_delay, max_us=self.policy.retry_max_delay
        )
        taken = replace(breaker, probe_at=self.now + delay, probed_at=self.now, probes=breaker.probes + 1)
        self.breakers = CircuitBreakers.of(
            [*(other for other in self.breakers.known.values() if other is not breaker), taken]
        )

    # -- what arrives --------------------------------------------------------------------------------------------

    def arrive(self) -> None:
        """Accept a new report."""
        self._ids += 1
        delivery = pending(self._ids, pending_since=self.now, due_at=self.now)
        self.ledger = replace(
            self.ledger,
            deliveries=self.ledger.deliveries.with_rows([delivery]),
            reports=self.ledger.reports.with_rows([report(delivery.id)]),
        )
        self._raise_batch()

    def arrive_again(self) -> None:
        """Accept the dead reports once more."""
        dead = [delivery for delivery in self.ledger.deliveries.values() if delivery.state is DeliveryState.DEAD]
        reset = {"state": DeliveryState.PENDING, "pending_since": self.now, "due_at": self.now, "attempts": 0}
        reset |= {"first_failure_at": None, "outage_us_at_first_failure": 0, "send_alone": False, "last_error": None}
        for delivery in dead:
            self.may_die.discard(delivery.id)
            self.ledger = apply(self.ledger, [set_delivery(delivery, **reset)])
        self.mishaps += len(dead)
        if dead:
            self._raise_batch()

    def complete(self) -> None:
        if self.ledger.complete_at is None:
            self.ledger = replace(self.ledger, complete_at=self.now)
            self.due_at = self.now

    def look(self) -> None:
        """Receive a webhook notice: the build is to be polled now."""
        self.ledger = replace(self.ledger, poll_requested_at=self.now)
        self.due_at = self.now if self.due_at is None else min(self.due_at, self.now)

    def _raise_batch(self) -> None:
        last = max(self.now, self.ledger.last_report_at + 1)
        self.ledger = replace(self.ledger, report_seq=self.ledger.report_seq + 1, last_report_at=last)
        self.due_at = self.now if self.due_at is None else min(self.due_at, self.now)

    def late_ids(self, registration: Registration, answer: Registered) -> None:
        """Append the ids of a register whose visit had lost the build, as store/leases.py does."""
        found = self.ledger.registrations.get(registration.id)
        if found is None or found.state not in (RegistrationState.REQUESTED, RegistrationState.LOST):
            return
        registered = {"test_run_id": answer.test_run_id, "upload_id": answer.upload_id, "registered_at": self.now}
        if found.state is RegistrationState.REQUESTED:
            self.ledger = apply(self.ledger, [set_registration(found, state=RegistrationState.LOST)])
            found = self.ledger.registrations[registration.id]
        owed_failed = set_registration(
            found,
            state=RegistrationState.FAILURE_UNREPORTED,
            due_at=self.now,
            attempts=0,
            failure="interrupted",
            **registered,
        )
        run = AddRun(answer.test_run_id, answer.test_run_url, self.now, generation=found.generation)
        known = any(each.test_run_id == answer.test_run_id for each in self.ledger.runs)
        older = [] if known else [each for each in self.ledger.runs if each.generation == found.generation]
        left = [set_run(each, status="processing") for each in older if each.is_pending]
        self.ledger = apply(self.ledger, [owed_failed, run, *left, BumpReportSeq()])
        self.due_at = self.now

    def late_stored(self, changes: Sequence[Change]) -> None:
        """Record under any owner that storage has a report, if its registration is still open."""
        first = changes[0]
        assert isinstance(first, SetRegistration)
        if self.ledger.registrations[first.id].state is first.leaves:
            self.ledger = apply(self.ledger, changes)

    # -- one visit -----------------------------------------------------------------------------------------------

    def visit(self) -> None:
        self.ledger = replace(self.ledger, fencing_token=self.ledger.fencing_token + 1)
        Visit(self).run()


class Visit:
    """One run of reconciling: its copy of the build, and what it does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.luck = world.luck
        self.policy = world.policy
        self.build: Build = world.ledger
        self.probing: frozenset[str] = frozenset()
        self.claimed = (world.due_at, world.ledger.report_seq)

    @property
    def now(self) -> int:
        return self.world.now

    def run(self) -> None:
        try:
            end = self.steps()
        except Cut:
            self.world.mishaps += 1
            self.world.due_at = self.now + self.luck.pick(SECOND, [15 * SECOND])
            return
        world = self.world
        world.waiting_on = end.waiting_on
        if (world.due_at, world.ledger.report_seq) == self.claimed:
            world.due_at = end.until
        elif end.until is not None and world.due_at is not None:
            world.due_at = min(end.until, world.due_at)

    def steps(self) -> Wait:
        last: Apply | None = None
        for _ in range(STEPS_A_TURN):
            self.world.step()
            breakers = replace(self.world.breakers, probing=self.probing)
            step = plan(self.build, self.now, self.policy, breakers)
            match step:
                case Wait(until=until):
                    assert until is None or until > self.now, "waits for the past"
                    return step
                case Apply(event, changes):
                    assert step != last, "writes the same again"
                    self.world.mishaps += len(changes) * (event == "url_expired")
                    self.record(changes)
                case Probe(breaker):
                    assert breaker not in self.probing
                    self.world.take_probe(breaker)
                    self.probing |= {breaker}
                case Execute(calls):
                    self.check(calls)
                    for call in calls:
                        self.make(call)
            last = step if isinstance(step, Apply) else None
            self.world.happen_due()
        return Wait(until=self.now)

    def check(self, calls: tuple[UpstreamCall, ...]) -> None:
        """Check what must hold for calls that run concurrently."""
        build = self.build
        registers = [call.delivery_id for call in calls if isinstance(call, Register)]
        assert len(set(calls)) == len(calls) <= self.policy.concurrency_per_build * UPLOADS_AHEAD + 2
        for registration in build.unsettled():
            assert registration.delivery_id not in registers
        if any(isinstance(call, Finalize) for call in calls):
            assert len(calls) == 1
            assert not build.unsettled()
            assert build.state in (BuildState.ENDED, BuildState.FINALIZED)
            if build.pending(DeliveryTarget.TESTNOD) and not (
                must_ask_again(build, self.now) or must_finalize_again(build)
            ):
                assert build.state is BuildState.ENDED
                began = build.finalized_at or 0
                assert any((registration.stored_at or 0) >= began for registration in build.current_registrations)
                assert self.now >= build.finalize_hold_since + self.policy.max_finalize_delay

    def record(self, changes: Iterable[Change]) -> list[Change]:
        written = self.world.record(self.build.fencing_token, changes)
        self.build = apply(self.build, written)
        return written

    def tell(self, signals: Signals) -> None:
        self.world.tell(signals, self.build.id)
        self.probing -= {name for name, _, _ in signals}

    def maybe_cut(self) -> None:
        if self.luck.pick(False, [True], odds=12):
            raise Cut

    # -- calls ---------------------------------------------------------------------------------------------------

    def make(self, call: UpstreamCall) -> None:
        self.world.step()
        self.maybe_cut()
        self.world.now += self.luck.pick(0, [1, SECOND, 20 * SECOND])
        if self.luck.pick(False, [True], odds=12):
            self.world.arrive_again()
        match call:
            case FetchRecord():
                self.describe()
            case Poll():
                self.poll()
            case Register(delivery_id):
                self.register(delivery_id)
            case Put(registration_id):
                self.put(registration_id)
            case ReportUploadFailed(registration_id):
                self.report_failed(registration_id)
            case Finalize(confirm=confirm):
                self.finalize(confirm=confirm)

    def health(self) -> RouteHealth:
        return self.world.breakers.health(ROUTE, self.now)

    def away(self) -> int:
        return self.health().total_outage_us

    def describe(self) -> None:
        outcome = self.luck.pick(RecordFetched(record=BuildRecord()), [NoSuchBuild(message="?"), *outcomes.CODEARTS])
        self.tell(of_codearts(outcome))
        self.record(
            build_record.after_record(self.build, outcome, self.now, self.policy, question=RecordQuestion.RECORD_INFO)
        )

    def poll(self) -> None:
        ended = self.now >= self.world.ends_at
        good = BuildInfo(building=not ended, result="SUCCESS" if ended else None, region=None)
        outcome = self.luck.pick(good, [NoSuchBuild(message="?"), *outcomes.CODEARTS])
        self.tell(of_codearts(outcome))
        self.record(
            build_end.after_poll(self.build, outcome, self.now, self.policy, self.away(), requested_at=self.now)
        )

    def register(self, delivery_id: int) -> None:
        self.record(clear_unread(self.build.deliveries[delivery_id]))  # the worker reads it before it asks
        registration = self.ask(delivery_id)
        self.maybe_cut()
        refusal = self.luck.pick(None, outcomes.REGISTER)
        answer = None
        if takes_effect(refusal):
            answer = self.world.testnod.register(delivery_id, self.now, self.build.run_parameters.build_id)
        if self.luck.pick(False, [True], odds=12):
            if answer is not None and self.luck.pick(True, [False]):
                self.world.later(self.luck.pick(0, DELAYS), lambda: self.world.late_ids(registration, answer))
            raise Cut
        outcome = refusal or answer
        assert outcome is not None
        self.world.mishaps += isinstance(outcome, OutcomeUnknown)
        self.record(upload.after_register(self.build, registration, outcome, self.now, self.policy, self.health()))
        self.tell(of_register(outcome, ROUTE))

    def ask(self, delivery_id: int) -> Registration:
        changes: list[Change] = [
            AddRegistration(
                Registration(
                    id=0,
                    delivery_id=delivery_id,
                    state=RegistrationState.REQUESTED,
                    requested_at=self.now,
                    fencing_token=self.build.fencing_token,
                    generation=self.build.generation,
                )
            )
        ]
        if self.build.run_parameters is None:
            route = choose_route(self.policy.routes, self.build).route
            assert route is not None
            changes.append(set_build(run_parameters=choose_run_parameters(route, self.build, self.now)))
        requested = self.record(changes)[0]
        assert isinstance(requested, AddRegistration)
        return requested.registration

    def put(self, registration_id: int) -> None:
        registration = self.build.registrations[registration_id]
        trouble: PutOutcome | None = self.luck.pick(None, PUT_TROUBLE)
        cut = self.luck.pick(False, [True], odds=20)
        if cut or isinstance(trouble, OutcomeUnknown):
            self.put_without_answer(registration)
        if cut:
            raise Cut
        outcome = trouble or self.world.testnod.put(registration.presigned_url, self.now)
        if isinstance(outcome, Stored):
            changes = upload.upload_succeeded(self.build, registration, self.now)
            self.world.late_stored(changes)
            self.build = apply(self.build, changes)
        else:
            self.world.mishaps += isinstance(outcome, CorruptBody | PutRejected)
            if isinstance(outcome, CorruptBody) or (
                isinstance(outcome, PutRejected) and outcome.code == outcomes.TOO_LARGE
            ):
                self.world.may_die.add(registration.delivery_id)
            delivery = self.build.deliveries[registration.delivery_id]
            read = () if isinstance(outcome, SpoolUnreadable) else clear_unread(delivery)
            self.record(
                (*read, *upload.after_put(self.build, registration, outcome, self.now, self.policy, self.health()))
            )
        self.tell(of_storage(outcome, ROUTE))

    def put_without_answer(self, registration: Registration) -> None:
        """Let a PUT arrive within the longest time of one, or never. Its sender may still record that it did."""
        world, begun_at = self.world, self.now
        answered = self.luck.pick(False, [True])
        changes = upload.upload_succeeded(self.build, registration, self.now)

        def arrive() -> None:
            if isinstance(world.testnod.put(registration.presigned_url, begun_at), Stored) and answered:
                world.late_stored(changes)

        if self.luck.pick(True, [False], odds=64):
            world.later(self.luck.pick(0, [MINUTE, self.policy.max_put_duration]), arrive)

    def report_failed(self, registration_id: int) -> None:
        registration = self.build.registrations[registration_id]
        assert registration.upload_id is not None
        trouble = self.luck.pick(None, FAILURE_TROUBLE)
        outcome = trouble or self.world.testnod.upload_failed(registration.upload_id)
        if isinstance(trouble, OutcomeUnknown) and self.luck.pick(False, [True]):
            self.world.testnod.upload_failed(registration.upload_id)
        if isinstance(trouble, Rejected):
            self.world.refused_failures.add(registration.delivery_id)
            self.world.mishaps += 1
        self.maybe_cut()
        self.record(upload.after_upload_failed(self.build, registration, outcome, self.now, self.policy))
        self.tell(of_testnod(outcome, ROUTE))

    def finalize(self, *, confirm: bool) -> None:
        trouble = self.luck.pick(None, outcomes.TESTNOD)
        build_id = finalize.build_id_to_finalize(self.build, confirm=confirm)
        outcome = trouble or self.world.testnod.finalize(build_id)
        if isinstance(trouble, OutcomeUnknown) and self.luck.pick(False, [True]):
            self.world.testnod.finalize(build_id)
        self.maybe_cut()
        if confirm:
            before = self.build
            self.record(finalize.after_confirm(before, outcome, self.now, self.policy, self.health()))
            if self.build.generation > before.generation:
                self.world.mishaps += len(reports_to_send_again(before))
        else:
            outage_us = self.health().testnod_outage_us
            self.record(finalize.after_finalize(self.build, outcome, self.now, self.policy, outage_us))
        self.tell(of_testnod(outcome, ROUTE))


def takes_effect(trouble: object) -> bool:
    """Return whether the call took effect: nothing went wrong, or only its answer is missing."""
    return trouble is None or (isinstance(trouble, OutcomeUnknown) and trouble.status is None)


DELAYS = [1, SECOND, 10 * MINUTE]
FAILURE_TROUBLE = [*outcomes.TESTNOD, Rejected(status=404, message="no such upload")]
PUT_TROUBLE = [*outcomes.PUT, outcomes.CUT, CorruptBody(message="gone"), SpoolUnreadable(message="The spool is away.")]
