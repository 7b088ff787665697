import json
from base64 import b64encode
from dataclasses import replace
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.build import RunParameters
from bridge.domain.outcomes import (
    Conflict,
    FailureRecorded,
    OutcomeUnknown,
    ProjectMissing,
    Registered,
    Rejected,
    RunEmpty,
    RunMissing,
    RunStatus,
    UnrecognizedResponse,
)
from bridge.protocols.http_response import HttpResponse
from bridge.protocols.testnod import (
    finalize_form,
    multipart,
    read_finalize,
    read_register,
    read_upload_failed,
    register_form,
    upload_failed_form,
    urlencoded,
)

SECOND = 1_000_000
NOON = 1_700_000_000 * SECOND
URL = (
    "https://bucket.s3.amazonaws.com/key?X-Amz-Date=20200101T000000Z&X-Amz-Expires=300&X-Amz-Signature=abcdef0123456789"
)
REGISTERED = {
    "id": 12345,
    "project_id": "b7e2c1a0",
    "test_run_id": 42,
    "upload_id": 1,
    "test_run_url": "https://app.testnod.com/projects/b7e2c1a0/test_runs/42",
    "presigned_url": URL,
}
READERS = [read_register, read_finalize, read_upload_failed]


def answer(status, body=b"", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status=status, headers=headers, body=data, received_at=NOON)


def said(status, message):
    return answer(status, {"error_message": message})


def run_parameters(**changes):
    values = {"route": "shop", "build_id": "b-7", "tags": ("smoke", "linux"), "run_url": "https://ci/7"}
    return RunParameters(**{**values, "branch": "main", "commit": "c0ffee", "chosen_at": NOON, **changes})


def test_a_register_form_has_the_references_fields():
    assert register_form(run_parameters()) == [
        ("test_run[metadata][build_id]", "b-7"),
        ("test_run[metadata][branch]", "main"),
        ("test_run[metadata][commit_sha]", "c0ffee"),
        ("test_run[metadata][run_url]", "https://ci/7"),
        ("tags[][value]", "smoke"),
        ("tags[][value]", "linux"),
    ]


def test_a_register_form_leaves_out_what_says_nothing():
    bare = run_parameters(tags=(), run_url="", branch=None, commit=None)
    assert register_form(bare) == [("test_run[metadata][build_id]", "b-7")]


def test_a_failure_message_is_cut_and_loses_the_presigned_query():
    fields = upload_failed_form(test_run_id="42", upload_id="1", failure_message=f"PUT {URL} " + "x" * 900)
    assert fields[:2] == [("test_run_id", "42"), ("upload_id", "1")]
    assert len(fields[2][1]) == 300
    assert "X-Amz" not in fields[2][1]


@given(st.lists(st.tuples(st.sampled_from(["a", "tags[][value]"]), st.text()), min_size=1))
def test_a_multipart_body_reads_back_as_its_fields(fields):
    content_type, body = multipart(fields)
    boundary = content_type.partition("boundary=")[2].encode()
    parts = body.removesuffix(b"--" + boundary + b"--\r\n").split(b"--" + boundary + b"\r\n")[1:]
    read = [part.removesuffix(b"\r\n").partition(b"\r\n\r\n") for part in parts]
    assert [value.decode() for _, _, value in read] == [value for _, value in fields]
    heads = [f'Content-Disposition: form-data; name="{name}"'.encode() for name, _ in fields]
    assert [head for head, _, _ in read] == heads


def test_a_multipart_body_is_understood_by_another_reader():
    content_type, body = multipart(register_form(run_parameters()))
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    names = [part.get_param("name", header="content-disposition") for part in message.iter_parts()]
    assert names[0] == "test_run[metadata][build_id]"
    assert len(names) == 6


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_form_in_one_line_reads_back_as_its_fields(build_id):
    content_type, body = urlencoded(finalize_form(build_id))
    assert content_type == "application/x-www-form-urlencoded"
    assert parse_qsl(body.decode(), keep_blank_values=True) == [("build_id", build_id)]


def test_a_lone_surrogate_in_a_value_does_not_stop_the_call():
    assert multipart([("a", "\ud800")])[1]
    assert urlencoded([("a", "\ud800")])[1]


def test_a_201_names_the_upload_and_expires_on_our_clock():
    assert read_register(answer(201, REGISTERED)) == Registered(
        test_run_id="42",
        upload_id="1",
        test_run_url=REGISTERED["test_run_url"],
        presigned_url=URL,
        expires_at=NOON + 300 * SECOND,
        project_id="b7e2c1a0",
    )


