"""What is SQLite's own: its file, its lock, its settings."""

import asyncio
import subprocess
import sys

import pytest
from sqlalchemy import select

from bridge.domain.intake import ReportReceipt
from bridge.errors import LedgerInUse, Unavailable
from bridge.store.engine.sqlite import SqliteDatabase, closing
from bridge.store.schema import reports
from tests.support.fake_clock import FakeClock
from tests.support.ledger import Ledger, report

ROOT = __file__.split("/tests/", maxsplit=1)[0]


@pytest.fixture(scope="session")
def backend(sqlite):
    return sqlite


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bridge.store.engine.sqlite import SqliteDatabase
from tests.support.fake_clock import FakeClock
from tests.support.ledger import Ledger, report

async def main():
    database = SqliteDatabase(Path(sys.argv[1]), FakeClock())
    database.lock()
    database.open()
    await Ledger(database).accept(report("kept.xml"))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_was_handed_out_survives_a_kill_and_the_lock_does_not(backend, clock):
    async with backend.fresh(clock) as database:
        path = database.path
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, path, ROOT], capture_output=True, check=False, timeout=60
    )
    assert killed.returncode == -9, killed.stderr
    with closing(SqliteDatabase(path, clock)) as reopened:
        assert await Ledger(reopened).rows(select(reports.c.name)) == [("kept.xml",)]
        assert await Ledger(reopened).accept(report("kept.xml")) == (ReportReceipt.DUPLICATE,)


UNSYNCED = """
import asyncio, ctypes, errno, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bridge.errors import CommitUncertain
from bridge.store.engine.sqlite import SqliteDatabase
from tests.support.fake_clock import FakeClock
from tests.faults.disk import SYNC
from tests.faults.libcalls import replace, set_errno
from tests.support.ledger import Ledger, report

def broken(_original):
    def sync(_descriptor):
        set_errno(errno.EIO)
        return -1
    return sync

async def main():
    database = SqliteDatabase(Path(sys.argv[1]), FakeClock())
    database.lock()
    database.open()
    await Ledger(database).accept(report("kept.xml"))
    library = ctypes.CDLL("libsqlite3.so.0")
    assert any([replace(library, name, SYNC, broken) for name in ("fdatasync", "fsync")])
    try:
        await Ledger(database).accept(report("doubtful.xml"))
    except CommitUncertain:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_was_written_and_not_synced_is_in_doubt_because_the_next_program_may_find_it(backend, clock):
    async with backend.fresh(clock) as database:
        path = database.path
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", UNSYNCED, path, ROOT], capture_output=True, check=False, timeout=60
    )
    assert killed.returncode == -9, killed.stderr
    with closing(SqliteDatabase(path, clock)) as reopened:
        assert await Ledger(reopened).rows(select(reports.c.name)) == [("kept.xml",), ("doubtful.xml",)]


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("auto_vacuum", 2), ("foreign_keys", 1)],
    ids=["WAL", "FULL", "INCREMENTAL", "foreign keys"],
)
async def test_the_live_connections_are_set_up_to_keep_every_commit(database, pragma, value):
    def read_back(connection, *_):
        return [connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()]

    assert await database.write(read_back, None) == value
    assert await database.read(read_back) == [value]


async def test_a_second_gateway_is_refused_until_the_first_has_closed(backend, clock):
    async with backend.fresh(clock) as database:
        second = SqliteDatabase(database.path, clock)
        with pytest.raises(LedgerInUse, match="another gateway"):
            second.lock()
        second.close()
        assert await Ledger(database).accept(report("kept.xml")) == (ReportReceipt.NEW,)
    with closing(SqliteDatabase(database.path, clock)) as after:
        assert await Ledger(after).rows(select(reports.c.name)) == [("kept.xml",)]


OPENED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bridge.errors import LedgerInUse
from bridge.store.engine.sqlite import SqliteDatabase
from tests.support.fake_clock import FakeClock

database = SqliteDatabase(Path(sys.argv[1]), FakeClock())
try:
    database.lock()
except LedgerInUse:
    sys.exit(17)
finally:
    database.close()
"""


async def test_a_second_process_is_refused_until_the_first_has_closed(backend):
    def second_process(path):
        command = [sys.executable, "-c", OPENED, path, ROOT]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode

    async with backend.fresh(FakeClock()) as database:
        assert await asyncio.to_thread(second_process, database.path) == 17
    assert await asyncio.to_thread(second_process, database.path) == 0


async def test_a_ledger_that_is_not_open_takes_no_write_and_says_so(tmp_path):
    ledger = Ledger(SqliteDatabase(tmp_path / "bridge.db", FakeClock()))
    with pytest.raises(Unavailable, match="not open"):
        await ledger.accept(report())
    with closing(ledger.database):
        pass
    with pytest.raises(Unavailable, match="not open"):
        await ledger.accept(report())
