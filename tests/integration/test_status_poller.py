"""A whole gateway beside the sandbox: which calls to CodeArts it makes to find the ends of builds."""

from dataclasses import replace

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.whole import JOB, ask, running_gateway, until, upload

BUILDS = range(1, 9)
FAILED = ("FAILURE", "build_info")


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def gateway(tmp_path, sandbox):
    codearts = f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n'
    async with running_gateway(tmp_path, sandbox, codearts) as running:
        yield running


def start(sandbox, *numbers):
    world = sandbox.state
    for number in numbers:
        world.builds.start(JOB, number, at=world.micros())


def end(sandbox, *numbers, result="SUCCESS"):
    world = sandbox.state
    for number in numbers:
        world.builds.end(JOB, number, at=world.micros(), build_result=result)


def calls(sandbox, name):
    return len(sandbox.state.calls.at(f"codearts.{name}"))


def finalized(sandbox):
    return sum(1 for run in sandbox.state.runs.all() if run.finalize_calls)


async def test_one_list_finds_the_ends_of_all_builds_of_a_job(gateway, sandbox):
    start(sandbox, *BUILDS)
    for number in BUILDS:
        await upload(gateway, number)
    await until(lambda: calls(sandbox, "record_list") > 0)
    asked = calls(sandbox, "build_info")

    end(sandbox, *BUILDS)

    await until(lambda: finalized(sandbox) == len(BUILDS))
    assert calls(sandbox, "build_info") - asked < len(BUILDS) // 2


async def open_builds(gateway, sandbox, numbers=BUILDS):
    start(sandbox, *numbers)
    for number in numbers:
        await upload(gateway, number)


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 403, "body": {"error_code": "CB.00060403", "error_msg": "no permission"}},
        {"status": 404, "body": {"error_code": "APIGW.0101", "error_msg": "no such API"}},
        {"status": 500, "body": "<html>"},
        {"status": 200, "body": "<html>"},
        {"status": 200, "body": {"status": "success", "result": {"job_build_states": "none"}}},
        {"status": 200, "body": {"status": "success", "result": {"job_build_states": []}}},
        {"status": 200, "body": {"status": "success", "result": {"job_build_states": [None, 7, {"number": "x"}]}}},
        {"cut": True},
    ],
    ids=["refused", "not there", "failing", "garbled", "odd", "empty", "odd entries", "cut"],
)
async def test_a_list_that_cannot_be_used_leaves_all_builds_to_build_info(gateway, sandbox, answer):
    sandbox.state.faults.at_random("codearts.record_list", rate=1, answer=answer, seed=1)
    await open_builds(gateway, sandbox)
    end(sandbox, *BUILDS)
    await until(lambda: finalized(sandbox) == len(BUILDS))
    assert calls(sandbox, "build_info") >= len(BUILDS)


async def test_a_build_that_the_list_lacks_is_found_by_build_info(gateway, sandbox):
    lacking = {"number": 1, "job_running_status": "Finished", "state": "SUCCESS"}
    body = {"status": "success", "error": None, "result": {"job_build_states": [lacking], "total_page": "1"}}
    sandbox.state.faults.at_random("codearts.record_list", rate=1, answer={"status": 200, "body": body}, seed=1)
    await open_builds(gateway, sandbox)
    end(sandbox, *BUILDS, result="FAILURE")
    await until(lambda: finalized(sandbox) == len(BUILDS))
    assert calls(sandbox, "build_info") >= len(BUILDS) - 1  # the list has the first


async def test_a_build_does_not_end_because_another_of_its_job_has(gateway, sandbox):
    await open_builds(gateway, sandbox)
    end(sandbox, *BUILDS[1:])
    await until(lambda: finalized(sandbox) == len(BUILDS) - 1)
    before = calls(sandbox, "record_list") + calls(sandbox, "build_info")
    await until(lambda: calls(sandbox, "record_list") + calls(sandbox, "build_info") > before + 1)
    assert finalized(sandbox) == len(BUILDS) - 1


async def test_the_state_that_a_list_shows_is_the_result_of_the_build(gateway, sandbox):
    await open_builds(gateway, sandbox)
    sandbox.state.faults.at_random("codearts.build_info", rate=1, answer={"status": 500, "body": "<html>"}, seed=1)
    end(sandbox, *BUILDS, result="FAILURE")

    async def shows_results():
        shown = (await ask(gateway, "builds"))["builds"]
        return [(build["build_result"], build["end_reason"]) for build in shown] == [FAILED] * len(BUILDS)

    await until(shows_results)


async def test_throttling_shows_in_readyz_and_metrics(gateway, sandbox):
    sandbox.state.behavior = replace(sandbox.state.behavior, calls_per_minute={"codearts.*": 3})
    await open_builds(gateway, sandbox, range(1, 4))
    async with aiohttp.ClientSession() as http:

        async def shown():
            async with http.get(f"{gateway.admin_url}/readyz") as answer:
                return [rate for rate in (await answer.json())["codearts_rates"] if rate["throttled_at"]]

        async def counted():
            async with http.get(f"{gateway.admin_url}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            return [line for line in lines if line.startswith("bridge_codearts_")]

        async def are_counted():
            api, lines = f'api="{rate["api"]}"', await counted()
            throttled = [line for line in lines if line.startswith("bridge_codearts_throttled_total") and api in line]
            paced = [line for line in lines if line.startswith(f"bridge_codearts_calls_per_minute{{{api}")]
            return bool(paced) and bool(throttled) and not throttled[0].endswith(" 0.0")

        await until(shown)
        (rate, *_) = await shown()
        assert rate["sentence"].startswith(("CodeArts takes about ", "CodeArts throttled "))
        await until(are_counted)


async def test_after_an_outage_of_codearts_the_ends_are_found_without_a_new_upload(gateway, sandbox):
    sandbox.state.faults.at_random("codearts.*", rate=1, answer={"status": 503, "body": ""}, seed=1)
    await open_builds(gateway, sandbox, range(1, 4))

    async def is_away():
        async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/readyz") as answer:
            return any(each["name"] == "codearts" for each in (await answer.json())["upstreams"])

    await until(is_away)
    sandbox.state.faults.clear()
    end(sandbox, 1, 2, 3)
    await until(lambda: finalized(sandbox) == 3)
