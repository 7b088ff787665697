"""`bridge upload` as a process against the real gateway: what arrives, exit codes, and a gateway that is away."""

import asyncio
import gzip
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web

from bridge.sandbox.sandbox import Sandbox
from tests.support.byte_server import ByteServer
from tests.support.ports import REFUSED_URL
from tests.support.processes import GatewayProcess, NewGateway
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

    def start(self, *arguments: str, url: str = "") -> "subprocess.Popen[str]":
        return self.start_program("-m", "bridge", "upload", *arguments, url=url)

    def start_program(self, *arguments: str, url: str = "") -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environ | ({"BRIDGE_URL": url} if url else {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def run(self, *arguments: str, url: str = "") -> Ended:
        return await self.end(self.start(*arguments, url=url))

    @staticmethod
    async def end(process: "subprocess.Popen[str]") -> Ended:
        with process:
            try:
                stdout, stderr = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
            finally:
                if process.poll() is None:
                    process.kill()
        ended = Ended(process.returncode, stdout, stderr)
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


# -- exit codes --------------------------------------------------------------------------------------------------------


async def test_a_rejected_file_is_named_before_and_after_and_the_others_arrive(
    workspace: Workspace, gateway: GatewayProcess
) -> None:
    workspace.add("good.xml")
    workspace.add("bad.xml", "<testsuite")
    workspace.add("pom.xml", "<project/>")

    ended = await workspace.run("*.xml", url=gateway.server_url)

    assert ended.code == 1
    assert ended.stderr.startswith("bad.xml is not a valid report: ")
    assert "rejected: bad.xml" in ended.stdout
    assert "skipped: pom.xml" in ended.stdout
    assert await names(gateway) == ["good.xml"]


async def test_a_route_that_repairs_takes_what_validation_rejects(
    workspace: Workspace, new_gateway: NewGateway, settings: dict[str, Any]
) -> None:
    gateway = new_gateway({**settings, "routes": [{**settings["routes"][0], "repair": True}]})
    await gateway.start()
    workspace.add("colored.xml", '<testsuite name="s"><testcase name="a"/><system-out>\x1b</system-out></testsuite>')

    ended = await workspace.run("*.xml", url=gateway.server_url)

    assert ended.code == 0, ended
    assert await names(gateway) == ["colored.xml"]


async def test_a_route_that_only_warns_of_invalid_files_does_not_fail_the_step(
    workspace: Workspace, new_gateway: NewGateway, settings: dict[str, Any]
) -> None:
    gateway = new_gateway({**settings, "routes": [{**settings["routes"][0], "on_invalid": "warn"}]})
    await gateway.start()
    workspace.add("good.xml")
    workspace.add("bad.xml", "<testsuite")

    ended = await workspace.run("*.xml", "--json", url=gateway.server_url)

    assert (ended.code, ended.document["status"]) == (0, "sent")
    assert sorted(file["status"] for file in ended.document["files"]) == ["accepted", "rejected"]


async def test_a_build_without_reports_is_recorded_for_why(workspace: Workspace, gateway: GatewayProcess) -> None:
    ended = await workspace.run("target/**/*.xml", url=gateway.server_url)

    assert ended.code == 1
    assert "target/**/*.xml: no file matches." in ended.stderr
    assert "The upload contains no files." in ended.stdout
    async with aiohttp.ClientSession() as http:
        question = {"job_id": JOB_ID, "build_no": str(BUILD_NO)}
        async with http.get(f"{gateway.admin_url}/api/v1/why", params=question) as answer:
            assert (await answer.json())["case"] == "rejected"


async def test_a_wrong_token_is_a_rejection_and_the_files_stay_kept(
    workspace: Workspace, gateway: GatewayProcess
) -> None:
    workspace.add("a.xml")
    workspace.environ["BRIDGE_TOKEN"] = "another"

    refused = await workspace.run("a.xml", "--spool", "kept", url=gateway.server_url)
    assert refused.code == 1
    assert "decrypt token fail" in refused.stdout
    assert len(list((workspace.folder / "kept").iterdir())) == 1

    workspace.environ["BRIDGE_TOKEN"] = TOKEN
    workspace.add("b.xml")
    sent = await workspace.run("b.xml", "--spool", "kept", url=gateway.server_url)
    assert sent.code == 0
    assert list((workspace.folder / "kept").iterdir()) == []
    assert await names(gateway) == ["a.xml", "b.xml"]


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (["a.xml"], {"BRIDGE_URL": ""}, "Set BRIDGE_URL"),
        (["a.xml"], {"BRIDGE_URL": "ftp://x"}, "is not the address of a gateway"),
        (["a.xml"], {"BRIDGE_URL": "http://user:secret@h"}, "is not the address of a gateway"),
        (["a.xml"], {"INCREASENUM": "20240626.1"}, "Use INCREASENUM"),
        (["a.xml"], {"JOB_ID": ""}, "job_id is missing"),
        (["a.xml", "--branch", "${codeBranch}"], {}, "a variable that was not expanded"),
        (["a.xml", "--time-budget", "soon"], {}, "is not a duration"),
        (["a.xml", "--newer-than-build"], {}, "name it with --marker"),
        (["a.xml", "--marker", "nowhere"], {}, "nowhere cannot be used"),
        (["a.xml", "--token-file", "nowhere"], {}, "nowhere cannot be used"),
        (["a.xml", "--unknown"], {}, "--unknown"),
    ],
)
async def test_wrong_usage_is_2_with_a_remedy_and_nothing_on_stdout(
    arguments: list[str], environ: dict[str, str], said: str, workspace: Workspace
) -> None:
    workspace.add("a.xml")
    workspace.environ |= {"BRIDGE_URL": REFUSED_URL} | environ

    ended = await workspace.run(*arguments, "--json")

    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "secret" not in ended.stderr


