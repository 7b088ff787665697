"""Every block of README.md that people copy, run as it stands; the build step in several shells."""

import asyncio
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.ports import held_port
from tests.support.processes import GatewayProcess, NewGateway, Settings, until
from tests.support.starting import REPOSITORY

TOKEN = "canary-of-the-readme"
JOB_ID = "68491d9bc97b4774adb93e29b46d2dc6"
BUILD_NO = 532
PLACE = "https://bridge.example.com"
REPORTS = Path("target/surefire-reports")
REPORT = '<testsuite name="{name}"><testcase classname="c" name="works"/></testsuite>'
PATIENCE_SECONDS = 90.0  # of one step: more than all its retries

SHELLS = pytest.mark.parametrize(
    "shell",
    [("sh", "-e"), ("dash", "-e"), ("bash", "-e"), ("bash",), ("zsh", "-e"), ("busybox", "sh", "-e")],
    ids=" ".join,
)

SECRETS = "/run/secrets/"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?m)^```(\w+)\n(.*?)^```$", README, re.DOTALL)
"""Language and content of each block."""


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


def block(language: str, text: str) -> str:
    """Return the one block in `language` that holds `text`."""
    (found,) = [content for named, content in BLOCKS if named == language and text in content]
    return str(found)


def snippet(server_url: str) -> str:
    """Return the step as README.md shows it, sent to the gateway of this test."""
    step = block("sh", "upload.sh")
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
        if shutil.which(shell[0]) is None:
            pytest.skip(f"{shell[0]} is not installed.")
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
    wanted = [
        'TEST-"q".xml',
        "TEST-a b.xml",
        "TEST-c#d.xml",
        "TEST-e,f.xml",
        "TEST-g;h=i.xml",
        "TEST-plain.xml",
        "TEST-w\\x.xml",
        "TEST-测试.xml",
    ]
    for name in wanted:
        checkout.add_report(name)

    ended = await checkout.run(shell)

    assert (ended.code, "not uploaded" in ended.stderr) == (0, False)
    assert ended.stdout.endswith("success: 8 reports, 8 tests, 0 failed\n")
    assert await names(gateway) == [f"{REPORTS}/{name}" for name in wanted]


@SHELLS
async def test_the_exit_code_of_failing_tests_is_kept_and_their_reports_arrive(
    shell: tuple[str, ...], checkout: Checkout, gateway: GatewayProcess
) -> None:
    checkout.tests_exit(3)
    checkout.add_report("TEST-red.xml")

    ended = await checkout.run(shell)

    assert ended.code == 3
    assert await names(gateway) == [f"{REPORTS}/TEST-red.xml"]


@SHELLS
async def test_a_build_without_reports_is_told_so_and_so_is_who_asks_later(
    shell: tuple[str, ...], checkout: Checkout, gateway: GatewayProcess
) -> None:
    checkout.tests_exit(2)

    ended = await checkout.run(shell)

    assert ended.code == 2
    assert "The upload contains no files." in ended.stdout
    assert (await asked(gateway, "why"))["case"] == "rejected"


@SHELLS
async def test_a_wrong_token_is_said_and_changes_no_exit_code(
    shell: tuple[str, ...], checkout: Checkout, gateway: GatewayProcess
) -> None:
    checkout.add_report("TEST-green.xml")

    ended = await checkout.run(shell, token="another")

    assert ended.code == 0
    assert "decrypt token fail" in ended.stdout
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
    assert ended.stdout.endswith("success: 1 report, 1 test, 0 failed\n")
    assert await names(gateway) == [f"{REPORTS}/TEST-green.xml"]


# -- the other blocks --------------------------------------------------------------------------------------------------


class Desk:
    """A folder like a checkout of the repository, with `bridge` on the PATH, in which blocks are run as they stand."""

    def __init__(self, folder: Path, admin_port: int) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copy(REPOSITORY / "config.example.toml", folder)
        commands = folder / "bin"
        commands.mkdir()
        self._pid = folder / "bridge.pid"
        self._add(commands / "bridge", f'echo $$ > {shlex.quote(str(self._pid))}\nexec {_python("bridge")} "$@"')
        self._add(commands / "pip", 'test "$*" = "install ." || exit 64')  # the tests run on what is installed
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        self.environ = inherited | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            # The block's own ports may be taken on this machine, and 0.0.0.0 would listen to others.
            "BRIDGE_SERVER__HOST": "127.0.0.1",
            "BRIDGE_SERVER__PORT": "0",
            "BRIDGE_ADMIN__PORT": str(admin_port),
        }

    @staticmethod
    def _add(command: Path, lines: str) -> None:
        command.write_text(f"#!/bin/sh\n{lines}\n")
        command.chmod(0o755)

    def run(self, script: str, environ: Mapping[str, str] | None = None) -> Ended:
        """Run a script that ends by itself."""
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            check=False,
            cwd=self.folder,
            env=self.environ if environ is None else dict(environ),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    async def serve(self, script: str, *then: str) -> list[Ended]:
        """Run a script that ends with a gateway, the scripts `then` beside it, and stop the gateway."""
        log = self.folder / "log"
        with log.open("wb") as stderr:
            shell = await asyncio.create_subprocess_exec(
                "sh", "-e", "-c", script, cwd=self.folder, env=self.environ, stdout=stderr, stderr=stderr
            )
            try:
                await until(
                    lambda: shell.returncode is not None or '"gateway_listening"' in log.read_text(),
                    "the gateway listens",
                    seconds=PATIENCE_SECONDS,
                )
                assert shell.returncode is None, log.read_text()
                gateway = int(self._pid.read_text())
                ended = [await asyncio.to_thread(self.run, each) for each in then]
                os.kill(gateway, signal.SIGTERM)
                assert await asyncio.wait_for(shell.wait(), PATIENCE_SECONDS) == 0, log.read_text()
            finally:
                if shell.returncode is None:
                    os.kill(int(self._pid.read_text()), signal.SIGKILL)
                    await shell.wait()
        return ended


