"""A whole gateway beside the sandbox that hardly polls: what the hook says is what makes it look."""

import asyncio

import aiohttp
import pytest

from bridge.gateway import Gateway
from bridge.sandbox.sandbox import Sandbox
from bridge.settings import load
from tests.integration.test_us_at_codearts import SETTINGS, upload

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
PATIENCE_SECONDS = 30


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def gateway(tmp_path, sandbox):
    where = {"folder": tmp_path, "testnod": sandbox.testnod_url, "codearts": sandbox.codearts_url}
    text = SETTINGS.format(**where, tables='[hook]\nsecret = "s"')
    text = text.replace('first = "0s"', 'first = "1h"').replace('max = "1s"', 'max = "1h"')
    path = tmp_path / "bridge.toml"
    path.write_text(text.replace('min = "1s"', 'min = "1h"'))
    async with Gateway(load(path, {})) as running, asyncio.timeout(PATIENCE_SECONDS):
        yield running


async def notice(gateway, **body):
    url = f"{gateway.server_url}/hooks/codearts"
    async with aiohttp.ClientSession() as http, http.post(url, json=body, headers={"X-Bridge-Hook": "s"}) as answer:
        assert answer.status == 202
        return (await answer.json())["result"]


async def until(true):
    while not true():
        await asyncio.sleep(0)
        await asyncio.to_thread(lambda: None)


@pytest.mark.parametrize("number", [{}, {"buildNumber": 1}])
async def test_a_build_that_a_notice_names_is_looked_at_and_its_run_is_finalized(gateway, sandbox, number):
    world = sandbox.world
    world.builds.start(JOB, 1, at=world.micros())
    await upload(gateway)
    world.builds.end(JOB, 1, at=world.micros())

    assert await notice(gateway, jobId=JOB, **number) == "1 open build will be looked at now."

    await until(lambda: any(run.finalize_calls for run in world.runs.all()))


async def test_a_notice_before_the_end_decides_nothing(gateway, sandbox):
    world = sandbox.world
    world.builds.start(JOB, 1, at=world.micros())
    await upload(gateway)

    await notice(gateway, job_id=JOB, build_no=1, status="SUCCESS")

    await until(lambda: bool(world.calls.at("codearts.build_info")))
    world.builds.end(JOB, 1, at=world.micros())
    await notice(gateway, job_id=JOB, build_no=1)
    await until(lambda: any(run.finalize_calls for run in world.runs.all()))
    assert len(world.calls.at("codearts.build_info")) == 2
