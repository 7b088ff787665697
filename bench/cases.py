"""Measure what a digest of the cases of a report costs: bytes, CPU time to write it, and the share of validation.

Run `python -m bench.cases`. Figures: docs/decisions/0035-case-digests.md.
"""

import hashlib
import random
import statistics
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Final

from bridge.domain.junit.case_digest import CaseRecorder, read_digest
from bridge.domain.junit.validator import validate_bytes

WORDS: Final = ("login", "cart", "order", "price", "search", "index", "cache", "retry", "token", "queue", "report")
CASES: Final = (10, 100, 1_000, 50_000)
ROUNDS: Final = 9


def names(count: int, chance: random.Random) -> list[tuple[str, str, str]]:
    """Return classname, name and duration of cases as a large Java or Python project has them."""
    found: list[tuple[str, str, str]] = []
    classname = ""
    for number in range(count):
        if number % 17 == 0:
            one, other = chance.choice(WORDS), chance.choice(WORDS).title()
            classname = f"com.example.shop.{one}.{other}{chance.choice(WORDS).title()}Test"
        suffix = f"[{number % 9}]" if number % 5 == 0 else ""
        name = f"test_{'_'.join(chance.choices(WORDS, k=3))}{suffix}"
        found.append((classname, name, f"{chance.lognormvariate(-3, 1.6):.3f}"))
    return found


def report(cases: list[tuple[str, str, str]]) -> bytes:
    """Return a report of these cases; about one in twenty fails."""
    failure = '<failure message="expected 1, got 2"/>'
    lines = [
        f'<testcase classname="{classname}" name="{name}" time="{seconds}">{failure * (number % 20 == 7)}</testcase>'
        for number, (classname, name, seconds) in enumerate(cases)
    ]
    return f'<testsuites><testsuite name="all">{"".join(lines)}</testsuite></testsuites>'.encode()


def recorded(cases: list[tuple[str, str, str]]) -> bytes:
    """Return the digest as the gateway writes it: names, verdicts and durations."""
    recorder = CaseRecorder()
    for number, (classname, name, seconds) in enumerate(cases):
        recorder.add(classname, name, 4 if number % 20 == 7 else 0, seconds)
    return recorder.digest()


def hashed(cases: list[tuple[str, str, str]]) -> bytes:
    """Return a digest with a hash of 8 bytes in place of each name; a table would have to hold the names."""
    keys = b"".join(hashlib.blake2b(f"{one}\x1f{name}".encode(), digest_size=8).digest() for one, name, _ in cases)
    verdicts = bytes(number % 20 == 7 for number in range(len(cases)))
    times = bytes(min(255, int(float(seconds) * 100)) for _, _, seconds in cases)
    return zlib.compress(keys + verdicts + times, 1)


def cpu_us(function: Callable[[], object], repeats: int) -> float:
    """Return the median CPU time of one call, in microseconds."""
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(repeats):
            function()
        found.append((time.process_time() - began) / repeats)
    return statistics.median(found) * 1e6


def main() -> None:
    """Print a table."""
    print("cases  report  | names: bytes  write us  read us | hashes: bytes  us | validation us")
    for count in CASES:
        cases = names(count, random.Random(1))
        data, repeats = report(cases), max(1, 20_000 // count)
        digest = recorded(cases)
        whole = cpu_us(partial(validate_bytes, data), max(1, repeats // 4))
        row = (
            f"{count:6} {len(data):8} | {len(digest):7} {cpu_us(partial(recorded, cases), repeats):9.0f} "
            f"{cpu_us(partial(read_digest, digest), repeats):8.0f} | {len(hashed(cases)):7} "
            f"{cpu_us(partial(hashed, cases), repeats):8.0f} | {whole:8.0f}"
        )
        print(row, flush=True)


if __name__ == "__main__":
    main()
