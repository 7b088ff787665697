"""The page that `bridge check --html` writes: all reports that would be accepted, in one file."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bridge.domain.junit.cases import CaseReader
from bridge.domain.junit.result import TestCounts
from bridge.errors import BridgeError
from bridge.server.admin.console.templates import ReportPage, reports_as_file

TITLE = "Test reports"


class HtmlFile:
    """A file that is written at the end. Raises BridgeError if it exists or cannot be written."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise BridgeError(f"{path} exists. Name a new file after --html.")
        self.path = path
        self._reports: list[ReportPage] = []

    def add(self, name: str, chunks: Iterator[bytes], counts: TestCounts, notes: Sequence[str]) -> None:
        """Add a report that was accepted; failing cases are shown first."""
        reader = CaseReader()
        for chunk in chunks:
            reader.feed(chunk)
        self._reports.append(
            ReportPage(
                name=name,
                tests=counts.tests,
                failed=counts.failures + counts.errors,
                skipped=counts.skipped,
                seconds=counts.time_us / 1_000_000,
                notes=notes,
                cases=reader.finish(),
            )
        )

    def write(self) -> int:
        """Write the file, reports with failures first; return how many reports it has."""
        self._reports.sort(key=lambda report: (-report.failed, report.name))
        try:
            self.path.write_text(reports_as_file(TITLE, self._reports), encoding="utf-8")
        except OSError as error:
            raise BridgeError(
                f"{self.path} cannot be written: {error.strerror or error}. Name another file after --html."
            ) from error
        return len(self._reports)
