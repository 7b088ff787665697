from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.circuit_breaker import (
    CODEARTS,
    FAILING_FOR_US,
    MAX_EARLY_PROBE_US,
    MAX_REMEMBERED_BUILDS,
    OPENS_AFTER,
    TESTNOD,
    CircuitBreaker,
    CircuitBreakers,
    HealthSignal,
    RouteHealth,
    apply_signal,
    early_probe_at,
    probe_delay_us,
    route_breaker,
    storage_breaker,
)

DELAY = 50
SECOND = 1_000_000
GOOD, BAD, ODD, SHUT = HealthSignal.SUCCESS, HealthSignal.FAILURE, HealthSignal.UNEXPECTED, HealthSignal.TRIP


def after(*signals, gate=None, start=1000, apart=10, builds=()):
    """Return the gate after `signals`, each from the build of the same place in `builds`, the last one from then on."""
    gate = gate or CircuitBreaker(name=TESTNOD)
    for number, signal in enumerate(signals):
        build_id = builds[min(number, len(builds) - 1)] if builds else None
        gate = apply_signal(gate, signal, f"reason {number}", start + number * apart, DELAY, build_id=build_id)
    return gate


def odd(*builds, apart=FAILING_FOR_US, gate=None):
    """Return the gate after an odd answer to each of `builds`, `apart` from each other."""
    return after(*[ODD] * len(builds), builds=builds, apart=apart, gate=gate)


def test_one_lost_answer_is_no_outage():
    assert after(*[BAD] * (OPENS_AFTER - 1)).failing_since is None


def test_enough_failures_in_a_row_close_a_gate_and_set_its_probe():
    gate = after(*[BAD] * OPENS_AFTER, apart=FAILING_FOR_US)

    assert gate.failing_since == 1000 + (OPENS_AFTER - 1) * FAILING_FOR_US
    assert gate.probe_at == gate.failing_since + DELAY
    assert gate.reason == f"reason {OPENS_AFTER - 1}"


