import pytest

from bridge.domain.mirror import Totals
from bridge.domain.outcomes import Unknown
from bridge.protocols.answers import Answer
from bridge.protocols.codearts_reports import read_summary


def told(counts: str) -> Answer:
    body = f'{{"status": "success", "result": {{"summary": {counts}}}}}'.encode()
    return Answer(status=200, headers={}, body=body, received_at=0)


def test_a_summary_counts_all_reports_of_a_build():
    counts = '{"total": 4, "failures": 1, "errors": "2", "others": 0}'
    assert read_summary(told(counts)) == Totals(total=4, failures=1, errors=2, others=0)


def test_without_any_report_all_is_nought():
    assert read_summary(told("null")) == Totals()


@pytest.mark.parametrize("total", ["null", '"many"', "1e400", "[4]", '"' + "9" * 5000 + '"'])
def test_totals_that_are_no_numbers_are_not_understood(total):
    assert isinstance(read_summary(told(f'{{"total": {total}, "failures": 0, "errors": 0, "others": 0}}')), Unknown)


@pytest.mark.parametrize("counts", ["{}", "4", '"all"', '{"total": 4}'])
def test_a_summary_without_its_totals_is_not_understood(counts):
    assert isinstance(read_summary(told(counts)), Unknown)
