"""What is PostgreSQL's own: its clock, other gateways at the same rows, and a server that is not always there."""

import asyncio
import functools
import re
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.util import await_only

from bridge.clock import SystemClock
from bridge.demo.postgres import PostgresServer
from bridge.domain.build import DeliveryState
from bridge.domain.instants import SECOND
from bridge.domain.intake import ReportReceipt
from bridge.domain.request_rate import Api
from bridge.errors import CommitUncertain, LedgerError, Unavailable
from bridge.store.engine import postgres as postgres_engine
from bridge.store.engine.notifications import Notifier
from bridge.store.engine.postgres import PostgresDatabase
from bridge.store.leases import Renewal
from bridge.store.ledger import migrate_over
from bridge.store.request_rates import RateUse, use_rates
from bridge.store.retention import body_location, unlink_dead
from bridge.store.schema import builds, deliveries
from tests.support.backends import opened
from tests.support.byte_server import ByteServer
from tests.support.fake_clock import FakeClock
from tests.support.ledger import LEASE_US, PATIENCE_SECONDS, Ledger, dead, report, stand_still, upload

HOUR = 3600 * SECOND


DYING = """
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NEW; END $$
"""
DIES_IN_COMMIT = """
CREATE CONSTRAINT TRIGGER die AFTER INSERT ON builds DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION die()
"""


@pytest.fixture(scope="session")
def backend(postgres):
    return postgres


@pytest.fixture
async def gateways(postgres, clock):
    """Two gateways' places at one ledger."""
    async with AsyncExitStack() as ends:
        url = await ends.enter_async_context(postgres.new_url())
        yield [Ledger(await ends.enter_async_context(opened(url, clock))) for _ in range(2)]


@pytest.fixture
async def own_server():
    """A server that a test may stop."""
    async with PostgresServer() as server:
        yield server


async def say(ledger, statement):
    def execute(connection, _now, items):
        connection.execute(text(statement))
        return items

    await ledger.database.write(execute, None)


# -- its clock ---------------------------------------------------------------------------------------------------


