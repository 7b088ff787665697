"""The result of `bridge upload` as a table for people, and as JSON for programs.

Names and messages come from files and servers, so characters that could control a terminal are escaped.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, Final

from bridge.commands.upload.ci_build import CiBuild
from bridge.domain.text_format import counted, printable
from bridge.values import dataclass

NUMBERS: Final = {"tests": "Tests", "failures": "Fail", "errors": "Err", "skipped": "Skip"}
TAKEN: Final = frozenset({"accepted", "duplicate", "requeued"})
"""Statuses of files that the gateway has."""


class UploadStatus(StrEnum):
    """How the upload of this run ended; of several, the last one counts."""

    SENT = "sent"
    CHECKED = "checked"  # only, because of --dry-run
    REJECTED = "rejected"
    AWAY = "away"


@dataclass(kw_only=True, slots=True)
class UploadReport:
    """What happened to each file, and to the build. `earlier` holds files that an earlier run had kept."""

    build: CiBuild
    status: UploadStatus = UploadStatus.SENT
    files: list[Mapping[str, Any]] = field(default_factory=list)
    earlier: list[Mapping[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # of whole requests, as sentences
    kept: int = 0  # files in the folder of --spool
    excluded: int = 0
    older: int = 0  # files that --newer-than-build left out
    build_state: str | None = None
    test_run_url: str | None = None

    @property
    def failed_tests(self) -> int:
        """Return how many tests of this run's files failed or had an error."""
        return sum((file.get("failures") or 0) + (file.get("errors") or 0) for file in self.files)

    def totals(self) -> dict[str, int]:
        """Return the sums over this run's files."""
        return {name: sum(file.get(name) or 0 for file in self.files) for name in NUMBERS}


def as_json(report: UploadReport, exit_code: int) -> dict[str, object]:
    """Return the object that `--json` prints."""
    build = report.build
    return {
        "status": report.status.value,
        "exit_code": exit_code,
        "job_id": build.job_id,
        "build_no": int(build.build_no),
        "node_id": build.node_id or "default",
        "branch": build.branch or None,
        "commit": build.commit or None,
        "files": [_file(file) for file in report.files],
        "earlier_files": [_file(file) for file in report.earlier],
        "totals": {"files": len(report.files), **report.totals()},
        "problems": report.problems,
        "kept": report.kept,
        "excluded": report.excluded,
        "older": report.older,
        "build_state": report.build_state,
        "test_run_url": report.test_run_url,
    }


def _file(file: Mapping[str, Any]) -> dict[str, object]:
    names = ("name", "status", *NUMBERS, "code", "reason", "message")
    return {name: file.get(name) for name in names}


def lines_of(report: UploadReport) -> Iterator[str]:
    """Yield the table, a line for each rejected file and each problem, and the last sentences."""
    rows = [*report.files, *report.earlier]
    if rows:
        yield from _table(rows, report)
    for file in rows:
        if file.get("message") and file.get("status") in ("rejected", "skipped"):
            yield printable(f"{file['status']}: {_with_name(str(file['name']), str(file['message']))}")
    yield from (printable(problem) for problem in report.problems)
    yield _summary(report)
    if report.test_run_url:
        yield f"TestNod: {printable(report.test_run_url)}"


def _with_name(name: str, message: str) -> str:
    return message if message.startswith(name) else f"{name}: {message}"


def _table(rows: Sequence[Mapping[str, Any]], report: UploadReport) -> Iterator[str]:
    width = max(len("Status"), *(len(str(row.get("status"))) for row in rows))
    numbers = [[_number(row.get(name)) for name in NUMBERS] for row in rows]
    totals = [str(number) for number in report.totals().values()]
    widths = [max(map(len, column)) for column in zip(NUMBERS.values(), *numbers, totals, strict=True)]
    yield _row("Status", list(NUMBERS.values()), "File", width, widths)
    for row, cells in zip(rows, numbers, strict=True):
        mark = " (of an earlier run)" if any(row is one for one in report.earlier) else ""
        yield _row(str(row.get("status")), cells, printable(str(row.get("name"))) + mark, width, widths)
    if len(report.files) > 1:
        yield _row("", totals, counted(len(report.files), "file"), width, widths)


def _row(status: str, numbers: Sequence[str], name: str, width: int, widths: Sequence[int]) -> str:
    cells = (number.rjust(size) for number, size in zip(numbers, widths, strict=True))
    return "  ".join([status.ljust(width), *cells, name])


def _number(value: object) -> str:
    return "" if value is None else str(value)


def _summary(report: UploadReport) -> str:
    counts = Counter(str(file.get("status")) for file in report.files)
    parts = ", ".join(f"{count} {status}" for status, count in counts.items())
    where = f"build {report.build.build_no} of job {report.build.job_id}"
    tests = f"{counted(report.totals()['tests'], 'test')}, {report.failed_tests} failed"
    files = f"{counted(len(report.files), 'file')} for {where}"
    return f"{files}: {parts}; {tests}." if report.files else f"No file for {where}."
