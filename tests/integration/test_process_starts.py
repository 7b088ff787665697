"""A gateway whose validation process cannot be started: readiness names it, nothing is lost, and it ends by itself."""

import sys

import aiohttp
import pytest

from bridge.errors import Unavailable
from bridge.sandbox.sandbox import Sandbox
from bridge.server.http.requests import UPLOAD_PATH
from tests.support.whole import JOB, JUNIT, running_gateway

NOWHERE = "/nowhere/python"


@pytest.fixture(scope="module", autouse=True)
def children_in_process():
    """Start real processes."""


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


async def upload(http):
    form = aiohttp.FormData()
    form.add_field("files", JUNIT, filename="a.xml")
    async with http.post(f"{UPLOAD_PATH}?job_id={JOB}&build_no=1", data=form) as answer:
        return answer.status, await answer.json()


async def readiness(running):
    async with aiohttp.ClientSession(running.admin_url) as admin, admin.get("/readyz") as answer:
        return answer.status, (await answer.json())["reasons"]


async def test_a_gateway_that_cannot_start_processes_does_not_start(tmp_path, sandbox, monkeypatch):
    monkeypatch.setattr(sys, "executable", NOWHERE)
    with pytest.raises(Unavailable, match="No validation process could be started"):
        async with running_gateway(tmp_path, sandbox):
            pass


async def test_readiness_names_a_validation_process_that_cannot_be_started_until_one_is(tmp_path, sandbox, monkeypatch):
    async with running_gateway(tmp_path, sandbox) as running, aiohttp.ClientSession(running.server_url) as http:
        assert await readiness(running) == (200, [])
        monkeypatch.setattr(sys, "executable", NOWHERE)
        status, rejected = await upload(http)
        assert status == 503
        assert "No validation process could be started" in rejected["error_msg"]
        status, reasons = await readiness(running)
        assert status == 503
        assert "No validation process could be started" in reasons[0]
        monkeypatch.undo()
        while (await readiness(running))[0] != 200:  # each check waits for another try
            pass
        status, accepted = await upload(http)
        assert (status, accepted["result"]) == (200, "1 report, 1 test, 0 failed")
