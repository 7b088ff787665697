"""A whole gateway beside the sandbox that hardly polls: what the hook says is what makes it look."""

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.whole import JOB, running_gateway, until, upload


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def gateway(tmp_path, sandbox):
    tables = (f'[codearts]\nendpoint = "{sandbox.codearts_url}"\n', '[webhook]\nsecret = "s"\n')
    async with running_gateway(tmp_path, sandbox, *tables, poll_after="1h", poll_every="1h") as running:
        yield running


async def notice(gateway, **body):
    url = f"{gateway.server_url}/hooks/codearts"
    async with aiohttp.ClientSession() as http, http.post(url, json=body, headers={"X-Bridge-Hook": "s"}) as answer:
        assert answer.status == 202
        return (await answer.json())["result"]


@pytest.mark.parametrize("number", [{}, {"buildNumber": 1}])
async def test_a_build_that_a_notice_names_is_looked_at_and_its_run_is_finalized(gateway, sandbox, number):
    world = sandbox.state
    world.builds.start(JOB, 1, at=world.micros())
    await upload(gateway)
    world.builds.end(JOB, 1, at=world.micros())

    assert await notice(gateway, jobId=JOB, **number) == "1 open build will be polled now."

    await until(lambda: any(run.finalize_calls for run in world.runs.all()))


async def test_a_notice_before_the_end_decides_nothing(gateway, sandbox):
    world = sandbox.state
    world.builds.start(JOB, 1, at=world.micros())
    await upload(gateway)

    await notice(gateway, job_id=JOB, build_no=1, status="SUCCESS")

    await until(lambda: bool(world.calls.at("codearts.build_info")))
    world.builds.end(JOB, 1, at=world.micros())
    await notice(gateway, job_id=JOB, build_no=1)
    await until(lambda: any(run.finalize_calls for run in world.runs.all()))
    assert len(world.calls.at("codearts.build_info")) == 2
