"""Reports that are sent in other bytes than they came in: what storage gets is what the ledger says is sent."""

import io
import zipfile
from collections import Counter
from hashlib import sha256
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import Build, Ci, Upload
from tests.support.processes import GatewayProcess, Settings, until
from tests.support.reckoning import stored

TEXT = "测试用户登录失败，订单已经退款"
SMALL = f'<testsuite><testcase name="{TEXT}"><system-out>canary</system-out></testcase></testsuite>'.encode("gb18030")
LARGE = SMALL.replace(b"canary", b"canary" * 50_000)
SOUND = b'<testsuite><testcase name="a"/></testsuite>'


def archive(*files: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files:
            opened.writestr(name, content)
    return packed.getvalue()


@pytest.fixture
def settings(settings: dict[str, Any]) -> Settings:
    settings["routes"][0] |= {"repair": True, "strip": ["system-out"]}
    return settings


async def test_what_storage_gets_is_what_was_unpacked_repaired_and_stripped(
    gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    packed = archive(("dir/small.xml", SMALL), ("large.xml", LARGE), ("sound.xml", SOUND), ("readme.txt", b"x"))
    build = Build(
        job_id="b" * 32,
        build_no=3,
        branch="main",
        commit="c" * 40,
        uploads=(Upload(node_id="default", files=(("all.zip", packed),)),),
        uploads_before_end=1,
        waits_for_finalize=False,
        pause_seconds=0,
    )
    async with Ci(sandbox.state, lambda: gateway.server_url) as ci:
        await ci.play(build)
    await until(lambda: stored(sandbox.state, build).total() == 3, "all inner reports are stored")
    await until(lambda: bool(gateway.events("run_finalized")), "the run is finalized")
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/api/v1/builds") as answer:
        (shown,) = (await answer.json())["builds"]
    reports = {report["name"]: report for report in shown["reports"]}
    assert Counter(report["sent_sha256"] for report in reports.values()) == stored(sandbox.state, build)
    came = {"all.zip!dir/small.xml": SMALL, "all.zip!large.xml": LARGE, "all.zip!sound.xml": SOUND}
    assert {name: report["received_sha256"] for name, report in reports.items()} == {
        name: sha256(content).hexdigest() for name, content in came.items()
    }
    assert reports["all.zip!sound.xml"]["notes"] == []
    for name in ("all.zip!dir/small.xml", "all.zip!large.xml"):
        assert reports[name]["notes"][-1] == "Left out: 1 system-out."
    assert reports["all.zip!large.xml"]["sent_size"] == reports["all.zip!dir/small.xml"]["sent_size"]
