"""A whole gateway beside the sandbox's CodeArts: a result that differs from the reports is shown, and sent if set."""

import re
from contextlib import asynccontextmanager

import aiohttp
import pytest
import xmltodict

from bridge.sandbox.sandbox import Sandbox
from tests.support.whole import JOB, ask, build_of, running_gateway, until, upload, why

GREEN = b'<testsuite><testcase name="a"/><testcase name="b"/></testsuite>'
RED = b'<testsuite><testcase name="a"/><testcase name="b"><failure message="no"/></testcase></testsuite>'
BROKEN = b"<testsuite><testcase"
CRASHED = "CodeArts says FAILURE, but none of the 2 tests in 1 report failed."
IGNORED = "CodeArts says SUCCESS, but 1 of 2 tests failed."


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@asynccontextmanager
async def gateway(folder, sandbox, suite="off", **more):
    """Run a gateway whose route has this result_suite; it polls without delay."""
    tables = (f'result_suite = "{suite}"\n', f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n')
    async with running_gateway(folder, sandbox, *tables, poll_every="200ms", **more) as running:
        yield running


def start(sandbox, build_no=1):
    sandbox.state.builds.start(JOB, build_no, at=sandbox.state.micros())


def end(sandbox, result, build_no=1):
    sandbox.state.builds.end(JOB, build_no, at=sandbox.state.micros(), build_result=result)


async def play(running, sandbox, result, *files):
    """Play a build with one upload; return it when it is finalized."""
    start(sandbox)
    await upload(running, 1, *files)
    end(sandbox, result)
    return await rested(running)


async def rested(running, reports=1):
    """Return the build once its run is finalized with at least so many reports, and nothing of it is due."""

    async def is_rested():
        build = await build_of(running)
        return (
            build["state"] in ("finalized", "no_run")
            and len(build["reports"]) >= reports
            and (build["build_result"] is not None or build["next_attempt_at"] is None)
        )

    await until(is_rested)
    return await build_of(running)


def sent_cases(sandbox):
    """Return the case of each `codearts-build` that a run holds."""
    uploads = [upload for run in sandbox.state.runs.all(None) for upload in run.uploads]
    stored = [sandbox.state.objects.find(upload.key) for upload in uploads]
    documents = [xmltodict.parse(one.body) for one in stored if one and b'name="codearts-build"' in one.body]
    return [document["testsuite"]["testcase"] for document in documents]


async def metric(running):
    async with aiohttp.ClientSession() as http, http.get(f"{running.admin_url}/metrics") as answer:
        series = re.findall(r"(?m)^bridge_builds_result_mismatch(\{.*)$", await answer.text())
    return [each for each in series if not each.endswith(" 0.0")]


@pytest.mark.parametrize(
    ("suite", "result", "report", "said", "outcome"),
    [
        ("off", "FAILURE", GREEN, CRASHED, None),
        ("off", "SUCCESS", RED, IGNORED, None),
        ("mismatch", "FAILURE", GREEN, CRASHED, "failure"),
        ("mismatch", "ABORTED", GREEN, CRASHED.replace("FAILURE", "ABORTED"), "failure"),
        ("mismatch", "timeout", GREEN, CRASHED.replace("FAILURE", "timeout"), "failure"),
        ("mismatch", "SUCCESS", RED, IGNORED, "failure"),
        ("mismatch", "SUCCESS", GREEN, None, None),
        ("mismatch", "FAILURE", RED, None, None),
        ("always", "SUCCESS", GREEN, None, "passed"),
        ("always", "FAILURE", RED, None, "failure"),
        ("always", "FAILURE", GREEN, CRASHED, "failure"),
    ],
)
async def test_result_and_reports_are_compared_and_the_suite_is_sent_before_finalize(
    tmp_path, sandbox, suite, result, report, said, outcome
):
    async with gateway(tmp_path, sandbox, suite) as running:
        build = await play(running, sandbox, result, report)
        explained = await ask(running, f"why?job_id={JOB}&build_no=1")
        counted = await metric(running)
    assert (build["result_mismatch"] or "").startswith(said or "")
    assert (build["result_mismatch"] is None) == (said is None) == (counted == [])
    assert explained["result_mismatch"] == build["result_mismatch"]
    if said:
        assert said.removesuffix(".") in explained["sentence"]
        assert "no action is needed" not in explained["sentence"]
        kind = "failed_tests" if result == "SUCCESS" else "no_failed_test"
        assert counted == [f'{{kind="{kind}",route="shop"}} 1.0']
    cases = sent_cases(sandbox)
    assert len(cases) == (outcome is not None)
    for case in cases:
        assert case["@name"] == "build result"
        assert ("failure" in case) == (outcome == "failure")
        assert said is None or case["failure"]["@message"] == build["result_mismatch"]
    (run,) = sandbox.state.runs.all(None)
    assert (len(run.finalize_calls), len(run.uploads)) == (1, 1 + len(cases))


async def test_a_late_report_changes_what_is_shown_and_sends_no_second_suite(tmp_path, sandbox):
    async with gateway(tmp_path, sandbox, "mismatch") as running:
        assert (await play(running, sandbox, "FAILURE", GREEN))["result_mismatch"]
        await upload(running, 1, RED, node_id="late")
        build = await rested(running, reports=3)
        await until(lambda: all(run.finalize_calls for run in sandbox.state.runs.all(None)))
        assert (build["result_mismatch"], len(sent_cases(sandbox))) == (None, 1)

        async def is_not_counted():
            return await metric(running) == []

        await until(is_not_counted)
    assert [each["name"] for each in build["reports"]] == ["n-0.xml", "codearts-build.xml", "late-0.xml"]


async def test_a_late_red_report_of_a_build_that_succeeded_brings_the_suite_in_the_next_batch(tmp_path, sandbox):
    async with gateway(tmp_path, sandbox, "mismatch") as running:
        assert (await play(running, sandbox, "SUCCESS", GREEN))["result_mismatch"] is None
        await upload(running, 1, RED, node_id="late")
        build = await rested(running, reports=3)
    assert build["result_mismatch"].startswith("CodeArts says SUCCESS, but 1 of 4 tests failed.")
    assert len(sent_cases(sandbox)) == 1


@pytest.mark.parametrize("suite", ["off", "mismatch"])
async def test_a_build_that_an_upload_ends_is_compared_when_codearts_has_its_result(tmp_path, sandbox, suite):
    async with gateway(tmp_path, sandbox, suite) as running:
        start(sandbox)
        await upload(running, 1, GREEN, complete=True)
        if suite == "off":
            await until(lambda: any(run.finalize_calls for run in sandbox.state.runs.all(None)))
        else:
            await until(lambda: len(sandbox.state.calls.at("codearts.build_info")) >= 2)

            async def waits():
                return "finalized when CodeArts has the result of the build" in await why(running)

            await until(waits)
            assert not any(run.finalize_calls for run in sandbox.state.runs.all(None))
        end(sandbox, "FAILURE")

        async def has_result():
            return (await build_of(running))["build_result"] == "FAILURE"

        await until(has_result)
        build = await rested(running)
        polls = len(sandbox.state.calls.at("codearts.build_info"))
        assert CRASHED.removesuffix(".") in await why(running)
        assert len(sandbox.state.calls.at("codearts.build_info")) == polls
    assert build["end_reason"] == "caller"
    assert build["result_mismatch"].startswith(CRASHED)
    assert len(sent_cases(sandbox)) == (suite == "mismatch")
    assert len(sandbox.state.runs.all(None)[0].finalize_calls) == 1


async def rejected(running, *, complete):
    form = aiohttp.FormData()
    form.add_field("files", BROKEN, filename="a.xml", content_type="application/xml")
    if complete:
        form.add_field("complete", "true")
    url = f"{running.server_url}/v1/report/junit/report/upload?job_id={JOB}&build_no=1&node_id=n"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
        assert answer.status == 400


async def test_a_build_of_which_only_rejected_files_came_gets_a_run_with_the_suite(tmp_path, sandbox):
    async with gateway(tmp_path, sandbox, "mismatch") as running:
        start(sandbox)
        end(sandbox, "FAILURE")
        await rejected(running, complete=True)
        build = await rested(running)
        explained = await ask(running, f"why?job_id={JOB}&build_no=1")
    said = "CodeArts says FAILURE, and no report was accepted (1 file was rejected)."
    assert build["result_mismatch"].startswith(said)
    assert explained["result_mismatch"] == build["result_mismatch"]
    (case,) = sent_cases(sandbox)
    assert case["failure"]["@message"] == build["result_mismatch"]


async def test_why_asks_codearts_about_a_build_that_has_only_rejections_and_keeps_no_build(tmp_path, sandbox):
    async with gateway(tmp_path, sandbox, "mismatch") as running:
        start(sandbox)
        await rejected(running, complete=False)
        assert (await ask(running, f"why?job_id={JOB}&build_no=1"))["result_mismatch"] is None
        end(sandbox, "FAILURE")
        explained = await ask(running, f"why?job_id={JOB}&build_no=1")
        assert (await ask(running, "builds"))["builds"] == []
    assert explained["case"] == "rejected"
    assert "CodeArts says FAILURE, and no report was accepted (1 file was rejected)" in explained["sentence"]


async def test_a_build_that_nothing_was_uploaded_of_has_its_mismatch_in_why_alone(tmp_path, sandbox):
    async with gateway(tmp_path, sandbox, "always") as running:
        start(sandbox)
        end(sandbox, "FAILURE")
        explained = await ask(running, f"why?job_id={JOB}&build_no=1")
        assert (await ask(running, "builds"))["builds"] == []
    assert (explained["case"], explained["result_mismatch"].partition(".")[0]) == (
        "never_uploaded",
        "CodeArts says FAILURE, and no report was accepted",
    )


async def test_a_restart_between_the_suite_and_finalize_sends_it_once(tmp_path, sandbox):
    sandbox.state.faults.script("testnod.finalize", *[{"status": 503}] * 3)
    async with gateway(tmp_path, sandbox, "mismatch") as running:
        start(sandbox)
        await upload(running, 1, GREEN)
        end(sandbox, "FAILURE")
        await until(lambda: bool(sandbox.state.calls.at("testnod.finalize")))
    async with gateway(tmp_path, sandbox, "mismatch") as running:
        build = await rested(running, reports=2)
    assert (len(build["reports"]), len(sent_cases(sandbox))) == (2, 1)
    assert all(len(run.uploads) == 2 for run in sandbox.state.runs.all(None))