async def test_failed_tests_fail_the_step_only_if_wanted_and_never_fail_wins(
    workspace: Workspace, gateway: GatewayProcess
) -> None:
    workspace.add("red.xml", RED)

    assert (await workspace.run("red.xml", url=gateway.server_url)).code == 0
    assert (await workspace.run("red.xml", "--fail-on-failures", url=gateway.server_url)).code == 1
    assert (await workspace.run("red.xml", "--fail-on-failures", "--never-fail", url=gateway.server_url)).code == 0


async def test_a_dry_run_makes_no_call_and_names_what_would_be_rejected(workspace: Workspace) -> None:
    workspace.add("a.xml")
    assert (await workspace.run("*.xml", "--dry-run")).code == 0
    workspace.add("b.xml", "<testsuite")

    ended = await workspace.run("*.xml", "--dry-run", "--json")

    assert ended.code == 1
    assert [file["status"] for file in ended.document["files"]] == ["accepted", "rejected"]


# -- a gateway that is away, slow, or something else -------------------------------------------------------------------

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def listener(respond: Respond, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Run a server that answers every request with `respond`; yield its URL."""
    runner = web.ServerRunner(web.Server(respond, auto_decompress=False), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_without_a_gateway_files_are_kept_and_the_next_run_sends_them_first_under_their_build(
    workspace: Workspace, gateway: GatewayProcess
) -> None:
    workspace.add("first.xml")
    workspace.add("second.xml", RED)

    away = await workspace.run("*.xml", "--spool", "kept", "--time-budget", "0.1s", "--json", url=REFUSED_URL)

    assert away.code == 3
    assert (away.document["status"], away.document["kept"]) == ("away", 2)
    assert [file["status"] for file in away.document["files"]] == ["not sent", "not sent"]
    for file in workspace.folder.glob("*.xml"):
        file.unlink()
    workspace.add("third.xml")
    workspace.environ["INCREASENUM"] = str(BUILD_NO + 1)

    back = await workspace.run("*.xml", "--spool", "kept", "--json", url=gateway.server_url)

    assert back.code == 0
    assert [file["name"] for file in back.document["earlier_files"]] == ["first.xml", "second.xml"]
    assert list((workspace.folder / "kept").iterdir()) == []
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/api/v1/builds") as answer:
        builds = {build["build_no"]: build for build in (await answer.json())["builds"]}
    assert sorted(report["name"] for report in builds[BUILD_NO]["reports"]) == ["first.xml", "second.xml"]
    assert [report["name"] for report in builds[BUILD_NO + 1]["reports"]] == ["third.xml"]


async def test_never_fail_is_0_although_the_gateway_is_away(workspace: Workspace) -> None:
    workspace.add("a.xml")
    ended = await workspace.run("a.xml", "--never-fail", "--time-budget", "0.1s", url=REFUSED_URL)
    assert ended.code == 0
    assert "The gateway is away" in ended.stdout


async def test_a_gateway_that_comes_back_within_the_time_gets_everything(
    workspace: Workspace, new_gateway: NewGateway, settings: dict[str, Any]
) -> None:
    workspace.add("a.xml")
    gateway = new_gateway(settings)
    await gateway.start()
    await gateway.kill()

    step = workspace.start("a.xml", "--spool", "kept", url=gateway.server_url)
    assert step.stderr is not None
    first = await asyncio.to_thread(step.stderr.readline)
    await gateway.start()
    ended = await workspace.end(step)

    assert "The gateway cannot take the reports yet" in first
    assert ended.code == 0
    assert await names(gateway) == ["a.xml"]


async def test_an_answer_that_asks_for_a_later_attempt_is_obeyed(workspace: Workspace, gateway: GatewayProcess) -> None:
    workspace.add("a.xml")
    calls: list[float] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        calls.append(time.monotonic())
        body = await request.read()
        if len(calls) == 1:
            return web.json_response(
                {"status": "fail", "error_msg": "The disk is full."}, status=503, headers={"Retry-After": "2"}
            )
        return await passed_on(request, body, gateway)

    async with listener(respond) as url:
        ended = await workspace.run("a.xml", url=url)

    assert ended.code == 0
    assert "The disk is full" in ended.stderr
    assert calls[1] - calls[0] >= 2
    assert await names(gateway) == ["a.xml"]


async def passed_on(request: web.Request, body: bytes, gateway: GatewayProcess) -> web.Response:
    """Return the gateway's answer to a request that reached a listener in front of it."""
    headers = {name: value for name, value in request.headers.items() if name not in ("Host", "Connection")}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as http,
        http.request(request.method, gateway.server_url + request.path_qs, data=body, headers=headers) as answer,
    ):
        return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")


