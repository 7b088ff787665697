"""`bridge demo`: sets the stage, plays the builds side by side, shows the table, and says how it went.

It must not know how a build is played, or what the gateway does with it.
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bridge.commands.console import stop_requested
from bridge.demo.builds import demo_builds
from bridge.demo.environment import DemoEnvironment, open_environment
from bridge.demo.player import BuildPlayer
from bridge.demo.table import table
from bridge.telemetry.logs import set_up

DEADLINE_SECONDS = 120.0  # for all builds together; they take three on an idle machine
FRAMES_A_SECOND = 12  # quick enough to see a run pass through its states
CALL_SECONDS = 20.0  # for one call: everybody is on this machine


def run_demo(*, keep: bool, postgres: bool, s3: bool) -> bool:
    """Play the builds and show what became of them; tell whether TestNod has processed every run."""
    set_up(level="ERROR")  # the table is what is to be seen
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="bridge-demo-") as folder:
        return asyncio.run(_demo(console, Path(folder), keep=keep, postgres=postgres, s3=s3))


async def _demo(console: Console, folder: Path, *, keep: bool, postgres: bool, s3: bool) -> bool:
    console.print(
        "Four builds upload their reports to the bridge. A sandbox stands in for CodeArts, TestNod and S3: "
        "nothing leaves this machine."
    )
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
    async with (
        open_environment(folder, postgres=postgres, s3=s3) as stage,
        aiohttp.ClientSession(timeout=timeout) as http,
    ):
        players = [BuildPlayer(http, stage, build) for build in demo_builds()]
        began = time.monotonic()
        await _play(console, players)
        well = await judge(console, players, time.monotonic() - began)
        if keep:
            stop = stop_requested()
            console.print(_addresses(stage), soft_wrap=True)
            await stop
    return well


async def _play(console: Console, players: Sequence[BuildPlayer]) -> None:
    """Play all builds side by side until each is done or the deadline has passed; show them meanwhile, and then."""

    def drawn() -> Table:
        return table(player.progress for player in players)

    live = Live(get_renderable=drawn, console=console, refresh_per_second=FRAMES_A_SECOND, transient=True)
    # What has not come by the deadline is told by the table, and by the gateway's own sentences.
    with live, suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as plays:
            for player in players:
                plays.create_task(player.play())
    console.print(drawn())


async def judge(console: Console, players: Sequence[BuildPlayer], seconds: float) -> bool:
    """Say how it went; tell whether every run is processed."""
    rows = [player.progress for player in players]
    for player in players:
        if not player.progress.processed:
            said = f"{player.progress.build.title} is {player.progress.status}: {await player.why()}"
            console.print(Text(said, "red"))
    well = all(row.processed for row in rows)
    if well:
        reports, tests = sum(row.reports or 0 for row in rows), sum(row.tests or 0 for row in rows)
        said = f"{len(rows)} builds, {reports} reports, {tests} tests: every run is processed, after {seconds:.1f} s."
        console.print(Text(said, "green"))
    return well


def _addresses(stage: DemoEnvironment) -> str:
    build = demo_builds()[0]
    return f"""
Server   {stage.server_url}   what CI uploads to
Admin    {stage.admin_url}   API, metrics
Sandbox  {stage.control_url}   its control API

Why is a build in TestNod, or not?
  curl '{stage.admin_url}/api/v1/why?job_id={build.job_id}&build_no={build.build_no}'
What is kept of a report that was delivered?
  curl -L '{stage.admin_url}/api/v1/reports/1/file'
What did TestNod receive?
  curl {stage.control_url}/runs

Running until Ctrl-C."""
