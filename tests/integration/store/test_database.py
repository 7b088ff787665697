import asyncio
import threading
from contextlib import contextmanager, suppress

import asyncpg
import pytest
from sqlalchemy import event, select, text

from bridge.errors import CommitUncertain, LedgerRejectedWrite, Unavailable
from bridge.store.engine.postgres import WRITERS, PostgresDatabase
from bridge.store.engine.write_queue import GROUP_BYTES, GROUP_LIMIT, QUEUE_LIMIT
from bridge.store.schema import builds
from bridge.store.uploads import accept
from tests.support.fake_clock import START
from tests.support.ledger import PATIENCE_SECONDS, engine_of, report, stand_still, upload


@pytest.fixture
def groups():
    """The sizes of the groups that were written."""
    return []


@pytest.fixture
async def observed(backend, clock, groups):
    """A ledger that says how many writes shared each commit."""
    async with backend.fresh(clock, groups.append) as database:
        yield database


class Holder:
    """Keeps one writer at work until it may go on."""

    def __init__(self):
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def hold(self, connection, _now, items):
        self.begun.set()
        stand_still(connection, self.may_go_on)
        return items


def writers_of(database):
    return WRITERS if isinstance(database, PostgresDatabase) else 1


@contextmanager
def busy(database):
    """Keep every writer at work for a block, so that what is written in it waits."""
    holders = [Holder() for _ in range(writers_of(database))]
    holding = [asyncio.ensure_future(database.write(holder.hold, None)) for holder in holders]
    try:
        yield holders
    finally:
        for holder in holders:
            holder.may_go_on.set()
    assert not any(task.cancelled() for task in holding)


async def all_held(holders):
    for holder in holders:
        assert await asyncio.to_thread(holder.begun.wait, PATIENCE_SECONDS)


async def waiting_writes(holders, *writes):
    """Begin writes behind those that hold the writers; return their tasks when all stand in the queue."""
    await all_held(holders)
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


def without_values(connection, _now, _items):
    """Write a row that no constraint lets through."""
    connection.execute(text("INSERT INTO runs (test_run_id) VALUES ('7')"))


async def kept(database):
    """Return the numbers of the builds that are on disk."""
    found = await database.read(lambda connection: connection.execute(select(builds.c.build_no)).scalars().all())
    return sorted(found)


# -- grouping ----------------------------------------------------------------------------------------------------


async def test_writes_that_wait_share_a_commit(observed, groups):
    with busy(observed) as holders:
        tasks = await waiting_writes(holders, *(observed.write(add, n) for n in range(40)))
    assert await asyncio.gather(*tasks) == list(range(40))
    assert groups[writers_of(observed) :] == [40]
    assert await kept(observed) == list(range(40))


async def test_a_commit_holds_only_so_many_writes(observed, groups):
    with busy(observed) as holders:
        tasks = await waiting_writes(holders, *(observed.write(add, n) for n in range(GROUP_LIMIT + 6)))
    await asyncio.gather(*tasks)
    assert groups[writers_of(observed) :] == [GROUP_LIMIT, 6]


async def test_a_commit_holds_only_so_many_bytes(observed, groups):
    with busy(observed) as holders:
        half = GROUP_BYTES // 2
        tasks = await waiting_writes(holders, *(observed.write(add, n, half) for n in range(5)))
    await asyncio.gather(*tasks)
    assert groups[writers_of(observed) :] == [2, 2, 1]


async def test_writes_of_many_kinds_share_what_commits_they_may_and_get_their_own_answers(observed, groups):
    def double(_connection, _now, items):
        return [2 * item for item in items]

    with busy(observed) as holders:
        writes = [observed.write(double if n % 2 else add, n) for n in range(10)]
        tasks = await waiting_writes(holders, *writes)
    assert await asyncio.gather(*tasks) == [2 * n if n % 2 else n for n in range(10)]
    assert groups[writers_of(observed) :] in ([10], [5, 5])


async def test_all_writes_of_a_commit_have_the_same_time(database, clock):
    def now_of(_connection, now, items):
        return [now for _ in items]

    with busy(database) as holders:
        tasks = await waiting_writes(holders, *(database.write(now_of, n) for n in range(3)))
        clock.advance(5)
    assert await asyncio.gather(*tasks) == [START + 5] * 3


