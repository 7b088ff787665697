"""Why a build is not in TestNod: one sentence for the person who asks.

It knows neither the ledger nor who asks. What is most urgent is said, the rest is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bridge.domain.build import Build, BuildState, Delivery, DeliveryState, DeliveryTarget, RegistrationState
from bridge.domain.circuit_breaker import (
    CODEARTS,
    TESTNOD,
    CircuitBreaker,
    CircuitBreakers,
    register_breaker,
    storage_breaker,
)
from bridge.domain.clock_trust import ClockState
from bridge.domain.code_check.models import CodeCheckState, CodeCheckStatus
from bridge.domain.mirror import mirrored
from bridge.domain.outcomes import BuildInfo, NoSuchBuild, PollOutcome
from bridge.domain.policy import RECORD_TIMEOUT
from bridge.domain.rejections import Rejection, unresolved
from bridge.domain.text_format import are, capital, clause_or_unknown, counted, have, lasting, span, were

# What a build waits for, as part of a sentence: which upstream, since when, and when it is tried next.
#
# It knows neither the ledger nor which case of why.py asks.


def away(name: str, breaker: CircuitBreaker, now: int) -> str:
    """Say since when the upstream behind a closed gate has been away, and why."""
    return f"{name} has been away {lasting(now - (breaker.opened_at or now))} ({clause_or_unknown(breaker.reason)})"


def delivery_wait(build: Build, breakers: CircuitBreakers, now: int) -> str:
    """Say what the reports of `build` that are owed to TestNod, at least one, wait for, and until when."""
    waiting_on, next_attempt_at = (
        _away_for_delivery(build, breakers, now)
        or _line(build)
        or _record(build, breakers, now)
        or _next_call(build, now)
    )
    return f"{waiting_on}; the next try is {_when(next_attempt_at, now)}"


def finalize_wait(build: Build, breakers: CircuitBreakers, now: int) -> str:
    """Say what the run of a `build` that is delivered but not finalized waits for."""
    if build.state is BuildState.OPEN:
        return f"when the build has ended: {_last_look(build, breakers, now)}"
    breaker = breakers.open_breaker(TESTNOD)
    if breaker is not None:
        return f"when TestNod can be asked: {away('TestNod', breaker, now)}"
    if build.code_check is not None and build.code_check.state is CodeCheckStatus.WAITING:
        return f"when CodeArts Check has answered: {_check(build.code_check, now)}"
    if build.finalize_failing_since is not None:
        failing = lasting(now - build.finalize_failing_since)
        return (
            f"as soon as TestNod takes it: finalize has been failing {failing} ({clause_or_unknown(build.last_error)})"
        )
    result = f" with {clause_or_unknown(build.build_result)}" if build.build_result else ""
    return f"in a moment: the build ended{result} {span(now - (build.ended_at or now))} ago"


def last_status(build: Build, now: int) -> str:
    """Say when the newest run of `build` was finalized, what TestNod called it last, and whether it is asked again."""
    asked = (
        "is asked no more" if build.confirm_until is None else f"the next look is {_when(build.confirm_due_at, now)}"
    )
    ago = span(now - (build.finalized_at or now))
    return f"was finalized {ago} ago; TestNod last called it {clause_or_unknown(build.runs[-1].status)} and {asked}"


def quality_said(code_check: CodeCheckState | None) -> str:
    """Say after what became of a build what became of asking CodeArts Check about it; empty where it was not."""
    if code_check is None or code_check.state is CodeCheckStatus.WAITING:
        return ""
    if code_check.state is CodeCheckStatus.ANSWERED:
        return f"; CodeArts Check: {clause_or_unknown(code_check.summary)}"
    return f"; CodeArts Check gave no report in time: {clause_or_unknown(code_check.summary)}"


def _check(code_check: CodeCheckState, now: int) -> str:
    failed = f"{counted(code_check.attempts, 'call')} came to nothing ({clause_or_unknown(code_check.summary)}), and "
    because = failed if code_check.attempts else ""
    return f"{because}it is waited for at most {span(max(0, code_check.until - now))} more"


def _away_for_delivery(build: Build, breakers: CircuitBreakers, now: int) -> tuple[str, int] | None:
    route = build.run_parameters.route if build.run_parameters else ""
    needed = (
        ("TestNod", TESTNOD),
        ("TestNod's register", register_breaker(route)),
        ("TestNod's storage", storage_breaker(route)),
    )
    for name, breaker_name in needed:
        breaker = breakers.open_breaker(breaker_name)
        if breaker is not None:
            return away(name, breaker, now), breaker.probe_at or now
    return None


def _line(build: Build) -> tuple[str, int] | None:
    """Say that it lets another build go first; the time is when it waits for that one no longer."""
    if build.line_until is None:
        return None
    return (
        "an earlier build of the same job opens its run first, as TestNod compares runs in their order",
        build.line_until,
    )


def _record(build: Build, breakers: CircuitBreakers, now: int) -> tuple[str, int] | None:
    """Say what keeps record-info from being known, while the first register still waits for it."""
    until = build.accepted_at + RECORD_TIMEOUT
    if build.run_parameters is not None or build.described_at is not None or now >= until:
        return None
    patience = f"and is waited for at most {span(until - now)} more"
    breaker = breakers.open_breaker(CODEARTS)
    if breaker is not None:
        return f"{away('CodeArts', breaker, now)} {patience}", min(breaker.probe_at or now, until)
    if not build.describe_due_at:  # not asked yet, or nobody to ask
        return None
    because = f" ({clause_or_unknown(build.last_error)})" if build.last_error else ""
    return f"CodeArts has not described the build yet{because} {patience}", min(build.describe_due_at, until)


def _next_call(build: Build, now: int) -> tuple[str, int]:
    calls = ((*_call(build, delivery), delivery) for delivery in build.owed(DeliveryTarget.TESTNOD))
    at, upstream, delivery = min(calls, key=lambda call: call[0])
    if delivery.unread is not None:
        failing = lasting(now - (delivery.unread_since or now))
        return (
            f"the bridge's own spool has not returned the bytes of a report {failing} ({clause_or_unknown(delivery.unread)})",
            at,
        )
    if delivery.last_error is None:
        return f"nothing has failed so far, {upstream} comes next", at
    return f"{upstream} comes next after a failure ({clause_or_unknown(delivery.last_error)})", at


def _call(build: Build, delivery: Delivery) -> tuple[int, str]:
    for life in build.unsettled():
        if life.delivery_id == delivery.id:
            return life.due_at, "TestNod's storage" if life.state is RegistrationState.REGISTERED else "TestNod"
    return delivery.due_at, "TestNod"


def _last_look(build: Build, breakers: CircuitBreakers, now: int) -> str:
    breaker = breakers.open_breaker(CODEARTS)
    if breaker is not None:
        return away("CodeArts", breaker, now)
    if build.not_found_since is not None:
        return f"CodeArts has known no such build {lasting(now - build.not_found_since)}"
    if build.polled_at is None:
        return "nobody has said so yet"
    return f"CodeArts was asked {span(now - build.polled_at)} ago"


def _when(at: int, now: int) -> str:
    return f"in {span(at - now)}" if at > now else "due now"


class WhyCase(StrEnum):
    """What stands between a build and TestNod, most urgent first."""

    BLOCKED = "blocked"  # a person has to mend something
    STUCK = "stuck"  # its run stays pending
    DEAD = "dead"  # reports were given up
    REJECTED = "rejected"  # uploads were not accepted, nothing has replaced them, and nothing else is all delivered
    NEVER_UPLOADED = "never_uploaded"
    PENDING = "pending"
    WAITING = "waiting"  # delivered; the run is not finalized yet
    FINALIZED = "finalized"
    NO_RUN = "no_run"  # there is no run


@dataclass(frozen=True, kw_only=True, slots=True)
class WhyAnswer:
    """The sentence, and which case it speaks of."""

    case: WhyCase
    sentence: str


def why(
    *,
    job_id: str,
    build_no: int,
    build: Build | None,
    refusals: Sequence[Rejection],
    breakers: CircuitBreakers,
    now: int,
    codearts_says: PollOutcome | None,
) -> WhyAnswer:
    """Return why this build is not, or not yet, in TestNod at `now` (microseconds UTC), in exactly one sentence.

    `build` None: nothing of it was ever accepted. `codearts_says` None: CodeArts was not asked.
    """
    subject = f"build {build_no} of job {job_id}"
    if build is None or not build.reports:
        told = _nothing_accepted(subject, refusals, breakers, now, codearts_says)
    else:
        told = _Accepted(subject, build, unresolved(build, refusals), breakers, now).why()
    return _with_doubt(told, breakers)


def _with_doubt(told: WhyAnswer, breakers: CircuitBreakers) -> WhyAnswer:
    """Return what is told, and that its times may be wrong if something speaks against the clock."""
    if breakers.clock.state in (ClockState.TRUSTED, ClockState.UNPROVEN):
        return told
    doubt = f"the bridge doubts its clock ({clause_or_unknown(breakers.clock.reason)}), so these times may be wrong"
    sentence = f"{told.sentence.removesuffix('.')}; {doubt}, and nothing is given up for its age."
    return WhyAnswer(case=told.case, sentence=sentence)


def blocked_now(
    blocked_reason: str | None, state: BuildState, route: str, breakers: CircuitBreakers, *, owed: bool
) -> str | None:
    """Say what a person has to mend before anything more of a build is sent; None where nothing waits for that.

    `blocked_reason` is what its last visit found; the gate of its `route` may have closed since.
    """
    finished = state in (BuildState.FINALIZED, BuildState.NO_RUN) and not owed
    if blocked_reason is None and route and not finished:
        return breakers.route_blocked_reason(route)
    return blocked_reason


def _nothing_accepted(
    subject: str, refusals: Sequence[Rejection], breakers: CircuitBreakers, now: int, codearts_says: PollOutcome | None
) -> WhyAnswer:
    if refusals:
        more = f"; {counted(len(refusals) - 1, 'more refusal')} before it" if len(refusals) > 1 else ""
        return WhyAnswer(case=WhyCase.REJECTED, sentence=f"{_refused(subject, refusals[-1], now)}{more}.")
    says = _codearts(codearts_says, breakers, now)
    return WhyAnswer(
        case=WhyCase.NEVER_UPLOADED, sentence=f"No report of {subject} was ever uploaded to the bridge; {says}."
    )


def _refused(subject: str, refusal: Rejection, now: int) -> str:
    what = "the file" if refusal.name else "an upload"
    return f"The bridge refused {what} of {subject} {_when_and_why(refusal, now)}"


def _when_and_why(refusal: Rejection, now: int) -> str:
    named = "" if refusal.name in refusal.reason else f"{refusal.name}: "
    mend = ""
    if refusal.kept_until is not None and refusal.sent_at is None:
        mend = f" – its bytes are kept: mend the cause and send them with POST /api/v1/rejections/{refusal.id}/send"
    return f"{span(now - refusal.at)} ago: {clause_or_unknown(named + refusal.reason)}{mend}"


def _codearts(outcome: PollOutcome | None, breakers: CircuitBreakers, now: int) -> str:
    match outcome:
        case BuildInfo(building=True):
            return "CodeArts says that it is still running"
        case BuildInfo(result=result):
            return f"CodeArts says that it ended with {clause_or_unknown(result)} – look for the upload in its log"
        case NoSuchBuild():
            return "CodeArts knows no such build – check the job and the number"
        case None:
            breaker = breakers.open_breaker(CODEARTS)
            return away("CodeArts", breaker, now) if breaker else "CodeArts was not asked about it"
        case _:
            return f"CodeArts could not be asked about it: {clause_or_unknown(outcome.message)}"


class _Accepted:
    """A build of which reports were accepted: each case says its part of the sentence, or None."""

    def __init__(
        self, subject: str, build: Build, refusals: Sequence[Rejection], breakers: CircuitBreakers, now: int
    ) -> None:
        self._subject = subject
        self._build = build
        self._refusals = refusals
        self._breakers = breakers
        self._now = now
        self._route = build.run_parameters.route if build.run_parameters else ""
        self._by_state: dict[DeliveryState, list[Delivery]] = {state: [] for state in DeliveryState}
        for delivery in build.deliveries.values():
            if delivery.target is DeliveryTarget.TESTNOD:
                self._by_state[delivery.state].append(delivery)
        self._total = sum(len(deliveries) for deliveries in self._by_state.values())
        self._dead = self._by_state[DeliveryState.DEAD]
        self._owed = self._by_state[DeliveryState.PENDING]

    def why(self) -> WhyAnswer:
        urgent = (
            (WhyCase.BLOCKED, self._held()),
            (WhyCase.STUCK, self._stuck()),
            (WhyCase.DEAD, self._given_up()),
            (WhyCase.REJECTED, self._refusal()),
            (WhyCase.PENDING, self._on_the_way()),
        )
        for case, sentence in urgent:
            if sentence is not None:
                return WhyAnswer(case=case, sentence=f"{sentence}{self._also(case)}{self._mirror()}.")
        case, sentence = self._delivered()
        beside = f"{quality_said(self._build.code_check)}{self._refused_beside()}{self._mirror()}"
        return WhyAnswer(case=case, sentence=f"{sentence}{beside}.")

    def _also(self, case: WhyCase) -> str:
        """Count what the case itself does not speak of."""
        spoken_of = {WhyCase.DEAD: self._dead, WhyCase.PENDING: self._owed}.get(case, [])
        counts = [] if len(spoken_of) == self._total else [self._share()]
        if self._dead and case is not WhyCase.DEAD:
            counts.append(f"{len(self._dead)} {were(len(self._dead))} given up")
        others = len(self._refusals) - (case is WhyCase.REJECTED)
        if others > 0:
            counts.append(counted(others, "more refusal" if case is WhyCase.REJECTED else "refusal"))
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
        held = blocked_now(
            self._build.blocked_reason, self._build.state, self._route, self._breakers, owed=bool(self._owed)
        )
        return f"{capital(self._subject)} is held: {clause_or_unknown(held)}" if held else None

    def _stuck(self) -> str | None:
        if self._build.stuck_reason is None:
            return None
        run = f" (run {clause_or_unknown(self._build.runs[-1].test_run_url)})" if self._build.runs else ""
        return f"{capital(self._subject)} is stuck at TestNod{run}: {clause_or_unknown(self._build.stuck_reason)}"

    def _given_up(self) -> str | None:
        if not self._dead:
            return None
        first, count = self._dead[0], len(self._dead)
        name = clause_or_unknown(self._build.reports[first.report_id].name)
        again = "the same file again from CI and it is" if count == 1 else "the same files again from CI and they are"
        return (
            f"{self._of_total(count)} {were(count)} given up, {'namely' if count == 1 else 'the first'} "
            f"{name}: {clause_or_unknown(first.last_error)} – upload {again} sent again"
        )

    def _refusal(self) -> str | None:
        """Speak of refusals first while others are owed; once all are delivered, their run is what is asked for."""
        return _refused(self._subject, self._refusals[-1], self._now) if self._refusals and self._owed else None

    def _on_the_way(self) -> str | None:
        if not self._owed:
            return None
        count, since = len(self._owed), min(delivery.pending_since for delivery in self._owed)
        return (
            f"{self._of_total(count)} {have(count)} been owed to TestNod {lasting(self._now - since)}: "
            f"{delivery_wait(self._build, self._breakers, self._now)}"
        )

    # -- nothing is in the way -----------------------------------------------------------------------------------

    def _delivered(self) -> tuple[WhyCase, str]:
        state = self._build.state
        if state is BuildState.NO_RUN or not self._build.runs:
            return WhyCase.NO_RUN, f"{capital(self._subject)} is closed, and TestNod has no run of it"
        run = self._build.runs[-1]
        older = len(self._build.runs) - 1
        besides = f" and {counted(older, 'older run')}" if older else ""
        where = f"{self._of_total(self._total)} {are(self._total)} in the TestNod run {clause_or_unknown(run.test_run_url)}{besides}"
        if state is BuildState.FINALIZED:
            return WhyCase.FINALIZED, f"{where}, which {last_status(self._build, self._now)}"
        return WhyCase.WAITING, f"{where}, which is finalized {finalize_wait(self._build, self._breakers, self._now)}"

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
        for state, verb in ((DeliveryState.PENDING, "still owed"), (DeliveryState.DEAD, "given up")):
            of_state = [delivery for delivery in mirrored(self._build) if delivery.state is state]
            error = next((delivery.last_error for delivery in of_state if delivery.last_error), None)
            if of_state:
                told.append(
                    f"{counted(len(of_state), 'report')} {verb}{f' ({clause_or_unknown(error)})' if error else ''}"
                )
        if self._build.mirror is not None:
            told.insert(0, clause_or_unknown(self._build.mirror))
        return f"; its mirror at CodeArts: {', '.join(told)}" if told else ""

    def _of_total(self, count: int) -> str:
        if count == self._total:
            return f"{'The only report' if count == 1 else f'All {count} reports'} of {self._subject}"
        return f"{count} of the {self._total} reports of {self._subject}"
