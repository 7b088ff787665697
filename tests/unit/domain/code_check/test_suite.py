from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from bridge.domain.code_check.models import CheckReport, IssueKind
from bridge.domain.code_check.suite import missing_suite, suite_of
from bridge.domain.junit.result import Valid
from bridge.domain.junit.validator import validate_bytes
from tests.support.builders import NOW, RULES

URL = "https://devcloud.example.com/report?a=1&b=<2>"
LIMITS = ((IssueKind.CRITICAL, 0), (IssueKind.MAJOR, 0), (IssueKind.NEW, 200))
LIMITED = replace(RULES, limits=LIMITS)
REPORT = CheckReport(numbers=(("COMFIRM", 0), ("critical", 0), ("major", 4), ("NEW", 122)), tools=("a&b",), url=URL)
LIMIT_NAMES = ["critical issues", "major issues", "new issues"]


def tree(suite):
    return etree.fromstring(suite.body)


def names(suite, group):
    return [case.get("name") for case in tree(suite).iter("testcase") if case.get("classname").endswith(f".{group}")]


def properties(suite):
    return {one.get("name"): one.get("value") for one in tree(suite).iter("property")}


def found(report=REPORT, rules=LIMITED):
    return suite_of(report, rules, requested_at=NOW)


def test_a_limit_that_is_broken_fails_with_words_and_the_way_to_the_report():
    (failure,) = tree(found()).iter("failure")
    assert failure.get("message") == "4 major issues, at most 0 allowed"
    assert failure.text == f"4 major issues, at most 0 allowed. See {URL}"


def test_without_a_url_there_is_no_way_to_the_report():
    (failure,) = tree(found(replace(REPORT, url=None))).iter("failure")
    assert failure.text == "4 major issues, at most 0 allowed."
    assert "REPORT_URL" not in properties(found(replace(REPORT, url=None)))


def test_a_limit_on_what_the_report_does_not_count_is_an_error():
    (error,) = tree(found(CheckReport(numbers=(("major", 0), ("NEW", 0)), tools=(), url=None))).iter("error")
    assert error.get("message") == "The report does not count critical issues, at most 0 allowed"


def test_a_limit_on_a_count_that_cannot_be_read_is_an_error():
    numbers = (("FATAL", 0), ("major", 0), ("NEW", 0))
    suite = found(CheckReport(numbers=numbers, tools=(), url=URL, unreadable=("critical",)))
    (error,) = tree(suite).iter("error")
    said = "CodeArts Check's number of critical issues cannot be read, at most 0 allowed"
    assert (error.get("message"), error.text) == (said, f"{said}. See {URL}")
    assert (suite.counts.errors, suite.counts.failures) == (1, 0)


def test_there_is_a_case_for_each_limit_and_each_tool():
    assert (names(found(), "limits"), names(found(), "tools")) == (LIMIT_NAMES, ["a&b"])


@pytest.mark.parametrize(
    "suite",
    [
        found(),
        found(CheckReport(numbers=(("critical", 1), ("major", 0), ("NEW", 0)), tools=(), url=None)),
        missing_suite(LIMITED, requested_at=NOW, reason="it hung"),
    ],
    ids=["one broken", "another broken", "missing"],
)
def test_names_of_cases_are_the_same_whatever_check_says(suite):
    assert (names(suite, "report"), names(suite, "limits")) == (["answered"], LIMIT_NAMES)
    assert tree(suite).get("name") == "codearts-check"


def test_every_number_is_a_property_and_so_is_what_to_make_of_them():
    told = properties(found())
    assert {key: told[key] for key, _ in REPORT.numbers} == {
        "COMFIRM": "0",
        "critical": "0",
        "major": "4",
        "NEW": "122",
    }
    assert (told["task_id"], told["commit"]) == ("task", "may describe an earlier commit")
    assert told["requested_at"] == "2084-01-29T16:00:00.000000Z"
    assert told["REPORT_URL"] == URL


def test_an_execution_record_is_named_where_one_is_set():
    told = properties(found(rules=replace(LIMITED, task_id="", job_id="record")))
    assert told["job_id"] == "record"
    assert "task_id" not in told


def test_a_report_that_did_not_come_is_one_error_and_breaks_no_limit():
    suite = missing_suite(LIMITED, requested_at=NOW, reason="it hung")
    (error,) = tree(suite).iter("error")
    assert error.get("message") == "CodeArts Check gave no report in time: it hung"
    assert len(list(tree(suite).iter("skipped"))) == len(LIMITS)
    assert properties(suite)["task_id"] == "task"


texts = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=20)
reports = st.builds(
    lambda numbers, tools, url: CheckReport(numbers=tuple(numbers.items()), tools=tuple(tools), url=url),
    st.dictionaries(st.sampled_from(["critical", "major", "NEW", "x"]) | texts, st.integers(0, 2**53), max_size=6),
    st.lists(texts, max_size=3),
    st.none() | texts,
)


@given(reports)
def test_validation_counts_what_the_suite_states_of_any_check(report):
    verdict = validate_bytes(found(report).body)
    assert isinstance(verdict, Valid)
    assert verdict.counts == found(report).counts
    assert not [note for note in verdict.notes if "totals" in note]


def test_validation_counts_what_is_missing_too():
    suite = missing_suite(LIMITED, requested_at=NOW, reason='5 < 6 & "so"')
    assert validate_bytes(suite.body).counts == suite.counts
