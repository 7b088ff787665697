"""Measure how long a build step waits for its uploads, beside register and PUT one after the other at TestNod.

Always exits with 0. README.md explains the figures.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from contenders import ROOT
from deliver import gateway_at, upstreams
from intake import FOLDER, heading, reached
from reports import small_reports
from surroundings import surroundings

FILES = 20
CASES = 60
ROUNDS = 5
DELAY_SECONDS = 0.1
TARGET = 1 / 20
JOB = "0" * 31 + "1"
TOKEN = "bench-token"  # noqa: S105 -- of the stand-in
COMMANDS = {
    "bridge upload": [sys.executable, "-m", "bridge", "upload", "*.xml"],
    "upload.sh": ["sh", str(ROOT / "bridge" / "server" / "upload.sh"), "*.xml"],
}


def one_after_the_other(port: int, reports: list[Path], build_no: int) -> None:
    """Register each report, PUT it, and finalize, on connections that are kept: the least that a step can do."""
    testnod = HTTPConnection("127.0.0.1", port)
    storage = HTTPConnection("127.0.0.1", port)
    part = '--b\r\nContent-Disposition: form-data; name="test_run[metadata][build_id]"\r\n\r\n'
    for report in reports:
        form = f"{part}bench-{JOB}-{build_no}\r\n--b--\r\n".encode()
        headers = {"Content-Type": "multipart/form-data; boundary=b", "Project-Token": TOKEN}
        testnod.request("POST", "/integrations/test_runs/upload", form, headers)
        url = urlsplit(_json(testnod)["presigned_url"])
        storage.request("PUT", f"{url.path}?{url.query}", report.read_bytes(), {"Content-Type": "application/xml"})
        storage.getresponse().read()
    testnod.request("POST", "/integrations/test_runs/finalize", f"build_id=bench-{JOB}-{build_no}".encode())
    testnod.getresponse().read()
    testnod.close()
    storage.close()


def _json(connection: HTTPConnection) -> dict[str, str]:
    return dict(json.loads(connection.getresponse().read()))


def step(command: list[str], port: int, folder: Path, build_no: int) -> None:
    """Run an upload command as a build step does."""
    environ = os.environ | {
        "PYTHONPATH": str(ROOT),
        "BRIDGE_URL": f"http://127.0.0.1:{port}",
        "BRIDGE_TOKEN": TOKEN,
        "JOB_ID": JOB,
        "INCREASENUM": str(build_no),
    }
    out = subprocess.DEVNULL
    subprocess.run(command, cwd=folder, env=environ, check=True, stdout=out, stderr=out)


def _cpu_of_steps() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(folder: Path, rounds: int) -> None:
    """Measure and print."""
    workspace = folder / "workspace"
    workspace.mkdir()
    reports = [workspace / f"TEST-{number}.xml" for number in range(FILES)]
    for report, content in zip(reports, small_reports(CASES, range(FILES)), strict=True):
        report.write_bytes(content)
    seconds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with upstreams(folder, DELAY_SECONDS) as upstream:
        server, _ = gateway_at(ROOT, "gateway", folder / "gateway", TOKEN, upstream.port)
        with server as gateway:
            for number in range(1, rounds + 2):
                ways: dict[str, Callable[[], None]] = {
                    "one after the other": partial(one_after_the_other, upstream.port, reports, number),
                    **{
                        name: partial(step, command, gateway.port, workspace, 10 * number + at)
                        for at, (name, command) in enumerate(COMMANDS.items())
                    },
                }
                for name, send in ways.items():
                    began, cpu_before = time.perf_counter(), _cpu_of_steps()
                    send()
                    if number > 1:  # the first round warms up
                        seconds.setdefault(name, []).append(time.perf_counter() - began)
                        cpu.setdefault(name, []).append(_cpu_of_steps() - cpu_before)
    whole = median(seconds["one after the other"])
    for name, measured in seconds.items():
        ratio = median(measured) / whole
        used = f"{median(cpu[name]) * 1000:.0f} ms of CPU"
        met = f"  1/{1 / ratio:.0f}, {reached(ratio <= TARGET)}; {used}" if name in COMMANDS else ""
        print(f"{name:20} {median(measured):6.2f} s ({min(measured):.2f} to {max(measured):.2f}){met}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="bridge-bench-") as name:
        folder = Path(name)
        print("\n".join(surroundings(folder)))
        heading(f"a build step with {FILES} files; TestNod answers in {DELAY_SECONDS * 1000:.0f} ms")
        run(folder, args.rounds)


if __name__ == "__main__":
    main()
