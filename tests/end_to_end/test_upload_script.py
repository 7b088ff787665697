"""GET /upload.sh, and the script as it is served in several shells against the real gateway."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.commands.upload.files import Exclusions, find_files, split_arguments
from bridge.commands.upload.usual_places import find_in_usual_places
from bridge.server.app import read_upload_script
from tests.end_to_end.test_upload_command import (
    JOB_ID,
    REPORT,
    TOKEN,
    TRACEPARENT,
    Ended,
    Workspace,
    listener,
    names,
    passed_on,
    trace_headers,
)
from tests.support.ports import REFUSED_URL
from tests.support.processes import GatewayProcess

SHELLS = pytest.mark.parametrize(
    "shell", [("dash",), ("bash", "--posix"), ("busybox", "sh"), ("zsh",)], ids=lambda shell: shell[0]
)
PATIENCE_SECONDS = 90.0
ODD_NAMES = ['TEST-"q".xml', "TEST-a b.xml", "TEST-c#d.xml", "TEST-e,f;g=h.xml", "TEST-w\\x.xml", "TEST-测试.xml"]


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "callers": {"auth": "token", "tokens": [TOKEN]}}


class Step:
    """A folder of a build, and the script in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "upload.sh").write_bytes(read_upload_script())
        self.environ = {
            "PATH": os.environ["PATH"],
            "CURL_HOME": str(folder),  # not what ~/.curlrc of this machine states
            "BRIDGE_TOKEN": TOKEN,
            "JOB_ID": JOB_ID,
            "INCREASENUM": "532",
        }

    def add(self, path: str, content: str = REPORT) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content.replace("{name}", "s"), encoding="utf-8")

    async def run(self, *arguments: str, shell: tuple[str, ...] = ("sh",), url: str = "") -> Ended:
        if shutil.which(shell[0]) is None:
            pytest.skip(f"{shell[0]} is not installed.")
        done = await asyncio.to_thread(
            subprocess.run,
            [*shell, "upload.sh", *arguments],
            check=False,
            cwd=self.folder,
            env=self.environ | ({"BRIDGE_URL": url} if url else {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        ended = Ended(done.returncode, done.stdout, done.stderr)
        assert TOKEN not in ended.stdout + ended.stderr
        return ended


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return Step(tmp_path / "step")


async def test_it_is_served_with_its_digest_as_etag_and_needs_no_token(gateway: GatewayProcess) -> None:
    url = f"{gateway.server_url}/upload.sh"
    async with aiohttp.ClientSession() as http:
        async with http.get(url) as answer:
            assert (answer.status, await answer.read()) == (200, read_upload_script())
            etag = answer.headers["ETag"]
        async with http.get(url, headers={"If-None-Match": etag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
        async with http.get(url, headers={"If-None-Match": '"another"'}) as answer:
            assert answer.status == 200
        async with http.post(url) as answer:
            assert answer.status == 405


@SHELLS
async def test_reports_arrive_under_their_names(shell: tuple[str, ...], step: Step, gateway: GatewayProcess) -> None:
    for name in ODD_NAMES:
        step.add(f"m/target/surefire-reports/{name}")

    ended = await step.run("**/surefire-reports/*.xml", shell=shell, url=gateway.server_url)

    assert ended.code == 0, ended
    assert ended.stdout.endswith("success: 6 reports, 6 tests, 0 failed\n")
    assert await names(gateway) == sorted(f"m/target/surefire-reports/{name}" for name in ODD_NAMES)


async def test_the_command_finds_the_same_reports_known_already(step: Step, gateway: GatewayProcess) -> None:
    for name in ODD_NAMES:
        step.add(f"target/surefire-reports/{name}")
    assert (await step.run(url=gateway.server_url)).code == 0
    workspace = Workspace(step.folder.parent / "unused")
    workspace.folder = step.folder

    again = await workspace.run("--json", url=gateway.server_url)

    assert {file["status"] for file in again.document["files"]} == {"duplicate"}


async def test_a_rejection_is_1_and_the_others_arrive(step: Step, gateway: GatewayProcess) -> None:
    step.add("a.xml")
    step.add("b.xml", "<testsuite")

    ended = await step.run("*.xml", url=gateway.server_url)

    assert ended.code == 1
    assert "rejected b.xml" in ended.stdout
    assert await names(gateway) == ["a.xml"]


async def test_a_build_without_reports_and_a_wrong_token_are_1(step: Step, gateway: GatewayProcess) -> None:
    empty = await step.run("*.xml", url=gateway.server_url)
    assert (empty.code, "The upload contains no files." in empty.stdout) == (1, True)
    step.environ["BRIDGE_TOKEN"] = "another"
    assert (await step.run("*.xml", url=gateway.server_url)).code == 1


async def test_complete_is_stated_after_the_last_part(step: Step, gateway: GatewayProcess) -> None:
    script = (step.folder / "upload.sh").read_text().replace("files_at_once=500", "files_at_once=2")
    (step.folder / "upload.sh").write_text(script)
    for number in range(5):
        step.add(f"{number}.xml")
    queries: list[str] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        queries.append(request.rel_url.query.get("complete", ""))
        answer = await passed_on(request, await request.read(), gateway)
        return web.Response(status=answer.status, body=answer.body)

    async with listener(respond) as url:
        ended = await step.run("*.xml", "--complete", url=url)

    assert ended.code == 0, ended
    assert queries == ["", "", "", "true"]
    assert len(await names(gateway)) == 5


async def test_a_gateway_that_is_away_is_3_or_0_if_wanted(step: Step) -> None:
    step.add("a.xml")
    away = await step.run("a.xml", "--time-budget", "1", url=REFUSED_URL)
    assert (away.code, "The gateway is away: " in away.stderr) == (3, True)
    assert (await step.run("a.xml", "--time-budget", "1", "--never-fail", url=REFUSED_URL)).code == 0


async def test_a_later_attempt_is_made_as_the_gateway_asks(step: Step, gateway: GatewayProcess) -> None:
    step.add("a.xml")
    calls = 0

    async def respond(request: web.Request) -> web.StreamResponse:
        nonlocal calls
        calls += 1
        body = await request.read()
        if calls == 1:
            return web.Response(status=503, text="fail BRIDGE.UNAVAILABLE: full\n", headers={"Retry-After": "2"})
        answer = await passed_on(request, body, gateway)
        return web.Response(status=answer.status, body=answer.body)

    async with listener(respond) as url:
        ended = await step.run("a.xml", url=url)

    assert (ended.code, calls) == (0, 2)
    assert "The next attempt is in 2 s." in ended.stderr


async def test_a_page_instead_of_an_answer_is_no_success(step: Step) -> None:
    step.add("a.xml")

    async def respond(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(text="<html>Sign in</html>")

    async with listener(respond) as url:
        assert (await step.run("a.xml", "--time-budget", "1", url=url)).code == 3


async def test_wrong_usage_is_2(step: Step) -> None:
    step.add("a.xml")
    assert (await step.run("a.xml")).code == 2
    assert (await step.run("--unknown", url=REFUSED_URL)).code == 2
    assert (await step.run("--job", url=REFUSED_URL)).code == 2
    assert (await step.run("--time-budget", "soon", url=REFUSED_URL)).code == 2
    step.environ["JOB_ID"] = ""
    assert (await step.run("a.xml", url=REFUSED_URL)).code == 2
    assert "PATTERN" in (await step.run("--help")).stdout


@SHELLS
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["!junit.xml"],
        ["*.xml"],
        ["a.xml", "*.xml"],
        ["a.xml", "junit.xml", "!a.xml"],
        ["**/*.xml"],
        ["m"],
        ["m/**"],
        ["m/**/*.xml", "!m/flaky/**"],
        ["m/*/*.xml", "!flaky"],
        ["**/surefire-reports/TEST-*.xml"],
        ["*/n/**/TEST-*.xml"],
        ["we[i]rd.xml"],
        ["**/*.xml", "!**/target/**", "!TEST-*"],
        ["nothing/**/*.xml"],
    ],
    ids=" ".join,
)
async def test_the_script_finds_what_the_command_finds(
    shell: tuple[str, ...], arguments: list[str], step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (
        "a.xml",
        "b c.xml",
        "junit.xml",
        "we[i]rd.xml",
        "target/surefire-reports/TEST-a.xml",
        "target/surefire-reports/TEST-a.txt",
        "m/target/surefire-reports/TEST-b.xml",
        "m/n/target/surefire-reports/TEST-c.xml",
        "m/flaky/x.xml",
        "m/build/test-results/test/TEST-d.xml",
        "node_modules/p/junit.xml",
    ):
        step.add(path)
    monkeypatch.chdir(step.folder)
    patterns, excluded = split_arguments(arguments)
    found = find_files(patterns, Exclusions(excluded)) if patterns else find_in_usual_places(excluded)[0]

    ended = await step.run(*arguments, "--dry-run", shell=shell)

    assert sorted(ended.stdout.splitlines()) == sorted(file.name for file in found.files)


def test_the_shell_reads_the_script(step: Step) -> None:
    expect_clean("sh", "-n", step.folder / "upload.sh")


def test_shellcheck_finds_nothing_in_the_script(step: Step) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed.")
    expect_clean(shellcheck, "-s", "sh", step.folder / "upload.sh")


def expect_clean(*command: str | Path) -> None:
    """Fail with the output of a checker that finds a fault."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@SHELLS
async def test_the_trace_of_the_build_is_sent_with_its_reports(shell: tuple[str, ...], step: Step) -> None:
    async def sent(traceparent: str, tracestate: str = "") -> tuple[str | None, str | None]:
        step.environ |= {"TRACEPARENT": traceparent, "TRACESTATE": tracestate}
        async with trace_headers() as (url, headers):
            ended = await step.run("a.xml", shell=shell, url=url)
        assert ended.code == 0, ended
        return headers[0]

    step.add("a.xml")
    assert await sent("") == (None, None)
    assert await sent("", "v=1") == (None, None)
    assert await sent(TRACEPARENT, "v=1,k@w=a/b:c") == (TRACEPARENT, "v=1,k@w=a/b:c")
    assert await sent(TRACEPARENT, 'v=1"\nheader = "X-Evil: 1') == (TRACEPARENT, None)
    assert await sent(f'{TRACEPARENT}"\nheader = "X-Evil: 1', "v=1") == (None, None)
