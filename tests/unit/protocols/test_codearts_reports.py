import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.lifecycle.mirror import MirrorRejected, MirrorUploaded, ReportStage, ReportStages, TestTotals
from bridge.domain.outcomes import CredentialsRejected, NoSuchBuild, OutcomeUnknown, Rejected, Throttled
from bridge.protocols.codearts_reports import MAX_STAGES, read_full_stages, read_summary, read_upload
from bridge.protocols.http_response import HttpResponse

SUCCESS = '{"status": "success"}'
OWN_ERROR = '{"error_code": "CB.00060200", "error_msg": "Invalid parameter: files."}'
HTML = "<html><body><h1>Bad Request</h1></body></html>"


def answered(status: int, body: str) -> HttpResponse:
    return HttpResponse(status=status, headers={}, body=body.encode(), received_at=0)


def told(counts: str) -> HttpResponse:
    body = f'{{"status": "success", "result": {{"summary": {counts}}}}}'.encode()
    return HttpResponse(status=200, headers={}, body=body, received_at=0)


def test_a_summary_counts_all_reports_of_a_build():
    counts = '{"total": 4, "failures": 1, "errors": "2", "others": 0}'
    assert read_summary(told(counts)) == TestTotals(total=4, failures=1, errors=2, others=0)


def test_without_any_report_all_is_nought():
    assert read_summary(told("null")) == TestTotals()


@pytest.mark.parametrize("total", ["null", '"many"', "1e400", "[4]", '"' + "9" * 5000 + '"'])
def test_totals_that_are_no_numbers_are_not_understood(total):
    assert isinstance(
        read_summary(told(f'{{"total": {total}, "failures": 0, "errors": 0, "others": 0}}')), OutcomeUnknown
    )


@pytest.mark.parametrize("counts", ["{}", "4", '"all"', '{"total": 4}'])
def test_a_summary_without_its_totals_is_not_understood(counts):
    assert isinstance(read_summary(told(counts)), OutcomeUnknown)


# -- the upload ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        SUCCESS,
        '{"status": "success", "error": null, "result": null}',
        '{"status": "success", "error": {}, "result": "1 report"}',
        '{"status": "success", "error_code": "", "error_msg": "", "error": {"code": "", "message": ""}}',
        '{"status": "Success"}',
        ' {"result": "x", "status": "success"}\n',
    ],
)
def test_an_upload_is_taken_if_the_status_in_the_body_is_success(body):
    assert read_upload(answered(200, body)) == MirrorUploaded()


@pytest.mark.parametrize(
    "body",
    [
        *("", " ", "{}", "[]", "null", "true", '"success"', "success", "OK", HTML, '{"status": "success"', "\ufeff{}"),
        *('{"success": true}', '{"success": false}', '{"result": "success"}', '{"Status": "success"}'),
        *('{"status": null}', '{"status": true}', '{"status": 200}', '{"status": ["success"]}', '{"status": ""}'),
        *('{"status": "fail"}', '{"status": "failed"}', '{"status": "error"}', '{"status": "ok"}'),
        *('{"status": "unsuccessful"}', '{"status": "success!"}', '{"status": "partial success"}'),
        *('{"code": 0, "msg": "ok"}', '{"code": 40001, "msg": "disk full"}', '{"result": null, "error": null}'),
        '{"status": null, "error": null, "result": "1 report"}',
        '{"error": {"code": "CB.00060200", "message": "no"}, "result": "x"}',
        '{"status": "success", "error": {"code": "CB.00060200", "message": "no"}, "result": "x"}',
        '{"status": "success", "error": "disk full"}',
        '{"status": "success", "error_code": "CB.00060200"}',
        '[{"status": "success"}]',
        '{"data": {"status": "success"}}',
    ],
)
def test_anything_else_with_http_200_is_tried_again(body):
    outcome = read_upload(answered(200, body))
    assert isinstance(outcome, Rejected | OutcomeUnknown)
    assert outcome.message


@pytest.mark.parametrize("status", [201, 202, 203, 204, 206, 301, 302, 304, 307, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [SUCCESS, "", HTML, OWN_ERROR])
def test_a_status_other_than_200_is_tried_again_whatever_the_body_is(status, body):
    assert isinstance(read_upload(answered(status, body)), OutcomeUnknown)


@given(
    st.dictionaries(st.sampled_from(["status", "success", "code", "msg", "error", "result"]), st.booleans() | st.none())
)
def test_no_object_without_the_word_is_taken(value):
    assert read_upload(answered(200, json.dumps(value))) != MirrorUploaded()


@pytest.mark.parametrize("status", [400, 413, 415, 422])
@pytest.mark.parametrize(
    "body",
    [
        OWN_ERROR,
        '{"error": {"code": "DEVCB.00060200", "reason": "Invalid parameter."}, "status": "error"}',
        json.dumps(OWN_ERROR),
    ],
)
def test_a_rejection_with_a_code_of_codearts_is_final(status, body):
    assert isinstance(read_upload(answered(status, body)), MirrorRejected)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
@pytest.mark.parametrize(
    "body",
    [
        *("", HTML, "Bad Request", "{}", "[]", "null", '"no"', '{"message": "Request size limit exceeded"}'),
        *('{"error": "bad request"}', '{"error": {"code": 400, "message": "no"}}', '{"code": "400", "msg": "no"}'),
        *('{"error_code": 400}', '{"error_code": ""}', '{"error_code": "400"}', '{"error_msg": "too large"}'),
        '{"error": {"code": "BadRequest", "message": "no"}}',
        '{"error_code": "APIGW.0201", "error_msg": "Request entity too large."}',
    ],
)
def test_a_page_of_a_proxy_in_front_is_no_rejection(status, body):
    assert isinstance(read_upload(answered(status, body)), Rejected)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, HTML, CredentialsRejected),
        (429, HTML, Throttled),
        (403, OWN_ERROR, Rejected),
        (404, HTML, Rejected),
        (404, OWN_ERROR, NoSuchBuild),
        (422, '{"error_code": "DEVCB.00031006", "error_msg": "no such build"}', NoSuchBuild),
    ],
)
def test_other_failures_mean_what_they_mean_of_every_call(status, body, kind):
    assert isinstance(read_upload(answered(status, body)), kind)


# -- full-stages -----------------------------------------------------------------------------------------------------


def test_stages_come_by_name_and_most_have_no_node():
    stages = {"initial": {"node_id": None}, "stage1": {"node_id": 81, "status": "RUNNING", "sequence": 2}, "final": {}}
    body = json.dumps({"status": "success", "result": {"build_stages": stages}})
    assert read_full_stages(answered(200, body)) == ReportStages(
        stages=(ReportStage(node_id="81", running=True, sequence=2),)
    )


def test_so_many_stages_are_read_and_no_more():
    stages = [{"node_id": number} for number in range(MAX_STAGES + 5)]
    read = read_full_stages(answered(200, json.dumps({"result": {"build_stages": stages}})))
    assert isinstance(read, ReportStages)
    assert len(read.stages) == MAX_STAGES
