import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.build import BuildRecord
from bridge.domain.outcomes import (
    BuildInfo,
    CredentialsRejected,
    NoSuchBuild,
    OutcomeUnknown,
    RecordFetched,
    Rejected,
    Throttled,
)
from bridge.protocols.codearts_build import (
    build_info_path,
    credentials_rejected,
    is_no_such_api,
    read_build_info,
    read_record_info,
    record_info_path,
    record_info_v4_path,
)
from bridge.protocols.http_response import HttpResponse

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
READERS = [read_build_info, read_record_info]
RECORD = {
    "build_record_id": "9d6169b9",
    "devcloud_project_id": "b4d3971c",
    "build_no": 532,
    "daily_build_num": "20221011.29",
    "repo_name": "maven",
    "branch": "buildflow_env",
    "tag": None,
    "commit": None,
    "trigger_type": "MANUAL",
    "status": "SUCCESS",
    "region": "xx-xxxx-xx",
}


def answer(status, body=b"", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status=status, headers=headers, body=data, received_at=0)


def success(result):
    return answer(200, {"result": result, "error": None, "status": "success"})


def shapes(code, message="Words."):
    """Every shape in which CodeArts was seen to name an error."""
    return [
        {"error_code": code, "error_msg": message},
        {"error_code": code, "error_msg": message, "request_id": "1"},
        {"error": {"code": code, "message": message}, "status": "error"},
        {"error": {"code": code, "reason": message}, "status": "fail", "result": None},
        json.dumps({"error_code": code, "error_msg": message}),
    ]


def test_paths_are_the_references():
    assert build_info_path(JOB, 61) == f"/v1/job/{JOB}/61/build-info"
    assert record_info_path(JOB, 61) == f"/v1/record/{JOB}/61/record-info"
    assert record_info_v4_path(JOB, 61) == f"/v4/jobs/{JOB}/61/record-info"
    assert build_info_path("../x", 1) == "/v1/job/..%2Fx/1/build-info"


@pytest.mark.parametrize("wrap", [lambda entry: entry, lambda entry: [entry]])
@pytest.mark.parametrize(
    ("entry", "info"),
    [
        ({"building": False, "build_result": "FAILURE", "region": "r"}, (False, "FAILURE", "r")),
        ({"building": False, "build_result": "timeout"}, (False, "timeout", None)),
        ({"building": True, "build_result": None}, (True, None, None)),
        ({"building": True, "build_result": ""}, (True, None, None)),
        ({"building": "false", "build_result": 5}, (False, "5", None)),
        ({"building": "True"}, (True, None, None)),
    ],
)
def test_build_info_is_read_from_an_object_and_from_an_array(wrap, entry, info):
    building, result, region = info
    assert read_build_info(success(wrap(entry))) == BuildInfo(building=building, result=result, region=region)


def test_of_several_entries_whichever_still_runs_decides():
    assert read_build_info(success([{"building": False}, {"building": True}])).building is True


@pytest.mark.parametrize(
    "result", [None, [], {}, "x", 5, [None], [[]], {"building": None}, {"building": "?"}, [{"building": False}, {}]]
)
def test_build_info_that_does_not_say_whether_the_build_runs_is_unknown(result):
    assert isinstance(read_build_info(success(result)), OutcomeUnknown)


@pytest.mark.parametrize("wrap", [lambda record: record, lambda record: [record]])
def test_record_info_is_read(wrap):
    assert read_record_info(success(wrap(RECORD))) == RecordFetched(
        record=BuildRecord(
            devcloud_project_id="b4d3971c",
            repo_name="maven",
            branch="buildflow_env",
            tag=None,
            commit=None,
            daily_build_num="20221011.29",
            trigger_type="MANUAL",
            region="xx-xxxx-xx",
            build_record_id="9d6169b9",
        )
    )


def test_a_record_may_be_without_anything_but_must_be_there():
    assert read_record_info(success({"status": "SUCCESS"})) == RecordFetched(record=BuildRecord())
    for nothing in (None, [], {}, "x", [None]):
        assert isinstance(read_record_info(success(nothing)), OutcomeUnknown)


