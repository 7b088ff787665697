"""What one caller does to another route's builds at the real gateway: nothing that the other could see."""

import asyncio

import aiohttp
import pytest

from bridge.domain.intake import MAX_REJECTIONS
from tests.support.listener import PATIENCE_SECONDS, running
from tests.support.upload_server import FORM, GOOD, NOT_JUNIT, NOT_XML, form

JOB = "a1" * 16
SETTINGS = """\
[callers]
auth = ["token"]
[[callers.tokens]]
name = "ours"
token = "token-ours-0123456789"
routes = ["a"]
scopes = ["upload", "status"]
[[callers.tokens]]
name = "theirs"
token = "token-theirs-0123456789"
routes = ["b"]
scopes = ["upload", "status"]
[[routes]]
name = "a"
project_token = "t-123456"
{a}
[[routes]]
name = "b"
project_token = "t-654321"
{b}
"""
BY_JOB = {"a": f'job_id = "{JOB}"', "b": f'job_id = "{"b2" * 16}"'}
BY_BRANCH = {"a": 'branch = "main"', "b": 'branch = "dev"'}


class Stage:
    """A gateway with two routes, and a caller bound to each."""

    def __init__(self, gateway, http):
        self.gateway = gateway
        self._http = http

    async def upload(self, caller, *files, **query):
        query = {"job_id": JOB, "build_no": "7"} | query
        headers = FORM | {"X-Auth-Token": f"token-{caller}-0123456789"}
        url = self.gateway.server_url + "/v1/report/junit/report/upload"
        async with self._http.post(url, params=query, headers=headers, data=form(*files)) as answer:
            return answer.status, await answer.json()

    async def status(self, caller):
        headers = {"X-Auth-Token": f"token-{caller}-0123456789"}
        async with self._http.get(f"{self.gateway.server_url}/bridge/v1/builds/{JOB}/7", headers=headers) as answer:
            return answer.status, await answer.json()

    async def admin(self, path, **query):
        async with self._http.get(f"{self.gateway.admin_url}{path}", params=query) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def why(self):
        return (await self.admin("/api/v1/why", job_id=JOB, build_no="7"))[1]

    async def pinned(self, route):
        """Wait until the worker has chosen the route of the build."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await self.why())["build"]["route"] is None:
                pass
        assert (await self.why())["build"]["route"] == route

    async def rejections(self, caller):
        _, page = await self.admin("/api/v1/rejections", job_id=JOB, limit="1000")
        return [each for each in page["rejections"] if each["caller"] == caller]


@pytest.fixture
async def stage(tmp_path, request):
    routes = getattr(request, "param", BY_JOB)
    async with running(tmp_path, SETTINGS.format(**routes)) as gateway, aiohttp.ClientSession() as http:
        yield Stage(gateway, http)


by_branch = pytest.mark.parametrize("stage", [BY_BRANCH], indirect=True)
TWO_BAD = (("bad.xml", NOT_XML), ("page.xml", NOT_JUNIT))


# -- rejections and quarantine -----------------------------------------------------------------------------------


async def test_a_caller_that_may_not_send_replaces_no_rejection_and_no_file_of_another_route(stage):
    assert (await stage.upload("ours", *TWO_BAD))[0] == 400
    before = await stage.why()
    for _ in range(MAX_REJECTIONS + 1):
        assert (await stage.upload("theirs", ("x.xml", GOOD)))[0] == 403

    ours = await stage.rejections("ours")
    assert sorted(each["name"] for each in ours) == ["bad.xml", "page.xml"]
    for each in ours:
        assert (await stage.admin(f"/api/v1/rejections/{each['id']}/file"))[0] == 200
    assert 0 < len(await stage.rejections("theirs")) <= 10
    why = await stage.why()
    assert (why["case"], why["cause"]) == ("rejected", before["cause"])
    assert [each["caller"] for each in why["rejections"]] == ["ours", "ours"]


async def test_beside_accepted_reports_nothing_shows_what_a_caller_was_not_allowed(stage):
    assert (await stage.upload("ours", ("good.xml", GOOD)))[0] == 200
    before = await stage.why()
    assert (await stage.upload("theirs", ("x.xml", GOOD)))[0] == 403
    assert (await stage.upload("theirs", ("x.xml", GOOD), node_id="not allowed"))[0] in (400, 403)

    why = await stage.why()
    assert (why["case"], why["rejections"], why["build"]["rejections"]) == (before["case"], [], [])
    status, build = await stage.status("ours")
    assert (status, build["rejections"]) == (200, [])
    assert (await stage.status("theirs"))[0] == 404


async def test_if_nothing_else_came_the_answer_is_what_the_caller_was_not_allowed(stage):
    assert (await stage.upload("theirs", ("x.xml", GOOD)))[0] == 403
    why = await stage.why()
    assert why["case"] == "rejected"
    assert "may not upload for the job" in why["cause"]
    status, build = await stage.status("theirs")
    assert (status, [each["caller"] for each in build["rejections"]]) == (200, ["theirs"])


@by_branch
async def test_the_same_file_of_another_caller_does_not_take_over_the_rejected_one(stage):
    for caller in ("ours", "theirs"):
        assert (await stage.upload(caller, *TWO_BAD))[0] == 400
    assert len(await stage.rejections("ours")) == 2
    assert len(await stage.rejections("theirs")) == 2


# -- complete=true -----------------------------------------------------------------------------------------------


@by_branch
async def test_a_caller_neither_ends_a_build_of_another_route_nor_adds_to_it(stage):
    assert (await stage.upload("ours", ("good.xml", GOOD), branch="main"))[0] == 200
    await stage.pinned("a")

    for files, query in (((), {"complete": "true"}), ((("x.xml", GOOD),), {}), (TWO_BAD, {"complete": "true"})):
        status, answer = await stage.upload("theirs", *files, **query)
        assert (status, answer["error_code"]) == (403, "APIGW.0302")
        assert "belongs to another route" in answer["error_msg"]

    build = (await stage.why())["build"]
    assert (build["state"], build["end_reason"], len(build["reports"]), build["rejections"]) == ("open", None, 1, [])
    assert (await stage.upload("ours", complete="true"))[0] == 200
    build = (await stage.why())["build"]
    assert build["end_reason"] in (None, "caller")  # the worker ends it next


@by_branch
async def test_complete_counts_only_once_the_route_of_the_build_is_one_of_its_callers(stage):
    assert (await stage.upload("theirs", complete="true"))[0] == 200
    assert (await stage.upload("ours", ("good.xml", GOOD), branch="main"))[0] == 200
    await stage.pinned("a")
    build = (await stage.why())["build"]
    assert (build["state"], build["end_reason"]) == ("open", None)
