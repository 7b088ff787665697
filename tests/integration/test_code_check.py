"""A whole gateway beside the sandbox's CodeArts Check: one suite for each build, whatever Check answers."""

import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.sandbox.builds import CheckStatus
from bridge.sandbox.sandbox import DEFAULT_USER, Sandbox
from tests.support import whole
from tests.support.fake_clock import FakeClock
from tests.support.whole import build_of, let_pass, let_pass_until, running_gateway, why

SAMPLES = Path(__file__).parents[1] / "samples" / "codearts-check"
TASK = "e2acda04fab44eb991b9f28c00000000"
SECOND = 1_000_000
REFRESH = "check.refresh"
PASSWORD = """
auth = "password"
iam_endpoint = "{{iam}}"
project = "cn-north-4"
user = "{}"
password = "{}"
domain = "{}"
""".format(*DEFAULT_USER)
LONG_LEASE = '[delivery]\nlease_duration = "10m"\n'  # longer than Check hangs
LIMITS = "max_critical = 0\nmax_major = 0\nmax_minor = 200\nmax_suggestion = 10\nmax_new = 0"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def sandbox(clock):
    async with Sandbox(now=lambda: clock.now() / SECOND) as sandbox:
        sandbox.state.checks.open(TASK)
        yield sandbox


@asynccontextmanager
async def gateway(folder, sandbox, clock, code_check="max_critical = 0\nmax_major = 0", more=""):
    """Run a gateway whose time is the sandbox's: it stands still until a test moves it."""
    tables = (
        f'[routes.code_check]\ntask_id = "{TASK}"\n{code_check}\n',
        f'[codearts]\ncheck_endpoint = "{sandbox.check_url}"\n' + more.replace("{iam}", sandbox.iam_url),
    )
    async with running_gateway(folder, sandbox, *tables, clock=clock) as running:
        yield running


async def upload(running, build_no=1, *, node_id="n", complete=True):
    """Upload one report; the build is complete with it."""
    await whole.upload(running, build_no, node_id=node_id, complete=complete)


async def came_to_rest(running, clock, build_no=1, *, reports=1):
    """Move the clock from one wake to the next until the run of at least so many reports is finalized."""
    while (build := await build_of(running, build_no))["state"] != "finalized" or len(build["reports"]) < reports:
        await let_pass(running, clock)
    return build


async def check_is_asked(running, sandbox, clock):
    """Move the clock in the same way until Check has been called."""
    await let_pass_until(running, clock, lambda: bool(sandbox.state.calls.at(REFRESH)))


def suites_in(sandbox):
    """Return the bytes of each `codearts-check` suite that a run holds."""
    uploads = [upload for run in sandbox.state.runs.all(None) for upload in run.uploads]
    stored = [sandbox.state.objects.find(upload.key) for upload in uploads]
    return [one.body for one in stored if one is not None and b'name="codearts-check"' in one.body]


def check_ended(sandbox, status=CheckStatus.SUCCEEDED, **report):
    sandbox.state.checks.run(TASK)
    sandbox.state.checks.end(TASK, status, report)


async def test_the_example_of_the_reference_arrives_as_a_suite_of_the_run(sandbox, clock, tmp_path):
    check_ended(sandbox, **json.loads((SAMPLES / "answer.json").read_text())["result"])
    async with gateway(tmp_path, sandbox, clock, LIMITS) as running:
        await upload(running)
        build = await came_to_rest(running, clock)
        assert "CodeArts Check: 4 major issues, at most 0 allowed; 122 new issues" in await why(running)
    sample = (
        (SAMPLES / "suite.xml").read_bytes().replace(b"{requested_at}", build["code_check"]["answered_at"].encode())
    )
    assert suites_in(sandbox) == [sample]
    assert build["code_check"]["state"] == "answered"
    ours = build["reports"][1]
    assert (ours["name"], ours["caller"], ours["failures"], ours["errors"]) == ("codearts-check.xml", "bridge", 2, 0)
    assert len(sandbox.state.runs.all(None)) == 1
    (call,) = sandbox.state.calls.at(REFRESH)
    assert (call.method, call.path) == ("PUT", f"/v1/jobs/{TASK}/result/refresh")


async def test_a_report_within_its_limits_passes(sandbox, clock, tmp_path):
    check_ended(sandbox, major=0, CRITICAL=0)
    async with gateway(tmp_path, sandbox, clock) as running:
        await upload(running)
        build = await came_to_rest(running, clock)
    assert (build["code_check"]["summary"], len(suites_in(sandbox))) == ("all limits kept (2)", 1)
    assert (build["reports"][1]["failures"], build["reports"][1]["errors"]) == (0, 0)


