from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.changes import apply
from bridge.domain.circuit_breaker import ARCHIVE, HealthSignal
from bridge.domain.lifecycle.archive import after_archive, defer_copy
from bridge.domain.lifecycle.breaker_signals import of_archive
from bridge.domain.outcomes import CorruptBody, NotSent, OutcomeUnknown, PutRejected, Stored
from tests.unit.domain.builders import NOW, POLICY, delivered, finalized, pending

COPY = replace(pending(11, target=DeliveryTarget.ARCHIVE), report_id=1)
REFUSED = PutRejected(status=403, code="AccessDenied", message="no")
FAILURES = [REFUSED, NotSent(message="nobody there"), OutcomeUnknown(message="it hung", retry_after_seconds=60)]


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
