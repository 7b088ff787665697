"""What hostile files cost: work in proportion to their size, whatever they repeat."""

import time
from collections.abc import Callable

import pytest

from bridge.domain.junit import failures, tally
from bridge.domain.junit.validator import Valid, validate_bytes, validate_source
from tests.support.calls import calls_of

SIZE = 30_000
GROWTH = 8  # quadratic work would grow 64 times


def filled(head: str, unit: str, tail: str) -> Callable[[int], bytes]:
    return lambda size: f"{head}{unit * (size // len(unit))}{tail}".encode()


KINDS = {
    "cases": filled("<testsuite>", "<testcase/>", "</testsuite>"),
    "failed cases": filled("<testsuite>", "<testcase><failure/></testcase>", "</testsuite>"),
    "outcomes in one case": filled("<testsuite><testcase>", "<failure/><skipped/>", "</testcase></testsuite>"),
    "errors of one suite": filled("<testsuite>", "<error/>", "</testsuite>"),
    "suites with errors": filled("<testsuites>", "<testsuite><error>a.py:1</error></testsuite>", "</testsuites>"),
    "totals": filled("<testsuites>", '<testsuite tests="1" failures="2" errors="3" skips="4"/>', "</testsuites>"),
    "nested suites": filled("<testsuites>", "<testsuite>" * 200 + "</testsuite>" * 200, "</testsuites>"),
    "cases in nested suites": filled("<testsuite>" * 200, "<testcase/>", "</testsuite>" * 200),
    "namesakes": filled("<testsuite>", '<testcase name="a"/><testcase name="a"><error/></testcase>', "</testsuite>"),
    "markup in output": filled("<testsuite><system-out>", "<testcase/>", "</system-out></testsuite>"),
    "references in a failure": filled("<testsuite><testcase><failure>", "&lt;", "</failure></testcase></testsuite>"),
    "locations in a failure": filled("<testsuite><testcase><failure>", "a.py:1 ", "</failure></testcase></testsuite>"),
    "text between": filled("<testsuite>", "x<testcase/>", "</testsuite>"),
}


def streamed(data: bytes) -> object:
    return validate_source(lambda: iter((data,)))


def cpu_seconds(work: Callable[[bytes], object], data: bytes) -> float:
    def once() -> float:
        began = time.process_time()
        work(data)
        return time.process_time() - began

    return min(once() for _ in range(3))


@pytest.mark.parametrize("work", [validate_bytes, streamed])
@pytest.mark.parametrize("kind", KINDS)
def test_the_work_for_a_file_grows_as_its_size_does(kind, work):
    small, large = KINDS[kind](SIZE), KINDS[kind](GROWTH * SIZE)
    assert isinstance(work(small), Valid)
    assert calls_of(lambda: work(large)) < 1.5 * GROWTH * calls_of(lambda: work(small))
    assert cpu_seconds(work, large) < 4 * GROWTH * cpu_seconds(work, small)


def test_a_text_in_very_many_chunks_is_looked_at_no_further(monkeypatch):
    monkeypatch.setattr(failures, "MAX_CHUNKS", 100)
    fed = []
    real = failures.FailureText.feed
    monkeypatch.setattr(failures.FailureText, "feed", lambda self, text: fed.append(text) or real(self, text))
    result = streamed(KINDS["references in a failure"](SIZE))
    assert isinstance(result, Valid)
    assert result.highlights.failures[0].message.startswith("<<<")
    assert len(fed) == 100


def test_errors_of_suites_are_described_only_as_far_as_they_are_shown(monkeypatch):
    described = []
    real = tally.describe_suite_error
    monkeypatch.setattr(tally, "describe_suite_error", lambda *said: described.append(said) or real(*said))
    result = validate_bytes(KINDS["suites with errors"](SIZE))
    assert isinstance(result, Valid)
    assert result.counts.suite_errors > 500
    assert len(described) == tally.MAX_HIGHLIGHTS
