"""Upstreams that fail in every way a network knows: nothing dies of it, and all arrives once they work again."""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.faults.proxy import FaultProxy, Faults, Spoil
from tests.faults.scripted import HANG, Answer, ScriptedUpstream
from tests.support.builds import Build, Ci, small_build
from tests.support.ports import REFUSED_URL
from tests.support.processes import GatewayProcess, NewGateway, until
from tests.support.reckoning import all_processed, runs_of, stored, uploads_of

WRONG_TOKEN_SECONDS = float(os.environ.get("BRIDGE_WRONG_TOKEN_SECONDS", "1"))
"""How long the project's token is wrong. An hour of it is played in test_after_outage."""

EVERY_FAULT = [
    Answer(status=503),
    Answer(status=429, headers={"Retry-After": "0"}),
    Answer(status=418),
    Answer(fault="reset"),
    Answer(fault="garbage"),
    Answer(fault="cut", body=b'{"test_run_id": 1, "upload_id": 2}'),
    Answer(status=200, body=b"[" * 60_000),
    Answer(fault="endless"),
    Answer(status=302, headers={"Location": f"{REFUSED_URL}/"}),
]


@pytest.fixture
async def proxies(sandbox: Sandbox) -> AsyncIterator[dict[str, FaultProxy]]:
    """Stand a proxy before each upstream; TestNod hands out URLs that lead to the one before S3."""
    async with (
        FaultProxy(sandbox.testnod_url) as testnod,
        FaultProxy(sandbox.s3_url) as storage,
        FaultProxy(sandbox.codearts_url) as codearts,
    ):
        sandbox.state.s3_url = storage.url
        yield {"testnod": testnod, "s3": storage, "codearts": codearts}


@pytest.fixture
def settings(settings: dict[str, Any], proxies: dict[str, FaultProxy]) -> dict[str, Any]:
    settings["testnod"] |= {"base_url": proxies["testnod"].url}
    settings["codearts"] |= {"endpoint": proxies["codearts"].url}
    return settings


async def _deliveries(gateway: GatewayProcess) -> set[str]:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/api/v1/builds") as answer:
        builds = (await answer.json())["builds"]
    return {d["state"] for build in builds for report in build["reports"] for d in report["deliveries"]}


REFUSED = Faults(refuse=True)
RESET = Faults(back=Spoil(cut_after=20, reset=True))
GARBLED = Faults(back=Spoil(corrupt_at=0))
CUT_ON_THE_WAY = Faults(there=Spoil(cut_after=30))


@pytest.mark.parametrize(
    ("upstream", "faults"),
    [
        ("testnod", REFUSED),
        ("testnod", RESET),
        ("testnod", GARBLED),
        ("s3", REFUSED),
        ("s3", RESET),
        ("s3", CUT_ON_THE_WAY),
        ("codearts", REFUSED),
        ("codearts", GARBLED),
    ],
)
async def test_an_upstream_whose_connections_are_spoilt_is_away_and_comes_back(
    gateway: GatewayProcess, sandbox: Sandbox, proxies: dict[str, FaultProxy], upstream: str, faults: Faults
) -> None:
    proxies[upstream].faults = faults
    await proxies[upstream].cut_all()
    build = small_build(1)
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        await ci.play(build)
    await until(lambda: bool(gateway.events("breaker_opened")), "the upstream is found to be away", seconds=90)
    await until(gateway.ready, "the gateway is ready all the same")
    assert await _deliveries(gateway) <= {"pending", "delivered"}
    proxies[upstream].faults = Faults()
    await proxies[upstream].cut_all()
    await until(lambda: _arrived(sandbox, build), "all arrives when it is back", seconds=90)
    assert await _deliveries(gateway) == {"delivered"}


def _arrived(sandbox: Sandbox, build: Build) -> bool:
    """Tell whether all is stored and finalized; what TestNod opened in an answer that was lost may hold the run."""
    runs = runs_of(sandbox.state, build)
    return stored(sandbox.state, build) == build.digests() and bool(runs) and all(run.finalize_calls for run in runs)


