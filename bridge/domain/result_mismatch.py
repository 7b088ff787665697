"""Compare CodeArts' result of a build with what its reports count: `compare` returns the mismatch, if there is one."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Protocol

from bridge.domain.junit.tally import suites_report_errors
from bridge.domain.text_format import clause_or_unknown, counted, were
from bridge.values import dataclass


class MismatchKind(StrEnum):
    """How the result of a build and its reports differ; values of the metric's label `kind`."""

    NO_FAILED_TEST = "no_failed_test"  # the build failed, and no case did
    FAILED_TESTS = "failed_tests"  # the build succeeded, and cases failed
    NO_REPORT = "no_report"  # the build ended, and no report of it was accepted


class BuildVerdict(StrEnum):
    """What a `build_result` of CodeArts means."""

    PASSED = "passed"
    FAILED = "failed"
    STOPPED = "stopped"  # by a person, before its end
    TIMED_OUT = "timed_out"
    UNKNOWN = "unknown"  # no result, or a word that the bridge has no meaning for


_PASSED = frozenset({"success", "succeeded", "successful", "passed"})
_FAILED = ("fail", "error", "unstable")  # also within longer words, such as SCHEDULE_FAILURE
_STOPPED = ("abort", "cancel", "stop", "terminat", "interrupt")
_TIMED_OUT = ("timeout", "timedout")

_HINTS = {
    BuildVerdict.FAILED: "the test run may have crashed, a report may be missing, or another step failed",
    BuildVerdict.STOPPED: "the build was stopped, so tests or reports may be missing",
    BuildVerdict.TIMED_OUT: "the build ran out of time, so tests or reports may be missing",
}


class CountedReport(Protocol):
    """A report with its counts; a generated one is the bridge's own."""

    @property
    def tests(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def skipped(self) -> int: ...
    @property
    def suite_errors(self) -> int: ...
    @property
    def generated(self) -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportTotals:
    """The sums of all uploaded reports of a build, whatever became of their deliveries."""

    reports: int = 0
    tests: int = 0
    failed: int = 0
    skipped: int = 0
    suite_errors: int = 0

    def __add__(self, other: "ReportTotals") -> "ReportTotals":
        return ReportTotals(
            reports=self.reports + other.reports,
            tests=self.tests + other.tests,
            failed=self.failed + other.failed,
            skipped=self.skipped + other.skipped,
            suite_errors=self.suite_errors + other.suite_errors,
        )

    @property
    def failed_of_all(self) -> str:
        """Return the clause "2 of 340 tests failed", or that none did."""
        of_reports = f"in {counted(self.reports, 'report')}"
        if not self.tests and not self.failed:
            return f"there is no test {of_reports}"
        if self.failed:
            return f"{self.failed} of {counted(self.tests, 'test')} failed"
        if self.tests == 1:
            return f"the only test {of_reports} {'was skipped' if self.skipped else 'did not fail'}"
        skipped = " (all were skipped)" if self.skipped >= self.tests else ""
        return f"none of the {self.tests} tests {of_reports} failed{skipped}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultMismatch:
    """A mismatch; `sentence` has the cause and, as a second sentence, what to look at."""

    kind: MismatchKind
    sentence: str


def verdict_of(build_result: str | None) -> BuildVerdict:
    """Return what a result of build-info means; seen are SUCCESS, FAILURE, ABORTED, timeout and SCHEDULE_FAILURE."""
    word = "".join(char for char in (build_result or "").casefold() if char.isalnum())
    if word in _PASSED:
        return BuildVerdict.PASSED
    for verdict, parts in (
        (BuildVerdict.TIMED_OUT, _TIMED_OUT),
        (BuildVerdict.STOPPED, _STOPPED),
        (BuildVerdict.FAILED, _FAILED),
    ):
        if any(part in word for part in parts):
            return verdict
    return BuildVerdict.UNKNOWN


def failed_count(report: CountedReport) -> int:
    """Return how many cases of a report failed: TestNod shows only cases, so errors of suites do not count."""
    return report.failures + report.errors


def totals_of(reports: Iterable[CountedReport]) -> ReportTotals:
    """Return the sums of the uploaded reports; the bridge's own reports count no tests of the build."""
    uploaded = [report for report in reports if not report.generated]
    return ReportTotals(
        reports=len(uploaded),
        tests=sum(report.tests for report in uploaded),
        failed=sum(failed_count(report) for report in uploaded),
        skipped=sum(report.skipped for report in uploaded),
        suite_errors=sum(report.suite_errors for report in uploaded),
    )


def compare(
    build_result: str | None, reports: Iterable[CountedReport], *, rejected: Sequence[str] = ()
) -> ResultMismatch | None:
    """Return how CodeArts' result and the reports differ; None if they agree, or if there is no known result.

    Args:
        build_result: as build-info returned it; None or empty without one.
        reports: all reports of the build, generated ones included.
        rejected: the names of its rejected files, empty for a whole upload.
    """
    return compare_totals(build_result, totals_of(reports), rejected=rejected)


def compare_totals(
    build_result: str | None, totals: ReportTotals, *, rejected: Sequence[str] = ()
) -> ResultMismatch | None:
    """Return what `compare` does for reports with these totals."""
    verdict = verdict_of(build_result)
    if verdict is BuildVerdict.UNKNOWN:
        return None
    passed = verdict is BuildVerdict.PASSED
    if totals.reports and passed is not bool(totals.failed):  # they agree
        return None
    says = f"CodeArts says {clause_or_unknown(build_result)}"
    if not totals.reports:
        joined = "but" if passed else "and"
        sentence = f"{says}, {joined} no report was accepted{_rejections(rejected)}"
        return ResultMismatch(kind=MismatchKind.NO_REPORT, sentence=sentence)
    if passed:
        sentence = (
            f"{says}, but {totals.failed_of_all}. Look at the build step: it may ignore the exit code of the tests."
        )
        return ResultMismatch(kind=MismatchKind.FAILED_TESTS, sentence=sentence)
    errors = f", and {suites_report_errors(totals.suite_errors)}" if totals.suite_errors else ""
    sentence = f"{says}, but {totals.failed_of_all}{errors}. Look at the build log: {_HINTS[verdict]}."
    return ResultMismatch(kind=MismatchKind.NO_FAILED_TEST, sentence=sentence)


def _rejections(names: Sequence[str]) -> str:
    """Return the end of the sentence: what was rejected, and what to do."""
    if not names:
        return ". Look for the upload in the build log."
    noun = "file" if all(names) else "upload"
    return f" ({counted(len(names), noun)} {were(len(names))} rejected). Correct what was rejected and upload it again."
