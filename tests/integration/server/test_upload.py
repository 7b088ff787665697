"""Uploads over real sockets into a real spool, with a ledger that only records what it was upload."""

import asyncio
import errno
import hashlib
import io
import re
import zipfile
from unittest.mock import Mock

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bridge.domain.intake import ReportReceipt
from bridge.server.http.requests import UPLOAD_PATH
from bridge.server.upload.file_store import ROW_BYTES, ROWS_BYTES
from bridge.server.upload.handler import PER_CALLER, STRANGERS_PER_ADDRESS
from bridge.telemetry.repeated_lines import MAX_LINES
from tests.support.labels import content_of
from tests.support.upload_server import (
    BOUNDARY,
    FORM,
    GOOD,
    JOB,
    MAX_FILES,
    MAX_REPORT,
    MAX_REQUEST,
    NOT_JUNIT,
    NOT_XML,
    OTHER_JOB,
    UploadServer,
    form,
    large,
)


async def test_a_report_is_kept_before_success_is_said(server, send):
    status, answer, headers = await send(form(("TEST-a.xml", GOOD), branch="main"), commit="c0ffee")
    assert (status, answer) == (
        200,
        {"status": "success", "result": "1 report, 2 tests, 1 failed; failed: b", "error": None},
    )
    [upload] = server.uploads
    assert (upload.job_id, upload.build_no, upload.caller, upload.caller_routes) == (JOB, 7, "any", None)
    assert (upload.upload_metadata.branch, upload.upload_metadata.commit, upload.complete) == ("main", "c0ffee", False)
    assert upload.request_id == headers["X-Request-Id"]
    [report] = upload.reports
    assert (report.name, report.node_id, report.size, report.body, report.blob) == (
        "TEST-a.xml",
        "n1",
        len(GOOD),
        GOOD,
        None,
    )
    assert report.received_sha256 == report.sent_sha256 == hashlib.sha256(GOOD).hexdigest()
    assert server.events == [("accepted", 1)]
    assert server.spooled == []


@pytest.mark.parametrize("size", [ROW_BYTES, ROW_BYTES + 1, MAX_REPORT])
async def test_only_large_reports_go_to_the_spool(server, send, size):
    content = large(size)
    status, _, _ = await send(form(("a.xml", content)))
    assert status == 200
    [report] = server.uploads[0].reports
    assert report.received_sha256 == hashlib.sha256(content).hexdigest()
    if size <= ROW_BYTES:
        assert (report.body, server.spooled) == (content, [])
    else:
        assert (report.body, server.spooled) == (None, [report.blob])
        assert content_of(server.root / report.blob) == content


async def test_one_upload_puts_no_more_than_its_share_into_rows(server, send):
    content = large(ROW_BYTES)
    count = ROWS_BYTES // ROW_BYTES + 2
    await send(form(*((f"{number}.xml", content) for number in range(count))))
    reports = server.uploads[0].reports
    assert sum(len(report.body) for report in reports if report.body) == ROWS_BYTES
    assert [report.blob for report in reports if report.blob] != []
    assert len(server.spooled) == 2


async def test_a_report_that_is_known_leaves_no_second_blob(server, send):
    server.receipts = {"a.xml": ReportReceipt.DUPLICATE, "b.xml": ReportReceipt.REQUEUED}
    _, answer, _ = await send(form(("a.xml", large(200_000)), ("b.xml", large(200_000)), ("c.xml", GOOD)))
    assert answer["result"] == "3 reports, 4 tests, 1 failed; 1 already known; 1 sent again; failed: b"
    assert server.spooled == [server.uploads[0].reports[1].blob]
    assert server.events == [("accepted", 2), ("known", 1)]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "bad.xml: "), (NOT_XML, "line"), (NOT_JUNIT, "HTML"), (NOT_JUNIT + b" " * 200_000, "bad.xml: ")],
    ids=["empty", "not xml", "not junit", "large and not junit"],
)
async def test_a_bad_file_is_named_and_the_good_ones_are_kept(server, send, content, says):
    status, answer, _ = await send(form(("good.xml", GOOD), ("bad.xml", content)))
    assert (status, answer["error_code"]) == (400, "BRIDGE.REPORT")
    assert "bad.xml: " in answer["error_msg"]
    assert says in answer["error_msg"]
    assert answer["error_msg"].endswith("The other 1 report of this upload was accepted.")
    [upload] = server.uploads
    assert [report.name for report in upload.reports] == ["good.xml"]
    assert [(refusal.name, refusal.code) for refusal in upload.rejections] == [("bad.xml", "BRIDGE.REPORT")]
    assert server.spooled == server.blobs
    assert sorted(server.events) == [("accepted", 1), ("refused", "BRIDGE.REPORT")]


