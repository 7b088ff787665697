"""Every answer of the sandbox's CodeArts Build has the fields and types of Huawei's API definitions."""

import json
from pathlib import Path

import aiohttp
import pytest

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
PROJECT = "b4d3971c3988463b865f6f920846149e"
TYPES = json.loads(Path(__file__).parents[2].joinpath("samples", "codearts-build", "types.json").read_text())
ERROR = {"error_code": "string", "error_msg": "string"}
GATEWAY_ERROR = {**ERROR, "request_id": "string"}
WINDOW = "start_time=2023-11-01 00:00:00&end_time=2023-11-20 00:00:00"
UPLOADED = {"status": "string", "error": "string", "result": "string"}  # table 3 of the reference's page
KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict}


def deviations(value, expected, where=""):
    """Yield where `value` has other fields or types than `expected`; null is a value of every type."""
    if value is None:
        return
    kind = KINDS[expected] if isinstance(expected, str) else type(expected)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        yield f"{where} is {type(value).__name__}, not {expected if isinstance(expected, str) else kind.__name__}"
    elif isinstance(expected, list):
        for index, entry in enumerate(value):
            yield from deviations(entry, expected[0], f"{where}[{index}]")
    elif isinstance(expected, dict):
        yield from deviations_of_fields(value, expected, where)


def deviations_of_fields(value, expected, where):
    if "*" in expected:
        expected = dict.fromkeys(value, expected["*"])
    names = {name.removesuffix("?"): part for name, part in expected.items()}
    required = {name for name in expected if not name.endswith("?")} - {"error"}
    yield from (f"{where}.{name} is not in the definition" for name in sorted(set(value) - set(names)))
    yield from (f"{where}.{name} is missing" for name in sorted(required - set(value)))
    for name in set(value) & set(names):
        yield from deviations(value[name], names[name], f"{where}.{name}")


def paths(record_id):
    return {
        "GET /v1/job/{job_id}/{build_no}/build-info": f"/v1/job/{JOB}/1/build-info",
        "GET /v1/record/{job_id}/{build_no}/record-info": f"/v1/record/{JOB}/1/record-info",
        "GET /v4/jobs/{job_id}/{build_no}/record-info": f"/v4/jobs/{JOB}/1/record-info",
        "GET /v1/record/{record_id}/info": f"/v1/record/{record_id}/info",
        "GET /v1/record/{job_id}/list": f"/v1/record/{JOB}/list?{WINDOW}",
        "GET /v1/job/{project_id}/list": f"/v1/job/{PROJECT}/list?page_index=0&page_size=100",
        "GET /v1/record/{record_id}/full-stages": f"/v1/record/{record_id}/full-stages",
        "GET /v1/report/{job_id}/summary": f"/v1/report/{JOB}/summary?build_no=1",
        "GET /v1/report/junit/coverage/list": f"/v1/report/junit/coverage/list?job_id={JOB}&build_no=1",
    }


async def upload(http, sandbox, kind, body):
    form = aiohttp.FormData()
    form.add_field("files", body, filename="a.xml")
    target = f"/v1/report/junit/{kind}/upload?job_id={JOB}&build_no=1&node_id=1"
    async with http.post(sandbox.codearts_url + target, data=form) as answer:
        return await answer.json()


@pytest.mark.parametrize("result", [None, "SUCCESS", "FAILURE", "ABORTED"])
@pytest.mark.parametrize("call", sorted(TYPES))
async def test_every_answer_has_the_fields_and_types_of_its_definition(http, sandbox, clock, call, result):
    build = sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
    for kind in ("report", "coverage"):
        assert not list(deviations(await upload(http, sandbox, kind, b"<testsuite><testcase/></testsuite>"), UPLOADED))
    clock.move(60)
    if result:
        sandbox.state.builds.end(JOB, 1, at=sandbox.state.micros(), build_result=result)
    path = paths(build.record()["build_record_id"])[call]
    async with http.get(sandbox.codearts_url + path) as answer:
        assert answer.status == 200
        body = await answer.json()
    assert list(deviations(body, TYPES[call])) == []
    filled = body.get("result", body)
    assert all(value for value in filled.values() if isinstance(value, list)), "a list without an entry shows nothing"


@pytest.mark.parametrize("call", sorted(TYPES))
async def test_every_error_has_the_fields_of_its_definition(http, sandbox, call):
    path = paths("unknown")[call].replace("page_size=100", "").replace("end_time", "x")
    async with http.get(sandbox.codearts_url + path) as answer:
        assert answer.status in (400, 422)
        assert list(deviations(await answer.json(), ERROR)) == []


@pytest.mark.parametrize(
    "changes", [{"calls_per_minute": {"*": 0}}, {"credentials_wanted": True}], ids=["throttled", "unauthorized"]
)
@pytest.mark.parametrize("call", sorted(TYPES))
async def test_errors_of_the_gateway_have_a_request_id(http, sandbox, call, changes):
    sandbox.state.behavior = sandbox.state.behavior.changed(changes)
    async with http.get(sandbox.codearts_url + paths("unknown")[call]) as answer:
        assert answer.status in (401, 429)
        assert list(deviations(await answer.json(), GATEWAY_ERROR)) == []


async def test_most_stages_have_no_node(http, sandbox):
    build = sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
    path = f"/v1/record/{build.record()['build_record_id']}/full-stages"
    async with http.get(sandbox.codearts_url + path) as answer:
        stages = (await answer.json())["result"]["build_stages"]
    assert {name: stage["node_id"] for name, stage in stages.items()} == {"initial": None, "stage1": 1, "final": None}


def test_the_check_itself_finds_what_differs():
    expected = {"a": "string", "b?": ["integer"], "c": {"d": "boolean"}}
    assert list(deviations({"a": "x", "c": {"d": None}}, expected)) == []
    assert sorted(deviations({"a": 1, "b": ["1"], "c": {"d": 1}, "e": 2}, expected)) == [
        ".a is int, not string",
        ".b[0] is str, not integer",
        ".c.d is int, not boolean",
        ".e is not in the definition",
    ]
    assert list(deviations({"c": True}, expected)) == [".a is missing", ".c is bool, not dict"]
