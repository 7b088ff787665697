"""Measure delivery end to end: upload, register, PUT, poll, finalize; beside a naive bridge and another commit.

Always exits with 0. README.md explains the figures.
"""

import argparse
import asyncio
import json
import os
import re
import secrets
import socket
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
from contenders import (
    HERE,
    ROOT,
    Telemetry,
    checkout,
    collector_server,
    naive_server,
    settings_are_old,
    telemetry_variants,
)
from intake import FOLDER, ROUNDS, heading, print_telemetry, run_client, share_cores
from processes import ServerProcess, free_port
from surroundings import surroundings

sys.path.append(os.fspath(ROOT))
from bridge.demo.postgres import PostgresServer

SHAPES = {1: 300, 5: 200, 50: 20}  # reports a build: builds in a round
QUICK_SHAPE, QUICK_PART = 5, 5  # with --quick only this shape, and a fifth of its builds
# Reports a request, requests a build, builds, connections: 20,000 reports each, sent as fast as one client can.
SMALL, LARGE = (200, 1, 100, 1), (200, 100, 1, 1)
FILES_OF_ONE, DELAY_OF_ONE, GRACE_SECONDS = 20, 0.1, 0.1  # with --latency: one upload, and upstreams that take long
WAIT_SECONDS = 120.0
LARGE_SECONDS = 900.0
CONNECTIONS = 8
NOW = "gateway"

SETTINGS = """
[server]
host = "127.0.0.1"
port = {port}
{drain} = "2s"
[admin]
port = {admin}
[store]
url = "{ledger}"
spool = "{folder}/spool"
{min_free} = "64 MiB"
[testnod]
base_url = "http://127.0.0.1:{upstream}"
allow_private_storage = true
storage_hosts = ["127.0.0.1"]
[codearts]
endpoint = "http://127.0.0.1:{upstream}"
[polling]
{polling}
[callers]
auth = "token"
[[callers.tokens]]
name = "bench"
token = "{token}"
[[routes]]
name = "bench"
project_token = "{token}"
tags = ["bench"]
"""
COMMITS_IN_METRICS = re.compile(r"^bridge_(?:ledger_commit_writes|commit_group_size)_(count|sum) (\S+)$", re.MULTILINE)
POLLING = """
initial_delay = "100ms"
min_interval = "100ms"
max_interval = "1s"
requests_per_minute = 600000
grace_period = "100ms"
"""
POLLING_OF_OLD_COMMITS = 'first = "100ms"\nmin = "100ms"\nmax = "1s"\nrate = 10000.0\nsettle = "100ms"'


@dataclass(kw_only=True, slots=True)
class Figures:
    """Results of all rounds of one server with one shape."""

    reports_a_second: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # for one report, of all its processes
    by_process: list[Counter[str]] = field(default_factory=list)
    of_ledger: list[Counter[str]] = field(default_factory=list)  # commits and others, for one report


Counts = Callable[[], Counter[str]]
"""Returns what the ledger of a server has done so far."""


class Contender:
    """A server under comparison with its stand-ins of upstreams and its database, each in processes of their own."""

    def __init__(self, server: ServerProcess, counts: Counts, beside: Sequence[ServerProcess]) -> None:
        self.name, self.server, self.counts = server.name, server, counts
        self.upstream = beside[0]
        self._beside = beside

    def pause(self) -> None:
        self.server.pause()
        for process in self._beside:
            process.pause()

    def resume(self) -> None:
        for process in self._beside:
            process.resume()
        self.server.resume()


def upstreams(folder: Path, delay_seconds: float) -> ServerProcess:
    """Return the stand-ins of TestNod, storage and CodeArts."""
    port = free_port()
    command = [sys.executable, os.fspath(HERE / "upstreams.py"), str(port), str(delay_seconds)]
    return ServerProcess("upstreams", command, port=port, folder=ROOT, log=folder / f"upstreams-{port}.log")