async def test_a_build_is_complete_though_a_file_beside_it_was_rejected_and_the_rejection_says_so(server, send):
    status, answer, _ = await send(form(("good.xml", GOOD), ("bad.xml", b"<html/>")), complete="true")
    assert (status, "The build is marked complete." in answer["error_msg"]) == (400, True)
    assert [upload.complete for upload in server.uploads] == [True]


async def test_a_bad_file_alone_is_a_row_too(server, send):
    status, _, _ = await send(form(("bad.xml", NOT_XML)))
    assert status == 400
    [upload] = server.uploads
    assert (upload.reports, [refusal.name for refusal in upload.rejections]) == ((), ["bad.xml"])


async def test_where_the_route_only_warns_success_names_the_bad_file(server, send):
    status, answer, _ = await send(form(("good.xml", GOOD), ("bad.xml", NOT_XML)), job_id="c3" * 16)
    assert (status, answer["status"]) == (200, "success")
    assert answer["result"].startswith("1 report, 2 tests, 1 failed; 1 rejected: bad.xml: ")
    assert len(server.uploads[0].rejections) == 1


async def test_a_file_over_the_limit_is_413_and_the_others_are_kept(server, send):
    status, answer, _ = await send(form(("big.xml", large(MAX_REPORT + 1)), ("good.xml", GOOD)))
    assert (status, answer["error_code"]) == (413, "BRIDGE.TOO_LARGE")
    assert answer["error_msg"].startswith("big.xml: ")
    assert [report.name for report in server.uploads[0].reports] == ["good.xml"]
    assert server.spooled == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_over_the_limit_is_413_and_nothing_is_kept(server, send, chunked):
    body = form(*((f"{number}.xml", large(MAX_REPORT)) for number in range(6)))

    async def pieces():
        for begin in range(0, len(body), 65536):
            yield body[begin : begin + 65536]

    status, answer, _ = await send(pieces() if chunked else body)
    assert (status, answer["error_code"]) == (413, "BRIDGE.TOO_LARGE")
    assert [(upload.reports, upload.rejections[0].code) for upload in server.uploads] == [((), "BRIDGE.TOO_LARGE")]
    assert server.spooled == []


