"""The build step of README.md as people copy it: the very lines, in both shells, against a gateway process."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.end_to_end.conftest import NewGateway
from tests.end_to_end.processes import GatewayProcess, Settings, until
from tests.end_to_end.starting import REPOSITORY
from tests.ports import held_port

TOKEN = "canary-of-the-readme"
JOB_ID = "68491d9bc97b4774adb93e29b46d2dc6"
BUILD_NO = 532
PLACE = "https://bridge.example.com"
REPORTS = Path("target/surefire-reports")
REPORT = '<testsuite name="{name}"><testcase classname="c" name="works"/></testsuite>'
PATIENCE_SECONDS = 90.0  # of one step: more than all its retries

SHELLS = pytest.mark.parametrize("shell", [("sh", "-e"), ("bash", "-e")], ids=" ".join)


@pytest.fixture(scope="session")
def curl() -> str:
    found = shutil.which("curl")
    assert found, "These tests run the README's build step, which needs curl. Install it, as every CI image has it."
    return found


@pytest.fixture
def port() -> Iterator[int]:
    """Return the gateway's port: the step must know the address before the gateway runs."""
    with held_port() as port:
        yield port


@pytest.fixture
def settings(settings: dict[str, Any], port: int) -> Settings:
    return {
        **settings,
        "server": {**settings["server"], "port": port},
        "callers": {"auth": "token", "tokens": [TOKEN]},
    }


def snippet(server_url: str) -> str:
    """Return the step as README.md shows it, sent to the gateway of this test."""
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (step,) = [block for block in blocks if "report/upload" in block]
    assert PLACE in step
    return str(step.replace(PLACE, server_url))


@dataclass(frozen=True, slots=True)
class Ended:
    """How the step went."""

    code: int
    stdout: str
    stderr: str


class Checkout:
    """A folder in which a build has run: its test command, its reports, and the step after it."""

    def __init__(self, folder: Path, server_url: str) -> None:
        self._folder = folder
        self._server_url = server_url
        self._commands = folder / "bin"
        self.tested = folder / "tested"
        self._commands.mkdir(parents=True)
        (folder / REPORTS).mkdir(parents=True)
        self.tests_exit(0)

    def tests_exit(self, code: int) -> None:
        self.add_command("mvn", f": > '{self.tested}'; exit {code}")

    def add_command(self, name: str, line: str) -> None:
        command = self._commands / name
        command.write_text(f"#!/bin/sh\n{line}\n")
        command.chmod(0o755)

    def add_report(self, name: str) -> None:
        (self._folder / REPORTS / name).write_text(REPORT.format(name=len(name)))

    async def run(self, shell: tuple[str, ...], token: str = TOKEN) -> Ended:
        environ = {
            "PATH": f"{self._commands}:{os.environ['PATH']}",
            "CURL_HOME": str(self._folder),  # not what ~/.curlrc of this machine says
            "BRIDGE_TOKEN": token,
            "JOB_ID": JOB_ID,
            "INCREASENUM": str(BUILD_NO),
        }
        process = await asyncio.create_subprocess_exec(
            *shell,
            "-c",
            snippet(self._server_url),
            cwd=self._folder,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                stdout, stderr = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Ended(process.returncode or 0, stdout.decode(), stderr.decode())


@pytest.fixture
def checkout(tmp_path: Path, port: int, curl: str) -> Checkout:
    assert curl
    return Checkout(tmp_path / "checkout", f"http://127.0.0.1:{port}")


async def names(gateway: GatewayProcess) -> list[str]:
    """Return the names of the reports that the gateway has of the build."""
    builds = (await asked(gateway, "builds"))["builds"]
    return sorted(report["name"] for build in builds for report in build["reports"])


async def asked(gateway: GatewayProcess, path: str) -> dict[str, Any]:
    params = {"job_id": JOB_ID, "build_no": str(BUILD_NO)}
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.get(f"{gateway.admin_url}/api/v1/{path}", params=params) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return dict(await answer.json())


@SHELLS
async def test_every_report_arrives_under_its_name_and_the_answer_is_shown(
    shell: tuple[str, ...], checkout: Checkout, gateway: GatewayProcess
) -> None:
    wanted = ["TEST-a b.xml", "TEST-c#d.xml", "TEST-e,f.xml", "TEST-g;h=i.xml", "TEST-plain.xml"]
    for name in wanted:
        checkout.add_report(name)

    ended = await checkout.run(shell)

    assert (ended.code, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["result"] == "5 reports, 5 tests, 0 failed"
    assert await names(gateway) == wanted


@SHELLS
async def test_the_exit_code_of_failing_tests_is_kept_and_their_reports_arrive(
    shell: tuple[str, ...], checkout: Checkout, gateway: GatewayProcess
) -> None:
    checkout.tests_exit(3)
    checkout.add_report("TEST-red.xml")

    ended = await checkout.run(shell)

    assert ended.code == 3
    assert await names(gateway) == ["TEST-red.xml"]


@SHELLS
async def test_a_build_without_reports_is_told_so_and_so_is_who_asks_later(
    shell: tuple[str, ...], checkout: Checkout, gateway: GatewayProcess
) -> None:
    checkout.tests_exit(2)

    ended = await checkout.run(shell)

    assert ended.code == 2
    assert "The upload holds no files." in json.loads(ended.stdout)["error_msg"]
    assert (await asked(gateway, "why"))["case"] == "refused"


@SHELLS
async def test_a_wrong_token_is_said_and_changes_no_exit_code(
    shell: tuple[str, ...], checkout: Checkout, gateway: GatewayProcess
) -> None:
    checkout.add_report("TEST-green.xml")

    ended = await checkout.run(shell, token="another")

    assert ended.code == 0
    assert "decrypt token fail" in json.loads(ended.stdout)["error_msg"]
    assert await names(gateway) == []


@SHELLS
async def test_a_gateway_that_stays_away_is_said_and_changes_no_exit_code(
    shell: tuple[str, ...], checkout: Checkout, curl: str
) -> None:
    checkout.add_command("curl", f"exec '{curl}' \"$@\" --retry-max-time 1")  # the last one counts
    checkout.tests_exit(1)
    checkout.add_report("TEST-red.xml")

    ended = await checkout.run(shell)

    assert ended.code == 1
    assert "the reports were not uploaded" in ended.stderr


async def test_a_gateway_that_comes_back_gets_the_reports_all_the_same(
    checkout: Checkout, new_gateway: NewGateway, settings: Settings
) -> None:
    checkout.add_report("TEST-green.xml")
    gateway = new_gateway(settings)

    step = asyncio.create_task(checkout.run(("sh", "-e")))
    await until(checkout.tested.exists, "the tests have run and curl begins")
    await gateway.start()
    ended = await step

    assert ended.code == 0
    assert "were not uploaded" not in ended.stderr
    assert json.loads(ended.stdout)["status"] == "success"
    assert await names(gateway) == ["TEST-green.xml"]
