"""Measure the time from a build's end to finalize if CodeArts takes few calls a minute: real gateways beside sandboxes.

Each gateway has a sandbox of its own, and all play the same builds at the same time. Always exits with 0. README.md
explains the figures.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

import aiohttp
from contenders import ROOT, checkout
from intake import FOLDER, heading
from processes import ServerProcess, free_port
from surroundings import surroundings

from bridge.sandbox.sandbox import Sandbox, settings_toml
from bridge.sandbox.state import Behavior

BUILDS, JOBS, PER_MINUTE = 60, 6, 10
ARRIVAL_SECONDS = 60.0  # in which the builds start
MIN_SECONDS, MAX_SECONDS = 30.0, 180.0  # of a build
PATIENCE_SECONDS = 1800.0
CHECK_SECONDS = 0.5
REPORT = b'<testsuite name="s"><testcase classname="c" name="n"/></testsuite>'


class PlayedBuild(NamedTuple):
    """A build: its number, and seconds since the beginning."""

    job_id: str
    build_no: int
    starts: float
    ends: float


class Outcome(NamedTuple):
    """What one gateway reached."""

    name: str
    lags: list[float]
    calls: int
    throttled: int
    late_throttled: int


def plan_builds(builds: int, jobs: int) -> list[PlayedBuild]:
    """Return builds that start within a minute; those of a job take about as long."""
    random = Random(1)  # must be repeatable
    usual = [random.uniform(MIN_SECONDS, MAX_SECONDS) for _ in range(jobs)]

    def make() -> Iterator[PlayedBuild]:
        for number in range(builds):
            job, starts = number % jobs, random.uniform(0, ARRIVAL_SECONDS)
            lasts = usual[job] * random.lognormvariate(0, 0.25)
            yield PlayedBuild(f"{job + 1:032}", number + 1, starts, starts + lasts)

    return sorted(make(), key=lambda build: build.starts)


async def measure(name: str, root: Path, folder: Path, builds: list[PlayedBuild], per_minute: int) -> Outcome:
    """Play the builds before the gateway of `root` and return what became of them."""
    folder.mkdir()
    async with Sandbox(behavior=Behavior(calls_per_minute={"codearts.*": per_minute})) as sandbox:
        port = free_port()
        config = folder / "bridge.toml"
        tables = f'[admin]\nport = 0\n[store]\nurl = "sqlite:///{folder}/bridge.db"\nspool = "{folder}/spool"\n'
        settings = settings_toml(sandbox).replace("[server]\n", f"[server]\nport = {port}\n")
        config.write_text(tables + settings, encoding="utf-8")
        command = [sys.executable, "-m", "bridge", "serve", "--config", str(config)]
        server = ServerProcess(name, command, port=port, folder=root, log=folder / "gateway.log")
        await asyncio.to_thread(server.__enter__)  # the sandbox answers meanwhile
        try:
            await _play(sandbox, f"http://127.0.0.1:{port}", builds)
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)
        calls = sandbox.state.calls.at("codearts.*")
        began = calls[0].at
        throttled = [call for call in calls if call.status == 429]
        return Outcome(
            name=name,
            lags=[_lag(sandbox, build) for build in builds],
            calls=len(calls),
            throttled=len(throttled),
            late_throttled=sum(1 for call in throttled if call.at > began + 60_000_000),
        )


async def _play(sandbox: Sandbox, url: str, builds: list[PlayedBuild]) -> None:
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        for build in builds:
            tasks.create_task(_play_one(sandbox, url, http, build))
        while _finalized(sandbox) < len(builds):  # noqa: ASYNC110 -- the sandbox announces nothing
            await asyncio.sleep(CHECK_SECONDS)


def _finalized(sandbox: Sandbox) -> int:
    return sum(1 for run in sandbox.state.runs.all() if run.finalize_calls)


async def _play_one(sandbox: Sandbox, url: str, http: aiohttp.ClientSession, build: PlayedBuild) -> None:
    state, params = sandbox.state, {"job_id": build.job_id, "build_no": str(build.build_no), "node_id": "1"}
    await asyncio.sleep(build.starts)
    state.builds.start(build.job_id, build.build_no, at=state.micros())
    form = aiohttp.FormData()
    form.add_field("files", REPORT, filename="report.xml")
    async with http.post(f"{url}/v1/report/junit/report/upload", params=params, data=form) as answer:
        answer.raise_for_status()
    await asyncio.sleep(build.ends - build.starts)
    state.builds.end(build.job_id, build.build_no, at=state.micros())


def _lag(sandbox: Sandbox, build: PlayedBuild) -> float:
    """Return the seconds from the end of a build to the first finalize call of its run."""
    ended = sandbox.state.builds.find(build.job_id, build.build_no)
    suffix = f"-{build.job_id}-{build.build_no}"
    run = next(run for run in sandbox.state.runs.all() if run.build_id.endswith(suffix))
    return (run.finalize_calls[0] - (ended.ended_at if ended and ended.ended_at else 0)) / 1_000_000


def report(outcome: Outcome, builds: int) -> None:
    """Print the figures of one gateway."""
    lags = sorted(outcome.lags)
    print(
        f"{outcome.name:12} lag: median {median(lags):6.1f} s, p95 {lags[int(0.95 * len(lags))]:6.1f} s, "
        f"max {lags[-1]:6.1f} s; calls: {outcome.calls} ({outcome.calls / builds:.1f} a build), "
        f"429: {outcome.throttled}, after the first minute: {outcome.late_throttled}"
    )


async def run(against: str, folder: Path, builds: int, jobs: int, per_minute: int) -> None:
    """Measure this version, and `against` beside it."""
    plan = plan_builds(builds, jobs)
    with ExitStack() as ends:
        contenders = [("this version", ROOT)]
        if against:
            contenders.append((against, ends.enter_context(checkout(against, folder))))
        heading(f"{builds} builds of {jobs} jobs, {per_minute} calls a minute for each API")
        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
            measured = [
                tasks.create_task(measure(name, root, folder / f"contender{number}", plan, per_minute))
                for number, (name, root) in enumerate(contenders)
            ]
        for task in measured:
            report(task.result(), builds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", default="", help="a commit whose gateway is measured beside this one")
    parser.add_argument("--builds", type=int, default=BUILDS)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--per-minute", type=int, default=PER_MINUTE)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"on a disk, not in memory; default {FOLDER}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bridge-polling-", dir=options.folder) as folder:
        for line in list(surroundings(Path(folder)))[:3]:
            print(line)
        asyncio.run(run(options.against, Path(folder), options.builds, options.jobs, options.per_minute))


if __name__ == "__main__":
    main()
