from dataclasses import replace

import pytest

from bridge.domain.result_mismatch import BuildVerdict, MismatchKind, compare, failed_count, totals_of, verdict_of
from tests.support.builders import report

LOOK = "Look at the build log: "
CRASHED = f"{LOOK}the test run may have crashed, a report may be missing, or another step failed."
STOPPED = f"{LOOK}the build was stopped, so tests or reports may be missing."
TIMED_OUT = f"{LOOK}the build ran out of time, so tests or reports may be missing."
EXIT_CODE = "Look at the build step: it may ignore the exit code of the tests."
NO_FAILED_TEST, FAILED_TESTS, NO_REPORT = MismatchKind


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        ("SUCCESS", BuildVerdict.PASSED),
        ("success", BuildVerdict.PASSED),
        ("FAILURE", BuildVerdict.FAILED),
        ("failed", BuildVerdict.FAILED),
        ("SCHEDULE_FAILURE", BuildVerdict.FAILED),
        ("ERROR", BuildVerdict.FAILED),
        ("UNSTABLE", BuildVerdict.FAILED),
        ("ABORTED", BuildVerdict.STOPPED),
        ("Cancelled", BuildVerdict.STOPPED),
        ("STOPPED", BuildVerdict.STOPPED),
        ("timeout", BuildVerdict.TIMED_OUT),
        ("TIME_OUT", BuildVerdict.TIMED_OUT),
        ("TIMED_OUT", BuildVerdict.TIMED_OUT),
        ("NOT_BUILT", BuildVerdict.UNKNOWN),
        ("UNSUCCESSFUL", BuildVerdict.UNKNOWN),
        ("5", BuildVerdict.UNKNOWN),
        ("", BuildVerdict.UNKNOWN),
        (None, BuildVerdict.UNKNOWN),
    ],
)
def test_results_are_read_without_regard_to_case_and_separators(result, verdict):
    assert verdict_of(result) is verdict


GREEN = [report(1, tests=300), report(2, tests=38, skipped=3), report(3, tests=2)]
RED = [report(1, tests=338), report(2, tests=2, failures=1, errors=1)]


@pytest.mark.parametrize(
    ("result", "reports", "kind", "sentence"),
    [
        (
            "FAILURE",
            GREEN,
            NO_FAILED_TEST,
            f"CodeArts says FAILURE, but none of the 340 tests in 3 reports failed. {CRASHED}",
        ),
        (
            "FAILURE",
            [*GREEN, report(4, suite_errors=2)],
            NO_FAILED_TEST,
            (
                "CodeArts says FAILURE, but none of the 340 tests in 4 reports failed, and 2 suites report errors "
                f"outside any test. {CRASHED}"
            ),
        ),
        (
            "ABORTED",
            GREEN,
            NO_FAILED_TEST,
            f"CodeArts says ABORTED, but none of the 340 tests in 3 reports failed. {STOPPED}",
        ),
        (
            "timeout",
            GREEN,
            NO_FAILED_TEST,
            f"CodeArts says timeout, but none of the 340 tests in 3 reports failed. {TIMED_OUT}",
        ),
        (
            "FAILURE",
            [report(tests=2, skipped=2)],
            NO_FAILED_TEST,
            f"CodeArts says FAILURE, but none of the 2 tests in 1 report failed (all were skipped). {CRASHED}",
        ),
        (
            "FAILURE",
            [report(tests=1)],
            NO_FAILED_TEST,
            f"CodeArts says FAILURE, but the only test in 1 report did not fail. {CRASHED}",
        ),
        (
            "FAILURE",
            [report(tests=1, skipped=1)],
            NO_FAILED_TEST,
            f"CodeArts says FAILURE, but the only test in 1 report was skipped. {CRASHED}",
        ),
        (
            "FAILURE",
            [report(1), report(2)],
            NO_FAILED_TEST,
            f"CodeArts says FAILURE, but there is no test in 2 reports. {CRASHED}",
        ),
        ("SUCCESS", RED, FAILED_TESTS, f"CodeArts says SUCCESS, but 2 of 340 tests failed. {EXIT_CODE}"),
        (
            "SUCCESS",
            [report(tests=1, errors=1)],
            FAILED_TESTS,
            f"CodeArts says SUCCESS, but 1 of 1 test failed. {EXIT_CODE}",
        ),
        (
            "FAILURE",
            [],
            NO_REPORT,
            "CodeArts says FAILURE, and no report was accepted. Look for the upload in the build log.",
        ),
        (
            "SUCCESS",
            [],
            NO_REPORT,
            "CodeArts says SUCCESS, but no report was accepted. Look for the upload in the build log.",
        ),
    ],
)
def test_a_result_that_differs_from_the_reports_is_a_sentence(result, reports, kind, sentence):
    found = compare(result, reports)
    assert (found.kind, found.sentence) == (kind, sentence)


@pytest.mark.parametrize(
    ("result", "reports"),
    [
        ("SUCCESS", GREEN),
        ("SUCCESS", [report(tests=2, skipped=2)]),
        ("SUCCESS", [report()]),
        ("FAILURE", RED),
        ("ABORTED", RED),
        ("NOT_BUILT", GREEN),
        ("", RED),
        (None, RED),
        (None, []),
    ],
)
def test_a_result_that_agrees_or_is_not_known_is_no_mismatch(result, reports):
    assert compare(result, reports) is None


@pytest.mark.parametrize(
    ("rejected", "words"),
    [
        (("a.xml",), "(1 file was rejected)"),
        (("a.xml", "b.xml"), "(2 files were rejected)"),
        (("", "b.xml"), "(2 uploads were rejected)"),
    ],
)
def test_without_a_report_the_sentence_counts_what_was_rejected(rejected, words):
    sentence = compare("FAILURE", [], rejected=rejected).sentence
    assert sentence.startswith(f"CodeArts says FAILURE, and no report was accepted {words}. Correct ")
    assert compare("FAILURE", GREEN, rejected=rejected) == compare("FAILURE", GREEN)


def test_reports_of_the_bridge_itself_count_nothing():
    own = replace(report(9, tests=5, failures=4, errors=1), generated=True)
    assert totals_of([*GREEN, own]) == totals_of(GREEN)
    assert compare("SUCCESS", [*GREEN, own]) is None
    assert compare("SUCCESS", [own]).kind is NO_REPORT


def test_failures_and_errors_are_counted_together():
    assert failed_count(report(tests=5, failures=2, errors=1)) == 3
