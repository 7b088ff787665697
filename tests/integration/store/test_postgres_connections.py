"""Connections to PostgreSQL that break in the middle of a transaction: none goes back into the pool."""

import asyncio
import time
from contextlib import suppress
from itertools import count

import asyncpg
import pytest
from sqlalchemy import select, text

from bridge.clock import SystemClock
from bridge.domain.intake import ReportReceipt
from bridge.errors import BadReport, LedgerError, Unavailable
from bridge.store.engine import notifications
from bridge.store.engine import postgres as engine
from bridge.store.engine.notifications import Notifier
from bridge.store.ledger import open_ledger
from bridge.store.schema import builds
from tests.faults.pg_wire import Spoil, wire
from tests.support.backends import opened
from tests.support.ledger import PATIENCE_SECONDS, Ledger, report

STUCK = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
STORM = """
DO $$ BEGIN
    FOR turn IN 1..{times} LOOP
        PERFORM pg_{done}_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid();
        PERFORM pg_stat_clear_snapshot();
        PERFORM pg_sleep(0.001);
    END LOOP;
END $$
"""
CONNECTIONS = engine.WRITERS + engine.READERS


@pytest.fixture
async def direct(postgres):
    """A ledger, and its own way to the server that nothing spoils."""
    async with postgres.new_url() as url:
        yield url


@pytest.fixture
async def line(postgres):
    async with wire(f"{postgres.server.folder}/.s.PGSQL.5432") as line:
        yield line


@pytest.fixture
async def database(direct, line, clock):
    """A gateway's place at the ledger, over the wire that spoils."""
    name = direct.partition("@/")[2].partition("?")[0]
    async with opened(f"postgresql://postgres@127.0.0.1:{line.port}/{name}", clock) as database:
        yield database


def refuse(_connection, _now, _items):
    raise BadReport("It is no report. Look at it.")


def fail(connection, _now, _items):
    connection.execute(text("SELECT 1 / 0"))


async def ask(url, clock, question):
    async with opened(url, clock) as other:
        return await other.read(lambda connection: connection.execute(text(question)).scalar())


async def use(database, numbers):
    """Write, read, and write what is refused, all side by side; return how long the slowest took."""
    ledger = Ledger(database)

    async def one(awaitable):
        began = time.monotonic()
        with suppress(Unavailable, BadReport):
            await awaitable
        return time.monotonic() - began

    return max(
        await asyncio.gather(
            *(one(ledger.accept(report(), build_no=number)) for number in numbers),
            *(one(ledger.rows(select(builds.c.id))) for _ in numbers),
            *(one(database.write(refuse, number)) for number in numbers),
            *(one(database.write(fail, number)) for number in numbers),
        )
    )


async def expect_well(database, direct, clock):
    """All is written and read at once, and no server process stands in a transaction."""
    ledger = Ledger(database)
    numbers = range(1000, 1000 + 3 * CONNECTIONS)
    written = await asyncio.gather(*(ledger.accept(report(), build_no=number) for number in numbers))
    assert set(written) == {(ReportReceipt.NEW,)}
    asked = select(builds.c.build_no).where(builds.c.build_no >= numbers[0])
    read = await asyncio.gather(*(ledger.rows(asked) for _ in numbers))
    assert {len(rows) for rows in read} == {len(numbers)}
    for number in numbers:
        with pytest.raises(BadReport):
            await database.write(refuse, number)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await ask(direct, clock, STUCK) == 0:
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("spoil", [Spoil.CANCELED, Spoil.REFUSED, Spoil.CUT, Spoil.UNANSWERED])
@pytest.mark.parametrize("verb", ["BEGIN", "COMMIT", "ROLLBACK"])
async def test_a_transaction_that_is_spoiled_anywhere_leaves_no_connection_broken(
    database, direct, line, clock, verb, spoil
):
    for turn in range(2):  # with a pool that is empty, and with one that is full
        line.arm(verb, spoil, times=2 * CONNECTIONS)
        await use(database, range(turn * 100, turn * 100 + CONNECTIONS))
        line.disarm()
    assert line.spoiled
    await expect_well(database, direct, clock)


