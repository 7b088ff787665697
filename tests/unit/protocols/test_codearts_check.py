import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.code_check.models import CodeCheckRules
from bridge.domain.outcomes import (
    CheckReportFetched,
    CheckReportPending,
    CredentialsRejected,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from bridge.protocols.codearts_check import read_refresh, refresh_target
from bridge.protocols.http_response import HttpResponse

EXAMPLE = (Path(__file__).parents[2] / "samples" / "codearts-check" / "answer.json").read_bytes()
RULES = CodeCheckRules(task_id="task", job_id="", limits=(), wait_us=1, omit_missing=False)
GOOD = {"status": "success", "httpStatus": "OK", "result": {"major": 4}}


def read(body, *, status=200, in_background=False):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_refresh(HttpResponse(status=status, headers={}, body=data, received_at=0), in_background=in_background)


@pytest.mark.parametrize(
    ("rules", "target"),
    [
        (RULES, "/v1/jobs/task/result/refresh?task_id=task&async=false"),
        (replace(RULES, job_id="record"), "/v1/jobs/record/result/refresh?task_id=task&async=false"),
        (replace(RULES, task_id="", job_id="record"), "/v1/jobs/record/result/refresh?task_id=&async=false"),
        (replace(RULES, task_id="a/b&c"), "/v1/jobs/a%2Fb%26c/result/refresh?task_id=a%2Fb%26c&async=false"),
    ],
)
def test_the_record_stands_in_the_path_and_the_task_where_there_is_none(rules, target):
    assert refresh_target(rules, in_background=False) == target
    assert refresh_target(rules, in_background=True) == target.replace("async=false", "async=true")


def test_the_example_of_the_reference_is_read_with_its_keys_as_they_are():
    outcome = read(EXAMPLE)
    assert isinstance(outcome, CheckReportFetched)
    numbers = dict(outcome.report.numbers)
    assert {key: numbers[key] for key in ("COMFIRM", "CRITICAL", "critical", "major", "NEW")} == {
        "COMFIRM": 0,
        "CRITICAL": 4,
        "critical": 0,
        "major": 4,
        "NEW": 122,
    }
    assert len(numbers) == 26
    assert outcome.report.tools == ("fixbotengine-cxx", "clangtidy", "codemars")
    assert outcome.report.url == json.loads(EXAMPLE)["result"]["REPORT_URL"]


@pytest.mark.parametrize("status_word", ["success", "SUCCESS", None, ""])
def test_numbers_make_a_report_whatever_it_calls_itself(status_word):
    assert isinstance(read({**GOOD, "status": status_word}), CheckReportFetched)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        *(("7", 7), ("7.0", 7), ('"7"', 7), ('" 7"', 7), ('"7\\n"', 7), ('"7.0"', 7), ('"7.00"', 7), ('"007"', 7)),
        *(("12.0", 12), ("1e3", 1000), ("1E+3", 1000), ('"1,234"', 1234), ('"12,345,678"', 12_345_678)),
        *(("0", 0), ("-0", 0), ("0.0", 0), ("-0.0", 0), ('"0"', 0), (str(2**53), 2**53)),
    ],
)
def test_a_count_is_read_however_it_is_written(written, number):
    report = read(f'{{"result": {{"critical": {written}, "FATAL": 0}}}}'.encode()).report
    assert dict(report.numbers) == {"critical": number, "FATAL": 0}
    assert report.unreadable == ()


@pytest.mark.parametrize(
    "written",
    [
        *("-1", "1.5", "true", "false", "null", "NaN", "Infinity", "1e20", "1e400", "1" + "0" * 20, str(2**53 + 1)),
        *("[12]", "{}", "[]", '{"count": 12}', '""', '" "', '"x"', '"１"', '"-1"', '"+1"', '"1e3"', '"1.5"', '"NaN"'),
        *('"1.000"', '"1.234"', '"1,2"', '"1,23,456"', '"1234,567"', '",123"', '"1 234"', '"12 issues"', '"1_000"'),
        '"' + "9" * 40 + '"',
    ],
)
def test_what_may_be_no_count_is_said_to_be_unreadable_and_is_no_number(written):
    report = read(f'{{"result": {{"critical": {written}, "FATAL": 0, "note": {written}}}}}'.encode()).report
    assert dict(report.numbers) == {"FATAL": 0}
    assert report.unreadable == ("critical",)


