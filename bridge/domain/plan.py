"""plan(build, now, policy, gates) -> Step: what to do next with a build. Read it from top to bottom.

It knows no I/O, no clock and no ledger; what an outcome changes stands in effects.py. Both follow the tables of
docs/design.md, whose sentences were model-checked.
"""

from collections import defaultdict
from collections.abc import Iterator

from bridge.domain.asking_check import check_step, rules_for
from bridge.domain.build import (
    Build,
    BuildState,
    Delivery,
    DeliveryState,
    EndedBy,
    Registration,
    RegistrationState,
    Target,
)
from bridge.domain.changes import AddDelivery, Change, set_build, set_delivery, set_registration
from bridge.domain.effects.ending import ended
from bridge.domain.effects.finalize import finalized_now
from bridge.domain.effects.timing import register_again, spent_at
from bridge.domain.gates import ARCHIVE, CODEARTS, HELD, MIRROR, TESTNOD, Gates, register_gate, route_gate, storage_gate
from bridge.domain.line import line_of
from bridge.domain.mirror import compare_due_at, new_delivery, not_owed_yet, requests_of
from bridge.domain.policy import Policy
from bridge.domain.polling import look_due_at
from bridge.domain.quality import QualityRules, QualityState
from bridge.domain.routing import choose, facts_of
from bridge.domain.step import (
    Archive,
    Call,
    CompareMirror,
    Describe,
    Do,
    Finalize,
    Mirror,
    Poll,
    Probe,
    Put,
    Register,
    ReportFailed,
    Step,
    Wait,
    Write,
)

GIVEN_UP = "Given up after trying for as long as is allowed."
NO_ARCHIVE = "There is no archive (any more): store.archive is empty."
NO_MIRROR = 'Route "{}" does not mirror to CodeArts (any more).'
URL_EXPIRED = "the presigned URL expired before the upload went through"
PUT_MARGIN = 5_000_000
"""A PUT is not begun in the last 5 seconds of its URL: it would arrive too late."""


def plan(build: Build, now: int, policy: Policy, gates: Gates) -> Step:
    """Return the one next step of `build`; `now` and all times are microseconds UTC."""
    planner = _Planner(build, now, policy, gates)
    if gates.held:
        return Wait(until=now + policy.max_delay, waits_for=HELD, held=gates.held)
    urgent = planner.written_facts() or planner.calls()
    return urgent or planner.check() or planner.finalize() or planner.archive() or planner.wait()


def route_of(build: Build, policy: Policy) -> str | None:
    """Return the name of the route that `build` is pinned to, or would be by what is known now; None: there is none."""
    if build.pin:
        known = any(route.name == build.pin.route for route in policy.routes)
        return build.pin.route if known else None
    chosen = choose(policy.routes, facts_of(build))
    return chosen.name if chosen else None