def test_unprintable_text_of_a_record_is_escaped():
    assert read_record_info(success({"branch": "a\x00\ud800"})).record.branch == r"a\x00\ud800"


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("shape", range(5))
@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (422, "DEVCB.00031006", NoSuchBuild),
        (422, "CB.00031006", NoSuchBuild),
        (200, "DEVCB.00031006", NoSuchBuild),
        (400, "CB.00031006", NoSuchBuild),
        (403, "CB.00031059", NoSuchBuild),
        (404, "CB.00060404", NoSuchBuild),
        (404, "DEVCB.00099999", NoSuchBuild),
        (404, "APIGW.0101", Rejected),
        (404, "weird", Rejected),
        (401, "APIGW.0301", CredentialsRejected),
        (401, "APIGW.0307", CredentialsRejected),
        (401, "CC.00000003", CredentialsRejected),
        (401, "else", CredentialsRejected),
        (403, "APIGW.0301", CredentialsRejected),
        (200, "CC.00000003", CredentialsRejected),
        (429, "APIGW.0308", Throttled),
        (429, "else", Throttled),
        (500, "CB.00060211", Throttled),
        (200, "CB.00060211", Throttled),
        (403, "APIGW.0302", Rejected),
        (400, "CB.00060200", Rejected),
        (422, "CB.00060200", Rejected),
        (200, "CB.00060200", Rejected),
        (500, "CB.00060201", OutcomeUnknown),
        (500, "DEVCB.00031006", OutcomeUnknown),
        (503, "APIGW.0201", OutcomeUnknown),
        (302, "CB.00060200", OutcomeUnknown),
        (204, "CB.00060200", OutcomeUnknown),
    ],
)
def test_each_error_has_its_meaning_in_every_shape(read, shape, status, code, outcome):
    got = read(answer(status, shapes(code)[shape]))
    assert type(got) is outcome
    assert got.message == f"{code}: Words."


@pytest.mark.parametrize(
    ("status", "body", "outcome", "message"),
    [
        (200, '"Too busy"', Rejected, "Too busy"),
        (500, '"Too busy"', OutcomeUnknown, "Too busy"),
        (200, '{"status":"error","error":"gone"}', Rejected, "gone"),
        (200, '{"status":"fail","error":null,"result":null}', OutcomeUnknown, "HTTP 200 without a readable message"),
        (200, '{"status":"fail","result":{"building":false}}', OutcomeUnknown, "HTTP 200 without a readable message"),
        (200, "", OutcomeUnknown, "HTTP 200 without a readable message"),
        (200, "<html>", OutcomeUnknown, "HTTP 200 without a readable message"),
        (404, "<html>", Rejected, "HTTP 404 without a readable message"),
        (404, '{"error_code":"","error_msg":"x"}', Rejected, "x"),
        (401, "", CredentialsRejected, "HTTP 401 without a readable message"),
        (429, "", Throttled, "HTTP 429 without a readable message"),
        (502, "<html>", OutcomeUnknown, "HTTP 502 without a readable message"),
        (301, "", OutcomeUnknown, "HTTP 301 without a readable message"),
        (
            201,
            '{"status":"success","result":{"building":false}}',
            OutcomeUnknown,
            "HTTP 201 without a readable message",
        ),
    ],
)
@pytest.mark.parametrize("read", READERS)
def test_errors_without_a_code_go_by_their_status(read, status, body, outcome, message):
    got = read(answer(status, body.encode()))
    assert type(got) is outcome
    assert got.message == message


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("status", [400, 429, 503])
def test_retry_after_is_handed_on(read, status):
    assert read(answer(status, b"", **{"retry-after": "9"})).retry_after_seconds == 9.0


def test_only_the_gateways_own_404_means_that_there_is_no_such_api():
    assert is_no_such_api(answer(404, {"error_code": "APIGW.0101", "error_msg": "The API does not exist"}))
    assert not is_no_such_api(answer(404, {"error_code": "CB.00031006"}))
    assert not is_no_such_api(answer(400, {"error_code": "APIGW.0101"}))
    assert not is_no_such_api(answer(404, b"<html>"))


@given(st.sampled_from(READERS), st.integers(0, 999), st.binary())
def test_any_status_and_bytes_come_to_an_outcome(read, status, body):
    assert read(answer(status, body)) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda value: st.lists(value) | st.dictionaries(st.text() | st.sampled_from(["building", "code", "branch"]), value),
)
FIELDS = st.sampled_from(["result", "error", "status", "error_code", "error_msg"])


@given(st.sampled_from(READERS), st.sampled_from([200, 404, 422, 500]), st.dictionaries(FIELDS, JSON) | JSON)
def test_any_json_comes_to_an_outcome(read, status, value):
    got = read(answer(status, value))
    assert isinstance(
        got, BuildInfo | RecordFetched | NoSuchBuild | CredentialsRejected | Throttled | Rejected | OutcomeUnknown
    )


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (200, {"status": "success", "result": {"building": True}}, False),
        (401, {"error_code": "APIGW.0301", "error_msg": "decrypt token fail"}, True),
        (401, None, True),
        (403, {"error_code": "APIGW.0307", "error_msg": "The token must be updated."}, True),
        (200, {"error": {"code": "CC.00000003", "message": "expired"}, "status": "error"}, True),
        (403, {"error_code": "APIGW.0302", "error_msg": "no permission"}, False),
        (422, {"error_code": "DEVCB.00031006", "error_msg": "no such build"}, False),
        (404, {"error_code": "APIGW.0101", "error_msg": "no such api"}, False),
    ],
)
def test_rejected_credentials_are_told_from_every_other_response(status, body, refused):
    answer = HttpResponse(status=status, headers={}, body=json.dumps(body).encode(), received_at=0)
    assert bool(credentials_rejected(answer)) is refused
