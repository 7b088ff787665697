"""The API's build object (shapes.py) out of rows and values.

It knows no statement and no HTTP.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from bridge.domain.build import UNSETTLED, BuildState, DeliveryState, RegistrationState, Target
from bridge.domain.gates import Gates
from bridge.domain.quality import Quality
from bridge.domain.refusals import Refusal
from bridge.domain.why import held_now
from bridge.domain.words import rfc3339
from bridge.store.belongings import Belongings
from bridge.store.rows import to_quality
from bridge.store.shapes import BuildView, DeliveryView, QualityView, RefusalView, ReportView, RunView


def build_view(build: Row[Any], owns: Belongings, gates: Gates) -> BuildView:
    """Return the build object of one row of `builds`."""
    pin: dict[str, Any] = build.pin or {}
    owed = any(row.target == Target.TESTNOD and row.state == DeliveryState.OWED for row in owns.deliveries)
    return {
        "id": build.id,
        "job_id": build.job_id,
        "build_no": build.build_no,
        "state": build.state,
        "stuck": build.stuck,
        "held": held_now(build.held, build.state, build.route, gates, owed=owed),
        "route": build.route or None,
        "build_result": build.build_result,
        "ended_by": build.ended_by,
        "branch": _known_of(build, "branch"),
        "commit": _known_of(build, "commit"),
        "identity_mismatch": build.identity_mismatch,
        "accepted_at": rfc3339(build.accepted_at),
        "ended_at": _time(build.ended_at),
        "finalized_at": _time(build.finalized_at),
        "next_try_at": _time(_next_try_at(build, gates)),
        "last_error": build.last_error,
        "mirror": build.mirror,
        "testnod": {"build_id": pin.get("build_id"), "runs": _run_views(owns)},
        "quality": None if build.quality is None else _quality_view(to_quality(build.quality)),
        "reports": _report_views(owns),
        "refusals": [refusal_view(refusal) for refusal in owns.refusals],
    }


def refused_view(job_id: str, build_no: int, refusals: Sequence[Refusal]) -> BuildView:
    """Return the build object of a build that the ledger has no row of, because nothing of it was accepted."""
    return {
        "id": None,
        "job_id": job_id,
        "build_no": build_no,
        "state": BuildState.OPEN,
        "stuck": None,
        "held": None,
        "route": None,
        "build_result": None,
        "ended_by": None,
        "branch": None,
        "commit": None,
        "identity_mismatch": None,
        "accepted_at": None,
        "ended_at": None,
        "finalized_at": None,
        "next_try_at": None,
        "last_error": None,
        "mirror": None,
        "testnod": {"build_id": None, "runs": []},
        "quality": None,
        "reports": [],
        "refusals": [refusal_view(refusal) for refusal in refusals],
    }


def refusal_view(refusal: Refusal) -> RefusalView:
    """Return the refusal object."""
    return {
        "at": rfc3339(refusal.at),
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
            open_then = [run.test_run_id for run in runs if run.opened_at <= life.asked_at]
            lost[life.test_run_id or (open_then[-1] if open_then else runs[0].test_run_id)] += 1
    return lost


def _known_of(build: Row[Any], name: str) -> str | None:
    """Return what the runs were opened with; before that, what is known so far."""
    source: Mapping[str, str | None] = build.pin or build.record or {}
    return source.get(name) or (None if build.pin else build.said[name])


def _next_try_at(build: Row[Any], gates: Gates) -> int | None:
    """Return when the build has its next turn: it is nudged when a probe finds the gate open that it waits for."""
    gate = gates.closed(build.waits_for) if build.waits_for else None
    times = [at for at in (build.due_at, gate.probe_at if gate else None) if at is not None]
    return min(times, default=None)


def _quality_view(quality: Quality) -> QualityView:
    return {
        "state": quality.state,
        "until": rfc3339(quality.until),
        "attempts": quality.attempts,
        "answered_at": _time(quality.answered_at),
        "summary": quality.summary,
    }


def _run_views(owns: Belongings) -> list[RunView]:
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


def _report_views(owns: Belongings) -> list[ReportView]:
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
        "next_try_at": rfc3339(due_at) if row.state == DeliveryState.OWED else None,
    }


def _time(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)
