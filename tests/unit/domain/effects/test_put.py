from dataclasses import replace

import pytest

from bridge.domain.build import SECOND, DeliveryState, PutRefusal, RegistrationState
from bridge.domain.changes import apply
from bridge.domain.effects.put import MAX_BAD_REQUESTS, MAX_EARLY_REFUSALS, after_put, after_upload_failed, stored
from bridge.domain.outcomes import Damaged, FailureNoted, NotSent, ProjectMissing, PutRefused, Rejected, Stored, Unknown
from tests.unit.domain.builders import (
    FENCE,
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    a_build,
    dead,
    delivered,
    failed,
    failed_owed,
    named,
    owed,
)

AWAY = 3
SAID = "what was said"
D, R = DeliveryState, RegistrationState


def refused(status, code="", **values):
    return PutRefused(status=status, code=code, message=SAID, **values)


def after(outcome, *others, life=None, delivery=None):
    build = a_build(delivery or owed(), life or named(), *others)
    return apply(build, after_put(build, build.registrations[1], outcome, NOW, POLICY, AWAY))


def after_failure(outcome, life=None, delivery=None, now=NOW):
    build = a_build(delivery or owed(), life or failed_owed())
    return apply(build, after_upload_failed(build, build.registrations[1], outcome, now, POLICY))


# -- stored ------------------------------------------------------------------------------------------------------


def test_a_stored_report_is_delivered_and_its_url_forgotten():
    build = after(Stored(), delivery=owed(1, last_error=SAID))
    life, delivery = build.registrations[1], build.deliveries[1]

    assert (life.state, life.stored_at, life.presigned_url) == (R.STORED, NOW, None)
    assert (delivery.state, delivery.delivered_at, delivery.last_error) == (D.DELIVERED, NOW, None)


@pytest.mark.parametrize("was", [owed(), dead()], ids=["owed", "dead"])
@pytest.mark.parametrize("is_by_now", [owed(), dead(), delivered()], ids=["owed", "dead", "delivered"])
def test_a_stored_registration_makes_its_delivery_delivered_whatever_became_of_it_meanwhile(was, is_by_now):
    read, ledger = a_build(was, failed_owed()), a_build(is_by_now, failed_owed())

    build = apply(ledger, stored(read, read.registrations[1], NOW))

    assert (build.registrations[1].state, build.deliveries[1].state) == (R.STORED, D.DELIVERED)


def test_a_second_stored_registration_leaves_a_delivered_report_as_it_is():
    build = after(Stored(), delivery=delivered())

    assert (build.registrations[1].state, build.deliveries[1]) == (R.STORED, delivered())


# -- again to the same URL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "uncertain"),
    [
        (refused(400, "RequestTimeout"), False),
        (refused(429), False),
        (refused(500, "InternalError"), True),
        (refused(503, "SlowDown"), True),
        (NotSent(message=SAID), False),
        (Unknown(message=SAID), True),
    ],
)
def test_a_put_that_came_to_nothing_is_made_again_to_the_same_url(outcome, uncertain):
    build = after(outcome)
    life, delivery = build.registrations[1], build.deliveries[1]

    assert (life.state, life.attempts, life.presigned_url) == (R.NAMED, 1, named().presigned_url)
    assert NOW + SECOND // 2 <= life.due_at <= NOW + SECOND
    assert life.put_uncertain is uncertain
    assert (delivery.state, delivery.attempts, delivery.trying_since, delivery.trying_away_us) == (D.OWED, 0, NOW, AWAY)
    assert SAID in delivery.last_error
    assert SAID in life.failure


def test_puts_in_a_row_are_backed_off_and_retry_after_is_honoured():
    fourth = after(Unknown(message=SAID), life=named(1, attempts=3)).registrations[1]
    asked_for = after(refused(503, retry_after_seconds=77)).registrations[1]

    assert NOW + 4 * SECOND <= fourth.due_at <= NOW + 8 * SECOND
    assert asked_for.due_at == NOW + 77 * SECOND


def test_a_put_that_may_have_got_through_stays_so_whatever_the_next_one_says():
    assert after(NotSent(message=SAID), life=named(1, put_uncertain=True)).registrations[1].put_uncertain


# -- the URL is spent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "left"),
    [(refused(403, "AccessDenied"), MINUTE - 1), (refused(400, "ExpiredToken"), 4 * MINUTE)],
    ids=["403 in the last minute", "400 ExpiredToken"],
)
@pytest.mark.parametrize("before", [0, 20])
def test_a_url_that_ran_out_is_reported_failed_and_registered_anew_without_limit(outcome, left, before):
    earlier = [failed(10 + number, put_refusal=PutRefusal.FORBIDDEN_EARLY) for number in range(before)]
    build = after(outcome, *earlier, life=named(1, expires_at=NOW + left))
    life, delivery = build.registrations[1], build.deliveries[1]

    assert (life.state, life.attempts, life.put_refusal) == (R.FAILED_OWED, 0, None)
    assert SAID in life.failure
    assert (delivery.state, delivery.attempts, delivery.trying_since) == (D.OWED, 1, NOW)


@pytest.mark.parametrize("outcome", [refused(403), refused(400, "ExpiredToken"), refused(400, "Nonsense")])
def test_the_next_registration_is_backed_off(outcome):
    delivery = after(outcome, delivery=owed(1, attempts=5)).deliveries[1]

    assert NOW + 16 * SECOND <= delivery.due_at <= NOW + 32 * SECOND


