"""`bridge serve` as a process: what it says at its start, how it ends, and what the next start finds."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import UPLOAD_PATH, Build, Ci, Upload
from tests.support.corpus import Corpus
from tests.support.ledger_copy import registrations
from tests.support.processes import GatewayProcess, NewGateway, Settings, until
from tests.support.reckoning import all_processed, stored, uploads_of

CALLER_TOKEN = "canary-caller-token-3b1e"
ADMIN_TOKEN = "canary-admin-token-77c0"
PROJECT_TOKEN = "canary-project-token-91ad"
CODEARTS_TOKEN = "canary-codearts-token-0f52"
UNKNOWN_TOKEN = "canary-unknown-token-c4d8"
CANARIES = (CALLER_TOKEN, ADMIN_TOKEN, PROJECT_TOKEN, CODEARTS_TOKEN, UNKNOWN_TOKEN, "X-Amz-Signature=")

HANGS = {"hang": True}
SLOW = {"pass": True, "delay_seconds": 1.5}
BOUNDARY = "end-to-end"


@pytest.fixture
def build(corpus: Corpus) -> Build:
    return Build(
        job_id="e" * 32,
        build_no=7,
        branch="main",
        commit="c" * 40,
        uploads=(Upload(node_id="default", files=(corpus.reports[0],)),),
        uploads_before_end=1,
        waits_for_finalize=False,
        pause_seconds=0,
    )


@pytest.fixture
def settings(settings: dict[str, Any], request: pytest.FixtureRequest) -> Settings:
    """Return the usual settings; the parameter of a test is server.shutdown_timeout."""
    if not hasattr(request, "param"):
        return settings
    return {**settings, "server": {**settings["server"], "shutdown_timeout": request.param}}


DRAINS_FOR_A_SECOND = pytest.mark.parametrize("settings", ["1s"], indirect=True)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "bridge.db"


@pytest.fixture
async def ci(sandbox: Sandbox, gateway: GatewayProcess) -> AsyncIterator[Ci]:
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        yield ci


def _begin(sandbox: Sandbox, build: Build) -> None:
    record = {"branch": build.branch, "commit": build.commit}
    sandbox.state.builds.start(build.job_id, build.build_no, at=sandbox.state.micros(), record=record)


def _end(sandbox: Sandbox, build: Build) -> None:
    sandbox.state.builds.end(build.job_id, build.build_no, at=sandbox.state.micros())


async def _put_under_way(sandbox: Sandbox, ci: Ci, build: Build, answer: dict[str, Any]) -> None:
    """Return when storage has begun to receive the build's report, which it will answer as `answer` says."""
    sandbox.state.faults.script("s3.put", answer)
    _begin(sandbox, build)
    assert (await ci.send(build, build.uploads[0]))[0] == 200
    await until(lambda: bool(sandbox.state.calls.at("s3.put")), "the PUT has begun")


async def _goes_on_to_its_end(gateway: GatewayProcess, sandbox: Sandbox, build: Build) -> None:
    """Start the gateway again, and see the build through."""
    await gateway.start()
    _end(sandbox, build)
    await until(lambda: all_processed(sandbox.state, build), "what was left is finished after the next start")
    assert len(uploads_of(sandbox.state, build)) == build.count()


# -- start -----------------------------------------------------------------------------------------------------------


