"""`bridge demo`: sets the stage, plays the builds side by side, shows the table, and says how it went.

It must not know how a build is played, or what the gateway does with it.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bridge.commands.signals import stop_asked
from bridge.demo.builds import demo_builds
from bridge.demo.play import Player, Progress
from bridge.demo.stage import Stage, set_stage
from bridge.demo.table import table
from bridge.telemetry.logs import set_up

DEADLINE_SECONDS = 60.0  # for all builds together; they take three on an idle machine
CALL_SECONDS = 20.0  # for one call: everybody is on this machine


def run_demo(*, keep: bool) -> bool:
    """Play the builds and show what became of them; tell whether TestNod has processed every run."""
    set_up(level="ERROR")  # the table is what is to be seen
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="bridge-demo-") as folder:
        return asyncio.run(_demo(console, Path(folder), keep=keep))


async def _demo(console: Console, folder: Path, *, keep: bool) -> bool:
    console.print(
        "Four builds upload their reports to the bridge. A sandbox stands in for CodeArts, TestNod and S3: "
        "nothing leaves this machine."
    )
    async with set_stage(folder) as stage:
        well = await _play_all(console, stage)
        if keep:
            console.print(_addresses(stage), soft_wrap=True)
            await stop_asked()
    return well


async def _play_all(console: Console, stage: Stage) -> bool:
    began = time.monotonic()
    builds = demo_builds()
    rows = {build.key: Progress(build=build) for build in builds}
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        with Live(table(rows.values()), console=console, auto_refresh=False, transient=True) as live:

            def show(progress: Progress) -> None:
                rows[progress.build.key] = progress
                live.update(table(rows.values()), refresh=True)

            players = {build.key: Player(http, stage, build, show) for build in builds}
            await _until_deadline(list(players.values()))
        console.print(table(rows.values()))
        late = [row for row in rows.values() if not row.processed]
        for row in late:
            console.print(Text(f"{row.build.title} is {row.status}: {await players[row.build.key].why()}", "red"))
    if not late:
        console.print(_praise(list(rows.values()), time.monotonic() - began))
    return not late


async def _until_deadline(players: list[Player]) -> None:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as plays:
            for player in players:
                plays.create_task(player.play())
    except TimeoutError:
        return  # the table and the gateway's own sentences tell what is missing


def _praise(rows: list[Progress], seconds: float) -> Text:
    reports = sum(row.reports or 0 for row in rows)
    tests = sum(row.tests or 0 for row in rows)
    return Text(
        f"{len(rows)} builds, {reports} reports, {tests} tests: every run is processed, after {seconds:.1f} s.", "green"
    )


def _addresses(stage: Stage) -> str:
    build = demo_builds()[0]
    return f"""
Server   {stage.server_url}   what CI uploads to
Admin    {stage.admin_url}   API, metrics
Sandbox  {stage.control_url}   its control API

Why is a build in TestNod, or not?
  curl '{stage.admin_url}/api/v1/why?job_id={build.job_id}&build_no={build.build_no}'
What did TestNod receive?
  curl {stage.control_url}/runs

Running until Ctrl-C."""
