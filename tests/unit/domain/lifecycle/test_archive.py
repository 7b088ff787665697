from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.changes import apply
from bridge.domain.circuit_breaker import ARCHIVE, TESTNOD, HealthSignal
from bridge.domain.clock_trust import ClockState, Verdict
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.archive import after_archive, defer_copy
from bridge.domain.lifecycle.breaker_signals import of_archive
from bridge.domain.outcomes import CorruptBody, NotSent, OutcomeUnknown, PutRejected, Stored
from bridge.domain.plan import plan
from bridge.domain.steps import Apply, CopyToArchive, Execute, Finalize, Probe, Register, Wait
from tests.support.builders import (
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    a_build,
    breakers,
    dead,
    delivered,
    ended,
    finalized,
    opened,
    pending,
    stored,
)

COPY = replace(pending(11, target=DeliveryTarget.ARCHIVE), report_id=1)
REFUSED = PutRejected(status=403, code="AccessDenied", message="no")
FAILURES = [REFUSED, NotSent(message="no server there"), OutcomeUnknown(message="it hung", retry_after_seconds=60)]


def after(outcome, delivery=COPY):
    build = finalized(delivered(), delivery)
    return apply(build, after_archive(delivery, outcome, NOW, POLICY, 5)).deliveries[11]


def test_a_copy_that_is_kept_is_delivered():
    assert (after(Stored()).state, after(Stored()).delivered_at) == (DeliveryState.DELIVERED, NOW)


def test_damaged_bytes_are_the_end():
    assert (after(CorruptBody(message="cut")).state, after(CorruptBody(message="cut")).last_error) == (
        DeliveryState.DEAD,
        "cut",
    )


@pytest.mark.parametrize("outcome", FAILURES)
def test_whatever_else_fails_is_tried_again_later_and_later(outcome):
    first = after(outcome)
    assert (first.state, first.attempts, first.first_failure_at, first.outage_us_at_first_failure) == (
        DeliveryState.PENDING,
        1,
        NOW,
        5,
    )
    assert first.due_at > NOW
    later = after(outcome, replace(first, attempts=8, first_failure_at=NOW - 100))
    assert later.first_failure_at == NOW - 100
    assert later.due_at > first.due_at or outcome is FAILURES[2]


def test_a_retry_after_is_honoured():
    assert after(FAILURES[2]).due_at == NOW + 60_000_000


def test_a_copy_that_found_no_place_was_not_tried():
    changed = apply(finalized(delivered(), COPY), defer_copy(COPY, NOW + 7)).deliveries[11]
    assert changed == replace(COPY, due_at=NOW + 7)


@pytest.mark.parametrize("outcome", FAILURES)
def test_failures_say_that_the_archive_is_away(outcome):
    [(breaker, signal, reason)] = of_archive(outcome)
    assert breaker == ARCHIVE
    assert signal is (HealthSignal.UNEXPECTED if isinstance(outcome, PutRejected) else HealthSignal.FAILURE)
    assert reason


def test_a_damaged_report_says_nothing_of_the_archive():
    assert of_archive(CorruptBody(message="cut")) == ()
    assert of_archive(Stored()) == ((ARCHIVE, HealthSignal.SUCCESS, ""),)


COPY_ID = 11
OPEN = breakers()


def copy(delivery_id=COPY_ID, report_id=1, **values):
    """Return a delivery to the archive that is owed."""
    return replace(pending(delivery_id, target=DeliveryTarget.ARCHIVE, **values), report_id=report_id)


def test_a_report_that_testnod_has_is_copied():
    build = finalized(delivered(), copy())
    assert plan(build, NOW, POLICY, OPEN) == Execute((CopyToArchive(COPY_ID),))


@pytest.mark.parametrize("at_testnod", [pending(due_at=NOW + HOUR), dead()], ids=["pending", "dead"])
def test_a_report_that_testnod_has_not_is_not_copied(at_testnod):
    build = a_build(at_testnod, copy())
    assert isinstance(plan(build, NOW, POLICY, OPEN), Wait)


def test_what_testnod_is_owed_comes_first():
    build = a_build(delivered(), copy(), pending(2))
    assert plan(build, NOW, POLICY, OPEN) == Execute((Register(2),))


def test_the_finalize_comes_first():
    build = ended(delivered(), copy(), stored(), ended_at=NOW - HOUR)
    assert plan(build, NOW, POLICY, OPEN) == Execute((Finalize(confirm=False),))


