"""Why a build is not, or not yet, in TestNod: status, cause and action, which also read as one sentence."""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from bridge.domain.build import (
    Build,
    BuildNo,
    BuildState,
    Delivery,
    DeliveryState,
    DeliveryTarget,
    Registration,
    RegistrationState,
)
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
from bridge.domain.instants import EPOCH, Duration, Instant, after, between
from bridge.domain.intake import MAX_REJECTIONS, Rejection, unresolved
from bridge.domain.lifecycle.breaker_signals import CREDENTIALS_REJECTED
from bridge.domain.lifecycle.build_result import result_is_missing
from bridge.domain.lifecycle.mirror import mirror_deliveries
from bridge.domain.lifecycle.replacement import NOT_CALM
from bridge.domain.outcomes import BuildInfo, NoSuchBuild, PollOutcome
from bridge.domain.policy import RECORD_TIMEOUT
from bridge.domain.result_mismatch import compare
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
from bridge.values import dataclass


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


NO_ACTION = "no action is needed"


@dataclass(frozen=True, kw_only=True, slots=True)
class WhyAnswer:
    """The answer in three clauses; `action` is what to do, or what the bridge does next."""

    case: WhyCase
    status: str
    cause: str
    action: str
    result_mismatch: str | None = None  # how CodeArts' result of the build and its reports differ

    @property
    def sentence(self) -> str:
        """Return all three as one sentence."""
        return f"{self.status}: {self.cause}; {self.action}."


SEND_COMMAND = "curl -X POST {url}/api/v1/rejections/{id}/send"
"""Sends a quarantined file; `url` is that of the admin listener."""


def why(  # noqa: PLR0913 -- everything that it explains
    *,
    job_id: str,
    build_no: BuildNo,
    build: Build | None,
    rejections: Sequence[Rejection],
    breakers: CircuitBreakers,
    now: Instant,
    polled: PollOutcome | None,
    leased: bool = False,
    send_command: str = "POST /api/v1/rejections/{id}/send",
) -> WhyAnswer:
    """Return why this build is not, or not yet, in TestNod.

    `build` is None if no upload of it was ever accepted; `polled` is the outcome of build-info, None if not called.
    `leased` is whether a worker has the build now, so that its calls may be running. `send_command` sends the
    quarantined file of the rejection `{id}`.
    """
    subject = subject_of(job_id, build_no)
    if build is not None and build.submitted is not None and not build.reports and not rejections:
        answer = _without_files(subject, build)
    elif build is None or not build.reports:
        answer = _without_reports(subject, rejections, breakers, now, polled, send_command)
    else:
        left = unresolved(build, rejections)
        answer = _WithReports(subject, build, left, breakers, now, leased=leased, send_command=send_command).answer()
    answer = _with_mismatch(answer, build, rejections, polled)
    if breakers.clock.state in (ClockState.TRUSTED, ClockState.UNPROVEN):
        return answer
    doubt = f"the bridge distrusts its clock ({clause_or_unknown(breakers.clock.reason)}), so these times may be wrong"
    return replace(answer, cause=f"{answer.cause}; {doubt}, and nothing is given up because of its age")


def _with_mismatch(
    answer: WhyAnswer, build: Build | None, rejections: Sequence[Rejection], polled: PollOutcome | None
) -> WhyAnswer:
    """Return the answer with how CodeArts' result and the reports differ; what to do about that replaces no advice."""
    result = build.build_result if build else None
    if result is None and isinstance(polled, BuildInfo) and not polled.building:
        result = polled.result
    reports = build.own_reports if build else ()
    found = compare(result, reports, rejected=[rejection.name for rejection in rejections])
    if found is None:
        return answer
    answer = replace(answer, result_mismatch=found.sentence)
    if answer.case is WhyCase.NEVER_UPLOADED and isinstance(polled, BuildInfo):  # the answer states both already
        return answer
    cause, action = cause_and_action(found.sentence, NO_ACTION)
    if answer.action == NO_ACTION:
        return replace(answer, cause=f"{answer.cause}; {cause}", action=action)
    return replace(answer, cause=f"{answer.cause}; {cause}; {action}")


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


