"""Measure uploads: reports per second beside other servers, response time of one report, memory of large reports.

Always exits with 0. README.md explains the figures.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from contenders import (
    FORM,
    GATEWAY,
    HERE,
    NAIVE,
    NO_TELEMETRY,
    OTHER,
    PROTOTYPE,
    SINK,
    TRACES,
    checkout,
    collector_server,
    form_server,
    gateway,
    naive_server,
    prototype_server,
    sink_server,
    telemetry_variants,
)
from load import REPORTS_A_BUILD, Load, Sent
from processes import PeakMemory, ServerProcess
from reports import LARGE, MIB, REPORT_BYTES
from surroundings import surroundings

CORES = 2  # shared by client and servers, even if the machine has more
CONNECTIONS = 32
BUILDS = 2  # for each connection in one round: 1,280 reports, a second or two
ROUNDS = 5
CASES = (60, 230)
TARGET_OF_FORM = 0.7
TARGET_OF_NAIVE = 4
TELEMETRY_TARGETS = {GATEWAY: 0.97, TRACES: 0.9}
LIMIT_MEMORY_BYTES = 150 * MIB
IDLE_BUILDS = 10  # 200 reports, one at a time
QUICK_IDLE_BUILDS = 2
IDLE_PAUSE_SECONDS = 0.02  # between a response and the next report: the gateway is idle by then
OUTAGE_SECONDS = 6.0  # after five seconds of failed calls the circuit breaker of TestNod opens
CLIENT_SECONDS = 120  # for one round
FOLDER = Path("/var/tmp")  # noqa: S108 -- /tmp may be in memory, where synchronous=FULL costs nothing


@dataclass(kw_only=True, slots=True)
class Figures:
    """Results of all rounds of one server."""

    reports_a_second: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)  # for one report

    @property
    def rate(self) -> float:
        return median(self.reports_a_second)

    @property
    def cpu_us(self) -> float:
        return median(self.cpu_seconds) * 1e6


class Bench:
    """All rounds, with the folder, the token and the unused build numbers that they share."""

    def __init__(self, folder: Path, rounds: int, *, other: Path | None = None, is_quick: bool = False) -> None:
        """`other` is a checkout of another commit, whose gateway is measured too."""
        self._folder = folder
        self._rounds = rounds
        self._other = other
        self._is_quick = is_quick
        self._token = secrets.token_hex(16)
        self._numbers = count(1)
        self._builds = count(1, CONNECTIONS * BUILDS)

    def run(self) -> None:
        for cases in CASES[:1] if self._is_quick else CASES:
            self._compare(cases)
        self._response_when_idle()
        if not self._is_quick:
            self._large_reports()

    # -- reports a second ----------------------------------------------------------------------------------------

    def _compare(self, cases: int) -> None:
        heading(
            f"{REPORT_BYTES // 1000} KB reports of {cases} cases, {CONNECTIONS} connections, "
            f"{REPORTS_A_BUILD} reports a build; median of {self._rounds} rounds"
        )
        folder = self._new_folder()
        with ExitStack() as ends:
            servers = [
                gateway(folder / "gateway", self._token),
                *([gateway(folder / "other", self._token, root=self._other)] if self._other else []),
                form_server(folder),
                prototype_server(folder),
                *([] if self._is_quick else [naive_server(folder, self._token)]),  # it alone takes a third of the time
                sink_server(folder),
            ]
            figures = self._measure(servers, cases, ends)
        print_figures(figures)

    def compare_telemetry(self, cases: int = CASES[0]) -> None:
        """Compare gateways without telemetry, with metrics, and with traces too."""
        heading(f"telemetry: {REPORT_BYTES // 1000} KB reports of {cases} cases; median of {self._rounds} rounds")
        folder = self._new_folder()
        with ExitStack() as ends:
            variants = telemetry_variants(ends.enter_context(collector_server(folder)))
            servers = [
                gateway(folder / str(number), self._token, telemetry=variant) for number, variant in enumerate(variants)
            ]
            figures = self._measure(servers, cases, ends)
        print_telemetry({name: (each.reports_a_second, each.cpu_seconds) for name, each in figures.items()})

    def _measure(self, servers: Sequence[ServerProcess], cases: int, ends: ExitStack) -> dict[str, Figures]:
        """Start all servers and measure them in turn, each while the others are paused."""
        for server in servers:
            ends.enter_context(server)
            server.pause()
        figures = {server.name: Figures() for server in servers}
        for number in range(self._rounds + 1):
            for server in servers:
                server.resume()
                if number == 1:
                    self._send(server, cases=cases, connections=1, builds=1)  # its call opens the circuit breaker
                rate, cpu_seconds = self._round(server, cases)
                server.pause()
                if number:  # the first one warms up
                    figures[server.name].reports_a_second.append(rate)
                    figures[server.name].cpu_seconds.append(cpu_seconds)
            if not number:
                time.sleep(OUTAGE_SECONDS)
        return figures

    def _round(self, server: ServerProcess, cases: int) -> tuple[float, float]:
        """Return accepted reports a second, and seconds of CPU for one of them."""
        began = server.cpu_seconds()
        sent = self._send(server, cases=cases, connections=CONNECTIONS, builds=BUILDS)
        cpu_seconds = server.cpu_seconds() - began
        return sent.accepted / sent.seconds, cpu_seconds / max(sent.accepted, 1)

    def _send(
        self, server: ServerProcess, *, cases: int, connections: int, builds: int, pause_seconds: float = 0.0
    ) -> Sent:
        load = Load(
            port=server.port,
            token=self._token,
            cases=cases,
            connections=connections,
            builds=builds,
            first_build=next(self._builds),
            pause_seconds=pause_seconds,
        )
        sent = Sent(**run_client("load.py", asdict(load)))
        if sent.rejected:
            print(f"  {server.name} did not accept every report. The first such response:\n{sent.rejected}")
        return sent

    # -- one report at a time ------------------------------------------------------------------------------------

    def _response_when_idle(self) -> None:
        heading(f"response to one {REPORT_BYTES // 1000} KB report, gateway idle, one connection")
        self._responses_of(gateway(self._new_folder() / "gateway", self._token))
        if self._other:
            self._responses_of(gateway(self._new_folder() / "gateway", self._token, root=self._other))

    def _responses_of(self, server: ServerProcess) -> None:
        builds = QUICK_IDLE_BUILDS if self._is_quick else IDLE_BUILDS
        with server:
            print(f"  {server.name}")
            self._send(server, cases=CASES[0], connections=1, builds=1)
            time.sleep(OUTAGE_SECONDS)
            self._send(server, cases=CASES[0], connections=1, builds=1)  # its call opens the circuit breaker
            for cases in CASES:
                sent = self._send(server, cases=cases, connections=1, builds=builds, pause_seconds=IDLE_PAUSE_SECONDS)
                milliseconds = [seconds * 1000 for seconds in sent.response_seconds]
                print(
                    f"  {cases:>3} cases: median {median(milliseconds):.2f} ms, "
                    f"19 of 20 within {quantiles(milliseconds, n=20)[-1]:.2f} ms, of {len(milliseconds)}"
                )

    # -- large reports -------------------------------------------------------------------------------------------

    def _large_reports(self) -> None:
        heading(f"peak memory of all gateway processes over idle (PSS); target {LIMIT_MEMORY_BYTES // MIB} MiB")
        for kind in LARGE:
            with gateway(self._new_folder() / "gateway", self._token) as server:
                self._send(server, cases=CASES[0], connections=1, builds=1)  # loads what every first upload loads
                idle = server.memory_bytes()
                with PeakMemory(server) as peak:
                    request = {"port": server.port, "token": self._token, "kind": kind, "build_no": next(self._builds)}
                    response = run_client("large.py", request)
            over = peak.bytes - idle
            print(
                f"  {kind:<22}{over / MIB:>6.0f} MiB over {idle / MIB:.0f} MiB: {reached(over < LIMIT_MEMORY_BYTES)}; "
                f"responded {response['status']} after {response['seconds']:.1f} s; {peak.samples} samples"
            )
            print(f"{'':<24}{response['body'][:200]}")

    def _new_folder(self) -> Path:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        return folder


def run_client(script: str, request: dict[str, Any], *, seconds: float = CLIENT_SECONDS) -> dict[str, Any]:
    """Run a client process with `request` as JSON on its standard input, and return its output, parsed.

    Raise TimeoutExpired if it has not ended after `seconds`.
    """
    command = [sys.executable, os.fspath(HERE / script)]
    finished = subprocess.run(
        command, input=json.dumps(request).encode(), stdout=subprocess.PIPE, check=True, timeout=seconds
    )
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def print_figures(figures: dict[str, Figures]) -> None:
    """Print one line for each server, and the ratios of the gateway to the others."""
    for name, figure in figures.items():
        slowest, fastest = min(figure.reports_a_second), max(figure.reports_a_second)
        print(
            f"  {name:<16}{figure.rate:>7.0f} reports/s ({slowest:.0f} to {fastest:.0f})"
            f"{figure.cpu_us:>8.0f} µs of CPU a report"
        )
    for name, figure in figures.items():
        if name.startswith(OTHER):
            rates = zip(figures[GATEWAY].reports_a_second, figure.reports_a_second, strict=True)
            cpu = zip(figures[GATEWAY].cpu_seconds, figure.cpu_seconds, strict=True)
            print(
                f"  {GATEWAY} to {name}: {median(ours / theirs for ours, theirs in rates):.2f} of its rate, "
                f"{median(ours / theirs for ours, theirs in cpu):.2f} of its CPU a report"
            )
    of_form, of_prototype, of_sink = (figures[GATEWAY].rate / figures[name].rate for name in (FORM, PROTOTYPE, SINK))
    verdict = reached(of_form >= TARGET_OF_FORM)
    print(
        f"  gateway to {FORM}: {of_form:.2f}, target {TARGET_OF_FORM}: {verdict}; to {PROTOTYPE}: {of_prototype:.2f}, "
        f"to {SINK}: {of_sink:.2f}; {PROTOTYPE} to {FORM}: {figures[PROTOTYPE].rate / figures[FORM].rate:.2f}"
    )
    if NAIVE in figures:
        of_naive = figures[GATEWAY].rate / figures[NAIVE].rate
        verdict = reached(of_naive >= TARGET_OF_NAIVE)
        print(f"  gateway to {NAIVE}: {of_naive:.2f}, target {TARGET_OF_NAIVE}: {verdict}")


def print_telemetry(figures: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """Print the ratios to a gateway without telemetry: of reports a second, and of CPU for a report, inverse."""
    rates, cpu = figures[NO_TELEMETRY]
    print(f"  {NO_TELEMETRY:<16}{median(rates):>7.0f} reports/s")
    for name, target in TELEMETRY_TARGETS.items():
        their_rates, their_cpu = figures[name]
        of_rate = median(theirs / ours for theirs, ours in zip(their_rates, rates, strict=True))
        of_cpu = median(ours / theirs for theirs, ours in zip(their_cpu, cpu, strict=True))
        print(
            f"  {name:<16}{median(their_rates):>7.0f} reports/s, {of_rate:.3f} of that; by CPU a report {of_cpu:.3f}, "
            f"target {target}: {reached(of_cpu >= target)}"
        )


def heading(text: str) -> None:
    print(f"\n{text}", flush=True)


def reached(is_reached: bool) -> str:  # noqa: FBT001
    return "reached" if is_reached else "missed"


def share_cores() -> None:
    """Restrict this process and its children to the same CORES cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds after the first, default {ROUNDS}")
    parser.add_argument("--against", default="", help="a commit whose gateway is measured beside this one")
    parser.add_argument("--quick", action="store_true", help="one round of 60 cases and few single reports")
    parser.add_argument("--telemetry", action="store_true", help="only the cost of metrics and traces")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"on a disk, not in memory; default {FOLDER}")
    args = parser.parse_args()
    share_cores()
    with tempfile.TemporaryDirectory(prefix="bridge-bench-", dir=args.folder) as name, ExitStack() as ends:
        folder = Path(name)
        for line in surroundings(folder):
            print(line)
        other = ends.enter_context(checkout(args.against, folder)) if args.against else None
        bench = Bench(folder, 1 if args.quick else args.rounds, other=other, is_quick=args.quick)
        if args.telemetry:
            bench.compare_telemetry()
        else:
            bench.run()


if __name__ == "__main__":
    main()