@pytest.mark.parametrize(
    ("query", "files", "status", "code", "says"),
    [
        ({"job_id": ""}, 1, 400, "CB.00060200", "job_id is missing"),
        ({"build_no": "20240626.1"}, 1, 400, "CB.00060200", "Use INCREASENUM"),
        ({"build_no": "0"}, 1, 400, "CB.00060200", "build_no"),
        ({"build_no": str(2**31)}, 1, 400, "CB.00060200", "build_no"),
        ({"build_no": ["7", "8"]}, 1, 400, "CB.00060200", 'build_no is given twice, as "7" and as "8"'),
        ({"node_id": "n" * 33}, 1, 400, "CB.00060200", "node_id"),
        ({"node_id": "${NODE}"}, 1, 400, "CB.00060200", "${NODE}"),
        ({"complete": "perhaps"}, 1, 400, "CB.00060200", "complete"),
        ({}, 0, 400, "CB.00060200", "contains no files"),
        ({}, MAX_FILES + 1, 413, "BRIDGE.TOO_LARGE", "more than 30 files"),
        ({"job_id": OTHER_JOB}, 1, 404, "BRIDGE.NO_ROUTE", OTHER_JOB),
        ({"token": ""}, 1, 401, "APIGW.0301", "x-auth-token not found"),
        ({"token": "guess"}, 1, 401, "APIGW.0301", "decrypt token fail"),
        ({"token": "reader"}, 1, 403, "APIGW.0302", "scope"),
        ({"token": "bound"}, 1, 403, "APIGW.0302", '"bound" may not upload'),
        ({"headers": {"Content-Encoding": "compress"}}, 1, 415, "BRIDGE.ENCODING", "compress"),
        ({"headers": {"Content-Type": "application/xml"}}, 1, 400, "CB.00060200", "multipart/form-data"),
    ],
)
async def test_every_rejection_has_its_response(server, send, query, files, status, code, says):
    body = form(*((f"{number}.xml", GOOD) for number in range(files)))
    answered, answer, headers = await send(body, **query)
    assert (answered, answer["status"], answer["error_code"]) == (status, "fail", code)
    assert answer["error"] == {"code": code, "message": answer["error_msg"], "reason": answer["error"]["reason"]}
    assert re.fullmatch("[a-z_]+", answer["error"]["reason"])
    assert says in answer["error_msg"]
    assert answer["error_msg"].endswith(".")
    assert ("Retry-After" in headers) == (status == 503)
    assert all(upload.reports == () and not upload.complete for upload in server.uploads)
    assert ("refused", code) in server.events


@pytest.mark.parametrize(
    ("query", "code", "caller"),
    [
        ({"job_id": OTHER_JOB}, "BRIDGE.NO_ROUTE", "any"),
        ({"token": "bound"}, "APIGW.0302", "bound"),
        ({"token": "reader"}, "APIGW.0302", "reader"),
        ({"node_id": "linux_x64"}, "CB.00060200", "any"),
        ({"branch": ["a", "b"]}, "CB.00060200", "any"),
        ({"detail": "everything"}, "CB.00060200", "any"),
        ({"token": "guess"}, "APIGW.0301", ""),
        ({"token": ""}, "APIGW.0301", ""),
        ({"token": "ended"}, "APIGW.0301", ""),
        ({"build_no": "0"}, None, None),
        ({"job_id": "${JOB}"}, None, None),
    ],
)
async def test_a_rejected_upload_is_recorded_if_its_query_names_a_build(server, send, query, code, caller):
    _, answer, headers = await send(form(("a.xml", GOOD)), **query)
    found = [(upload.rejections[0].code, upload.caller, upload.request_id) for upload in server.uploads]
    assert found == ([] if code is None else [(code, caller, headers["X-Request-Id"])])
    assert all(upload.reports == () and not upload.complete for upload in server.uploads)
    assert all(upload.rejections[0].reason in answer["error_msg"] for upload in server.uploads if caller == "")


@pytest.mark.parametrize("query", [{}, {"node_id": "linux_x64"}, {"token": "guess"}])
async def test_the_log_line_of_a_rejected_upload_names_its_build(send, query):
    with capture_logs() as lines:
        _, _, headers = await send(form(("a.xml", NOT_XML)), **query)
    [line] = lines
    assert (line["event"], line["log_level"]) == ("upload_rejected", "warning")
    assert (line["job_id"], str(line["build_no"]), line["node_id"]) == (JOB, "7", query.get("node_id", "n1"))
    assert line["request_id"] == headers["X-Request-Id"]
    assert line["caller"] == (None if query.get("token") else "any")


async def test_an_upload_with_one_good_file_is_logged_as_accepted(send):
    with capture_logs() as lines:
        await send(form(("a.xml", NOT_XML), ("b.xml", GOOD)))
    assert [(line["event"], line["log_level"], len(line["rejected"])) for line in lines] == [
        ("upload_accepted", "info", 1)
    ]


