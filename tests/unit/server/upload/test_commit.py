from dataclasses import replace

import pytest

from bridge.domain.intake import NewRejection, NewReport, ReportReceipt
from bridge.domain.junit.result import Failure, Highlights
from bridge.domain.junit.validator import TestCounts
from bridge.server.upload.commit import rejected_text, result_text


def report(tests: int = 1, failures: int = 0, errors: int = 0, *, changes: tuple[str, ...] = ()) -> NewReport:
    counts = TestCounts(suites=1, tests=tests, failures=failures, errors=errors, skipped=0, flaky=0, time_us=0)
    return NewReport(
        name="a.xml",
        node_id="n",
        size=1,
        sent_size=1,
        received_sha256="",
        sent_sha256="",
        counts=counts,
        changes=changes,
    )


def failed(*names: str, suite_errors: int = 0, red_totals: int = 0, flaky: tuple[str, ...] = ()) -> NewReport:
    failures = tuple(Failure(name=name, classname="C", message="m", file="a.py", line=3) for name in names[:5])
    plain = report(9, len(names))
    return replace(
        plain,
        counts=replace(plain.counts, suite_errors=suite_errors, flaky=len(flaky)),
        highlights=Highlights(failures=failures, flaky=flaky[:5], red_totals=red_totals),
    )


@pytest.mark.parametrize(
    ("reports", "ending"),
    [
        ([failed("a")], "1 failed; failed: C a (a.py:3): m"),
        ([failed("a"), failed("b")], "2 failed; failed: C a (a.py:3): m | C b (a.py:3): m"),
        (
            [failed("a", "b", "c"), failed(*"defghi")],
            "9 failed; failed: " + " | ".join(f"C {name} (a.py:3): m" for name in "abcde") + " | 4 more",
        ),
        ([failed(suite_errors=1)], "0 failed; 1 suite reports errors outside any test"),
        ([failed(suite_errors=1), failed(suite_errors=1)], "0 failed; 2 suites report errors outside any test"),
        ([failed(red_totals=1)], "0 failed; 1 suite states failures in its totals, but none of its tests failed"),
        ([failed(red_totals=3)], "0 failed; 3 suites state failures in their totals, but none of their tests failed"),
        ([failed(flaky=("c x", "c y"))], "0 failed; flaky: c x | c y"),
        ([failed(flaky=tuple("abcdefg"))], "0 failed; flaky: a | b | c | d | e | 2 more"),
        ([failed("a\x1b[31m\n\u202e")], r"failed: C a\x1b[31m\n\u202e (a.py:3): m"),
    ],
)
def test_success_names_first_failures_flaky_tests_and_errors_of_suites(reports, ending):
    text = result_text(reports, [ReportReceipt.NEW] * len(reports), [], complete=False)
    assert text.endswith(ending)
    assert text.isprintable()


def test_failures_follow_what_was_rejected_and_no_period_stands_before_a_semicolon():
    text = result_text([failed("a")], [ReportReceipt.NEW], [rejection(1)], complete=False)
    assert text == "1 report, 9 tests, 1 failed; 1 rejected: 1.xml: is bad. Fix it; failed: C a (a.py:3): m"


def rejection(number: int) -> NewRejection:
    return NewRejection(name=f"{number}.xml", reason=f"{number}.xml: is bad. Fix it.", code="BRIDGE.REPORT")


@pytest.mark.parametrize(
    ("reports", "receipts", "complete", "text"),
    [
        ([report()], "new", False, "1 report, 1 test, 0 failed"),
        ([report(3, 1, 1), report(2)], "new new", False, "2 reports, 5 tests, 2 failed"),
        ([report(0)], "duplicate", False, "1 report, 0 tests, 0 failed; 1 already known"),
        ([report()], "requeued", True, "1 report, 1 test, 0 failed; 1 sent again; the build is complete"),
        ([], "", True, "0 reports; the build is complete"),
    ],
)
def test_success_counts_reports_and_tests(reports, receipts, complete, text):
    assert result_text(reports, [ReportReceipt(word) for word in receipts.split()], [], complete=complete) == text


def test_success_names_rejected_files():
    text = result_text([report()], [ReportReceipt.NEW], [rejection(1)], complete=False)
    assert text == "1 report, 1 test, 0 failed; 1 rejected: 1.xml: is bad. Fix it."


@pytest.mark.parametrize(
    ("accepted", "ending"),
    [
        (0, "Fix it."),
        (1, "The other 1 report of this upload was accepted."),
        (2, "The other 2 reports of this upload were accepted."),
    ],
)
def test_a_rejection_names_the_count_of_accepted_reports(accepted, ending):
    text = rejected_text([rejection(1)], [report()] * accepted)
    assert text.startswith("1.xml: is bad. Fix it.")
    assert text.endswith(ending)


def test_a_rejection_mentions_that_the_build_is_complete():
    text = rejected_text([rejection(1)], [report()], complete=True)
    assert text.endswith("The other 1 report of this upload was accepted. The build is marked complete.")


@pytest.mark.parametrize(("count", "more"), [(20, None), (21, "1 more file was rejected."), (30, "10 more files were")])
def test_at_most_twenty_files_are_named_then_counted(count, more):
    text = rejected_text([rejection(number) for number in range(count)], [])
    assert text.count("is bad") == 20
    assert more is None or more in text


CHANGED = report(changes=("Color codes removed: 3.", "Left out: 1 properties."))


@pytest.mark.parametrize(
    ("reports", "skipped", "skipped_non_xml", "says"),
    [
        ([CHANGED], [], 0, "1 changed before it is sent: a.xml: Color codes removed: 3. Left out: 1 properties."),
        ([CHANGED] * 2, [], 0, "2 changed before they are sent: a.xml: Color"),
        ([report()], ["z.zip!b.xml: this is a JaCoCo coverage report, not JUnit."], 0, "1 skipped: z.zip!b.xml: "),
        ([report()], [], 1, "1 packed file without XML was skipped"),
        ([report()], [], 2, "2 packed files without XML were skipped"),
    ],
)
def test_changed_and_skipped_files_are_named_in_success_and_in_a_rejection(reports, skipped, skipped_non_xml, says):
    receipts = [ReportReceipt.NEW] * len(reports)
    assert says in result_text(reports, receipts, [], complete=False, skipped=skipped, skipped_non_xml=skipped_non_xml)
    text = rejected_text([rejection(1)], reports, skipped=skipped, skipped_non_xml=skipped_non_xml)
    assert f"accepted. Also: {says}" in text
    assert text.endswith(".")


def test_at_most_twenty_changed_files_are_named_then_counted():
    text = result_text([CHANGED] * 22, [ReportReceipt.NEW] * 22, [], complete=False)
    assert text.count("a.xml") == 20
    assert text.endswith("2 more files were changed.")
