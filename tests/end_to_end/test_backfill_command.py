"""`bridge backfill` as a process against the real gateway: order, kills, what it leaves out, and exit codes."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.sandbox.sandbox import Sandbox
from tests.support.processes import GatewayProcess, NewGateway, until
from tests.support.starting import REPOSITORY, run_program

TOKEN = "canary-of-the-backfill"
JOBS = ("68491d9bc97b4774adb93e29b46d2dc6", "0a0d8d5f3a8e4f6c9b1c2d3e4f5a6b7c")
REPORT = '<testsuite name="{name}"><testcase classname="c" name="works"/></testsuite>'
PATIENCE_SECONDS = 300.0  # a command sends up to 40 builds; the machine may be busy


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
        """Run the command to its end, which needs no interpreter of its own."""
        program = ["bridge", "backfill", *map(str, arguments), "--rate", "600"]
        environ = self.environ | ({"BRIDGE_URL": url} if url else {})
        return self._checked(Ended(*await run_program(program, environ=environ, folder=self.folder)))

    @staticmethod
    async def end(process: "subprocess.Popen[str]") -> Ended:
        with process:
            try:
                stdout, stderr = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
            finally:
                if process.poll() is None:
                    process.kill()
        return Backfill._checked(Ended(process.returncode, stdout, stderr))

    @staticmethod
    def _checked(ended: Ended) -> Ended:
        assert TOKEN not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended


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


def delivered(sandbox: Sandbox) -> list[int]:
    """Return how many reports each run has; one that was only registered, by a gateway that was killed, is none."""
    return [sum(upload.put_at is not None for upload in run.uploads) for run in sandbox.state.runs.all()]


async def upload(gateway: GatewayProcess, job: str, number: int, content: bytes) -> None:
    form = aiohttp.FormData()
    form.add_field("files", content, filename="live.xml")
    params = {"job_id": job, "build_no": str(number), "complete": "true"}
    headers = {"X-Auth-Token": TOKEN}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60), headers=headers) as http,
        http.post(f"{gateway.server_url}/v1/report/junit/report/upload", params=params, data=form) as answer,
    ):
        assert answer.status == 200


async def build_of(gateway: GatewayProcess, job: str, number: int) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
        http.get(f"{gateway.admin_url}/api/v1/builds", params={"job_id": job, "build_no": number}) as answer,
    ):
        (build,) = (await answer.json())["builds"]
    return dict(build)


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
    assert delivered(sandbox) == [1] * 40


# -- archives ----------------------------------------------------------------------------------------------------------


def pack(archive: Path, members: Sequence[tuple[str, str]]) -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name, content in members:
                packed.writestr(name, content)
        return archive
    with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
        link = tarfile.TarInfo(f"{JOBS[0]}/2/link.xml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return archive


@pytest.mark.parametrize("name", ["reports.zip", "reports.tar.gz", "reports.tar"])
async def test_builds_of_an_archive_arrive_in_order_and_no_name_leads_out_of_it(
    name: str, backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    job = JOBS[0]
    members = [(f"export/{job}/{number}/target/TEST-a.xml", REPORT) for number in (3, 1, 2)]
    outside = [(f"../{job}/8/a.xml", REPORT), (f"/{job}/9/a.xml", REPORT), (f"{job}/1/log.txt", "no report")]
    pack(backfill.folder / name, [*members, *outside])

    ended = await backfill.run(name, url=gateway.server_url)

    assert ended.code == 0, ended
    assert finalized(sandbox) == {job: [1, 2, 3]}
    assert ended.document["left_out"] == {"other": 3, "links": 0 if name.endswith("zip") else 1}
    assert sorted(path.name for path in backfill.folder.iterdir()) == [name, f"{name}.backfill"]
    again = await backfill.run(name, url=gateway.server_url)
    assert (again.code, again.document["builds"]) == (0, ended.document["builds"])
    assert len(sandbox.state.runs.all()) == 3


async def test_a_killed_backfill_of_an_archive_does_not_unpack_it_again(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    archive = pack(backfill.folder / "r.tar.gz", [(f"{JOBS[0]}/{number}/a.xml", REPORT) for number in range(1, 8)])
    step = backfill.start(archive, "--rate", 600, url=gateway.server_url)
    await until(lambda: len(sandbox.state.runs.all()) >= 2, "two runs are open")
    step.kill()
    await asyncio.to_thread(step.communicate)

    ended = await backfill.run(archive, url=gateway.server_url)

    assert ended.code == 0, ended
    assert "Unpacking" not in ended.stderr
    assert finalized(sandbox) == {JOBS[0]: [1, 2, 3, 4, 5, 6, 7]}


@pytest.mark.parametrize("name", ["r.zip", "r.tar.gz"])
async def test_a_damaged_archive_sends_nothing(
    name: str, backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    archive = pack(
        backfill.folder / name,
        [(f"{JOBS[0]}/{n}/a.xml", f"<testsuite><!--{os.urandom(999).hex()}--></testsuite>") for n in range(1, 99)],
    )
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])

    ended = await backfill.run(name, url=gateway.server_url)

    assert (ended.code, ended.stdout) == (1, "")
    assert f"{name} cannot be read as zip, tar or tar.gz" in ended.stderr
    assert sandbox.state.runs.all() == []


# -- what is left out, and what is rejected ----------------------------------------------------------------------------


async def test_a_build_that_the_gateway_has_already_is_left_as_it_is(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    backfill.add(f"{JOBS[0]}/1/a.xml", REPORT)
    backfill.add(f"{JOBS[0]}/1/b.xml", REPORT)
    backfill.add(f"{JOBS[0]}/2/a.xml", REPORT)
    file = backfill.folder / "reports" / JOBS[0] / "1" / "a.xml"
    await upload(gateway, JOBS[0], 1, file.read_bytes())

    ended = await backfill.run("reports", url=gateway.server_url)

    assert ended.code == 0, ended
    assert ended.document["builds"] | {"known": 1, "sent": 1} == ended.document["builds"]
    (message,) = ended.document["messages"]
    assert (
        message["message"] == "The gateway has 1 report of it already, and 1 file here with other contents, left out."
    )
    assert delivered(sandbox) == [1, 1]


async def test_what_is_no_report_is_left_out_and_what_is_invalid_is_rejected(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    job = JOBS[0]
    backfill.add(f"{job}/1/a.xml")
    backfill.add(f"{job}/1/pom.xml", "<project/>")
    backfill.add(f"{job}/2/pom.xml", "<project/>")
    backfill.add(f"{job}/3/a.xml", "<testsuite")
    backfill.add(f"{job}/4/a.xml")
    backfill.add(f"{job}/4/b.xml", "<testsuite")
    backfill.add("notes/readme.xml")
    (backfill.folder / "reports" / job / "5").symlink_to(backfill.folder / "reports" / job / "1")

    ended = await backfill.run("reports", url=gateway.server_url)

    assert ended.code == 1, ended
    document = ended.document
    assert document["builds"] | {"found": 4, "sent": 2, "empty": 1, "rejected": 1, "left": 0} == document["builds"]
    assert document["files"] | {"files": 6, "sent": 2, "rejected": 2, "skipped": 2} == document["files"]
    assert document["left_out"] == {"other": 1, "links": 1}
    assert [(each["build_no"], each["name"]) for each in document["messages"]] == [(3, "a.xml"), (4, "b.xml")]
    assert finalized(sandbox) == {job: [1, 4]}


async def test_a_file_that_is_too_large_is_rejected_and_its_build_goes_on(
    backfill: Backfill, new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    gateway = new_gateway({**settings, "server": {**settings["server"], "max_report_size": "2 KiB"}})
    await gateway.start()
    large = f"<testsuite><!--{'-x' * 2048}--></testsuite>"
    backfill.add(f"{JOBS[0]}/1/a.xml")
    backfill.add(f"{JOBS[0]}/1/z.xml", large)
    backfill.add(f"{JOBS[0]}/2/a.xml", large)
    backfill.add(f"{JOBS[0]}/3/a.xml")

    ended = await backfill.run("reports", url=gateway.server_url)

    assert ended.code == 1, ended
    assert ended.document["builds"] | {"sent": 2, "rejected": 1, "left": 0} == ended.document["builds"]
    assert [(each["build_no"], each["name"]) for each in ended.document["messages"]] == [(1, "z.xml"), (2, "a.xml")]
    assert finalized(sandbox) == {JOBS[0]: [1, 3]}


@asynccontextmanager
async def narrow_proxy(gateway: GatewayProcess, max_bytes: int) -> AsyncIterator[str]:
    """Run a proxy before the gateway that rejects larger bodies, as proxies do; yield its URL."""

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if len(body) > max_bytes:
            return web.Response(status=413, text="<html>413 Request Entity Too Large</html>", content_type="text/html")
        headers = {name: value for name, value in request.headers.items() if name not in ("Host", "Connection")}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as http,
            http.request(
                request.method, f"{gateway.server_url}{request.rel_url}", data=body, headers=headers
            ) as answer,
        ):
            return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")

    runner = web.ServerRunner(web.Server(respond, auto_decompress=False), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_build_whose_last_request_a_proxy_rejects_is_finalized_all_the_same(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    backfill.add(f"{JOBS[0]}/1/a.xml")
    backfill.add(f"{JOBS[0]}/1/z.xml", f"<testsuite><!--{os.urandom(8192).hex()}--></testsuite>")
    backfill.add(f"{JOBS[0]}/2/a.xml")

    async with narrow_proxy(gateway, 4096) as url:
        ended = await backfill.run("reports", url=url)

    assert ended.code == 1, ended
    assert ended.document["files"] | {"sent": 2, "rejected": 1} == ended.document["files"]
    assert "A proxy in front of the gateway" in ended.document["messages"][0]["message"]
    assert finalized(sandbox) == {JOBS[0]: [1, 2]}
    assert (await build_of(gateway, JOBS[0], 1))["end_reason"] == "caller"


async def test_a_build_of_two_nodes_is_finalized_without_the_one_whose_request_was_rejected(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    backfill.add(f"{JOBS[0]}/1/linux/a.xml", f"<testsuite><!--{os.urandom(8192).hex()}--></testsuite>")
    backfill.add(f"{JOBS[0]}/1/windows/a.xml")
    backfill.add(f"{JOBS[0]}/2/windows/a.xml")

    async with narrow_proxy(gateway, 4096) as url:
        ended = await backfill.run("reports", "--template", "{job}/{no}/{node}/…", url=url)

    assert ended.code == 1, ended
    assert ended.document["builds"] | {"sent": 2, "left": 0} == ended.document["builds"]
    assert ended.document["files"] | {"sent": 2, "rejected": 1} == ended.document["files"]
    assert finalized(sandbox) == {JOBS[0]: [1, 2]}
    assert (await build_of(gateway, JOBS[0], 1))["end_reason"] == "caller"


async def test_a_job_without_a_route_is_set_aside_after_its_first_build(
    backfill: Backfill, new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    gateway = new_gateway({**settings, "routes": [{**settings["routes"][0], "job_id": JOBS[0]}]})
    await gateway.start()
    for job in JOBS:
        for number in (1, 2, 3):
            backfill.add(f"{job}/{number}/a.xml")

    ended = await backfill.run("reports", url=gateway.server_url)

    assert ended.code == 1, ended
    assert ended.document["status"] == "stopped"
    assert {job["job_id"]: job["builds"]["left"] for job in ended.document["jobs"]} == {JOBS[0]: 0, JOBS[1]: 3}
    (problem,) = ended.document["problems"]
    assert problem.startswith(f"Job {JOBS[1]} was set aside: No route of this bridge takes")
    await gateway.terminate()
    gateway.write(settings)
    await gateway.start()
    assert (await backfill.run("reports", url=gateway.server_url)).code == 0
    assert finalized(sandbox) == {job: [1, 2, 3] for job in JOBS}


async def test_a_build_that_does_not_move_sets_its_job_aside_and_is_resumed(
    backfill: Backfill, new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    paused = {**settings["routes"][0], "name": "paused", "job_id": JOBS[1], "paused": True}
    gateway = new_gateway({**settings, "routes": [paused, *settings["routes"]]})
    await gateway.start()
    for job in JOBS:
        backfill.add(f"{job}/1/a.xml")
        backfill.add(f"{job}/2/a.xml")

    ended = await backfill.run("reports", "--time-budget", "10s", url=gateway.server_url)

    assert ended.code == 3, ended
    assert "paused = true" in " ".join(ended.document["problems"])
    await gateway.terminate()
    gateway.write({**settings, "routes": [{**paused, "paused": False}, *settings["routes"]]})
    await gateway.start()
    assert (await backfill.run("reports", url=gateway.server_url)).code == 0
    assert finalized(sandbox) == {job: [1, 2] for job in JOBS}
    assert delivered(sandbox) == [1] * 4


async def test_a_gateway_that_is_away_is_3_and_the_next_run_goes_on(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    for number in range(1, 7):
        backfill.add(f"{JOBS[0]}/{number}/a.xml")
    step = backfill.start("reports", "--rate", 600, "--time-budget", "10s", url=gateway.server_url)
    await until(lambda: len(sandbox.state.runs.all()) >= 2, "two runs are open")
    await gateway.kill()

    away = await backfill.end(step)

    assert away.code == 3, away
    assert away.document["status"] == "stopped"
    assert away.document["problems"][0].startswith("The gateway is away:")
    await gateway.start()
    assert (await backfill.run("reports", url=gateway.server_url)).code == 0
    assert finalized(sandbox) == {JOBS[0]: [1, 2, 3, 4, 5, 6]}
    assert delivered(sandbox) == [1] * 6


async def test_an_interrupted_backfill_reports_and_leaves_no_traceback(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    for number in range(1, 4):
        backfill.add(f"{JOBS[0]}/{number}/a.xml")
    step = backfill.start("reports", "--rate", 6, url=gateway.server_url)
    await until(lambda: len(sandbox.state.runs.all()) >= 1, "a run is open")
    step.send_signal(signal.SIGINT)

    ended = await backfill.end(step)

    assert (ended.code, ended.document["status"]) == (130, "stopped")
    assert "goes on where it ended" in ended.document["problems"][0]


@pytest.mark.parametrize(
    ("token", "scopes", "said"),
    [
        ("another", ["upload", "status"], "decrypt token fail"),
        (TOKEN, ["upload"], "needs the scopes upload and status"),
    ],
)
async def test_a_token_that_is_refused_ends_it_before_anything_is_sent(
    token: str,
    scopes: list[str],
    said: str,
    backfill: Backfill,
    new_gateway: NewGateway,
    settings: dict[str, Any],
    sandbox: Sandbox,
) -> None:
    caller = {"name": "history", "token": TOKEN, "scopes": scopes}
    gateway = new_gateway({**settings, "callers.tokens": [caller]})
    await gateway.start()
    backfill.add(f"{JOBS[0]}/1/a.xml")
    backfill.environ["BRIDGE_TOKEN"] = token

    ended = await backfill.run("reports", url=gateway.server_url)

    assert ended.code == 1, ended
    assert said in ended.document["problems"][0]
    assert ended.document["builds"]["left"] == 1
    assert sandbox.state.runs.all() == []


# -- options -----------------------------------------------------------------------------------------------------------


async def test_a_dry_run_has_totals_and_leaves_nothing(backfill: Backfill) -> None:
    for job in JOBS:
        backfill.add(f"{job}/7/a.xml")
        backfill.add(f"{job}/8/pom.xml", "<project/>")
    backfill.add(f"{JOBS[0]}/9/b.xml", "<testsuite")

    ended = await backfill.run("reports", "--dry-run")

    assert ended.code == 0, ended
    document = ended.document
    assert document["status"] == "checked"
    assert document["builds"] | {"found": 5, "left": 5} == document["builds"]
    assert document["validated"] == {
        "reports": 3, "invalid": 1, "unreadable": 0, "skipped": 2, "tests": 2, "failures": 0
    }  # fmt: skip
    assert [path.name for path in backfill.folder.iterdir()] == ["reports"]


async def test_a_template_states_node_branch_and_commit(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    backfill.add(f"feature%2Fx/{JOBS[0]}-0012/{commit}/linux/a.xml")
    backfill.add(f"feature%2Fx/{JOBS[0]}-0012/{commit}/windows/a.xml")

    ended = await backfill.run("reports", "--template", "{branch}/{job}-{no}/{commit}/{node}/…", url=gateway.server_url)

    assert ended.code == 0, ended
    build = await build_of(gateway, JOBS[0], 12)
    assert (build["branch"], build["commit"]) == ("feature/x", commit)
    assert sorted(report["node_id"] for report in build["reports"]) == ["linux", "windows"]
    assert {report["name"] for report in build["reports"]} == {"a.xml"}
    assert finalized(sandbox) == {JOBS[0]: [12]}


async def test_a_state_serves_one_backfill_at_a_time_and_only_its_own(
    backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    for number in range(1, 4):
        backfill.add(f"{JOBS[0]}/{number}/a.xml")
    step = backfill.start("reports", "--rate", 6, url=gateway.server_url)
    await until(lambda: len(sandbox.state.runs.all()) >= 1, "a run is open")

    second = await backfill.run("reports", url=gateway.server_url)
    step.kill()
    await asyncio.to_thread(step.communicate)
    third = await backfill.run("reports", "--template", "{job}/{no}/*.xml", url=gateway.server_url)

    assert (second.code, "is in use by another backfill" in second.stderr) == (1, True)
    assert (third.code, "belongs to a backfill with template" in " ".join(third.stderr.split())) == (1, True)


# -- CodeArts' history -------------------------------------------------------------------------------------------------

DAY_US = 24 * 3600 * 1_000_000


@pytest.mark.parametrize("offset_hours", [8, 0])
async def test_branch_and_commit_come_from_the_history_and_running_builds_are_left_out(
    offset_hours: int, backfill: Backfill, gateway: GatewayProcess, sandbox: Sandbox
) -> None:
    sandbox.state.behavior = sandbox.state.behavior.changed({"list_utc_offset_hours": offset_hours})
    job, now = JOBS[0], sandbox.state.micros()
    for number, days in ((1, 300), (2, 200), (3, 31), (4, 1), (5, 0)):
        record = {"branch": f"branch-{number}", "commit": f"{number}" * 40}
        sandbox.state.builds.start(job, number, at=now - days * DAY_US, record=record)
        if number != 5:
            sandbox.state.builds.end(job, number, at=now - days * DAY_US + 60_000_000)
    for number in (1, 2, 4, 5, 6):
        backfill.add(f"{job}/{number}/a.xml")
    backfill.add(f"{JOBS[1]}/1/a.xml")

    ended = await backfill.run("reports", "--job", job, "--config", gateway.config, url=gateway.server_url)

    assert ended.code == 0, ended
    builds = ended.document["builds"]
    assert builds | {"found": 5, "sent": 4, "running": 1, "left": 0, "without_files": 1} == builds
    assert ended.document["left_out"]["other"] == 1
    assert finalized(sandbox) == {job: [1, 2, 4, 6]}
    for number in (1, 2, 4):
        build = await build_of(gateway, job, number)
        assert (build["branch"], build["commit"]) == (f"branch-{number}", f"{number}" * 40)


PROJECT = "b4d3971c3988463b865f6f920846149e"  # of the sandbox


async def test_builds_that_codearts_has_deleted_take_the_route_of_the_project_that_is_named(
    backfill: Backfill, new_gateway: NewGateway, settings: dict[str, Any]
) -> None:
    (default,) = settings["routes"]
    gateway = new_gateway({**settings, "routes": [{**default, "name": "shop", "project_id": PROJECT}, default]})
    await gateway.start()
    backfill.add(f"{JOBS[0]}/1/a.xml")

    ended = await backfill.run("reports", "--project", PROJECT, url=gateway.server_url)

    assert ended.code == 0, ended
    assert (await build_of(gateway, JOBS[0], 1))["route"] == "shop"


async def test_builds_that_codearts_has_deleted_take_the_route_of_their_jobs_name(
    backfill: Backfill, new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    (default,) = settings["routes"]
    gateway = new_gateway({**settings, "routes": [{**default, "name": "shop", "job_name": "job-68491d9b"}, default]})
    await gateway.start()
    sandbox.state.builds.start(JOBS[0], 7, at=sandbox.state.micros() - DAY_US)
    sandbox.state.builds.end(JOBS[0], 7, at=sandbox.state.micros())
    backfill.add(f"{JOBS[0]}/1/a.xml")

    options = ("--job", JOBS[0], "--project", PROJECT, "--config", gateway.config)
    ended = await backfill.run("reports", *options, url=gateway.server_url)

    assert ended.code == 0, ended
    assert (await build_of(gateway, JOBS[0], 1))["route"] == "shop"


async def test_builds_of_the_history_without_reports_are_declared_complete(
    backfill: Backfill, new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    gateway = new_gateway({**settings, "routes": [{**settings["routes"][0], "result_suite": "always"}]})
    await gateway.start()
    job, china = JOBS[0], timezone(timedelta(hours=8))
    now = datetime.fromtimestamp(sandbox.state.micros() / 1_000_000, china)
    starts = {number: now - timedelta(hours=6) * (131 - number) for number in range(1, 131)}
    for number, start in starts.items():
        at = int(start.timestamp()) * 1_000_000
        sandbox.state.builds.start(job, number, at=at)
        sandbox.state.builds.end(job, number, at=at + 60_000_000, build_result="SUCCESS" if number % 2 else "FAILURE")
    since = (now - timedelta(days=1)).date()
    wanted = [number for number, start in starts.items() if start.date() >= since]

    dry = await backfill.run("--job", job, "--dry-run", "--config", gateway.config)
    ended = await backfill.run("--job", job, "--since", since, "--config", gateway.config, url=gateway.server_url)

    assert (dry.code, dry.document["builds"]["found"]) == (0, 130)
    assert ended.code == 0, ended
    assert ended.document["builds"]["sent"] == len(wanted)
    assert finalized(sandbox) == {job: wanted}