async def test_an_accepted_upload_is_answered_before_it_is_logged(server, send, monkeypatch):
    failed = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("bridge.server.upload.handler._log", Mock(info=Mock(side_effect=full)))
    status, answer, _ = await send(form(("a.xml", GOOD)))
    assert (status, answer["status"], len(server.uploads)) == (200, "success", 1)
    assert failed == [full]


async def test_an_expired_token_is_named_in_the_answer_and_in_the_log(server, send):
    with capture_logs() as lines:
        _, answer, _ = await send(form(("a.xml", GOOD)), token="ended")
    assert answer["error_msg"].startswith('The token of the caller "ended" expired on 1970-01-01. ')
    assert answer["error"]["reason"] == "expired_token"
    assert lines[0]["reason"] == answer["error_msg"] == server.uploads[0].rejections[0].reason


@pytest.fixture
def one_minute(monkeypatch):
    """Let all requests of a test come in the same minute, however long they take."""
    monkeypatch.setattr("bridge.server.upload.handler.current_minute", lambda: 1)


@pytest.mark.usefixtures("one_minute")
async def test_strangers_are_answered_and_logged_but_few_of_their_uploads_are_recorded(server, send):
    with capture_logs() as lines:
        for number in range(STRANGERS_PER_ADDRESS + 3):
            await send(form(("a.xml", GOOD)), token="guess", build_no=str(number + 1))
    assert len(lines) == MAX_LINES
    assert len(server.uploads) == STRANGERS_PER_ADDRESS
    await send(form(("a.xml", GOOD)), token="reader")
    assert server.uploads[-1].caller == "reader"


@pytest.mark.usefixtures("one_minute")
async def test_a_caller_that_is_refused_over_and_over_writes_little_into_the_ledger(server, send):
    for number in range(PER_CALLER + 3):
        assert (await send(form(("a.xml", GOOD)), token="reader", build_no=str(number + 1)))[0] == 403
    assert len(server.uploads) == PER_CALLER
    assert all(upload.is_foreign for upload in server.uploads)
    assert (await send(form(("a.xml", GOOD)), node_id="linux_x64"))[0] == 400
    assert server.uploads[-1].caller == "any"


async def test_what_a_caller_may_not_send_is_refused_as_such_also_while_the_bridge_is_stopping(server, send):
    server.admitting = False
    assert (await send(form(("a.xml", GOOD)), token="bound"))[0] == 403
    assert (await send(form(("a.xml", GOOD)), token="reader"))[0] == 403
    assert all(upload.is_foreign for upload in server.uploads)
    assert (await send(form(("a.xml", GOOD)), job_id="9" * 32))[0] == 503
    assert (await send(form(("a.xml", GOOD))))[0] == 503
    assert server.spooled == []


async def test_if_the_rejection_cannot_be_recorded_the_answer_is_the_same(server, send):
    server.ledger_fails = True
    status, answer, _ = await send(form(("a.xml", GOOD)), node_id="linux_x64")
    assert (status, answer["error_code"]) == (400, "CB.00060200")


# -- the forms of an answer --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([("a.xml", NOT_JUNIT)], "not_junit"),
        ([("a.xml", b""), ("b.xml", b"")], "empty"),
        ([("a.xml", NOT_JUNIT), ("b.xml", b"")], "invalid_report"),
        ([("a.xml", large(MAX_REPORT + 1))], "too_large"),
    ],
)
async def test_the_reason_is_a_short_class(send, files, reason):
    _, answer, _ = await send(form(*files))
    assert answer["error"]["reason"] == reason
    assert answer["error"]["message"] == answer["error_msg"]