async def test_a_lost_answer_leads_to_a_second_attempt_and_one_report(
    workspace: Workspace, gateway: GatewayProcess
) -> None:
    workspace.add("a.xml")
    uploads = 0

    async def respond(request: web.Request) -> web.StreamResponse:
        nonlocal uploads
        answer = await passed_on(request, await request.read(), gateway)
        uploads += request.method == "POST"
        if uploads == 1:
            assert request.transport is not None
            request.transport.abort()
        return answer

    async with listener(respond) as url:
        ended = await workspace.run("a.xml", "--json", url=url)

    assert (ended.code, uploads) == (0, 2)
    assert [file["status"] for file in ended.document["files"]] == ["duplicate"]
    assert await names(gateway) == ["a.xml"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="<html>Sign in</html>", content_type="text/html"),
        lambda: web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html"),
        lambda: web.json_response({"status": "ok"}),
        lambda: web.json_response(["success"]),
        lambda: web.Response(status=429, headers={"Retry-After": "3600"}),
        lambda: web.Response(status=503, headers={"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"}),
    ],
)
async def test_what_is_no_answer_of_a_gateway_keeps_the_files(
    answer: Callable[[], web.Response], workspace: Workspace
) -> None:
    workspace.add("a.xml")

    async def respond(request: web.Request) -> web.StreamResponse:
        await request.read()
        return answer()

    async with listener(respond) as url:
        ended = await workspace.run("a.xml", "--spool", "kept", "--time-budget", "0.3s", url=url)

    assert ended.code == 3
    assert len(list((workspace.folder / "kept").iterdir())) == 1