def test_ids_may_be_strings_and_the_project_field_does_not_matter():
    outcome = read_register(answer(201, {**REGISTERED, "test_run_id": "run-a", "project": 1, "project_id": None}))
    assert outcome.test_run_id == "run-a"


@pytest.mark.parametrize("url", [None, 7, "javascript:alert(1)", "https://a b", "x" * 9000])
def test_a_run_url_that_is_no_link_is_left_out(url):
    assert read_register(answer(201, {**REGISTERED, "test_run_url": url})).test_run_url == ""


RUN_URL, TOKEN = REGISTERED["test_run_url"], "canary-token/of+shop"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (RUN_URL, RUN_URL),
        ("https://app.testnod.com/%E6%B5%8B/42", "https://app.testnod.com/%E6%B5%8B/42"),
        (f"{RUN_URL}?X-Amz-Signature=feed", RUN_URL),
        (f"{RUN_URL}?tab=failed#canary", RUN_URL),
        (f"{RUN_URL}#access_token=canary", RUN_URL),
        (URL, URL.partition("?")[0]),
        ("https://user:pass@app.testnod.com/r/42", "https://app.testnod.com/r/42"),
        (f"{RUN_URL}%3FX-Amz-Signature=feed", ""),
        ("https://app.testnod.com/to/https%3A%2F%2Fs3.example%2Fk%253FX-Amz-Signature%253Dfeed", ""),
        ("https://app.testnod.com/X-Amz-Signature=feed/42", ""),
        (f"https://app.testnod.com/{TOKEN}/42", ""),
        (f"https://app.testnod.com/{quote(TOKEN, safe='')}/42", ""),
        (f"https://app.testnod.com/{b64encode(TOKEN.encode()).decode()}/42", ""),
        ("https://app.testnod.com/abcdef0123456789/42", ""),
    ],
)
def test_a_run_url_shows_neither_queries_nor_secrets(url, shown):
    response = replace(answer(201, {**REGISTERED, "test_run_url": url}), secrets=(TOKEN,))
    outcome = read_register(response)
    assert (outcome.test_run_url, outcome.presigned_url) == (shown, URL)


@pytest.mark.parametrize("name", ["test_run_id", "upload_id", "project_id"])
def test_an_id_that_is_the_project_token_is_none(name):
    response = replace(answer(201, {**REGISTERED, name: f"x{TOKEN}"}), secrets=(TOKEN,))
    outcome = read_register(response)
    assert TOKEN not in str(outcome)
    assert isinstance(outcome, Registered) is (name == "project_id")


@pytest.mark.parametrize(
    "changes",
    [
        {"test_run_id": None},
        {"test_run_id": True},
        {"test_run_id": "x" * 65},
        {"upload_id": ""},
        {"upload_id": {}},
    ],
)
def test_a_201_without_both_ids_is_unknown(changes):
    outcome = read_register(answer(201, {**REGISTERED, **changes}))
    assert isinstance(outcome, OutcomeUnknown)
    assert outcome.status == 201


@pytest.mark.parametrize(
    "url", [None, 7, [], {}, "", "ftp://host/key", "https://host/a\r\nX: y", "https://host/" + "x" * 9000]
)
def test_ids_of_a_201_are_kept_whatever_its_url_is(url):
    outcome = read_register(answer(201, {**REGISTERED, "presigned_url": url}))
    assert (outcome.test_run_id, outcome.upload_id, outcome.presigned_url) == ("42", "1", "")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"ok"', b"null", b"\xff\xfe"])
@pytest.mark.parametrize(("read", "status"), [(read_register, 201), (read_finalize, 200), (read_upload_failed, 200)])
def test_a_success_that_cannot_be_read_is_unknown(read, status, body):
    assert isinstance(read(answer(status, body)), OutcomeUnknown)