def test_a_copy_that_is_owed_keeps_no_run_from_being_finalized():
    build = ended(delivered(), copy(due_at=NOW + HOUR), stored(), ended_at=NOW - HOUR)
    assert plan(build, NOW, POLICY, breakers(opened(ARCHIVE))) == Execute((Finalize(confirm=False),))


def test_as_many_go_side_by_side_as_a_build_may_have():
    deliveries = [each for number in range(1, 10) for each in (delivered(number), copy(number + 20, number))]
    build = finalized(*deliveries)
    assert plan(build, NOW, POLICY, OPEN) == Execute(tuple(CopyToArchive(number + 20) for number in range(1, 5)))


def test_a_copy_that_failed_waits_for_its_turn():
    build = finalized(delivered(), copy(due_at=NOW + SECOND))
    assert plan(build, NOW, POLICY, OPEN) == Wait(until=NOW + SECOND)


def test_while_the_archive_is_away_copies_wait_for_it_and_one_of_them_probes():
    build = finalized(delivered(), copy())
    away = opened(ARCHIVE, probe_at=NOW + MINUTE)
    assert plan(build, NOW, POLICY, breakers(away)) == Wait(until=NOW + POLICY.retry_max_delay, waiting_on=ARCHIVE)
    assert plan(build, NOW + MINUTE, POLICY, breakers(away)) == Probe(ARCHIVE)
    probing = replace(breakers(away), probing=frozenset({ARCHIVE}))
    assert plan(build, NOW + MINUTE, POLICY, probing) == Execute((CopyToArchive(COPY_ID),))


def test_an_archive_that_is_away_holds_no_report_back():
    build = a_build(delivered(), copy(), pending(2))
    assert plan(build, NOW, POLICY, breakers(opened(ARCHIVE))) == Execute((Register(2),))


def test_a_build_that_waits_for_testnod_still_waits_for_testnod():
    build = a_build(delivered(), copy(), pending(2))
    step = plan(build, NOW, POLICY, breakers(opened(ARCHIVE, probe_at=NOW + HOUR), opened(TESTNOD)))
    assert step.waiting_on == TESTNOD


def test_a_copy_is_given_up_after_trying_as_long_as_a_report_and_the_report_is_not():
    trying = copy(first_failure_at=NOW - POLICY.give_up_after, due_at=NOW + HOUR, last_error="AccessDenied")
    build = finalized(delivered(), trying)
    step = plan(build, NOW, POLICY, OPEN)
    assert isinstance(step, Apply)
    after = apply(build, step.changes)
    assert after.deliveries[COPY_ID].state is DeliveryState.DEAD
    assert "AccessDenied" in after.deliveries[COPY_ID].last_error
    assert after.deliveries[1].state is DeliveryState.DELIVERED


def test_time_in_which_the_archive_is_away_is_no_trying():
    trying = copy(first_failure_at=NOW - POLICY.give_up_after)
    build = finalized(delivered(), trying)
    away = opened(ARCHIVE, opened_at=NOW - HOUR, probe_at=NOW + MINUTE)
    assert isinstance(plan(build, NOW, POLICY, breakers(away)), Wait)


WITHOUT = replace(POLICY, has_archive=False)
DOUBTED = Verdict(state=ClockState.SUSPECT)


def blocked(build, now=NOW):
    """Return the build as a gateway without an archive has marked it."""
    step = plan(build, now, WITHOUT, OPEN)
    assert step.event == "delivery_blocked"
    return apply(build, step.changes)


def test_a_replica_without_an_archive_leaves_copies_to_those_that_have_one():
    build = blocked(finalized(delivered(), copy(pending_since=NOW)))
    assert plan(build, NOW, WITHOUT, OPEN) == Wait(until=NOW + POLICY.retry_max_delay)
    step = plan(build, NOW, POLICY, OPEN)
    assert step.event == "delivery_unblocked"
    assert isinstance(plan(apply(build, step.changes), NOW, POLICY, OPEN), Execute)


def test_a_copy_that_no_replica_took_for_as_long_as_a_report_is_tried_is_dead_and_says_so():
    build = blocked(finalized(delivered(), copy(pending_since=NOW - 2 * POLICY.give_up_after)))
    over = NOW + POLICY.give_up_after
    assert isinstance(plan(build, over - 1, WITHOUT, OPEN), Wait)
    step = plan(build, over, WITHOUT, OPEN)
    assert "store.archive is empty" in apply(build, step.changes).deliveries[COPY_ID].last_error
    assert not isinstance(plan(build, over, WITHOUT, replace(OPEN, clock=DOUBTED)), Apply)
