"""The ledger's file is taken away under a running gateway: no "success" goes into a file that no process finds."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.end_to_end.test_disk_faults import a_build, a_report, begin, goes_to_its_end
from tests.support.builds import UPLOAD_PATH, Build
from tests.support.processes import GatewayProcess, until

FILES = ("bridge.db", "bridge.db-wal", "bridge.db-shm")


async def send(gateway: GatewayProcess, build: Build, report: tuple[str, bytes]) -> tuple[int, dict[str, Any]]:
    form = aiohttp.FormData()
    form.add_field("files", report[1], filename=report[0])
    params = {"job_id": build.job_id, "build_no": str(build.build_no)}
    async with (
        aiohttp.ClientSession() as http,
        http.post(gateway.server_url + UPLOAD_PATH, params=params, data=form) as answer,
    ):
        return answer.status, json.loads(await answer.text())


async def reasons(gateway: GatewayProcess) -> list[str]:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/readyz") as answer:
        found: list[str] = (await answer.json())["reasons"]
        return found


@pytest.mark.parametrize("taken", [FILES, FILES[:1]], ids=["all three", "the database alone"])
async def test_uploads_are_refused_while_the_file_is_gone_and_taken_when_it_is_back(
    gateway: GatewayProcess, sandbox: Sandbox, tmp_path: Path, taken: tuple[str, ...]
) -> None:
    first, second, third = (a_report(f"TEST-{name}.xml", 2_000) for name in "abc")
    build = a_build(1, first, third)
    begin(sandbox, build)
    assert (await send(gateway, build, first))[0] == 200

    away = tmp_path / "away"
    away.mkdir()
    for name in taken:
        (tmp_path / name).rename(away / name)
    status, answer = await send(gateway, build, second)
    assert (status, answer["error_code"]) == (503, "BRIDGE.UNAVAILABLE")
    assert "file bridge.db is gone" in answer["error_msg"]
    assert str(tmp_path) not in json.dumps(answer)
    await until(lambda: _is_ready(gateway, ready=False), "readiness turns red")
    assert any("Put the same file back" in reason for reason in await reasons(gateway))
    assert not (tmp_path / "bridge.db").exists()

    for name in taken:
        (away / name).rename(tmp_path / name)
    await until(gateway.ready, "the gateway is ready again")
    assert (await send(gateway, build, third))[0] == 200
    await goes_to_its_end(sandbox, build)


async def test_what_was_accepted_is_there_after_a_kill_though_the_log_was_removed(
    gateway: GatewayProcess, sandbox: Sandbox, tmp_path: Path
) -> None:
    first, second = (a_report(f"TEST-{name}.xml", 2_000) for name in "ab")
    build = a_build(1, first)
    begin(sandbox, build)
    assert (await send(gateway, build, first))[0] == 200
    (tmp_path / "bridge.db-wal").unlink()
    status, answer = await send(gateway, build, second)
    assert status == 503
    assert "restart the gateway" in answer["error_msg"]

    await gateway.kill()
    await gateway.start()
    await goes_to_its_end(sandbox, build)


async def _is_ready(gateway: GatewayProcess, *, ready: bool) -> bool:
    return await gateway.ready() is ready
