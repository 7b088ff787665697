"""The JUnit reports that were uploaded to CodeArts Build, as its report summary counts them.

It must not know HTTP or the bridge. Page: "Obtaining the Report Summary" (`show_report_summary` of the SDK).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.domain.junit.validator import Valid, check
from bridge.sandbox.builds import REGION, BuildRun, written


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadedReport:
    """One uploaded file and what it counts."""

    name: str
    node_id: str
    total: int
    failures: int
    errors: int
    skipped: int
    time_us: int
    uploaded_at: int


class Reports:
    """The reports of every build, in the order of their upload."""

    def __init__(self) -> None:
        self._by_build: dict[tuple[str, int], list[UploadedReport]] = {}

    def add(self, build: BuildRun, reports: Sequence[UploadedReport]) -> None:
        self._by_build.setdefault((build.job_id, build.build_no), []).extend(reports)

    def of(self, build: BuildRun) -> list[UploadedReport]:
        """Return what was uploaded for a build."""
        return self._by_build.get((build.job_id, build.build_no), [])


def read_report(name: str, node_id: str, body: bytes, *, at: int) -> UploadedReport | None:
    """Count an uploaded file; None when it is no JUnit report."""
    verdict = check(body)
    if not isinstance(verdict, Valid):
        return None
    counts = verdict.counts
    return UploadedReport(
        name=name,
        node_id=node_id,
        total=counts.tests,
        failures=counts.failures,
        errors=counts.errors,
        skipped=counts.skipped,
        time_us=counts.time_us,
        uploaded_at=at,
    )


def summary(build: BuildRun, reports: Sequence[UploadedReport]) -> dict[str, object]:
    """Return the `result` of the report summary: all reports together, and each node by itself."""
    nodes = sorted({report.node_id for report in reports})
    parts = [_counted(build, node, [report for report in reports if report.node_id == node]) for node in nodes]
    return {"summary": _counted(build, None, reports), "sub_summarys": parts}


def _counted(build: BuildRun, node: str | None, reports: Sequence[UploadedReport]) -> dict[str, object]:
    total, failures, errors, others = (
        sum(getattr(report, name) for report in reports) for name in ("total", "failures", "errors", "skipped")
    )
    return {
        "job_id": build.job_id,
        "build_no": build.build_no,
        "stage_name": node,
        "root_id": None,
        "total": total,
        "success": total - failures - errors - others,
        "failures": failures,
        "errors": errors,
        "others": others,
        "execution_time": sum(report.time_us for report in reports) // 1000,
        "genrate_time": written(max((report.uploaded_at for report in reports), default=build.started_at)),
        "region": REGION,
        "is_success": not (failures or errors),
    }
