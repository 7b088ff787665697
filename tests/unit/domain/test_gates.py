import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.gates import (
    CLOSES_AFTER,
    CODEARTS,
    TESTNOD,
    Gate,
    Gates,
    Signal,
    route_gate,
    signalled,
    storage_gate,
)

DELAY = 50
GOOD, BAD, SHUT = Signal.GOOD, Signal.BAD, Signal.SHUT


def after(*signals, gate=None, start=1000, apart=10):
    gate = gate or Gate(name=TESTNOD)
    for number, signal in enumerate(signals):
        gate = signalled(gate, signal, f"reason {number}", start + number * apart, DELAY)
    return gate


def test_one_lost_answer_is_no_outage():
    assert after(*[BAD] * (CLOSES_AFTER - 1)).failing_since is None


def test_enough_failures_in_a_row_close_a_gate_and_set_its_probe():
    gate = after(*[BAD] * CLOSES_AFTER)

    assert gate.failing_since == 1000 + (CLOSES_AFTER - 1) * 10
    assert gate.probe_at == gate.failing_since + DELAY
    assert gate.reason == f"reason {CLOSES_AFTER - 1}"


def test_a_good_answer_between_failures_begins_the_count_anew():
    assert after(BAD, BAD, GOOD, BAD, BAD).failing_since is None


def test_an_upstream_that_says_so_itself_closes_its_gate_at_once():
    assert after(SHUT).failing_since == 1000


def test_more_failures_keep_a_gate_closed_since_when_it_closed_and_leave_its_probe_to_the_prober():
    gate = after(SHUT, BAD, SHUT)

    assert (gate.failing_since, gate.probe_at, gate.failures, gate.reason) == (1000, 1050, 3, "reason 2")


def test_one_good_answer_opens_a_gate_and_forgets_all_but_how_long_it_was_away():
    assert after(SHUT, BAD, GOOD) == Gate(name=TESTNOD, away_us=20)


def test_time_away_adds_up_over_outages_and_runs_on_while_one_lasts():
    gate = after(SHUT, GOOD, SHUT)

    assert gate.away_until(1020) == 10
    assert gate.away_until(1025) == 15
    assert gate.away_until(900) == 10  # a clock that went back takes nothing away


@given(st.lists(st.tuples(st.sampled_from(Signal), st.integers(0, 1000)), max_size=30))
def test_time_away_never_shrinks_and_never_exceeds_the_time_that_passed(story):
    gate, now, away = Gate(name=TESTNOD), 0, 0
    for signal, passed in story:
        now += passed
        gate = signalled(gate, signal, "", now, DELAY)
        assert away <= gate.away_until(now) <= now
        assert (gate.failing_since is None) == (gate.probe_at is None)
        away = gate.away_until(now)


def test_only_closed_gates_that_are_not_this_visits_to_try_hold_calls_back():
    closed, doubted = after(SHUT, gate=Gate(name="a")), after(BAD, gate=Gate(name="b"))
    gates = Gates.of([closed, doubted])

    assert gates.closed("a") is closed
    assert gates.closed("b") is None
    assert gates.closed("never heard of") is None
    assert Gates(known=gates.known, probing=frozenset({"a"})).closed("a") is None


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (TESTNOD, True),
        (route_gate("shop"), True),
        (storage_gate("shop"), True),
        (route_gate("other"), False),
        (storage_gate("other"), False),
        (CODEARTS, False),
    ],
)
def test_the_clocks_of_a_route_stand_still_while_what_it_needs_is_away(name, counts):
    gates = Gates.of([after(SHUT, gate=Gate(name=name))])

    assert gates.away_us("shop", 1300) == (300 if counts else 0)
    assert gates.is_away("shop") is counts
    assert not Gates.of([after(SHUT, GOOD, gate=Gate(name=name))]).is_away("shop")
