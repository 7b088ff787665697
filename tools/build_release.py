"""Build wheel and sdist into dist/, byte for byte the same for the same sources: `make dist`.

Times in both are SOURCE_DATE_EPOCH, or else that of the last commit. Owners, permissions and the order of files are
those that this module sets.
"""

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

REPOSITORY = Path(__file__).parents[1]
SOURCES: Final = ("pyproject.toml", "README.md", "LICENSE", "bridge")
BUILD: Final = """\
import os, sys
from setuptools import build_meta
os.umask(0o022)
getattr(build_meta, sys.argv[1])(sys.argv[2])
"""


def build(target: Path, epoch: int) -> list[Path]:
    """Build both into the folder `target`, with times of `epoch` (seconds UTC); return their paths."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch) / "sources"
        _copy_sources(sources)
        for hook in ("build_wheel", "build_sdist"):
            subprocess.run(  # noqa: S603 -- this interpreter
                [sys.executable, "-W", "ignore", "-c", BUILD, hook, str(target.absolute())],
                cwd=sources,
                env=os.environ | {"SOURCE_DATE_EPOCH": str(epoch)},
                check=True,
                stdout=subprocess.DEVNULL,
            )
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    sdist.write_bytes(_normalized(sdist.read_bytes(), epoch))
    return [wheel, sdist]


def _copy_sources(target: Path) -> None:
    target.mkdir()
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _normalized(archive: bytes, epoch: int) -> bytes:
    """Return a .tar.gz with the same files: sorted, of user 0, with one time."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as source,
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=epoch, filename="") as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() else 0o644
            member.pax_headers = {}
            target.addfile(member, source.extractfile(member) if member.isfile() else None)
    return packed.getvalue()


def epoch_of_sources() -> int:
    """Return SOURCE_DATE_EPOCH, or the time of the last commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout)  # noqa: S603 -- git


if __name__ == "__main__":
    dist = REPOSITORY / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    for path in build(dist, epoch_of_sources()):
        print(path.relative_to(REPOSITORY))