@pytest.mark.parametrize(
    ("batch", "item", "error"),
    [(add, -1, ValueError), (broken, 0, LedgerRejectedWrite), (without_values, 0, LedgerRejectedWrite)],
    ids=["by itself", "by the database", "by a constraint"],
)
async def test_a_write_that_fails_takes_none_of_its_group_with_it(database, batch, item, error):
    with busy(database) as holders:
        writes = [database.write(add, 1), database.write(batch, item), database.write(add, 2)]
        tasks = await waiting_writes(holders, *writes)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert (results[0], type(results[1]), results[2]) == (1, error, 2)
    assert await kept(database) == [1, 2]


async def test_a_write_without_an_answer_is_not_kept_and_is_said_and_the_writers_go_on(database):
    def speechless(connection, now, items):
        return add(connection, now, items)[1:]

    for number in range(writers_of(database)):
        with pytest.raises(RuntimeError, match="0 results for 1 items"):
            await database.write(speechless, number)
    assert await database.write(add, 8) == 8
    assert await kept(database) == [8]


async def test_a_write_that_fails_leaves_nothing_of_itself(database):
    def half(connection, _now, items):
        _add_one(connection, 7)
        raise ValueError(items)

    with pytest.raises(ValueError, match="0"):
        await database.write(half, 0)
    assert await kept(database) == []
    assert await database.write(add, 8) == 8


# -- on disk before it is said -----------------------------------------------------------------------------------


async def test_nothing_is_handed_out_where_the_commit_fails(database, monkeypatch):
    failures, execute = [OSError("the disk is full")], asyncpg.Connection.execute

    def fail_once(_connection):
        if failures:
            raise failures.pop()

    async def fail_commit_once(connection, query, *arguments):
        if query == "COMMIT":
            fail_once(connection)
        return await execute(connection, query, *arguments)

    if database.shared:
        monkeypatch.setattr(asyncpg.Connection, "execute", fail_commit_once)
    else:
        event.listen(engine_of(database, "writing"), "commit", fail_once)
    with pytest.raises((OSError, CommitUncertain)):
        await database.write(add, 1)
    assert await kept(database) == []
    assert await database.write(add, 2) == 2


# -- too many writes, and callers that no longer wait -----------------------------------------------------------


async def test_a_full_queue_is_said_and_what_waits_in_it_is_written(database):
    with busy(database) as holders:
        tasks = await waiting_writes(holders, *(database.write(same, n) for n in range(QUEUE_LIMIT)))
        with pytest.raises(Unavailable, match="cannot keep up"):
            await database.write(add, 1)
    assert await asyncio.gather(*tasks) == list(range(QUEUE_LIMIT))
    assert await kept(database) == []
    assert await database.write(add, 2) == 2


async def test_a_waiting_write_that_is_cancelled_is_not_written(database):
    with busy(database) as holders:
        one, two = await waiting_writes(holders, database.write(add, 1), database.write(add, 2))
        one.cancel()
        with suppress(asyncio.CancelledError):
            await one
    assert await two == 2
    assert await kept(database) == [2]


async def test_a_write_under_way_that_is_cancelled_is_written_and_does_not_disturb_the_writer(database):
    begun, may_go_on = threading.Event(), threading.Event()

    def slow(connection, _now, items):
        begun.set()
        stand_still(connection, may_go_on)
        return [_add_one(connection, item) for item in items]

    task = asyncio.ensure_future(database.write(slow, 1))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go_on.set()
    with busy(database) as holders:
        await all_held(holders)  # every writer, so the one that was at it has ended its commit and goes on
        assert await kept(database) == [1]
    assert await database.write(add, 2) == 2
    assert await kept(database) == [1, 2]


async def test_close_finishes_the_writes_that_wait(backend, clock):
    async with backend.fresh(clock) as database:
        with busy(database) as holders:
            tasks = await waiting_writes(holders, *(database.write(add, n) for n in range(5)))
    assert await asyncio.gather(*tasks) == list(range(5))


# -- reading -----------------------------------------------------------------------------------------------------


async def test_a_read_does_not_wait_for_a_write_under_way(database):
    with busy(database) as holders:
        await all_held(holders)
        assert await kept(database) == []


async def test_a_read_sees_one_state_of_the_ledger(database):
    await database.write(add, 1)
    looked, written = threading.Event(), threading.Event()

    def look_twice(connection):
        query = select(builds.c.build_no)
        first = connection.execute(query).scalars().all()
        looked.set()
        stand_still(connection, written)
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