def why_urgent(build: Build, case: WhyCase, now: Instant) -> WhyAnswer | None:
    """Return the answer for STUCK or DEAD, whatever else holds; None if the build is no such case."""
    subject = subject_of(build.job_id, build.build_no)
    return _WithReports(subject, build, (), CircuitBreakers(), now, leased=False, send_command="").urgent(case)


def subject_of(job_id: str, build_no: BuildNo) -> str:
    """Return what a sentence calls a build."""
    return f"build {build_no} of {'route' if isinstance(build_no, str) else 'job'} {job_id}"


# -- builds without an accepted report -----------------------------------------------------------------------------


def _without_files(subject: str, build: Build) -> WhyAnswer:
    """Return the answer for a submitted build of which no file has come yet."""
    if build.awaits_files:
        cause, action = "the files that CI has registered have not come yet", "wait until their URLs expire"
    else:
        cause, action = "no registered file has come", "look for the upload in the log of the build"
    return WhyAnswer(
        case=WhyCase.NEVER_UPLOADED, status=f"{capital(subject)} has no report yet", cause=cause, action=action
    )


def _without_reports(
    subject: str,
    rejections: Sequence[Rejection],
    breakers: CircuitBreakers,
    now: Instant,
    polled: PollOutcome | None,
    send_command: str,
) -> WhyAnswer:
    if rejections:
        return _rejected(subject, rejections, now, send_command)
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


def _rejected(subject: str, rejections: Sequence[Rejection], now: Instant, send_command: str) -> WhyAnswer:
    """Return the answer for the last rejected upload of a build, and how many there were; `rejections` oldest first."""
    uploads, last = len({rejection.request_id for rejection in rejections}), rejections[-1]
    files = [rejection for rejection in rejections if rejection.request_id == last.request_id]
    ago = f"{span(between(last.rejected_at, now))} ago"
    at_least = "at least " if len(rejections) >= MAX_REJECTIONS else ""
    if uploads > 1:
        status = f"{capital(at_least)}{uploads} uploads for {subject} were rejected, the last one {ago}"
    elif len(files) > 1:
        status = f"The bridge rejected {at_least}{len(files)} files of one upload for {subject} {ago}"
    else:
        status = f"The bridge rejected {'the file' if last.name else 'an upload'} of {subject} {ago}"
    cause, action = _cause_and_action(files[0], send_command)
    if len(files) > 1:
        cause, action = f"the first of them is {cause}", f"{action}; /api/v1/rejections lists the others"
    return WhyAnswer(case=WhyCase.REJECTED, status=status, cause=cause, action=action)


def _cause_and_action(rejection: Rejection, send_command: str) -> tuple[str, str]:
    name = "" if rejection.name in rejection.reason else f"{rejection.name}: "
    cause, action = cause_and_action(name + rejection.reason, "correct this and upload it again")
    if rejection.kept_until is not None and rejection.sent_at is None:
        send = send_command.format(id=rejection.id)
        action = f"{action}; or remove the cause and run `{send}` to send the quarantined file"
    return cause, action


# -- builds with reports -------------------------------------------------------------------------------------------


