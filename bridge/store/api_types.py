"""The objects of the JSON API, and the functions that fill them from rows of the ledger."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TypedDict

from bridge.domain.attempts import KEPT_ATTEMPTS, OF_BUILD, Attempt, attempts_of_registration
from bridge.domain.build import UNSETTLED, BuildNo, BuildState, DeliveryState, DeliveryTarget, RegistrationState
from bridge.domain.circuit_breaker import CircuitBreakers
from bridge.domain.code_check.models import CodeCheckState
from bridge.domain.intake import Rejection
from bridge.domain.result_mismatch import compare
from bridge.domain.text_format import page_url, rfc3339
from bridge.domain.why import blocked_now
from bridge.store.row_mapping import (
    BuildRow,
    DeliveryRow,
    RegistrationRow,
    ReportRow,
    RunRow,
    to_code_check,
    to_run_parameters,
)
from bridge.values import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRows:
    """The rows that belong to one build, each kind in the order of its ids, and its rejections."""

    reports: list[ReportRow]
    deliveries: list[DeliveryRow]
    registrations: list[RegistrationRow]  # `presigned_url` is always None
    runs: list[RunRow]
    rejections: list[Rejection]
    attempts: list[Attempt]


# -- objects -----------------------------------------------------------------------------------------------------


class AttemptView(TypedDict):
    """One call. `status` is the HTTP status of its answer, null if none came; `reason` is the text of the answer."""

    call: str
    at: str
    duration_seconds: float
    outcome: str
    status: int | None
    reason: str | None


class DeliveryView(TypedDict):
    """The delivery of a report to one target, with its newest attempts, oldest first."""

    id: int
    target: str
    state: str
    attempts: int
    last_error: str | None
    next_attempt_at: str | None
    recent_attempts: list[AttemptView]


class FailureView(TypedDict):
    """A failed test; if `name` is empty, an error outside any test, and `classname` is the name of the suite."""

    name: str
    classname: str
    message: str
    file: str  # empty: not in the report
    line: int | None


class ReportView(TypedDict):
    """One JUnit file; `time` is in seconds. Counts, notes and names are those of the bytes that are sent."""

    id: int
    name: str
    node_id: str
    size: int
    sent_size: int
    received_sha256: str
    sent_sha256: str
    tests: int
    failures: int
    errors: int
    skipped: int
    flaky: int
    suite_errors: int  # suites with an error or failure outside any test
    disabled: int  # tests that did not run and that TestNod counts as passed
    time: float
    notes: list[str]
    first_failures: list[FailureView]  # at most five
    flaky_tests: list[str]  # classname and name of at most five
    accepted_at: str
    caller: str
    deliveries: list[DeliveryView]


class RunView(TypedDict):
    """A TestNod test run; `lost_registrations` counts uploads whose ids are not known.

    A run that does not count stayed pending and was replaced by one of a later `build_id`.
    """

    test_run_id: str
    test_run_url: str
    status: str | None
    opened_at: str
    finalized_at: str | None
    lost_registrations: int
    build_id: str
    counts: bool


class CodeCheckView(TypedDict):
    """The code check of a build; `summary` is its result, or the reason why there is none (yet)."""

    state: str
    until: str
    attempts: int
    answered_at: str | None
    summary: str | None


class TestnodView(TypedDict):
    """The build at TestNod, with the newest attempts to finalize its run, oldest first.

    `build_id` is null until its run parameters are chosen.
    """

    build_id: str | None
    runs: list[RunView]
    recent_finalizes: list[AttemptView]


class RejectionView(TypedDict):
    """A file, or a whole upload (`name` empty), that was rejected; until `kept_until` the file can be sent."""

    at: str
    name: str
    reason: str
    code: str
    caller: str
    request_id: str
    id: int
    size: int | None
    sha256: str | None
    kept_until: str | None
    sent_at: str | None


class BuildView(TypedDict):
    """One build; times are RFC 3339 UTC, null if unknown.

    A build of which every upload was rejected has rejections only, and no id.
    """

    id: int | None
    job_id: str  # of a build that came through TestNod's submission API: its route
    build_no: BuildNo  # of such a build a text: its build_id, or a digest of it
    state: str
    stuck_reason: str | None
    blocked_reason: str | None
    route: str | None
    build_result: str | None
    result_mismatch: str | None  # how it differs from the reports
    end_reason: str | None
    branch: str | None
    commit: str | None
    metadata_mismatch: str | None
    accepted_at: str | None
    ended_at: str | None
    finalized_at: str | None
    next_attempt_at: str | None
    last_error: str | None
    mirror: str | None  # "agrees", or "differs: …"; null if the route does not mirror
    testnod: TestnodView
    code_check: CodeCheckView | None
    reports: list[ReportView]
    rejections: list[RejectionView]


# -- filling them ------------------------------------------------------------------------------------------------


def build_view(build: BuildRow, rows: BuildRows, breakers: CircuitBreakers) -> BuildView:
    """Return the object of a build."""
    run_parameters = build.run_parameters or build.submitted or {}
    attempts = recent_attempts(rows.attempts, rows.registrations)
    pending = any(
        row.target == DeliveryTarget.TESTNOD and row.state == DeliveryState.PENDING and row.blocked_since is None
        for row in rows.deliveries
    )
    return {
        "id": build.id,
        "job_id": build.job_id,
        "build_no": build.build_no,
        "state": build.state,
        "stuck_reason": build.stuck_reason,
        "blocked_reason": blocked_now(
            build.blocked_reason, BuildState(build.state), build.route, breakers, pending=pending
        ),
        "route": build.route or (build.job_id if build.submitted else None),
        "build_result": build.build_result or None,
        "result_mismatch": _result_mismatch(build, rows),
        "end_reason": build.end_reason,
        "branch": _known_value(build, "branch"),
        "commit": _known_value(build, "commit"),
        "metadata_mismatch": build.metadata_mismatch,
        "accepted_at": rfc3339(build.accepted_at),
        "ended_at": _time(build.ended_at),
        "finalized_at": _time(build.finalized_at),
        "next_attempt_at": _time(_next_attempt_at(build, breakers)),
        "last_error": build.last_error,
        "mirror": build.mirror,
        "testnod": {
            "build_id": run_parameters.get("build_id"),
            "runs": _run_views(build, rows),
            "recent_finalizes": [_attempt_view(attempt) for attempt in attempts[OF_BUILD]],
        },
        "code_check": None if build.code_check is None else _code_check_view(to_code_check(build.code_check)),
        "reports": _report_views(rows, attempts),
        "rejections": [rejection_view(rejection) for rejection in rows.rejections],
    }


def recent_attempts(
    recorded: Sequence[Attempt], registrations: Sequence[RegistrationRow]
) -> defaultdict[int, list[Attempt]]:
    """Return the newest attempts of each delivery, and of finalizes under OF_BUILD, oldest first."""
    found: defaultdict[int, list[Attempt]] = defaultdict(list)
    for attempt in recorded:
        found[attempt.delivery_id].append(attempt)
    for registration in registrations:
        own = found[registration.delivery_id]
        own += attempts_of_registration(registration, own)
    for own in found.values():
        own.sort(key=lambda attempt: attempt.at)
        del own[:-KEPT_ATTEMPTS]
    return found


def may_go_to(report: ReportRow, route: str) -> bool:
    """Return whether the caller of a report may use `route`, which is empty if it is not known."""
    return not route or report.caller_routes is None or route in report.caller_routes


def rejected_upload_view(job_id: str, build_no: BuildNo, rejections: Sequence[Rejection]) -> BuildView:
    """Return the object of a build without a row, because none of its uploads was accepted."""
    return {
        "id": None,
        "job_id": job_id,
        "build_no": build_no,
        "state": BuildState.OPEN,
        "stuck_reason": None,
        "blocked_reason": None,
        "route": None,
        "build_result": None,
        "result_mismatch": None,
        "end_reason": None,
        "branch": None,
        "commit": None,
        "metadata_mismatch": None,
        "accepted_at": None,
        "ended_at": None,
        "finalized_at": None,
        "next_attempt_at": None,
        "last_error": None,
        "mirror": None,
        "testnod": {"build_id": None, "runs": [], "recent_finalizes": []},
        "code_check": None,
        "reports": [],
        "rejections": [rejection_view(rejection) for rejection in rejections],
    }


def rejection_view(rejection: Rejection) -> RejectionView:
    """Return the object of a rejection."""
    return {
        "at": rfc3339(rejection.rejected_at),
        "name": rejection.name,
        "reason": rejection.reason,
        "code": rejection.code,
        "caller": rejection.caller,
        "request_id": rejection.request_id,
        "id": rejection.id,
        "size": rejection.size,
        "sha256": rejection.sha256,
        "kept_until": _time(rejection.kept_until),
        "sent_at": _time(rejection.sent_at),
    }


def _lost_by_run(runs: Sequence[RunRow], registrations: Sequence[RegistrationRow]) -> Counter[str]:
    """Count lost registrations by test_run_id; `runs` are oldest first.

    A registration whose run is not known counts for the newest run of its generation that was open at its request, or
    else the first.
    """
    lost: Counter[str] = Counter()
    for registration in registrations:
        if registration.state == RegistrationState.LOST and runs:
            of_generation = [run for run in runs if run.generation == registration.generation] or runs
            open_then = [run.test_run_id for run in of_generation if run.opened_at <= registration.requested_at]
            lost[registration.test_run_id or (open_then[-1] if open_then else of_generation[0].test_run_id)] += 1
    return lost


def _known_value(build: BuildRow, name: str) -> str | None:
    """Return a value of the run parameters; before they are chosen, what is known so far, if all uploads agree."""
    source: Mapping[str, str | None] = build.run_parameters or build.record or {}
    if build.run_parameters or source.get(name):
        return source.get(name)
    stated = {build.upload_metadata[name], *(bound["stated"][name] for bound in build.bound_metadata or ())} - {None}
    return stated.pop() if len(stated) == 1 else None


def _result_mismatch(build: BuildRow, rows: BuildRows) -> str | None:
    own = [report for report in rows.reports if may_go_to(report, build.route)]
    found = compare(build.build_result, own, rejected=[rejection.name for rejection in rows.rejections])
    return None if found is None else found.sentence


def _next_attempt_at(build: BuildRow, breakers: CircuitBreakers) -> int | None:
    """Return when the build is due, or the next probe of the breaker that it waits for, if that is earlier."""
    breaker = breakers.open_breaker(build.waiting_on) if build.waiting_on else None
    times = [at for at in (build.due_at, breaker.probe_at if breaker else None) if at is not None]
    return min(times, default=None)


def _code_check_view(code_check: CodeCheckState) -> CodeCheckView:
    return {
        "state": code_check.state,
        "until": rfc3339(code_check.until),
        "attempts": code_check.attempts,
        "answered_at": _time(code_check.answered_at),
        "summary": code_check.summary,
    }


def _run_views(build: BuildRow, rows: BuildRows) -> list[RunView]:
    if not build.run_parameters:
        return []
    parameters = to_run_parameters(build.run_parameters)
    lost = _lost_by_run(rows.runs, rows.registrations)
    return [
        {
            "test_run_id": run.test_run_id,
            "test_run_url": page_url(run.test_run_url),
            "status": run.status,
            "opened_at": rfc3339(run.opened_at),
            "finalized_at": _time(run.finalized_at),
            "lost_registrations": lost[run.test_run_id],
            "build_id": parameters.build_id_of(run.generation),
            "counts": run.generation == parameters.generation or run.status not in (None, "pending"),
        }
        for run in rows.runs
    ]


def _report_views(rows: BuildRows, attempts: defaultdict[int, list[Attempt]]) -> list[ReportView]:
    due_registrations = {row.delivery_id: row.due_at for row in rows.registrations if row.state in UNSETTLED}
    deliveries: dict[int, list[DeliveryView]] = {report.id: [] for report in rows.reports}
    for row in rows.deliveries:
        deliveries[row.report_id].append(
            _delivery_view(row, due_registrations.get(row.id, row.due_at), attempts[row.id])
        )
    return [_report_view(report, deliveries[report.id]) for report in rows.reports]


def _report_view(report: ReportRow, deliveries: list[DeliveryView]) -> ReportView:
    return {
        "id": report.id,
        "name": report.name,
        "node_id": report.node_id,
        "size": report.size,
        "sent_size": report.sent_size,
        "received_sha256": report.received_sha256,
        "sent_sha256": report.sent_sha256,
        "tests": report.tests,
        "failures": report.failures,
        "errors": report.errors,
        "skipped": report.skipped,
        "flaky": report.flaky,
        "suite_errors": report.suite_errors,
        "disabled": report.disabled,
        "time": report.time_us / 1_000_000,
        "notes": report.notes,
        "first_failures": (report.highlights or {}).get("failures", []),
        "flaky_tests": (report.highlights or {}).get("flaky", []),
        "accepted_at": rfc3339(report.accepted_at),
        "caller": report.caller,
        "deliveries": deliveries,
    }


def _delivery_view(row: DeliveryRow, due_at: int, attempts: Sequence[Attempt]) -> DeliveryView:
    return {
        "id": row.id,
        "target": row.target,
        "state": row.state,
        "attempts": row.attempts,
        "last_error": row.last_error,
        "next_attempt_at": rfc3339(due_at) if row.state == DeliveryState.PENDING else None,
        "recent_attempts": [_attempt_view(attempt) for attempt in attempts],
    }


def _attempt_view(attempt: Attempt) -> AttemptView:
    return {
        "call": attempt.call,
        "at": rfc3339(attempt.at),
        "duration_seconds": attempt.duration / 1_000_000,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "reason": attempt.reason,
    }


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)