async def test_one_hung_upstream_holds_no_other_up(
    new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    """Storage of one project takes connections and never answers: the other project's reports go on."""
    async with ScriptedUpstream([HANG]) as hung:
        settings["delivery"] |= {"concurrency": 4, "concurrency_per_build": 4}
        settings["routes"] = [
            {**settings["routes"][0], "name": "hung", "job_id": "b*", "project_token": "hung-project-token"},
            {**settings["routes"][0], "name": "well", "job_id": "a*"},
        ]
        gateway = new_gateway(settings)
        await gateway.start()
        world = sandbox.state
        world.runs.open_project("hung-project-token", "hung")
        s3_url = world.s3_url
        other = small_build(1)
        async with Ci(world, lambda: gateway.server_url) as ci:
            world.s3_url = hung.url
            await ci.play(small_build(1, job_id="b" * 32))
            await until(lambda: bool(hung.seen), "a PUT hangs")
            world.s3_url = s3_url
            await ci.play(other)
            await until(lambda: all_processed(world, other), "the other project's report is delivered")
        assert await _deliveries(gateway) == {"pending", "delivered"}


async def test_every_answer_that_says_nothing_is_tried_again_and_nothing_dies(
    new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox, proxies: dict[str, FaultProxy]
) -> None:
    async with ScriptedUpstream([*EVERY_FAULT, Answer(status=503)]) as scripted:
        proxies["testnod"].upstream_url = scripted.url
        gateway = new_gateway(settings)
        await gateway.start()
        build = small_build(1)
        async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
            await ci.play(build)
        await until(lambda: len(scripted.seen) > len(EVERY_FAULT), "each answer was given", seconds=90)
        assert await _deliveries(gateway) == {"pending"}
        proxies["testnod"].upstream_url = sandbox.testnod_url
        await proxies["testnod"].cut_all()
        await until(lambda: all_processed(sandbox.state, build), "the report arrives", seconds=90)
    assert len(uploads_of(sandbox.state, build)) == 1


async def test_a_ledger_that_another_process_holds_refuses_in_time_and_goes_on_by_itself(
    gateway: GatewayProcess, sandbox: Sandbox, tmp_path: Path
) -> None:
    build = small_build(1)
    with closing(sqlite3.connect(tmp_path / "bridge.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
            playing = asyncio.create_task(ci.play(build))
            await until(lambda: ci.tries >= 2, "an upload was refused and sent again", seconds=60)
            assert await gateway.status_of(f"{gateway.server_url}/livez") == 200
            assert not await gateway.ready()
            other.execute("ROLLBACK")
            await playing
    await until(gateway.ready, "readiness is green again")
    await until(lambda: all_processed(sandbox.state, build), "all arrives without a restart")


async def test_a_wrong_project_token_refuses_no_upload_and_kills_no_report_until_it_is_corrected(
    new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    right, wrong = settings["routes"][0], {**settings["routes"][0], "project_token": "not-the-projects-token"}
    gateway = new_gateway({**settings, "routes": [wrong]})
    await gateway.start()
    builds = [small_build(number) for number in range(1, 7)]
    corrected_at = time.monotonic() + WRONG_TOKEN_SECONDS
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        await ci.play_all(builds[:3])
        await until(lambda: bool(gateway.events("breaker_opened")), "the route is suspended")
        await until(
            lambda: time.monotonic() >= corrected_at, "the operator corrects it", seconds=WRONG_TOKEN_SECONDS + 1
        )
        await ci.play_all(builds[3:])
        await until(gateway.ready, "the gateway is ready all the same")
        assert await _deliveries(gateway) == {"pending"}
        assert not sandbox.state.runs.all()

        gateway.write({**settings, "routes": [right]})
        gateway.signal(signal.SIGHUP)
        for build in builds:
            await until(lambda build=build: all_processed(sandbox.state, build), f"{build.key} arrives", seconds=90)
    assert await _deliveries(gateway) == {"delivered"}
    assert all(len(uploads_of(sandbox.state, build)) == 1 for build in builds)
