"""The API's objects, exactly as contract.md names their fields.

They are shapes: what fills them stands in build_view.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from sqlalchemy import Row

from bridge.domain.build import UNSETTLED, BuildState, DeliveryState, DeliveryTarget, RegistrationState
from bridge.domain.circuit_breaker import CircuitBreakers
from bridge.domain.code_check.models import CodeCheckState
from bridge.domain.rejections import Rejection
from bridge.domain.text_format import rfc3339
from bridge.domain.why import blocked_now
from bridge.store.build_rows import BuildRows
from bridge.store.row_mapping import to_code_check


class DeliveryView(TypedDict):
    """A report owed to one target."""

    id: int
    target: str
    state: str
    attempts: int
    last_error: str | None
    next_attempt_at: str | None


class ReportView(TypedDict):
    """One JUnit file; `time` is in seconds."""

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
    time: float
    notes: list[str]
    accepted_at: str
    caller: str
    deliveries: list[DeliveryView]


class RunView(TypedDict):
    """A TestNod test run, and how many of its registrations nobody can name."""

    test_run_id: str
    test_run_url: str
    status: str | None
    opened_at: str
    finalized_at: str | None
    lost_registrations: int


class CodeCheckView(TypedDict):
    """How far the asking of CodeArts Check is; `summary` is what it found, or why nothing came (so far)."""

    state: str
    until: str
    attempts: int
    answered_at: str | None
    summary: str | None


class TestnodView(TypedDict):
    """What the build is at TestNod; no build_id until it is pinned."""

    build_id: str | None
    runs: list[RunView]


class RejectionView(TypedDict):
    """A file, or a whole upload (`name` empty), that was not accepted; until `kept_until` the file can be sent."""

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
    """One build with all that people may know of it; times are RFC 3339 UTC, null where unknown.

    One of which every upload was refused has refusals only: no id, and it was never accepted.
    """

    id: int | None
    job_id: str
    build_no: int
    state: str
    stuck_reason: str | None
    blocked_reason: str | None
    route: str | None
    build_result: str | None
    end_reason: str | None
    branch: str | None
    commit: str | None
    metadata_mismatch: str | None
    accepted_at: str | None
    ended_at: str | None
    finalized_at: str | None
    next_attempt_at: str | None
    last_error: str | None
    mirror: str | None  # where the route mirrors: "agrees", or "differs: …"
    testnod: TestnodView
    code_check: CodeCheckView | None
    reports: list[ReportView]
    refusals: list[RejectionView]


# The API's build object (shapes.py) out of rows and values.
#
# It knows no statement and no HTTP.


def build_view(build: Row[Any], owns: BuildRows, breakers: CircuitBreakers) -> BuildView:
    """Return the build object of one row of `builds`."""
    run_parameters: dict[str, Any] = build.run_parameters or {}
    owed = any(row.target == DeliveryTarget.TESTNOD and row.state == DeliveryState.PENDING for row in owns.deliveries)
    return {
        "id": build.id,
        "job_id": build.job_id,
        "build_no": build.build_no,
        "state": build.state,
        "stuck_reason": build.stuck_reason,
        "blocked_reason": blocked_now(build.blocked_reason, build.state, build.route, breakers, pending=owed),
        "route": build.route or None,
        "build_result": build.build_result,
        "end_reason": build.end_reason,
        "branch": _known_of(build, "branch"),
        "commit": _known_of(build, "commit"),
        "metadata_mismatch": build.metadata_mismatch,
        "accepted_at": rfc3339(build.accepted_at),
        "ended_at": _time(build.ended_at),
        "finalized_at": _time(build.finalized_at),
        "next_attempt_at": _time(_next_try_at(build, breakers)),
        "last_error": build.last_error,
        "mirror": build.mirror,
        "testnod": {"build_id": run_parameters.get("build_id"), "runs": _run_views(owns)},
        "code_check": None if build.code_check is None else _quality_view(to_code_check(build.code_check)),
        "reports": _report_views(owns),
        "refusals": [rejection_view(refusal) for refusal in owns.refusals],
    }


def rejected_upload_view(job_id: str, build_no: int, refusals: Sequence[Rejection]) -> BuildView:
    """Return the build object of a build that the ledger has no row of, because nothing of it was accepted."""
    return {
        "id": None,
        "job_id": job_id,
        "build_no": build_no,
        "state": BuildState.OPEN,
        "stuck_reason": None,
        "blocked_reason": None,
        "route": None,
        "build_result": None,
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
        "testnod": {"build_id": None, "runs": []},
        "code_check": None,
        "reports": [],
        "refusals": [rejection_view(refusal) for refusal in refusals],
    }


def rejection_view(refusal: Rejection) -> RejectionView:
    """Return the refusal object."""
    return {
        "at": rfc3339(refusal.rejected_at),
        "name": refusal.name,
        "reason": refusal.reason,
        "code": refusal.code,
        "caller": refusal.caller,
        "request_id": refusal.request_id,
        "id": refusal.id,
        "size": refusal.size,
        "sha256": refusal.sha256,
        "kept_until": _time(refusal.kept_until),
        "sent_at": _time(refusal.sent_at),
    }


def lost_by_run(runs: Sequence[Any], registrations: Sequence[Any]) -> Counter[str]:
    """Count lost registrations by test_run_id; `runs` are oldest first.

    One whose run was never told belongs to the newest run that was open when it was asked for, else to the first.
    """
    lost: Counter[str] = Counter()
    for life in registrations:
        if life.state == RegistrationState.LOST and runs:
            open_then = [run.test_run_id for run in runs if run.opened_at <= life.requested_at]
            lost[life.test_run_id or (open_then[-1] if open_then else runs[0].test_run_id)] += 1
    return lost


def _known_of(build: Row[Any], name: str) -> str | None:
    """Return what the runs were opened with; before that, what is known so far."""
    source: Mapping[str, str | None] = build.run_parameters or build.record or {}
    return source.get(name) or (None if build.run_parameters else build.upload_metadata[name])


def _next_try_at(build: Row[Any], breakers: CircuitBreakers) -> int | None:
    """Return when the build has its next turn: it is nudged when a probe finds the gate open that it waits for."""
    breaker = breakers.open_breaker(build.waiting_on) if build.waiting_on else None
    times = [at for at in (build.due_at, breaker.probe_at if breaker else None) if at is not None]
    return min(times, default=None)


def _quality_view(code_check: CodeCheckState) -> CodeCheckView:
    return {
        "state": code_check.state,
        "until": rfc3339(code_check.until),
        "attempts": code_check.attempts,
        "answered_at": _time(code_check.answered_at),
        "summary": code_check.summary,
    }


def _run_views(owns: BuildRows) -> list[RunView]:
    lost = lost_by_run(owns.runs, owns.registrations)
    return [
        {
            "test_run_id": run.test_run_id,
            "test_run_url": run.test_run_url,
            "status": run.status,
            "opened_at": rfc3339(run.opened_at),
            "finalized_at": _time(run.finalized_at),
            "lost_registrations": lost[run.test_run_id],
        }
        for run in owns.runs
    ]


def _report_views(owns: BuildRows) -> list[ReportView]:
    unsettled = {life.delivery_id: life.due_at for life in owns.registrations if life.state in UNSETTLED}
    deliveries: dict[int, list[DeliveryView]] = {report.id: [] for report in owns.reports}
    for row in owns.deliveries:
        deliveries[row.report_id].append(_delivery_view(row, unsettled.get(row.id, row.due_at)))
    return [_report_view(report, deliveries[report.id]) for report in owns.reports]


def _report_view(report: Row[Any], deliveries: list[DeliveryView]) -> ReportView:
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
        "time": report.time_us / 1_000_000,
        "notes": report.notes,
        "accepted_at": rfc3339(report.accepted_at),
        "caller": report.caller,
        "deliveries": deliveries,
    }


def _delivery_view(row: Row[Any], due_at: int) -> DeliveryView:
    return {
        "id": row.id,
        "target": row.target,
        "state": row.state,
        "attempts": row.attempts,
        "last_error": row.last_error,
        "next_attempt_at": rfc3339(due_at) if row.state == DeliveryState.PENDING else None,
    }


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)