@pytest.mark.parametrize("asked", ["query", "form"])
@pytest.mark.parametrize("fails", [True, False])
async def test_the_answer_lists_every_file_if_asked(server, send, fails, asked):
    server.receipts = {"b.xml": ReportReceipt.DUPLICATE, "c.xml": ReportReceipt.REQUEUED}
    files = [("a.xml", GOOD), ("b.xml", GOOD), ("c.xml", GOOD), ("bad.xml", NOT_JUNIT), ("p.zip", packed())]
    body = form(*files, **({"detail": "files"} if asked == "form" else {}))
    job = JOB if fails else "c3" * 16
    status, answer, _ = await send(body, job_id=job, **({"detail": "files"} if asked == "query" else {}))
    assert (status, answer["status"]) == ((400, "fail") if fails else (200, "success"))
    listed = {file["name"]: file for file in answer["files"]}
    assert {name: file["status"] for name, file in listed.items()} == {
        "a.xml": "accepted",
        "b.xml": "duplicate",
        "c.xml": "requeued",
        "bad.xml": "rejected",
        "p.zip!in.xml": "accepted",
        "p.zip!cover.xml": "skipped",
    }
    counts = [listed["a.xml"][name] for name in ("tests", "failures", "errors", "skipped")]
    assert counts == [2, 1, 0, 0]
    assert (listed["bad.xml"]["code"], listed["bad.xml"]["reason"]) == ("BRIDGE.REPORT", "not_junit")
    assert listed["p.zip!cover.xml"]["reason"] == "not_junit"


async def test_without_asking_no_file_is_listed(send):
    _, answer, _ = await send(form(("a.xml", GOOD)))
    assert "files" not in answer


async def test_a_request_that_is_rejected_as_a_whole_lists_no_files(send):
    _, answer, _ = await send(form(("a.xml", GOOD)), detail="files", node_id="a_b")
    assert answer["files"] == []


@pytest.fixture
def post_text(server):
    async def post(body, accept="text/plain", **query):
        parameters = {"job_id": JOB, "build_no": "7"} | query
        url = server.listener.make_url(UPLOAD_PATH).with_query(parameters)
        headers = FORM | {"X-Auth-Token": "any", "Accept": accept}
        async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as answer:
            return answer.status, answer.content_type, await answer.text()

    return post


async def test_a_ci_log_gets_one_line_a_file(post_text):
    status, kind, text = await post_text(form(("a.xml", GOOD), ("bad\n.xml", NOT_JUNIT)))
    assert (status, kind) == (400, "text/plain")
    lines = text.splitlines()
    assert lines[0] == "accepted a.xml: 2 tests, 1 failed"
    assert lines[1].startswith("rejected bad")
    assert "HTML" in lines[1]
    assert lines[2:] == ["fail BRIDGE.REPORT: 1 accepted, 1 rejected"]
    assert (await post_text(form(("a.xml", GOOD))))[2].splitlines() == [
        "accepted a.xml: 2 tests, 1 failed",
        "success: 1 report, 2 tests, 1 failed; failed: b",
    ]


