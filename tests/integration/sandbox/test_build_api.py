import pytest

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"


async def get(http, sandbox, path, **headers):
    async with http.get(sandbox.codearts_url + path, headers=headers) as answer:
        assert answer.headers["X-Request-Id"]
        return answer.status, await answer.json()


async def test_build_info_is_an_object_and_on_demand_an_array(http, sandbox):
    sandbox.world.builds.start(JOB, 61, at=sandbox.world.micros())
    info = {"building": True, "build_result": None, "region": "cn-north-4"}
    path = f"/v1/job/{JOB}/61/build-info"
    assert await get(http, sandbox, path) == (200, {"result": info, "error": None, "status": "success"})
    sandbox.world.behaviour = sandbox.world.behaviour.changed({"result_shape": "array"})
    assert await get(http, sandbox, path) == (200, {"result": [info], "error": None, "status": "success"})


async def test_both_record_infos_answer_the_same(http, sandbox):
    sandbox.world.builds.start(JOB, 61, at=sandbox.world.micros(), record={"branch": "release"})
    old = await get(http, sandbox, f"/v4/jobs/{JOB}/61/record-info")
    new = await get(http, sandbox, f"/v1/record/{JOB}/61/record-info")
    assert old == new
    assert old[0] == 200
    assert old[1]["status"] == "success"
    assert old[1]["result"]["branch"] == "release"


@pytest.mark.parametrize("build_no", ["1", "x", "9" * 30])
@pytest.mark.parametrize(
    "path", ["/v1/job/{}/{}/build-info", "/v4/jobs/{}/{}/record-info", "/v1/record/{}/{}/record-info"]
)
async def test_a_build_that_is_not_known_is_422(http, sandbox, path, build_no):
    status, body = await get(http, sandbox, path.format(JOB, build_no))
    assert (status, body["error_code"]) == (422, "DEVCB.00031006")
    assert set(body) == {"error_code", "error_msg"}


async def test_an_api_that_is_not_known_is_the_gateways_404(http, sandbox):
    status, body = await get(http, sandbox, "/v1/job/list")
    assert (status, body["error_code"]) == (404, "APIGW.0101")
    assert set(body) == {"error_code", "error_msg", "request_id"}


async def test_a_token_is_wanted_once_tokens_are_set(http, sandbox):
    sandbox.world.builds.start(JOB, 1, at=sandbox.world.micros())
    sandbox.world.behaviour = sandbox.world.behaviour.changed({"codearts_tokens": ["right" * 20_000]})
    path = f"/v1/job/{JOB}/1/build-info"
    assert (await get(http, sandbox, path))[0] == 401
    status, body = await get(http, sandbox, path, **{"X-Auth-Token": "wrong"})
    assert (status, body["error_code"]) == (401, "APIGW.0301")
    assert (await get(http, sandbox, path, **{"X-Auth-Token": "right" * 20_000}))[0] == 200
