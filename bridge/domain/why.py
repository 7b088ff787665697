"""Why a build is not in TestNod: one sentence for the person who asks.

It knows neither the ledger nor who asks. What is most urgent is said, the rest is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bridge.domain.build import Build, BuildState, Delivery, DeliveryState, RegistrationState, Target
from bridge.domain.gates import CODEARTS, TESTNOD, Gate, Gates, storage_gate
from bridge.domain.outcomes import BuildInfo, NoSuchBuild, PollOutcome
from bridge.domain.refusals import Refusal, unresolved
from bridge.domain.words import are, capital, clause, counted, span, were


class Case(StrEnum):
    """What stands between a build and TestNod, most urgent first."""

    HELD = "held"  # a person has to mend something
    STUCK = "stuck"  # its run stays pending
    DEAD = "dead"  # reports were given up
    REFUSED = "refused"  # uploads were not accepted, and nothing has replaced them since
    NEVER_UPLOADED = "never_uploaded"
    OWED = "owed"
    WAITING = "waiting"  # delivered; the run is not finalized yet
    FINALIZED = "finalized"
    CLOSED = "closed"  # there is no run


@dataclass(frozen=True, kw_only=True, slots=True)
class Why:
    """The sentence, and which case it speaks of."""

    case: Case
    sentence: str


def why(
    *,
    job_id: str,
    build_no: int,
    build: Build | None,
    refusals: Sequence[Refusal],
    gates: Gates,
    now: int,
    codearts_says: PollOutcome | None,
) -> Why:
    """Return why this build is not, or not yet, in TestNod at `now` (microseconds UTC), in exactly one sentence.

    `build` None: nothing of it was ever accepted. `codearts_says` None: CodeArts was not asked.
    """
    subject = f"build {build_no} of job {job_id}"
    if build is None or not build.reports:
        return _nothing_accepted(subject, refusals, gates, now, codearts_says)
    return _Accepted(subject, build, unresolved(build, refusals), gates, now).why()


def held_now(held: str | None, state: BuildState, route: str, gates: Gates, *, owed: bool) -> str | None:
    """Say what a person has to mend before anything more of a build is sent; None where nothing waits for that.

    `held` is what its last visit found; the gate of its `route` may have closed since.
    """
    finished = state in (BuildState.FINALIZED, BuildState.CLOSED) and not owed
    if held is None and route and not finished:
        return gates.suspended(route)
    return held


def _nothing_accepted(
    subject: str, refusals: Sequence[Refusal], gates: Gates, now: int, codearts_says: PollOutcome | None
) -> Why:
    if refusals:
        more = f"; {counted(len(refusals) - 1, 'more refusal')} before it" if len(refusals) > 1 else ""
        return Why(case=Case.REFUSED, sentence=f"{_refused(subject, refusals[-1], now)}{more}.")
    says = _codearts(codearts_says, gates, now)
    return Why(case=Case.NEVER_UPLOADED, sentence=f"No report of {subject} was ever uploaded to the bridge; {says}.")


def _refused(subject: str, refusal: Refusal, now: int) -> str:
    what = "the file" if refusal.name else "an upload"
    named = "" if refusal.name in refusal.reason else f"{refusal.name}: "
    ago = f"{span(now - refusal.at)} ago"
    return f"The bridge refused {what} of {subject} {ago}: {_said(named + refusal.reason)}"


def _codearts(outcome: PollOutcome | None, gates: Gates, now: int) -> str:
    match outcome:
        case BuildInfo(building=True):
            return "CodeArts says that it is still running"
        case BuildInfo(result=result):
            return f"CodeArts says that it ended with {_said(result)} – look for the upload in its log"
        case NoSuchBuild():
            return "CodeArts knows no such build – check the job and the number"
        case None:
            gate = gates.closed(CODEARTS)
            return _away("CodeArts", gate, now) if gate else "CodeArts was not asked about it"
        case _:
            return f"CodeArts could not be asked about it: {_said(outcome.message)}"


def _away(name: str, gate: Gate, now: int) -> str:
    away = span(now - (gate.failing_since or now))
    return f"{name} has been away for {away} ({_said(gate.reason)})"


def _said(text: str | None) -> str:
    return clause(text or "") or "nothing more is known"


class _Accepted:
    """A build of which reports were accepted: each case says its part of the sentence, or None."""

    def __init__(self, subject: str, build: Build, refusals: Sequence[Refusal], gates: Gates, now: int) -> None:
        self._subject = subject
        self._build = build
        self._refusals = refusals
        self._gates = gates
        self._now = now
        self._route = build.pin.route if build.pin else ""
        self._by_state: dict[DeliveryState, list[Delivery]] = {state: [] for state in DeliveryState}
        for delivery in build.deliveries.values():
            if delivery.target is Target.TESTNOD:
                self._by_state[delivery.state].append(delivery)
        self._total = sum(len(deliveries) for deliveries in self._by_state.values())
        self._dead = self._by_state[DeliveryState.DEAD]
        self._owed = self._by_state[DeliveryState.OWED]

    def why(self) -> Why:
        urgent = (
            (Case.HELD, self._held()),
            (Case.STUCK, self._stuck()),
            (Case.DEAD, self._given_up()),
            (Case.REFUSED, self._refusal()),
            (Case.OWED, self._on_the_way()),
        )
        for case, said in urgent:
            if said is not None:
                return Why(case=case, sentence=f"{said}{self._also(case)}.")
        case, said = self._delivered()
        return Why(case=case, sentence=f"{said}.")

    def _also(self, case: Case) -> str:
        """Count what the case itself does not speak of."""
        delivered = len(self._by_state[DeliveryState.DELIVERED])
        counts = [f"{delivered} of {counted(self._total, 'report')} {are(delivered)} delivered"]
        if self._dead and case is not Case.DEAD:
            counts.append(f"{len(self._dead)} {were(len(self._dead))} given up")
        others = len(self._refusals) - (case is Case.REFUSED)
        if others > 0:
            counts.append(counted(others, "more refusal" if case is Case.REFUSED else "refusal"))
        return "; " + ", ".join(counts)

    # -- what is in the way --------------------------------------------------------------------------------------

    def _held(self) -> str | None:
        held = held_now(self._build.held, self._build.state, self._route, self._gates, owed=bool(self._owed))
        return f"{capital(self._subject)} is held: {_said(held)}" if held else None

    def _stuck(self) -> str | None:
        if self._build.stuck is None:
            return None
        run = f" (run {_said(self._build.runs[-1].test_run_url)})" if self._build.runs else ""
        return f"{capital(self._subject)} is stuck at TestNod{run}: {_said(self._build.stuck)}"

    def _given_up(self) -> str | None:
        if not self._dead:
            return None
        first, count = self._dead[0], len(self._dead)
        name = _said(self._build.reports[first.report_id].name)
        again = "the same file again from CI and it is" if count == 1 else "the same files again from CI and they are"
        return (
            f"{self._of_total(count)} {were(count)} given up, {'namely' if count == 1 else 'the first'} "
            f"{name}: {_said(first.last_error)} – upload {again} sent again"
        )

    def _refusal(self) -> str | None:
        return _refused(self._subject, self._refusals[-1], self._now) if self._refusals else None

    def _on_the_way(self) -> str | None:
        if not self._owed:
            return None
        oldest = min(self._owed, key=lambda delivery: delivery.owed_since)
        said, next_try_at = self._upstream()
        return (
            f"{self._of_total(len(self._owed))} {are(len(self._owed))} owed to TestNod "
            f"for {span(self._now - oldest.owed_since)}: {said}; {self._next_try(next_try_at)}"
        )

    def _upstream(self) -> tuple[str, int]:
        """Say which upstream is waited for, and when it is tried next."""
        upstreams = [("TestNod", TESTNOD), ("TestNod's storage", storage_gate(self._route))]
        if self._build.pin is None:
            upstreams.append(("CodeArts", CODEARTS))
        for name, gate_name in upstreams:
            gate = self._gates.closed(gate_name)
            if gate is not None:
                return _away(name, gate, self._now), gate.probe_at or self._now
        at, upstream, delivery = min(
            ((*self._next_call(delivery), delivery) for delivery in self._owed), key=lambda call: call[0]
        )
        if delivery.last_error is None:
            return f"nothing has failed so far, {upstream} comes next", at
        return f"{upstream} comes next after a failure ({_said(delivery.last_error)})", at

    def _next_call(self, delivery: Delivery) -> tuple[int, str]:
        for life in self._build.unsettled():
            if life.delivery_id == delivery.id:
                return life.due_at, "TestNod's storage" if life.state is RegistrationState.NAMED else "TestNod"
        return delivery.due_at, "TestNod"

    def _next_try(self, at: int) -> str:
        return f"the next try is in {span(at - self._now)}" if at > self._now else "the next try is due now"

    # -- nothing is in the way -----------------------------------------------------------------------------------

    def _delivered(self) -> tuple[Case, str]:
        state = self._build.state
        if state is BuildState.CLOSED or not self._build.runs:
            return Case.CLOSED, f"{capital(self._subject)} is closed, and TestNod has no run of it"
        run = self._build.runs[-1]
        older = len(self._build.runs) - 1
        besides = f" and {counted(older, 'older run')}" if older else ""
        where = (
            f"{self._of_total(self._total)} {are(self._total)} in the TestNod run {_said(run.test_run_url)}{besides}"
        )
        if state is BuildState.FINALIZED:
            return Case.FINALIZED, f"{where}, whose status is {_said(run.status)}"
        return Case.WAITING, f"{where}, which is finalized {self._awaited()}"

    def _awaited(self) -> str:
        build, now = self._build, self._now
        if build.state is BuildState.OPEN:
            return f"when the build has ended: {self._last_look()}"
        gate = self._gates.closed(TESTNOD)
        if gate is not None:
            return f"when TestNod can be asked: {_away('TestNod', gate, now)}"
        if build.finalize_failing_since is not None:
            failing = span(now - build.finalize_failing_since)
            return f"as soon as TestNod takes it: finalize has been failing for {failing} ({_said(build.last_error)})"
        result = f" with {_said(build.build_result)}" if build.build_result else ""
        return f"in a moment: the build ended{result} {span(now - (build.ended_at or now))} ago"

    def _last_look(self) -> str:
        build, now = self._build, self._now
        gate = self._gates.closed(CODEARTS)
        if gate is not None:
            return _away("CodeArts", gate, now)
        if build.unknown_since is not None:
            return f"CodeArts has known no such build for {span(now - build.unknown_since)}"
        if build.polled_at is None:
            return "nobody has said so yet"
        return f"CodeArts was asked {span(now - build.polled_at)} ago"

    def _of_total(self, count: int) -> str:
        if count == self._total:
            return f"{'The only report' if count == 1 else f'All {count} reports'} of {self._subject}"
        return f"{count} of the {self._total} reports of {self._subject}"
