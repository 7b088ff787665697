"""Gates of routes that are not in the settings: shut while builds wait for the route, open once none does."""

from dataclasses import replace

import pytest

from bridge.domain.gates import CODEARTS, TESTNOD, Signal, gates_of, register_gate, route_gate, storage_gate
from bridge.domain.routing import Route
from bridge.store.upstreams import Told, all_gates, tell
from bridge.worker.absent import tend_absent_routes
from tests.integration.store.ledger import report
from tests.unit.domain.builders import POLICY, ROUTE

GONE = replace(POLICY, routes=(Route(name="other"),))


async def shut(database, *gates):
    for gate in gates:
        await database.write(tell, Told(gate=gate, signal=Signal.SHUT, reason="HTTP 503", probe_delay_us=0))


async def closed(database):
    gates = await database.read(all_gates)
    return {name for name in gates.known if gates.closed(name)}


@pytest.fixture
async def pinned(ledger):
    """A build that waits, pinned to ROUTE."""
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.pin(visit, ROUTE)
    await ledger.release(visit, visit.now)
    return ledger


@pytest.mark.usefixtures("pinned")
async def test_a_route_that_builds_wait_for_and_nobody_knows_is_shut_and_so_stay_its_other_gates(database):
    await shut(database, storage_gate(ROUTE))
    await tend_absent_routes(database, GONE)
    assert await closed(database) == {route_gate(ROUTE), storage_gate(ROUTE)}


@pytest.mark.usefixtures("ledger")
async def test_a_route_that_nobody_knows_and_nothing_waits_for_is_no_outage(database):
    await shut(database, *gates_of(ROUTE), register_gate("other"), TESTNOD, CODEARTS)
    await tend_absent_routes(database, GONE)
    assert await closed(database) == {register_gate("other"), TESTNOD, CODEARTS}


@pytest.mark.usefixtures("ledger")
async def test_gates_of_a_route_in_the_settings_are_left_to_its_own_probes(database):
    await shut(database, *gates_of(ROUTE))
    await tend_absent_routes(database, POLICY)
    assert await closed(database) == set(gates_of(ROUTE))
