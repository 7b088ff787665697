"""Digests of cases: what is written is read, bounded, whatever the names."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.junit import case_digest
from bridge.domain.junit.case_digest import (
    FAILED,
    FLAKY_CASE,
    MAX_DIGEST_BYTES,
    MAX_NAME,
    PASSED,
    SKIPPED_CASE,
    CaseRecorder,
    CaseResult,
    read_digest,
)
from bridge.domain.junit.result import Valid
from bridge.domain.junit.tally import ERROR, FAILURE, FLAKY, SKIPPED
from bridge.domain.junit.validator import validate_bytes, validate_source

REPORT = b"""<testsuites><testsuite name="s">
<testcase classname="a.B" name="one &amp; two" time="1.5"/>
<testcase classname="a.B" name="red" time="0.25"><failure/></testcase>
<testcase classname="a.B" name="red" time="0.25"/>
<testcase name="left out"><skipped/></testcase>
<testcase classname="c" name="retried" time="x"><flakyFailure/></testcase>
</testsuite></testsuites>"""


def cases_of(result: object) -> list[CaseResult]:
    assert isinstance(result, Valid)
    return read_digest(result.case_digest).cases


def test_a_digest_has_classname_name_verdict_and_duration_of_every_case() -> None:
    cases = cases_of(validate_bytes(REPORT))
    assert [(case.identity, case.verdict) for case in cases] == [
        ("a.B\x1fone & two", PASSED),
        ("a.B\x1fred", FAILED),
        ("a.B\x1fred", PASSED),
        ("\x1fleft out", SKIPPED_CASE),
        ("c\x1fretried", FLAKY_CASE),
    ]
    assert cases[0].time_us == pytest.approx(1_500_000, rel=0.05)
    assert [case.time_us for case in cases[3:]] == [None, None]


def test_a_report_that_is_read_as_a_stream_has_the_same_digest() -> None:
    assert cases_of(validate_source(lambda: iter((REPORT,)))) == cases_of(validate_bytes(REPORT))


def test_no_digest_is_written_if_none_is_asked_for() -> None:
    result = validate_source(lambda: iter((REPORT,)), records_cases=False)
    assert isinstance(result, Valid)
    assert result.case_digest == b""


NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40)
OUTCOMES = st.sampled_from([0, FAILURE, ERROR, SKIPPED, FLAKY, FAILURE | ERROR, SKIPPED | FAILURE])


Written = list[tuple[str | None, str | None, int, str | None]]


@pytest.mark.parametrize("escaped", [True, False])
@given(cases=st.lists(st.tuples(st.none() | NAMES, st.none() | NAMES, OUTCOMES, st.none() | NAMES), max_size=30))
def test_what_is_written_is_read(cases: Written, *, escaped: bool) -> None:
    recorder = CaseRecorder(escaped=escaped)
    for classname, name, outcomes, time in cases:
        values = (value if value is None or not escaped else value.replace("&", "&#38;") for value in (classname, name))
        recorder.add(*values, outcomes, time)
    found = read_digest(recorder.digest())
    assert [case.identity for case in found.cases] == [f"{one or ''}\x1f{name or ''}" for one, name, _, _ in cases]
    assert not found.cut


@given(st.floats(min_value=0.0001, max_value=200_000))
def test_a_duration_is_kept_to_within_a_tenth(seconds: float) -> None:
    recorder = CaseRecorder()
    recorder.add("c", "n", 0, f"{seconds:.6f}")
    assert read_digest(recorder.digest()).cases[0].time_us == pytest.approx(seconds * 1e6, rel=0.1)


@given(st.binary(max_size=200))
def test_damaged_digests_are_read_without_a_fault(data: bytes) -> None:
    assert len(read_digest(b"\1" + data).cases) <= case_digest.MAX_CASES


def test_a_duration_that_is_a_long_text_is_not_stated() -> None:
    recorder = CaseRecorder()
    recorder.add("c", "n", 0, "1" * 100_000)
    assert read_digest(recorder.digest()).cases[0].time_us is None


def test_long_names_stay_apart() -> None:
    recorder = CaseRecorder()
    recorder.add("c", "x" * 1000 + "a", 0, None)
    recorder.add("c", "x" * 1000 + "b", 0, None)
    one, other = read_digest(recorder.digest()).cases
    assert one.identity != other.identity
    assert len(one.identity) <= MAX_NAME + 2


def test_a_huge_report_has_a_bounded_digest_that_is_marked_as_cut() -> None:
    chance, recorder = random.Random(1), CaseRecorder()
    for _ in range(60_000):
        recorder.add(chance.randbytes(8).hex(), chance.randbytes(12).hex(), 0, "1")
    digest = recorder.digest()
    found = read_digest(digest)
    assert 0 < len(digest) <= MAX_DIGEST_BYTES
    assert found.cut
    assert 10_000 < len(found.cases) < 60_000
