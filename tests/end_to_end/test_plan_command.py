"""`bridge plan` as a process against the real gateway and the sandbox's CodeArts: stages, and skeletons of routes."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from bridge.settings import load
from tests.support.ports import REFUSED_URL
from tests.support.processes import GatewayProcess, NewGateway, toml, until
from tests.support.starting import REPOSITORY, run_program

ADMIN_TOKEN = "canary-of-the-plan"
PROJECT = "b4d3971c3988463b865f6f920846149e"
HOUR_US = 3600 * 1_000_000
REPORT = b'<testsuite name="s"><testcase classname="c" name="works"/></testsuite>'
MIRRORED, DELIVERING, SILENT, ENDED, REJECTED = (f"{digit * 32}" for digit in "abcde")
NAMES = {MIRRORED: "shop", DELIVERING: "cart", SILENT: "docs", ENDED: 'web "ui" 测试', REJECTED: "shop"}


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    token = settings["routes"][0]["project_token"]
    routes = [{"name": "shop", "project_token": token, "job_id": MIRRORED, "mirror": True}, *settings["routes"]]
    return {**settings, "admin": {**settings["admin"], "token": ADMIN_TOKEN}, "routes": routes}


@pytest.fixture
async def planned(gateway: GatewayProcess, sandbox: Sandbox) -> GatewayProcess:
    """Return a gateway that got uploads of some of the project's jobs."""
    now = sandbox.state.micros()
    builds = sandbox.state.builds
    for job, name in NAMES.items():
        builds.start(job, 7, at=now - HOUR_US, details={"display_name": name})
        builds.end(job, 7, at=now)
    for job in (MIRRORED, DELIVERING, ENDED):
        await upload(gateway, job, 7)
    await upload(gateway, REJECTED, 7, b"<no/>")
    builds.start(ENDED, 8, at=now + HOUR_US, details={"display_name": NAMES[ENDED]})
    builds.end(ENDED, 8, at=now + HOUR_US)
    return gateway


async def upload(gateway: GatewayProcess, job: str, number: int, content: bytes = REPORT) -> None:
    form = aiohttp.FormData()
    form.add_field("files", content, filename="a.xml")
    params = {"job_id": job, "build_no": str(number)}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
        http.post(f"{gateway.server_url}/v1/report/junit/report/upload", params=params, data=form),
    ):
        pass


async def bridge_plan(
    gateway: GatewayProcess, *arguments: str, admin_url: str = "", stdout: int | None = None
) -> tuple[int, str, str]:
    """Run the command, by an interpreter of its own if it has the terminal `stdout`."""
    program = ["bridge", "plan", "--config", str(gateway.config), *arguments]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "COLUMNS": "80"}
    environ |= {"BRIDGE_ADMIN_URL": admin_url or gateway.admin_url, "BRIDGE_ADMIN_TOKEN": ADMIN_TOKEN}
    if stdout is None:
        ended = await run_program(program, environ=environ)
    else:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", *program],
            check=False,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=90,
        )
        ended = done.returncode, "", done.stderr
    assert ADMIN_TOKEN not in "".join(ended[1:])
    return ended


async def stages(gateway: GatewayProcess) -> dict[str, str]:
    code, out, err = await bridge_plan(gateway, PROJECT)
    assert (code, err) == (0, "")
    return {job["job_id"]: job["stage"] for job in json.loads(out)["jobs"]}


async def test_each_job_is_marked_with_how_far_it_has_moved(planned: GatewayProcess) -> None:
    wanted = {
        MIRRORED: "mirrored",
        DELIVERING: "delivering",
        SILENT: "silent",
        ENDED: "ended_without_reports",
        REJECTED: "ended_without_reports",
    }

    async def settled() -> bool:  # a build has its route once CodeArts has described it
        return await stages(planned) == wanted

    await until(settled, "each job has its stage")
    _, out, _ = await bridge_plan(planned, PROJECT)
    document = json.loads(out)
    assert document["gateway_problem"] is None
    assert document["totals"] == {"jobs": 5, "silent": 1, "ended_without_reports": 2, "mirrored": 1, "delivering": 1}
    jobs = {job["job_id"]: job for job in document["jobs"]}
    assert [job["job_name"] for job in document["jobs"]] == ["cart", "docs", "shop", "shop", NAMES[ENDED]]
    assert "ended without a report" in jobs[ENDED]["reason"]
    assert "Every upload was rejected" in jobs[REJECTED]["reason"]
    assert (jobs[MIRRORED]["routes"], jobs[MIRRORED]["has_own_route"]) == (["shop"], True)
    assert (jobs[SILENT]["routes"], jobs[SILENT]["has_own_route"]) == (["all"], False)