class _Planner:
    """One decision: the build as it is, and the times and gates that a rule found itself waiting for."""

    def __init__(self, build: Build, now: int, policy: Policy, gates: Gates) -> None:
        self.build = build
        self.now = now
        self.policy = policy
        self.gates = gates
        self.later: list[int] = []
        self.waits_for: str | None = None
        self.held: str | None = None
        self.probe: str | None = None
        self.lives: dict[int, list[Registration]] = defaultdict(list)
        for registration in build.registrations.values():
            self.lives[registration.delivery_id].append(registration)
        self.owed = build.owed(Target.TESTNOD)
        self.route = route_of(build, policy)

    # -- what two or more rules ask ------------------------------------------------------------------------------

    def due(self, at: int | None) -> bool:
        """Whether `at` has come; if not, the build is looked at again then."""
        if at is None:
            return False
        if at <= self.now:
            return True
        self.later.append(at)
        return False

    def due_while_working(self, at: int, route: str) -> bool:
        """Whether `at` has come on the clock of `route`; one that stands still is nothing to wake up for."""
        if self.gates.is_away(route):
            return at <= self.now
        return self.due(at)

    def open(self, gate_name: str, *, probed_by_visits: bool = False) -> bool:
        """Whether calls may pass the gate; if not, the build waits for it, or may try to be its probe."""
        gate = self.gates.closed(gate_name)
        if gate is None:
            return True
        if probed_by_visits and gate.probe_at is not None and self.due(gate.probe_at):
            self.probe = self.probe or gate_name
        self.waits_for = self.waits_for or gate_name
        self.later.append(self.now + self.policy.max_delay)
        return False

    def testnod_open(self) -> bool:
        """Whether TestNod can be asked about this build at all: a route, its project, the host."""
        if self.route is None:
            name = self.build.pin.route if self.build.pin else ""
            self.held = (
                f'Its route "{name}" is no longer in the settings. Put it back, and its reports go out.'
                if name
                else "No route takes this build. Add or mend a [[routes]] table that matches it."
            )
            self.waits_for = self.waits_for or route_gate(name)
            self.later.append(self.now + self.policy.max_delay)
            return False
        self.held = self.gates.suspended(self.route)
        return self.open(route_gate(self.route)) and self.open(TESTNOD)

    @property
    def batch_began_at(self) -> int:
        return self.build.finalized_at or 0

    def stored_in_batch(self) -> bool:
        return any(
            life.stored_at is not None and life.stored_at >= self.batch_began_at
            for life in self.build.registrations.values()
        )

    def hold_is_over(self) -> bool:
        """Whether stragglers are no longer waited for: time in which they could not have arrived does not count."""
        build = self.build
        if build.state is not BuildState.ENDED or build.hold_since is None or build.pin is None:
            return False
        away = self.gates.away_us(build.pin.route, self.now) - build.hold_away_us
        over_at = build.hold_since + self.policy.hold_run + away
        return self.stored_in_batch() and self.due_while_working(over_at, build.pin.route)

    # -- 1. what has become true without any call ----------------------------------------------------------------

    def written_facts(self) -> Write | None:
        life = (self._interrupted, self._late, self._taken_back, self._ended, self._expired, self._died, self._stuck)
        for rule in (*life, self._owed_to_mirror, self._mirror_given_up):
            if fact := rule():
                return fact
        return None

    def _interrupted(self) -> Write | None:
        """Nobody is asking any more, or their answer will find the registration lost."""
        changes: list[Change] = []
        for life in self.build.registrations.values():
            if life.state is RegistrationState.ASKED:
                changes.append(set_registration(life, state=RegistrationState.LOST))
                changes.extend(self._register_again(life, "TestNod's answer was lost when the gateway was interrupted"))
        return Write("register interrupted", tuple(changes)) if changes else None

    def _register_again(self, life: Registration, because: str) -> Iterator[Change]:
        delivery = self.build.deliveries[life.delivery_id]
        if delivery.state is DeliveryState.OWED:
            again = register_again(delivery, self.now, self.policy, self._away_us())
            yield set_delivery(delivery, last_error=because, **again)

    def _late(self) -> Write | None:
        """Something came after the last finalize."""
        build = self.build
        if build.state not in (BuildState.FINALIZED, BuildState.CLOSED) or build.batch_seq == build.finalized_seq:
            return None
        values = {
            "state": BuildState.ENDED,
            "hold_since": self.now,
            "hold_away_us": self._away_us(),
            "finalize_attempts": 0,
            "finalize_due_at": 0,
        }
        return Write("another batch", (set_build(**values),))

    def _taken_back(self) -> Write | None:
        """An end that was only guessed holds for the reports it has seen."""
        build = self.build
        if build.state is not BuildState.ENDED or not build.ended_by_guess:
            return None
        if build.last_report_at == build.ended_report_at:
            return None
        values = {"state": BuildState.OPEN, "ended_at": None, "ended_by": None, "unknown_since": None}
        if build.quality is not None and build.quality.state is QualityState.WAITING:
            values["quality"] = None  # asked at the end, whenever that is
        return Write("end taken back", (set_build(**values, polls=0, poll_due_at=0, poll_reserved=False),))

    def _ended(self) -> Write | None:
        """Say that the build has ended where nobody has to be asked."""
        build, policy = self.build, self.policy
        if build.state is not BuildState.OPEN:
            return None
        if build.complete_at is not None:
            return self._end(EndedBy.CALLER)
        if not policy.asks_codearts and self.due(build.last_report_at + policy.idle_end):
            return self._end(EndedBy.IDLE)
        if self.due(build.last_report_at + policy.max_age):
            return self._end(EndedBy.MAX_AGE)
        return None

    def _end(self, by: EndedBy) -> Write:
        return Write("build ended", ended(self.build, by, self.now, self._away_us()))

    def _away_us(self) -> int:
        return self.gates.away_us(self.route, self.now) if self.route else 0

    def _expired(self) -> Write | None:
        """A URL that has run out is spent: whether it was used is asked with upload_failed, later."""
        changes: list[Change] = []
        for life in self.build.registrations.values():
            if life.state is RegistrationState.NAMED and self.due((life.expires_at or 0) - PUT_MARGIN):
                changes.append(self._failed(life, URL_EXPIRED))
                changes.extend(self._register_again(life, life.failure or URL_EXPIRED))
        return Write("presigned URL expired", tuple(changes)) if changes else None

    def _stuck(self) -> Write | None:
        """Show a finalize that has failed for too long also while nobody calls, because its gate is closed."""
        build = self.build
        if build.stuck or build.finalize_failing_since is None:
            return None
        if not self.due(build.finalize_failing_since + self.policy.confirm_for):
            return None
        return Write("build is stuck", (set_build(stuck=f"TestNod has been failing finalize: {build.last_error}"),))

    def _failed(self, life: Registration, reason: str) -> Change:
        due_at = spent_at(life, self.now, self.policy, fence=self.build.fence)
        values = {"state": RegistrationState.FAILED_OWED, "attempts": 0, "due_at": due_at, "presigned_url": None}
        return set_registration(life, **values, failure=life.failure or reason)

    def _died(self) -> Write | None:
        """Give up a report that failed for too long, or that its caller may not send there."""
        changes: list[Change] = []
        for delivery in self.owed:
            if reason := self._death(delivery):
                changes.extend(self.dead(delivery, reason))
        return Write("delivery died", tuple(changes)) if changes else None

    def _death(self, delivery: Delivery) -> str | None:
        if self.route is None or not self._described():
            return None
        report = self.build.reports[delivery.report_id]
        if report.caller_routes is not None and self.route not in report.caller_routes:
            return f'Caller "{report.caller}" may not send to route "{self.route}". Bind it there, then send again.'
        if delivery.trying_since is None:
            return None
        away = self._away_us() - delivery.trying_away_us
        if self.due_while_working(delivery.trying_since + self.policy.give_up_after + away, self.route):
            return f"{GIVEN_UP} The last error was: {delivery.last_error}"
        return None

    def dead(self, delivery: Delivery, reason: str) -> Iterator[Change]:
        """Yield the death of a delivery with that of its named registration."""
        yield set_delivery(delivery, state=DeliveryState.DEAD, last_error=reason)
        for life in self.lives[delivery.id]:
            if life.state is RegistrationState.NAMED:
                yield self._failed(life, reason)

    def _mirrors(self) -> bool:
        return any(route.name == self.route and route.mirror for route in self.policy.routes)

    def _owed_to_mirror(self) -> Write | None:
        """Owe CodeArts what came, before any register: bytes go as soon as nobody is owed them."""
        if self.route is None or not self._mirrors() or not self._described():
            return None
        new = tuple(AddDelivery(new_delivery(report, self.now)) for report in not_owed_yet(self.build, self.route))
        return Write("owed to the mirror", new) if new else None

    def _mirror_given_up(self) -> Write | None:
        owed = self.build.owed(Target.CODEARTS)
        dead = [(delivery, reason) for delivery in owed if (reason := self._mirror_death(delivery))]
        lost = (set_delivery(delivery, state=DeliveryState.DEAD, last_error=reason) for delivery, reason in dead)
        return Write("mirror given up", tuple(lost)) if dead else None

    def _mirror_death(self, delivery: Delivery) -> str | None:
        if self.route is not None and not self._mirrors():
            return NO_MIRROR.format(self.route)
        return self._given_up(delivery, MIRROR)

    # -- 2. what can be asked now --------------------------------------------------------------------------------

    def calls(self) -> Do | Probe | None:
        calls: list[Call] = [*self._describe(), *self._poll(), *self._uploads()]
        if self.gates.probing:
            calls = calls[:1]
        calls += self._uploads_to_mirror()
        if calls:
            return Do(tuple(calls))
        return Probe(self.probe) if self.probe else None

    def _describe(self) -> Iterator[Call]:
        build = self.build
        if not self.owed or self._described():
            return
        if self.due(build.describe_due_at) and self.open(CODEARTS, probed_by_visits=True):
            yield Describe(reserved=build.describe_reserved)

    def _described(self) -> bool:
        """Whether record-info has been read, or waiting for it longer would only delay reports."""
        build = self.build
        return (
            not self.policy.asks_codearts
            or build.pin is not None
            or build.described_at is not None
            or self.due(build.accepted_at + self.policy.describe_for)
        )

    def _poll(self) -> Iterator[Call]:
        build = self.build
        if build.state is not BuildState.OPEN or not self.policy.asks_codearts:
            return
        # A reserved place under the common rate is waited for.
        asked_to_look = not build.poll_reserved and self.due(look_due_at(build.look_at, build.polled_at))
        due_at = build.poll_due_at or build.accepted_at + self.policy.poll_first
        if (asked_to_look or self.due(due_at)) and self.open(CODEARTS, probed_by_visits=True):
            yield Poll(reserved=build.poll_reserved)

    def _uploads(self) -> Iterator[Call]:
        """Yield at most `per_build` calls: what TestNod was already told of first, then what it does not know yet."""
        lives = self.build.unsettled()
        in_flight = {life.delivery_id for life in lives}
        waiting = [delivery for delivery in self.owed if delivery.id not in in_flight] if self._described() else []
        if not (lives or waiting):
            return
        testnod_open = self.testnod_open()
        if self.route is None:
            return
        free = self.policy.per_build
        for life in lives:
            if free and self._continues(life, self.route, testnod_open=testnod_open):
                yield self._next_call(life)
                free -= 1
        if waiting and testnod_open:
            yield from self._registers(waiting, free, alone=not in_flight)

    def _continues(self, life: Registration, route: str, *, testnod_open: bool) -> bool:
        if life.state is RegistrationState.NAMED:  # a live URL needs its storage and nobody else
            return self.due(life.due_at) and self.open(storage_gate(route), probed_by_visits=True)
        return testnod_open and self.due(life.due_at)

    def _next_call(self, life: Registration) -> Call:
        return Put(life.id) if life.state is RegistrationState.NAMED else ReportFailed(life.id)

    def _registers(self, waiting: list[Delivery], free: int, *, alone: bool) -> Iterator[Call]:
        if self.hold_is_over() or self.route is None or self._stands_in_line():
            return
        first_of_batch = not any(
            life.named_at is not None and life.named_at >= self.batch_began_at
            for life in self.build.registrations.values()
        )
        if first_of_batch or any(delivery.conflicted for delivery in waiting):
            # TestNod answers 409 when two registers open one run at once.
            waiting = sorted(waiting, key=lambda delivery: not delivery.conflicted)
            free = min(free, 1) if alone else 0
        for delivery in waiting:
            if free <= 0:
                return
            if self.due(delivery.due_at) and self._may_register(self.route):
                yield Register(delivery.id)
                free -= 1

    def _stands_in_line(self) -> bool:
        """Whether earlier builds of the job open their runs first: order is worth no more than `hold_run`."""
        build = self.build
        if build.pin or not build.earlier_in_line or self.due(build.accepted_at + self.policy.hold_run):
            return False
        self.waits_for = self.waits_for or line_of(build.job_id)
        return True

    def _uploads_to_mirror(self) -> list[Call]:
        """Return requests to CodeArts' report API; each runs by itself, and holds no other call back."""
        owed = [delivery for delivery in self.build.owed(Target.CODEARTS) if self.due(delivery.due_at)]
        if owed and self._mirror_open():
            free = 1 if MIRROR in self.gates.probing else self.policy.per_build
            return [Mirror(ids) for ids in requests_of(self.build, owed)[:free]]
        compared = self._mirrors() and self.due(compare_due_at(self.build, self.policy.confirm_for))
        return [CompareMirror()] if compared and self._mirror_open() else []

    def _mirror_open(self) -> bool:
        """Whether calls may pass to the mirror; a build never waits for its gate, but for TestNod's."""
        gate = self.gates.closed(MIRROR)
        if gate is not None and gate.probe_at is not None and self.due(gate.probe_at):
            self.probe = self.probe or MIRROR
        return gate is None

    def _may_register(self, route: str) -> bool:
        gates = (register_gate(route), storage_gate(route))
        return all(self.open(gate, probed_by_visits=True) for gate in gates)

    # -- 3. when nothing else is to be done now ------------------------------------------------------------------

    def check(self) -> Write | Do | None:
        """Ask CodeArts Check last of all: however slow it is, it keeps no report waiting."""
        rules = self._awaited_check()
        if rules is None or not self._described():
            return None
        step = check_step(self.build, rules, self.now, self.policy)
        if not isinstance(step, int):
            return step
        self.later.append(step)
        return None

    def _awaited_check(self) -> QualityRules | None:
        return rules_for(self.build, self.route, self.policy)

    # -- 4. when everything has arrived --------------------------------------------------------------------------

    def finalize(self) -> Step | None:
        build = self.build
        if build.state is BuildState.FINALIZED:
            return self._confirm()
        if build.state is not BuildState.ENDED or build.unsettled() or self._awaited_check() is not None:
            return None
        if self.owed and not self.hold_is_over():
            return None
        settled_at = max(build.ended_at or 0, build.last_report_at) + self.policy.settle
        if not self.due(settled_at):
            return None
        if not build.registrations:
            closed = set_build(state=BuildState.CLOSED, **finalized_now(self.build, self.now))
            return Write("nothing to finalize", (closed,))
        if self.due(build.finalize_due_at) and self.testnod_open():
            return Do((Finalize(confirm=False),))
        return None

    def _confirm(self) -> Step | None:
        build = self.build
        if build.confirm_until is None or self.owed or build.unsettled():
            return None
        if self.due(build.confirm_due_at) and self.testnod_open():
            return Do((Finalize(confirm=True),))
        return None

    # -- 5. a copy of what TestNod has: last, so that an archive that fails holds nothing else back ---------------

    def archive(self) -> Step | None:
        ready = [delivery for delivery in self.build.owed(Target.ARCHIVE) if delivery.report_id in self._at_testnod()]
        dead = [(delivery, reason) for delivery in ready if (reason := self._archive_death(delivery))]
        if dead:
            lost = (set_delivery(delivery, state=DeliveryState.DEAD, last_error=reason) for delivery, reason in dead)
            return Write("archive copy given up", tuple(lost))
        due = [
            Archive(delivery.id)
            for delivery in ready
            if self.due(delivery.due_at) and self.open(ARCHIVE, probed_by_visits=True)
        ]
        if due:
            return Do(tuple(due[: 1 if self.gates.probing else self.policy.per_build]))
        return Probe(self.probe) if self.probe else None

    def _at_testnod(self) -> set[int]:
        return {
            delivery.report_id
            for delivery in self.build.deliveries.values()
            if delivery.target is Target.TESTNOD and delivery.state is DeliveryState.DELIVERED
        }

    def _archive_death(self, delivery: Delivery) -> str | None:
        if not self.policy.archives:
            return NO_ARCHIVE
        return self._given_up(delivery, ARCHIVE)

    def _given_up(self, delivery: Delivery, gate: str) -> str | None:
        """Say that a delivery which needs nobody but `gate` was tried for long enough; None where it was not."""
        if delivery.trying_since is None:
            return None
        away = self.gates.away_of(gate, self.now) - delivery.trying_away_us
        over_at = delivery.trying_since + self.policy.give_up_after + away
        over = over_at <= self.now if self.gates.closed(gate) else self.due(over_at)
        return f"{GIVEN_UP} The last error was: {delivery.last_error}" if over else None

    # -- 6. otherwise --------------------------------------------------------------------------------------------

    def wait(self) -> Wait:
        return Wait(until=min(self.later, default=None), waits_for=self.waits_for, held=self.held)
