"""A whole gateway that mirrors, beside the sandbox: CodeArts has what TestNod has, and each fails alone."""

import json
import os
from contextlib import asynccontextmanager

import pytest

from bridge.clock import SystemClock
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.mirror import STAGES_TIMEOUT
from bridge.sandbox.sandbox import DEFAULT_KEY, Sandbox
from tests.support.fake_clock import START, FakeClock
from tests.support.whole import JOB, PATIENCE_SECONDS, build_of, let_pass_until, running_gateway, until, upload, why

BUILDS = int(os.environ.get("BRIDGE_MIRRORED_BUILDS", "12"))  # 100 shows what the mirror promises; CI has less time
DELIVERY = '[delivery]\nretry_initial_delay = "100ms"\nretry_max_delay = "1s"\n'
AKSK = f'auth = "aksk"\naccess_key = "{DEFAULT_KEY[0]}"\nsecret_key = "{DEFAULT_KEY[1]}"\n'

REFUSED = {"status": 400, "body": {"error_code": "CB.00060200", "error_msg": "Invalid parameter: files."}}


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@asynccontextmanager
async def gateway(
    folder, sandbox, codearts="", mirror="true", delivery="", clock=None, patience_seconds=PATIENCE_SECONDS
):
    endpoint = f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n'
    tables = (f"mirror = {mirror}\n", endpoint, codearts, DELIVERY, delivery)
    async with running_gateway(folder, sandbox, *tables, clock=clock, patience_seconds=patience_seconds) as running:
        yield running


def junit(tests, failures=0, padding=0):
    failed = '<testcase name="f"><failure/></testcase>' * failures
    passed = '<testcase name="p"/>' * (tests - failures)
    return f"<testsuite>{failed}{passed}<!--{'x' * padding}--></testsuite>".encode()


async def copies(running):
    """Return the states of what the reports of the build owe to CodeArts."""
    reports = (await build_of(running))["reports"]
    return {each["state"] for report in reports for each in report["deliveries"] if each["target"] == "codearts"}


async def expect_mirror(running, mirror):
    """Wait until the mirror of the build begins with a text; the gateway's patience bounds it."""
    await until(lambda: _says(running, mirror))


async def _says(running, mirror):
    return ((await build_of(running))["mirror"] or "").startswith(mirror)


def start(sandbox, build_no=1):
    return sandbox.state.builds.start(JOB, build_no, at=sandbox.state.micros())


def at_codearts(sandbox, build):
    return sorted((report.node_id, report.total) for report in sandbox.state.reports.of(build))


def finalized(sandbox):
    return lambda: any(run.finalize_calls for run in sandbox.state.runs.all())


async def test_what_is_uploaded_is_at_codearts_too_and_both_sides_count_alike(tmp_path, sandbox):
    build = start(sandbox)
    async with gateway(tmp_path, sandbox) as running:
        await upload(running, 1, junit(3, 1), junit(2), node_id="1")
        await expect_mirror(running, "agrees")

        assert at_codearts(sandbox, build) == [("1", 2), ("1", 3)]
        assert "its mirror at CodeArts: agrees" in await why(running)
    assert len(sandbox.state.calls.at("codearts.upload")) == 1


async def test_a_node_that_codearts_does_not_know_becomes_the_one_it_knows(tmp_path, sandbox):
    build = start(sandbox)
    async with gateway(tmp_path, sandbox) as running:
        await upload(running, 1, junit(1), node_id="linux")
        await expect_mirror(running, "agrees")
    assert at_codearts(sandbox, build) == [("1", 1)]


LARGE = {"status": "success", "result": {"build_stages": {"stage1": {"node_id": 7, "log": "x" * 200_000}}}}


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 404, "body": {"error_code": "APIGW.0101", "error_msg": "The API does not exist."}},
        {"status": 404, "body": {"error_code": "CB.00031006", "error_msg": "No such record."}},
        {"status": 404},
        {"garbled": True},
        {"status": 200},
        {"status": 200, "body": {"status": "success", "result": None}},
        {"status": 200, "body": {"status": "success", "result": {"build_stages": {"initial": {"node_id": None}}}}},
        {"status": 200, "body": "x" * 2_000_000},
    ],
    ids=lambda answer: json.dumps(answer)[:60],
)
async def test_without_usable_full_stages_reports_go_to_the_node_they_were_sent_with(tmp_path, sandbox, answer):
    build = start(sandbox)
    sandbox.state.faults.at_random("codearts.full_stages", rate=1, answer=answer, seed=1)
    async with gateway(tmp_path, sandbox) as running:
        await upload(running, 1, junit(1), node_id="linux")
        await expect_mirror(running, "agrees")
    assert at_codearts(sandbox, build) == [("linux", 1)]


