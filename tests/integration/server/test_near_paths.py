"""Requests to paths that resemble the upload path, or one of the admin API: the answer names the right one."""

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from bridge.server.http.requests import UPLOAD_PATH, resembles_upload_path
from tests.support.listener import running, say
from tests.support.upload_server import FORM, GOOD, form

JOB = "a1" * 16
TABLES = """\
[callers]
auth = ["token"]
[[callers.tokens]]
name = "ci"
token = "token-ci-0123456789"
[[routes]]
name = "shop"
project_token = "t-123456"
"""
NEAR = [
    ("POST", "/v1/report/junit/upload"),
    ("POST", "/report/junit/report/upload"),
    ("POST", "/v1//report/junit/report/upload"),
    ("POST", "//v1/report/junit/report/upload"),
    ("POST", "/v1/junit_report/upload"),
    ("POST", "/v1/report/junit-report/upload"),
    ("POST", "/v1/report/junit/report"),
    ("POST", "/v1/report/junit/report/uploads"),
    ("POST", "/v1/report/junit/report/upload/junit.xml"),
    ("PUT", "/v1/report/junit/report/upload/junit.xml"),
    ("POST", "/v2/report/junit/report/upload"),
    ("POST", "/codearts/v1/report/junit/report/upload"),
    ("POST", "/V1/Report/JUnit/Report/Upload"),
    ("POST", "/v1/report/junit/report/uplaod"),
    ("POST", "/v1/reprot/junti/report/upload"),
    ("GET", "/v1/report/junit/upload"),
    ("POST", "/bridge/v1/report/junit/report/upload"),
]
OF_CODEARTS = [
    ("POST", "/v1/report/junit/coverage/upload"),
    ("GET", "/v1/report/junit/coverage/list"),
    ("GET", "/v1/report/junit/coverage/download"),
    ("GET", f"/v1/report/{JOB}/summary"),
    ("POST", "/v1/job/check/webhook-url"),
    ("PUT", f"/v1/jobs/{JOB}/result/refresh"),
    ("POST", "/v3/auth/tokens"),
    ("POST", "/integrations/test_runs/upload"),
    ("POST", "/integrations/test_runs/upload_failed"),
]


@pytest.fixture
async def gateway(tmp_path):
    async with running(tmp_path, TABLES) as gateway:
        yield gateway


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize(("method", "path"), OF_CODEARTS)
def test_paths_of_codearts_and_testnod_are_no_mistyped_uploads(method, path):
    headers = FORM if path.endswith("upload") else {}
    assert not resembles_upload_path(make_mocked_request(method, f"{path}?job_id={JOB}&build_no=1", headers=headers))


def test_a_form_for_a_build_is_meant_as_an_upload_whatever_the_path():
    target = f"/upload?job_id={JOB}&build_no=1"
    assert resembles_upload_path(make_mocked_request("POST", target, headers=FORM))
    assert not resembles_upload_path(make_mocked_request("POST", target))


async def why(gateway, http, build_no):
    query = f"job_id={JOB}&build_no={build_no}"
    async with http.get(f"{gateway.admin_url}/api/v1/why?{query}") as answer:
        return await answer.json()


async def test_a_mistyped_upload_path_is_answered_with_the_right_one_and_found_by_its_build(gateway, http):
    body = form(("a.xml", GOOD))
    for number, (method, path) in enumerate(NEAR, 1):
        head = f"{method} {path}?job_id={JOB}&build_no={number} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        fields = f"Content-Type: {FORM['Content-Type']}\r\nX-Auth-Token: token-ci-0123456789\r\n\r\n"
        with capture_logs() as lines:
            answer = await say(gateway.server_url, (head + fields).encode() + body)
        assert (answer.status, answer.json.get("error_code")) == (404, "BRIDGE.PATH"), (path, answer.json)
        assert answer.json["error_msg"].endswith(f"Upload reports with POST to {UPLOAD_PATH}.")
        assert [line["event"] for line in lines] == ["upload_rejected"]
        found = await why(gateway, http, number)
        assert (found["case"], found["rejections"][0]["caller"]) == ("rejected", "ci")
        assert UPLOAD_PATH in found["action"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_wrong_method_at_the_upload_path_is_answered_with_post_and_found_by_its_build(gateway, http, method):
    url = f"{gateway.server_url}{UPLOAD_PATH}?job_id={JOB}&build_no=1"
    async with http.request(method, url, headers={"X-Auth-Token": "token-ci-0123456789"}) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert "with POST" in (await answer.json())["error_msg"]
    assert (await why(gateway, http, 1))["case"] == "rejected"


async def test_a_call_that_may_not_be_forwarded_is_answered_with_what_the_bridge_serves(gateway, http):
    headers = {"X-Auth-Token": "token-ci-0123456789"}
    async with http.get(f"{gateway.server_url}/v1/job/x/list", headers=headers) as answer:
        text = (await answer.json())["error_msg"]
    assert (answer.status, UPLOAD_PATH in text, '"proxy"' in text) == (403, True, True)
    assert text.startswith('The bridge itself has nothing at GET "/v1/job/x/list"')


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("GET", "/api/v1/build", "Paths like it are /api/v1/builds"),
        ("GET", "/api/v1/whyy?job_id=x", "/api/v1/why"),
        ("POST", "/api/v1/rejection/1/send", "/api/v1/rejections/{id}/send"),
        ("GET", "/zzzzzzzz", "Its paths are /, /act, /api/v1/audit, /api/v1/builds, "),
        ("POST", UPLOAD_PATH, "Send uploads to the server listener"),
    ],
)
async def test_an_unknown_path_of_the_admin_listener_is_answered_with_those_near_it(gateway, http, method, path, says):
    async with http.request(method, gateway.admin_url + path) as answer:
        body = await answer.json()
    assert (answer.status, body["error_code"]) == (404, "BRIDGE.NOT_FOUND")
    assert says in body["error_msg"]


@pytest.mark.parametrize("in_settings", [JOB, JOB.upper()])
async def test_a_job_id_in_capitals_is_the_same_job(tmp_path, http, in_settings):
    headers = FORM | {"X-Auth-Token": "token-ci-0123456789"}
    results = []
    async with running(tmp_path, f'{TABLES}job_id = "{in_settings}"\n') as gateway:
        for job in (JOB, JOB.upper()):
            url = f"{gateway.server_url}{UPLOAD_PATH}?job_id={job}&build_no=1"
            async with http.post(url, data=form(("a.xml", GOOD)), headers=headers) as answer:
                results.append((await answer.json())["result"])
        async with http.get(f"{gateway.admin_url}/api/v1/builds?job_id={JOB.upper()}") as answer:
            builds = (await answer.json())["builds"]
    assert results == [f"1 report, 2 tests, 1 failed; {rest}" for rest in ("failed: b", "1 already known; failed: b")]
    assert [build["job_id"] for build in builds] == [JOB]