@pytest.mark.parametrize(
    ("life", "at"),
    [
        (named(), NOW),
        (named(1, put_uncertain=True), NOW + 4 * MINUTE + POLICY.max_put),
        (named(1, fence=FENCE - 1), NOW + 4 * MINUTE + POLICY.max_put),
    ],
    ids=["nothing can have got through", "an earlier PUT may have", "another visit's may have"],
)
def test_upload_failed_waits_until_no_put_can_arrive_any_more(life, at):
    assert after(refused(403), life=life).registrations[1].due_at == at


# -- refused -----------------------------------------------------------------------------------------------------

REFUSALS = [
    (refused(403, "AccessDenied"), PutRefusal.FORBIDDEN_EARLY, MAX_EARLY_REFUSALS, 5),
    (refused(400, "EntityTooSmall"), PutRefusal.BAD_REQUEST, MAX_BAD_REQUESTS, 3),
    (refused(400), PutRefusal.BAD_REQUEST, MAX_BAD_REQUESTS, 3),
]


@pytest.mark.parametrize(("outcome", "refusal", "limit", "designed"), REFUSALS)
def test_a_refusal_on_a_fresh_url_is_registered_anew_until_it_is_clear_that_it_is_no_use(
    outcome, refusal, limit, designed
):
    assert limit == designed
    for before in range(limit):
        earlier = [failed(10 + number, put_refusal=refusal) for number in range(before)]
        build = after(outcome, *earlier, life=named(1, expires_at=NOW + MINUTE))

        assert (build.registrations[1].state, build.registrations[1].put_refusal) == (R.FAILED_OWED, refusal)
        assert build.deliveries[1].state is (D.DEAD if before + 1 == limit else D.OWED)
        assert SAID in build.deliveries[1].last_error


@pytest.mark.parametrize(("outcome", "refusal", "limit", "_designed"), REFUSALS)
@pytest.mark.parametrize(
    "other",
    [
        {"put_refusal": None},
        {"asked_at": NOW - 2 * HOUR},
        {"delivery_id": 2},
    ],
    ids=["ended otherwise", "before it was sent again", "of another report"],
)
def test_only_the_same_refusals_of_this_delivery_count(outcome, refusal, limit, _designed, other):
    earlier = [failed(10 + number, **{"put_refusal": refusal, **other}) for number in range(limit)]

    assert after(outcome, *earlier, owed(2)).deliveries[1].state is D.OWED


def test_refusals_of_two_kinds_do_not_add_up():
    earlier = [failed(10 + number, put_refusal=PutRefusal.FORBIDDEN_EARLY) for number in range(4)]

    assert after(refused(400), *earlier).deliveries[1].state is D.OWED


@pytest.mark.parametrize("outcome", [refused(413, "EntityTooLarge"), Damaged(message=SAID)])
def test_a_report_that_storage_can_never_take_is_dead_and_reported_failed(outcome):
    build = after(outcome)

    assert (build.registrations[1].state, build.deliveries[1].state) == (R.FAILED_OWED, D.DEAD)
    assert SAID in build.deliveries[1].last_error
    assert SAID in build.registrations[1].failure


# -- upload_failed -----------------------------------------------------------------------------------------------


def test_a_failure_that_testnod_noted_ends_the_registration_and_its_url():
    build = after_failure(FailureNoted(status="failed"))

    assert (build.registrations[1].state, build.registrations[1].presigned_url) == (R.FAILED, None)
    assert build.deliveries[1] == owed()


@pytest.mark.parametrize("delivery", [owed(), dead()], ids=["owed", "dead"])
@pytest.mark.parametrize("status", ["processing", "processed", "uploaded"])
def test_any_other_status_means_that_the_report_was_stored_after_all(status, delivery):
    build = after_failure(FailureNoted(status=status), delivery=delivery)

    assert (build.registrations[1].state, build.deliveries[1].state) == (R.STORED, D.DELIVERED)


def test_a_missing_project_changes_nothing():
    build = a_build(owed(), failed_owed())

    assert after_upload_failed(build, build.registrations[1], ProjectMissing(message=""), NOW, POLICY) == ()


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_another_4xx_means_that_nobody_can_name_the_upload(status):
    build = after_failure(Rejected(status=status, message=SAID))

    assert (build.registrations[1].state, build.registrations[1].presigned_url) == (R.LOST, None)


AGAIN = [
    Rejected(status=408, message=SAID),
    Rejected(status=425, message=SAID),
    Rejected(status=429, message=SAID),
    NotSent(message=SAID),
    Unknown(message=SAID, status=500),
]


@pytest.mark.parametrize("outcome", AGAIN)
def test_an_upload_failed_that_came_to_nothing_is_called_again(outcome):
    build = after_failure(outcome)
    life = build.registrations[1]

    assert (life.state, life.attempts, life.failing_since) == (R.FAILED_OWED, 1, NOW)
    assert NOW + SECOND // 2 <= life.due_at <= NOW + SECOND
    assert (build.last_error, build.stuck) == (SAID, None)


@pytest.mark.parametrize("outcome", AGAIN)
def test_an_upload_failed_that_never_goes_through_is_called_for_ever_and_the_build_shown_as_stuck(outcome):
    life = failed_owed(1, attempts=10_000, failing_since=NOW - POLICY.confirm_for)
    build = after_failure(outcome, life)

    assert build.registrations[1].failing_since == life.failing_since
    assert NOW + POLICY.max_delay // 2 <= build.registrations[1].due_at <= NOW + POLICY.max_delay
    assert build.stuck == f"TestNod has been failing upload_failed: {SAID}"


def test_a_life_without_expiry_is_taken_for_a_url_that_ran_out():
    life = replace(named(), expires_at=None)

    assert after(refused(403), life=life).registrations[1].put_refusal is None
