from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.circuit_breaker import (
    CODEARTS,
    FAILING_FOR_US,
    MAX_EARLY_PROBE_US,
    MAX_REMEMBERED_BUILDS,
    ONE_OUTAGE_US,
    OPENS_AFTER,
    TESTNOD,
    CircuitBreaker,
    CircuitBreakers,
    HealthSignal,
    RouteHealth,
    apply_signal,
    early_probe_at,
    outage_since,
    probe_delay_us,
    route_breaker,
    storage_breaker,
)

DELAY = 50
SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 24 * 3600 * SECOND
EVER = 1000 * DAY
SUCCESS, FAILURE, UNEXPECTED, TRIP = HealthSignal


def after(*signals, breaker=None, start=1000, apart=10, builds=()):
    """Return the breaker after `signals`, each from the build at its position in `builds`."""
    breaker = breaker or CircuitBreaker(name=TESTNOD)
    for number, signal in enumerate(signals):
        build_id = builds[min(number, len(builds) - 1)] if builds else None
        breaker = apply_signal(breaker, signal, f"reason {number}", start + number * apart, DELAY, build_id=build_id)
    return breaker


def odd(*builds, apart=FAILING_FOR_US, breaker=None):
    """Return the breaker after an unexpected answer to each of `builds`, `apart` from each other."""
    return after(*[UNEXPECTED] * len(builds), builds=builds, apart=apart, breaker=breaker)


def test_one_lost_answer_is_no_outage():
    assert after(*[FAILURE] * (OPENS_AFTER - 1)).opened_at is None


def test_enough_failures_in_a_row_open_a_breaker_and_set_its_probe():
    breaker = after(*[FAILURE] * OPENS_AFTER, apart=FAILING_FOR_US)

    assert breaker.opened_at == 1000 + (OPENS_AFTER - 1) * FAILING_FOR_US
    assert breaker.probe_at == breaker.opened_at + DELAY
    assert breaker.reason == f"reason {OPENS_AFTER - 1}"


