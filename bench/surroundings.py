"""What the figures were measured with: versions, cores and the disk, a line each.

It measures nothing.
"""

import os
import platform
import sqlite3
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

OURS = ("aiohttp", "multipart", "lxml", "SQLAlchemy", "structlog")
THEIRS = ("starlette", "uvicorn", "h11", "python-multipart")


def surroundings(folder: Path) -> Iterator[str]:
    """Yield what a reader must know to compare figures; `folder` is where the ledger will lie."""
    cores = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    yield f"{platform.python_implementation()} {platform.python_version()}, Linux {platform.release()}, {_processor()}"
    yield f"cores {cores} for client and servers; load before it began {load}"
    yield f"gateway: {_versions(OURS)}, SQLite {sqlite3.sqlite_version} with synchronous=FULL on {_file_system(folder)}"
    yield f"beside: {_versions(THEIRS)}, asyncio's own loop"
    yield "delivery: idle, its TestNod refuses every connection and the gate closes after three calls"


def _versions(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system that `folder` lies on; the longest mount point above it is the one."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    above = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(above, key=lambda mount: len(mount[0]))[1]
