import pytest

from bridge.domain.acceptance import NewRefusal, NewReport, Receipt
from bridge.domain.junit import Counts
from bridge.server.upload_result import refused_text, result_text


def report(tests: int = 1, failures: int = 0, errors: int = 0) -> NewReport:
    counts = Counts(suites=1, tests=tests, failures=failures, errors=errors, skipped=0, flaky=0, time_us=0)
    return NewReport(name="a.xml", node_id="n", size=1, received_sha256="", sent_sha256="", counts=counts)


def refused(number: int) -> NewRefusal:
    return NewRefusal(name=f"{number}.xml", reason=f"{number}.xml: is bad. Mend it.", code="BRIDGE.REPORT")


@pytest.mark.parametrize(
    ("reports", "receipts", "complete", "text"),
    [
        ([report()], "new", False, "1 report, 1 test, 0 failed"),
        ([report(3, 1, 1), report(2)], "new new", False, "2 reports, 5 tests, 2 failed"),
        ([report(0)], "known", False, "1 report, 0 tests, 0 failed; 1 already known"),
        ([report()], "owed_again", True, "1 report, 1 test, 0 failed; 1 sent again; the build is complete"),
        ([], "", True, "0 reports; the build is complete"),
    ],
)
def test_success_counts_in_words(reports, receipts, complete, text):
    assert result_text(reports, [Receipt(word) for word in receipts.split()], [], complete=complete) == text


def test_success_names_what_was_refused_all_the_same():
    text = result_text([report()], [Receipt.NEW], [refused(1)], complete=False)
    assert text == "1 report, 1 test, 0 failed; 1 refused: 1.xml: is bad. Mend it."


@pytest.mark.parametrize(
    ("accepted", "ending"),
    [
        (0, "Mend it."),
        (1, "The other 1 report of this upload was kept."),
        (2, "The other 2 reports of this upload were kept."),
    ],
)
def test_a_refusal_says_what_was_kept(accepted, ending):
    text = refused_text([refused(1)], accepted)
    assert text.startswith("1.xml: is bad. Mend it.")
    assert text.endswith(ending)


@pytest.mark.parametrize(
    ("count", "more"), [(20, None), (21, "1 more file was refused too."), (30, "10 more files were")]
)
def test_at_most_twenty_files_are_named_then_counted(count, more):
    text = refused_text([refused(number) for number in range(count)], 0)
    assert text.count("is bad") == 20
    assert more is None or more in text
