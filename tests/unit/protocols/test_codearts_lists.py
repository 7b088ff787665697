"""Lists of builds and jobs, and details of records: responses as in Huawei's API definitions, and worse ones."""

import json
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.instants import DAY, HOUR, Instant
from bridge.domain.outcomes import (
    BuildsListed,
    CredentialsRejected,
    DetailsFetched,
    JobsListed,
    NoSuchBuild,
    OutcomeUnknown,
    RecordDetails,
    Rejected,
    Throttled,
)
from bridge.protocols.codearts_lists import (
    job_list_target,
    read_job_list,
    read_record_details,
    read_record_list,
    record_details_path,
    record_list_target,
)
from bridge.protocols.http_response import HttpResponse

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
READERS = [read_record_list, read_job_list, read_record_details]
NOON = Instant(int(datetime(2026, 7, 10, 12, tzinfo=UTC).timestamp()) * 1_000_000)
BUILD = {
    "build_time": 3525000,
    "code_branch": "master",
    "commit_id": "ffe2ee8b44a0b2683df86b44f8ec27d71baeae86",
    "job_running_status": "Finished",
    "number": 44,
    "scm_web_url": "https://test.huawei.com/codehub/2111750206/home",
    "start_time": 1703554641000,
    "state": "SUCCESS",
}
JOB_ENTRY = {
    "id": JOB,
    "is_finished": True,
    "job_name": "demo",
    "last_build_status": "blue",
    "scm_web_url": "https://test.huawei.com/codehub/2111750206/home",
}


def answer(status, body=b"", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status=status, headers=headers, body=data, received_at=0)


def builds(*entries, **result):
    listed = {"job_build_states": list(entries), "page_index": "0", "total_page": "3", "total_record": "44", **result}
    return read_record_list(answer(200, {"error": None, "result": listed, "status": "success"}))


def jobs(*entries, **body):
    return read_job_list(answer(200, {"jobs": list(entries), "total": 1, **body}))


def details(**result):
    return read_record_details(answer(200, {"error": None, "result": result, "status": "success"}))


def test_a_listed_build_has_number_state_and_commit():
    listed = builds(BUILD)
    assert listed.pages == 3
    (build,) = listed.builds
    assert (build.build_no, build.finished, build.result) == (44, True, "SUCCESS")
    assert (build.branch, build.commit) == ("master", BUILD["commit_id"])
    assert build.repo_url == BUILD["scm_web_url"]
    assert (build.started_at, build.duration) == (1703554641000_000, 3525000_000)


@pytest.mark.parametrize("status", ["Running", "", None, "Queued", 1, True, "Unfinished"])
def test_a_listed_build_has_ended_only_if_it_is_called_finished(status):
    (build,) = builds({**BUILD, "job_running_status": status}).builds
    assert build.finished is False


@pytest.mark.parametrize("number", [None, "x", True, 1.5, -1, [], "9" * 30, 10**40])
def test_a_listed_build_without_a_number_is_left_out(number):
    assert [build.build_no for build in builds({**BUILD, "number": number}, "text", None, BUILD).builds] == [44]


def test_numbers_may_be_strings():
    (build,) = builds({**BUILD, "number": "44", "start_time": "1703554641000"}).builds
    assert (build.build_no, build.started_at) == (44, 1703554641000_000)


def test_a_list_without_builds_is_empty():
    assert builds(total_page="0") == BuildsListed(builds=(), pages=0)


def test_a_listed_job_has_its_name_and_whether_it_is_finished():
    listed = jobs(JOB_ENTRY, {**JOB_ENTRY, "is_finished": None}, {**JOB_ENTRY, "id": None}, "text")
    assert listed.total == 1
    assert [(job.job_id, job.job_name, job.finished) for job in listed.jobs] == [
        (JOB, "demo", True),
        (JOB, "demo", None),
    ]


@pytest.mark.parametrize(
    ("time", "started_at"),
    [
        (1608004535000, 1608004535000_000),  # as in Huawei's example
        (1608004535000.0, 1608004535000_000),  # its definition calls it a number
        ("1608004535000", 1608004535000_000),
        (0, None),  # it never ran
        (None, None),
        (1.5, None),
        (float("inf"), None),
        ("soon", None),
        (-1, None),
    ],
)
def test_a_listed_job_has_the_start_of_its_latest_build(time, started_at):
    (job,) = jobs({**JOB_ENTRY, "last_build_time": time, "disabled": True}).jobs
    assert (job.last_started_at, job.disabled) == (started_at, True)


