"""Measure starts: CPU until a gateway is ready, its memory when idle, and the CPU of commands; beside another commit.

Always exits with 0. README.md explains the figures.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.error import URLError

from contenders import ROOT, checkout
from deliver import gateway_at
from intake import FOLDER, heading
from processes import ServerProcess, free_port
from reports import MIB, small_reports
from surroundings import surroundings

NOW = "this checkout"
STARTS = 5
READY_SECONDS = 60.0
SETTLE_SECONDS = 3.0  # from ready until the memory is taken: what begins after the start has ended by then
POLL_SECONDS = 0.02
CASES = 60
TOKEN = "token-of-the-bench"  # noqa: S105 -- of this bench's gateways
COMMANDS = {
    "bridge --version": ["--version"],
    "bridge check FILE": ["check", "report.xml"],
    "bridge check-config": ["check-config", "--config", "bridge.toml"],
    "bridge upload FILE": ["upload", "report.xml"],
}


@dataclass(kw_only=True, slots=True)
class Figures:
    """Results of all starts of one checkout."""

    ready_seconds: list[float] = field(default_factory=list)
    cpu: list[Counter[str]] = field(default_factory=list)  # seconds by process, until it is ready
    memory: list[Counter[str]] = field(default_factory=list)  # bytes by process, when idle
    commands: dict[str, list[float]] = field(default_factory=dict)  # CPU seconds of each


def start(server: ServerProcess, figures: Figures) -> None:
    """Start a gateway, measure it, and stop it."""
    began = time.perf_counter()
    with server:
        wait_until_ready(server.port)
        figures.ready_seconds.append(time.perf_counter() - began)
        figures.cpu.append(server.cpu_by_process())
        time.sleep(SETTLE_SECONDS)
        figures.memory.append(server.memory_by_process())


def wait_until_ready(port: int) -> None:
    """Wait until /readyz answers 200; raise TimeoutError if that takes longer than READY_SECONDS."""
    give_up_at = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
                return
        except URLError:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"The gateway on port {port} is not ready after {READY_SECONDS:.0f} s.") from None
        time.sleep(POLL_SECONDS)


def run_command(root: Path, arguments: list[str], folder: Path, gateway: ServerProcess) -> float:
    """Run a command of the checkout `root` in `folder`; return its CPU seconds."""
    environ = os.environ | {"PYTHONPATH": os.fspath(root)}
    if arguments[0] == "upload":
        environ |= {"BRIDGE_URL": f"http://127.0.0.1:{gateway.port}", "BRIDGE_TOKEN": TOKEN}
        environ |= {"JOB_ID": "0" * 31 + "1", "INCREASENUM": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "bridge", *arguments]
    subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def has_command(root: Path, arguments: list[str]) -> bool:
    """Return whether the checkout has a command: old commits have no `bridge upload`."""
    return arguments[0] != "upload" or (root / "bridge" / "commands" / "upload").is_dir()


def run(folder: Path, against: str, starts: int) -> None:
    """Measure and print; starts and commands of both checkouts take turns."""
    with ExitStack() as ends:
        roots = {NOW: ROOT} | ({against: ends.enter_context(checkout(against, folder))} if against else {})
        servers = {
            name: gateway_at(root, name, folder / f"gateway-{at}", TOKEN, free_port())[0]
            for at, (name, root) in enumerate(roots.items())
        }
        figures = {name: Figures() for name in roots}
        for number in range(starts + 1):
            for name, server in servers.items():
                start(server, Figures() if number == 0 else figures[name])  # the first one creates the ledger
        report = next(iter(small_reports(CASES, range(1))))
        for at in range(len(roots)):
            (folder / f"gateway-{at}" / "report.xml").write_bytes(report)
        with servers[NOW] as gateway:
            for number in range(starts + 1):
                for at, (name, root) in enumerate(roots.items()):
                    for command, arguments in COMMANDS.items():
                        if has_command(root, arguments):
                            seconds = run_command(root, arguments, folder / f"gateway-{at}", gateway)
                            if number > 0:  # the first round warms up
                                figures[name].commands.setdefault(command, []).append(seconds)
    print_figures(figures)


def print_figures(figures: dict[str, Figures]) -> None:
    """Print the medians of each checkout, and the ratios of this one to the other."""
    for name, figure in figures.items():
        cpu = [sum(each.values()) for each in figure.cpu]
        memory = [sum(each.values()) / MIB for each in figure.memory]
        print(
            f"{name:<14} ready after {median(figure.ready_seconds):.2f} s; "
            f"CPU {median(cpu):.2f} s ({min(cpu):.2f} to {max(cpu):.2f}: {_medians(figure.cpu, 1, '.2f')}); "
            f"idle {median(memory):.0f} MiB ({_medians(figure.memory, MIB, '.0f')})"
        )
        shown = ", ".join(f"{command} {median(each) * 1000:.0f} ms" for command, each in figure.commands.items())
        print(f"{'':<14} CPU of commands: {shown}")
    ours = figures[NOW]
    for name, figure in figures.items():
        if name != NOW:
            ready = median(a / b for a, b in zip(ours.ready_seconds, figure.ready_seconds, strict=True))
            cpu_ratio = median(sum(a.values()) / sum(b.values()) for a, b in zip(ours.cpu, figure.cpu, strict=True))
            memory_ratio = median(
                sum(a.values()) / sum(b.values()) for a, b in zip(ours.memory, figure.memory, strict=True)
            )
            print(f"{NOW} to {name}: ready {ready:.2f}, CPU {cpu_ratio:.2f}, memory {memory_ratio:.2f}")


def _medians(figures: list[Counter[str]], unit: float, form: str) -> str:
    """Return the median of each process in `unit`."""
    names = sorted({name for figure in figures for name in figure})
    return ", ".join(f"{name} {median(figure[name] for figure in figures) / unit:{form}}" for name in names)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", default="", help="a commit that is measured beside this checkout")
    parser.add_argument("--starts", type=int, default=STARTS, help=f"after the first of each, default {STARTS}")
    args = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each start would compile the bridge
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="bridge-bench-") as name:
        folder = Path(name)
        print("\n".join(surroundings(folder)))
        heading(f"starts, median of {args.starts}, and idle memory {SETTLE_SECONDS:.0f} s after (PSS)")
        run(folder, args.against, args.starts)


if __name__ == "__main__":
    main()