async def test_the_first_line_shows_every_setting_and_no_line_ever_shows_a_secret(
    new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox, build: Build
) -> None:
    world = sandbox.state
    world.runs.open_project(PROJECT_TOKEN, "canary")
    world.behavior = world.behavior.changed({"codearts_tokens": [CODEARTS_TOKEN]})
    settings["admin"]["token"] = [ADMIN_TOKEN]
    settings["codearts"] |= {"auth": "token", "token": CODEARTS_TOKEN}
    settings["callers"] = {"auth": ["token"]}
    settings["callers.tokens"] = [{"name": "ci", "token": CALLER_TOKEN}]
    settings["routes"][0]["project_token"] = PROJECT_TOKEN
    gateway = new_gateway(settings, forked=False)
    await gateway.start()
    for place in ("testnod.register", "s3.put", "testnod.finalize", "codearts.build_info"):
        world.faults.script(place, {"status": 500, "body": f"failed with {PROJECT_TOKEN}"}, {"cut": True}, "pass")

    async with Ci(world, lambda: gateway.server_url, token=UNKNOWN_TOKEN) as stranger:
        assert (await stranger.send(build, build.uploads[0]))[0] == 401
    async with Ci(world, lambda: gateway.server_url, token=CALLER_TOKEN) as ci:
        await ci.play(build)
    await until(lambda: stored(world, build) == build.digests(), "the report is stored")
    await until(lambda: bool(gateway.events("run_finalized")), "the run is finalized")
    assert await gateway.status_of(f"{gateway.admin_url}/api/v1/builds") == 401
    assert await gateway.terminate() == 0

    shown = gateway.events("gateway_starting")[0]["settings"]
    assert shown["polling.grace_period"] == "500ms"
    assert shown["routes[0].name"] == "all"
    assert shown["testnod.base_url"] == sandbox.testnod_url
    assert shown["routes[0].project_token"]  # that it is set is told
    assert [canary for canary in CANARIES if canary in gateway.stderr() + gateway.stdout()] == []


async def test_settings_that_cannot_be_used_end_it_with_all_complaints(
    new_gateway: NewGateway, settings: dict[str, Any], ledger: Path
) -> None:
    settings["server"]["prot"] = 8080
    settings["polling"]["max_interval"] = "100ms"
    settings["store"]["min_free_space"] = "much"
    settings["routes"][0]["project_token"] = ""
    gateway = new_gateway(settings, forked=False)
    await gateway.spawn()
    assert await gateway.wait() == 1
    said = gateway.stderr()
    keys = ("server.prot: ", "polling.max_interval: ", "store.min_free_space: ", "routes[0].project_token: ")
    assert [key for key in keys if key not in said] == []
    assert "Traceback" not in said
    assert not ledger.exists()


async def test_a_second_gateway_on_the_same_ledger_is_refused_and_the_first_goes_on(
    gateway: GatewayProcess, new_gateway: NewGateway, settings: Settings
) -> None:
    second = new_gateway(settings)
    await second.spawn()
    assert await second.wait() == 1
    assert "store.url: another gateway (pid " in second.stderr()
    assert "Traceback" not in second.stderr()
    await until(gateway.ready, "the first gateway is ready")


# -- end -------------------------------------------------------------------------------------------------------------


async def test_sigterm_ends_an_idle_gateway_well(gateway: GatewayProcess) -> None:
    assert await gateway.terminate() == 0
    assert gateway.events("gateway_draining")[0]["signal"] == "SIGTERM"
    assert gateway.events("gateway_stopped")
    assert not gateway.events("drain_incomplete")


async def test_sigterm_during_the_start_leaves_nothing_that_hinders_the_next(
    new_gateway: NewGateway, settings: Settings
) -> None:
    gateway = new_gateway(settings, forked=False)
    await gateway.spawn()
    await until(lambda: bool(gateway.events("gateway_starting")), "the gateway begins")
    assert await gateway.terminate() in (0, -signal.SIGTERM)
    await gateway.start()
    assert await gateway.terminate() == 0


async def test_sigterm_lets_a_put_that_is_under_way_finish(
    gateway: GatewayProcess, sandbox: Sandbox, ci: Ci, build: Build, ledger: Path
) -> None:
    await _put_under_way(sandbox, ci, build, SLOW)
    assert await gateway.terminate() == 0
    assert [row.state for row in registrations(ledger)] == ["stored"]
    await _goes_on_to_its_end(gateway, sandbox, build)
    assert [upload.puts for upload in uploads_of(sandbox.state, build)] == [1]


@DRAINS_FOR_A_SECOND
async def test_sigterm_gives_up_a_put_that_hangs_and_the_next_start_sends_it_to_the_same_place(
    gateway: GatewayProcess, sandbox: Sandbox, ci: Ci, build: Build, ledger: Path
) -> None:
    await _put_under_way(sandbox, ci, build, HANGS)
    assert await gateway.terminate() == 0
    assert [row.state for row in registrations(ledger)] == ["registered"]
    await _goes_on_to_its_end(gateway, sandbox, build)