def test_counters_that_a_limit_may_need_are_never_cut_off():
    result = {f"key{number}": number for number in range(1_000)} | {"critical": 3, "FATAL": 0, "major": "x"}
    report = read({"result": result}).report
    assert len(report.numbers) == 64
    assert dict(report.numbers)["critical"] == 3
    assert report.unreadable == ("major",)


@pytest.mark.parametrize("critical", [12, None, "x"])
def test_a_key_that_only_looks_like_a_counter_takes_no_place_of_it(critical):
    report = read({"result": {" critical": 0, "critical": critical, "critical ": 0, "other ": 1}}).report
    assert dict(report.numbers) == ({"critical": 12} if critical == 12 else {}) | {"other": 1}
    assert report.unreadable == (() if critical == 12 else ("critical",))


@pytest.mark.parametrize("value", [None, "x", -1])
def test_a_report_without_any_count_is_none_yet(value):
    assert isinstance(read({"result": {"critical": value, "FATAL": value}}), OutcomeUnknown)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"error_code": "CC.00000003", "error_msg": "Authentication information expired."}, 401, CredentialsRejected),
        ({"error_code": "CC.00000003", "error_msg": "Authentication information expired."}, 200, CredentialsRejected),
        ({"error_code": "CC.00070400.400", "error_msg": "Verify request parameter failed."}, 400, Rejected),
        ({"error_code": "CC.00070400.400", "error_msg": "Verify request parameter failed."}, 200, Rejected),
        ({"error": {"code": "CC.1", "message": "no"}, "status": "error"}, 200, Rejected),
        ({"status": "failed", "httpStatus": "OK", "result": {"major": 4}}, 200, OutcomeUnknown),
        ({"status": "failed", "error_msg": "no"}, 200, Rejected),
        ({"error_code": "CC.00031006", "error_msg": "no such record"}, 404, Rejected),
        ({"error_code": "APIGW.0308", "error_msg": "slow"}, 429, Throttled),
        ({"status": "success"}, 200, OutcomeUnknown),
        ({"status": "success", "result": {}}, 200, OutcomeUnknown),
        ({"status": "success", "result": {"TOOL_LIST": ["a"]}}, 200, OutcomeUnknown),
        ({"status": "success", "result": [GOOD["result"]]}, 200, OutcomeUnknown),
        (b"", 200, OutcomeUnknown),
        (b"<html>", 200, OutcomeUnknown),
        (b"[]", 200, OutcomeUnknown),
        (b"", 503, OutcomeUnknown),
    ],
)
def test_an_error_is_an_error_wherever_it_stands(body, status, kind):
    outcome = read(body, status=status)
    assert type(outcome) is kind
    assert getattr(outcome, "status", status) == status


def test_an_answer_with_nothing_inside_says_so():
    assert read(b" ").message == "CodeArts Check answered HTTP 200 with nothing."
    assert read(b"{}").message == "CodeArts Check answered HTTP 200 with an answer that holds no report."


@pytest.mark.parametrize("body", [b"", {"status": "success"}, GOOD])
def test_in_the_background_no_report_is_looked_for(body):
    assert read(body, in_background=True) == CheckReportPending()


def test_in_the_background_an_error_is_one_too():
    assert isinstance(read({"status": "failed", "error_msg": "no"}, in_background=True), Rejected)


def test_a_hostile_answer_is_bounded():
    result = {f"key{number}": number for number in range(1_000)}
    result |= {"TOOL_LIST": ["x" * 999, 7, None, *map(str, range(999))], "REPORT_URL": "u" * 9_999, "k" * 99: 1}
    report = read({"result": result}).report
    assert (len(report.numbers), report.url) == (64, None)
    assert len(report.tools) <= 64


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({"result": st.dictionaries(st.text(), json_values), "status": json_values}))
def test_nothing_that_is_json_raises(body):
    read(body)
