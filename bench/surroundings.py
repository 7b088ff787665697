"""Lines about the machine of a benchmark: versions, cores, disk."""

import os
import platform
import sqlite3
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

OURS = ("aiohttp", "multipart", "lxml", "SQLAlchemy", "structlog")
THEIRS = ("starlette", "uvicorn", "h11", "python-multipart")


def surroundings(folder: Path) -> Iterator[str]:
    """Yield one line for each fact that is needed to compare figures; the ledger will be in `folder`."""
    cores = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    yield f"{platform.python_implementation()} {platform.python_version()}, Linux {platform.release()}, {_processor()}"
    yield f"cores {cores} for client and servers; load before the start {load}"
    yield f"gateway: {_versions(OURS)}, SQLite {sqlite3.sqlite_version} with synchronous=FULL on {_file_system(folder)}"
    yield f"others: {_versions(THEIRS)}, asyncio's loop"
    yield "delivery: idle, nothing listens at TestNod's address, so its circuit breaker opens"


def _versions(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system of `folder`: that of the longest mount point above it."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    above = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]))[1]
