"""A refused report from its refusal to TestNod: kept through a kill, looked at, repaired and delivered."""

from collections import Counter
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import Build, Ci, Upload
from tests.support.processes import GatewayProcess, until
from tests.support.reckoning import stored

CASES = b"".join(b'<testcase name="%d"><system-out>%s</system-out></testcase>' % (n, b"x" * 300) for n in range(600))
SMALL = b'<testsuite><testcase name="a"/><testcase name="b'
LARGE = b"<testsuite>" + CASES + b"<testcase"


async def _ask(url: str, **params: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(url, params=params) as answer:
        assert answer.status == 200
        found: dict[str, Any] = await answer.json()
        return found


async def _send(gateway: GatewayProcess, refusal_id: int, *, repair: bool) -> tuple[int, dict[str, Any]]:
    url = f"{gateway.admin_url}/api/v1/rejections/{refusal_id}/send"
    async with aiohttp.ClientSession() as http, http.post(url, json={"repair": repair}) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["in its row", "in the spool"])
async def test_a_refused_report_outlives_a_kill_and_is_delivered_once_it_is_repaired(
    gateway: GatewayProcess, sandbox: Sandbox, content: bytes
) -> None:
    build = Build(
        job_id="d" * 32,
        build_no=9,
        branch="main",
        commit="c" * 40,
        uploads=(Upload(node_id="n1", files=(("TEST-cut.xml", content),)),),
        uploads_before_end=1,
        waits_for_finalize=False,
        pause_seconds=0,
    )
    world = sandbox.state
    world.builds.start(build.job_id, build.build_no, at=world.micros(), record={"branch": "main", "commit": "c" * 40})
    async with Ci(world, lambda: gateway.server_url) as ci:
        assert (await ci.send(build, build.uploads[0]))[0] == 400
    await gateway.kill()
    await gateway.start()

    why = await _ask(f"{gateway.admin_url}/api/v1/why", job_id=build.job_id, build_no=str(build.build_no))
    (refusal,) = why["rejections"]
    assert f"`curl -X POST {gateway.admin_url}/api/v1/rejections/{refusal['id']}/send`" in why["sentence"]
    file = f"{gateway.admin_url}/api/v1/rejections/{refusal['id']}/file"
    async with aiohttp.ClientSession() as http, http.get(file) as answer:
        assert await answer.read() == content
    assert (await _send(gateway, refusal["id"], repair=False))[0] == 400
    assert (await _send(gateway, refusal["id"], repair=True))[0] == 200
    assert (await _send(gateway, refusal["id"], repair=True))[0] == 200
    audited = (await _ask(f"{gateway.admin_url}/api/v1/audit"))["audit"]
    assert {(entry["action"], entry["target"]) for entry in audited} == {
        ("download", f"rejection {refusal['id']}"),
        ("send-repaired", f"rejection {refusal['id']}"),
    }

    world.builds.end(build.job_id, build.build_no, at=world.micros())
    await until(lambda: bool(gateway.events("run_finalized")), "the repaired report is in a finalized run")
    (shown,) = (await _ask(f"{gateway.admin_url}/api/v1/builds"))["builds"]
    (report,) = shown["reports"]
    assert (report["name"], report["node_id"]) == ("TEST-cut.xml", "n1")
    assert stored(world, build) == Counter([report["sent_sha256"]])
    assert (report["received_sha256"], report["sent_sha256"] != refusal["sha256"]) == (refusal["sha256"], True)
    assert [(told["kept_until"], told["sent_at"] is None) for told in shown["rejections"]] == [(None, False)]