async def test_a_build_that_still_runs_is_not_missed(planned: GatewayProcess, sandbox: Sandbox) -> None:
    sandbox.state.builds.start(ENDED, 9, at=sandbox.state.micros() + 2 * HOUR_US)

    assert (await stages(planned))[ENDED] == "delivering"


async def test_the_routes_are_taken_by_check_config_once_the_tokens_are_set(
    planned: GatewayProcess, settings: dict[str, Any]
) -> None:
    code, out, err = await bridge_plan(planned, PROJECT, "--routes")

    assert (code, err) == (0, "")
    filled = out.replace('project_token = ""', 'project_token = "a-token"')
    assert out.count('project_token = ""') == 4
    planned.config.write_text(toml({name: table for name, table in settings.items() if name != "routes"}) + filled)
    names = {route.name: route.job_id for route in load(planned.config, {}).routes}
    assert names == {"cart": (DELIVERING,), "docs": (SILENT,), "shop-2": (REJECTED,), "web-ui-测试": (ENDED,)}


async def test_without_a_gateway_it_lists_jobs_and_states_why(planned: GatewayProcess) -> None:
    code, out, err = await bridge_plan(planned, PROJECT, admin_url=REFUSED_URL)

    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["gateway_problem"] == f"No gateway answers at {REFUSED_URL}."
    assert {job["stage"] for job in document["jobs"]} == {None}
    assert len(document["jobs"]) == 5


async def test_a_terminal_shows_a_table_of_80_columns(planned: GatewayProcess) -> None:
    ours, its = pty.openpty()
    reading = asyncio.create_task(asyncio.to_thread(read_all, ours))
    try:
        code, _, err = await bridge_plan(planned, PROJECT, stdout=its)
    finally:
        os.close(its)
        shown = await reading
        os.close(ours)

    assert code == 0
    assert "4 jobs have no route of their own." in " ".join(err.split())
    assert all(job in shown for job in NAMES)
    assert "5 jobs, 1 silent, 2 ended without reports" in shown


def read_all(terminal: int) -> str:
    content = b""
    with suppress(OSError):  # the end of a terminal
        while chunk := os.read(terminal, 1 << 16):
            content += chunk
    return content.decode()


async def test_more_jobs_than_a_page_are_listed(gateway: GatewayProcess, sandbox: Sandbox) -> None:
    for number in range(230):
        sandbox.state.builds.start(f"{number:032x}", 1, at=sandbox.state.micros())

    code, out, err = await bridge_plan(gateway, PROJECT)

    assert (code, err) == (0, "")
    assert json.loads(out)["totals"]["silent"] == 230


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [([], 2, "Name a project"), (["shop"], 2, "is not the id of a project"), (["f" * 32], 0, "")],
)
async def test_projects_come_from_arguments_or_routes(
    arguments: list[str], code: int, said: str, gateway: GatewayProcess
) -> None:
    ended, out, err = await bridge_plan(gateway, *arguments)

    assert (ended, said in " ".join(err.split())) == (code, True)
    assert code or json.loads(out)["jobs"] == []


async def test_a_codearts_that_refuses_is_named(
    new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox
) -> None:
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    gateway = new_gateway(settings)
    await gateway.start()

    code, out, err = await bridge_plan(gateway, PROJECT)

    assert (code, out) == (1, "")
    assert err.startswith(f"CodeArts did not list the jobs of project {PROJECT}:")
