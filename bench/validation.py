"""Measure validation: speed beside plain lxml, memory at ten times the size, small uploads beside a hostile file.

Always exits with 0. README.md explains the figures.
"""

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from itertools import count
from pathlib import Path
from statistics import median, quantiles

from contenders import ROOT, gateway
from hostile import (
    HOSTILE_BYTES,
    LARGE_FILES,
    SMALL_FILES,
    TIMEOUT_SECONDS,
    Attack,
    GreedyUploads,
    HostileUploads,
    upload,
)
from intake import FOLDER, heading, reached, run_client, share_cores
from load import PART_END, Load, Sent, part_head
from reports import MIB, REPORT_BYTES, small_reports
from surroundings import surroundings

SMALL_BYTES = 20_000_000
LARGE_BYTES = 200_000_000
CASES = 60  # of each suite of 20 KB: surefire's proportions of cases, properties, traces and output
ROUNDS = 7
TARGET_OF_LXML = 0.8
LIMIT_MEMORY_BYTES = 40 * MIB

BUILDS = 25  # of 20 small reports, one at a time: the slowest 1 % are five
UPLOADS = 200  # beside a greedy caller
GREEDY_SECONDS = 3.0
TARGET_BESIDE = 5  # times as long as alone
PAUSE_SECONDS = 0.02  # between a response and the next report


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One file read once, in a process of its own."""

    seconds: float
    peak_bytes: int  # resident at its most, imports included


def realistic(size: int) -> Iterator[bytes]:
    """Yield a report of about `size` bytes: suites as surefire writes them, one after the other."""
    yield b'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n'
    for report in small_reports(CASES, range(size // REPORT_BYTES)):
        yield report.partition(b"?>")[2]
    yield b"</testsuites>\n"


# -- readers: each in a process of its own, so each imports what it needs -------------------------------------------


def _by_validator(path: Path) -> Callable[[], object]:
    from bridge.server.validation.child_main import validate_file  # noqa: PLC0415

    return lambda: validate_file(path)


def _by_iterparse(path: Path) -> Callable[[], object]:
    from lxml import etree  # noqa: PLC0415

    def read() -> None:
        for _ in etree.iterparse(path, huge_tree=True):
            pass

    return read


def _by_iterparse_clearing(path: Path) -> Callable[[], object]:
    from lxml import etree  # noqa: PLC0415

    def read() -> None:
        for _, element in etree.iterparse(path, huge_tree=True):
            element.clear()

    return read


VALIDATOR, PLAIN, CLEARING = "validator", "iterparse", "iterparse, clearing"
READERS = {VALIDATOR: _by_validator, PLAIN: _by_iterparse, CLEARING: _by_iterparse_clearing}


def read_here(reader: str, path: Path) -> Reading:
    """Read a file in this process."""
    read = READERS[reader](path)
    began = time.perf_counter()
    read()
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return Reading(seconds=seconds, peak_bytes=int(peak) * 1024)


def read_apart(reader: str, path: Path) -> Reading:
    """Read a file in a new process."""
    command = [sys.executable, __file__, "--read", reader, str(path)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_SECONDS)
    return Reading(**json.loads(finished.stdout))


# -- speed and memory -----------------------------------------------------------------------------------------------


def compare_speed(path: Path, rounds: int) -> None:
    """Print the speed of each reader. The file is in the page cache, and each round runs every reader."""
    size = path.stat().st_size
    heading(f"a realistic report of {size / 1e6:.0f} MB, each reader in its own process; median of {rounds} rounds")
    readings: dict[str, list[Reading]] = {reader: [] for reader in READERS}
    for number in range(rounds + 1):
        for reader in READERS:
            reading = read_apart(reader, path)
            if number:  # the first one warms up
                readings[reader].append(reading)
    rates = {name: size / median(reading.seconds for reading in own) / 1e6 for name, own in readings.items()}
    for name, own in readings.items():
        peak = max(reading.peak_bytes for reading in own)
        slowest, fastest = (size / bound(r.seconds for r in own) / 1e6 for bound in (max, min))
        print(f"  {name:<20}{rates[name]:>6.0f} MB/s ({slowest:.0f} to {fastest:.0f}){peak / MIB:>7.0f} MiB at peak")
    to_plain, to_clearing = (_ratio(readings[VALIDATOR], readings[other]) for other in (PLAIN, CLEARING))
    print(
        f"  to plain iterparse: {to_plain:.2f}, target {TARGET_OF_LXML}: {reached(to_plain >= TARGET_OF_LXML)}; "
        f"to iterparse that clears: {to_clearing:.2f}"
    )


def _ratio(ours: Sequence[Reading], theirs: Sequence[Reading]) -> float:
    """Return the median of the ratios of each round: a machine that is slow for a while is slow for both."""
    return median(other.seconds / own.seconds for own, other in zip(ours, theirs, strict=True))


def compare_memory(small: Path, large: Path) -> None:
    """Print peak memory for a file and for one of ten times its size."""
    heading("peak memory of the validator")
    peaks = [read_apart(VALIDATOR, path).peak_bytes for path in (small, large)]
    more = peaks[1] - peaks[0]
    sizes = [
        f"{peak / MIB:.1f} MiB at {path.stat().st_size / 1e6:.0f} MB"
        for peak, path in zip(peaks, (small, large), strict=True)
    ]
    verdict = reached(more < LIMIT_MEMORY_BYTES)
    print(f"  {', '.join(sizes)}: {more / MIB:+.1f} MiB, target {LIMIT_MEMORY_BYTES // MIB} MiB: {verdict}")


# -- beside a hostile upload ----------------------------------------------------------------------------------------


def upload_beside_hostile(folder: Path) -> None:
    """Print response times of small uploads, alone and while a hostile file is received and validated."""
    heading(
        f"response to one {REPORT_BYTES // 1000} KB report, one connection, "
        f"alone and beside a hostile file of {HOSTILE_BYTES / MIB:.0f} MiB"
    )
    token, builds = secrets.token_hex(16), count(1_000_000)
    with gateway(folder / "gateway", token) as server:
        small_uploads(server.port, token, first_build=1, builds=1)  # loads what every first upload loads
        alone = small_uploads(server.port, token, first_build=1000, builds=BUILDS)
        with HostileUploads(server.port, token, builds) as uploads:
            beside = small_uploads(server.port, token, first_build=2000, builds=BUILDS)
    for name, sent in (("alone", alone), ("beside it", beside)):
        milliseconds = [seconds * 1000 for seconds in sent.response_seconds]
        print(
            f"  {name:<12}median {median(milliseconds):.2f} ms, 99 of 100 within "
            f"{quantiles(milliseconds, n=100)[-1]:.2f} ms, slowest {max(milliseconds):.2f} ms, "
            f"{sent.accepted} of {len(milliseconds)} accepted"
        )
    seconds = ", ".join(f"{taken:.1f}" for taken in uploads.seconds)
    print(f"  hostile uploads took {seconds} s; the last response was {uploads.response[:160]}")


def upload_beside_greedy(folder: Path, attack: Attack, size: int) -> None:
    """Print response times of one caller's uploads, alone and while another caller keeps validation busy."""
    heading(
        f"response to one {size // 1000} KB report, alone and beside {attack.name}: "
        f"{attack.uploads} uploads of {attack.files} at once by another caller"
    )
    token, builds, greedy_builds = secrets.token_hex(16), count(1), count(1_000_000)
    body = part_head("TEST-honest.xml") + b"".join(realistic(size)) + PART_END

    def quickest_99() -> float:
        seconds = []
        for _ in range(UPLOADS):
            began = time.perf_counter()
            if upload(server.port, token, next(builds), body) != HTTPStatus.OK:
                raise RuntimeError("An upload of the bench was rejected.")
            seconds.append(time.perf_counter() - began)
            time.sleep(PAUSE_SECONDS)
        return quantiles(seconds, n=100)[-1] * 1000

    with gateway(folder / f"gateway-{attack.files}", token) as server:
        quickest_99()  # warms up
        alone = quickest_99()
        with GreedyUploads(attack, server.port, f"greedy-{token}", greedy_builds) as greedy:
            time.sleep(GREEDY_SECONDS)  # until the caller is found out
            beside = quickest_99()
    print(
        f"  99 of 100 within {alone:.1f} ms alone, {beside:.1f} ms beside: {beside / alone:.1f} times, target "
        f"{TARGET_BESIDE}: {reached(beside <= TARGET_BESIDE * alone)}; {len(greedy.responses)} greedy uploads ended"
    )


