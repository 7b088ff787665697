"""`bridge demo`: runs four builds at the same time, shows a table of their progress, and reports the result."""

import asyncio
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bridge.commands.console import stop_requested
from bridge.demo.builds import demo_builds
from bridge.demo.player import BuildPlayer, DemoEnvironment, Progress, open_environment
from bridge.telemetry.logs import set_up

COLOURS = {"processed": "bold green", "failed": "bold red", "waiting": "dim"}


def table(rows: Iterable[Progress]) -> Table:
    """Return the table with one row per build; it fits into 80 columns."""
    render = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    render.add_column("Build", no_wrap=True)
    for heading in ("Reports", "Tests", "Failed"):
        render.add_column(heading, justify="right")
    render.add_column("TestNod\nrun", justify="right")
    render.add_column("Status", min_width=len("processing"))
    render.add_column("End to\nfinalize", justify="right")
    for row in rows:
        render.add_row(
            row.build.title,
            _number(row.reports),
            _number(row.tests),
            Text(_number(row.failures), style="red" if row.failures else ""),
            ", ".join(str(number) for number in row.test_run_ids),
            Text(row.status, style=COLOURS.get(row.status, "yellow")),
            "" if row.finalize_seconds is None else f"{row.finalize_seconds:.1f} s",
        )
    return render


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


DEADLINE_SECONDS = 120.0  # for all builds together; they take three seconds on an idle machine
FRAMES_A_SECOND = 12  # enough to see a run change its states
CALL_SECONDS = 20.0  # for one call on this machine


def run_demo(*, keep: bool, postgres: bool, s3: bool) -> bool:
    """Run the builds and print the results; return whether TestNod has processed every run."""
    set_up(level="error")  # the table is the output
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
        open_environment(folder, postgres=postgres, s3=s3) as environment,
        aiohttp.ClientSession(timeout=timeout) as http,
    ):
        players = [BuildPlayer(http, environment, build) for build in demo_builds()]
        began = time.monotonic()
        await _play(console, players)
        succeeded = await report_results(console, players, time.monotonic() - began)
        if keep:
            stop = stop_requested()
            console.print(_addresses(environment), soft_wrap=True)
            await stop
    return succeeded


async def _play(console: Console, players: Sequence[BuildPlayer]) -> None:
    """Run all builds at the same time until they are done or the deadline has passed; show the table meanwhile."""

    def render() -> Table:
        return table(player.progress for player in players)

    live = Live(get_renderable=render, console=console, refresh_per_second=FRAMES_A_SECOND, transient=True)
    # If the deadline passes, the table and the gateway's `why` show what is missing.
    with live, suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_SECONDS), asyncio.TaskGroup() as plays:
            for player in players:
                plays.create_task(player.play())
    console.print(render())


async def report_results(console: Console, players: Sequence[BuildPlayer], seconds: float) -> bool:
    """Print the result; return whether every run is processed."""
    rows = [player.progress for player in players]
    for player in players:
        if not player.progress.processed:
            text = f"{player.progress.build.title} is {player.progress.status}: {await player.why()}"
            console.print(Text(text, "red"))
    succeeded = all(row.processed for row in rows)
    if succeeded:
        reports, tests = sum(row.reports or 0 for row in rows), sum(row.tests or 0 for row in rows)
        text = f"{len(rows)} builds, {reports} reports, {tests} tests: every run is processed, after {seconds:.1f} s."
        console.print(Text(text, "green"))
    return succeeded


def _addresses(environment: DemoEnvironment) -> str:
    build = demo_builds()[0]
    return f"""
Server   {environment.server_url}   what CI uploads to
Admin    {environment.admin_url}   API, metrics
Sandbox  {environment.control_url}   its control API

Why is a build in TestNod, or not?
  curl '{environment.admin_url}/api/v1/why?job_id={build.job_id}&build_no={build.build_no}'
What is kept of a report that was delivered?
  curl -L '{environment.admin_url}/api/v1/reports/1/file'
What did TestNod receive?
  curl {environment.control_url}/runs

Running until Ctrl-C."""
