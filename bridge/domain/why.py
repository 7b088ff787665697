"""Why a build is not in TestNod: one sentence for the person who asks.

It knows neither the ledger nor who asks. What is most urgent is said, the rest is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bridge.domain.build import Build, BuildState, Delivery, DeliveryState, Target
from bridge.domain.clock_trust import ClockState
from bridge.domain.gates import CODEARTS, Gates
from bridge.domain.mirror import mirrored
from bridge.domain.outcomes import BuildInfo, NoSuchBuild, PollOutcome
from bridge.domain.refusals import Refusal, unresolved
from bridge.domain.waits import away, delivery_wait, finalize_wait, last_status, quality_said
from bridge.domain.words import are, capital, counted, have, lasting, said, span, were


class Case(StrEnum):
    """What stands between a build and TestNod, most urgent first."""

    HELD = "held"  # a person has to mend something
    STUCK = "stuck"  # its run stays pending
    DEAD = "dead"  # reports were given up
    REFUSED = "refused"  # uploads were not accepted, nothing has replaced them, and nothing else is all delivered
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
        told = _nothing_accepted(subject, refusals, gates, now, codearts_says)
    else:
        told = _Accepted(subject, build, unresolved(build, refusals), gates, now).why()
    return _with_doubt(told, gates)


def _with_doubt(told: Why, gates: Gates) -> Why:
    """Return what is told, and that its times may be wrong if something speaks against the clock."""
    if gates.clock.state in (ClockState.TRUSTED, ClockState.UNPROVEN):
        return told
    doubt = f"the bridge doubts its clock ({said(gates.clock.reason)}), so these times may be wrong"
    sentence = f"{told.sentence.removesuffix('.')}; {doubt}, and nothing is given up for its age."
    return Why(case=told.case, sentence=sentence)


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
    return f"The bridge refused {what} of {subject} {_when_and_why(refusal, now)}"


def _when_and_why(refusal: Refusal, now: int) -> str:
    named = "" if refusal.name in refusal.reason else f"{refusal.name}: "
    mend = ""
    if refusal.kept_until is not None and refusal.sent_at is None:
        mend = f" – its bytes are kept: mend the cause and send them with POST /api/v1/refusals/{refusal.id}/send"
    return f"{span(now - refusal.at)} ago: {said(named + refusal.reason)}{mend}"


def _codearts(outcome: PollOutcome | None, gates: Gates, now: int) -> str:
    match outcome:
        case BuildInfo(building=True):
            return "CodeArts says that it is still running"
        case BuildInfo(result=result):
            return f"CodeArts says that it ended with {said(result)} – look for the upload in its log"
        case NoSuchBuild():
            return "CodeArts knows no such build – check the job and the number"
        case None:
            gate = gates.closed(CODEARTS)
            return away("CodeArts", gate, now) if gate else "CodeArts was not asked about it"
        case _:
            return f"CodeArts could not be asked about it: {said(outcome.message)}"


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
        for case, sentence in urgent:
            if sentence is not None:
                return Why(case=case, sentence=f"{sentence}{self._also(case)}{self._mirror()}.")
        case, sentence = self._delivered()
        beside = f"{quality_said(self._build.quality)}{self._refused_beside()}{self._mirror()}"
        return Why(case=case, sentence=f"{sentence}{beside}.")

    def _also(self, case: Case) -> str:
        """Count what the case itself does not speak of."""
        spoken_of = {Case.DEAD: self._dead, Case.OWED: self._owed}.get(case, [])
        counts = [] if len(spoken_of) == self._total else [self._share()]
        if self._dead and case is not Case.DEAD:
            counts.append(f"{len(self._dead)} {were(len(self._dead))} given up")
        others = len(self._refusals) - (case is Case.REFUSED)
        if others > 0:
            counts.append(counted(others, "more refusal" if case is Case.REFUSED else "refusal"))
        return f"; {', '.join(counts)}" if counts else ""

    def _share(self) -> str:
        delivered, total = len(self._by_state[DeliveryState.DELIVERED]), self._total
        if total == 1:
            return f"its only report is {'' if delivered else 'not '}delivered"
        if not delivered:
            return f"none of its {total} reports is delivered"
        share = f"all its {total}" if delivered == total else f"{delivered} of {total}"
        return f"{share} reports {are(delivered)} delivered"

    # -- what is in the way --------------------------------------------------------------------------------------

    def _held(self) -> str | None:
        held = held_now(self._build.held, self._build.state, self._route, self._gates, owed=bool(self._owed))
        return f"{capital(self._subject)} is held: {said(held)}" if held else None

    def _stuck(self) -> str | None:
        if self._build.stuck is None:
            return None
        run = f" (run {said(self._build.runs[-1].test_run_url)})" if self._build.runs else ""
        return f"{capital(self._subject)} is stuck at TestNod{run}: {said(self._build.stuck)}"

    def _given_up(self) -> str | None:
        if not self._dead:
            return None
        first, count = self._dead[0], len(self._dead)
        name = said(self._build.reports[first.report_id].name)
        again = "the same file again from CI and it is" if count == 1 else "the same files again from CI and they are"
        return (
            f"{self._of_total(count)} {were(count)} given up, {'namely' if count == 1 else 'the first'} "
            f"{name}: {said(first.last_error)} – upload {again} sent again"
        )

    def _refusal(self) -> str | None:
        """Speak of refusals first while others are owed; once all are delivered, their run is what is asked for."""
        return _refused(self._subject, self._refusals[-1], self._now) if self._refusals and self._owed else None

    def _on_the_way(self) -> str | None:
        if not self._owed:
            return None
        count, since = len(self._owed), min(delivery.owed_since for delivery in self._owed)
        return (
            f"{self._of_total(count)} {have(count)} been owed to TestNod {lasting(self._now - since)}: "
            f"{delivery_wait(self._build, self._gates, self._now)}"
        )

    # -- nothing is in the way -----------------------------------------------------------------------------------

    def _delivered(self) -> tuple[Case, str]:
        state = self._build.state
        if state is BuildState.CLOSED or not self._build.runs:
            return Case.CLOSED, f"{capital(self._subject)} is closed, and TestNod has no run of it"
        run = self._build.runs[-1]
        older = len(self._build.runs) - 1
        besides = f" and {counted(older, 'older run')}" if older else ""
        where = f"{self._of_total(self._total)} {are(self._total)} in the TestNod run {said(run.test_run_url)}{besides}"
        if state is BuildState.FINALIZED:
            return Case.FINALIZED, f"{where}, which {last_status(self._build, self._now)}"
        return Case.WAITING, f"{where}, which is finalized {finalize_wait(self._build, self._gates, self._now)}"

    def _refused_beside(self) -> str:
        """Say after what was delivered that something else was not accepted, or nothing."""
        if not self._refusals:
            return ""
        first, newest, count = self._refusals[0], self._refusals[-1], len(self._refusals)
        later = "later " if first.at > self._build.last_report_at else ""
        noun = f"{later}{'file' if all(refusal.name for refusal in self._refusals) else 'upload'}"
        last = "" if count == 1 else ", the last"
        return f"; {counted(count, noun)} {were(count)} refused{last} {_when_and_why(newest, self._now)}"

    def _mirror(self) -> str:
        """Say how CodeArts' own reports of the build fare, or nothing where its route does not mirror."""
        told = []
        for state, verb in ((DeliveryState.OWED, "still owed"), (DeliveryState.DEAD, "given up")):
            of_state = [delivery for delivery in mirrored(self._build) if delivery.state is state]
            error = next((delivery.last_error for delivery in of_state if delivery.last_error), None)
            if of_state:
                told.append(f"{counted(len(of_state), 'report')} {verb}{f' ({said(error)})' if error else ''}")
        if self._build.mirror is not None:
            told.insert(0, said(self._build.mirror))
        return f"; its mirror at CodeArts: {', '.join(told)}" if told else ""

    def _of_total(self, count: int) -> str:
        if count == self._total:
            return f"{'The only report' if count == 1 else f'All {count} reports'} of {self._subject}"
        return f"{count} of the {self._total} reports of {self._subject}"
