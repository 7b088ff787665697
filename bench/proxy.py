"""Measure proxied calls: GETs of 1 KB and a download of 100 MB through the gateway, through nginx and directly.

Always exits with 0. README.md explains the figures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from contenders import GATEWAY, HERE, ROOT, gateway
from nginx import nginx
from processes import ServerProcess, free_port
from proxy_upstream import LARGE_BYTES
from surroundings import surroundings

CORES = 2  # shared by client, upstream and proxies
CONNECTIONS = 16  # below the limit of concurrent proxied calls
CALLS = 100  # GETs of each connection in one round
ROUNDS = 7
CLIENT_SECONDS = 120  # for one round
FOLDER = Path("/var/tmp")  # noqa: S108 -- where the gateway's ledger lies in the other bench

DIRECT, NGINX = "upstream alone", "nginx"


class Bench:
    """Rounds over all contenders in turn; the others are stopped meanwhile."""

    def __init__(self, upstream: ServerProcess, contenders: dict[str, ServerProcess], rounds: int) -> None:
        self._upstream = upstream
        self._contenders = contenders
        self._rounds = rounds

    def measure(self, path: str, *, connections: int, times: int) -> dict[str, tuple[list[float], list[float]]]:
        """Return seconds a round and CPU seconds of each contender; the first round warms up and does not count."""
        figures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in self._contenders}
        for number in range(self._rounds + 1):
            for name, server in self._contenders.items():
                seconds, cpu = self._round(server, path, connections, times)
                if number:
                    figures[name][0].append(seconds)
                    figures[name][1].append(cpu)
        return figures

    def _round(self, server: ServerProcess, path: str, connections: int, times: int) -> tuple[float, float]:
        for other in self._contenders.values():
            if other not in (server, self._upstream):
                other.pause()
        server.resume()
        before = server.cpu_seconds()
        request = {"port": server.port, "path": path, "connections": connections, "times": times}
        done = subprocess.run(
            [sys.executable, os.fspath(HERE / "proxy_load.py")],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=CLIENT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{server.name} failed: {done.stderr.decode()[-500:]}")
        return json.loads(done.stdout), server.cpu_seconds() - before


def report(title: str, figures: dict[str, tuple[list[float], list[float]]], amount: float, unit: str) -> None:
    """Print rates, CPU and the ratios to nginx; one round transfers `amount` of `unit`."""
    print(f"\n{title}")
    rates = {name: [amount / seconds for seconds in rounds] for name, (rounds, _) in figures.items()}
    for name, (_, cpu) in figures.items():
        each = rates[name]
        print(
            f"  {name:15} {median(each):9,.0f} {unit}/s  ({min(each):,.0f} to {max(each):,.0f})   "
            f"CPU {median(cpu) / amount * 1e6:8.1f} µs a {unit.rstrip('s')}"
        )
    if NGINX in rates:
        ratios = [ours / theirs for ours, theirs in zip(rates[GATEWAY], rates[NGINX], strict=True)]
        print(f"  gateway to nginx: {median(ratios):.2f}  (round by round {min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    """Run all rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    for line in surroundings(args.folder):
        print(line)
    with tempfile.TemporaryDirectory(dir=args.folder) as name, ExitStack() as running:
        folder = Path(name)
        port = free_port()
        command = [sys.executable, os.fspath(HERE / "proxy_upstream.py"), str(port)]
        upstream = running.enter_context(
            ServerProcess(DIRECT, command, port=port, folder=ROOT, log=folder / "upstream.log")
        )
        contenders = {GATEWAY: running.enter_context(gateway(folder / "gateway", "bench-token", upstream_port=port))}
        beside = nginx(folder, port)
        if beside is None:
            print("nginx is neither on PATH nor available as a Debian package: no comparison")
        else:
            contenders[NGINX] = running.enter_context(beside)
        contenders[DIRECT] = upstream
        bench = Bench(upstream, contenders, args.rounds)
        calls = CONNECTIONS * CALLS
        small = bench.measure("/small", connections=CONNECTIONS, times=CALLS)
        report(f"GETs of 1 KB over {CONNECTIONS} connections", small, calls, "calls")
        large = bench.measure("/large", connections=1, times=1)
        report("A download of 100 MB", large, LARGE_BYTES / 1e6, "MB")


if __name__ == "__main__":
    main()