@DRAINS_FOR_A_SECOND
async def test_sigterm_cuts_off_an_upload_that_stands_still_and_keeps_nothing_of_it(
    gateway: GatewayProcess, sandbox: Sandbox, ci: Ci, build: Build
) -> None:
    body = _form(build)
    reader, writer = await _ask_to_send(gateway, build, len(body))
    writer.write(body[: len(body) // 2])
    assert await gateway.terminate() == 0
    with suppress(ConnectionError):
        assert not (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    await gateway.start()
    await ci.play(build)
    await until(lambda: all_processed(sandbox.state, build), "the same upload, sent again, has arrived")


async def test_while_it_drains_readiness_is_red_and_a_second_sigterm_ends_it_at_once(
    gateway: GatewayProcess, sandbox: Sandbox, ci: Ci, build: Build
) -> None:
    await _put_under_way(sandbox, ci, build, HANGS)
    gateway.signal(signal.SIGTERM)
    await until(lambda: bool(gateway.events("gateway_draining")), "the gateway drains")
    assert await gateway.status_of(f"{gateway.admin_url}/readyz") == 503
    assert await gateway.status_of(f"{gateway.admin_url}/livez") == 200
    assert await gateway.terminate() == -signal.SIGTERM
    await _goes_on_to_its_end(gateway, sandbox, build)


async def test_an_upload_in_the_middle_of_sigterm_is_finished_and_later_ones_get_503(
    gateway: GatewayProcess, sandbox: Sandbox, build: Build
) -> None:
    _begin(sandbox, build)
    body = _form(build)
    reader, writer = await _ask_to_send(gateway, build, len(body))
    writer.write(body[: len(body) // 2])
    await writer.drain()
    gateway.signal(signal.SIGTERM)
    await until(lambda: bool(gateway.events("gateway_draining")), "the gateway drains")
    assert await gateway.status_of(f"{gateway.server_url}/readyz") == 503
    assert await _upload_once(gateway, build) == (503, True)
    writer.write(body[len(body) // 2 :])
    status_line = await reader.readline()
    writer.close()
    assert status_line.split()[1] == b"200"
    assert await gateway.wait() == 0
    await _goes_on_to_its_end(gateway, sandbox, build)


async def test_what_was_accepted_before_a_restart_is_finalized_after_it(
    gateway: GatewayProcess, sandbox: Sandbox, ci: Ci, build: Build
) -> None:
    _begin(sandbox, build)
    assert (await ci.send(build, build.uploads[0]))[0] == 200
    assert await gateway.terminate() == 0
    await _goes_on_to_its_end(gateway, sandbox, build)
    async with aiohttp.ClientSession() as http:
        params = {"job_id": build.job_id, "build_no": str(build.build_no)}
        async with http.get(f"{gateway.admin_url}/api/v1/builds", params=params) as answer:
            shown = (await answer.json())["builds"]
    assert [delivery["state"] for report in shown[0]["reports"] for delivery in report["deliveries"]] == ["delivered"]


def _form(build: Build) -> bytes:
    ((name, content),) = build.uploads[0].files
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


async def _upload_once(gateway: GatewayProcess, build: Build) -> tuple[int, bool]:
    """Return the status of one upload, and whether it is told when to come again."""
    params = {"job_id": build.job_id, "build_no": str(build.build_no), "node_id": build.uploads[0].node_id}
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(gateway.server_url + UPLOAD_PATH, params=params, data=_form(build), headers=headers) as answer,
    ):
        return answer.status, "Retry-After" in answer.headers


async def _ask_to_send(
    gateway: GatewayProcess, build: Build, size: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection on which the gateway has said that it waits for the body of an upload."""
    server = urlsplit(gateway.server_url)
    reader, writer = await asyncio.open_connection(server.hostname, server.port)
    query = f"job_id={build.job_id}&build_no={build.build_no}&node_id={build.uploads[0].node_id}"
    lines = [
        f"POST {UPLOAD_PATH}?{query} HTTP/1.1",
        f"Host: {server.netloc}",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        f"Content-Length: {size}",
        "Expect: 100-continue",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    return reader, writer