def gateway_at(
    root: Path,
    name: str,
    folder: Path,
    token: str,
    upstream: int,
    ledger: str = "",
    telemetry: Telemetry | None = None,
) -> tuple[ServerProcess, Counts]:
    """Return the gateway of the checkout `root`, and how to read its commits.

    Commits before the renaming of settings have other names.
    """
    folder.mkdir()
    port, admin = free_port(), free_port()
    is_old = settings_are_old(root)
    settings = SETTINGS.format(
        port=port,
        admin=admin,
        folder=folder,
        ledger=ledger or f"sqlite:///{folder}/bridge.db",
        token=token,
        upstream=upstream,
        drain="drain" if is_old else "shutdown_timeout",
        min_free="min_free" if is_old else "min_free_space",
        polling=POLLING_OF_OLD_COMMITS if is_old else POLLING,
    )
    (folder / "bridge.toml").write_text(settings, encoding="utf-8")
    telemetry = telemetry or Telemetry(name)
    command = [sys.executable, *telemetry.program, "serve", "--config", os.fspath(folder / "bridge.toml")]
    log, variables = folder / "gateway.log", telemetry.variables
    server = ServerProcess(name, command, port=port, also=(admin,), folder=root, log=log, variables=variables)
    return server, lambda: commits_of(admin)