@pytest.mark.parametrize(
    ("critical", "failures", "errors", "summary"),
    [
        ("12.0", 1, 0, "12 critical issues, at most 0 allowed"),
        ('"1,234"', 1, 0, "1234 critical issues, at most 0 allowed"),
        ("NaN", 0, 1, "CodeArts Check's number of critical issues cannot be read, at most 0 allowed"),
        ("null", 0, 1, "CodeArts Check's number of critical issues cannot be read, at most 0 allowed"),
    ],
)
async def test_a_number_that_is_oddly_written_never_counts_as_a_limit_kept(
    sandbox, clock, tmp_path, critical, failures, errors, summary
):
    body = f'{{"status": "success", "result": {{"FATAL": 0, "critical": {critical}}}}}'
    sandbox.state.faults.script(REFRESH, {"status": 200, "body": body})
    async with gateway(tmp_path, sandbox, clock, "max_critical = 0") as running:
        await upload(running)
        build = await came_to_rest(running, clock)
    assert build["code_check"]["summary"] == summary
    assert (build["reports"][1]["failures"], build["reports"][1]["errors"]) == (failures, errors)


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 200, "body": {"error_code": "CC.00000000", "error_msg": "busy"}},
        {"status": 200, "body": {"status": "failed", "httpStatus": "OK"}},
        {"status": 200, "body": ""},
        {"status": 503},
        {"cut": True},
        {"garbled": True},
        {"status": 429, "headers": {"Retry-After": "1"}},
    ],
    ids=["error inside 200", "failed inside 200", "empty", "503", "cut", "garbled", "throttled"],
)
async def test_trouble_is_asked_again_until_there_is_a_report(sandbox, clock, tmp_path, trouble):
    check_ended(sandbox)
    sandbox.state.faults.script(REFRESH, trouble, trouble)
    async with gateway(tmp_path, sandbox, clock) as running:
        await upload(running)
        build = await came_to_rest(running, clock)
    assert (build["code_check"]["state"], len(suites_in(sandbox))) == ("answered", 1)
    assert build["code_check"]["attempts"] >= 2


async def test_a_task_that_never_ran_holds_the_run_back_no_longer_than_set_and_is_said(sandbox, clock, tmp_path):
    async with gateway(tmp_path, sandbox, clock, 'max_major = 0\ntimeout = "30s"') as running:
        await upload(running)
        build = await came_to_rest(running, clock)
        assert "CodeArts Check gave no report in time (CC.00070400.400" in await why(running)
    (suite,) = suites_in(sandbox)
    assert (build["code_check"]["state"], build["reports"][1]["errors"], build["reports"][1]["skipped"]) == (
        "missing",
        1,
        1,
    )
    assert b"CodeArts Check gave no report in time: CC.00070400.400" in suite
    assert len(sandbox.state.runs.all(None)) == 1


async def test_a_report_that_did_not_come_is_left_out_where_that_is_set(sandbox, clock, tmp_path):
    async with gateway(tmp_path, sandbox, clock, 'timeout = "5s"\non_missing = "omit"') as running:
        await upload(running)
        build = await came_to_rest(running, clock)
    assert (build["code_check"]["state"], suites_in(sandbox), len(build["reports"])) == ("omitted", [], 1)


async def test_a_check_that_hangs_holds_the_run_back_no_longer_than_set(sandbox, clock, tmp_path):
    sandbox.state.faults.script(REFRESH, *[{"hang": True}] * 9)
    async with gateway(tmp_path, sandbox, clock, 'timeout = "20s"', LONG_LEASE) as running:
        await upload(running)
        await check_is_asked(running, sandbox, clock)
        clock.advance(20 * SECOND)  # at once: a call that hangs ends by the machine's clock too
        build = await came_to_rest(running, clock)
        until = build["code_check"]["until"]
        assert build["code_check"]["state"] == "missing"
        assert "did not answer for as long as the run waited" in build["code_check"]["summary"]
    assert build["finalized_at"] >= until


async def test_a_slow_check_is_asked_in_the_background_and_again_for_its_report(sandbox, clock, tmp_path):
    check_ended(sandbox)
    sandbox.state.faults.script(REFRESH, {"cut": True, "after": True})
    async with gateway(tmp_path, sandbox, clock) as running:
        await upload(running)
        await came_to_rest(running, clock)
    # The second call would have brought the report, had it asked for one.
    assert len(sandbox.state.calls.at(REFRESH)) == 3


async def test_an_expired_token_is_renewed_and_the_report_comes(sandbox, clock, tmp_path):
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    check_ended(sandbox)
    async with gateway(tmp_path, sandbox, clock, more=PASSWORD) as running:
        await upload(running, 1)
        await came_to_rest(running, clock, 1)
        sandbox.state.accounts.end_tokens(at=sandbox.state.micros())
        await upload(running, 2)
        build = await came_to_rest(running, clock, 2)
    assert (build["code_check"]["state"], len(suites_in(sandbox))) == ("answered", 2)
    assert [call.status for call in sandbox.state.calls.at(REFRESH)] == [200, 401, 200]


async def test_killed_between_asking_and_writing_a_restart_leaves_one_suite(sandbox, clock, tmp_path):
    sandbox.state.faults.script(REFRESH, {"hang": True, "after": True})
    check_ended(sandbox)
    async with gateway(tmp_path, sandbox, clock) as running:
        await upload(running)
        await check_is_asked(running, sandbox, clock)
        assert (await build_of(running))["code_check"]["state"] == "waiting"
    async with gateway(tmp_path, sandbox, clock) as running:
        build = await came_to_rest(running, clock)
    assert (build["code_check"]["state"], len(build["reports"]), len(suites_in(sandbox))) == ("answered", 2, 1)


async def test_what_comes_late_is_another_batch_without_another_suite(sandbox, clock, tmp_path):
    check_ended(sandbox)
    async with gateway(tmp_path, sandbox, clock) as running:
        await upload(running)
        await came_to_rest(running, clock)
        await upload(running, node_id="late")
        build = await came_to_rest(running, clock, reports=3)
    assert (len(suites_in(sandbox)), len(sandbox.state.calls.at(REFRESH))) == (1, 1)
    assert [report["name"] for report in build["reports"]] == ["n-0.xml", "codearts-check.xml", "late-0.xml"]
