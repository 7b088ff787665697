"""How soon a run is finalized after its build's end where CI tells the hook, with polling at a minute.

It reports and never judges: it ends with 0 whatever the figures are. README.md says how to read them.
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
SETTLE_SECONDS = 2
BAR_SECONDS = 1.0  # of settle's end
LOOK_SECONDS = 0.02
JOB = "0" * 31 + "1"
REPORT = b'<testsuite name="s"><testcase classname="c" name="n"/></testsuite>'
OWN_SETTINGS = """
[webhook]
secret = "bench"
[polling]
initial_delay = "60s"
min_interval = "60s"
max_interval = "60s"
grace_period = "{settle}s"
requests_per_minute = 600
"""


async def measure(folder: Path, builds: int) -> list[float]:
    """Return the seconds from each build's end, which the hook is told at once, to its run's finalize."""
    async with Sandbox() as sandbox:
        config = folder / "bridge.toml"
        config.write_text(settings_toml(sandbox) + OWN_SETTINGS.format(settle=SETTLE_SECONDS), encoding="utf-8")
        where = {"BRIDGE_STORE__URL": f"sqlite:///{folder}/bridge.db", "BRIDGE_STORE__SPOOL": f"{folder}/spool"}
        settings = load(config, {"BRIDGE_SERVER__PORT": "0", "BRIDGE_ADMIN__PORT": "0", **where})
        async with Gateway(settings) as gateway, aiohttp.ClientSession() as http:
            return [await _one(sandbox, gateway.server_url, http, number) for number in range(1, builds + 1)]


async def _one(sandbox: Sandbox, server_url: str, http: aiohttp.ClientSession, number: int) -> float:
    world, params = sandbox.state, {"job_id": JOB, "build_no": str(number), "node_id": "1"}
    world.builds.start(JOB, number, at=world.micros())
    form = aiohttp.FormData()
    form.add_field("files", REPORT, filename="report.xml")
    await http.post(f"{server_url}/v1/report/junit/report/upload", params=params, data=form)
    world.builds.end(JOB, number, at=world.micros())
    ended_at = world.micros()
    told = {"job_id": JOB, "build_no": number}
    await http.post(f"{server_url}/hooks/codearts", json=told, headers={"X-Bridge-Hook": "bench"})
    while True:
        runs = world.runs.all(f"codearts-{JOB}-{number}")
        if calls := [at for run in runs for at in run.finalize_calls]:
            return (calls[0] - ended_at) / 1e6
        await asyncio.sleep(LOOK_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", type=int, default=BUILDS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where ledger and spool lie for the time being")
    asked = parser.parse_args()
    set_up(level="ERROR")
    with tempfile.TemporaryDirectory(prefix="hook-", dir=asked.folder) as folder:
        print(*list(surroundings(Path(folder)))[:3], sep="\n")  # the rest tells of rivals
        heading(f"{asked.builds} builds one after the other, polling every 60 s, settle {SETTLE_SECONDS} s")
        lags = sorted(seconds - SETTLE_SECONDS for seconds in asyncio.run(measure(Path(folder), asked.builds)))
    print(f"finalize after end and settle: median {median(lags):.3f} s, slowest {lags[-1]:.3f} s (bar {BAR_SECONDS} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
