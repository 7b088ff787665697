"""Why a build is not, or not yet, in TestNod: status, cause and action, which also read as one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from bridge.domain.instants import Duration, Instant, after, between
from bridge.domain.intake import Rejection, unresolved
from bridge.domain.lifecycle.mirror import mirror_deliveries
from bridge.domain.outcomes import BuildInfo, NoSuchBuild, PollOutcome
from bridge.domain.policy import RECORD_TIMEOUT
from bridge.domain.text_format import (
    are,
    capital,
    cause_and_action,
    clause_or_unknown,
    counted,
    have,
    lasting,
    span,
    were,
)


class WhyCase(StrEnum):
    """What stands between a build and TestNod, the most urgent first."""

    BLOCKED = "blocked"  # an operator has to act
    STUCK = "stuck"  # its run stays pending
    DEAD = "dead"  # reports were given up
    REJECTED = "rejected"  # uploads were rejected and not replaced, and other reports are pending or do not exist
    NEVER_UPLOADED = "never_uploaded"
    PENDING = "pending"
    WAITING = "waiting"  # delivered; the run is not finalized yet
    FINALIZED = "finalized"
    NO_RUN = "no_run"


@dataclass(frozen=True, kw_only=True, slots=True)
class WhyAnswer:
    """The answer in three clauses; `action` is what to do, or what the bridge does next."""

    case: WhyCase
    status: str
    cause: str
    action: str

    @property
    def sentence(self) -> str:
        """Return all three as one sentence."""
        return f"{self.status}: {self.cause}; {self.action}."


def why(
    *,
    job_id: str,
    build_no: int,
    build: Build | None,
    rejections: Sequence[Rejection],
    breakers: CircuitBreakers,
    now: Instant,
    polled: PollOutcome | None,
) -> WhyAnswer:
    """Return why this build is not, or not yet, in TestNod.

    `build` is None if no upload of it was ever accepted; `polled` is the outcome of build-info, None if not called.
    """
    subject = f"build {build_no} of job {job_id}"
    if build is None or not build.reports:
        answer = _without_reports(subject, rejections, breakers, now, polled)
    else:
        answer = _WithReports(subject, build, unresolved(build, rejections), breakers, now).answer()
    if breakers.clock.state in (ClockState.TRUSTED, ClockState.UNPROVEN):
        return answer
    doubt = f"the bridge distrusts its clock ({clause_or_unknown(breakers.clock.reason)}), so these times may be wrong"
    return replace(answer, cause=f"{answer.cause}; {doubt}, and nothing is given up because of its age")


def blocked_now(
    blocked_reason: str | None, state: BuildState, route: str, breakers: CircuitBreakers, *, pending: bool
) -> str | None:
    """Return what an operator has to correct before more of a build is sent; None if nothing waits for that.

    `blocked_reason` is as the last reconciliation found it; the breaker of the `route` may have opened since.
    """
    finished = state in (BuildState.FINALIZED, BuildState.NO_RUN) and not pending
    if blocked_reason is None and route and not finished:
        return breakers.route_blocked_reason(route)
    return blocked_reason


# -- builds without an accepted report -----------------------------------------------------------------------------


def _without_reports(
    subject: str,
    rejections: Sequence[Rejection],
    breakers: CircuitBreakers,
    now: Instant,
    polled: PollOutcome | None,
) -> WhyAnswer:
    if rejections:
        earlier = len(rejections) - 1
        note = f" ({counted(earlier, 'more rejection')} before it)" if earlier else ""
        return _rejected(subject, rejections[-1], now, note)
    cause, action = _codearts_status(polled, breakers, now)
    status = f"No report of {subject} was ever uploaded to the bridge"
    return WhyAnswer(case=WhyCase.NEVER_UPLOADED, status=status, cause=cause, action=action)


def _codearts_status(polled: PollOutcome | None, breakers: CircuitBreakers, now: Instant) -> tuple[str, str]:
    look = "look for the upload in the log of the build"
    match polled:
        case BuildInfo(building=True):
            return "CodeArts reports that the build is still running", "wait for its upload step"
        case BuildInfo(result=result):
            return f"CodeArts reports that the build ended with {clause_or_unknown(result)}", look
        case NoSuchBuild():
            return "CodeArts has no such build", "check the job and the number"
        case None:
            breaker = breakers.open_breaker(CODEARTS)
            return away("CodeArts", breaker, now) if breaker else "CodeArts was not asked about it", look
        case _:
            return f"CodeArts could not be asked about it ({clause_or_unknown(polled.message)})", look


def _rejected(subject: str, rejection: Rejection, now: Instant, note: str) -> WhyAnswer:
    what = "the file" if rejection.name else "an upload"
    status = f"The bridge rejected {what} of {subject} {span(between(rejection.rejected_at, now))} ago{note}"
    cause, action = _cause_and_action(rejection)
    return WhyAnswer(case=WhyCase.REJECTED, status=status, cause=cause, action=action)


def _cause_and_action(rejection: Rejection) -> tuple[str, str]:
    name = "" if rejection.name in rejection.reason else f"{rejection.name}: "
    cause, action = cause_and_action(name + rejection.reason, "correct this and upload it again")
    if rejection.kept_until is not None and rejection.sent_at is None:
        send = f"POST /api/v1/rejections/{rejection.id}/send"
        action = f"{action}; or remove the cause and send the quarantined file with {send}"
    return cause, action


# -- builds with reports -------------------------------------------------------------------------------------------


class _WithReports:
    """A build with accepted reports: one method for each case, the most urgent first."""

    def __init__(
        self, subject: str, build: Build, rejections: Sequence[Rejection], breakers: CircuitBreakers, now: Instant
    ) -> None:
        self._subject = subject
        self._build = build
        self._rejections = rejections
        self._breakers = breakers
        self._now = now
        self._by_state: dict[DeliveryState, list[Delivery]] = {state: [] for state in DeliveryState}
        for delivery in build.deliveries.values():
            if delivery.target is DeliveryTarget.TESTNOD:
                self._by_state[delivery.state].append(delivery)
        self._total = sum(len(deliveries) for deliveries in self._by_state.values())
        self._dead = self._by_state[DeliveryState.DEAD]
        self._pending = self._by_state[DeliveryState.PENDING]

    def answer(self) -> WhyAnswer:
        urgent = (
            self._blocked() or self._stuck() or self._given_up() or self._rejected_beside_pending() or self._waits()
        )
        if urgent is not None:
            return replace(
                urgent, status=f"{urgent.status}{self._counts(urgent.case)}", cause=self._noted(urgent.cause)
            )
        answer = self._delivered()
        notes = (code_check_note(self._build.code_check), self._rejections_note())
        return replace(answer, cause=self._noted(answer.cause, *notes))

    def _counts(self, case: WhyCase) -> str:
        """Return in parentheses how many reports and rejections the case itself does not count."""
        counted_already = {WhyCase.DEAD: self._dead, WhyCase.PENDING: self._pending}.get(case, [])
        counts = [] if len(counted_already) == self._total else [self._share()]
        if self._dead and case is not WhyCase.DEAD:
            counts.append(f"{len(self._dead)} {were(len(self._dead))} given up")
        others = len(self._rejections) - (case is WhyCase.REJECTED)
        if others > 0:
            counts.append(counted(others, "more rejection" if case is WhyCase.REJECTED else "rejection"))
        return f" ({', '.join(counts)})" if counts else ""

    def _share(self) -> str:
        delivered, total = len(self._by_state[DeliveryState.DELIVERED]), self._total
        if total == 1:
            return f"its only report is {'' if delivered else 'not '}delivered"
        if not delivered:
            return f"none of its {total} reports is delivered"
        share = f"all its {total}" if delivered == total else f"{delivered} of {total}"
        return f"{share} reports {are(delivered)} delivered"

    def _noted(self, cause: str, *notes: str) -> str:
        return "; ".join(filter(None, (cause, *notes, self._replaced_note(), self._mirror_note())))

    def _blocked(self) -> WhyAnswer | None:
        build, route = self._build, self._build.run_parameters.route if self._build.run_parameters else ""
        reason = blocked_now(build.blocked_reason, build.state, route, self._breakers, pending=bool(self._pending))
        if not reason:
            return None
        cause, action = cause_and_action(reason, "correct this")
        status = f"{capital(self._subject)} is blocked"
        return WhyAnswer(case=WhyCase.BLOCKED, status=status, cause=cause, action=action)

    def _stuck(self) -> WhyAnswer | None:
        build = self._build
        if build.stuck_reason is None:
            return None
        run = f" in run {clause_or_unknown(build.current_runs[-1].test_run_url)}" if build.current_runs else ""
        return WhyAnswer(
            case=WhyCase.STUCK,
            status=f"{capital(self._subject)} is stuck at TestNod{run}",
            cause=clause_or_unknown(build.stuck_reason),
            action="ask TestNod's support; a further upload to this build finalizes the run again",
        )

    def _given_up(self) -> WhyAnswer | None:
        if not self._dead:
            return None
        first, count = self._dead[0], len(self._dead)
        name = clause_or_unknown(self._build.reports[first.report_id].name)
        return WhyAnswer(
            case=WhyCase.DEAD,
            status=f"{self._of_total(count)} {were(count)} given up",
            cause=f"{'' if count == 1 else 'the first is '}{name}, {clause_or_unknown(first.last_error)}",
            action=f"remove the cause, then upload the same {'file' if count == 1 else 'files'} again from CI",
        )

    def _rejected_beside_pending(self) -> WhyAnswer | None:
        """Return the last rejection while other reports are pending; once all are delivered, the run is the answer."""
        if not (self._rejections and self._pending):
            return None
        return _rejected(self._subject, self._rejections[-1], self._now, "")

    def _waits(self) -> WhyAnswer | None:
        if not self._pending:
            return None
        count, since = len(self._pending), min(delivery.pending_since for delivery in self._pending)
        wait = delivery_wait(self._build, self._breakers, self._now)
        return WhyAnswer(
            case=WhyCase.PENDING,
            status=f"{self._of_total(count)} {have(count)} been pending {lasting(between(since, self._now))}",
            cause=wait.cause,
            action=f"the next attempt is {_when(wait.until, self._now)}",
        )

    def _delivered(self) -> WhyAnswer:
        build = self._build
        runs = build.current_runs
        if build.state is BuildState.NO_RUN or not runs:
            return WhyAnswer(
                case=WhyCase.NO_RUN,
                status=f"{capital(self._subject)} is finished without a run",
                cause="TestNod has no run of it",
                action="look at its reports in /api/v1/builds",
            )
        older = len(runs) - 1
        others = f" and {counted(older, 'older run')}" if older else ""
        run = f"the TestNod run {clause_or_unknown(runs[-1].test_run_url)}{others}"
        status = f"{self._of_total(self._total)} {are(self._total)} in {run}"
        if build.state is not BuildState.FINALIZED:
            cause = finalize_wait(build, self._breakers, self._now)
            return WhyAnswer(case=WhyCase.WAITING, status=status, cause=cause, action="no action is needed")
        confirmed = build.confirm_until is None
        return WhyAnswer(
            case=WhyCase.FINALIZED,
            status=f"{status}, which was finalized {span(between(build.finalized_at or self._now, self._now))} ago",
            cause=f"TestNod last called it {clause_or_unknown(runs[-1].status)}",
            action="no action is needed"
            if confirmed
            else f"the next check is {_when(build.confirm_due_at, self._now)}",
        )

    def _rejections_note(self) -> str:
        """Return what was rejected beside the delivered reports."""
        if not self._rejections:
            return ""
        first, newest, count = self._rejections[0], self._rejections[-1], len(self._rejections)
        later = "later " if first.rejected_at > self._build.last_report_at else ""
        noun = f"{later}{'file' if all(rejection.name for rejection in self._rejections) else 'upload'}"
        last = "" if count == 1 else ", the last"
        ago = span(between(newest.rejected_at, self._now))
        cause, action = _cause_and_action(newest)
        return f"{counted(count, noun)} {were(count)} rejected{last} {ago} ago ({cause}; {action})"

    def _replaced_note(self) -> str:
        """Return which run counts if others stayed pending and were replaced."""
        build, parameters = self._build, self._build.run_parameters
        if parameters is None or parameters.generation == 1:
            return ""
        replaced = [run for run in build.runs if run.generation < parameters.generation and run.is_pending]
        urls = ", ".join(clause_or_unknown(run.test_run_url or run.test_run_id) for run in replaced)
        which = f"run {urls}" if urls else "an earlier run"
        return (
            f"a lost registration holds {which} in pending, so the build was sent again with build_id "
            f"{parameters.build_id}, and only the run of that build_id counts"
        )

    def _mirror_note(self) -> str:
        """Return how the mirror of the build at CodeArts is; empty if its route does not mirror."""
        notes = [] if self._build.mirror is None else [clause_or_unknown(self._build.mirror)]
        for state, text in ((DeliveryState.PENDING, "still pending"), (DeliveryState.DEAD, "given up")):
            of_state = [delivery for delivery in mirror_deliveries(self._build) if delivery.state is state]
            error = next((delivery.last_error for delivery in of_state if delivery.last_error), None)
            if of_state:
                reason = f" ({clause_or_unknown(error)})" if error else ""
                notes.append(f"{counted(len(of_state), 'report')} {text}{reason}")
        return f"its mirror at CodeArts: {', '.join(notes)}" if notes else ""

    def _of_total(self, count: int) -> str:
        if count == self._total:
            return f"{'The only report' if count == 1 else f'All {count} reports'} of {self._subject}"
        return f"{count} of the {self._total} reports of {self._subject}"


# -- what a build waits for ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryWait:
    """Why pending reports wait, as a clause, and until when at most."""

    cause: str
    until: Instant


def away(name: str, breaker: CircuitBreaker, now: Instant) -> str:
    """Return since when the upstream behind an open breaker has been away, and why."""
    since = lasting(between(breaker.opened_at or now, now))
    return f"{name} has been away {since} ({clause_or_unknown(breaker.reason)})"


def delivery_wait(build: Build, breakers: CircuitBreakers, now: Instant) -> DeliveryWait:
    """Return what the pending reports of `build`, at least one, wait for."""
    return (
        _wait_for_upstream(build, breakers, now)
        or _wait_in_queue(build)
        or _wait_for_record(build, breakers, now)
        or _wait_for_next_call(build, now)
    )


def _wait_for_upstream(build: Build, breakers: CircuitBreakers, now: Instant) -> DeliveryWait | None:
    route = build.run_parameters.route if build.run_parameters else ""
    needed = (
        ("TestNod", TESTNOD),
        ("TestNod's register", register_breaker(route)),
        ("TestNod's storage", storage_breaker(route)),
    )
    for name, breaker_name in needed:
        breaker = breakers.open_breaker(breaker_name)
        if breaker is not None:
            return DeliveryWait(cause=away(name, breaker, now), until=breaker.probe_at or now)
    return None


def _wait_in_queue(build: Build) -> DeliveryWait | None:
    if build.queue_until is None:
        return None
    cause = "an earlier build of the same job opens its run first, as TestNod compares runs in their order"
    return DeliveryWait(cause=cause, until=build.queue_until)


def _wait_for_record(build: Build, breakers: CircuitBreakers, now: Instant) -> DeliveryWait | None:
    """Return what delays record-info while the first register still waits for it."""
    until = after(build.accepted_at, RECORD_TIMEOUT)
    if build.run_parameters is not None or build.described_at is not None or now >= until:
        return None
    patience = f"and is waited for at most {span(between(now, until))} more"
    breaker = breakers.open_breaker(CODEARTS)
    if breaker is not None:
        cause = f"{away('CodeArts', breaker, now)} {patience}"
        return DeliveryWait(cause=cause, until=min(breaker.probe_at or now, until))
    if not build.describe_due_at:  # not called yet, or there is no CodeArts
        return None
    error = f" ({clause_or_unknown(build.last_error)})" if build.last_error else ""
    cause = f"CodeArts has not described the build yet{error} {patience}"
    return DeliveryWait(cause=cause, until=min(build.describe_due_at, until))


def _wait_for_next_call(build: Build, now: Instant) -> DeliveryWait:
    calls = ((*_next_call(build, delivery), delivery) for delivery in build.pending(DeliveryTarget.TESTNOD))
    at, upstream, delivery = min(calls, key=lambda call: call[0])
    if delivery.unread is not None:
        failing = lasting(between(delivery.unread_since or now, now))
        reason = clause_or_unknown(delivery.unread)
        cause = f"the bridge's own spool has not returned the bytes of a report {failing} ({reason})"
    elif delivery.last_error is None:
        cause = f"nothing has failed so far, {upstream} is called next"
    else:
        cause = f"{upstream} is called next after a failure ({clause_or_unknown(delivery.last_error)})"
    return DeliveryWait(cause=cause, until=at)


def _next_call(build: Build, delivery: Delivery) -> tuple[Instant, str]:
    for registration in build.unsettled():
        if registration.delivery_id == delivery.id:
            stores = registration.state is RegistrationState.REGISTERED
            return registration.due_at, "TestNod's storage" if stores else "TestNod"
    return delivery.due_at, "TestNod"


def finalize_wait(build: Build, breakers: CircuitBreakers, now: Instant) -> str:
    """Return what the run of a `build` that is delivered but not finalized waits for."""
    if build.state is BuildState.OPEN:
        return f"the run is finalized when the build has ended, {_last_poll(build, breakers, now)}"
    breaker = breakers.open_breaker(TESTNOD)
    if breaker is not None:
        return f"the run is finalized when TestNod can be called, {away('TestNod', breaker, now)}"
    if build.code_check is not None and build.code_check.state is CodeCheckStatus.WAITING:
        return f"the run is finalized when CodeArts Check has answered, {_check_wait(build.code_check, now)}"
    if build.finalize_failing_since is not None:
        failing = lasting(between(build.finalize_failing_since, now))
        return f"finalize has been failing {failing} ({clause_or_unknown(build.last_error)})"
    result = f" with {clause_or_unknown(build.build_result)}" if build.build_result else ""
    return (
        f"the build ended{result} {span(between(build.ended_at or now, now))} ago, and the run is finalized in a moment"
    )


def _last_poll(build: Build, breakers: CircuitBreakers, now: Instant) -> str:
    breaker = breakers.open_breaker(CODEARTS)
    if breaker is not None:
        return away("CodeArts", breaker, now)
    if build.not_found_since is not None:
        return f"CodeArts has answered {lasting(between(build.not_found_since, now))} that there is no such build"
    if build.polled_at is None:
        return "no end has been reported yet"
    return f"CodeArts was asked {span(between(build.polled_at, now))} ago"


def _check_wait(code_check: CodeCheckState, now: Instant) -> str:
    failed = f"{counted(code_check.attempts, 'call')} failed ({clause_or_unknown(code_check.summary)}), and "
    left = span(Duration(max(0, between(now, code_check.until))))
    return f"{failed if code_check.attempts else ''}it is waited for at most {left} more"


def code_check_note(code_check: CodeCheckState | None) -> str:
    """Return what became of the report of CodeArts Check; empty while it is not known or if none was fetched."""
    if code_check is None or code_check.state is CodeCheckStatus.WAITING:
        return ""
    if code_check.state is CodeCheckStatus.ANSWERED:
        return f"CodeArts Check: {clause_or_unknown(code_check.summary)}"
    return f"CodeArts Check gave no report in time ({clause_or_unknown(code_check.summary)})"


def _when(at: Instant, now: Instant) -> str:
    return f"in {span(between(now, at))}" if at > now else "due now"
