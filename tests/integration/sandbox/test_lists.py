"""The sandbox's lists of builds and jobs, its details of records, and its limits of calls in a minute."""

import pytest

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
OTHER = "0" * 31 + "1"
PROJECT = "b4d3971c3988463b865f6f920846149e"
WINDOW = "start_time=2023-11-14 00:00:00&end_time=2023-11-15 23:00:00"  # the clock stands at 2023-11-14T22:13:20Z


async def get(http, sandbox, path):
    async with http.get(sandbox.codearts_url + path) as answer:
        return answer.status, await answer.json()


def start(sandbox, build_no, job=JOB, **fields):
    return sandbox.state.builds.start(job, build_no, at=sandbox.state.micros(), **fields)


def end(sandbox, build_no, job=JOB, result="SUCCESS"):
    sandbox.state.builds.end(job, build_no, at=sandbox.state.micros(), build_result=result)


async def listed(http, sandbox, query=WINDOW):
    status, body = await get(http, sandbox, f"/v1/record/{JOB}/list?{query}")
    assert (status, body["status"]) == (200, "success")
    return body["result"]


async def test_builds_of_a_job_are_listed_newest_first(http, sandbox, clock):
    for build_no in (1, 2, 10):
        start(sandbox, build_no)
    start(sandbox, 3, OTHER)
    clock.move(60)
    end(sandbox, 2, result="FAILURE")
    result = await listed(http, sandbox)
    shown = [(build["number"], build["job_running_status"], build["state"]) for build in result["job_build_states"]]
    assert shown == [(10, "Running", "RUNNING"), (2, "Finished", "FAILURE"), (1, "Running", "RUNNING")]
    assert (result["total_record"], result["total_page"], result["page_index"]) == ("3", "1", "0")
    assert result["job_build_states"][1]["build_time"] == 60_000


async def test_builds_are_listed_in_pages(http, sandbox):
    for build_no in range(1, 6):
        start(sandbox, build_no)
    result = await listed(http, sandbox, f"{WINDOW}&page_index=1&page_size=2")
    assert [build["number"] for build in result["job_build_states"]] == [3, 2]
    assert (result["total_record"], result["total_page"], result["page_index"]) == ("5", "3", "1")


async def test_a_window_is_read_in_the_time_zone_of_the_settings(http, sandbox):
    start(sandbox, 1)
    hour = "start_time=2023-11-14 22:00:00&end_time=2023-11-14 23:00:00"
    assert (await listed(http, sandbox, hour))["job_build_states"] == []  # read in China's time
    sandbox.state.behavior = sandbox.state.behavior.changed({"list_utc_offset_hours": 0})
    assert len((await listed(http, sandbox, hour))["job_build_states"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "",
        "start_time=2023-11-14 00:00:00",
        "start_time=2023-11-14&end_time=2023-11-15",
        "start_time=2023-11-15 00:00:00&end_time=2023-11-14 00:00:00",
        "start_time=2023-10-14 00:00:00&end_time=2023-11-15 00:00:00",
        f"{WINDOW}&page_size=101",
        f"{WINDOW}&page_index=-1",
    ],
)
async def test_a_window_or_page_that_is_out_of_range_is_400(http, sandbox, query):
    status, body = await get(http, sandbox, f"/v1/record/{JOB}/list?{query}")
    assert (status, body["error_code"]) == (400, "CB.00060200")


async def test_jobs_of_a_project_show_their_latest_build(http, sandbox):
    start(sandbox, 1, details={"display_name": "nightly"})
    start(sandbox, 2, details={"display_name": "nightly"})
    end(sandbox, 2)
    start(sandbox, 7, OTHER)
    start(sandbox, 1, "2" * 32, record={"devcloud_project_id": "1" * 32})
    status, body = await get(http, sandbox, f"/v1/job/{PROJECT}/list?page_index=0&page_size=100")
    assert (status, body["total"]) == (200, 2)
    shown = [(job["id"], job["is_finished"], job["last_build_status"]) for job in body["jobs"]]
    assert shown == [(OTHER, False, "blue_anime"), (JOB, True, "blue")]
    assert body["jobs"][1]["job_name"] == "nightly"


async def test_a_list_of_jobs_needs_its_page(http, sandbox):
    status, body = await get(http, sandbox, f"/v1/job/{PROJECT}/list")
    assert (status, body["error_code"]) == (400, "CB.00060200")


async def test_details_have_the_commit_that_record_info_lacks(http, sandbox):
    build = start(sandbox, 12, record={"commit": None}, details={"revision": "abc"})
    status, body = await get(http, sandbox, f"/v1/record/{build.record()['build_record_id']}/info")
    assert (status, body["result"]["revision"], body["result"]["build_no"]) == (200, "abc", "12")
    assert (await listed(http, sandbox))["job_build_states"][0]["commit_id"] == "abc"
    assert (await get(http, sandbox, "/v1/record/unknown/info"))[0] == 422


def test_details_have_no_other_fields_than_the_definition(sandbox):
    with pytest.raises(ValueError, match="reversion"):
        start(sandbox, 1, details={"reversion": "abc"})


async def test_calls_above_the_limit_of_their_api_are_429_for_a_minute(http, sandbox, clock):
    start(sandbox, 1)
    path = f"/v1/job/{JOB}/1/build-info"
    sandbox.state.behavior = sandbox.state.behavior.changed({"calls_per_minute": {"codearts.build_info": 2}})
    assert [(await get(http, sandbox, path))[0] for _ in range(3)] == [200, 200, 429]
    status, body = await get(http, sandbox, path)
    assert (status, body["error_code"]) == (429, "APIGW.0308")
    assert set(body) == {"error_code", "error_msg", "request_id"}
    assert (await get(http, sandbox, f"/v1/record/{JOB}/1/record-info"))[0] == 200  # an API of its own
    clock.move(60)
    assert (await get(http, sandbox, path))[0] == 200


async def test_each_api_has_a_limit_of_its_own_under_a_pattern(http, sandbox):
    start(sandbox, 1)
    limits = {"codearts.*": 1, "codearts.record_info": 2}
    sandbox.state.behavior = sandbox.state.behavior.changed({"calls_per_minute": limits})
    for path, allowed in ((f"/v1/job/{JOB}/1/build-info", 1), (f"/v1/record/{JOB}/1/record-info", 2)):
        statuses = [(await get(http, sandbox, path))[0] for _ in range(4)]
        assert statuses == [200] * allowed + [429] * (4 - allowed)


async def test_a_429_has_retry_after_on_demand(http, sandbox, clock):
    start(sandbox, 1)
    path = f"{sandbox.codearts_url}/v1/job/{JOB}/1/build-info"
    changes = {"calls_per_minute": {"*": 1}}
    for wanted, seconds in ((False, None), (True, "50")):
        async with http.post(f"{sandbox.control_url}/settings", json={**changes, "retry_after": wanted}) as answer:
            assert answer.status == 200
        async with http.get(path):
            pass
        clock.move(5)
        async with http.get(path) as answer:
            assert (answer.status, answer.headers.get("Retry-After")) == (429, seconds)


@pytest.mark.parametrize(
    "limits", [{"codearts.build_info": -1}, {"testnod.register": 1}, {"nothing": 1}, {"*": "1"}, 5]
)
async def test_a_limit_that_makes_no_sense_is_rejected(http, sandbox, limits):
    async with http.post(f"{sandbox.control_url}/settings", json={"calls_per_minute": limits}) as answer:
        assert answer.status == 400