def commits_of(admin: int) -> Counter[str]:
    """Return the commits of a gateway and the writes in them, from its metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics") as response:
        text = response.read().decode()
    found = {kind: float(number) for kind, number in COMMITS_IN_METRICS.findall(text)}
    return Counter(commits=round(found.get("count", 0)), writes=round(found.get("sum", 0)))


def counts_of(port: int) -> Counter[str]:
    """Return what `postgres_counter.py` has counted."""
    with socket.create_connection(("127.0.0.1", port + 1)) as connection:
        return Counter(json.loads(connection.makefile().read()))


def naive_bridge(folder: Path, token: str, upstream: int) -> tuple[ServerProcess, Counts]:
    """Return the naive bridge; its commits are not counted."""
    return naive_server(folder, token, f"http://127.0.0.1:{upstream}"), Counter


def finalized(port: int, *, runs: int = 0, stored: int = 0, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
    """Return what the stand-ins have counted, as soon as they have so many; raise TimeoutError after `seconds`."""
    url = f"http://127.0.0.1:{port}/finalized?runs={runs}&stored={stored}"
    with urllib.request.urlopen(url, timeout=seconds) as response:
        counted: dict[str, Any] = json.load(response)
        return counted


def expect(port: int, reports: int) -> None:
    """Let the stand-ins end each build as soon as so many of its reports are registered."""
    urllib.request.urlopen(f"http://127.0.0.1:{port}/expect?reports={reports}").close()


class Bench:
    """All rounds of one shape."""

    def __init__(self, contenders: list[Contender], token: str) -> None:
        self._contenders = contenders
        self._token = token
        self._first_build = 1

    def compare(self, reports_a_build: int, builds: int, rounds: int) -> dict[str, Figures]:
        figures = {contender.name: Figures() for contender in self._contenders}
        for number in range(rounds + 1):
            for contender in self._contenders:
                contender.resume()
                figure = Figures() if number == 0 else figures[contender.name]  # the first round warms up
                self._round(contender, reports_a_build, 1, builds, min(builds, CONNECTIONS), figure)
                contender.pause()
        return figures

    def compare_with_large(self, rounds: int) -> None:
        """Print for each contender the rate of one build of 20,000 reports as a part of that of 100 builds of 200."""
        for contender in self._contenders:
            contender.resume()
            rates = {SMALL: Figures(), LARGE: Figures()}
            for _ in range(rounds):
                for shape, figure in rates.items():
                    expect(contender.upstream.port, shape[0] * shape[1])
                    self._round(contender, *shape, figure)
            contender.pause()
            small, large = (median(figure.reports_a_second) for figure in rates.values())
            print(
                f"  {contender.name:<14}{large:>7.0f} reports/s, {small:.0f} in small builds: {large / small:.2f} of it"
            )

    def time_until_finalize(self, rounds: int) -> None:
        """Print for each contender the seconds from the answer to one upload until finalize is called."""
        for contender in self._contenders:
            contender.resume()
            expect(contender.upstream.port, FILES_OF_ONE)
            seconds = []
            for _ in range(rounds + 1):
                sent = self._send(contender, FILES_OF_ONE, 1, 1, 1)
                ended_at = time.time() - DELAY_OF_ONE  # the stand-in counts the call when it answers
                seconds.append(ended_at - sent["began_at"] - sent["seconds"] - GRACE_SECONDS)
            contender.pause()
            counted = seconds[1:]  # the first round warms up
            print(f"  {contender.name:<14}{median(counted):>7.2f} s ({min(counted):.2f} to {max(counted):.2f})")

    def _round(
        self,
        contender: Contender,
        reports_a_request: int,
        requests_a_build: int,
        builds: int,
        connections: int,
        figure: Figures,
    ) -> None:
        reports_sent = reports_a_request * requests_a_build * -(-builds // connections) * connections
        before = finalized(contender.upstream.port)
        cpu_before, ledger_before = contender.server.cpu_by_process(), contender.counts()
        sent = self._send(contender, reports_a_request, requests_a_build, builds, connections)
        seconds = time.time() - sent["began_at"]
        after = finalized(contender.upstream.port)
        reports = after["stored"] - before["stored"]
        if reports != reports_sent:
            print(f"  {contender.name} stored {reports} reports of {reports_sent}")
        cpu = contender.server.cpu_by_process()
        cpu.subtract(cpu_before)
        ledger = contender.counts()
        ledger.subtract(ledger_before)
        figure.reports_a_second.append(reports / seconds)
        figure.cpu_ms.append(sum(cpu.values()) * 1000 / reports)
        figure.by_process.append(Counter({name: value * 1000 / reports for name, value in cpu.items()}))
        figure.of_ledger.append(Counter({name: value / reports for name, value in ledger.items()}))

    def _send(
        self, contender: Contender, reports_a_request: int, requests_a_build: int, builds: int, connections: int
    ) -> dict[str, Any]:
        """Upload from the client's process and wait until all has arrived; return what `load.py` tells."""
        builds_each = -(-builds // connections)
        request = {
            "port": contender.server.port,
            "token": self._token,
            "cases": 60,
            "connections": connections,
            "builds": builds_each,
            "first_build": self._first_build,
            "reports_a_request": reports_a_request,
            "requests_a_build": requests_a_build,
        }
        builds_sent = builds_each * connections
        self._first_build += builds_sent
        limit = WAIT_SECONDS if reports_a_request < SMALL[0] else LARGE_SECONDS
        before = finalized(contender.upstream.port)
        sent = run_client("load.py", request, seconds=limit)
        if sent["rejected"]:
            print(f"  {contender.name} rejected an upload: {sent['rejected'][:500]}")
        # Both: the run of a build of many uploads may be finalized before its last report.
        runs = before["runs"] + builds_sent
        stored = before["stored"] + builds_sent * reports_a_request * requests_a_build
        try:
            finalized(contender.upstream.port, runs=runs, stored=stored, seconds=limit)
        except TimeoutError:
            print(f"  {contender.name} did not finalize all runs: {finalized(contender.upstream.port)}")
        return sent


def print_figures(figures: dict[str, Figures]) -> None:
    """Print one line for each server, and the ratios of the gateway to the others."""
    for name, figure in figures.items():
        rates = figure.reports_a_second
        processes = {key for by_process in figure.by_process for key in by_process}
        parts = {key: median(by_process[key] for by_process in figure.by_process) for key in processes}
        shown = ", ".join(f"{key} {value:.2f}" for key, value in sorted(parts.items()) if value >= 0.005)
        print(
            f"  {name:<14}{median(rates):>7.0f} reports/s ({min(rates):.0f} to {max(rates):.0f})"
            f"{median(figure.cpu_ms):>7.2f} ms of CPU a report ({shown})"
        )
    for name, figure in figures.items():
        counted = {key for of_round in figure.of_ledger for key in of_round}
        parts = {key: median(of_round[key] for of_round in figure.of_ledger) for key in counted}
        if parts:
            shown = ", ".join(f"{value:.2f} {key.replace('_', ' ')}" for key, value in sorted(parts.items()))
            print(f"  {name:<14} {shown} a report")
    ours = figures[NOW]
    for name, figure in figures.items():
        if name != NOW:
            rate = median(a / b for a, b in zip(ours.reports_a_second, figure.reports_a_second, strict=True))
            cpu = median(a / b for a, b in zip(ours.cpu_ms, figure.cpu_ms, strict=True))
            print(f"  gateway to {name}: {rate:.2f} of its rate, {cpu:.2f} of its CPU a report")


def run(args: argparse.Namespace, folder: Path) -> None:
    """Measure every shape with all contenders started once."""
    token = secrets.token_hex(16)
    with ExitStack() as ends:
        if args.postgres:
            database = PostgresServer()
            asyncio.run(database.__aenter__())
            ends.callback(lambda: asyncio.run(database.__aexit__()))

        def started(beside: Sequence[ServerProcess], server: ServerProcess, counts: Counts) -> Contender:
            found = Contender(ends.enter_context(server), counts, beside)
            ends.callback(found.resume)
            found.pause()
            return found

        def gateway(root: Path, name: str, inner: str, telemetry: Telemetry | None = None) -> Contender:
            beside = [ends.enter_context(upstreams(folder, args.delay))]
            if not args.postgres:
                port = beside[0].port
                return started(beside, *gateway_at(root, name, folder / inner, token, port, telemetry=telemetry))
            counter = postgres_counter(folder, database)
            beside.append(ends.enter_context(counter))
            asyncio.run(create_database(database, inner))
            ledger = f"postgresql://postgres@127.0.0.1:{counter.port}/{inner}?sslmode=disable"
            server, _ = gateway_at(root, name, folder / inner, token, beside[0].port, ledger, telemetry)
            return started(beside, server, lambda: counts_of(counter.port))

        if args.telemetry:
            variants = telemetry_variants(ends.enter_context(collector_server(folder)))
            compare_telemetry([gateway(ROOT, each.name, each.name, each) for each in variants], token, args)
            return
        contenders = [gateway(ROOT, NOW, "gateway")]
        if args.against:
            contenders.append(gateway(ends.enter_context(checkout(args.against, folder)), args.against, "other"))
        if not args.no_peer and not args.postgres:
            beside = [ends.enter_context(upstreams(folder, args.delay))]
            contenders.append(started(beside, *naive_bridge(folder, token, beside[0].port)))
        measure(Bench(contenders, token), args)


def measure(bench: Bench, args: argparse.Namespace) -> None:
    """Print what the options ask for."""
    if args.large:
        heading(f"one build of 20,000 reports beside 100 of 200; median of {args.rounds} rounds")
        bench.compare_with_large(args.rounds)
        return
    if args.latency:
        heading(f"one upload of {FILES_OF_ONE} reports, upstreams that answer in {args.delay} s: until finalize")
        bench.time_until_finalize(args.rounds)
        return
    for reports_a_build in args.shapes:
        builds = SHAPES[reports_a_build] // (QUICK_PART if args.quick else 1)
        heading(f"{builds} builds of {reports_a_build}; median of {args.rounds} rounds")
        print_figures(bench.compare(reports_a_build, builds, args.rounds))


def compare_telemetry(contenders: list[Contender], token: str, args: argparse.Namespace) -> None:
    """Compare gateways without telemetry, with metrics, and with traces too."""
    bench = Bench(contenders, token)
    for reports_a_build in args.shapes:
        builds = SHAPES[reports_a_build] // (QUICK_PART if args.quick else 1)
        heading(f"telemetry: {builds} builds of {reports_a_build}; median of {args.rounds} rounds")
        figures = bench.compare(reports_a_build, builds, args.rounds)
        print_telemetry({name: (each.reports_a_second, each.cpu_ms) for name, each in figures.items()})


def postgres_counter(folder: Path, database: PostgresServer) -> ServerProcess:
    """Return a proxy before `database` that counts statements."""
    port = free_port()
    command = [sys.executable, os.fspath(HERE / "postgres_counter.py"), str(port), f"{database.folder}/.s.PGSQL.5432"]
    return ServerProcess("postgres counter", command, port=port, folder=ROOT, log=folder / f"counter-{port}.log")


async def create_database(server: PostgresServer, name: str) -> None:
    """Create an empty database."""
    connection = await asyncpg.connect(server.url())
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds after the first, default {ROUNDS}")
    parser.add_argument("--against", default="", help="a commit whose gateway is measured beside this one")
    parser.add_argument("--no-peer", action="store_true", help="leave the naive bridge out")
    parser.add_argument("--telemetry", action="store_true", help="only the cost of metrics and traces")
    parser.add_argument("--postgres", action="store_true", help="ledgers in PostgreSQL without fsync, no peer")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds until an upstream answers, default 0")
    parser.add_argument("--shapes", type=int, nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--large", action="store_true", help="instead: a build of 20,000 reports beside small ones")
    parser.add_argument(
        "--latency", action="store_true", help="instead: seconds from the answer to one upload until finalize"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"on a disk, not in memory; default {FOLDER}")
    parser.add_argument("--quick", action="store_true", help="one small shape and one round, under a minute")
    args = parser.parse_args()
    if args.quick:
        args.shapes, args.rounds = [QUICK_SHAPE], 1
    if args.latency:
        args.delay = DELAY_OF_ONE
    share_cores()
    with tempfile.TemporaryDirectory(prefix="bridge-deliver-", dir=args.folder) as folder:
        for line in list(surroundings(Path(folder)))[:3]:
            print(line)
        run(args, Path(folder))


if __name__ == "__main__":
    main()