def small_uploads(port: int, token: str, *, first_build: int, builds: int) -> Sent:
    """Upload small reports one at a time, from a process of its own."""
    load = Load(
        port=port,
        token=token,
        cases=CASES,
        connections=1,
        builds=builds,
        first_build=first_build,
        pause_seconds=PAUSE_SECONDS,
    )
    return Sent(**run_client("load.py", asdict(load)))


def write(path: Path, pieces: Iterator[bytes]) -> Path:
    with path.open("wb") as file:
        file.writelines(pieces)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds after the first, default {ROUNDS}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help=f"on a disk, not in memory; default {FOLDER}")
    parser.add_argument("--read", nargs=2, metavar=("READER", "FILE"), help="read one file in this process, print JSON")
    args = parser.parse_args()
    if args.read:
        print(json.dumps(asdict(read_here(args.read[0], Path(args.read[1])))))
        return
    share_cores()
    with tempfile.TemporaryDirectory(prefix="bridge-bench-", dir=args.folder) as made:
        folder = Path(made)
        for line in surroundings(folder):
            print(line)
        small = write(folder / "small.xml", realistic(SMALL_BYTES))
        compare_speed(small, args.rounds)
        compare_memory(small, write(folder / "large.xml", realistic(LARGE_BYTES)))
        upload_beside_hostile(folder)
        upload_beside_greedy(folder, SMALL_FILES, REPORT_BYTES)
        upload_beside_greedy(folder, LARGE_FILES, 10 * REPORT_BYTES)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
