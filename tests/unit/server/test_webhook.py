import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.server.webhook import MAX_DEPTH, WebhookHandler, find_build_key, read_notice

JOB = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32
MULTIPART = (
    f'--b\r\nContent-Disposition: form-data; name="jobId"\r\n\r\n{JOB}\r\n'
    '--b\r\nContent-Disposition: form-data; name="buildNo"\r\n\r\n7\r\n--b--\r\n'
)


def nested(value, depth):
    for _ in range(depth):
        value = {"data": value}
    return value


@pytest.mark.parametrize("name", ["job_id", "jobId", "JobID", "jobid", "job-id"])
@pytest.mark.parametrize("number", ["build_no", "buildNo", "buildNumber", "build_number", "BUILD_NO", "buildnum"])
def test_a_build_is_found_by_the_names_met_in_the_wild(name, number):
    assert find_build_key({name: JOB, number: 7}) == (JOB, 7)


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"data": {"job_id": JOB, "build_no": "7"}}, (JOB, 7)),
        ({"job": {"id": JOB}, "build": {"number": 7}}, (JOB, 7)),
        ([{"event": "build"}, {"job_id": JOB}], (JOB, None)),
        ({"job_id": JOB, "data": {"job_id": OTHER, "build_no": 8}}, (JOB, 8)),
        ({"id": JOB}, (None, None)),
        ({"job_id": "short", "data": {"job_id": JOB}}, (JOB, None)),
        ({"job_id": JOB, "build_no": "20240626.1"}, (JOB, None)),
        ({"job_id": JOB, "build_no": True}, (JOB, None)),
        ({"job_id": JOB, "build_no": 0}, (JOB, None)),
        ({"job_id": JOB, "build_no": 2**31}, (JOB, None)),
        ({"job_id": JOB, "build_no": 1.5}, (JOB, None)),
        ({"job_id": JOB, "build_no": "1" * 5000}, (JOB, None)),
        ({"job_id": JOB + "\n", "build_no": " 7 "}, (JOB, 7)),
        ({"job_id": {"job_id": JOB}}, (JOB, None)),
        (nested({"job_id": JOB}, MAX_DEPTH - 1), (JOB, None)),
        (nested({"job_id": JOB}, MAX_DEPTH), (None, None)),
        (None, (None, None)),
        ("text", (None, None)),
    ],
)
def test_a_build_is_found_wherever_it_stands_and_nothing_else_is_taken_for_one(told, named):
    assert find_build_key(told) == named


def test_the_query_goes_before_the_body_and_each_may_say_one_half():
    assert find_build_key({"job_id": JOB}, {"job_id": OTHER, "build_no": 7}) == (JOB, 7)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps({"job_id": JOB, "build_no": 7}), "application/json"),
        (json.dumps({"job_id": JOB, "build_no": 7}), ""),
        (json.dumps({"job_id": JOB, "build_no": 7}), "application/x-www-form-urlencoded"),
        (urlencode({"job_id": JOB, "build_no": 7}), "application/x-www-form-urlencoded"),
        (urlencode({"payload": json.dumps({"job_id": JOB, "build_no": 7})}), "application/x-www-form-urlencoded"),
        (MULTIPART, "multipart/form-data; boundary=b"),
    ],
)
def test_json_and_forms_are_read(body, content_type):
    assert find_build_key(read_notice(body.encode(), content_type)) == (JOB, 7)


@given(body=st.binary(max_size=200), content_type=st.sampled_from(
    ["", "text/plain", "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b",
     "application/x-www-form-urlencoded; charset=utf-7", "multipart/form-data; boundary=b; charset=none"]))  # fmt: skip
def test_whatever_else_comes_names_nothing_and_breaks_nothing(body, content_type):
    assert find_build_key(read_notice(body, content_type)) == (None, None)


def test_a_body_as_deep_as_it_is_long_is_no_trouble():
    assert find_build_key(read_notice(b"[" * 60_000 + b"]" * 60_000, "application/json")) == (None, None)
    assert find_build_key(read_notice(b"[" * 500 + b"]" * 500, "application/json")) == (None, None)


def test_no_secret_is_none_even_if_an_empty_one_is_configured():
    handler = WebhookHandler(["", "canary-hook"], request_poll=None)
    assert not handler._is_secret("")
    assert handler._is_secret("canary-hook")