async def test_full_stages_above_64_kib_are_read(tmp_path, sandbox):
    build = start(sandbox)
    sandbox.state.faults.at_random("codearts.full_stages", rate=1, answer={"status": 200, "body": LARGE}, seed=1)
    async with gateway(tmp_path, sandbox) as running:
        await upload(running, 1, junit(1), node_id="linux")
        await expect_mirror(running, "agrees")
    assert at_codearts(sandbox, build) == [("7", 1)]


@pytest.mark.parametrize("answer", [{"status": 503}, {"status": 401}], ids=str)
async def test_a_short_outage_of_full_stages_is_waited_for(tmp_path, sandbox, answer):
    build = start(sandbox)
    sandbox.state.faults.script("codearts.full_stages", answer, answer)
    async with gateway(tmp_path, sandbox) as running:
        await upload(running, 1, junit(1), node_id="linux")
        await expect_mirror(running, "agrees")
    assert at_codearts(sandbox, build) == [("1", 1)]


@pytest.mark.parametrize("answer", [{"status": 503}, {"cut": True}], ids=str)
async def test_a_long_outage_of_full_stages_holds_no_report_back(tmp_path, sandbox, answer):
    clock = FakeClock()
    build = start(sandbox)
    sandbox.state.faults.at_random("codearts.full_stages", rate=1, answer=answer, seed=1)
    async with gateway(tmp_path, sandbox, clock=clock) as running:
        await upload(running, 1, junit(1), node_id="linux")
        await let_pass_until(running, clock, lambda: at_codearts(sandbox, build) == [("linux", 1)], SECOND)
    assert clock.now() >= START + STAGES_TIMEOUT


async def test_a_refusal_does_not_end_a_report_whose_node_could_not_be_asked_for(tmp_path, sandbox):
    clock = FakeClock()
    build = start(sandbox)
    sandbox.state.faults.at_random("codearts.full_stages", rate=1, answer={"status": 503}, seed=1)
    sandbox.state.faults.script("codearts.upload", *[REFUSED] * 3)
    async with gateway(tmp_path, sandbox, clock=clock) as running:
        await upload(running, 1, junit(1), node_id="linux")

        async def delivered():
            return await copies(running) == {"delivered"}

        await let_pass_until(running, clock, delivered, SECOND)
    assert at_codearts(sandbox, build) == [("linux", 1)]


PAGES = [
    {"status": 400, "body": "<html>Bad Request</html>"},
    {"status": 413, "body": "<html>Request Entity Too Large</html>"},
    {"status": 422},
]
NO_SUCCESS = [
    {"status": 200, "body": {}},
    {"status": 200, "body": {"code": 40001, "msg": "disk full"}},
    {"status": 200, "body": {"error": {"code": "CB.00060200", "message": "no"}, "result": "x"}},
    {"status": 200},
    {"status": 201, "body": {"status": "success"}},
    {"status": 302, "headers": {"Location": "/login"}},
]


@pytest.mark.parametrize("answer", [*PAGES, *NO_SUCCESS], ids=lambda answer: json.dumps(answer)[:60])
async def test_what_codearts_does_not_call_a_success_or_refuses_itself_is_tried_again_with_its_bytes(
    tmp_path, sandbox, answer
):
    build = start(sandbox)
    sandbox.state.faults.script("codearts.upload", *[answer] * 4)
    async with gateway(tmp_path, sandbox) as running:
        await upload(running, 1, junit(1), junit(2), junit(3, padding=300_000), node_id="1")
        await expect_mirror(running, "agrees")
        assert await copies(running) == {"delivered"}
    assert at_codearts(sandbox, build) == [("1", 1), ("1", 2), ("1", 3)]


async def test_what_is_no_success_at_last_is_given_up_as_late_as_the_settings_say(tmp_path, sandbox):
    clock = FakeClock(SystemClock().now())  # the stand-ins' own time: else the clock would be doubted
    began = clock.now()
    start(sandbox)
    sandbox.state.faults.at_random("codearts.upload", rate=1, answer={"status": 400, "body": "<html>"}, seed=1)
    async with gateway(tmp_path, sandbox, delivery='give_up_after = "20m"\n', clock=clock) as running:
        await upload(running, 1, junit(1), node_id="1")

        async def dead():
            return await copies(running) == {"dead"}

        await let_pass_until(running, clock, dead, 30 * SECOND)
    assert clock.now() >= began + 20 * 60 * SECOND