def _python(module: str) -> str:
    return f"{shlex.quote(sys.executable)} -m {module}"


@pytest.fixture
def desk(tmp_path: Path, port: int) -> Desk:
    return Desk(tmp_path / "desk", port)


def test_no_block_is_left_untried() -> None:
    """A new block needs a test here, or a line that says why it is none to run."""
    tried = [
        ("sh", "make demo"),
        ("sh", "make test"),
        ("sh", "sh upload.sh"),
        ("sh", "bridge upload"),
        ("json", '"status"'),
        ("sh", "bridge serve"),
        ("toml", "[[routes]]"),
        ("sh", "bridge check "),
        ("console", "bridge why"),
        ("sh", "bridge backfill"),
    ]
    assert [language for language, _ in BLOCKS] == [language for language, _ in tried]
    for language, text in tried:
        assert block(language, text)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_targets_of_make_exist(target: str) -> None:
    """They install what they need, so that they are only looked at: test_demo.py plays the demo."""
    assert block("sh", f"make {target}").strip() == f"make {target}"
    assert re.search(rf"(?m)^{target}:", (REPOSITORY / "Makefile").read_text(encoding="utf-8"))


def test_the_answer_that_is_shown_is_json_of_the_shape_that_uploads_get() -> None:
    assert set(json.loads(block("json", '"status"'))) == {"status", "result", "error"}


@pytest.mark.early
async def test_the_commands_that_run_a_trial_work_and_so_does_the_question_beside_it(desk: Desk) -> None:
    (asked,) = re.findall(r"(?m)^\$ (.+)$", block("console", "bridge why"))

    (why,) = await desk.serve(block("sh", "bridge serve"), f"export BRIDGE_TOKEN=x; {asked}")

    assert (why.code, why.stderr) == (0, "")
    assert why.stdout.startswith(f"Status: No report of build {BUILD_NO} of job {JOB_ID} was ever uploaded")


async def test_the_least_settings_are_ok_and_serve(desk: Desk, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    text = block("toml", "[[routes]]")
    named = re.findall(rf'"{SECRETS}(.+)"', text)
    for name in named:
        (secrets / name).write_text(f"canary-secret-{name}\n")
    assert len(named) == 4
    (desk.folder / "bridge.toml").write_text(text.replace(SECRETS, f"{secrets}/"))
    as_it_stands = {name: value for name, value in desk.environ.items() if not name.startswith("BRIDGE_")}

    checked = desk.run("bridge check-config --config bridge.toml", as_it_stands)

    assert (checked.code, checked.stdout, checked.stderr) == (
        0,
        "bridge.toml is valid: 1 route (shop), no warnings.\n",
        "",
    )
    await desk.serve("bridge serve --config bridge.toml")


def test_the_least_settings_state_that_a_proxy_speaks_tls_and_need_to(desk: Desk, tmp_path: Path) -> None:
    settings = tomllib.loads(block("toml", "[[routes]]"))
    assert settings.pop("server") == {"behind_tls_proxy": True}
    text = block("toml", "[[routes]]").partition("[codearts]")
    (desk.folder / "bridge.toml").write_text("".join(text[1:]).replace(SECRETS, f"{tmp_path}/"))
    for name in ("codearts-access-key", "codearts-secret-key", "ci-token", "testnod-shop"):
        (tmp_path / name).write_text(f"canary-{name}\n")
    as_it_stands = {name: value for name, value in desk.environ.items() if not name.startswith("BRIDGE_")}

    refused = desk.run("bridge check-config --config bridge.toml", as_it_stands)

    assert refused.code == 1
    assert "set behind_tls_proxy = true under [server]" in refused.stderr


def test_the_command_for_builds_finds_the_reports_and_leaves_out_what_is_excluded(desk: Desk) -> None:
    for name in ("TEST-a.xml", "flaky/TEST-b.xml"):
        report = desk.folder / REPORTS / name
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(REPORT.format(name="a"))
    build = {"JOB_ID": JOB_ID, "INCREASENUM": str(BUILD_NO)}

    ended = desk.run(f"{block('sh', 'bridge upload').strip()} --dry-run --json", desk.environ | build)

    assert (ended.code, ended.stderr) == (0, "")
    assert [file["name"] for file in json.loads(ended.stdout)["files"]] == [f"{REPORTS}/TEST-a.xml"]


def test_check_judges_the_reports_of_a_build(desk: Desk) -> None:
    command = block("sh", "bridge check ")
    (desk.folder / REPORTS).mkdir(parents=True)
    (desk.folder / REPORTS / "TEST-a.xml").write_text(REPORT.format(name="a"))
    assert desk.run(command).code == 0

    (desk.folder / REPORTS / "TEST-b.xml").write_text("<testsuite")
    assert desk.run(command).code == 1


def test_the_command_for_the_history_shows_what_it_would_send(desk: Desk) -> None:
    with tarfile.open(desk.folder / "history.tar.gz", "w:gz") as archive:
        for number in (1, 2):
            content = REPORT.format(name="a").encode()
            member = tarfile.TarInfo(f"{JOB_ID}/{number}/TEST-a.xml")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

    ended = desk.run(block("sh", "bridge backfill"))

    assert ended.code == 0, ended
    assert json.loads(ended.stdout)["builds"]["left"] == 2