def test_details_have_commit_branch_job_name_and_repository():
    outcome = details(
        build_no="6463",
        branch="master",
        revision="e980b883",
        display_name="APITest-maven",
        scm_web_url="https://devcloud.example.com/codehub/2111859403/home",
        parameters=[{"name": "password", "value": "secret", "secret": True}],
    )
    assert outcome == DetailsFetched(
        details=RecordDetails(
            build_no=6463,
            job_name="APITest-maven",
            branch="master",
            commit="e980b883",
            repo_url="https://devcloud.example.com/codehub/2111859403/home",
        )
    )
    assert "secret" not in repr(outcome)


def test_a_revision_that_is_empty_is_none():
    assert details(build_no="1", revision="").details.commit is None


@pytest.mark.parametrize(
    "url",
    [
        "https://user:password@host/repo",
        "javascript:alert(1)",
        "ftp://host/",
        "//host",
        "https://",
        "https://[::1",
        "x" * 600,
        7,
        None,
    ],
)
def test_what_is_no_address_for_a_browser_is_no_repo_url(url):
    assert details(build_no="1", scm_web_url=url).details.repo_url is None


@pytest.mark.parametrize("read", READERS)
def test_failures_are_those_of_every_call(read):
    assert isinstance(read(answer(429, {"error_code": "APIGW.0308", "error_msg": "limit"})), Throttled)
    assert isinstance(read(answer(500, {"error_code": "CB.00060211", "error_msg": "busy"})), Throttled)
    assert isinstance(read(answer(401, {"error_code": "APIGW.0301", "error_msg": "no"})), CredentialsRejected)
    assert isinstance(read(answer(403, {"error_code": "CB.00060403", "error_msg": "no right"})), Rejected)
    assert isinstance(read(answer(422, {"error_code": "DEVCB.00031006", "error_msg": "none"})), NoSuchBuild)
    assert isinstance(read(answer(502, b"<html>")), OutcomeUnknown)
    assert isinstance(read(answer(200, {"error_code": "CB.1", "error_msg": "no"})), Rejected)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "body", [b"", b"{", {}, [], {"result": {}}, {"result": []}, {"result": {"job_build_states": {}}}, {"jobs": {}}]
)
def test_a_200_without_its_list_is_unknown(read, body):
    assert isinstance(read(answer(200, body)), OutcomeUnknown)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["result", "jobs", "job_build_states", "number", "id", "status"]), inner)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("read", READERS)
@given(body=json_values)
def test_any_json_is_read(read, body):
    outcome = read(answer(200, json.dumps(body).encode()))
    assert isinstance(outcome, BuildsListed | JobsListed | DetailsFetched | Rejected | OutcomeUnknown | NoSuchBuild)


def test_paths_are_those_of_the_definitions():
    assert job_list_target("p", page=2) == "/v1/job/p/list?page_index=2&page_size=100"
    assert record_details_path("a/b") == "/v1/record/a%2Fb/info"


def window(since, until):
    target = urlsplit(record_list_target(JOB, Instant(since), Instant(until), page=0))
    assert target.path == f"/v1/record/{JOB}/list"
    assert "+" not in target.query  # a signature covers %20
    query = parse_qs(target.query)
    return [
        datetime.strptime(query[name][0], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        for name in ("start_time", "end_time")
    ]


@pytest.mark.parametrize("utc_offset_hours", range(-12, 15))
def test_a_window_covers_its_instants_in_every_time_zone(utc_offset_hours):
    since, until = NOON - 3 * HOUR, NOON
    first, last = (int(at.timestamp()) * 1_000_000 - utc_offset_hours * HOUR for at in window(since, until))
    assert first <= since
    assert last >= until


def test_a_window_has_at_most_31_days_and_keeps_the_latest():
    first, last = window(NOON - 90 * DAY, NOON)
    assert (last - first).days == 31
    assert last.timestamp() * 1_000_000 == NOON + DAY
