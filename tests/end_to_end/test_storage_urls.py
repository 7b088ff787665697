"""The URLs that TestNod hands out: foreign input that must not lead into our network and runs out by our own clock."""

import asyncio
import time
from typing import Any

import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import Build, Ci, small_build
from tests.support.byte_server import ByteServer
from tests.support.outcome import api_builds
from tests.support.processes import NewGateway, until
from tests.support.reckoning import all_processed, uploads_of

HOUR_SECONDS = 3600.0
RUN_OUT = 6  # more URLs than a report is refused on before it is given up
EXPIRED = {"status": 403, "body": "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"}


async def test_a_storage_url_into_our_own_network_reaches_no_server_there(
    new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    visits: list[str] = []

    async def note(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        visits.append("a request came")

    settings["testnod"] |= {"storage_hosts": [], "allow_private_storage": False}
    gateway = new_gateway(settings)
    await gateway.start()
    async with ByteServer(note) as inside, Ci(sandbox.state, lambda: gateway.server_url) as ci:
        for build_no, (host, why) in enumerate(
            [
                (f"https://127.0.0.1:{inside.port}", "not public"),
                (f"https://[::ffff:127.0.0.1]:{inside.port}", "not public"),
                (f"http://127.0.0.1:{inside.port}", "not https"),
            ],
            start=1,
        ):
            sandbox.state.s3_url = host
            build = small_build(build_no)
            await ci.play(build)

            async def told(build: Build = build, why: str = why) -> bool:
                [report] = (await api_builds(gateway))[build.key]["reports"]
                [delivery] = report["deliveries"]
                return delivery["state"] == "pending" and why in (delivery["last_error"] or "")

            await until(told, f"{host} is refused, and the report is owed")
    assert visits == []


@pytest.mark.parametrize("off_seconds", [-HOUR_SECONDS, HOUR_SECONDS])
async def test_clocks_that_are_an_hour_apart_cost_no_registration(
    new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox, off_seconds: float
) -> None:
    sandbox.state.now = lambda: time.time() + off_seconds
    gateway = new_gateway(settings)
    await gateway.start()
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        await ci.play(small_build(1))
        await until(lambda: all_processed(sandbox.state, small_build(1)), "the report is delivered")
    assert len(uploads_of(sandbox.state, small_build(1))) == 1


async def test_a_url_that_ran_out_is_told_failed_and_replaced_and_its_run_does_not_hang(
    new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    sandbox.state.behavior = sandbox.state.behavior.changed({"url_seconds": 30})
    sandbox.state.faults.script("s3.put", *[EXPIRED] * RUN_OUT)
    gateway = new_gateway(settings)
    await gateway.start()
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        await ci.play(small_build(1))

        def arrived() -> bool:
            uploads = uploads_of(sandbox.state, small_build(1))
            return [upload.put_at is not None for upload in uploads] == [False] * RUN_OUT + [True]

        await until(arrived, "the last URL took the report")

    async def finalized() -> bool:
        build = (await api_builds(gateway))[small_build(1).key]
        return build["state"] == "finalized" and not build["stuck_reason"]

    await until(finalized, "the run is finalized")
    await until(lambda: all_processed(sandbox.state, small_build(1)), "the run is processed")
    assert len(sandbox.state.calls.at("testnod.upload_failed")) == RUN_OUT