async def test_a_redirect_is_not_followed_and_the_token_goes_nowhere_else(workspace: Workspace) -> None:
    workspace.add("a.xml")
    seen: list[str] = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        seen.append(request.path)
        return web.Response()

    async with listener(elsewhere) as other:

        async def respond(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.Response(status=302, headers={"Location": f"{other}/v1"})

        async with listener(respond) as url:
            ended = await workspace.run("a.xml", url=url)

    assert ended.code == 1
    assert f"redirect to {other}" in ended.stdout
    assert seen == []


async def test_a_server_that_never_answers_is_left_when_the_time_is_over(workspace: Workspace) -> None:
    workspace.add("a.xml")
    stopped = asyncio.Event()

    async def respond(_request: web.Request) -> web.StreamResponse:
        await stopped.wait()
        return web.Response()

    async with listener(respond) as url:
        ended = await workspace.run("a.xml", "--spool", "kept", "--time-budget", "1s", url=url)
        stopped.set()

    assert ended.code == 3
    assert len(list((workspace.folder / "kept").iterdir())) == 1


async def test_a_limit_in_front_of_the_gateway_splits_the_upload(workspace: Workspace, gateway: GatewayProcess) -> None:
    for number in range(7):
        workspace.add(f"{number}.xml")

    async def respond(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if gzip.decompress(body or gzip.compress(b"")).count(b"filename=") > 2:
            return web.Response(status=413, text="<html>413 Request Entity Too Large</html>", content_type="text/html")
        return await passed_on(request, body, gateway)

    async with listener(respond) as url:
        ended = await workspace.run("*.xml", "--spool", "kept", url=url)

    assert ended.code == 0
    assert await names(gateway) == [f"{number}.xml" for number in range(7)]
    assert list((workspace.folder / "kept").iterdir()) == []


async def test_an_answer_before_the_end_of_the_body_is_read(workspace: Workspace) -> None:
    workspace.add("large.xml", f'<testsuite name="s"><!--{os.urandom(8 << 20).hex()}--></testsuite>')

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"status": "fail", "error_code": "BRIDGE.TOO_LARGE", "error_msg": "Too large."}).encode()
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()  # the rest of the body is not read

    async with ByteServer(respond) as server:
        ended = await workspace.run("large.xml", "--time-budget", "60s", url=server.url)

    assert (ended.code, "Too large." in ended.stdout) == (1, True)


# -- kills -------------------------------------------------------------------------------------------------------------


async def test_an_interrupted_upload_is_kept_and_leaves_no_traceback(workspace: Workspace) -> None:
    workspace.add("a.xml")
    arrived, stopped = asyncio.Event(), asyncio.Event()

    async def respond(_request: web.Request) -> web.StreamResponse:
        arrived.set()
        await stopped.wait()
        return web.Response()

    async with listener(respond) as url:
        step = workspace.start("*.xml", "--spool", "kept", url=url)
        await asyncio.wait_for(arrived.wait(), PATIENCE_SECONDS)
        step.send_signal(signal.SIGINT)
        ended = await workspace.end(step)
        stopped.set()

    assert (ended.code, "Interrupted." in ended.stderr) == (130, True)
    assert len(list((workspace.folder / "kept").iterdir())) == 1


@pytest.mark.parametrize("moment", ["before the answer", "after the answer was lost"])
async def test_a_killed_upload_loses_nothing_and_doubles_nothing(
    moment: str, workspace: Workspace, gateway: GatewayProcess
) -> None:
    wanted = [f"{number}.xml" for number in range(5)]
    for name in wanted:
        workspace.add(name)
    arrived, stopped = asyncio.Event(), asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if moment == "after the answer was lost":
            await passed_on(request, body, gateway)
        arrived.set()
        await stopped.wait()
        return web.Response()

    async with listener(respond) as url:
        step = workspace.start("*.xml", "--spool", "kept", url=url)
        await asyncio.wait_for(arrived.wait(), PATIENCE_SECONDS)
        step.kill()
        await workspace.end(step)
        stopped.set()
    for name in wanted:
        (workspace.folder / name).unlink()  # the next build has a fresh checkout
    workspace.add("next.xml")

    ended = await workspace.run("next.xml", "--spool", "kept", url=gateway.server_url)

    assert ended.code == 0
    assert await names(gateway) == [*wanted, "next.xml"]
    assert list((workspace.folder / "kept").iterdir()) == []


