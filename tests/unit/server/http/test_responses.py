import asyncio
import json
import re
import sys
from urllib.parse import unquote

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from bridge import errors
from bridge.domain.text_format import MAX_SHOWN_CHARACTERS, escape_for_display
from bridge.server.http.responses import (
    REQUEST_ID,
    disposition,
    file_name,
    handle_errors,
    json_response,
    large_json_response,
    success_response,
)


async def answer(raised: Exception):
    async def handler(_: web.Request) -> web.StreamResponse:
        raise raised

    return await handle_errors(make_mocked_request("POST", "/"), handler)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.BadParameter("What. Do."), 400, "CB.00060200"),
        (errors.BadReport("What. Do."), 400, "BRIDGE.REPORT"),
        (errors.TooLarge("What. Do."), 413, "BRIDGE.TOO_LARGE"),
        (errors.UnknownEncoding("What. Do."), 415, "BRIDGE.ENCODING"),
        (errors.NoRoute("What. Do."), 404, "BRIDGE.NO_ROUTE"),
        (errors.Unauthenticated("What. Do."), 401, "APIGW.0301"),
        (errors.Forbidden("What. Do."), 403, "APIGW.0302"),
        (errors.Unavailable("What. Do."), 503, "BRIDGE.UNAVAILABLE"),
    ],
)
async def test_a_refusal_has_every_shape_that_clients_read(error, status, code):
    response = await answer(error)
    assert response.status == status
    assert json.loads(response.body) == {
        "status": "fail",
        "error_code": code,
        "error_msg": "What. Do.",
        "error": {"code": code, "message": "What. Do.", "reason": error.reason},
        "result": None,
    }
    assert len(response.headers["X-Request-Id"]) == 32
    assert response.headers["Server"] == "bridge"


async def test_unavailable_says_when_to_come_back():
    response = await answer(errors.Unavailable("What. Do.", retry_after_seconds=7))
    assert response.headers["Retry-After"] == "7"


async def test_an_unexpected_failure_tells_nothing_of_itself():
    response = await answer(RuntimeError("/data/spool: password=canary"))
    assert response.status == 500
    assert json.loads(response.body)["error_code"] == "BRIDGE.ERROR"
    assert b"canary" not in response.body


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (web.HTTPNotFound(), 404, "BRIDGE.NOT_FOUND"),
        (web.HTTPMethodNotAllowed("GET", ["POST"]), 405, "BRIDGE.METHOD"),
        (web.HTTPRequestEntityTooLarge(1, 2), 413, "BRIDGE.TOO_LARGE"),
        (web.HTTPServiceUnavailable(), 503, "BRIDGE.ERROR"),
    ],
)
async def test_the_servers_own_answers_have_the_same_shape(error, status, code):
    response = await answer(error)
    assert (response.status, json.loads(response.body)["error"]["code"]) == (status, code)
    assert response.headers.get("Allow") == ("POST" if status == 405 else None)


async def test_a_wrong_method_is_told_the_right_one():
    response = await answer(web.HTTPMethodNotAllowed("PUT", ["POST"]))
    assert (
        json.loads(response.body)["error_msg"] == "This path does not take the method PUT. Send the request with POST."
    )


async def test_a_client_that_went_away_is_not_answered():
    with pytest.raises(ConnectionResetError):
        await answer(ConnectionResetError())


async def test_every_request_has_an_id_of_its_own():
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request[REQUEST_ID])
        return success_response("done")

    answered = [await handle_errors(make_mocked_request("POST", "/"), handler) for _ in range(2)]
    assert [response.headers["X-Request-Id"] for response in answered] == seen
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a.xml", "a.xml"),
        ("报告.xml", "报告.xml"),
        ("a\nb", "a\\nb"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202egnp", "\\u202egnp"),
    ],
)
def test_foreign_text_is_shown_on_one_line_without_commands(text, read):
    assert escape_for_display(text) == read


@given(st.text(st.characters()))
def test_any_text_is_shown_printable_and_bounded(text):
    assert escape_for_display(text).isprintable()
    assert len(escape_for_display(text)) <= 10 * MAX_SHOWN_CHARACTERS + 1


async def test_a_large_answer_is_the_same_json_and_leaves_others_their_turns():
    body = {"reports": [{"name": f"{number}-\udc80é.xml"} for number in range(5_000)]}
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        answer = await large_json_response(body)
    finally:
        sys.setswitchinterval(interval)
        counting.cancel()

    assert answer.body == json_response(body).body
    assert answer.headers == json_response(body).headers
    assert turns, "no other task had a turn"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("TEST-a.xml", "refused-7-TEST-a.xml"),
        ("报告.xml", "refused-7-报告.xml"),
        ("../../etc/passwd", "refused-7-passwd"),
        ("C:\\run\\a.xml", "refused-7-a.xml"),
        ("a.zip!dir/b.xml", "refused-7-b.xml"),
        ('a"; x="\r\n.xml', "refused-7-a__ x____.xml"),
        ("x" * 500 + ".xml", "refused-7-" + "x" * 96 + ".xml"),
        ("", "refused-7-"),
    ],
)
def test_a_file_is_saved_under_a_name_that_can_do_no_harm(name, safe):
    assert file_name("refused-7", name) == safe


@given(name=st.text())
def test_a_header_holds_any_name_in_ascii_and_gives_it_back(name):
    safe = file_name("report-7", name)
    said = disposition(safe)
    assert re.fullmatch(r"""attachment; filename="[A-Za-z0-9._ ()-]+"; filename\*=UTF-8''[A-Za-z0-9._~%-]+""", said)
    assert unquote(said.partition("''")[2]) == safe


def test_who_reads_only_the_plain_name_saves_it_under_what_ascii_has_of_it():
    said = disposition("refused-7-报告 (2).xml")
    assert said.startswith('attachment; filename="refused-7-__ (2).xml"; ')