class _WithReports:
    """A build with accepted reports: one method for each case, the most urgent first."""

    def __init__(
        self,
        subject: str,
        build: Build,
        rejections: Sequence[Rejection],
        breakers: CircuitBreakers,
        now: Instant,
        *,
        leased: bool,
        send_command: str,
    ) -> None:
        self._subject = subject
        self._build = build
        self._rejections = rejections
        self._breakers = breakers
        self._now = now
        self._leased = leased
        self._send_command = send_command
        self._by_state: dict[DeliveryState, list[Delivery]] = {state: [] for state in DeliveryState}
        own = {report.id for report in build.own_reports} or build.reports.keys()
        self._foreign = len(build.reports) - len(own)  # of callers that may not use the route: they explain nothing
        for delivery in build.deliveries.values():
            if delivery.target is DeliveryTarget.TESTNOD and delivery.report_id in own:
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

    def urgent(self, case: WhyCase) -> WhyAnswer | None:
        """Return the answer for STUCK or DEAD alone."""
        return self._stuck() if case is WhyCase.STUCK else self._given_up()

    def _counts(self, case: WhyCase) -> str:
        """Return in parentheses how many reports and rejections the case itself does not count."""
        counted_already = {WhyCase.DEAD: self._dead, WhyCase.PENDING: self._pending}.get(case, [])
        counts = [] if len(counted_already) == self._total else [self._share()]
        if self._dead and case is not WhyCase.DEAD:
            counts.append(f"{len(self._dead)} {were(len(self._dead))} given up")
        if self._rejections and case is not WhyCase.REJECTED:
            counts.append(counted(len(self._rejections), "rejection"))
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
        notes = (cause, *notes, self._foreign_note(), self._replaced_note(), self._mirror_note())
        return "; ".join(filter(None, notes))

    def _foreign_note(self) -> str:
        if not self._foreign:
            return ""
        verb = were(self._foreign)
        return f"{counted(self._foreign, 'report')} of callers that may not use its route {verb} not delivered"

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
        """Return the last rejection while other reports are pending; once all are delivered, the run is the answer.

        A caller that is not proven cannot bring this about.
        """
        proven = [rejection for rejection in self._rejections if rejection.caller]
        if not (proven and self._pending):
            return None
        return _rejected(self._subject, proven, self._now, self._send_command)

    def _waits(self) -> WhyAnswer | None:
        if not self._pending:
            return None
        count, since = len(self._pending), min(delivery.pending_since for delivery in self._pending)
        wait = delivery_wait(self._build, self._breakers, self._now, leased=self._leased)
        return WhyAnswer(
            case=WhyCase.PENDING,
            status=f"{self._of_total(count)} {have(count)} been pending {lasting(between(since, self._now))}",
            cause=wait.cause,
            action="wait for its answer; without one it is tried again automatically"
            if wait.is_running
            else f"the next attempt is {_when(wait.until, self._now)}",
        )

    def _delivered(self) -> WhyAnswer:
        build = self._build
        if not build.runs:
            return self._without_known_run()
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
            return WhyAnswer(case=WhyCase.WAITING, status=status, cause=cause, action=NO_ACTION)
        confirmed = build.confirm_until is None
        return WhyAnswer(
            case=WhyCase.FINALIZED,
            status=f"{status}, which was finalized {span(between(build.finalized_at or self._now, self._now))} ago",
            cause=f"TestNod last called it {clause_or_unknown(runs[-1].status)}",
            action=NO_ACTION if confirmed else f"the next check is {_when(build.confirm_due_at, self._now)}",
        )

    def _without_known_run(self) -> WhyAnswer:
        """Return the answer for reports that were taken as delivered after a restore."""
        case = {BuildState.NO_RUN: WhyCase.NO_RUN, BuildState.FINALIZED: WhyCase.FINALIZED}
        return WhyAnswer(
            case=case.get(self._build.state, WhyCase.WAITING),
            status=f"{self._of_total(self._total)} {are(self._total)} delivered",
            cause="this was assumed after a restore, so the bridge does not know the run",
            action="look for the build in TestNod",
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
        cause, action = _cause_and_action(newest, self._send_command)
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
    is_running: bool = False  # they wait for the answer to a call


def away(name: str, breaker: CircuitBreaker, now: Instant) -> str:
    """Return since when the upstream behind an open breaker has been away, or has rejected calls, and why."""
    since = lasting(between(breaker.opened_at or now, now))
    reason = breaker.reason or ""
    if reason.startswith(CREDENTIALS_REJECTED):
        found = clause_or_unknown(reason.removeprefix(CREDENTIALS_REJECTED))
        return f"{name} has rejected the bridge's credentials {since} ({found}; renew them in [codearts] and reload)"
    fails = "away" if breaker.name in (TESTNOD, CODEARTS) else "failing"
    return f"{name} has been {fails} {since} ({clause_or_unknown(reason)})"


def delivery_wait(build: Build, breakers: CircuitBreakers, now: Instant, *, leased: bool = False) -> DeliveryWait:
    """Return what the pending reports of `build`, at least one, wait for; if it is not `leased`, no call is running."""
    return (
        (_wait_for_answer(build, now) if leased else None)
        or _wait_for_upstream(build, breakers, now)
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


def _wait_for_answer(build: Build, now: Instant) -> DeliveryWait | None:
    """Return the call that has been running the longest, of those that the ledger shows."""
    calls = []
    pending = {delivery.id for delivery in build.pending(DeliveryTarget.TESTNOD)}
    for registration in build.unsettled():
        if registration.delivery_id not in pending:
            continue
        if registration.state is RegistrationState.REQUESTED:
            calls.append((registration.requested_at, "the call that registers a report at TestNod"))
        elif registration.state is RegistrationState.REGISTERED and registration.due_at <= now:
            calls.append((registration.due_at, "the upload of a report to TestNod's storage"))
    if not calls:
        return None
    since, call = min(calls)
    return DeliveryWait(cause=f"{call} has been running {lasting(between(since, now))}", until=now, is_running=True)


def _wait_in_queue(build: Build) -> DeliveryWait | None:
    if build.queue_until is None:
        return None
    cause = "an earlier build of the same job opens its run first, as TestNod compares runs in their order"
    return DeliveryWait(cause=cause, until=build.queue_until)


def _wait_for_record(build: Build, breakers: CircuitBreakers, now: Instant) -> DeliveryWait | None:
    """Return what delays record-info while the first register still waits for it."""
    until = after(build.accepted_at, RECORD_TIMEOUT)
    if build.run_parameters is not None or build.described_at is not None or build.submitted is not None:
        return None
    patience = f"and is waited for at most {span(between(now, until))} more"
    if now >= until:
        is_bound = any(report.caller_routes is not None for report in build.reports.values())
        if not (build.describe_attempts and is_bound):
            return None
        patience, until = "and its record decides between the routes of several callers", build.describe_due_at
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
    pending = build.sendable(DeliveryTarget.TESTNOD) or build.pending(DeliveryTarget.TESTNOD)
    calls = ((*_next_call(build, delivery), delivery) for delivery in pending)
    at, upstream, delivery = min(calls, key=lambda call: call[0])
    if delivery.unread is not None:
        failing = lasting(between(delivery.unread_since or now, now))
        reason = clause_or_unknown(delivery.unread)
        cause = f"the bridge's own spool has not returned the bytes of a report {failing} ({reason})"
    elif delivery.last_error is None:
        cause = f"nothing has failed so far, {upstream} is called next"
    elif delivery.last_error == NOT_CALM:
        cause = clause_or_unknown(NOT_CALM)
    else:
        failed = max(1, delivery.attempts + sum(registration.attempts for registration in _unsettled(build, delivery)))
        error = clause_or_unknown(delivery.last_error)
        cause = f"{counted(failed, 'attempt')} failed, the last one with {error}; {upstream} is called next"
    return DeliveryWait(cause=cause, until=at)


def _next_call(build: Build, delivery: Delivery) -> tuple[Instant, str]:
    for registration in _unsettled(build, delivery):
        stores = registration.state is RegistrationState.REGISTERED
        return registration.due_at, "TestNod's storage" if stores else "TestNod"
    return delivery.due_at, "TestNod"


def _unsettled(build: Build, delivery: Delivery) -> list[Registration]:
    return [registration for registration in build.unsettled() if registration.delivery_id == delivery.id]


def finalize_wait(build: Build, breakers: CircuitBreakers, now: Instant) -> str:
    """Return what the run of a `build` that is delivered but not finalized waits for."""
    if build.state is BuildState.OPEN and build.submitted is not None:
        return "the run is finalized when CI calls finalize for its build_id, which it has not done yet"
    if build.awaits_files:
        return "the run is finalized when the files that CI has registered have come, or their URLs have expired"
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
    polled = (build.polled_at or EPOCH) > (build.ended_at or EPOCH)
    if build.submitted is None and result_is_missing(build) and (polled or breakers.open_breaker(CODEARTS)):
        return f"the run is finalized when CodeArts has the result of the build, {_last_poll(build, breakers, now)}"
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
