"""Faults and the call log of the sandbox, over HTTP."""

import asyncio

import aiohttp
import pytest
from yarl import URL


async def test_a_scripted_answer_replaces_the_work(testnod, sandbox):
    sandbox.state.faults.script("testnod.register", {"status": 503, "body": {"error": "down"}})
    assert await testnod.register() == (503, {"error": "down"})
    assert sandbox.state.runs.all() == []


async def test_headers_of_a_scripted_answer_arrive(http, sandbox):
    sandbox.state.faults.script("codearts.build_info", {"status": 429, "headers": {"Retry-After": "7"}})
    async with http.get(f"{sandbox.codearts_url}/v1/job/a/1/build-info") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")


async def test_a_lost_answer_leaves_the_work_done(testnod, sandbox):
    sandbox.state.faults.script("testnod.register", {"cut": True, "after": True})
    with pytest.raises(aiohttp.ClientConnectionError):
        await testnod.register()
    assert len(sandbox.state.runs.all("b1")[0].uploads) == 1


async def test_a_cut_connection_does_no_work(testnod, sandbox):
    sandbox.state.faults.script("testnod.register", {"cut": True})
    with pytest.raises(aiohttp.ClientConnectionError):
        await testnod.register()
    assert sandbox.state.runs.all() == []
    assert (await testnod.register())[0] == 201


@pytest.mark.parametrize("after", [False, True])
async def test_a_garbled_answer_has_the_right_status_and_no_readable_body(http, sandbox, after):
    sandbox.state.faults.script("testnod.register", {"garbled": True, "after": after})
    headers = {"Project-Token": sandbox.project_token}
    data = {"test_run[metadata][build_id]": "b1"}
    url = f"{sandbox.testnod_url}/integrations/test_runs/upload"
    async with http.post(url, data=data, headers=headers) as answer:
        assert answer.status == 201
        with pytest.raises(ValueError, match="utf-8"):
            await answer.json()
    assert len(sandbox.state.runs.all()) == after


async def test_a_hung_call_is_let_go_only_when_the_sandbox_closes(testnod, sandbox):
    await testnod.register()
    sandbox.state.faults.script("testnod.finalize", {"hang": True, "after": True})
    (run,) = sandbox.state.runs.all()
    finalize = asyncio.create_task(testnod.finalize())
    while not run.finalize_calls:  # noqa: ASYNC110  # the sandbox does not notify
        await asyncio.sleep(0)
    assert not finalize.done()
    sandbox.state.closing.set()
    with pytest.raises(aiohttp.ClientConnectionError):
        await finalize
    assert [call.status for call in sandbox.state.calls.at("testnod.finalize")] == [None]


async def test_a_delayed_answer_waits_and_then_does_the_work(testnod, sandbox):
    sandbox.state.faults.script("testnod.register", {"delay_seconds": 0.001})
    assert (await testnod.register())[0] == 201


async def test_calls_are_logged_without_tokens_or_presigned_queries(testnod, sandbox):
    _, registration = await testnod.register()
    await testnod.put(registration)
    register, put = sandbox.state.calls.at()
    assert (register.where, register.method, register.status) == ("testnod.register", "POST", 201)
    assert register.headers["Project-Token"] == "present"
    assert (put.where, put.status) == ("s3.put", 200)
    assert "?" not in put.path
    assert put.headers["Content-Length"] == "12"
    assert sandbox.project_token not in repr((register, put))


async def test_a_caller_that_is_gone_leaves_no_traceback(sandbox, caplog):
    head = "POST /integrations/test_runs/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n"
    content = "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    url = URL(sandbox.testnod_url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write((head + f"Project-Token: {sandbox.project_token}\r\n" + content).encode())
    while not sandbox.state.calls.at("testnod.register"):  # noqa: ASYNC110  # the sandbox does not notify
        await asyncio.sleep(0)
    writer.transport.abort()
    await _answered_later(url)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


async def _answered_later(url):
    """Return after a call that came later was answered, so that the earlier one has ended too."""
    async with aiohttp.ClientSession() as session, session.get(url):
        pass
