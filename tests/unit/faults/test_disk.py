"""The bad disk, tried on a small program: what it forgets is what no good program may rely on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.disk import DiskControl

ROOT = Path(__file__).parents[3]
PROGRAM = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.faults import disk
disk.install(Path(sys.argv[2]), remembers=True)
data = Path(sys.argv[3])
import io, sqlite3

def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

def write(name, content):
    with io.FileIO(data / name, "w") as file:
        file.write(content)
    return data / name

def table(synchronous="FULL"):
    ledger = sqlite3.connect(data / "t.db", isolation_level=None)
    ledger.execute("PRAGMA journal_mode=WAL")
    ledger.execute("PRAGMA synchronous=FULL")
    ledger.execute("CREATE TABLE t(a)")
    ledger.execute("INSERT INTO t VALUES (1)")
    ledger.execute(f"PRAGMA synchronous={synchronous}")
    return ledger
"""


def run(tmp_path, program):
    (tmp_path / "data").mkdir(exist_ok=True)
    folders = [os.fspath(folder) for folder in (ROOT, tmp_path / "control", tmp_path / "data")]
    # It ends at once, as by a kill: nothing is flushed or closed.
    text = f"{PROGRAM}\n{program}\nos._exit(0)"
    return subprocess.run([sys.executable, "-c", text, *folders], capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("program", "left"),
    [
        ("write('a', b'x'); sync(data)", {"a": b""}),
        ("sync(write('a', b'x'))", {}),
        ("sync(write('a', b'x')); sync(data)", {"a": b"x"}),
        ("sync(write('a', b'x')); sync(data); write('a', b'changed')", {"a": b"x"}),
        ("sync(write('a', b'x')); (data / 'a').rename(data / 'b'); sync(data)", {"b": b"x"}),
        ("sync(write('a', b'x')); sync(data); (data / 'a').rename(data / 'b')", {"a": b"x"}),
    ],
    ids=["bytes not synced", "name not synced", "both", "changed after", "renamed before", "renamed after"],
)
def test_only_what_was_synced_survives_a_power_cut(tmp_path, program, left):
    control = DiskControl(tmp_path / "control")
    assert run(tmp_path, program).returncode == 0
    control.cut_power(tmp_path / "data")
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == left


@pytest.mark.parametrize(("synchronous", "survives"), [("FULL", True), ("OFF", False)])
def test_a_commit_of_sqlite_survives_when_it_was_synced(tmp_path, synchronous, survives):
    control = DiskControl(tmp_path / "control")
    program = f"ledger = table({synchronous!r})\nledger.execute('INSERT INTO t VALUES (2)')"  # noqa: S608
    assert run(tmp_path, program).returncode == 0
    control.cut_power(tmp_path / "data")
    count = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM t').fetchone()[0])"
    told = subprocess.run(
        [sys.executable, "-c", count, tmp_path / "data" / "t.db"], capture_output=True, check=True, timeout=60
    )
    assert told.stdout == (b"2\n" if survives else b"1\n")


@pytest.mark.parametrize(
    ("operation", "program"),
    [
        ("write", "write('a', b'x')"),
        ("fsync", "sync(write('a', b'x'))"),
        ("rename", "write('a', b'x').rename(data / 'b')"),
        ("commit", "table()"),
    ],
)
def test_a_full_disk_fails_what_it_was_told_to_and_nothing_else(tmp_path, operation, program):
    control = DiskControl(tmp_path / "control")
    control.fail(operation)
    failed = run(tmp_path, program)
    assert failed.returncode == 1
    assert b"No space left on device" in failed.stderr or b"disk is full" in failed.stderr
    control.fail("space")
    assert run(tmp_path, f"{program}; assert os.statvfs(data).f_bavail == 0").returncode == 0
