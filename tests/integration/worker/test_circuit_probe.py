"""Gates of routes that are not in the settings: shut while builds wait for the route, open once none does."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from bridge.domain.circuit_breaker import (
    CODEARTS,
    TESTNOD,
    CircuitBreaker,
    HealthSignal,
    breakers_of,
    register_breaker,
    route_breaker,
    storage_breaker,
)
from bridge.domain.routing import Route
from bridge.store.circuit_breakers import BreakerSignal, all_breakers, apply_breaker_signals
from bridge.worker.circuit_probe import trip_breakers_of_removed_routes
from bridge.worker.config import log_breaker_change
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
async def test_a_route_that_is_not_in_the_settings_and_that_no_build_waits_for_is_no_outage(database):
    await trip(database, *breakers_of(ROUTE), register_breaker("other"), TESTNOD, CODEARTS)
    await trip_breakers_of_removed_routes(database, GONE)
    assert await open_names(database) == {register_breaker("other"), TESTNOD, CODEARTS}


@pytest.mark.usefixtures("ledger")
async def test_breakers_of_a_route_in_the_settings_are_left_to_its_own_probes(database):
    await trip(database, *breakers_of(ROUTE))
    await trip_breakers_of_removed_routes(database, POLICY)
    assert await open_names(database) == set(breakers_of(ROUTE))


def test_each_breaker_is_logged_in_the_same_form_when_it_opens_and_when_it_closes():
    closed = CircuitBreaker(name="testnod")
    opened = replace(closed, opened_at=1, reason="It hangs.", failures=3)
    with capture_logs() as lines:
        log_breaker_change(closed, opened)
        log_breaker_change(opened, replace(opened, failures=4))
        log_breaker_change(opened, closed)
    assert lines == [
        {"event": "breaker_opened", "log_level": "warning", "upstream": "testnod", "reason": "It hangs."},
        {"event": "breaker_closed", "log_level": "info", "upstream": "testnod", "reason": "It hangs."},
    ]


@pytest.mark.usefixtures("pinned")
async def test_the_breaker_of_a_removed_route_is_logged_too(database):
    with capture_logs() as lines:
        await trip_breakers_of_removed_routes(database, GONE)
    assert [(line["event"], line["upstream"]) for line in lines] == [("breaker_opened", route_breaker(ROUTE))]
