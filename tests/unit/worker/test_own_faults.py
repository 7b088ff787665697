"""What one gateway alone cannot do."""

import pytest

from bridge.domain.circuit_breaker import CODEARTS, CircuitBreaker, route_breaker
from bridge.worker.own_faults import (
    FIRST_PROBE_US,
    LEFT_FOR_US,
    MAX_LEFT,
    MAX_PROBE_US,
    OwnFaults,
    credential_digest,
    unclaimed_routes,
)

SECOND = 1_000_000
SHOP, API = route_breaker("shop"), route_breaker("api")
DIGESTS = {name: credential_digest(name, "a-credential") for name in (SHOP, API, CODEARTS)}


@pytest.fixture
def faults():
    return OwnFaults(shared=True)


def test_a_digest_differs_by_route_and_token_and_shows_neither():
    assert len({*DIGESTS.values(), credential_digest(SHOP, "another")}) == len(DIGESTS) + 1
    assert {len(digest) for digest in DIGESTS.values()} == {32}


def test_a_rejection_holds_until_the_token_changes_or_is_accepted(faults):
    faults.reject(SHOP, DIGESTS[SHOP], "Project not found.", 0)
    assert set(faults.rejected(DIGESTS)) == {SHOP}
    assert faults.rejected({**DIGESTS, SHOP: "new"}) == {}
    faults.accept(SHOP)
    assert faults.rejected(DIGESTS) == {}


def test_probes_of_a_rejected_token_become_rarer(faults):
    for at, pause in [(0, FIRST_PROBE_US), (60 * SECOND, 20 * SECOND), (3600 * SECOND, MAX_PROBE_US)]:
        faults.reject(SHOP, DIGESTS[SHOP], "Project not found.", at)
        assert faults.rejected(DIGESTS)[SHOP].probe_at == at + pause


def test_codearts_may_be_called_again_when_a_probe_is_due_and_a_route_only_by_its_probe(faults):
    for name in (SHOP, CODEARTS):
        faults.reject(name, DIGESTS[name], "It is rejected.", 0)
    assert faults.unusable(DIGESTS, FIRST_PROBE_US - 1) == {SHOP, CODEARTS}
    assert faults.unusable(DIGESTS, FIRST_PROBE_US) == {SHOP}
    assert {breaker.name for breaker in faults.breakers(DIGESTS)} == {SHOP, CODEARTS}


def test_builds_are_left_for_a_minute_at_most_and_only_so_many(faults):
    assert faults.leave(1, 0, None)
    assert faults.leave(2, 0, 10 * SECOND)
    assert faults.leave(3, 0, 3600 * SECOND)
    assert faults.left(0) == [1, 2, 3]
    assert faults.left(10 * SECOND) == [1, 3]
    assert faults.left(LEFT_FOR_US) == []
    assert all(faults.leave(number, 0, None) for number in range(MAX_LEFT))
    assert not faults.leave(MAX_LEFT, 0, None)
    faults.forget_left()
    assert faults.left(0) == []


def test_others_have_had_time_after_a_build_was_left_for_a_minute_and_not_if_it_comes_again_later(faults):
    assert not faults.have_others_had_time(1, 0)
    for at in range(0, LEFT_FOR_US, 20 * SECOND):
        assert faults.leave(1, at, at + 20 * SECOND)
        assert not faults.have_others_had_time(1, at)
    assert faults.have_others_had_time(1, LEFT_FOR_US)
    assert faults.leave(1, LEFT_FOR_US, None)
    assert not faults.have_others_had_time(1, 3 * LEFT_FOR_US)


def test_a_clock_that_was_set_back_leaves_no_build_and_delays_no_probe_for_longer(faults):
    year = 365 * 24 * 3600 * SECOND
    faults.leave(1, year, None)
    faults.reject(SHOP, DIGESTS[SHOP], "Project not found.", year)
    faults.reject(CODEARTS, DIGESTS[CODEARTS], "It is rejected.", year)

    assert not faults.rejected(DIGESTS)[SHOP].probe_is_due(year)
    assert faults.rejected(DIGESTS)[SHOP].probe_is_due(0)
    assert faults.unusable(DIGESTS, 0) == {SHOP}
    assert faults.left(0) == []


def test_on_a_ledger_of_one_gateway_nothing_is_left_or_rejected():
    alone = OwnFaults()
    alone.reject(SHOP, DIGESTS[SHOP], "Project not found.", 0)
    assert alone.rejected(DIGESTS) == {}
    assert not alone.leave(1, 0, None)


def test_routes_that_others_serve_are_not_claimed_unless_their_breaker_is_open():
    name = SHOP
    for rejected, served in (([SHOP], ["shop", "api"]), ([], ["api"])):
        assert unclaimed_routes(["shop", "api"], served, rejected, {}) == {"shop"}
        closed, opened = CircuitBreaker(name=name), CircuitBreaker(name=name, opened_at=1)
        assert unclaimed_routes(["shop", "api"], served, rejected, {name: closed}) == {"shop"}
        assert unclaimed_routes(["shop", "api"], served, rejected, {name: opened}) == set()
