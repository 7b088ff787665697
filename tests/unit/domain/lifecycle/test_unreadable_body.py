"""What a spool that does not return a report's bytes changes: never a death by one look, nor by TestNod's clock."""

from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryState, DeliveryTarget, RegistrationState
from bridge.domain.changes import apply
from bridge.domain.circuit_breaker import CircuitBreakers, storage_breaker
from bridge.domain.lifecycle.archive import after_archive
from bridge.domain.lifecycle.breaker_signals import of_archive, of_storage
from bridge.domain.lifecycle.mirror import after_upload, of_mirror
from bridge.domain.lifecycle.time_transitions import URL_EXPIRED
from bridge.domain.lifecycle.unreadable_body import (
    DAMAGE_TIMEOUT,
    FAILURE_MESSAGE,
    MAX_READ_GAP,
    clear_unread,
    retry_unread,
    tolerate_recent_damage,
)
from bridge.domain.lifecycle.upload import after_put
from bridge.domain.outcomes import CorruptBody, NotSent, OutcomeUnknown, SpoolUnreadable, Stored
from bridge.domain.plan import plan
from bridge.domain.steps import Apply, Probe
from bridge.domain.why import delivery_wait
from tests.support.builders import (
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    ROUTE,
    a_build,
    delivered,
    finalized,
    opened,
    pending,
    registered,
)

SAW = "The blob 1 is not in the spool. Check that its disk is mounted."
DENIED = "The spool (s3://b/p) cannot be read: 403 AccessDenied. Check the key's right to GetObject."
DAMAGED, UNREADABLE = CorruptBody(message=SAW), SpoolUnreadable(message=DENIED)
AWAY = 3


def looked(delivery, outcome, now):
    """Return the delivery after one look at the spool; dead if the look was the last one."""
    verdict = tolerate_recent_damage(delivery, outcome, now)
    if isinstance(verdict, CorruptBody):
        return replace(delivery, state=DeliveryState.DEAD, last_error=verdict.message)
    return apply(a_build(delivery), (retry_unread(delivery, verdict, now, POLICY),)).deliveries[delivery.id]


def looked_often(outcome, *, every, lasts, delivery=None):
    delivery, now = delivery or pending(), NOW
    while now <= NOW + lasts and delivery.state is DeliveryState.PENDING:
        delivery = looked(delivery, outcome, now)
        now += every
    return delivery


def test_damage_is_the_end_only_after_hours_of_the_same():
    assert looked_often(DAMAGED, every=10 * MINUTE, lasts=DAMAGE_TIMEOUT - 1).state is DeliveryState.PENDING
    dead = looked_often(DAMAGED, every=10 * MINUTE, lasts=DAMAGE_TIMEOUT)
    assert dead.state is DeliveryState.DEAD
    assert dead.last_error == f"Given up after 12 hours of the same: {SAW}"


def test_a_spool_that_cannot_be_asked_is_never_the_end():
    delivery = looked_often(UNREADABLE, every=10 * MINUTE, lasts=20 * DAMAGE_TIMEOUT)
    assert (delivery.state, delivery.unread, delivery.unread_since) == (DeliveryState.PENDING, DENIED, NOW)


@pytest.mark.parametrize("between", [UNREADABLE, CorruptBody(message="Other bytes came. Check the disk.")])
def test_another_answer_begins_the_time_again(between):
    almost = looked_often(DAMAGED, every=10 * MINUTE, lasts=DAMAGE_TIMEOUT - 1)
    again = looked(almost, between, NOW + DAMAGE_TIMEOUT)
    last = looked(again, DAMAGED, NOW + DAMAGE_TIMEOUT + 1)
    assert (last.state, last.unread_since) == (DeliveryState.PENDING, NOW + DAMAGE_TIMEOUT + 1)


def test_bytes_that_came_begin_the_time_again():
    almost = looked_often(DAMAGED, every=10 * MINUTE, lasts=DAMAGE_TIMEOUT - 1)
    read = apply(a_build(almost), clear_unread(almost)).deliveries[1]
    assert (read.unread, read.unread_since, read.unread_at) == (None, None, None)
    assert looked(read, DAMAGED, NOW + DAMAGE_TIMEOUT).state is DeliveryState.PENDING
    assert clear_unread(read) == ()


@pytest.mark.parametrize("jump", [DAMAGE_TIMEOUT, 40 * 24 * HOUR, -40 * 24 * HOUR])
def test_time_between_two_reads_shows_nothing(jump):
    """A gateway that was stopped, or a clock that was wrong."""
    first = looked(pending(), DAMAGED, NOW)
    second = looked(first, DAMAGED, NOW + jump)
    assert second.state is DeliveryState.PENDING
    assert 0 <= NOW + jump - second.unread_since <= MAX_READ_GAP


def test_bytes_that_no_row_refers_to_are_gone_at_once():
    gone = CorruptBody(message="The bytes are gone.", gone=True)
    assert tolerate_recent_damage(pending(), gone, NOW) == gone


