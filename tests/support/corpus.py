"""The files that builds of these tests upload: reports, and files that are not reports.

If BRIDGE_CORPUS names a folder, they are every *.xml below it; otherwise they are generated from a seed.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bridge.domain.junit.validator import Invalid, validate_bytes

REPORTS = 60
LARGE_CASES = 4000  # about 300 KiB: too large for a row of the ledger, so it goes through the spool

BROKEN = {
    "truncated.xml": b'<testsuite name="a" tests="2"><testcase name="one"/><testcase na',
    "page.xml": b"<html><body>404</body></html>",
    "notes.txt": b"no XML at all",
    "empty.xml": b"",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Files by name: reports that validation accepts, and the others."""

    reports: tuple[tuple[str, bytes], ...]
    refused: tuple[tuple[str, bytes], ...]


def read_corpus() -> Corpus:
    """Return the corpus; large reports are always among them."""
    folder = os.environ.get("BRIDGE_CORPUS")
    files = _of_folder(Path(folder)) if folder else [*_written(Random(20)), *BROKEN.items()]
    verdicts = [(name, body, isinstance(validate_bytes(body), Invalid)) for name, body in files]
    large = ("TEST-large.xml", surefire("example.Large", Random(21), cases=LARGE_CASES))
    return Corpus(
        reports=(*((name, body) for name, body, refused in verdicts if not refused), large),
        refused=tuple((name, body) for name, body, refused in verdicts if refused),
    )


def _of_folder(folder: Path) -> list[tuple[str, bytes]]:
    return [(path.name, path.read_bytes()) for path in sorted(folder.rglob("*.xml"))]


def _written(chance: Random) -> list[tuple[str, bytes]]:
    suites = [f"example.Suite{number}" for number in range(REPORTS)]
    return [(f"TEST-{suite}.xml", surefire(suite, chance, cases=chance.randint(1, 120))) for suite in suites]


def surefire(suite: str, chance: Random, *, cases: int) -> bytes:
    """Return a report as Maven Surefire writes it, one case in ten failed."""
    failed = [chance.random() < 0.1 for _ in range(cases)]
    lines = [f'<testsuite name="{suite}" tests="{cases}" failures="{sum(failed)}" errors="0" skipped="0">']
    for number, failure in enumerate(failed):
        inside = f'<failure message="expected {number}">\n\tat {suite}.test{number}\n</failure>' if failure else ""
        time = f"{chance.random():.3f}"
        lines.append(f'  <testcase name="test{number}" classname="{suite}" time="{time}">{inside}</testcase>')
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', *lines, "</testsuite>"]).encode()
