import pytest

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"


@pytest.fixture
def control(http, sandbox):
    async def call(method, path, json=None):
        async with http.request(method, sandbox.control_url + path, json=json) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await (answer.json() if is_json else answer.read())

    return call


async def test_a_build_is_started_ended_and_forgotten(control, http, sandbox):
    url = f"{sandbox.codearts_url}/v1/job/{JOB}/3/build-info"
    assert await control("POST", "/builds", {"job_id": JOB, "build_no": 3, "record": {"branch": "x"}}) == (
        201,
        {"job_id": JOB, "build_no": 3, "building": True, "build_result": None, "region": "cn-north-4"},
    )
    async with http.get(url) as answer:
        assert (await answer.json())["result"]["building"] is True
    status, build = await control("POST", f"/builds/{JOB}/3/end", {"build_result": "FAILURE"})
    assert (status, build["building"], build["build_result"]) == (200, False, "FAILURE")
    assert (await control("DELETE", f"/builds/{JOB}/3"))[0] == 204
    async with http.get(url) as answer:
        assert answer.status == 422


async def test_a_build_ends_in_success_unless_told_otherwise(control):
    await control("POST", "/builds", {"job_id": JOB, "build_no": "3"})
    assert (await control("POST", f"/builds/{JOB}/3/end"))[1]["build_result"] == "SUCCESS"


async def test_runs_show_their_uploads_and_their_bytes(control, testnod, clock):
    _, registration = await testnod.register()
    await testnod.put(registration, b"<testsuite/>")
    await testnod.register("other")
    clock.move(1)
    await testnod.finalize()
    at = int(clock() * 1_000_000)
    ((run),) = (await control("GET", "/runs?build_id=b1"))[1]["runs"]
    assert (run["id"], run["status"], run["project"]) == (registration["test_run_id"], "processing", "sandbox")
    assert (run["opened_at"], run["finalized_at"], run["finalize_calls"]) == (at - 1_000_000, at, [at])
    assert run["transitions"] == [{"status": "pending", "at": at - 1_000_000}, {"status": "processing", "at": at}]
    (upload,) = run["uploads"]
    assert (upload["upload_id"], upload["state"], upload["size"]) == (registration["upload_id"], "processed", 12)
    assert (upload["metadata"], upload["tags"]) == ({"build_id": "b1"}, ["Default"])
    assert await control("GET", f"/uploads/{upload['upload_id']}/bytes") == (200, b"<testsuite/>")
    assert len((await control("GET", "/runs"))[1]["runs"]) == 2


async def test_a_failed_upload_shows_why(control, testnod):
    _, registration = await testnod.register()
    await testnod.upload_failed(registration, "s3 PUT returned 502")
    ((run),) = (await control("GET", "/runs"))[1]["runs"]
    assert (run["uploads"][0]["state"], run["uploads"][0]["failure_message"]) == ("failed", "s3 PUT returned 502")


async def test_calls_are_shown_by_place(control, testnod):
    await testnod.register()
    await testnod.finalize()
    ((call),) = (await control("GET", "/calls?where=testnod.finalize"))[1]["calls"]
    assert (call["where"], call["status"], call["headers"]["Project-Token"]) == ("testnod.finalize", 200, "present")
    assert len((await control("GET", "/calls"))[1]["calls"]) == 2


async def test_faults_are_ordered_and_cleared(control, testnod):
    assert (await control("POST", "/faults", {"where": "testnod.*", "answers": [{"status": 500, "body": {}}, "pass"]}))[
        0
    ] == 204
    assert [(await testnod.register())[0] for _ in range(3)] == [500, 201, 201]
    chance = {"where": "*", "rate": 1, "answer": {"status": 502, "body": {}}, "seed": 3}
    assert (await control("POST", "/faults", chance))[0] == 204
    assert (await testnod.register())[0] == 502
    assert (await control("DELETE", "/faults"))[0] == 204
    assert (await testnod.register())[0] == 201


async def test_projects_are_opened_and_closed(control, testnod):
    assert (await testnod.register(token="till"))[0] == 404
    assert (await control("POST", "/projects", {"token": "till", "name": "Till"}))[0] == 201
    assert (await testnod.register(token="till"))[0] == 201
    assert (await control("DELETE", "/projects/till"))[0] == 204
    assert (await testnod.register(token="till"))[0] == 404


async def test_an_empty_run_is_opened(control, sandbox, testnod):
    status, run = await control("POST", "/runs", {"token": sandbox.project_token, "build_id": "empty"})
    assert (status, run["status"], run["uploads"]) == (201, "pending", [])
    assert (await testnod.finalize("empty"))[0] == 422


async def test_settings_change_how_the_sandbox_behaves(control, sandbox):
    status, settings = await control("POST", "/settings", {"url_seconds": 7, "codearts_tokens": ["t"]})
    assert (status, settings["url_seconds"], settings["codearts_tokens"]) == (200, 7, ["t"])
    assert sandbox.state.behavior.url_seconds == 7


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/builds", []),
        ("/builds", {"job_id": JOB}),
        ("/builds", {"job_id": JOB, "build_no": True}),
        ("/builds", {"job_id": "short", "build_no": 1}),
        ("/builds", {"job_id": JOB, "build_no": 1, "record": "main"}),
        (f"/builds/{JOB}/one/end", {}),
        ("/projects", {"token": "t"}),
        ("/faults", {"where": "nowhere", "answers": []}),
        ("/faults", {"where": "*"}),
        ("/faults", {"where": "*", "rate": "often", "answer": {}}),
        ("/settings", {"colour": "red"}),
    ],
)
async def test_what_cannot_be_done_is_400_with_a_sentence(control, path, body):
    status, answer = await control("POST", path, body)
    assert status == 400
    assert answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"/builds/{JOB}/1/end", {}),
        ("POST", "/runs", {"token": "nobody", "build_id": "b"}),
        ("GET", "/uploads/99/bytes", None),
    ],
)
async def test_what_does_not_exist_is_404_with_a_sentence(control, method, path, body):
    status, answer = await control(method, path, body)
    assert status == 404
    assert answer["error"]
