"""The writer that a gateway forks before it has threads, in processes that have none either."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.errors import LedgerInUse
from bridge.store.engine import sqlite
from bridge.store.ledger import migrate
from tests.integration.store.test_sqlite_writer import apart
from tests.support.fake_clock import FakeClock

HEAD = """
import asyncio, os, signal, sys
from pathlib import Path
from bridge.errors import CommitUncertain
from bridge.store.engine.forked_writer import fork_writer
from bridge.store.engine.sqlite import SqliteDatabase
from tests.integration.store.test_sqlite_writer import die, pids
from tests.support.fake_clock import FakeClock

spare = fork_writer()
forked = spare.pid
database = SqliteDatabase(Path(sys.argv[1]), FakeClock(), apart=True, spare=spare)
database.lock()
database.open()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a migrated ledger that is closed."""
    path = tmp_path / "bridge.db"
    engine = sqlite.sqlite_engine(path, begin="BEGIN IMMEDIATE")
    migrate(engine)
    engine.dispose()
    return path


def run(script: str, path: Path) -> str:
    """Run a script that has opened the ledger with a forked writer; return its output."""
    command = [sys.executable, "-c", HEAD + script, str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True, timeout=60).stdout


def test_the_first_writes_happen_in_the_forked_process_which_ends_with_the_ledger(path: Path):
    output = run("print(asyncio.run(database.write(pids, None)) == forked); database.close(); print(forked)", path)
    is_forked, pid = output.split()
    assert is_forked == "True"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_a_forked_writer_that_dies_leaves_its_group_in_doubt_and_is_replaced(path: Path):
    script = """
async def write():
    try:
        await database.write(die, "a")
    except CommitUncertain:
        print("uncertain")
    print(await database.write(pids, None) not in (forked, os.getpid()))
asyncio.run(write())
database.close()
"""
    assert run(script, path).split() == ["uncertain", "True"]


def test_the_signals_that_end_a_gateway_end_no_forked_writer(path: Path):
    script = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    asyncio.run(database.write(pids, None))
    os.kill(forked, number)
print(asyncio.run(database.write(pids, None)) == forked)
database.close()
"""
    assert run(script, path).split() == ["True"]


def test_a_ledger_stays_taken_while_the_forked_writer_of_a_killed_gateway_lives(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    script = """
asyncio.run(database.write(pids, None))
os.kill(forked, signal.SIGSTOP)
print(forked, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    writer = int(run(script, path))
    with monkeypatch.context() as impatient:
        impatient.setattr(sqlite, "LOCK_SECONDS", 0.0)
        with pytest.raises(LedgerInUse), apart(path, FakeClock()):
            pass
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 30.0)
    os.kill(writer, signal.SIGCONT)  # it finds its pipe closed, and ends
    with apart(path, FakeClock()):
        pass


@pytest.mark.parametrize("end", ["spare.close()", "os.kill(os.getpid(), 9)"])
def test_a_writer_that_got_no_ledger_ends_with_its_gateway(end: str):
    script = f"""
import os
from bridge.store.engine.forked_writer import fork_writer
spare = fork_writer()
os.kill(spare.pid, 0)
print(spare.pid, flush=True)
{end}
"""
    # The writer has these pipes too, so that the end of the output is the end of the writer.
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, text=True, timeout=60)
    assert int(ended.stdout), ended.stderr  # it was there