@pytest.mark.parametrize("outcome", [Stored(), NotSent(message=""), OutcomeUnknown(message=""), UNREADABLE])
def test_other_outcomes_are_left_alone(outcome):
    assert tolerate_recent_damage(pending(), outcome, NOW) == outcome


def test_a_put_without_bytes_is_made_again_later_and_later_and_stored_nothing():
    delivery, registration = (
        pending(first_failure_at=NOW - HOUR, outage_us_at_first_failure=AWAY),
        registered(attempts=1),
    )
    build = apply(
        a_build(delivery, registration),
        after_put(a_build(delivery, registration), registration, UNREADABLE, NOW, POLICY, AWAY),
    )
    after, put = build.deliveries[1], build.registrations[1]
    assert (put.state, put.attempts, put.put_outcome_unknown, put.failure) == (
        RegistrationState.REGISTERED,
        2,
        False,
        FAILURE_MESSAGE,
    )
    assert put.due_at > NOW
    assert (after.state, after.last_error, after.unread) == (DeliveryState.PENDING, DENIED, DENIED)
    assert after.first_failure_at is None  # TestNod's clock: it has done nothing wrong
    assert "s3://" not in put.failure  # TestNod is sent this


def test_no_upstream_is_blamed():
    assert of_storage(UNREADABLE, "shop") == of_archive(UNREADABLE) == of_mirror(UNREADABLE) == ()


def test_a_copy_for_the_archive_waits_too():
    copy = replace(pending(11, target=DeliveryTarget.ARCHIVE, first_failure_at=NOW - HOUR), report_id=1)
    build = finalized(delivered(), copy)
    after = apply(build, after_archive(copy, UNREADABLE, NOW, POLICY, AWAY)).deliveries[11]
    assert (after.state, after.attempts, after.first_failure_at) == (DeliveryState.PENDING, 1, None)
    assert (after.last_error, after.unread_since) == (DENIED, NOW)


def test_an_upload_to_the_mirror_waits_alone_and_the_others_of_its_request_go():
    one, two = (pending(number, target=DeliveryTarget.CODEARTS) for number in (11, 12))
    shared = apply(a_build(one, two), after_upload([one, two], UNREADABLE, NOW, POLICY, AWAY)).deliveries
    assert [(each.send_alone, each.due_at, each.attempts) for each in shared.values()] == [(True, NOW, 0)] * 2
    alone = apply(a_build(one), after_upload([one], UNREADABLE, NOW, POLICY, AWAY)).deliveries[11]
    assert (alone.state, alone.attempts, alone.unread, alone.first_failure_at) == (
        DeliveryState.PENDING,
        1,
        DENIED,
        None,
    )


@pytest.mark.parametrize("target", [DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE])
def test_the_give_up_clock_stands_still_while_a_report_cannot_be_read(target):
    long_ago = NOW - POLICY.give_up_after - HOUR
    waiting = {"unread": DENIED, "unread_since": NOW - HOUR, "unread_at": NOW, "due_at": NOW + MINUTE}
    delivery = pending(target=target, first_failure_at=long_ago, **waiting)
    others = (delivered(2),) if target is DeliveryTarget.TESTNOD else (replace(delivered(2), report_id=1),)
    build = a_build(delivery, *others)
    assert not isinstance(plan(build, NOW, replace(POLICY, has_archive=True), CircuitBreakers()), Apply)
    given_up = a_build(replace(delivery, unread_since=None), *others)
    assert isinstance(plan(given_up, NOW, replace(POLICY, has_archive=True), CircuitBreakers()), Apply)


def test_a_url_that_ran_out_meanwhile_hides_no_reason():
    delivery = pending(unread=DENIED, unread_since=NOW - HOUR, unread_at=NOW)
    step = plan(a_build(delivery, registered(expires_at=NOW)), NOW, POLICY, CircuitBreakers())
    assert step.event == "url_expired"
    after = apply(a_build(delivery, registered(expires_at=NOW)), step.changes)
    assert after.deliveries[1].last_error == DENIED
    assert after.registrations[1].failure == URL_EXPIRED


def test_it_says_that_the_bridges_own_spool_is_at_fault_and_since_when():
    delivery = pending(unread=DENIED, unread_since=NOW - HOUR, unread_at=NOW, last_error=DENIED, due_at=NOW + MINUTE)
    wait = delivery_wait(a_build(delivery), CircuitBreakers(), NOW)
    assert wait.cause.startswith(
        "the bridge's own spool has not returned the bytes of a report for 1 hour (The spool (s3:"
    )
    assert "TestNod" not in wait.cause


@pytest.mark.parametrize("registrations", [(), (registered(),)], ids=["to be registered", "to be put"])
def test_a_report_that_could_not_be_read_still_probes_an_open_breaker(registrations):
    """It may be the only one, and readable by now: without a probe the breaker would stay open."""
    away = CircuitBreakers.of([opened(storage_breaker(ROUTE), probe_at=NOW)])
    unreadable = pending(unread=DENIED, unread_since=NOW - HOUR, unread_at=NOW)
    assert plan(a_build(unreadable, *registrations), NOW, POLICY, away) == Probe(storage_breaker(ROUTE))
