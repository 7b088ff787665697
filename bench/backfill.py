"""Backfill builds through a real gateway while the command is killed every few seconds, and the gateway now and then.

Counts what reached the sandbox's TestNod: each build once, and those of each job in the order of their numbers. Exits
with 1 if not. README.md explains the figures.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from contenders import ROOT
from intake import FOLDER, heading
from processes import ServerProcess, free_port
from surroundings import surroundings

from bridge.sandbox.sandbox import Sandbox, settings_toml
from bridge.sandbox.state import Behavior

BUILDS, JOBS = 2_000, 8
REPORTS = 2  # of a build
GONE = 4  # every fourth build is not known to CodeArts any more
GATEWAY_KILLS = 6  # every sixth kill is one of the gateway
REPORT = '<testsuite name="{name}"><testcase classname="c" name="{name}"/></testsuite>'
SETTINGS = """
[admin]
port = 0
[store]
url = "sqlite:///{folder}/bridge.db"
spool = "{folder}/spool"
[delivery]
retry_initial_delay = "100ms"
retry_max_delay = "1s"
"""


def write_builds(folder: Path, sandbox: Sandbox, builds: int, jobs: int) -> None:
    """Write reports in a tree, in no order, and let the sandbox's CodeArts have most of the builds."""
    now = sandbox.state.micros()
    numbers = list(range(builds))
    Random(1).shuffle(numbers)  # must be repeatable
    for number in numbers:
        job, build_no = f"{number % jobs + 1:032}", number // jobs + 1
        for part in range(REPORTS):
            report = folder / job / str(build_no) / "target" / f"TEST-{part}.xml"
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(REPORT.format(name=f"{build_no}-{part}"), encoding="utf-8")
        if number % GONE:
            sandbox.state.builds.start(job, build_no, at=now - (builds - number) * 60_000_000)
            sandbox.state.builds.end(job, build_no, at=now - (builds - number) * 60_000_000 + 1)


class Play:
    """The command, and the gateway that it sends to."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.port = free_port()
        self.kills: Counter[str] = Counter()
        self._random = Random(2)  # must be repeatable
        polling = '[polling]\ngrace_period = "100ms"\nrequests_per_minute = 12000\ninitial_delay = "200ms"\n'
        settings = settings_toml(sandbox).replace("[server]\n", f"[server]\nport = {self.port}\n")
        (folder / "bridge.toml").write_text(SETTINGS.format(folder=folder) + polling + settings, encoding="utf-8")

    def gateway(self) -> ServerProcess:
        command = [sys.executable, "-m", "bridge", "serve", "--config", str(self.folder / "bridge.toml")]
        return ServerProcess("gateway", command, port=self.port, folder=ROOT, log=self.folder / "gateway.log")

    def command(self) -> "subprocess.Popen[str]":
        environ = os.environ | {"PYTHONPATH": str(ROOT), "BRIDGE_URL": f"http://127.0.0.1:{self.port}"}
        return subprocess.Popen(
            [sys.executable, "-m", "bridge", "backfill", "history", "--rate", "600"],
            cwd=self.folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    async def run(self) -> dict[str, Any]:
        """Run the command until it ends by itself, and return its report."""
        server = self.gateway()
        await asyncio.to_thread(server.__enter__)  # the sandbox answers meanwhile
        try:
            while True:
                command = self.command()
                if await self._moved(command):
                    await asyncio.sleep(self._random.uniform(1, 5))
                if command.poll() is None and self.kills.total() % GATEWAY_KILLS == GATEWAY_KILLS - 1:
                    self.kills["gateway"] += 1
                    server.kill()
                    await asyncio.sleep(self._random.uniform(0, 2))
                    server = self.gateway()
                    await asyncio.to_thread(server.__enter__)
                if command.poll() is None:
                    self.kills["backfill"] += 1
                    command.kill()
                out, _ = await asyncio.to_thread(command.communicate)
                if command.returncode >= 0:
                    return {"exit_code": command.returncode, **(json.loads(out) if out else {})}
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)

    async def _moved(self, command: "subprocess.Popen[str]") -> bool:
        """Return whether the command has sent something, before it ends: a start takes long on a busy machine."""
        before = len(self.sandbox.state.runs.all())
        while command.poll() is None:
            if len(self.sandbox.state.runs.all()) > before:
                return True
            await asyncio.sleep(0.1)
        return False


def check(sandbox: Sandbox, builds: int, jobs: int) -> dict[str, int]:
    """Return how many builds are missing, doubled or out of order at TestNod."""
    runs = sandbox.state.runs.all()
    seen = Counter(run.build_id for run in runs)
    finalized: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for run in runs:
        job, number = run.build_id.split("-")[1:]
        finalized[job].append((run.finalize_calls[0] if run.finalize_calls else sys.maxsize, int(number)))
    orders = [[number for _, number in sorted(calls)] for calls in finalized.values()]
    return {
        "runs": len(runs),
        "missing": builds - len(seen),
        "doubled runs": sum(count > 1 for count in seen.values()),
        "runs with other than each report once": sum(
            sum(upload.put_at is not None for upload in run.uploads) != REPORTS for run in runs
        ),
        "not finalized": sum(not run.finalize_calls for run in runs),
        "out of order": sum(later < earlier for order in orders for earlier, later in pairwise(order)),
        "jobs": len(orders) - jobs,
    }


async def run(folder: Path, builds: int, jobs: int) -> bool:
    """Play, print the figures, and return whether each build arrived once and in order."""
    async with Sandbox(behavior=Behavior(keep_bytes=False)) as sandbox:
        write_builds(folder / "history", sandbox, builds, jobs)
        play = Play(folder, sandbox)
        began = time.monotonic()
        report = await play.run()
        seconds = time.monotonic() - began
        found = check(sandbox, builds, jobs)
    print(f"{builds} builds of {jobs} jobs in {seconds:.0f} s; kills: {dict(play.kills)}")
    print(f"the command's report: exit code {report['exit_code']}, {report.get('builds')}, {report.get('files')}")
    print(f"at TestNod: {found}")
    faults = sum(count for name, count in found.items() if name != "runs")
    return report["exit_code"] == 0 and not faults and found["runs"] == builds


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", type=int, default=BUILDS)
    parser.add_argument("--jobs", type=int, default=JOBS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="bridge-bench-") as name:
        print("\n".join(surroundings(Path(name))))
        heading("a backfill that is killed every few seconds")
        return 0 if asyncio.run(run(Path(name), args.builds, args.jobs)) else 1


if __name__ == "__main__":
    sys.exit(main())
