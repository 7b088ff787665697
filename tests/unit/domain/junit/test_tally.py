"""How times are read, how totals are compared, and what is noted."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.junit.tally import read_time
from bridge.domain.junit.validator import Valid, validate_source
from tests.support.junit import validated


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0.001", 0.001),
        (" 1.5 ", 1.5),
        ("1.4e-05", 0.000014),
        ("-0.25", -0.25),
        ("1,234.5", 1234.5),
        ("1,234,567.8", 1234567.8),
        ("1.234,5", 1234.5),
        ("1,234", 1234),
        ("12,5", 12.5),
        ("0,123", 0.123),
        ("-1,5", -1.5),
        (",5", 0.5),
        ("1967986371", 1967986371),
    ],
)
def test_a_time_is_read_as_its_locale_writes_it(text: str, seconds: float):
    assert read_time(text) == round(seconds * 1e6)


@pytest.mark.parametrize("text", [None, "", "soon", "1.5s", "00:00:01", "nan", "inf", "1e300", "1,2,x", "--1"])
def test_what_is_no_time_is_none(text: str | None):
    assert read_time(text) is None


@given(st.floats(min_value=-1e9, max_value=1e9))
def test_any_thousands_grouping_reads_as_without(seconds: float):
    assert read_time(f"{seconds:,.3f}") == read_time(f"{seconds:.3f}")


@given(st.text(max_size=12) | st.text(st.sampled_from("0123456789,.-+eE "), max_size=12))
def test_any_text_is_read_or_none_and_stays_in_bounds(text: str):
    time_us = read_time(text)
    assert time_us is None or abs(time_us) < 2**53


def suite(inside: str, **attributes: str) -> str:
    written = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f"<testsuite{written}>{inside}</testsuite>"


A, B = '<testcase classname="c" name="a"/>', '<testcase classname="c" name="b"/>'
RED = '<testcase classname="c" name="r"><failure/></testcase>'
ERROR = '<testcase classname="c" name="e"><error/></testcase>'
BOTH = '<testcase classname="c" name="fe"><failure/><error/></testcase>'
SKIPPED = '<testcase classname="c" name="s"><skipped/></testcase>'
OFF = '<testcase classname="c" name="off" status="notrun"/>'
SAYS = "the totals disagree with the cases: "


@pytest.mark.parametrize(
    ("report", "note"),
    [
        (suite(A, name="t", tests="1", failures="1"), "the root has failures 1 (counted 0)"),
        (
            f"<testsuites>{suite(A, name='t', tests='1', failures='1')}</testsuites>",
            'suite "t" has failures 1 (counted 0)',
        ),
        (
            f'<testsuites tests="1" errors="2">{suite(A, name="t", tests="1", failures="1")}</testsuites>',
            'suite "t" has failures 1 (counted 0); the root has errors 2 (counted 0)',
        ),
        (
            f"<testsuites>{suite(suite(A, tests='3'), name='outer', tests='1')}</testsuites>",
            "a suite without a name has tests 3 (counted 1)",
        ),
        (
            f"<testsuites>{suite(suite(RED, name='in', failures='1'), name='out', failures='0')}</testsuites>",
            'suite "out" has failures 0 (counted 1)',
        ),
        (
            f"<testsuites>{''.join(suite(A, name=str(n), tests='9') for n in range(50))}</testsuites>",
            'suite "0" has tests 9 (counted 1); suite "1" has tests 9 (counted 1); 48 more suites',
        ),
        (suite(A, skipped="1"), "the root has skipped 1 (counted 0)"),
        (suite(A, skip="1"), "the root has skip 1 (counted 0)"),
        (suite(A, ignored="1"), "the root has ignored 1 (counted 0)"),
        (suite(A, disabled="1"), "the root has disabled 1 (counted 0)"),
        (suite(A, tests="many"), "the root has tests many (counted 1)"),
        (suite(A + "<error/>", errors="3"), "the root has errors 3 (counted 1)"),
    ],
)
def test_totals_of_every_suite_are_compared_with_the_cases_below(report: str, note: str):
    assert f"{SAYS}{note}" in validated(report).notes


@pytest.mark.parametrize(
    "report",
    [
        suite(A + RED + ERROR + SKIPPED, tests="4", failures="1", errors="1", skipped="1"),
        suite(A + SKIPPED, tests="2", skip="1", disabled="1"),
        suite(A + SKIPPED + OFF, tests="3", skipped="1", disabled="1"),
        suite(A + SKIPPED + OFF, tests="3", skipped="2", disabled="2"),
        suite(BOTH, failures="1", errors="1"),
        suite(A + "<error/>", tests="1", errors="1"),
        suite(A + "<error/>", tests="1", errors="0"),
        suite("<failure/>", tests="0", failures="1"),
        suite(A, tests="", failures=" 0 "),
        suite(A * 1_000, tests="1,000"),
        suite(suite(RED, name="in", tests="1", failures="1") + A, tests="2", failures="1"),
        suite(A, assertions="9", warnings="3", expectations="7"),
    ],
)
def test_totals_that_agree_in_one_of_the_ways_of_counting_are_not_noted(report: str):
    assert not [note for note in validated(report).notes if note.startswith(SAYS)]


@pytest.mark.parametrize(
    ("report", "red_totals"),
    [
        (f'<testsuites failures="1">{suite(A, failures="1")}</testsuites>', 1),
        (f'<testsuites errors="1">{suite(A)}</testsuites>', 1),
        (f'<testsuites failures="1">{suite(A, errors="1")}{suite(B, failures="2")}</testsuites>', 2),
        (suite(RED, failures="7"), 0),  # runners that count assertions
        (suite(A + "<error/>", errors="2"), 0),
        (suite(A, failures="0", errors="many"), 0),
    ],
)
def test_totals_that_state_failures_of_passed_cases_are_counted(report: str, red_totals: int):
    assert validated(report).highlights.red_totals == red_totals


@pytest.mark.parametrize(
    ("cases", "notes"),
    [
        ("", ["it contains no test"]),
        (SKIPPED, ["no test ran: 1 skipped, 0 disabled"]),
        (SKIPPED + OFF, ["no test ran: 1 skipped, 1 disabled"]),
        (A + OFF, []),
        ('<testcase time="0.000"/><testcase name="" classname="x"/>', ["2 tests have no name"]),
        ('<testcase classname="x" name=" &#10;"/>', ["1 test has no name"]),
        (
            '<testcase name="a"><skipped/><failure/></testcase>',
            ["1 test is skipped and failed; TestNod counts it as failed"],
        ),
        (
            '<testcase name="a" status="FAILED"/><testcase name="b" result="failure"/>',
            ["2 tests have a failed status, but TestNod counts them as passed: no <failure> or <error>"],
        ),
        ('<testcase name="a" status="failed"><failure/></testcase>', []),
        ('<testcase name="a" status="run" result="completed"/>', []),
        (A + '<testcase classname="other" name="a"/><testcase name="a"/>', []),
        (
            '<testcase name="a"/><testcase classname="" name="a"/>',
            ['1 test name (classname and name) occurs more than once: "a"'],
        ),
        (A * 2, ['1 test name (classname and name) occurs more than once: "c a"']),
        (
            A + B + RED + A.replace("/>", "><error/></testcase>"),
            ['1 test name (classname and name) occurs more than once, both passed and failed: "c a"'],
        ),
        (
            (A + B + RED) * 3 + RED.replace('"r"', '"a"'),
            ['3 test names (classname and name) occur more than once, 1 of them both passed and failed: "c a"'],
        ),
        (
            "".join(f'<testcase name="{number}"/>' * 2 for number in range(9)),
            ['9 test names (classname and name) occur more than once: "0", "1", 7 more names'],
        ),
        (A + SKIPPED.replace('"s"', '"a"'), ['1 test name (classname and name) occurs more than once: "c a"']),
    ],
)
def test_what_is_odd_about_the_cases_is_noted(cases: str, notes: list[str]):
    assert [note for note in validated(suite(cases)).notes if "did not run" not in note] == notes


@pytest.mark.parametrize(
    "attributes",
    [
        'status="notrun" result="suppressed"',
        'status="disabled"',
        'result="skipped"',
        'status="Not_Run"',
        'status="ignored"',
    ],
)
def test_a_disabled_test_is_counted_as_testnod_counts_it(attributes: str):
    result = validated(suite(f'{A}<testcase name="DISABLED_b" {attributes}/>'))
    counts = result.counts
    assert (counts.tests, counts.skipped, counts.disabled) == (2, 0, 1)
    assert result.notes == ("1 test did not run, but TestNod counts it as passed: no <skipped>",)


def test_a_disabled_test_with_an_outcome_is_what_the_outcome_states():
    counts = validated(suite('<testcase name="a" status="notrun"><skipped/></testcase>')).counts
    assert (counts.skipped, counts.disabled) == (1, 0)


@pytest.mark.parametrize("report", ["suite-level", "root-level"])
def test_errors_outside_any_test_are_noted_with_suite_and_message(report: str):
    error = '<error message="afterAll: cannot drop the schema">trace</error>'
    if report == "root-level":
        note, text = "1 suite reports errors outside any test: the root: afterAll: cannot drop the schema", error
    else:
        text = suite(A + error, name="db") + suite(error, name="db2") + suite(error)
        note = (
            '3 suites report errors outside any test: "db": afterAll: cannot drop the schema; '
            '"db2": afterAll: cannot drop the schema; 1 more suite'
        )
    assert note in validated(f"<testsuites>{text}</testsuites>").notes


def test_hostile_names_and_values_do_not_flood_the_notes():
    long = "x" * 50_000
    cases = "".join(f'<testcase classname="{long}{n}" name="{long}"/>' * 2 for n in range(9))
    inside = f"{cases}<error message='{long}'>{long}</error>"
    result = validated(suite(suite(inside, name=long, tests=long, failures="9" * 9_000), time=long, tests=long))
    assert sum(map(len, result.notes)) < 2_500


def test_names_are_tracked_in_bounded_memory():
    tracemalloc.start()
    try:
        cases = b"".join(
            b'<testcase classname="com.example.shop.cart" name="%d"/>' % number for number in range(120_000)
        )
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        result = validate_source(lambda: iter((b"<testsuite>", cases, b"<testcase name='0'/></testsuite>")))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert isinstance(result, Valid)
    assert result.counts.tests == 120_001
    assert peak < 12 << 20
