import asyncio
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import event, select, text

from bridge.domain.acceptance import Receipt
from bridge.errors import LedgerInUse, Unavailable
from bridge.store.accepting import accept
from bridge.store.database import GROUP_BYTES, GROUP_LIMIT, QUEUE_LIMIT
from bridge.store.schema import builds, reports
from bridge.store.sqlite import SqliteDatabase, closing
from tests.fake_clock import START, FakeClock
from tests.integration.store.ledger import Ledger, report, upload

ROOT = __file__.split("/tests/", maxsplit=1)[0]


@pytest.fixture
def groups():
    """The sizes of the groups that were written."""
    return []


@pytest.fixture
def observed(backend, clock, groups):
    """A ledger that says how many writes shared each commit."""
    with backend.fresh(clock, groups.append) as database:
        yield database


@contextmanager
def busy(database):
    """Keep the writer thread at work for a block, so that what is written in it waits."""
    begun, may_go_on = threading.Event(), threading.Event()

    def hold(_connection, _now, items):
        begun.set()
        assert may_go_on.wait(timeout=30)
        return items

    holding = asyncio.ensure_future(database.write(hold, None))
    try:
        yield begun
    finally:
        may_go_on.set()
    assert holding.cancelled() is False


async def waiting_writes(begun, *writes):
    """Begin writes behind the one that holds the writer; return their tasks when all stand in the queue."""
    await asyncio.to_thread(begun.wait)
    tasks = [asyncio.ensure_future(write) for write in writes]
    await asyncio.sleep(0)  # each task runs as far as its place in the queue
    return tasks


def add(connection, _now, items):
    """Write one build an item; an item below zero cannot be written."""
    return [_add_one(connection, item) for item in items]


def _add_one(connection, number):
    if number < 0:
        raise ValueError(f"no {number}")
    accept(connection, START, [upload(report(), build_no=number)])
    return number


def same(_connection, _now, items):
    """Write nothing and answer what was asked."""
    return items


def broken(connection, _now, _items):
    """Fail in the database itself."""
    return connection.execute(text("SELECT * FROM nowhere")).all()


async def kept(database):
    """Return the numbers of the builds that are on disk."""
    found = await database.read(lambda connection: connection.execute(select(builds.c.build_no)).scalars().all())
    return sorted(found)


# -- grouping ----------------------------------------------------------------------------------------------------


async def test_writes_that_wait_share_a_commit(observed, groups):
    with busy(observed) as begun:
        tasks = await waiting_writes(begun, *(observed.write(add, n) for n in range(40)))
    assert await asyncio.gather(*tasks) == list(range(40))
    assert groups == [1, 40]
    assert await kept(observed) == list(range(40))


async def test_a_commit_holds_only_so_many_writes(observed, groups):
    with busy(observed) as begun:
        tasks = await waiting_writes(begun, *(observed.write(add, n) for n in range(GROUP_LIMIT + 6)))
    await asyncio.gather(*tasks)
    assert groups == [1, GROUP_LIMIT, 6]


async def test_a_commit_holds_only_so_many_bytes(observed, groups):
    with busy(observed) as begun:
        half = GROUP_BYTES // 2
        tasks = await waiting_writes(begun, *(observed.write(add, n, half) for n in range(5)))
    await asyncio.gather(*tasks)
    assert groups == [1, 2, 2, 1]


async def test_writes_of_many_kinds_share_a_commit_and_get_their_own_answers(observed, groups):
    def double(_connection, _now, items):
        return [2 * item for item in items]

    with busy(observed) as begun:
        writes = [observed.write(double if n % 2 else add, n) for n in range(10)]
        tasks = await waiting_writes(begun, *writes)
    assert await asyncio.gather(*tasks) == [2 * n if n % 2 else n for n in range(10)]
    assert groups == [1, 10]


async def test_all_writes_of_a_commit_have_the_same_time(database, clock):
    def now_of(_connection, now, items):
        return [now for _ in items]

    with busy(database) as begun:
        tasks = await waiting_writes(begun, *(database.write(now_of, n) for n in range(3)))
        clock.advance(5)
    assert await asyncio.gather(*tasks) == [START + 5] * 3


@pytest.mark.parametrize(
    ("batch", "item", "error"), [(add, -1, ValueError), (broken, 0, Unavailable)], ids=["by itself", "by the database"]
)
async def test_a_write_that_fails_takes_none_of_its_group_with_it(database, batch, item, error):
    with busy(database) as begun:
        writes = [database.write(add, 1), database.write(batch, item), database.write(add, 2)]
        tasks = await waiting_writes(begun, *writes)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert (results[0], type(results[1]), results[2]) == (1, error, 2)
    assert await kept(database) == [1, 2]


async def test_a_write_that_fails_leaves_nothing_of_itself(database):
    def half(connection, _now, items):
        _add_one(connection, 7)
        raise ValueError(items)

    with pytest.raises(ValueError, match="0"):
        await database.write(half, 0)
    assert await kept(database) == []
    assert await database.write(add, 8) == 8