async def test_a_run_leaves_what_another_one_is_sending_to_that_one(
    workspace: Workspace, gateway: GatewayProcess
) -> None:
    workspace.add("a.xml")
    arrived, stopped = asyncio.Event(), asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        arrived.set()
        await stopped.wait()
        return await passed_on(request, body, gateway)

    async with listener(respond) as url:
        first = workspace.start("a.xml", "--spool", "kept", "--json", url=url)
        await asyncio.wait_for(arrived.wait(), PATIENCE_SECONDS)
        workspace.add("b.xml")
        second = await workspace.run("b.xml", "--spool", "kept", "--json", url=gateway.server_url)
        assert await names(gateway) == ["b.xml"]
        stopped.set()
        ended = await workspace.end(first)

    assert (second.code, second.document["earlier_files"]) == (0, [])
    assert ended.code == 0
    assert [file["status"] for file in ended.document["files"]] == ["accepted"]
    assert await names(gateway) == ["a.xml", "b.xml"]
    assert list((workspace.folder / "kept").iterdir()) == []


# -- options -----------------------------------------------------------------------------------------------------------


async def test_files_that_are_older_than_the_build_or_the_marker_are_left_out(workspace: Workspace) -> None:
    started = int(datetime(2026, 11, 29, 8, 30, tzinfo=timezone(timedelta(hours=8))).timestamp())
    for name, age in (("old.xml", -3600), ("new.xml", 60)):
        os.utime(workspace.add(name), (started + age, started + age))
    os.utime(workspace.add("began", ""), (started, started))
    workspace.environ["TIMESTAMP"] = "20261129083000"

    by_variable = await workspace.run("*.xml", "--newer-than-build", "--dry-run", "--json")
    by_marker = await workspace.run("*.xml", "--marker", "began", "--dry-run", "--json")

    for ended in (by_variable, by_marker):
        assert [file["name"] for file in ended.document["files"]] == ["new.xml"]
        assert ended.document["older"] == 1


async def test_a_token_comes_from_a_file_if_that_is_named(workspace: Workspace, gateway: GatewayProcess) -> None:
    workspace.add("a.xml")
    (workspace.folder / "token").write_text(f"{TOKEN}\r\n")
    workspace.environ["BRIDGE_TOKEN"] = "another"
    assert (await workspace.run("a.xml", "--token-file", "token", url=gateway.server_url)).code == 0


@pytest.mark.parametrize("token", ["two\nlines", "umlaut-ü"])
async def test_a_token_that_no_header_can_hold_is_not_shown(token: str, workspace: Workspace) -> None:
    workspace.add("a.xml")
    workspace.environ["BRIDGE_TOKEN"] = token
    ended = await workspace.run("a.xml", url=REFUSED_URL)
    assert (ended.code, ended.stdout) == (2, "")
    assert "Copy it again." in ended.stderr
    assert token not in ended.stderr


async def test_a_server_that_repeats_the_token_does_not_bring_it_into_the_log(workspace: Workspace) -> None:
    workspace.add("a.xml")

    async def respond(request: web.Request) -> web.StreamResponse:
        await request.read()
        message = f"{request.headers['X-Auth-Token']} is wrong."
        return web.json_response({"status": "fail", "error_code": "X", "error_msg": message}, status=401)

    async with listener(respond) as url:
        ended = await workspace.run("a.xml", url=url)

    assert (ended.code, "… is wrong." in ended.stdout) == (1, True)


