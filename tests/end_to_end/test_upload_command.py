"""`bridge upload` as a process against the real gateway: what arrives, exit codes, and a gateway that is away."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.processes import GatewayProcess
from tests.support.starting import REPOSITORY

TOKEN = "canary-of-the-upload-command"
JOB_ID = "68491d9bc97b4774adb93e29b46d2dc6"
BUILD_NO = 532
REPORT = '<testsuite name="{name}"><testcase classname="c" name="works"/></testsuite>'
RED = '<testsuite name="{name}"><testcase classname="c" name="fails"><failure message="m"/></testcase></testsuite>'
PATIENCE_SECONDS = 90.0


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    caller = {"name": "ci", "token": TOKEN, "scopes": ["upload", "status"]}
    return {**settings, "callers": {"auth": "token"}, "callers.tokens": [caller]}


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.stdout))


class Workspace:
    """The folder of a build, in which `bridge upload` runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "BRIDGE_TOKEN": TOKEN,
            "JOB_ID": JOB_ID,
            "INCREASENUM": str(BUILD_NO),
        }

    def add(self, path: str, content: str = REPORT) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content.replace("{name}", path), encoding="utf-8")
        return file

    async def start(self, *arguments: str, url: str = "") -> asyncio.subprocess.Process:
        environ = self.environ | ({"BRIDGE_URL": url} if url else {})
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge", "upload", *arguments),
            cwd=self.folder,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, url: str = "") -> Ended:
        return await self.end(await self.start(*arguments, url=url))

    @staticmethod
    async def end(process: asyncio.subprocess.Process) -> Ended:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                stdout, stderr = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        ended = Ended(process.returncode or 0, stdout.decode(), stderr.decode())
        assert TOKEN not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return ended


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


async def reports_of(gateway: GatewayProcess) -> list[dict[str, Any]]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
        http.get(f"{gateway.admin_url}/api/v1/builds") as answer,
    ):
        builds = (await answer.json())["builds"]
    return [report for build in builds for report in build["reports"]]


async def names(gateway: GatewayProcess) -> list[str]:
    return sorted(report["name"] for report in await reports_of(gateway))


async def test_a_folder_arrives_under_paths_and_its_run_is_followed_to_the_end(
    workspace: Workspace, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    workspace.add("a/target/surefire-reports/TEST-x.xml")
    workspace.add("b/target/surefire-reports/TEST-x.xml", RED)

    sandbox.state.builds.start(JOB_ID, BUILD_NO, at=sandbox.state.micros())

    ended = await workspace.run("--complete", "--wait", "--json", url=gateway.server_url)

    assert (ended.code, ended.stderr) == (0, "")
    document = ended.document
    assert document["status"] == "sent"
    assert [file["status"] for file in document["files"]] == ["accepted", "accepted"]
    assert document["totals"] == {"files": 2, "tests": 2, "failures": 1, "errors": 0, "skipped": 0}
    assert document["build_state"] == "finalized"
    assert document["test_run_url"]
    assert await names(gateway) == ["a/target/surefire-reports/TEST-x.xml", "b/target/surefire-reports/TEST-x.xml"]
    assert len(sandbox.state.objects) == 2