def test_many_failures_in_one_moment_are_no_outage_yet():
    assert after(*[FAILURE] * 100, apart=FAILING_FOR_US // 100).opened_at is None


def test_a_good_answer_between_failures_begins_the_count_again():
    assert after(FAILURE, FAILURE, SUCCESS, FAILURE, FAILURE, apart=FAILING_FOR_US).opened_at is None


def test_odd_answers_to_one_build_are_no_outage_however_many_and_however_long():
    breaker = odd(*[7] * 1000)

    assert (breaker.opened_at, breaker.failures, breaker.builds) == (None, 1000, (7,))


def test_unexpected_answers_to_several_builds_open_a_breaker_once_they_have_lasted():
    assert odd(7, 8, 7).opened_at == 1000 + 2 * FAILING_FOR_US
    assert odd(7, 8, apart=FAILING_FOR_US).opened_at is None  # too few
    assert odd(7, 8, 7, 8, apart=FAILING_FOR_US // 4).opened_at is None  # too soon: sound builds may be on their way


def test_a_success_between_odd_answers_begins_the_evidence_again():
    doubted = odd(7, 8)
    good = apply_signal(doubted, SUCCESS, "", 1000 + 3 * FAILING_FOR_US, DELAY)

    assert (good.first_failure_at, good.builds) == (None, ())
    assert odd(7, 8, breaker=good).opened_at is None


def test_a_breaker_remembers_the_builds_that_failed_last():
    breaker = odd(*range(1, 100), 50, apart=1)

    assert breaker.builds == (*range(100 - MAX_REMEMBERED_BUILDS + 1, 100), 50)


def test_an_open_breaker_is_probed_again_after_a_part_of_its_outage():
    breaker = CircuitBreaker(name=TESTNOD, opened_at=0)
    times = {
        at: probe_delay_us(breaker, at * SECOND, first_us=SECOND, max_us=600 * SECOND) / SECOND for at in (1, 60, 9000)
    }

    assert times == {1: 1, 60: 20, 9000: 600}


def test_a_build_that_did_not_fail_at_an_open_breaker_may_probe_it_early():
    breaker = replace(odd(7, 8, 7), opened_at=0, probe_at=10_000 * SECOND)

    assert early_probe_at(breaker, first_us=SECOND) == SECOND
    for probed_at, wait in ((60 * SECOND, 3 * SECOND), (9000 * SECOND, MAX_EARLY_PROBE_US)):
        probed = replace(breaker, probed_at=probed_at)
        assert early_probe_at(probed, first_us=SECOND) == probed_at + wait
    assert early_probe_at(replace(breaker, probe_at=5), first_us=SECOND) == 5


def test_credentials_that_were_refused_are_never_tried_early():
    breaker = after(UNEXPECTED, TRIP, builds=[7])

    assert (breaker.builds, early_probe_at(breaker, first_us=1)) == ((), breaker.probe_at)


def test_the_health_of_a_route_holds_its_outages_and_the_last_report_that_storage_took():
    breakers = CircuitBreakers.of([after(SUCCESS, TRIP, breaker=CircuitBreaker(name=storage_breaker("shop")))])

    assert breakers.health("shop", 1300) == RouteHealth(total_outage_us=290, in_outage=True, stored_at=1000)
    assert breakers.health("other", 1300) == RouteHealth(total_outage_us=0)


def test_a_trip_opens_a_breaker_at_once():
    assert after(TRIP).opened_at == 1000


def test_more_failures_change_neither_when_a_breaker_opened_nor_when_it_is_probed():
    breaker = after(TRIP, FAILURE, TRIP)

    assert (breaker.opened_at, breaker.probe_at, breaker.failures, breaker.reason) == (1000, 1050, 3, "reason 2")


def test_one_success_closes_a_breaker_and_resets_all_but_its_total_outage():
    assert after(TRIP, FAILURE, SUCCESS, builds=[7]) == CircuitBreaker(
        name=TESTNOD, outage_began_at=1000, outage_ended_at=1020, succeeded_at=1020
    )


def test_time_away_adds_up_over_outages_and_runs_on_while_one_lasts():
    breaker = after(TRIP, SUCCESS, TRIP)

    assert breaker.outage_us(1020) == 10
    assert breaker.outage_us(1025) == 15
    assert breaker.outage_us(900) == 10  # a clock that went back takes nothing away


def test_outages_soon_after_each_other_are_one_and_others_are_added_up():
    breaker = after(TRIP, SUCCESS)

    soon = after(TRIP, SUCCESS, breaker=breaker, start=1010 + ONE_OUTAGE_US)
    assert (soon.total_outage_us, soon.outage_us(EVER)) == (0, 20)
    late = after(TRIP, SUCCESS, breaker=soon, start=soon.outage_ended_at + ONE_OUTAGE_US + 1)
    assert (late.total_outage_us, late.outage_us(EVER)) == (20, 30)


@pytest.mark.parametrize("ahead", [15 * MINUTE, 40 * DAY])
@pytest.mark.parametrize("outages", [1, 2])
def test_an_outage_that_a_wrong_clock_has_ended_is_as_long_as_it_was_once_its_times_are_corrected(ahead, outages):
    breaker = after(TRIP, SUCCESS, start=0)
    breaker = after(TRIP, breaker=breaker, start=DAY)
    for number in range(outages):
        wrong = DAY + ahead + number * MINUTE
        breaker = after(SUCCESS, TRIP, breaker=breaker, start=wrong + 10)
    breaker = after(SUCCESS, breaker=breaker, start=wrong + 30)
    assert breaker.outage_us(wrong + 30) >= ahead

    times = {name: getattr(breaker, name) for name in ("outage_began_at", "outage_ended_at", "succeeded_at")}
    now = DAY + (outages - 1) * MINUTE + 40
    breaker = replace(breaker, **{name: at - ahead if at > now else at for name, at in times.items()})

    assert breaker.outage_us(now) == 10 + 10 + outages * 10 + (outages - 1) * (MINUTE - 10 - 10)


def test_an_outage_that_a_wrong_clock_has_begun_shortens_none_before():
    breaker = after(TRIP, SUCCESS, start=0)
    breaker = after(TRIP, breaker=breaker, start=DAY)

    closed = after(SUCCESS, breaker=breaker, start=HOUR)

    assert closed.outage_us(HOUR) == 10
    assert outage_since(closed.outage_us(HOUR), 30) == 0


def test_times_to_come_that_no_correction_moved_end_with_the_next_success():
    ended = CircuitBreaker(name=TESTNOD, outage_began_at=0, outage_ended_at=40 * DAY, succeeded_at=40 * DAY)
    assert after(SUCCESS, breaker=ended, start=MINUTE).outage_us(EVER) == MINUTE

    opened = CircuitBreaker(name=TESTNOD, opened_at=40 * DAY)
    again = after(TRIP, SUCCESS, breaker=after(SUCCESS, breaker=opened, start=MINUTE), start=2 * MINUTE)
    assert again.outage_us(EVER) == 10


@given(st.lists(st.tuples(st.sampled_from(HealthSignal), st.integers(0, 1000)), max_size=30))
def test_time_away_never_shrinks_and_never_exceeds_the_time_that_passed(story):
    breaker, now, away = CircuitBreaker(name=TESTNOD), 0, 0
    for signal, passed in story:
        now += passed
        breaker = apply_signal(breaker, signal, "", now, DELAY)
        assert away <= breaker.outage_us(now) <= now
        assert (breaker.opened_at is None) == (breaker.probe_at is None)
        away = breaker.outage_us(now)


def test_an_open_breaker_blocks_calls_unless_this_reconciler_probes_it():
    tripped, doubted = after(TRIP, breaker=CircuitBreaker(name="a")), after(FAILURE, breaker=CircuitBreaker(name="b"))
    breakers = CircuitBreakers.of([tripped, doubted])

    assert breakers.open_breaker("a") is tripped
    assert breakers.open_breaker("b") is None
    assert breakers.open_breaker("never heard of") is None
    assert CircuitBreakers(known=breakers.known, probing=frozenset({"a"})).open_breaker("a") is None


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
    breakers = CircuitBreakers.of([after(TRIP, breaker=CircuitBreaker(name=name))])

    assert breakers.total_outage_us("shop", 1300) == (300 if counts else 0)
    assert breakers.in_outage("shop") is counts
    assert not CircuitBreakers.of([after(TRIP, SUCCESS, breaker=CircuitBreaker(name=name))]).in_outage("shop")


# -- gateways whose tokens differ ----------------------------------------------------------------------------------


def signaled(breaker, signal, token, at):
    return apply_signal(breaker, signal, "Project not found.", at, DELAY, token=token)


def test_a_rejected_token_opens_the_breaker_at_once_if_no_other_was_accepted():
    breaker = CircuitBreaker(name=route_breaker("shop"))
    assert signaled(breaker, TRIP, "x", 1000).is_open
    assert signaled(signaled(breaker, SUCCESS, "x", 1000), TRIP, "x", 1001).is_open
    assert signaled(signaled(breaker, SUCCESS, None, 1000), TRIP, None, 1001).is_open


@pytest.mark.parametrize("token", ["x", ""])
def test_a_rejected_token_opens_it_later_if_another_was_accepted_and_is_not_again(token):
    breaker = signaled(CircuitBreaker(name=route_breaker("shop")), SUCCESS, "y", 1000)
    rejected = signaled(breaker, TRIP, token, 2000)
    assert (rejected.is_open, rejected.rejected_token) == (False, token)
    assert not signaled(rejected, TRIP, token, 2000 + FAILING_FOR_US - 1).is_open
    assert signaled(rejected, TRIP, token, 2000 + FAILING_FOR_US).is_open
    accepted = signaled(rejected, SUCCESS, "y", 3000)
    assert (accepted.failures, accepted.rejected_token, accepted.accepted_token) == (0, None, "y")
    assert not signaled(accepted, TRIP, token, 2000 + FAILING_FOR_US).is_open