# -- on disk before it is said -----------------------------------------------------------------------------------


async def test_nothing_is_handed_out_where_the_commit_fails(database):
    failures = [OSError("the disk is full")]

    def fail_once(_connection):
        if failures:
            raise failures.pop()

    event.listen(database.writing, "commit", fail_once)
    with pytest.raises(OSError, match="disk is full"):
        await database.write(add, 1)
    assert await kept(database) == []
    assert await database.write(add, 2) == 2


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bridge.store.sqlite import SqliteDatabase
from tests.fake_clock import FakeClock
from tests.integration.store.ledger import Ledger, report

async def main():
    database = SqliteDatabase(Path(sys.argv[1]), FakeClock())
    database.lock()
    database.open()
    await Ledger(database).accept(report("kept.xml"))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_was_handed_out_survives_a_kill_and_the_lock_does_not(backend, clock):
    with backend.fresh(clock) as database:
        path = database.path
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, path, ROOT], capture_output=True, check=False, timeout=60
    )
    assert killed.returncode == -9, killed.stderr
    with closing(SqliteDatabase(path, clock)) as reopened:
        assert await Ledger(reopened).rows(select(reports.c.name)) == [("kept.xml",)]
        assert await Ledger(reopened).accept(report("kept.xml")) == (Receipt.KNOWN,)


# -- when there is too much, and when nobody waits any more ------------------------------------------------------


async def test_a_full_queue_is_said_and_what_waits_in_it_is_written(database):
    with busy(database) as begun:
        tasks = await waiting_writes(begun, *(database.write(same, n) for n in range(QUEUE_LIMIT)))
        with pytest.raises(Unavailable, match="cannot keep up"):
            await database.write(add, 1)
    assert await asyncio.gather(*tasks) == list(range(QUEUE_LIMIT))
    assert await kept(database) == []
    assert await database.write(add, 2) == 2


async def test_a_waiting_write_that_is_cancelled_is_not_written(database):
    with busy(database) as begun:
        one, two = await waiting_writes(begun, database.write(add, 1), database.write(add, 2))
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one
    assert await two == 2
    assert await kept(database) == [2]


async def test_a_write_under_way_that_is_cancelled_does_not_disturb_the_writer(database):
    begun, may_go_on = threading.Event(), threading.Event()

    def slow(connection, _now, items):
        begun.set()
        assert may_go_on.wait(timeout=30)
        return [_add_one(connection, item) for item in items]

    task = asyncio.ensure_future(database.write(slow, 1))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go_on.set()
    assert await database.write(add, 2) == 2
    assert await kept(database) == [1, 2]


async def test_close_finishes_the_writes_that_wait(backend, clock):
    with backend.fresh(clock) as database:
        with busy(database) as begun:
            tasks = await waiting_writes(begun, *(database.write(add, n) for n in range(5)))
        await asyncio.to_thread(database.close)
        assert await asyncio.gather(*tasks) == list(range(5))


# -- reading -----------------------------------------------------------------------------------------------------


async def test_a_read_does_not_wait_for_a_write_under_way(database):
    with busy(database) as begun:
        await asyncio.to_thread(begun.wait)
        assert await kept(database) == []


async def test_a_read_sees_one_state_of_the_ledger(database):
    await database.write(add, 1)
    looked, written = threading.Event(), threading.Event()

    def look_twice(connection):
        query = select(builds.c.build_no)
        first = connection.execute(query).scalars().all()
        looked.set()
        assert written.wait(timeout=30)
        return first, connection.execute(query).scalars().all()

    reading = asyncio.ensure_future(database.read(look_twice))
    await asyncio.to_thread(looked.wait)
    await database.write(add, 2)
    written.set()
    assert await reading == ([1], [1])
    assert await kept(database) == [1, 2]


async def test_a_read_that_the_database_refuses_is_said_without_its_statement(database):
    with pytest.raises(Unavailable) as refused:
        await database.read(broken, 0, ())
    assert "nowhere" not in str(refused.value)


# -- the file ----------------------------------------------------------------------------------------------------


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
    with backend.fresh(clock) as database:
        second = SqliteDatabase(database.path, clock)
        with pytest.raises(LedgerInUse, match="Another gateway"):
            second.lock()
        second.close()
        assert await database.write(add, 1) == 1
    with closing(SqliteDatabase(database.path, clock)) as after:
        assert await kept(after) == [1]


OPENED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bridge.errors import LedgerInUse
from bridge.store.sqlite import SqliteDatabase
from tests.fake_clock import FakeClock

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

    with backend.fresh(FakeClock()) as database:
        assert await asyncio.to_thread(second_process, database.path) == 17
    assert await asyncio.to_thread(second_process, database.path) == 0


async def test_a_ledger_that_is_not_open_takes_no_write_and_says_so(tmp_path, clock):
    database = SqliteDatabase(tmp_path / "bridge.db", clock)
    with pytest.raises(Unavailable, match="not open"):
        await database.write(add, 1)
    with closing(database):
        pass
    with pytest.raises(Unavailable, match="not open"):
        await database.write(add, 1)
