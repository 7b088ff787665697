"""`bridge backfill` as a process against the real gateway: order, kills, what it leaves out, and exit codes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.processes import GatewayProcess, until
from tests.support.starting import REPOSITORY

TOKEN = "canary-of-the-backfill"
JOBS = ("68491d9bc97b4774adb93e29b46d2dc6", "0a0d8d5f3a8e4f6c9b1c2d3e4f5a6b7c")
REPORT = '<testsuite name="{name}"><testcase classname="c" name="works"/></testsuite>'
PATIENCE_SECONDS = 90.0


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    caller = {"name": "history", "token": TOKEN, "scopes": ["upload", "status"]}
    polling = {**settings["polling"], "grace_period": "50ms"}
    return {**settings, "callers": {"auth": "token"}, "callers.tokens": [caller], "polling": polling}


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.stdout))


class Backfill:
    """Runs the command in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "BRIDGE_TOKEN": TOKEN}

    def add(self, path: str, content: str = REPORT, *, root: str = "reports") -> Path:
        file = self.folder / root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content.replace("{name}", path), encoding="utf-8")
        return file

    def start(self, *arguments: object, url: str = "") -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "bridge", "backfill", *map(str, arguments)],
            cwd=self.folder,
            env=self.environ | ({"BRIDGE_URL": url} if url else {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def run(self, *arguments: object, url: str = "") -> Ended:
        return await self.end(self.start(*arguments, "--rate", 600, url=url))

    @staticmethod
    async def end(process: "subprocess.Popen[str]") -> Ended:
        with process:
            try:
                stdout, stderr = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
            finally:
                if process.poll() is None:
                    process.kill()
        assert TOKEN not in stdout + stderr
        assert "Traceback" not in stderr, stderr
        return Ended(process.returncode, stdout, stderr)


@pytest.fixture
def backfill(tmp_path: Path) -> Backfill:
    folder = tmp_path / "desk"
    folder.mkdir()
    return Backfill(folder)


def finalized(sandbox: Sandbox) -> dict[str, list[int]]:
    """Return the numbers of each job's builds in the order in which their runs were finalized at TestNod."""
    order: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for run in sandbox.state.runs.all():
        _, job, number = run.build_id.split("-")
        assert len(run.finalize_calls) >= 1
        order[job].append((run.finalize_calls[0], int(number)))
    return {job: [number for _, number in sorted(calls)] for job, calls in order.items()}


async def test_builds_of_a_folder_arrive_once_and_in_order_of_their_numbers(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    for job in JOBS:
        for number in (10, 9, 100, 1):
            backfill.add(f"{job}/{number}/target/TEST-a.xml")
            backfill.add(f"{job}/{number}/TEST-b.xml")

    ended = await backfill.run("reports", url=gateway.server_url)

    assert ended.code == 0, ended
    document = ended.document
    assert document["status"] == "done"
    assert document["builds"] | {"found": 8, "sent": 8, "left": 0} == document["builds"]
    assert document["files"] | {"files": 16, "sent": 16, "tests": 16, "rejected": 0} == document["files"]
    assert finalized(sandbox) == {job: [1, 9, 10, 100] for job in JOBS}


async def test_a_backfill_that_is_killed_goes_on_and_sends_each_build_once_and_in_order(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    numbers = list(range(1, 21))
    for job in JOBS:
        for number in numbers:
            backfill.add(f"{job}/{number}/TEST-a.xml")

    for kills in range(1, 4):
        step = backfill.start("reports", "--rate", 600, url=gateway.server_url)
        await until(lambda: len(sandbox.state.runs.all()) >= 8 * kills, "some more runs are open")  # noqa: B023
        step.kill()
        await asyncio.to_thread(step.communicate)
        assert step.returncode == -signal.SIGKILL
    ended = await backfill.run("reports", url=gateway.server_url)

    assert ended.code == 0, ended
    assert ended.document["builds"]["sent"] == 40
    assert ended.document["files"]["sent"] == 40
    assert finalized(sandbox) == dict.fromkeys(JOBS, numbers)
    assert [len(run.uploads) for run in sandbox.state.runs.all()] == [1] * 40
