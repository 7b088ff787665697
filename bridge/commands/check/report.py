"""The results of `bridge check` as a table for people, and as JSON for programs.

Names come from files and archives, so characters that could control a terminal are escaped.
"""
# ruff: noqa: PLC0415 -- --json needs no rich (20 ms)

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Final

from bridge.commands.check.results import CheckRow, FileStatus
from bridge.domain.junit.validator import TestCounts
from bridge.domain.text_format import counted, printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

COLORS: Final = {FileStatus.ACCEPTED: "green", FileStatus.REJECTED: "bold red", FileStatus.SKIPPED: "dim"}
NUMBERS: Final = {
    "tests": "Tests",
    "failures": "Fail",
    "errors": "Err",
    "suite_errors": "SuiteErr",
    "skipped": "Skip",
    "disabled": "Disabled",
    "flaky": "Flaky",
    "time_us": "Seconds",
}
RARE: Final = frozenset({"suite_errors", "disabled"})
"""Columns that are shown only if a file has any, to leave room for the paths."""

SECOND_US: Final = 1_000_000


def as_json(rows: Sequence[CheckRow]) -> dict[str, list[dict[str, object]]]:
    """Return the object that `--json` prints. Counts of rejected files are null; `time` is in seconds."""
    return {"files": [_fields(row) for row in rows]}


def _fields(row: CheckRow) -> dict[str, object]:
    counts = row.counts
    return {
        "path": row.path,
        "status": row.status.value,
        "suites": counts and counts.suites,
        "tests": counts and counts.tests,
        "failures": counts and counts.failures,
        "errors": counts and counts.errors,
        "skipped": counts and counts.skipped,
        "flaky": counts and counts.flaky,
        "suite_errors": counts and counts.suite_errors,
        "disabled": counts and counts.disabled,
        "time": counts and counts.time_us / SECOND_US,
        "notes": list(row.notes),
        "first_failures": [asdict(failure) for failure in row.highlights.failures],
        "flaky_tests": list(row.highlights.flaky),
        "reason": row.reason or None,
        "line": row.line,
        "column": row.column,
    }


def table(rows: Sequence[CheckRow]) -> "Table":
    """Return a table with a row for each file and a total; if the console is narrow, only paths wrap."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, header_style="bold", show_footer=len(rows) > 1
    )
    total = _total([row.counts for row in rows if row.counts])
    grid.add_column("Status", no_wrap=True)
    names = [name for name in NUMBERS if name not in RARE or getattr(total, name)]
    for name in names:
        grid.add_column(NUMBERS[name], _number(total, name), justify="right", no_wrap=True)
    grid.add_column("File", counted(len(rows), "file"), overflow="fold", ratio=1)
    for row in rows:
        numbers = [_number(row.counts, name) for name in names]
        grid.add_row(Text(row.status, COLORS[row.status]), *numbers, Text(printable(row.path)))
    return grid


def notes_of(rows: Sequence[CheckRow]) -> "Iterator[Text]":
    """Yield a line for every rejected and skipped file, note, first failure and flaky test, in this order."""
    for status in (FileStatus.REJECTED, FileStatus.SKIPPED):
        for row in rows:
            if row.status is status:
                yield _line(row, row.reason, COLORS[status])
    for row in rows:
        for note in row.notes:
            yield _line(row, note, "yellow")
    for row in rows:
        for failure in row.highlights.failures:
            yield _line(row, f"failed: {failure}", "red")
        for name in row.highlights.flaky:
            yield _line(row, f"flaky: {name}", "yellow")


def status_counts(rows: Sequence[CheckRow]) -> str:
    """Return a sentence with the number of files by status."""
    counts = Counter(row.status for row in rows)
    parts = ", ".join(f"{counts[status]} {status}" for status in FileStatus if counts[status])
    return f"{counted(len(rows), 'file')}: {parts}."


def _line(row: CheckRow, sentence: str, color: str) -> "Text":
    from rich.text import Text

    name, text = printable(row.path), printable(sentence)
    # Reasons about a file in an archive already begin with its name.
    return Text.assemble((name, color), ": ", text.removeprefix(f"{name}: "))


def _number(counts: TestCounts | None, name: str) -> str:
    if counts is None:
        return ""
    return f"{counts.time_us / SECOND_US:.3f}" if name == "time_us" else str(getattr(counts, name))


def _total(counted_files: Sequence[TestCounts]) -> TestCounts:
    names = (field.name for field in fields(TestCounts))
    return TestCounts(**{name: sum(getattr(counts, name) for counts in counted_files) for name in names})