def test_many_failures_in_one_moment_are_no_outage_yet():
    assert after(*[BAD] * 100, apart=FAILING_FOR_US // 100).failing_since is None


def test_a_good_answer_between_failures_begins_the_count_again():
    assert after(BAD, BAD, GOOD, BAD, BAD, apart=FAILING_FOR_US).failing_since is None


def test_odd_answers_to_one_build_are_no_outage_however_many_and_however_long():
    gate = odd(*[7] * 1000)

    assert (gate.failing_since, gate.failures, gate.builds) == (None, 1000, (7,))


def test_odd_answers_to_several_builds_close_a_gate_once_they_have_lasted():
    assert odd(7, 8, 7).failing_since == 1000 + 2 * FAILING_FOR_US
    assert odd(7, 8, apart=FAILING_FOR_US).failing_since is None  # too few
    assert (
        odd(7, 8, 7, 8, apart=FAILING_FOR_US // 4).failing_since is None
    )  # too soon: sound builds may be on their way


def test_a_success_between_odd_answers_begins_the_evidence_again():
    doubted = odd(7, 8)
    good = apply_signal(doubted, GOOD, "", 1000 + 3 * FAILING_FOR_US, DELAY)

    assert (good.doubted_since, good.builds) == (None, ())
    assert odd(7, 8, gate=good).failing_since is None


def test_a_gate_remembers_the_builds_that_failed_last():
    gate = odd(*range(1, 100), 50, apart=1)

    assert gate.builds == (*range(100 - MAX_REMEMBERED_BUILDS + 1, 100), 50)


def test_a_closed_gate_is_probed_again_after_a_part_of_its_outage():
    gate = CircuitBreaker(name=TESTNOD, failing_since=0)
    times = {
        at: probe_delay_us(gate, at * SECOND, first_us=SECOND, max_us=600 * SECOND) / SECOND for at in (1, 60, 9000)
    }

    assert times == {1: 1, 60: 20, 9000: 600}


def test_a_build_that_did_not_fail_at_a_closed_gate_may_probe_it_early():
    gate = replace(odd(7, 8, 7), failing_since=0, probe_at=10_000 * SECOND)

    assert early_probe_at(gate, first_us=SECOND) == SECOND
    for probed_at, wait in ((60 * SECOND, 3 * SECOND), (9000 * SECOND, MAX_EARLY_PROBE_US)):
        probed = replace(gate, probed_at=probed_at)
        assert early_probe_at(probed, first_us=SECOND) == probed_at + wait
    assert early_probe_at(replace(gate, probe_at=5), first_us=SECOND) == 5


def test_credentials_that_were_refused_are_never_tried_early():
    gate = after(ODD, SHUT, builds=[7])

    assert (gate.builds, early_probe_at(gate, first_us=1)) == ((), gate.probe_at)


def test_the_health_of_a_route_holds_its_outages_and_the_last_report_that_storage_took():
    gates = CircuitBreakers.of([after(GOOD, SHUT, gate=CircuitBreaker(name=storage_breaker("shop")))])

    assert gates.health("shop", 1300) == RouteHealth(total_outage_us=290, is_away=True, stored_at=1000)
    assert gates.health("other", 1300) == RouteHealth(total_outage_us=0)


def test_an_upstream_that_says_so_itself_closes_its_gate_at_once():
    assert after(SHUT).failing_since == 1000


def test_more_failures_keep_a_gate_closed_since_when_it_closed_and_leave_its_probe_to_the_prober():
    gate = after(SHUT, BAD, SHUT)

    assert (gate.failing_since, gate.probe_at, gate.failures, gate.reason) == (1000, 1050, 3, "reason 2")


def test_one_good_answer_opens_a_gate_and_forgets_all_but_how_long_it_was_away():
    assert after(SHUT, BAD, GOOD, builds=[7]) == CircuitBreaker(name=TESTNOD, total_outage_us=20, succeeded_at=1020)


def test_time_away_adds_up_over_outages_and_runs_on_while_one_lasts():
    gate = after(SHUT, GOOD, SHUT)

    assert gate.away_until(1020) == 10
    assert gate.away_until(1025) == 15
    assert gate.away_until(900) == 10  # a clock that went back takes nothing away


@given(st.lists(st.tuples(st.sampled_from(HealthSignal), st.integers(0, 1000)), max_size=30))
def test_time_away_never_shrinks_and_never_exceeds_the_time_that_passed(story):
    gate, now, away = CircuitBreaker(name=TESTNOD), 0, 0
    for signal, passed in story:
        now += passed
        gate = apply_signal(gate, signal, "", now, DELAY)
        assert away <= gate.away_until(now) <= now
        assert (gate.failing_since is None) == (gate.probe_at is None)
        away = gate.away_until(now)


def test_only_closed_gates_that_are_not_this_visits_to_try_hold_calls_back():
    closed, doubted = after(SHUT, gate=CircuitBreaker(name="a")), after(BAD, gate=CircuitBreaker(name="b"))
    gates = CircuitBreakers.of([closed, doubted])

    assert gates.closed("a") is closed
    assert gates.closed("b") is None
    assert gates.closed("never heard of") is None
    assert CircuitBreakers(known=gates.known, probing=frozenset({"a"})).closed("a") is None


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (TESTNOD, True),
        (route_breaker("shop"), True),
        (storage_breaker("shop"), True),
        (route_breaker("other"), False),
        (storage_breaker("other"), False),
        (CODEARTS, False),
    ],
)
def test_the_clocks_of_a_route_stand_still_while_what_it_needs_is_away(name, counts):
    gates = CircuitBreakers.of([after(SHUT, gate=CircuitBreaker(name=name))])

    assert gates.total_outage_us("shop", 1300) == (300 if counts else 0)
    assert gates.is_away("shop") is counts
    assert not CircuitBreakers.of([after(SHUT, GOOD, gate=CircuitBreaker(name=name))]).is_away("shop")
