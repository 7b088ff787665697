"""What the ledger says to SQLite and to PostgreSQL: rows are found by index."""

from contextlib import contextmanager

from sqlalchemy import event

from bridge.domain.build import DeliveryState, RegistrationState, UploadMetadata
from bridge.domain.changes import (
    AddRun,
    BumpReportSeq,
    DropRegistration,
    set_build,
    set_delivery,
    set_registration,
    set_run,
)
from bridge.domain.circuit_breaker import TESTNOD, HealthSignal
from bridge.domain.lifecycle.upload import upload_succeeded
from bridge.domain.request_rate import Api
from bridge.store.circuit_breakers import BreakerSignal, apply_breaker_signals, open_breakers, take_probe
from bridge.store.fenced_writes import record_stored
from bridge.store.leases import Renewal, due_routes, renew
from bridge.store.mirror import MirrorChanges, mirrored_totals, record_mirrored
from bridge.store.queries import report_summary
from bridge.store.request_rates import RateUse, use_rates
from bridge.store.retention import BodyRelease, body_location, release_bodies
from bridge.store.schema import metadata
from tests.support.ledger import LEASE_US, Ledger, dead, engine_of, named, refusal, report, run_parameters

PARTIAL = {
    index.name
    for table in metadata.tables.values()
    for index in table.indexes
    if index.dialect_options["postgresql"]["where"] is not None
}
"""Indexes of what is at work only: walking one whole is not walking a table."""

ANALYZED = """
SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND reltuples >= 0
"""
"""Tables of which PostgreSQL has statistics, from ANALYZE, VACUUM or autovacuum.

Without them it plans for ten pages, the same each time. With them it plans for a few rows, which it reads all, through
any index that sorts them.
"""

SMALL = ("SCAN circuit_breakers", "SCAN json_each", "SCAN anon_", "SCAN CONSTANT ROW")
"""A handful of rows, all read at each claim: no index is shorter than the table. And the ids that a statement names,
the rows of subqueries, whose tables have lines of their own, and the one row of a statement without a table."""


@contextmanager
def heard(database, moment):
    """Collect what SQLAlchemy tells at `moment` of the statements that are run in a block, on both connections."""
    told = []

    def hear(*arguments):
        told.append(arguments)

    engines = [engine_of(database, door) for door in ("writing", "reading")]
    for engine in engines:
        event.listen(engine, moment, hear)
    yield told
    for engine in engines:
        event.remove(engine, moment, hear)


async def live(database):
    """Take the ledger through everything that uploads and visits ask of it."""
    ledger = Ledger(database)
    await accept_and_die(ledger)
    visit = await ledger.claimed()
    await register_and_store(ledger, visit)
    await database.write(release_bodies, BodyRelease(build_id=1, report_id=1, replacements=False))
    await database.read(body_location, 1)
    await wait_for_testnod(database, ledger, visit)
    await database.read(due_routes, ("", "shop"), visit.now)
    await beside(database, visit)


async def beside(database, visit):
    """Ask what stands beside uploads and TestNod."""
    changes = (set_delivery(visit.build.deliveries[1], attempts=1), set_build(mirror="agrees"))
    await database.write(record_mirrored, MirrorChanges(build_id=visit.build.id, changes=changes))
    await database.read(mirrored_totals, visit.build.id)
    await database.read(report_summary, visit.build.job_id, visit.build.build_no)


async def accept_and_die(ledger):
    await ledger.accept(report("a"), rejections=(refusal(),), complete=True)
    visit = await ledger.claimed()
    await ledger.record(visit.build, dead(visit.build.deliveries[1]))
    await ledger.release(visit, None)
    await ledger.accept(report("a"), report("b"), upload_metadata=UploadMetadata(branch="main"))


async def register_and_store(ledger, visit):
    late = await ledger.register(visit)
    await ledger.late_ids(visit.build, late)
    late = (await ledger.build()).registrations[late.id]
    await ledger.record(visit.build, set_registration(late, state=RegistrationState.FAILED))
    dropped = await ledger.register(visit)
    await ledger.record(visit.build, DropRegistration(dropped.id))
    good = await ledger.register(visit)
    await ledger.record(visit.build, named(good), AddRun("run-1", "https://nod.test", 1))
    build = await ledger.build()
    await ledger.database.write(record_stored, upload_succeeded(build, build.registrations[good.id], visit.now))
    second = set_delivery(build.deliveries[2], state=DeliveryState.DELIVERED)
    await ledger.record(
        build,
        set_build(run_parameters=run_parameters("shop")),
        BumpReportSeq(),
        second,
        set_run(build.runs[0], status="done"),
    )


async def wait_for_testnod(database, ledger, visit):
    shut = BreakerSignal(breaker=TESTNOD, signal=HealthSignal.TRIP, reason="", probe_delay_us=0)
    await database.write(apply_breaker_signals, shut)
    await database.write(
        renew, Renewal(build_id=visit.build.id, fencing_token=visit.build.fencing_token, lease_us=LEASE_US)
    )
    await ledger.release(visit, visit.now + 1, waiting_on=TESTNOD)
    await database.write(take_probe, (TESTNOD, 1))
    await database.read(open_breakers)
    await database.write(
        apply_breaker_signals, BreakerSignal(breaker=TESTNOD, signal=HealthSignal.SUCCESS, reason="", probe_delay_us=0)
    )
    await database.write(use_rates, RateUse(account="a", api=Api.BUILD_INFO, highest=60, takes=1))


async def plans_of(database, told):
    """Return how the rows of each statement are looked up."""
    plans = {}
    for _, _, statement, parameters, _, many in told:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            values = parameters[0] if many else parameters
            plans[statement] = await database.read(_explain, statement, values)
    return plans


def _explain(connection, statement, values):
    if connection.dialect.name == "sqlite":
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    # Tables as small as these are rather read whole. If that is all but forbidden, what still is has no index.
    assert connection.exec_driver_sql("SHOW autovacuum").scalar_one() == "off"
    assert connection.exec_driver_sql(ANALYZED).scalars().all() == []
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    (plan,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar_one()
    return [_line(node) for node in _nodes(plan["Plan"])]


def _nodes(node):
    """Yield a node of PostgreSQL's plan and all below it."""
    yield node
    for inner in node.get("Plans", ()):
        yield from _nodes(inner)


def _line(node):
    """Say of a node what SQLite would: SCAN where it reads a table, or an index of all its rows, from end to end."""
    name = node.get("Index Name", "")
    whole = node["Node Type"] == "Seq Scan" or (name and "Index Cond" not in node and name not in PARTIAL)
    return f"{'SCAN' if whole else node['Node Type']} {node.get('Relation Name', '')} {name}"


async def test_every_row_that_uploads_and_visits_ask_for_is_found_by_an_index(database):
    with heard(database, "before_cursor_execute") as told:
        await live(database)
    plans = await plans_of(database, told)
    scans = {line for plan in plans.values() for line in plan if line.startswith("SCAN")}
    assert len(plans) > 30
    assert [line for line in scans if not line.startswith(SMALL)] == []


async def test_the_build_whose_turn_it_is_is_found_without_sorting(database):
    with heard(database, "before_cursor_execute") as told:
        await live(database)
    plans = await plans_of(database, told)
    turns = [plan for statement, plan in plans.items() if "ORDER BY builds.due_at" in statement]
    assert len(turns) == 2  # claim and due_lanes
    assert all("ix_builds_due" in " ".join(plan) for plan in turns)
    assert not any(line.startswith("Sort") or "TEMP B-TREE" in line for plan in turns for line in plan)
