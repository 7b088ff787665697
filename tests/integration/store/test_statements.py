"""What the ledger says to its database: statements that find rows by index, and that PostgreSQL understands too."""

from contextlib import contextmanager

import pytest
from sqlalchemy import event
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.sqlite.dml import Insert as SqliteInsert

from bridge.domain.build import DeliveryState
from bridge.domain.changes import AddRun, DropRegistration, RaiseBatch, set_build, set_delivery, set_registration, set_run
from bridge.domain.effects.put import stored
from bridge.domain.gates import TESTNOD, Signal
from bridge.store.bytes import free_bytes, kept_bytes
from bridge.store.upstreams import Told, all_gates, closed_gates, slow_down, take_probe, take_slot, tell
from bridge.store.visits import due_lanes, record_stored, renew
from tests.integration.store.ledger import LEASE_US, asked, dead, named, pin, refusal, report

SMALL = "SCAN upstreams"
"""Every gate is read at each claim: there are a few, and no index would be shorter than the table."""


@contextmanager
def said_to(database, hook):
    """Collect what `hook` shows of the statements that both connections run in a block."""
    said = []

    def hear(*arguments, **_):
        said.append(arguments)

    for engine in (database.writing, database.reading):
        event.listen(engine, hook, hear)
    try:
        yield said
    finally:
        for engine in (database.writing, database.reading):
            event.remove(engine, hook, hear)


async def plans(database, said):
    """Return how SQLite looks its rows up for each statement that was said."""
    found = {}
    for _, _, statement, parameters, _, many in said:
        if statement.split()[0] in ("SELECT", "UPDATE", "DELETE"):
            values = parameters[0] if many else parameters

            def explain(connection, statement=statement, values=values):
                return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]

            found[statement] = await database.read(explain)
    return found


async def accept_all_kinds(ledger):
    await ledger.accept(report("a"), refusals=(refusal(),), complete=True)
    visit = await ledger.claimed()
    await ledger.record(visit.build, dead(visit.build.deliveries[1]))
    await ledger.accept(report("a"), report("b"), said=pin_said())


def pin_said():
    from bridge.domain.build import Said

    return Said(branch="main")


async def visit_all_kinds(ledger, database):
    visit = await ledger.claimed("")
    life = await ledger.register(visit)
    await ledger.late_ids(visit.build, life)
    other = await ledger.register(visit)
    await ledger.record(visit.build, named(other))
    build = await ledger.build()
    await database.write(record_stored, stored(build, build.registrations[other.id], visit.now))
    await ledger.record(visit.build, set_build(pin=pin("shop")), RaiseBatch())
    await database.write(free_bytes, 1)
    await database.read(kept_bytes, 1)
    await database.write(renew, (build.id, build.fence, LEASE_US))
    await ledger.release(visit, visit.now, waits_for=TESTNOD)
    await database.read(due_lanes, ("", "shop"), visit.now)