async def test_the_time_of_a_write_is_the_databases_whatever_this_machine_believes(postgres):
    clock = FakeClock(time.time_ns() // 1000 - HOUR)
    async with postgres.new_url() as url, PostgresDatabase(url, clock) as database:
        ledger = Ledger(database)
        await ledger.accept(report())
        visit = await ledger.claimed()
        row = await ledger.row()
        assert visit.now - clock.now() == pytest.approx(HOUR, abs=60 * SECOND)
        assert row.lease_until == visit.now + LEASE_US
        assert database.now() - clock.now() == pytest.approx(HOUR, abs=60 * SECOND)


async def test_places_under_the_common_rate_are_given_to_one_gateway_each(gateways):
    use = RateUse(account="a", api=Api.BUILD_INFO, highest=600, takes=1)
    taken = await asyncio.gather(*(gateways[n % 2].database.write(use_rates, use) for n in range(20)))
    assert len({slot for grant in taken for slot in grant.slots}) == 20


# -- others at the same rows -------------------------------------------------------------------------------------


async def test_the_same_report_sent_to_two_gateways_at_once_is_new_to_one(gateways):
    sent = [upload(report(f"{name}.xml")) for name in range(8)]
    first, second = await asyncio.gather(*(gateway.accept_together(*sent) for gateway in gateways))
    assert all(
        sorted(pair) == [(ReportReceipt.DUPLICATE,), (ReportReceipt.NEW,)] for pair in zip(first, second, strict=True)
    )


async def test_a_build_is_claimed_once_however_many_ask(gateways):
    for number in range(5):
        await gateways[0].accept(report(), build_no=number)
    claims = await asyncio.gather(*(gateways[n % 2].claim(owner=str(n)) for n in range(12)))
    claimed = [visit.build.id for visit in claims if visit is not None]
    assert len(claimed) == len(set(claimed)) == 5


async def test_a_claim_does_not_wait_for_a_build_that_another_gateway_writes_to(gateways, clock):
    one, other = gateways
    await one.accept(report(), build_no=1)
    clock.advance(1)
    await one.accept(report(), build_no=2)
    begun, may_go_on = asyncio.Event(), asyncio.Event()

    def hold(connection, _now, items):
        connection.execute(update(builds).where(builds.c.build_no == 1).values(polls=1))
        begun.set()
        await_only(may_go_on.wait())
        return items

    holding = asyncio.ensure_future(one.database.write(hold, None))
    await begun.wait()
    visit = await other.claimed()
    may_go_on.set()
    await holding
    assert visit.build.build_no == 2


async def test_a_write_to_a_build_that_a_writer_is_at_waits_and_those_to_other_builds_do_not(database):
    begun, may_go_on = threading.Event(), threading.Event()

    def slow(connection, _now, items):
        begun.set()
        stand_still(connection, may_go_on)
        return items

    def same(_connection, _now, items):
        return items

    one, other = (Renewal(build_id=number, fencing_token=1, lease_us=1) for number in (1, 2))
    first = asyncio.ensure_future(database.write(slow, one))
    assert await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
    second = asyncio.ensure_future(database.write(same, one))
    assert await database.write(same, other) == other
    assert not second.done()
    may_go_on.set()
    assert await asyncio.gather(first, second) == [one, one]


async def test_two_who_wait_for_each_other_are_both_done_in_the_end(gateways):
    for number in (1, 2):
        await gateways[0].accept(report(), build_no=number)
    met = asyncio.Barrier(2)
    tries = []

    def both(connection, _now, items):
        first, second = items[0]
        connection.execute(update(builds).where(builds.c.build_no == first).values(polls=builds.c.polls + 1))
        tries.append(first)
        if len(tries) <= 2:
            await_only(met.wait())
        connection.execute(update(builds).where(builds.c.build_no == second).values(polls=builds.c.polls + 1))
        return items

    await asyncio.gather(gateways[0].database.write(both, (1, 2)), gateways[1].database.write(both, (2, 1)))
    assert len(tries) == 3  # one was undone, and tried again
    assert await gateways[0].rows(select(builds.c.polls)) == [(2,), (2,)]


async def test_the_janitor_leaves_a_report_alone_that_is_sent_again_in_this_moment(gateways, clock):
    one, other = gateways
    await one.accept(report())
    visit = await one.claimed()
    await one.record(visit.build, dead(visit.build.deliveries[1]))
    begun, may_go_on = asyncio.Event(), asyncio.Event()

    def send_again(connection, _now, items):
        connection.execute(update(deliveries).values(state=DeliveryState.PENDING))
        begun.set()
        await_only(may_go_on.wait())
        return items

    sending = asyncio.ensure_future(one.database.write(send_again, None))
    await begun.wait()
    cleaning = asyncio.ensure_future(other.database.write(unlink_dead, clock.now() + 1))
    assert await cleaning == []
    may_go_on.set()
    await sending
    assert (await other.database.read(body_location, 1)).body is not None


# -- a server that is not always there ---------------------------------------------------------------------------


async def migrated(server):
    database = PostgresDatabase(server.url(), SystemClock())
    await database.__aenter__()
    async with database.engine.begin() as connection:
        await connection.run_sync(migrate_over)
    return database


async def test_what_is_written_while_the_server_restarts_is_kept(own_server):
    database = await migrated(own_server)
    ledger = Ledger(database)
    await ledger.accept(report("before.xml"))
    await own_server.stop()
    waiting = asyncio.ensure_future(ledger.accept(report("meanwhile.xml")))
    asking = asyncio.ensure_future(ledger.rows(select(builds.c.id)))
    await own_server.start()
    assert await waiting == (ReportReceipt.NEW,)
    assert await asking == [(1,)]
    await database.close()


async def test_while_the_server_is_away_writes_and_reads_are_refused_in_time(own_server, monkeypatch):
    monkeypatch.setattr(postgres_engine, "GIVE_UP_SECONDS", 0.5)
    database = await migrated(own_server)
    await own_server.stop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        asked = (Ledger(database).accept(report()), database.read(body_location, 1))
        told = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in told] == [Unavailable, Unavailable]
    assert all("cannot be used right now" in str(error) for error in told)
    await database.close()


async def test_a_connection_that_is_lost_in_the_middle_of_a_commit_leaves_it_open_what_was_kept(own_server):
    database = await migrated(own_server)
    # A deferred trigger runs within COMMIT: there the server loses the connection.
    await say(Ledger(database), DYING)
    await say(Ledger(database), DIES_IN_COMMIT)
    with pytest.raises(CommitUncertain):
        await Ledger(database).accept(report())
    await say(Ledger(database), "DROP TRIGGER die ON builds")
    assert await Ledger(database).accept(report()) == (ReportReceipt.NEW,)
    await database.close()


