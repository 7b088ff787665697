"""The writer as a process: what it returns and raises, and what its end means."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from bridge.domain.changes import AddRegistration, set_build
from bridge.domain.intake import ReportReceipt
from bridge.errors import BadReport, CommitUncertain, LedgerInUse, Unavailable
from bridge.store.engine import sqlite
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.engine.sqlite_writer import PIPE_BYTES
from bridge.store.ledger import migrate
from bridge.store.uploads import accept
from tests.support.fake_clock import FakeClock
from tests.support.ledger import Ledger, asked, report, upload


@contextmanager
def apart(path: Path, clock: FakeClock) -> Iterator[SqliteDatabase]:
    """A ledger at `path` whose writer is a process of its own."""
    database = SqliteDatabase(path, clock, apart=True)
    try:
        database.lock()
        migrate(database.writing)
        database.open()
        yield database
    finally:
        database.close()


def writer_of(database: SqliteDatabase) -> int:
    """Process id of the ledger's writer."""
    found = subprocess.run(["pgrep", "-f", f"sqlite_writer {database.path}$"], capture_output=True, check=True)
    return int(found.stdout)


def pids(_: Connection, __: int, items: Sequence[None]) -> list[int]:
    return [os.getpid() for _ in items]


def times(_: Connection, now: int, items: Sequence[None]) -> list[int]:
    return [now for _ in items]


def refused(_: Connection, __: int, items: Sequence[str]) -> list[str]:
    if "bad" in items:
        raise BadReport("It is no report. Look at it.")
    return list(items)


def unknown_table(connection: Connection, _: int, items: Sequence[None]) -> list[None]:
    connection.execute(text("INSERT INTO nowhere VALUES (1)"))
    return list(items)


def die(connection: Connection, _: int, items: Sequence[str]) -> list[None]:
    for name in items:
        connection.execute(text("SELECT :name"), {"name": name})
    os.kill(os.getpid(), signal.SIGKILL)
    return [None for _ in items]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def database(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteDatabase]:
    with apart(tmp_path / "bridge.db", clock) as database:
        yield database


async def test_writes_happen_in_another_process_at_the_gateways_time(database: SqliteDatabase, clock: FakeClock):
    assert await database.write(pids, None) == writer_of(database) != os.getpid()
    assert await database.write(times, None) == clock.now()


async def test_items_and_results_may_be_larger_than_the_pipes(database: SqliteDatabase):
    item = os.urandom(PIPE_BYTES + 1)
    assert await database.write(refused, item.hex()) == item.hex()


async def test_several_event_loops_may_write_one_after_another(database: SqliteDatabase):
    def write_in_a_loop() -> list[int]:
        return [asyncio.run(database.write(pids, None)) for _ in range(2)]

    writer = writer_of(database)
    assert await asyncio.to_thread(write_in_a_loop) == [writer, writer]
    assert await database.write(pids, None) == writer


async def test_a_closed_ledger_takes_no_write(database: SqliteDatabase):
    await database.finish()
    with pytest.raises(Unavailable):
        await database.write(pids, None)


async def test_an_upload_is_on_disk_when_its_receipt_comes(database: SqliteDatabase):
    entry = await database.write(accept, upload(report(body=b"<testsuite/>")))
    assert entry.receipts == (ReportReceipt.NEW,)
    with sqlite3.connect(database.path) as other:
        assert other.execute("SELECT body FROM reports").fetchall() == [(b"<testsuite/>",)]


async def test_changes_of_a_reconciler_pass_both_ways(database: SqliteDatabase):
    ledger = Ledger(database)
    await ledger.accept(report())
    build = (await ledger.claimed()).build
    written = await ledger.record(build, asked(build.deliveries[1]), set_build(last_error="HTTP 503"))
    assert written is not None
    added, changed = written
    assert isinstance(added, AddRegistration)
    assert added.registration.id == 1
    assert changed == set_build(last_error="HTTP 503")
    assert (await ledger.build()).last_error == "HTTP 503"


async def test_what_a_write_raises_comes_through_and_hurts_no_other(database: SqliteDatabase):
    writes = [database.write(refused, item) for item in ("good", "bad", "fine")]
    good, bad, fine = await asyncio.gather(*writes, return_exceptions=True)
    assert (good, fine) == ("good", "fine")
    assert isinstance(bad, BadReport)
    assert "no report" in str(bad)


async def test_a_failing_statement_is_the_ledgers_fault(database: SqliteDatabase):
    with pytest.raises(Unavailable, match="OperationalError"):
        await database.write(unknown_table, None)
    assert await database.write(pids, None)


async def test_a_writer_that_dies_leaves_its_group_in_doubt_and_is_replaced(database: SqliteDatabase):
    first = writer_of(database)
    with pytest.raises(CommitUncertain):
        await database.write(die, "a")
    assert await database.write(pids, None) != first


async def test_a_writer_killed_while_idle_is_replaced(database: SqliteDatabase):
    os.kill(writer_of(database), signal.SIGKILL)
    with pytest.raises(CommitUncertain):
        await database.write(pids, None)
    assert await database.write(pids, None)


async def test_a_machine_that_starts_no_process_is_waited_for(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(CommitUncertain):
        await database.write(die, "a")
    with monkeypatch.context() as full:
        full.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(Unavailable, match="cannot be started"):
            await database.write(pids, None)
    assert await database.write(pids, None)


async def test_the_signals_that_end_a_gateway_end_no_writer(database: SqliteDatabase):
    first = writer_of(database)
    assert await database.write(pids, None) == first  # it is up, so it ignores them by now
    os.kill(first, signal.SIGTERM)
    os.kill(first, signal.SIGINT)
    assert await database.write(pids, None) == first


def test_a_ledger_stays_taken_while_the_writer_of_a_killed_gateway_lives(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    script = f"""
import os, signal
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.engine.sqlite_writer import PIPE_BYTES
from tests.support.fake_clock import FakeClock
database = SqliteDatabase(__import__("pathlib").Path({str(tmp_path / "bridge.db")!r}), FakeClock(), apart=True)
database.lock()
database.open()
writer = database._writer._process
os.kill(writer.pid, signal.SIGSTOP)
print(writer.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    writer = int(killed.stdout)
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.0)
    with pytest.raises(LedgerInUse), apart(tmp_path / "bridge.db", clock):
        pass
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 60.0)
    os.kill(writer, signal.SIGCONT)  # it finds its pipe closed, and ends
    with apart(tmp_path / "bridge.db", clock) as after:
        assert writer_of(after) != writer