async def test_a_ci_log_gets_one_line_for_a_request_that_is_rejected(post_text):
    status, _, text = await post_text(form(("a.xml", GOOD)), node_id="a_b")
    assert (status, len(text.splitlines())) == (400, 1)
    assert text.startswith('fail CB.00060200: node_id is "a_b"')


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/plain, */*", ""])
async def test_a_library_that_accepts_anything_gets_json(post_text, accept):
    assert (await post_text(form(("a.xml", GOOD)), accept))[1] == "application/json"


def packed():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("in.xml", GOOD)
        archive.writestr("cover.xml", b"<coverage/>")
    return out.getvalue()


async def test_what_only_the_record_knows_is_not_decided_here(send):
    status, _, _ = await send(form(("a.xml", GOOD), branch="other"), job_id="d4" * 16)
    assert status == 200


@pytest.mark.parametrize("body", [form(), None, form(complete="true")])
async def test_an_upload_may_only_say_that_the_build_is_complete(server, send, body):
    status, answer, _ = await send(body, complete="true")
    assert (status, answer["result"]) == (200, "0 reports; the build is complete")
    assert [(upload.complete, upload.reports) for upload in server.uploads] == [(True, ())]


async def test_a_ledger_that_fails_is_503_and_its_blobs_are_gone(server, send):
    server.ledger_fails = True
    status, answer, headers = await send(form(("a.xml", large(200_000)), ("b.xml", GOOD)))
    assert (status, answer["error_code"], int(headers["Retry-After"]) > 0) == (503, "BRIDGE.UNAVAILABLE", True)
    assert server.spooled == []


async def test_if_it_is_unknown_whether_rows_were_written_it_is_503_and_their_blobs_stay(server, send):
    server.commit_is_lost = True
    status, _, _ = await send(form(("a.xml", large(300_000))))
    assert status == 503
    assert server.spooled == server.blobs
    assert len(server.spooled) == 1


async def test_while_no_upload_can_be_taken_it_is_503_before_the_body_is_read(server, send):
    server.admitting = False
    status, _, headers = await send(form(("a.xml", large(200_000))))
    assert (status, "Retry-After" in headers) == (503, True)
    assert server.spooled == []
    assert [(upload.reports, upload.rejections[0].code) for upload in server.uploads] == [((), "BRIDGE.UNAVAILABLE")]


async def test_a_spool_that_cannot_be_written_is_503_and_nothing_is_accepted(server, send):
    server.root.rmdir()
    server.root.write_bytes(b"")
    status, answer, _ = await send(form(("b.xml", GOOD), ("a.xml", large(200_000))))
    assert status == 503
    assert [(upload.reports, upload.rejections[0].code) for upload in server.uploads] == [((), "BRIDGE.UNAVAILABLE")]
    assert str(server.root) not in answer["error_msg"]


@pytest.mark.parametrize("size", [5_000, MAX_REPORT], ids=["in its row", "in the spool"])
async def test_a_disk_that_fills_in_mid_upload_is_503_and_nothing_is_left(server, send, size):
    server.room = size + 2_000
    status, body, headers = await send(form(("first.xml", large(3_000)), ("second.xml", large(size))))
    assert (status, body["error_code"]) == (503, "BRIDGE.UNAVAILABLE")
    assert int(headers["Retry-After"]) > 0
    await server.closed.get()
    assert server.spooled == []
    assert [(upload.reports, upload.rejections[0].code) for upload in server.uploads] == [((), "BRIDGE.UNAVAILABLE")]


@pytest.mark.parametrize(
    "name", ["../../x.xml", "/etc/passwd", "%2e%2e/x", "a\x00b", "n" * 4096, "\u202egnp.xml", "报告.xml"]
)
async def test_a_name_is_kept_as_data_and_never_part_of_a_path(server, send, name):
    content = large(200_000)
    status, _, _ = await send(form((name, content)))
    assert status == 200
    assert [report.name for report in server.uploads[0].reports] == [name]
    assert server.spooled == [server.uploads[0].reports[0].blob]


@pytest.mark.parametrize("name", ["\x1b[2J.xml", "\u202egnp.xml", "n" * 4096])
async def test_a_hostile_name_is_shown_harmless(send, name):
    _, answer, _ = await send(form((name, b"")))
    assert answer["error_msg"].isprintable()
    assert len(answer["error_msg"]) < 1000


def head(length: int | None, *, job_id: str = JOB) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return (
        f"POST {UPLOAD_PATH}?job_id={job_id}&build_no=7 HTTP/1.1\r\nHost: x\r\nX-Auth-Token: any\r\n"
        f"Content-Type: {FORM['Content-Type']}\r\n{framing}\r\n\r\n"
    ).encode()


async def exchange(server: UploadServer, sent: bytes, *, hang_up: bool = False) -> bytes:
    """Send raw bytes, and return all that is answered until the server closes; none where the client hangs up."""
    reader, writer = await asyncio.open_connection(server.listener.host, server.listener.port)
    writer.write(sent)
    await writer.drain()
    answered = b"" if hang_up else await reader.read()
    writer.close()
    await writer.wait_closed()
    return answered


async def test_a_client_that_goes_away_in_mid_upload_leaves_nothing(server):
    body = form(("a.xml", large(400_000)), ("b.xml", large(400_000)))
    await exchange(server, head(len(body)) + body[:-100_000], hang_up=True)
    await server.closed.get()
    assert (server.uploads, server.spooled) == ([], [])


async def test_a_length_that_lies_low_cuts_the_form_and_nothing_is_kept(server):
    body = form(("a.xml", large(200_000)))
    answered = await exchange(server, head(len(body) - 10) + body)
    assert answered.startswith(b"HTTP/1.1 400")
    assert (server.spooled, [upload.reports for upload in server.uploads]) == ([], [()])


async def test_a_client_that_breaks_its_chunks_and_goes_leaves_nothing(server):
    body = form(("a.xml", large(200_000)))
    piece = f"{len(body):x}\r\n".encode() + body + b"\r\n"
    await exchange(server, head(None) + piece + b"no hexadecimal\r\n", hang_up=True)
    await server.closed.get()
    assert (server.uploads, server.spooled) == ([], [])


async def test_a_rejection_before_a_large_body_reaches_the_client_and_closes(server):
    reader, writer = await asyncio.open_connection(server.listener.host, server.listener.port)
    writer.write(head(MAX_REQUEST, job_id="short") + b"x" * 1000)
    answered = await reader.readuntil(b"\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in answered.lower()
    writer.close()
    await writer.wait_closed()


PART = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
PLAIN_PART = f'{PART}"x"\r\n\r\n\r\n'.encode()
LONG_HEADER = f'{PART}"files"; filename="a.xml"\r\nX-Long: {"h" * 1_000_000}\r\n\r\n'.encode()
NESTED = f'{PART}"files"\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n'.encode()


@pytest.mark.parametrize(
    ("then", "status", "says"),
    [
        (PLAIN_PART * 100_000, 413, "too many parts"),
        (LONG_HEADER, 413, "too large a header"),
        (NESTED, 400, "itself multipart"),
        (b"", 400, "not a complete"),
    ],
    ids=["a hundred thousand parts", "a header of a megabyte", "a form in the form", "no end"],
)
async def test_a_form_without_measure_is_rejected_and_the_file_before_it_not_kept(server, send, then, status, says):
    body = form(("good.xml", large(300_000))).removesuffix(f"--{BOUNDARY}--\r\n".encode()) + then

    async def pieces():  # no length, so that its size says nothing
        for begin in range(0, len(body), 65_536):
            yield body[begin : begin + 65_536]

    answered, answer, _ = await send(pieces())
    assert (answered, answer["status"], says in answer["error_msg"]) == (status, "fail", True)
    assert server.spooled == []
    assert [upload.reports for upload in server.uploads] == [()]


async def test_a_connection_serves_one_upload_after_the_other(server):
    body = form(("a.xml", GOOD))
    reader, writer = await asyncio.open_connection(server.listener.host, server.listener.port)
    for _ in range(3):
        writer.write(head(len(body)) + body)
        answered = await reader.readuntil(b"\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 200")
        await reader.readuntil(b'"error": null}')
    writer.close()
    await writer.wait_closed()
    assert len(server.uploads) == 3


MARK = f"--{BOUNDARY}\r\n".encode()
WHOLE = form(("a.xml", GOOD), ("b.xml", large(200_000)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, len(WHOLE)),
    junk=st.one_of(st.binary(max_size=60), st.just(MARK), st.just(b"\r\n--b0undary--")),
    resume=st.integers(0, len(WHOLE)),
)
async def test_any_body_is_an_upload_or_a_rejection_and_nothing_is_left_without_a_row(server, send, cut, junk, resume):
    server.uploads.clear()
    for blob in server.spooled:
        (server.root / blob).unlink()
    status, _, _ = await send(WHOLE[:cut] + junk + WHOLE[resume:])
    assert status in {200, 400, 413}
    assert server.spooled == server.blobs