async def test_what_is_committed_is_not_written_again_when_time_runs_out_after_it(postgres, clock):
    """A second try would find the report known, and its upload would remove the bytes that its row names."""
    async with postgres.new_url() as url, opened(url, clock) as database:
        writing = database.writing

        @asynccontextmanager
        async def connect():
            async with writing.connect() as connection:
                yield connection
            raise TimeoutError

        database.writing = SimpleNamespace(connect=connect)
        assert await Ledger(database).accept(report()) == (ReportReceipt.NEW,)


async def test_a_database_that_forgets_commits_by_default_does_not_forget_ours(postgres, clock):
    async with postgres.new_url() as url:
        name = url.partition("@/")[2].partition("?")[0]
        await postgres.run(f"ALTER DATABASE {name} SET synchronous_commit = off")
        async with PostgresDatabase(url, clock) as database:

            def setting(connection, _now, items):
                return [connection.execute(text("SHOW synchronous_commit")).scalar() for _ in items]

            assert await database.write(setting, None) == "on"


async def test_a_server_that_cannot_be_reached_is_named_without_its_password(clock):
    with pytest.raises(LedgerError) as refused:
        await PostgresDatabase("postgresql://bridge:canary@/ledger?host=/nowhere&password=canary", clock).__aenter__()
    assert "postgresql://bridge@/ledger?host=/nowhere" in str(refused.value)
    assert "canary" not in str(refused.value)


# -- nudges ------------------------------------------------------------------------------------------------------


async def test_a_nudge_is_heard_by_the_other_gateways_and_not_by_oneself(postgres):
    async with postgres.new_url() as url, asyncio.TaskGroup() as tasks:
        stopping, heard, heard_oneself = asyncio.Event(), asyncio.Event(), asyncio.Event()
        ready = asyncio.Semaphore(0)
        listens = Notifier(url=url, clock=SystemClock(), notified=heard.set, stopping=stopping)
        tells = Notifier(url=url, clock=SystemClock(), notified=heard_oneself.set, stopping=stopping)
        running = [tasks.create_task(each.run(ready.release)) for each in (listens, tells)]
        for _ in range(4):  # each is seen alive before it connects, and when it listens
            await ready.acquire()
        tells.notify()
        await asyncio.wait_for(heard.wait(), PATIENCE_SECONDS)
        assert not heard_oneself.is_set()
        stopping.set()
        for each in (listens, tells):
            each.notify()
        await asyncio.wait(running)


# -- a pooler in between -----------------------------------------------------------------------------------------

KEY_DATA = re.compile(rb"K\x00\x00\x00\x0c(....)", re.DOTALL)
"""BackendKeyData with its process id (PostgreSQL: Message Formats)."""


@asynccontextmanager
async def pooler(socket_path):
    """Stand between as PgBouncer does, whose greeting names a process of its own; yield the port."""

    async def copy(reader, writer, change=lambda data: data):
        while data := await reader.read(65_536):
            writer.write(change(data))
            await writer.drain()
        writer.close()

    async def pass_on(reader, writer):
        server_reader, server_writer = await asyncio.open_unix_connection(socket_path)
        named = functools.partial(KEY_DATA.sub, b"K\x00\x00\x00\x0c\x00\x00\x00\x01")
        try:
            await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer, named))
        finally:
            server_writer.close()

    async with ByteServer(pass_on) as server:
        yield server.port


async def test_behind_a_pooler_no_statement_is_kept_prepared_and_all_works(postgres, clock):
    async with postgres.new_url() as url, pooler(f"{postgres.server.folder}/.s.PGSQL.5432") as port:
        name = url.partition("@/")[2].partition("?")[0]
        async with opened(f"postgresql://postgres@127.0.0.1:{port}/{name}", clock) as database:
            assert database.pooled
            ledger = Ledger(database)
            for number in range(3):
                assert await ledger.accept(report(), build_no=number) == (ReportReceipt.NEW,)
                assert (await ledger.claimed()).build.build_no == number
            prepared = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"
            assert await database.read(lambda connection: connection.execute(text(prepared)).scalar()) == 0


async def test_without_a_pooler_in_between_statements_are_kept_prepared(database):
    used = "SELECT generic_plans + custom_plans FROM pg_prepared_statements WHERE statement LIKE 'SELECT builds.id%'"

    def executions(connection):
        connection.execute(select(builds.c.id))
        return connection.execute(text(used)).scalars().all()

    assert not database.pooled
    async with database.reading.connect() as connection:  # the same one for both
        assert [await connection.run_sync(executions) for _ in range(2)] == [[1], [2]]
