"""Gates of routes that are not in the settings: shut while builds wait for the route, open once none does."""

from dataclasses import replace

import pytest

from bridge.domain.circuit_breaker import (
    CODEARTS,
    TESTNOD,
    HealthSignal,
    breakers_of,
    register_breaker,
    route_breaker,
    storage_breaker,
)
from bridge.domain.routing import Route
from bridge.store.circuit_breakers import BreakerSignal, all_breakers, apply_breaker_signals
from bridge.worker.circuit_probe import trip_breakers_of_removed_routes
from tests.integration.store.ledger import report
from tests.unit.domain.builders import POLICY, ROUTE

GONE = replace(POLICY, routes=(Route(name="other"),))


async def shut(database, *gates):
    for gate in gates:
        await database.write(
            apply_breaker_signals,
            BreakerSignal(breaker=gate, signal=HealthSignal.TRIP, reason="HTTP 503", probe_delay_us=0),
        )


async def closed(database):
    gates = await database.read(all_breakers)
    return {name for name in gates.known if gates.closed(name)}


@pytest.fixture
async def pinned(ledger):
    """A build that waits, pinned to ROUTE."""
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.run_parameters(visit, ROUTE)
    await ledger.release(visit, visit.now)
    return ledger


@pytest.mark.usefixtures("pinned")
async def test_a_route_that_builds_wait_for_and_nobody_knows_is_shut_and_so_stay_its_other_gates(database):
    await shut(database, storage_breaker(ROUTE))
    await trip_breakers_of_removed_routes(database, GONE)
    assert await closed(database) == {route_breaker(ROUTE), storage_breaker(ROUTE)}


@pytest.mark.usefixtures("ledger")
async def test_a_route_that_nobody_knows_and_nothing_waits_for_is_no_outage(database):
    await shut(database, *breakers_of(ROUTE), register_breaker("other"), TESTNOD, CODEARTS)
    await trip_breakers_of_removed_routes(database, GONE)
    assert await closed(database) == {register_breaker("other"), TESTNOD, CODEARTS}


@pytest.mark.usefixtures("ledger")
async def test_gates_of_a_route_in_the_settings_are_left_to_its_own_probes(database):
    await shut(database, *breakers_of(ROUTE))
    await trip_breakers_of_removed_routes(database, POLICY)
    assert await closed(database) == set(breakers_of(ROUTE))