async def test_a_codearts_that_hangs_holds_no_run_back(tmp_path, sandbox):
    start(sandbox)
    sandbox.state.faults.at_random("codearts.upload", rate=1, answer={"hang": True}, seed=1)
    async with gateway(tmp_path, sandbox) as running:
        await upload(running, 1, junit(1), node_id="1")
        sandbox.state.builds.end(JOB, 1, at=sandbox.state.micros())

        async def waits_for_codearts_alone():
            deliveries = (await build_of(running))["reports"][0]["deliveries"]
            return {each["target"]: each["state"] for each in deliveries} == {
                "testnod": "delivered",
                "codearts": "pending",
            }

        await until(finalized(sandbox))
        await until(waits_for_codearts_alone)


async def test_what_codearts_refuses_for_good_is_dead_there_and_delivered_at_testnod(tmp_path, sandbox):
    build = start(sandbox)
    sandbox.state.faults.script("codearts.upload", REFUSED, REFUSED)
    async with gateway(tmp_path, sandbox) as running:
        # Refused together, then each by itself, of which one once more.
        await upload(running, 1, junit(3), junit(2), node_id="1")
        await expect_mirror(running, "agrees")

        states = [
            each["state"]
            for report in (await build_of(running))["reports"]
            for each in report["deliveries"]
            if each["target"] == "codearts"
        ]
        assert sorted(states) == ["dead", "delivered"]
        assert "Invalid parameter: files" in await why(running)
    assert len(at_codearts(sandbox, build)) == 1


async def test_reports_whose_answer_was_lost_are_not_sent_again_if_codearts_counts_them(tmp_path, sandbox):
    build = start(sandbox)
    sandbox.state.faults.script("codearts.upload", {"cut": True, "after": True})
    async with gateway(tmp_path, sandbox) as running:
        await upload(running, 1, junit(2), node_id="1")
        await expect_mirror(running, "agrees")
        assert await copies(running) == {"delivered"}
    assert at_codearts(sandbox, build) == [("1", 2)]


async def test_reports_whose_request_was_lost_are_sent_again(tmp_path, sandbox):
    build = start(sandbox)
    sandbox.state.faults.script("codearts.upload", {"cut": True})
    async with gateway(tmp_path, sandbox) as running:
        await upload(running, 1, junit(2), node_id="1")
        await expect_mirror(running, "agrees")
    assert at_codearts(sandbox, build) == [("1", 2)]


async def test_a_report_too_large_to_be_signed_dies_at_once_and_says_why(tmp_path, sandbox):
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    build = start(sandbox)
    async with gateway(tmp_path, sandbox, AKSK) as running:
        await upload(running, 1, junit(1, padding=12_000_000), junit(2), node_id="1")
        await expect_mirror(running, "agrees")
        assert "Set codearts.auth" in await why(running)
    assert at_codearts(sandbox, build) == [("1", 2)]


async def test_a_route_without_mirror_leaves_codearts_alone(tmp_path, sandbox):
    start(sandbox)
    async with gateway(tmp_path, sandbox, mirror="false") as running:
        await upload(running, 1, junit(1), node_id="1")
        sandbox.state.builds.end(JOB, 1, at=sandbox.state.micros())
        await until(finalized(sandbox))
        assert (await build_of(running))["mirror"] is None
    assert sandbox.state.calls.at("codearts.upload") == []


async def test_mirrored_builds_are_whole_on_both_sides_though_codearts_fails_one_call_in_five(tmp_path, sandbox):
    sandbox.state.faults.at_random("codearts.*", rate=0.2, answer={"status": 503}, seed=7)
    started = {number: start(sandbox, number) for number in range(1, BUILDS + 1)}
    async with gateway(tmp_path, sandbox, patience_seconds=PATIENCE_SECONDS + 3 * BUILDS) as running:
        for number in started:
            await upload(running, number, junit(3, 1), junit(number), node_id="1")
            await upload(running, number, junit(5, 2), node_id="linux")
            sandbox.state.builds.end(JOB, number, at=sandbox.state.micros())
        for number in started:
            await until(lambda number=number: _agrees_and_is_finalized(running, number))
    assert {number: sum(total for _, total in at_codearts(sandbox, build)) for number, build in started.items()} == {
        number: 8 + number for number in started
    }
    runs = sandbox.state.runs.all()
    assert len({run.build_id for run in runs}) == BUILDS
    assert sum(len(run.uploads) for run in runs) == 3 * BUILDS


async def _agrees_and_is_finalized(running, number):
    build = await build_of(running, number)
    return build["mirror"] == "agrees" and build["state"] == "finalized"
