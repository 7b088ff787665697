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
from tests.support.builders import POLICY, ROUTE
from tests.support.ledger import report

GONE = replace(POLICY, routes=(Route(name="other"),))


async def trip(database, *breakers):
    for breaker in breakers:
        await database.write(
            apply_breaker_signals,
            BreakerSignal(breaker=breaker, signal=HealthSignal.TRIP, reason="HTTP 503", probe_delay_us=0),
        )


async def open_names(database):
    breakers = await database.read(all_breakers)
    return {name for name in breakers.known if breakers.open_breaker(name)}


@pytest.fixture
async def pinned(ledger):
    """A build that waits, pinned to ROUTE."""
    await ledger.accept(report())
    visit = await ledger.claimed()
    await ledger.run_parameters(visit, ROUTE)
    await ledger.release(visit, visit.now)
    return ledger


@pytest.mark.usefixtures("pinned")
async def test_the_breaker_of_a_removed_route_that_builds_wait_for_opens_and_its_other_breakers_stay_open(database):
    await trip(database, storage_breaker(ROUTE))
    await trip_breakers_of_removed_routes(database, GONE)
    assert await open_names(database) == {route_breaker(ROUTE), storage_breaker(ROUTE)}


@pytest.mark.usefixtures("ledger")
async def test_a_route_that_nobody_knows_and_nothing_waits_for_is_no_outage(database):
    await trip(database, *breakers_of(ROUTE), register_breaker("other"), TESTNOD, CODEARTS)
    await trip_breakers_of_removed_routes(database, GONE)
    assert await open_names(database) == {register_breaker("other"), TESTNOD, CODEARTS}


@pytest.mark.usefixtures("ledger")
async def test_breakers_of_a_route_in_the_settings_are_left_to_its_own_probes(database):
    await trip(database, *breakers_of(ROUTE))
    await trip_breakers_of_removed_routes(database, POLICY)
    assert await open_names(database) == set(breakers_of(ROUTE))
