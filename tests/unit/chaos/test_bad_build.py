import json

import aiohttp
import pytest
from yarl import URL

from bridge.sandbox.sandbox import DEFAULT_PROJECT_TOKEN, Sandbox
from tests.chaos.bad_build import BadAnswers
from tests.chaos.faults import ODD_ANSWERS
from tests.chaos.plan import BAD_JOB, BAD_PLACES, BadBuild, Ending, Play
from tests.support.builds import small_build

GOOD = small_build(1)
BAD = small_build(1, job_id=BAD_JOB)
PLAY = Play(at_seconds=0, build=BAD, ending=Ending.TOLD, repeats=False, patient=True, pause_seconds=0)
HEADERS = {"Project-Token": DEFAULT_PROJECT_TOKEN}


async def calls(sandbox, build, *, as_json):
    """Make the four calls about a build; return the status and text of each by its place, as far as they come."""
    found = {}

    async def call(place, method, url, **request):
        async with http.request(method, url, allow_redirects=False, **request) as answer:
            found[place] = (answer.status, await answer.text())

    def fields(plain, nested):
        if as_json:
            return {"json": nested}
        form = aiohttp.MultipartWriter("form-data")
        for name, value in plain.items():
            form.append(value).set_content_disposition("form-data", name=name)
        return {"data": form}

    build_id = build.testnod_build_id
    sandbox.state.builds.start(build.job_id, build.build_no, at=sandbox.state.micros())
    runs = f"{sandbox.testnod_url}/integrations/test_runs"
    async with aiohttp.ClientSession() as http:
        named = fields({"test_run[metadata][build_id]": build_id}, {"test_run": {"metadata": {"build_id": build_id}}})
        await call("testnod.register", "POST", f"{runs}/upload", headers=HEADERS, **named)
        if found["testnod.register"][0] == 201:
            registered = json.loads(found["testnod.register"][1])
            stored = {"data": b"<testsuite/>", "headers": {"Content-Type": "application/xml"}}
            await call("s3.put", "PUT", URL(registered["presigned_url"], encoded=True), **stored)
            named = fields({"build_id": build_id}, {"build_id": build_id})
            await call("testnod.finalize", "POST", f"{runs}/finalize", headers=HEADERS, **named)
        url = f"{sandbox.codearts_url}/v1/job/{build.job_id}/{build.build_no}/build-info"
        await call("codearts.build_info", "GET", url)
    return found


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("place", BAD_PLACES)
async def test_one_build_is_answered_oddly_at_one_place_until_it_is_healed(place, as_json):
    sandbox = Sandbox()
    answers = BadAnswers(BadBuild(play=PLAY, place=place, what="404 with a page"), sandbox)
    odd = ODD_ANSWERS[place]["404 with a page"]
    with answers.installed():
        await sandbox.__aenter__()
    try:
        good, bad = [await calls(sandbox, build, as_json=as_json) for build in (GOOD, BAD)]
        assert set(good) == set(BAD_PLACES)
        assert {status for status, _ in good.values()} == {200, 201}
        assert {at for at, (status, text) in bad.items() if (status, text) == (404, odd["body"])} == {place}
        assert answers.given == 1
        answers.healed = True
        healed = await calls(sandbox, BAD, as_json=as_json)
        assert {status for status, _ in healed.values()} == {200, 201}
    finally:
        await sandbox.__aexit__(None, None, None)
