"""What one gateway alone cannot do."""

import pytest

from bridge.domain.circuit_breaker import CircuitBreaker, route_breaker
from bridge.worker.own_faults import (
    FIRST_PROBE_US,
    LEFT_FOR_US,
    MAX_LEFT,
    MAX_PROBE_US,
    OwnFaults,
    token_digest,
    unclaimed_routes,
)

SECOND = 1_000_000
DIGESTS = {"shop": token_digest("shop", "a-token"), "api": token_digest("api", "a-token")}


@pytest.fixture
def faults():
    return OwnFaults(shared=True)


def test_a_digest_differs_by_route_and_token_and_shows_neither():
    assert len({*DIGESTS.values(), token_digest("shop", "another")}) == 3
    assert {len(digest) for digest in DIGESTS.values()} == {32}


def test_a_rejection_holds_until_the_token_changes_or_is_accepted(faults):
    faults.reject_token("shop", DIGESTS["shop"], "Project not found.", 0)
    assert set(faults.rejected(DIGESTS)) == {"shop"}
    assert faults.rejected({**DIGESTS, "shop": "new"}) == {}
    faults.accept_token("shop")
    assert faults.rejected(DIGESTS) == {}


def test_probes_of_a_rejected_token_become_rarer(faults):
    for at, pause in [(0, FIRST_PROBE_US), (60 * SECOND, 20 * SECOND), (3600 * SECOND, MAX_PROBE_US)]:
        faults.reject_token("shop", DIGESTS["shop"], "Project not found.", at)
        assert faults.rejected(DIGESTS)["shop"].probe_at == at + pause


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


def test_on_a_ledger_of_one_gateway_nothing_is_left_or_rejected():
    alone = OwnFaults()
    alone.reject_token("shop", DIGESTS["shop"], "Project not found.", 0)
    assert alone.rejected(DIGESTS) == {}
    assert not alone.leave(1, 0, None)


def test_routes_that_others_serve_are_not_claimed_unless_their_breaker_is_open():
    name = route_breaker("shop")
    for rejected, served in ((["shop"], ["shop", "api"]), ([], ["api"])):
        assert unclaimed_routes(["shop", "api"], served, rejected, {}) == {"shop"}
        closed, opened = CircuitBreaker(name=name), CircuitBreaker(name=name, opened_at=1)
        assert unclaimed_routes(["shop", "api"], served, rejected, {name: closed}) == {"shop"}
        assert unclaimed_routes(["shop", "api"], served, rejected, {name: opened}) == set()
