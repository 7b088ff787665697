"""Measure the time from the end of a build to finalize if CI calls the webhook and polling takes a minute.

Always exits with 0. README.md explains the figures.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from statistics import median

import aiohttp
from intake import FOLDER, heading
from surroundings import surroundings

from bridge.app.gateway import Gateway
from bridge.sandbox.sandbox import Sandbox, settings_toml
from bridge.settings import load
from bridge.telemetry.logs import set_up

BUILDS = 20
GRACE_SECONDS = 2
LIMIT_SECONDS = 1.0  # after the grace period
CHECK_INTERVAL_SECONDS = 0.02
JOB = "0" * 31 + "1"
REPORT = b'<testsuite name="s"><testcase classname="c" name="n"/></testsuite>'
OWN_SETTINGS = """
[webhook]
secret = "bench"
[polling]
initial_delay = "60s"
min_interval = "60s"
max_interval = "60s"
grace_period = "{grace}s"
requests_per_minute = 600
"""


async def measure(folder: Path, builds: int) -> list[float]:
    """Return the seconds from each build's end, when the webhook is called, to the finalize call of its run."""
    async with Sandbox() as sandbox:
        config = folder / "bridge.toml"
        config.write_text(settings_toml(sandbox) + OWN_SETTINGS.format(grace=GRACE_SECONDS), encoding="utf-8")
        store = {"BRIDGE_STORE__URL": f"sqlite:///{folder}/bridge.db", "BRIDGE_STORE__SPOOL": f"{folder}/spool"}
        settings = load(config, {"BRIDGE_SERVER__PORT": "0", "BRIDGE_ADMIN__PORT": "0", **store})
        async with Gateway(settings) as gateway, aiohttp.ClientSession() as http:
            return [await _one(sandbox, gateway.server_url, http, number) for number in range(1, builds + 1)]


async def _one(sandbox: Sandbox, server_url: str, http: aiohttp.ClientSession, number: int) -> float:
    state, params = sandbox.state, {"job_id": JOB, "build_no": str(number), "node_id": "1"}
    state.builds.start(JOB, number, at=state.micros())
    form = aiohttp.FormData()
    form.add_field("files", REPORT, filename="report.xml")
    await http.post(f"{server_url}/v1/report/junit/report/upload", params=params, data=form)
    state.builds.end(JOB, number, at=state.micros())
    ended_at = state.micros()
    body = {"job_id": JOB, "build_no": number}
    await http.post(f"{server_url}/hooks/codearts", json=body, headers={"X-Bridge-Hook": "bench"})
    while True:
        runs = state.runs.all(f"codearts-{JOB}-{number}")
        if calls := [at for run in runs for at in run.finalize_calls]:
            return (calls[0] - ended_at) / 1e6
        await asyncio.sleep(CHECK_INTERVAL_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", type=int, default=BUILDS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="parent of the folder of ledger and spool")
    args = parser.parse_args()
    set_up(level="ERROR")
    with tempfile.TemporaryDirectory(prefix="hook-", dir=args.folder) as folder:
        print(*list(surroundings(Path(folder)))[:3], sep="\n")  # the other lines are about other servers
        heading(f"{args.builds} builds in sequence, polling every 60 s, grace period {GRACE_SECONDS} s")
        lags = sorted(seconds - GRACE_SECONDS for seconds in asyncio.run(measure(Path(folder), args.builds)))
    print(f"after the grace period: median {median(lags):.3f} s, slowest {lags[-1]:.3f} s (limit {LIMIT_SECONDS} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