async def test_waiting_without_the_right_to_ask_and_for_a_run_that_does_not_end_is_1(
    workspace: Workspace, new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    sandbox.state.builds.start(JOB_ID, BUILD_NO, at=sandbox.state.micros())
    workspace.add("a.xml")
    gateway = new_gateway(settings)
    await gateway.start()

    open_build = await workspace.run("a.xml", "--wait", "--time-budget", "10s", url=gateway.server_url)
    assert (open_build.code, "The run is not finalized yet" in open_build.stdout) == (1, True)
    await gateway.terminate()
    gateway.write({**settings, "callers.tokens": [{"name": "ci", "token": TOKEN, "scopes": ["upload"]}]})
    await gateway.start()
    forbidden = await workspace.run("a.xml", "--wait", url=gateway.server_url)
    assert (forbidden.code, "The build cannot be followed" in forbidden.stdout) == (1, True)
    assert (await workspace.run("a.xml", url=gateway.server_url)).code == 0


async def test_archives_and_many_files_arrive(workspace: Workspace, gateway: GatewayProcess) -> None:
    with zipfile.ZipFile(workspace.folder / "reports.zip", "w") as archive:
        archive.writestr("inner.xml", REPORT)
    (workspace.folder / "packed.xml.gz").write_bytes(gzip.compress(REPORT.encode()))
    for number in range(501):  # one more than a request carries
        workspace.add(f"many/{number}.xml")

    ended = await workspace.run("reports.zip", "*.gz", "many", "--complete", "--json", url=gateway.server_url)

    assert ended.code == 0
    assert ended.document["totals"]["files"] == 503
    assert {file["status"] for file in ended.document["files"]} == {"accepted"}


async def test_names_that_mean_something_to_forms_and_terminals_arrive(
    workspace: Workspace, gateway: GatewayProcess
) -> None:
    wanted = sorted(['q"uote.xml', "back\\slash.xml", "a%20b.xml", "=?utf-8?q?x?=.xml", "测试.xml", "new\nline.xml"])
    for name in wanted:
        (workspace.folder / name).write_text(REPORT)

    ended = await workspace.run("*.xml", url=gateway.server_url)

    assert ended.code == 0
    assert "new\\nline.xml" in ended.stdout
    assert await names(gateway) == sorted(name.replace("\n", "\\n") for name in wanted)


async def test_it_starts_without_the_libraries_of_the_gateway(workspace: Workspace) -> None:
    workspace.add("a.xml")
    program = (
        "import sys\n"
        "from bridge.commands.upload.options import main\n"
        "code = main(['a.xml', '--time-budget', '0.1s', '--spool', 'kept'])\n"
        "heavy = {'aiobotocore', 'aiohttp', 'asyncio', 'pydantic', 'rich', 'sqlalchemy', 'structlog', 'typer'}\n"
        "print(code, sorted(heavy & set(sys.modules)))"
    )
    process = workspace.start_program("-c", program, url=REFUSED_URL)
    assert (await workspace.end(process)).stdout.splitlines()[-1] == "3 []"


async def test_what_is_no_copy_is_put_aside_and_the_others_are_sent(
    workspace: Workspace, gateway: GatewayProcess
) -> None:
    workspace.add("a.xml")
    kept = workspace.folder / "kept"
    await workspace.run("a.xml", "--spool", "kept", "--time-budget", "0.1s", url=REFUSED_URL)
    (copy,) = kept.iterdir()
    (kept / "0-cut.upload").write_bytes(copy.read_bytes()[:-1])
    (kept / "0-other.upload").write_bytes(b"\xff\n")
    (kept / "0-list.upload").write_bytes(b"[]\n")
    (kept / "0-unfinished.tmp").write_bytes(b"")

    ended = await workspace.run("a.xml", "--spool", "kept", "--json", url=gateway.server_url)

    assert ended.code == 0
    assert [file["status"] for file in ended.document["earlier_files"]] == ["accepted"]
    assert sorted(path.name for path in kept.iterdir()) == [
        "0-cut.unreadable",
        "0-list.unreadable",
        "0-other.unreadable",
        "0-unfinished.tmp",
    ]


async def test_copies_are_closed_to_other_users(workspace: Workspace) -> None:
    workspace.add("a.xml")
    await workspace.run("a.xml", "--spool", "kept", "--time-budget", "0.1s", url=REFUSED_URL)
    (copy,) = (workspace.folder / "kept").iterdir()
    assert (copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert TOKEN.encode() not in copy.read_bytes()


async def test_a_folder_that_cannot_keep_copies_does_not_keep_reports_from_being_sent(
    workspace: Workspace, gateway: GatewayProcess
) -> None:
    workspace.add("a.xml")
    ended = await workspace.run("a.xml", "--spool", "a.xml", url=gateway.server_url)
    assert ended.code == 0
    assert "a.xml cannot keep files" in ended.stderr
    assert await names(gateway) == ["a.xml"]


async def test_a_certificate_that_is_not_trusted_is_named_at_once(workspace: Workspace) -> None:
    workspace.add("a.xml")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def respond(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.json_response({"status": "success", "result": "1 report", "error": None})

    async with listener(respond, context) as url:
        refused = await workspace.run("a.xml", url=url)
        authority.cert_pem.write_to_path(str(workspace.folder / "ca.pem"))
        workspace.environ["SSL_CERT_FILE"] = str(workspace.folder / "ca.pem")
        trusted = await workspace.run("a.xml", url=url)

    assert (refused.code, "SSL_CERT_FILE" in refused.stdout) == (3, True)
    assert "The next attempt" not in refused.stderr
    assert trusted.code == 0


async def test_a_proxy_of_the_environment_is_used_and_its_exceptions_too(
    workspace: Workspace, gateway: GatewayProcess
) -> None:
    workspace.add("a.xml")
    seen: list[str] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        seen.append(f"{request.headers.get('Proxy-Authorization')} {request.path_qs.partition('?')[0]}")
        return await passed_on(request, await request.read(), gateway)

    async with listener(respond) as url:
        workspace.environ["http_proxy"] = url.replace("//", "//us%40er:pass@")
        through = await workspace.run("a.xml", url="http://bridge.invalid")
        workspace.environ["no_proxy"] = "127.0.0.1"
        direct = await workspace.run("a.xml", url=gateway.server_url)

    assert (through.code, direct.code) == (0, 0)
    assert seen[0] == "Basic dXNAZXI6cGFzcw== /v1/report/junit/report/upload"
    assert len(seen) == 2


# -- traces ------------------------------------------------------------------------------------------------------------

TRACEPARENT = f"00-{'a' * 32}-{'1' * 16}-01"
LATER = f"cc-{'b' * 32}-{'2' * 16}-01-more"


async def test_the_trace_of_the_build_is_sent_with_its_reports(workspace: Workspace) -> None:
    async def sent(**variables: str) -> tuple[str | None, str | None]:
        workspace.environ |= {"TRACEPARENT": "", "TRACESTATE": ""} | variables
        async with trace_headers() as (url, headers):
            assert (await workspace.run("a.xml", url=url)).code == 0
        return headers[0]

    workspace.add("a.xml")
    assert await sent() == (None, None)
    assert await sent(TRACEPARENT=TRACEPARENT) == (TRACEPARENT, None)
    assert await sent(TRACEPARENT=f" {LATER}\n", TRACESTATE="v=1, w=2") == (LATER, "v=1, w=2")
    assert await sent(TRACEPARENT=TRACEPARENT, TRACESTATE="v=\r\nX-Evil: 1") == (TRACEPARENT, None)
    assert await sent(TRACEPARENT=TRACEPARENT, TRACESTATE="v=" + 511 * "x") == (TRACEPARENT, None)
    for wrong in ("x", TRACEPARENT.upper(), f"{TRACEPARENT}\r\nX-Evil: 1", f"{TRACEPARENT} ü", f"{TRACEPARENT}x"):
        assert await sent(TRACEPARENT=wrong, TRACESTATE="v=1") == (None, None)


async def test_what_an_earlier_run_has_kept_is_sent_with_the_trace_of_that_run(workspace: Workspace) -> None:
    kept = ("--spool", "kept", "--time-budget")
    workspace.add("a.xml")
    for name, traceparent in (("a.xml", TRACEPARENT), ("b.xml", "")):
        workspace.add(name)
        workspace.environ |= {"TRACEPARENT": traceparent, "TRACESTATE": "v=1" if traceparent else ""}
        assert (await workspace.run(name, *kept, "0.1s", url=REFUSED_URL)).code == 3
    workspace.environ |= {"TRACEPARENT": LATER, "TRACESTATE": ""}
    workspace.add("c.xml")
    async with trace_headers() as (url, headers):
        assert (await workspace.run("c.xml", *kept, "60s", url=url)).code == 0
    assert sorted(headers[:2], key=str) == sorted([(TRACEPARENT, "v=1"), (None, None)], key=str)
    assert headers[2:] == [(LATER, None)]


@asynccontextmanager
async def trace_headers() -> AsyncIterator[tuple[str, list[tuple[str | None, str | None]]]]:
    """Run a server that accepts every upload; yield its URL, and traceparent and tracestate of each upload."""
    found: list[tuple[str | None, str | None]] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        await request.read()
        assert "X-Evil" not in request.headers
        if request.method == "POST":
            found.append((request.headers.get("traceparent"), request.headers.get("tracestate")))
        if request.headers["Accept"] == "text/plain":
            return web.Response(text="success: 1 report\n")
        return web.json_response({"status": "success", "result": "1 report", "error": None})

    async with listener(respond) as url:
        yield url, found