@pytest.mark.parametrize("spoil", [Spoil.CANCELED, Spoil.CUT, Spoil.UNANSWERED])
async def test_a_server_that_goes_away_while_a_gateway_starts_is_a_sentence(direct, line, clock, spoil):
    name = direct.partition("@/")[2].partition("?")[0]
    line.arm("BEGIN", spoil, times=CONNECTIONS)
    with pytest.raises(
        LedgerError, match=rf"^The ledger at postgresql://postgres@127\.0\.0\.1:\d+/{name} cannot be reached: "
    ):
        async with open_ledger(f"postgresql://postgres@127.0.0.1:{line.port}/{name}", clock):
            pass
    assert line.spoiled


@pytest.mark.parametrize("verb", ["BEGIN", "COMMIT", "ROLLBACK"])
async def test_a_connection_on_which_nothing_passes_any_more_is_given_up_in_time(database, line, monkeypatch, verb):
    await use(database, range(CONNECTIONS))
    with monkeypatch.context() as patched:
        patched.setattr(engine, "TRY_SECONDS", 0.5)
        patched.setattr(engine, "GIVE_UP_SECONDS", 2.0)
        line.arm(verb, Spoil.FROZEN, times=CONNECTIONS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            for begin in count(100, CONNECTIONS):
                await use(database, range(begin, begin + CONNECTIONS))
                if line.spoiled:  # on a busy machine the limits may pass before
                    break
        line.disarm()
    ledger = Ledger(database)
    assert await ledger.accept(report(), build_no=1000) == (ReportReceipt.NEW,)


async def test_a_server_that_freezes_is_not_waited_for_when_the_ledger_closes(database, line, monkeypatch):
    monkeypatch.setattr(engine, "TRY_SECONDS", 0.5)
    monkeypatch.setattr(engine, "GIVE_UP_SECONDS", 2.0)
    monkeypatch.setattr(engine, "CLOSE_SECONDS", 0.5)
    await use(database, range(CONNECTIONS))
    line.freeze()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await database.close()


@pytest.mark.parametrize(("done", "times"), [("cancel", 1500), ("terminate", 100)])
async def test_a_storm_of_cancels_leaves_no_connection_broken(database, direct, clock, done, times):
    async def rage():
        connection = await asyncpg.connect(direct)
        await connection.execute(STORM.format(done=done, times=times))  # in the server: it meets each statement
        await connection.close()

    raging = asyncio.create_task(rage())
    turn = 0
    while not raging.done():
        turn += 1
        await use(database, range(turn * 4, turn * 4 + 4))
    await raging
    await expect_well(database, direct, clock)


async def test_a_limit_of_a_millisecond_for_statements_is_over_when_it_is_lifted(
    postgres, database, direct, clock, monkeypatch
):
    monkeypatch.setattr(engine, "GIVE_UP_SECONDS", 1.0)  # what fails under the limit is not of interest
    name = direct.partition("@/")[2].partition("?")[0]
    await postgres.run(f"ALTER DATABASE {name} SET statement_timeout = '1ms'")
    await use(database, range(CONNECTIONS))
    await postgres.run(f"ALTER DATABASE {name} RESET statement_timeout")
    await use(database, range(100, 100 + CONNECTIONS))
    await expect_well(database, direct, clock)


async def test_reads_that_are_canceled_at_any_moment_leave_no_connection_broken(database, direct, clock):
    def slow(connection):
        return connection.execute(text("SELECT pg_sleep(0.05)")).scalar()

    for delay_ms in range(60):
        reading = asyncio.ensure_future(database.read(slow))
        await asyncio.sleep(delay_ms / 1000)
        reading.cancel()
        await asyncio.wait([reading])
    await expect_well(database, direct, clock)


async def test_nudges_are_heard_after_a_connection_on_which_listening_was_never_answered(direct, line, monkeypatch):
    monkeypatch.setattr(notifications, "QUERY_SECONDS", 0.3)
    monkeypatch.setattr(notifications, "FIRST_DELAY_US", 1)
    name = direct.partition("@/")[2].partition("?")[0]
    stopping, heard = asyncio.Event(), asyncio.Event()
    listens = Notifier(
        url=f"postgresql://postgres@127.0.0.1:{line.port}/{name}",
        clock=SystemClock(),
        notified=heard.set,
        stopping=stopping,
    )
    line.arm("LISTEN", Spoil.FROZEN, times=2)
    running = asyncio.create_task(listens.run(lambda: None))
    tells = await asyncpg.connect(direct)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not heard.is_set():
            await tells.execute("NOTIFY bridge")
            await asyncio.sleep(0.05)
        stopping.set()
        listens.notify()
        await running
    await tells.close()
    assert line.spoiled == 2
