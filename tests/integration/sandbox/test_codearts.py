"""CodeArts Build and CodeArts Check of the sandbox, over HTTP."""

import pytest

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"


async def get(http, sandbox, path, **headers):
    async with http.get(sandbox.codearts_url + path, headers=headers) as answer:
        assert answer.headers["X-Request-Id"]
        return answer.status, await answer.json()


async def test_build_info_is_an_object_and_on_demand_an_array(http, sandbox):
    sandbox.state.builds.start(JOB, 61, at=sandbox.state.micros())
    info = {"building": True, "build_result": None, "region": "cn-north-4"}
    path = f"/v1/job/{JOB}/61/build-info"
    assert await get(http, sandbox, path) == (200, {"result": info, "error": None, "status": "success"})
    sandbox.state.behavior = sandbox.state.behavior.changed({"result_shape": "array"})
    assert await get(http, sandbox, path) == (200, {"result": [info], "error": None, "status": "success"})


async def test_both_record_infos_answer_the_same(http, sandbox):
    sandbox.state.builds.start(JOB, 61, at=sandbox.state.micros(), record={"branch": "release"})
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
    sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
    sandbox.state.behavior = sandbox.state.behavior.changed({"codearts_tokens": ["right" * 20_000]})
    path = f"/v1/job/{JOB}/1/build-info"
    assert (await get(http, sandbox, path))[0] == 401
    status, body = await get(http, sandbox, path, **{"X-Auth-Token": "wrong"})
    assert (status, body["error_code"]) == (401, "APIGW.0301")
    assert (await get(http, sandbox, path, **{"X-Auth-Token": "right" * 20_000}))[0] == 200


REFRESH = "/v1/jobs/{}/result/refresh"


@pytest.fixture
def call(http, sandbox):
    async def call(method, path, **options):
        async with http.request(method, sandbox.check_url + path, **options) as answer:
            return answer.status, await answer.json()

    return call


@pytest.fixture
async def exec_id(http, sandbox, call):
    """The execution id of a run that is under way."""
    async with http.post(f"{sandbox.control_url}/checks", json={"task_id": "t1"}) as answer:
        assert answer.status == 201
    return (await call("POST", "/v2/tasks/t1/run"))[1]["exec_id"]


async def end(http, sandbox, **body):
    async with http.post(f"{sandbox.control_url}/checks/t1/end", json=body) as answer:
        return answer.status


async def test_only_a_run_that_goes_on_has_a_progress(http, sandbox, call, exec_id):
    path = f"/v2/tasks/t1/progress?job_id={exec_id}"
    body = {"task_status": 0, "progress": {"ratio": "50%", "info": "Performing the check..."}}
    assert await call("GET", path) == (200, body)
    assert await end(http, sandbox) == 200
    assert await call("GET", path) == (200, {"task_status": 2})


async def test_a_report_is_read_by_execution_or_by_task(http, sandbox, call, exec_id):
    await end(http, sandbox, report={"critical": 7, "COMFIRM": 3})
    for path in (REFRESH.format(exec_id) + "?task_id=&async=false", REFRESH.format("any") + "?task_id=t1&async=false"):
        status, body = await call("PUT", path)
        assert (status, body["status"], body["httpStatus"]) == (200, "success", "OK")
        result = body["result"]
        assert (result["critical"], result["COMFIRM"], result["CRITICAL"]) == (7, 3, 4)


async def test_in_the_background_there_is_no_result(http, sandbox, call, exec_id):
    await end(http, sandbox)
    for query in ("", "?async=true"):
        assert await call("PUT", REFRESH.format(exec_id) + query) == (200, {"httpStatus": "OK", "status": "success"})


@pytest.mark.usefixtures("exec_id")
async def test_by_task_the_latest_run_that_succeeded_counts(http, sandbox, call):
    await end(http, sandbox, report={"critical": 1})
    await call("POST", "/v2/tasks/t1/run")
    await end(http, sandbox, task_status=1)
    status, body = await call("PUT", REFRESH.format("any") + "?task_id=t1&async=false")
    assert (status, body["result"]["critical"]) == (200, 1)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("PUT", REFRESH.format("unknown"), "CC.00070400.400"),
        ("PUT", REFRESH.format("unknown") + "?task_id=t1", "CC.00070400.400"),
        ("POST", "/v2/tasks/unknown/run", "CC.00070400.400"),
        ("GET", "/v2/tasks/unknown/progress", "CC.00000000"),
    ],
)
@pytest.mark.usefixtures("exec_id")
async def test_what_is_not_known_is_a_bad_request(call, method, path, code):
    status, body = await call(method, path)
    assert (status, body["error_code"]) == (400, code)


async def test_async_is_true_or_false(http, sandbox, call, exec_id):
    await end(http, sandbox)
    assert (await call("PUT", REFRESH.format(exec_id) + "?async=1"))[0] == 400


async def test_a_token_that_has_ended_is_rejected_in_checks_own_words(sandbox, call):
    accounts, at = sandbox.state.accounts, sandbox.state.micros()
    token = accounts.issue_token(accounts.add_user("u", "p", "d"), "cn-north-4", at=at, seconds=0)
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    status, body = await call("GET", "/v2/tasks/t1/progress", headers={"X-Auth-Token": token.value})
    assert (status, body) == (401, {"error_code": "CC.00000003", "error_msg": "Authentication information expired."})
    assert (await call("GET", "/v2/tasks/t1/progress"))[1]["error_code"] == "APIGW.0301"