@pytest.mark.parametrize(
    ("read", "status", "message", "outcome"),
    [
        (read_register, 404, "Project not found.", ProjectMissing),
        (read_finalize, 404, "Project not found.", ProjectMissing),
        (read_upload_failed, 404, "Project not found.", ProjectMissing),
        (read_register, 409, "Conflicting concurrent upload.", Conflict),
        (read_register, 422, "metadata.build_id is required.", Rejected),
        (read_register, 422, "There was a problem creating this test run.", Rejected),
        (read_register, 404, "Not here", UnrecognizedResponse),
        (read_register, 401, "Who are you?", UnrecognizedResponse),
        (read_finalize, 403, "Not you.", UnrecognizedResponse),
        (read_register, 429, "Slow down", Rejected),
        (read_finalize, 404, "Test run not found for this build_id.", RunMissing),
        (read_finalize, 422, "No uploads received for this test run.", RunEmpty),
        (read_finalize, 422, "build_id is required.", Rejected),
        (read_finalize, 404, "Not here", UnrecognizedResponse),
        (read_finalize, 409, "Conflict", Rejected),
        (read_upload_failed, 404, "Upload not found.", Rejected),
        (read_upload_failed, 422, "No.", Rejected),
    ],
)
def test_each_rejection_has_its_meaning_and_keeps_testnods_words(read, status, message, outcome):
    got = read(said(status, message))
    assert type(got) is outcome
    foreign = (
        f"{message.rstrip('.')}. This is not an answer of TestNod. Check testnod.base_url, and what answers there."
    )
    assert got.message == (foreign if outcome is UnrecognizedResponse else message)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("status", [100, 202, 203, 204, 299, 500, 502, 503, 599, 600, 999])
def test_any_other_status_is_unknown(read, status):
    outcome = read(answer(status, {"test_run_id": 42, "status": "failed"}))
    assert isinstance(outcome, OutcomeUnknown)
    assert outcome.status == status


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("status", [301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 407, 418, 422, 429])
def test_a_redirect_and_a_rejection_without_testnods_words_are_foreign(read, status):
    for body in (
        b"",
        b"<html>Sign in</html>",
        b'{"error":"Not Found"}',
        b'{"error_message":null}',
        b'{"error_message":" "}',
    ):
        outcome = read(answer(status, body))
        assert isinstance(outcome, UnrecognizedResponse)
        assert outcome.status == status


@pytest.mark.parametrize("status", [200, 202, 204])
def test_ids_of_a_success_that_is_not_documented_are_kept_and_nothing_is_put_to_its_url(status):
    outcome = read_register(answer(status, REGISTERED))
    assert (outcome.test_run_id, outcome.upload_id, outcome.presigned_url) == ("42", "1", "")


def test_success_of_one_call_is_not_success_of_another():
    assert isinstance(read_finalize(answer(201, {"status": "processing"})), OutcomeUnknown)


@pytest.mark.parametrize("status", ["pending", "processing", "processed", "failed"])
def test_finalize_answers_the_runs_state(status):
    assert read_finalize(answer(200, {"status": status})) == RunStatus(status=status)


@pytest.mark.parametrize("status", ["failed", "processed"])
def test_upload_failed_answers_the_uploads_state(status):
    assert read_upload_failed(answer(200, {"status": status})) == FailureRecorded(status=status)


ODD_WORDS = [
    None,
    True,
    5,
    5.0,
    [],
    ["processed"],
    {},
    "",
    " ",
    "weird",
    "Failed",
    "PROCESSED",
    "ok",
    "success",
    "uploaded",
]


@pytest.mark.parametrize("status", [*ODD_WORDS, "stored", "x" * 100_000])
def test_a_status_that_testnod_does_not_document_is_unknown(status):
    assert isinstance(read_finalize(answer(200, {"status": status})), OutcomeUnknown)
    assert isinstance(read_upload_failed(answer(200, {"status": status})), OutcomeUnknown)


@pytest.mark.parametrize("status", ["pending", "processing"])
def test_an_upload_that_has_not_ended_is_no_answer_to_upload_failed(status):
    assert isinstance(read_upload_failed(answer(200, {"status": status})), OutcomeUnknown)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_handed_on(read, status):
    assert read(answer(status, b"", **{"retry-after": "17"})).retry_after_seconds == 17.0


def test_a_message_is_cut_and_loses_the_presigned_query():
    outcome = read_register(said(500, f"cannot sign {URL} " + "y" * 900))
    assert len(outcome.message) == 300
    assert "X-Amz" not in outcome.message


@given(st.sampled_from(READERS), st.integers(0, 999), st.binary())
def test_any_status_and_bytes_come_to_an_outcome(read, status, body):
    assert read(answer(status, body)) is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
)
FIELDS = st.sampled_from(["test_run_id", "upload_id", "test_run_url", "presigned_url", "status", "error_message"])


@given(st.sampled_from(READERS), st.sampled_from([200, 201, 404, 422]), st.dictionaries(FIELDS, JSON))
def test_any_json_comes_to_an_outcome(read, status, fields):
    assert read(answer(status, fields)) is not None
