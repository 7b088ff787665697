"""A gateway beside the sandbox: commit, branch, job name and repository of builds whose record-info lacks them."""

import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.whole import JOB, build_of, running_gateway, until, upload

REFUSED = {"status": 403, "body": {"error_code": "CB.00060403", "error_msg": "no permission"}}
RUN_URL = 'run_url = "{repo_url}#{job_name}"\n'
DETAILS = {"revision": "c0ffee", "display_name": "shop nightly", "scm_web_url": "https://codehub.example.com/1/home"}


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


def start(sandbox, build_no=1, **record):
    at = sandbox.state.micros()
    sandbox.state.builds.start(JOB, build_no, at=at, record={"commit": None, **record}, details=DETAILS)


def calls(sandbox, *names):
    return [len(sandbox.state.calls.at(f"codearts.{name}")) for name in names]


async def metadata_of_first_upload(sandbox, build_no=1):
    """Return metadata and page of the build's run, once TestNod has an upload of it."""
    build_id = f"codearts-{JOB}-{build_no}"
    await until(lambda: any(run.uploads for run in sandbox.state.runs.all(build_id)))
    (run,) = sandbox.state.runs.all(build_id)
    return run.uploads[0].registered.metadata


def gateway(folder, sandbox, *tables):
    return running_gateway(folder, sandbox, *tables, f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n')


async def test_the_details_of_the_record_complete_the_run(tmp_path, sandbox):
    start(sandbox)
    async with gateway(tmp_path, sandbox, RUN_URL) as running:
        await upload(running)
        metadata = await metadata_of_first_upload(sandbox)
        build = await build_of(running)
    assert (metadata["commit_sha"], metadata["branch"]) == ("c0ffee", "main")
    assert metadata["run_url"] == "https://codehub.example.com/1/home#shop%20nightly"
    assert (build["commit"], build["branch"]) == ("c0ffee", "main")
    assert calls(sandbox, "record_info", "record_details", "record_list") == [1, 1, 0]


async def test_a_record_that_has_all_is_not_asked_about_further(tmp_path, sandbox):
    start(sandbox, commit="abc")
    async with gateway(tmp_path, sandbox) as running:
        await upload(running)
        assert (await metadata_of_first_upload(sandbox))["commit_sha"] == "abc"
    assert calls(sandbox, "record_info", "record_details", "record_list") == [1, 0, 0]


async def test_where_details_are_refused_the_list_of_builds_has_the_commit_and_that_is_remembered(tmp_path, sandbox):
    sandbox.state.faults.at_random("codearts.record_details", rate=1, answer=REFUSED, seed=1)
    async with gateway(tmp_path, sandbox) as running:
        for build_no in (1, 2):
            start(sandbox, build_no)
            await upload(running, build_no)
            assert (await metadata_of_first_upload(sandbox, build_no))["commit_sha"] == "c0ffee"
    assert calls(sandbox, "record_info", "record_details", "record_list") == [2, 1, 2]


async def test_reports_go_out_without_what_codearts_refuses(tmp_path, sandbox):
    for name in ("record_details", "record_list"):
        sandbox.state.faults.at_random(f"codearts.{name}", rate=1, answer=REFUSED, seed=1)
    start(sandbox)
    async with gateway(tmp_path, sandbox) as running:
        await upload(running)
        metadata = await metadata_of_first_upload(sandbox)
    assert (metadata.get("commit_sha"), metadata["branch"]) == (None, "main")


async def test_a_short_outage_of_details_is_waited_for(tmp_path, sandbox):
    sandbox.state.faults.script("codearts.record_details", {"status": 503}, {"status": 429})
    start(sandbox)
    async with gateway(tmp_path, sandbox) as running:
        await upload(running)
        assert (await metadata_of_first_upload(sandbox))["commit_sha"] == "c0ffee"


async def test_the_name_of_the_job_chooses_the_route(tmp_path, sandbox):
    sandbox.state.runs.open_project("other-token", "other")
    other = '[[routes]]\nname = "nightly"\nproject_token = "other-token"\njob_name = "* nightly"\n'
    start(sandbox)
    rest = 'job_name = ["weekly", "daily"]\n'  # of the first route
    async with gateway(tmp_path, sandbox, rest, other) as running:
        await upload(running)
        await metadata_of_first_upload(sandbox)
        assert (await build_of(running))["route"] == "nightly"
    (run,) = sandbox.state.runs.all(None)
    assert run.project.name == "other"
