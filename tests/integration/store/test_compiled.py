"""Statements that the driver executes: the same rows, errors and transactions as SQLAlchemy's, on both engines."""

import pytest
from sqlalchemy import BigInteger, bindparam, event, insert, select, text, update

from bridge.domain.changes import AddRun
from bridge.errors import LedgerRejectedWrite
from bridge.store.circuit_breakers import all_breakers
from bridge.store.engine.base import needs_transaction
from bridge.store.engine.compiled import Statement, Together, each_of, is_one_of
from bridge.store.leases import due_routes, read_claimed, read_marks, read_newer
from bridge.store.retention import body_location, body_locations
from bridge.store.schema import builds, reports, runs
from tests.support.ledger import Ledger, engine_of, report

JSON_OF = Statement(select(builds.c.id, builds.c.upload_metadata, builds.c.poll_reserved))
POLLS = Statement(
    update(builds)
    .where(builds.c.id == bindparam("row_id", type_=BigInteger))
    .values(polls=bindparam("new_polls", type_=BigInteger))
)


async def test_rows_have_the_values_that_sqlalchemy_returns(ledger: Ledger):
    await ledger.accept(report())
    of_sqlalchemy = await ledger.database.read(
        lambda c: c.execute(select(builds.c.id, builds.c.upload_metadata, builds.c.poll_reserved)).all()
    )
    of_driver = await ledger.database.read(JSON_OF.rows)
    assert [tuple(row) for row in of_driver] == [tuple(row) for row in of_sqlalchemy]
    assert of_driver[0][2] is False


async def test_a_statement_for_several_rows_changes_each_of_them(ledger: Ledger):
    for number in (1, 2, 3):
        await ledger.accept(report(), build_no=number)
    rows = [{"row_id": number, "new_polls": 10 * number} for number in (1, 2, 3)]
    await ledger.database.transact(lambda c, _: POLLS.run_each(c, rows))
    polls = await ledger.database.read(
        lambda c: c.execute(select(builds.c.polls).order_by(builds.c.id)).scalars().all()
    )
    assert polls == [10, 20, 30]
    assert await ledger.database.transact(lambda c, _: POLLS.run(c, rows[0])) == 1


async def test_a_group_of_any_size_is_written_completely_by_few_different_statements(ledger: Ledger):
    statements = []
    listen = lambda *arguments: statements.append(arguments[2])  # noqa: E731
    event.listen(engine_of(ledger.database, "writing"), "before_cursor_execute", listen)
    for build_no in range(1, 24):
        names = [f"{number}.xml" for number in range(build_no)]
        assert len(await ledger.accept(*map(report, names), build_no=build_no)) == build_no
        kept = await ledger.build(build_no)
        assert sorted(each.name for each in kept.reports.values()) == sorted(names)
        assert len(kept.deliveries) == build_no
    event.remove(engine_of(ledger.database, "writing"), "before_cursor_execute", listen)
    texts = {text for text in statements if text.startswith("INSERT INTO reports ")}
    assert len(texts) == (23 if ledger.database.shared else 5)  # SQLite: 1, 2, 4, 8 and 16 reports


async def test_lists_of_any_length_are_one_parameter(ledger: Ledger):
    for number in (1, 2, 3):
        await ledger.accept(report(), build_no=number)
    found = Statement(select(builds.c.id).where(is_one_of(builds.c.id, "ids")).order_by(builds.c.id))
    for ids in ((), (2,), (1, 3, 99)):
        rows = await ledger.database.read(lambda c, ids=ids: found.rows(c, {"ids": ids}))
        assert [row[0] for row in rows] == [each for each in ids if each < 4]
    texts = Statement(lambda dialect: select(each_of(dialect, "texts")))
    assert [row[0] for row in await ledger.database.read(lambda c: texts.rows(c, {"texts": ["ü", ""]}))] == ["ü", ""]


async def test_an_error_of_the_driver_is_rejected_like_one_of_sqlalchemy(ledger: Ledger):
    await ledger.accept(report())
    names = [column.name for column in runs.c if column.name != "id"]
    add = Statement(insert(runs).values({name: bindparam(name, type_=runs.c[name].type) for name in names}))
    row = dict.fromkeys(names) | {"build_id": 1}  # columns that must not be null are
    with pytest.raises(LedgerRejectedWrite):
        await ledger.database.transact(lambda c, _: add.run(c, row))
    assert await ledger.accept(report("another"))


async def test_queries_that_are_read_together_return_what_each_returns(ledger: Ledger):
    await ledger.accept(report("a"), report("b"))
    visit = await ledger.claimed()
    await ledger.record(visit.build, AddRun("run-1", "https://nod.test/ä", 1))
    queries = (
        select(reports.c.name, reports.c.notes, reports.c.highlights).order_by(reports.c.id.desc()),
        select(runs.c.test_run_url, runs.c.status),
        select(builds.c.id).where(builds.c.id == bindparam("id", type_=BigInteger)),
    )
    together = await ledger.database.read(lambda c: Together(*queries).rows(c, {"id": 99}))
    each = await ledger.database.read(lambda c: [Statement(query).rows(c, {"id": 99}) for query in queries])
    assert [[tuple(row) for row in rows] for rows in together] == [[tuple(row) for row in rows] for rows in each]
    assert together[2] == []


@pytest.mark.parametrize(
    "query", [all_breakers, body_location, body_locations, due_routes, read_claimed, read_marks, read_newer]
)
async def test_a_query_that_is_read_without_a_transaction_is_one_statement_or_read_from_one_snapshot(
    postgres, clock, query
):
    assert not needs_transaction(query)
    async with postgres.fresh(clock) as database:
        ledger = Ledger(database)
        await ledger.accept(report())
        visit = await ledger.claimed()
        statements = []
        listen = lambda *arguments: statements.append(arguments[2])  # noqa: E731
        event.listen(engine_of(database, "writing"), "before_cursor_execute", listen)
        arguments = {
            body_location: (1,),
            body_locations: ([1],),
            due_routes: (("", "shop"), visit.now),
            read_marks: (1,),
            read_newer: (visit.build,),
        }
        if query is read_claimed:
            await ledger.release(visit, visit.now)
            statements.clear()
            await ledger.claimed()
            statements = [each for each in statements if "json_agg" in each]
        else:
            await database.read(query, *arguments.get(query, ()))
        event.remove(engine_of(database, "writing"), "before_cursor_execute", listen)
        assert len(statements) == 1


async def test_a_ledger_is_written_until_a_newer_gateway_drops_what_this_one_needs(postgres, clock):
    async with postgres.fresh(clock) as database:
        database._begin = None  # the database's own time, which is not read for each transaction
        database.schema = await database.read(
            lambda c: c.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        )
        ledger = Ledger(database)
        await ledger.accept(report("a"))
        await ledger.accept(report("b"))
        assert database._knows_time()
        set_newer = text("UPDATE alembic_version SET version_num = '9999'")
        await database.transact(lambda c, _: c.execute(set_newer) and None)
        await ledger.accept(report("c"))
        assert database._knows_time()
        set_oldest = text("UPDATE alembic_version SET compatible_from = '9999'")
        await database.transact(lambda c, _: c.execute(set_oldest) and None)
        with pytest.raises(Exception, match="has schema 9999"):
            await ledger.accept(report("d"))
