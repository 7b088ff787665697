"""The reports that were uploaded to CodeArts: JUnit reports with their counts, and coverage reports.

Times are microseconds UTC.
"""

import io
import uuid
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import field

from lxml import etree

from bridge.sandbox.builds import REGION, BuildRun, format_time
from bridge.values import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadedReport:
    """One uploaded file and its counts."""

    name: str
    node_id: str
    total: int
    failures: int
    errors: int
    skipped: int
    time_us: int
    uploaded_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CoverageReport:
    """One uploaded file of a coverage report."""

    name: str
    node_id: str
    body: bytes = field(repr=False)


class Reports:
    """The reports of each build, in the order of upload."""

    def __init__(self) -> None:
        self._by_build: dict[tuple[str, int], list[UploadedReport]] = {}
        self._coverage: dict[tuple[str, int], list[CoverageReport]] = {}

    def add(self, build: BuildRun, reports: Sequence[UploadedReport]) -> None:
        self._by_build.setdefault((build.job_id, build.build_no), []).extend(reports)

    def of(self, build: BuildRun) -> list[UploadedReport]:
        """Return the reports of a build."""
        return self._by_build.get((build.job_id, build.build_no), [])

    def add_coverage(self, build: BuildRun, files: Sequence[CoverageReport]) -> None:
        self._coverage.setdefault((build.job_id, build.build_no), []).extend(files)

    def coverage_of(self, build: BuildRun) -> list[CoverageReport]:
        """Return the files of coverage reports of a build."""
        return self._coverage.get((build.job_id, build.build_no), [])


def read_report(name: str, node_id: str, body: bytes, *, at: int) -> UploadedReport | None:
    """Return an uploaded file with its counts; None if it is not a JUnit report."""
    try:
        root = etree.fromstring(body.lstrip(), etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True))
    except etree.XMLSyntaxError:
        return None
    if etree.QName(root).localname not in ("testsuites", "testsuite"):
        return None
    cases = list(root.iter("{*}testcase"))
    outcomes = Counter(map(_outcome, cases))
    return UploadedReport(
        name=name,
        node_id=node_id,
        total=len(cases),
        failures=outcomes["failure"],
        errors=outcomes["error"],
        skipped=outcomes["skipped"],
        time_us=sum(map(_time_us, cases)) if root.get("time") is None else _time_us(root),
        uploaded_at=at,
    )


def _outcome(case: etree._Element) -> str:
    return next((name for name in ("error", "failure", "skipped") if case.find(f"{{*}}{name}") is not None), "passed")


def _time_us(element: etree._Element) -> int:
    try:
        return round(float(element.get("time", "0")) * 1_000_000)
    except ValueError:
        return 0


def summary(build: BuildRun, reports: Sequence[UploadedReport]) -> dict[str, object]:
    """Return the `result` of the report summary: totals of all reports and of each node.

    Source: "Obtaining the Report Summary" (`show_report_summary` of the SDK).
    """
    nodes = sorted({report.node_id for report in reports})
    parts = [_counted(build, node, [report for report in reports if report.node_id == node]) for node in nodes]
    return {"summary": _counted(build, None, reports), "sub_summarys": parts}


def _counted(build: BuildRun, node: str | None, reports: Sequence[UploadedReport]) -> dict[str, object]:
    total, failures, errors, others = (
        sum(getattr(report, name) for report in reports) for name in ("total", "failures", "errors", "skipped")
    )
    success = total - failures - errors - others
    return {
        "job_id": build.job_id,
        "build_no": build.build_no,
        "stage_name": node,
        "root_id": root_id(build, node),
        "total": total,
        "success": success,
        "success_density": success / total if total else 1,
        "failures": failures,
        "errors": errors,
        "others": others,
        "execution_time": sum(report.time_us for report in reports) // 1000,
        "genrate_time": format_time(max((report.uploaded_at for report in reports), default=build.started_at)),
        "region": REGION,
        "is_success": not (failures or errors),
    }


def root_id(build: BuildRun, node: str | None) -> str:
    """Return the id of the report of a node, or of all."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"report/{build.job_id}/{build.build_no}/{node or ''}"))


def coverage_list(build: BuildRun, files: Sequence[CoverageReport]) -> dict[str, object]:
    """Return the `result` of the list of coverage reports: one for each node.

    Source: the definition of ListJunitCoverageSummary in Huawei's API Explorer.
    """
    nodes = sorted({file.node_id for file in files})
    shared = {"build_no": build.build_no, "job_id": build.job_id, "region": REGION}
    reports = [{**shared, "root_id": root_id(build, node), "stage_name": node} for node in nodes]
    return {"unit_summary_list": reports}


def coverage_zip(build: BuildRun, files: Sequence[CoverageReport], wanted: str) -> bytes | None:
    """Return the files of the coverage report with the id `wanted` as a zip file; None if there is no such report."""
    found = [file for file in files if root_id(build, file.node_id) == wanted]
    if not found:
        return None
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        for file in found:
            members.writestr(file.name, file.body)
    return archive.getvalue()
