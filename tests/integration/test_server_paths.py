"""The doors of the server listener beside CodeArts' own: what is the bridge's is never taken for CodeArts'."""

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from bridge.server.http.requests import UPLOAD_PATH
from bridge.server.webhook import WEBHOOK_PATH
from tests.support.whole import JOB, JUNIT, running_gateway

HOOK = '[webhook]\nsecret = "canary-hook"\n'
UNUSED = '[[callers.tokens]]\nname = "ci"\ntoken = "canary-unused"\n'


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def doors(tmp_path, sandbox):
    """Return what asks a gateway whose open callers go on to CodeArts as they came."""
    endpoint = f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n'
    async with (
        running_gateway(tmp_path, sandbox, UNUSED, endpoint, HOOK, poll_after="1h") as running,
        aiohttp.ClientSession(running.server_url) as http,
    ):

        async def ask(method, path, **options):
            async with http.request(method, path, **options) as answer:
                return answer.status, await answer.json() if answer.content_length and method != "HEAD" else {}

        yield ask


async def test_an_upload_with_a_slash_behind_its_path_is_one(doors, sandbox):
    form = aiohttp.FormData()
    form.add_field("files", JUNIT, filename="a.xml")
    status, said = await doors("POST", f"{UPLOAD_PATH}/?job_id={JOB}&build_no=1", data=form)
    assert (status, said["result"]) == (200, "1 report, 1 test, 0 failed")
    assert (await doors("GET", f"{UPLOAD_PATH}/"))[0] == 405
    assert sandbox.state.calls.at("codearts.upload") == []


async def test_a_slip_in_a_path_of_the_bridge_is_told_and_not_passed_on(doors, sandbox):
    status = f"/bridge/v1/builds/{JOB}/1"
    answers = [
        (await doors(method, path))[0]
        for method, path in (
            *(("POST", f"{WEBHOOK_PATH}/"), ("POST", "/hooks/CodeArts"), ("GET", f"{status}/"), ("GET", "/bridge/v2")),
            *(("POST", status), ("DELETE", status), ("POST", "/livez"), ("PUT", "/readyz")),
        )
    ]
    assert answers == [404] * 4 + [405] * 4
    assert r'GET "/hooks/\x1b' in (await doors("GET", "/hooks/%1b" + "x" * 5000))[1]["error_msg"][:200]
    assert [call.path for call in sandbox.state.calls.at("codearts.*")] == []


async def test_a_secret_of_the_bridge_that_is_sent_to_a_wrong_path_stays_with_the_bridge(doors, sandbox):
    for secret in ("canary-hook", "canary-unused"):
        await doors("GET", "/metrics", headers={"Authorization": f"Bearer {secret}"})
        await doors("GET", "/metrics", headers={"X-Auth-Token": secret})
    await doors("GET", "/metrics", headers={"X-Auth-Token": "a token of another caller"})
    calls = sandbox.state.calls.at("codearts.unknown")
    assert [{"Authorization", "X-Auth-Token"} & set(call.headers) for call in calls] == [set()] * 4 + [{"X-Auth-Token"}]
