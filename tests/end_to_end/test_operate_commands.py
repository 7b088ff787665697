"""`bridge builds`, `rejections`, `retry`, `finalize` and `routes` as processes against the real gateway."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from bridge.sandbox.sandbox import Sandbox
from tests.support.processes import GatewayProcess, NewGateway, until
from tests.support.starting import REPOSITORY, run_program

ADMIN_TOKEN = "canary-of-the-admin"
JOB_ID = "68491d9bc97b4774adb93e29b46d2dc6"
REPORT = b'<testsuite name="s"><testcase classname="c" name="works"/></testsuite>'
PATIENCE_SECONDS = 90.0


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "admin": {**settings["admin"], "token": ADMIN_TOKEN}}


def environ(gateway: GatewayProcess) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "BRIDGE_ADMIN_URL": gateway.admin_url,
        "BRIDGE_ADMIN_TOKEN": ADMIN_TOKEN,
        "COLUMNS": "200",
    }


async def bridge(
    gateway: GatewayProcess, *arguments: object, stdout: int | None = None, changed: Mapping[str, str] = {}
) -> tuple[int, str, str]:
    """Run a command, by an interpreter of its own if it has the terminal `stdout`."""
    program = ["bridge", *map(str, arguments)]
    if stdout is None:
        ended = await run_program(program, environ=environ(gateway) | dict(changed))
    else:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", *program],
            check=False,
            env=environ(gateway) | dict(changed),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        ended = done.returncode, "", done.stderr
    assert ADMIN_TOKEN not in "".join(ended[1:])
    return ended


async def on_terminal(gateway: GatewayProcess, *arguments: object) -> str:
    """Return what a command prints to a terminal."""
    ours, its = pty.openpty()
    reading = asyncio.create_task(asyncio.to_thread(read_all, ours))
    try:
        code, _, err = await bridge(gateway, *arguments, stdout=its)
        assert (code, err) == (0, "")
    finally:
        os.close(its)
        shown = await reading
        os.close(ours)
    return shown


def read_all(terminal: int) -> str:
    """Return what is written to a terminal until no process has it open."""
    content = b""
    with suppress(OSError):  # the end of a terminal
        while chunk := os.read(terminal, 1 << 16):
            content += chunk
    return content.decode()


async def upload(gateway: GatewayProcess, build_no: int, content: bytes = REPORT, name: str = "a.xml") -> None:
    form = aiohttp.FormData()
    form.add_field("files", content, filename=name)
    params = {"job_id": JOB_ID, "build_no": str(build_no)}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
        http.post(f"{gateway.server_url}/v1/report/junit/report/upload", params=params, data=form),
    ):
        pass


async def one(gateway: GatewayProcess, build_no: int) -> dict[str, Any]:
    code, out, err = await bridge(gateway, "builds", JOB_ID, build_no)
    assert (code, err) == (0, "")
    return dict(json.loads(out))


async def test_builds_are_a_table_on_a_terminal_and_json_in_a_pipe(gateway: GatewayProcess) -> None:
    await upload(gateway, 1)
    await upload(gateway, 2)

    code, out, err = await bridge(gateway, "builds", JOB_ID)
    assert (code, err) == (0, "")
    assert [build["build_no"] for build in json.loads(out)["builds"]] == [2, 1]
    assert (await one(gateway, 1))["reports"][0]["name"] == "a.xml"
    shown = await on_terminal(gateway, "builds")
    assert JOB_ID in shown
    assert "1 report, 1 test, 0 failed" in shown
    assert "a.xml" in await on_terminal(gateway, "builds", JOB_ID, 1)
    assert json.loads(await on_terminal(gateway, "builds", "--json"))["next"] is None


async def test_a_page_goes_on_and_filters_are_passed_on(gateway: GatewayProcess) -> None:
    for number in (1, 2, 3):
        await upload(gateway, number)

    _, out, _ = await bridge(gateway, "builds", "--limit", 2)
    page = json.loads(out)
    _, out, _ = await bridge(gateway, "builds", "--limit", 2, "--after", page["next"])
    assert [build["build_no"] for build in json.loads(out)["builds"]] == [1]
    _, out, _ = await bridge(gateway, "builds", "--route", "another")
    assert json.loads(out)["builds"] == []


async def test_one_build_is_followed_until_it_is_finalized(gateway: GatewayProcess, sandbox: Sandbox) -> None:
    sandbox.state.builds.start(JOB_ID, 1, at=sandbox.state.micros())
    await upload(gateway, 1)

    following = asyncio.create_task(bridge(gateway, "builds", JOB_ID, 1, "--follow"))
    code, out, err = await bridge(gateway, "finalize", JOB_ID, 1)
    assert (code, err) == (0, "")
    assert "ended" in json.loads(out)["result"]
    code, out, err = await following

    assert (code, err) == (0, "")
    assert json.loads(out.splitlines()[-1])["state"] == "finalized"


async def test_a_rejected_file_is_listed_and_sent_repaired(gateway: GatewayProcess) -> None:
    await upload(gateway, 1, b'<testsuite name="s"><testcase name="a"/><system-out>\x1b</system-out></testsuite>')

    _, out, _ = await bridge(gateway, "rejections", JOB_ID)
    (rejection,) = json.loads(out)["rejections"]
    assert (rejection["name"], rejection["build_no"]) == ("a.xml", 1)
    assert "a.xml" in await on_terminal(gateway, "rejections", JOB_ID, 1)
    code, out, err = await bridge(gateway, "retry", "--rejection", rejection["id"], "--repair")

    assert (code, err) == (0, "")
    assert "1 report" in json.loads(out)["result"]
    assert [report["name"] for report in (await one(gateway, 1))["reports"]] == ["a.xml"]


async def test_a_route_is_paused_and_resumed(gateway: GatewayProcess) -> None:
    code, out, _ = await bridge(gateway, "routes", "pause", "all")
    assert (code, json.loads(out)["result"][:22]) == (0, 'Route "all" is paused:')
    _, out, _ = await bridge(gateway, "routes")
    assert [route["paused"] for route in json.loads(out)["routes"]] == [True]
    assert "paused" in await on_terminal(gateway, "routes")
    await bridge(gateway, "routes", "resume", "all")
    _, out, _ = await bridge(gateway, "routes")
    assert [route["paused"] for route in json.loads(out)["routes"]] == [False]


async def test_dead_reports_are_sent_again(new_gateway: NewGateway, settings: dict[str, Any], sandbox: Sandbox) -> None:
    gateway = new_gateway({**settings, "delivery": {**settings["delivery"], "give_up_after": "1s"}})
    await gateway.start()
    sandbox.state.faults.at_random("testnod.register", rate=1, answer={"status": 422, "body": {"error": "no"}}, seed=1)
    await upload(gateway, 1)

    async def is_dead() -> bool:
        return (await one(gateway, 1))["reports"][0]["deliveries"][0]["state"] == "dead"

    await until(is_dead, "the report is given up")
    sandbox.state.faults.clear()
    code, out, _ = await bridge(gateway, "retry", JOB_ID, 1)

    assert code == 0
    assert json.loads(out)["result"] == "1 report is sent again."

    async def is_delivered() -> bool:
        return (await one(gateway, 1))["reports"][0]["deliveries"][0]["state"] == "delivered"

    await until(is_delivered, "the report is delivered")


MISTAKES: tuple[tuple[list[str], int, str], ...] = (
    (["builds", JOB_ID, "9"], 1, "The gateway has no build 9"),
    (["builds", JOB_ID, "9", "x"], 2, "by its job and number"),
    (["builds", "--state", "lost"], 2, "lost"),
    (["builds", JOB_ID, "20240626.1"], 1, "BUILDNUMBER"),
    (["retry"], 2, "Name one of"),
    (["retry", "--repair", "--route", "all"], 2, "--repair needs --rejection"),
    (["retry", "--route", "another"], 1, "There is no route"),
    (["retry", "--delivery", "99"], 1, "no delivery with this id"),
    (["finalize", "abc"], 2, "by its job and number"),
    (["routes", "pause"], 2, "bridge routes pause NAME"),
    (["routes", "pause", "a/b?c"], 1, "There is no route"),
)


async def test_mistakes_are_named(gateway: GatewayProcess) -> None:
    for arguments, code, said in MISTAKES:
        ended, out, err = await bridge(gateway, *arguments)

        assert (ended, out) == (code, ""), arguments
        assert said in " ".join(err.replace("│", " ").split())


async def test_a_wrong_token_and_a_gateway_that_is_away_are_named(gateway: GatewayProcess) -> None:
    code, _, err = await bridge(gateway, "builds", changed={"BRIDGE_ADMIN_TOKEN": "another"})
    assert code == 1
    assert "token" in err
    code, _, err = await bridge(gateway, "builds", changed={"BRIDGE_ADMIN_URL": ""})
    assert code == 1
    await gateway.kill()
    code, _, err = await bridge(gateway, "builds")
    assert (code, err) == (1, f"No gateway answers at {gateway.admin_url}. Start it, or set BRIDGE_ADMIN_URL.\n")
    code, _, err = await bridge(gateway, "why", JOB_ID, 1)
    assert (code, err) == (1, f"No gateway answers at {gateway.admin_url}. Start it, or correct BRIDGE_ADMIN_URL.\n")


async def test_settings_name_the_gateway_if_no_variable_does(gateway: GatewayProcess) -> None:
    await upload(gateway, 1)
    code, out, err = await bridge(gateway, "builds", "--config", gateway.config, changed={"BRIDGE_ADMIN_URL": ""})
    assert (code, err) == (0, "")
    assert len(json.loads(out)["builds"]) == 1


async def test_shells_complete_commands_and_options(gateway: GatewayProcess) -> None:
    words = "bridge builds --st"
    for shell in ("bash", "zsh", "fish"):
        variables = {
            "_BRIDGE_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": words,
            "COMP_WORDS": words,
            "COMP_CWORD": "2",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        _, out, _ = await bridge(gateway, changed=variables)
        assert "--state" in out, shell


async def test_builds_and_names_of_callers_are_forgotten(gateway: GatewayProcess) -> None:
    for number in (1, 2, 3):
        await upload(gateway, number)
    code, _, err = await bridge(gateway, "forget", JOB_ID, 1)
    assert (code, "--yes is required" in err) == (1, True)

    async def forgotten(*arguments: object) -> bool:
        code, _, err = await bridge(gateway, "forget", *arguments, "--yes")  # 503 while a gateway works on the build
        assert code == 0 or "is working on build" in err, err
        return code == 0

    caller = (await one(gateway, 2))["reports"][0]["caller"]
    assert await forgotten("--caller", caller)
    assert (await one(gateway, 2))["reports"][0]["caller"] == "forgotten"
    await until(lambda: forgotten(JOB_ID, 1), "one build is forgotten")
    _, out, _ = await bridge(gateway, "builds", JOB_ID)
    assert [build["build_no"] for build in json.loads(out)["builds"]] == [3, 2]
    for number in (4, 5):  # nothing of them is accepted, so they have no row
        await upload(gateway, number, b"<testsuite")
    await until(lambda: forgotten(JOB_ID, 4), "a build that was rejected is forgotten")
    _, out, _ = await bridge(gateway, "rejections", JOB_ID)
    assert [rejection["build_no"] for rejection in json.loads(out)["rejections"]] == [5]
    await until(lambda: forgotten(JOB_ID), "all builds of the job are forgotten")
    _, out, _ = await bridge(gateway, "builds", JOB_ID)
    assert json.loads(out)["builds"] == []
    _, out, _ = await bridge(gateway, "rejections", JOB_ID)
    assert json.loads(out)["rejections"] == []
