from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryState, RegistrationState
from bridge.domain.changes import SetRegistration, apply
from bridge.domain.circuit_breaker import RouteHealth
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.upload import (
    ACCEPTED_WITHIN,
    REJECTED_FOR,
    after_put,
    after_register,
    after_upload_failed,
    upload_succeeded,
)
from bridge.domain.outcomes import (
    Conflict,
    CorruptBody,
    FailureRecorded,
    NotSent,
    OutcomeUnknown,
    ProjectMissing,
    PutRejected,
    Registered,
    Rejected,
    Stored,
    UnrecognizedResponse,
    UrlRejected,
)
from bridge.domain.retry import URL_LIFETIME
from tests.support.builders import (
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    RUN,
    TOKEN,
    a_build,
    dead,
    delivered,
    failed,
    failure_unreported,
    pending,
    registered,
    requested,
    stored,
)

HEALTH = RouteHealth(total_outage_us=3)
MESSAGE = "what the upstream answered"
D, R = DeliveryState, RegistrationState


def answered(**values):
    given = {
        "test_run_id": RUN.test_run_id,
        "upload_id": "upload-1",
        "test_run_url": RUN.test_run_url,
        "presigned_url": "https://storage.test/key?X-Amz-Signature=canary",
        "expires_at": NOW + 5 * MINUTE,
        **values,
    }
    return Registered(**given)


def registering(outcome, build=None, health=HEALTH):
    build = build or a_build(pending(), requested())
    return apply(build, after_register(build, build.registrations[1], outcome, NOW, POLICY, health))


def test_ids_name_the_registration_and_its_put_is_due_at_once():
    registration = registering(answered()).registrations[1]

    assert (registration.state, registration.test_run_id, registration.upload_id) == (
        RegistrationState.REGISTERED,
        "run-1",
        "upload-1",
    )
    assert (registration.expires_at, registration.registered_at, registration.due_at) == (NOW + 5 * MINUTE, NOW, NOW)
    assert registration.presigned_url.startswith("https://storage.test/")


def test_a_url_that_does_not_say_how_long_it_lives_is_counted_from_the_question():
    assert registering(answered(expires_at=None)).registrations[1].expires_at == NOW - MINUTE + URL_LIFETIME


def test_ids_of_a_run_that_is_known_add_none_and_prove_nothing():
    older = replace(RUN, test_run_id="run-0")
    build = registering(answered(), a_build(pending(), requested(), older, RUN))

    assert build.runs == (older, RUN)


def test_ids_of_a_known_run_change_the_registration_alone():
    build = a_build(pending(), requested(), RUN)
    changed = after_register(build, build.registrations[1], answered(), NOW, POLICY, HEALTH)

    assert [type(change) for change in changed] == [SetRegistration]


def test_ids_of_an_unknown_run_add_it_and_prove_that_the_older_ones_left_pending():
    build = registering(answered(test_run_id="run-2", test_run_url="url"))

    assert [(run.test_run_id, run.status) for run in build.runs] == [("run-1", "processing"), ("run-2", None)]


def test_what_a_finalize_said_of_an_older_run_is_kept():
    processed = a_build(pending(), requested(), stored(2), runs=(replace(RUN, test_run_id="a", status="processed"),))

    assert [run.status for run in registering(answered(), processed).runs] == ["processed", None]


def test_a_register_that_went_through_ends_a_conflict():
    assert registering(answered(), a_build(pending(1, send_alone=True), requested())).deliveries[1].send_alone is False


NO_EFFECT = [
    Conflict(message=MESSAGE),
    Rejected(status=422, message=MESSAGE),
    Rejected(status=429, message=MESSAGE),
    UnrecognizedResponse(status=404, message=MESSAGE),
    NotSent(message=MESSAGE),
]


@pytest.mark.parametrize("outcome", NO_EFFECT, ids=["409", "422 problem creating", "429", "a page", "not sent"])
def test_a_register_without_effect_leaves_no_registration_and_is_tried_again_later(outcome):
    build = registering(outcome)
    delivery = build.deliveries[1]

    assert build.registrations == {}
    assert (delivery.state, delivery.attempts, delivery.last_error) == (DeliveryState.PENDING, 1, MESSAGE)
    assert (delivery.first_failure_at, delivery.outage_us_at_first_failure) == (NOW, HEALTH.total_outage_us)
    assert NOW + SECOND // 2 <= delivery.due_at <= NOW + SECOND


@pytest.mark.parametrize("outcome", [*NO_EFFECT, OutcomeUnknown(message=MESSAGE)])
def test_only_a_conflict_makes_a_report_go_alone(outcome):
    assert registering(outcome).deliveries[1].send_alone is isinstance(outcome, Conflict)


def test_conflicts_in_a_row_are_backed_off():
    delivery = registering(Conflict(message=MESSAGE), a_build(pending(1, attempts=6), requested())).deliveries[1]

    assert delivery.due_at >= NOW + 32 * SECOND


@pytest.mark.parametrize("status", [None, 500, 503, 200])
def test_a_register_whose_effect_is_unknown_is_lost_and_tried_again_later(status):
    build = registering(OutcomeUnknown(message=MESSAGE, status=status, retry_after_seconds=90))
    delivery = build.deliveries[1]

    assert build.registrations[1].state is RegistrationState.LOST
    assert (delivery.state, delivery.attempts, delivery.last_error) == (DeliveryState.PENDING, 1, MESSAGE)
    assert (delivery.due_at, delivery.first_failure_at) == (NOW + 90 * SECOND, NOW)


def test_an_answer_that_comes_when_the_registration_is_lost_already_leaves_it_lost():
    build = a_build(pending(), requested())
    changes = after_register(build, build.registrations[1], answered(), NOW, POLICY, HEALTH)
    found = a_build(pending(), requested(1, state=RegistrationState.LOST))

    assert apply(found, changes).registrations == found.registrations


def test_a_missing_project_suspends_the_route_and_not_the_report():
    build = registering(ProjectMissing(message="Project not found."))

    assert build.registrations == {}
    assert build.deliveries[1] == pending()


@pytest.mark.parametrize("outcome", NO_EFFECT)
def test_no_refusal_is_the_end_of_a_report_and_an_outage_is_not_backed_off(outcome):
    away = replace(HEALTH, in_outage=True)
    delivery = registering(outcome, a_build(pending(1, attempts=30), requested()), away).deliveries[1]

    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 30)
    assert delivery.due_at <= NOW + POLICY.retry_initial_delay


def test_ids_without_a_url_are_kept_and_the_upload_is_reported_failed():
    build = registering(answered(presigned_url="", test_run_id="run-2"))
    registration, delivery = build.registrations[1], build.deliveries[1]

    assert (registration.state, registration.test_run_id, registration.upload_id) == (
        RegistrationState.FAILURE_UNREPORTED,
        "run-2",
        "upload-1",
    )
    assert (registration.due_at, registration.presigned_url, registration.put_outcome_unknown) == (NOW, None, False)
    assert "without a URL" in registration.failure
    assert (delivery.state, delivery.attempts, delivery.first_failure_at) == (DeliveryState.PENDING, 1, NOW)
    assert [run.test_run_id for run in build.runs] == ["run-1", "run-2"]


def test_a_run_of_another_project_proves_nothing_of_the_older_ones():
    older = replace(RUN, project_id="old")
    build = registering(answered(test_run_id="run-2", project_id="new"), a_build(pending(), requested(), older))

    assert [(run.project_id, run.status) for run in build.runs] == [("old", None), ("new", None)]


# -- PUT and upload_failed ----------------------------------------------------------------------------------------


def put_rejected(status, code="", **values):
    return PutRejected(status=status, code=code, message=MESSAGE, **values)


def putting(outcome, *others, registration=None, delivery=None, health=HEALTH):
    build = a_build(delivery or pending(), registration or registered(), *others)
    return apply(build, after_put(build, build.registrations[1], outcome, NOW, POLICY, health))


def after_failure(outcome, registration=None, delivery=None, now=NOW):
    build = a_build(delivery or pending(), registration or failure_unreported())
    return apply(build, after_upload_failed(build, build.registrations[1], outcome, now, POLICY))


# -- stored ------------------------------------------------------------------------------------------------------


def test_a_stored_report_is_delivered_and_its_url_forgotten():
    build = putting(Stored(), delivery=pending(1, last_error=MESSAGE))
    registration, delivery = build.registrations[1], build.deliveries[1]

    assert (registration.state, registration.stored_at, registration.presigned_url) == (R.STORED, NOW, None)
    assert (delivery.state, delivery.delivered_at, delivery.last_error) == (D.DELIVERED, NOW, None)


@pytest.mark.parametrize("was", [pending(), dead()], ids=["pending", "dead"])
@pytest.mark.parametrize("is_by_now", [pending(), dead(), delivered()], ids=["pending", "dead", "delivered"])
def test_a_stored_registration_makes_its_delivery_delivered_whatever_became_of_it_meanwhile(was, is_by_now):
    read, ledger = a_build(was, failure_unreported()), a_build(is_by_now, failure_unreported())

    build = apply(ledger, upload_succeeded(read, read.registrations[1], NOW))

    assert (build.registrations[1].state, build.deliveries[1].state) == (R.STORED, D.DELIVERED)


def test_a_second_stored_registration_leaves_a_delivered_report_as_it_is():
    build = putting(Stored(), delivery=delivered())

    assert (build.registrations[1].state, build.deliveries[1]) == (R.STORED, delivered())


# -- again to the same URL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "uncertain"),
    [
        (put_rejected(400, "RequestTimeout"), False),
        (put_rejected(429), False),
        (put_rejected(406), False),
        (put_rejected(412, "PreconditionFailed"), False),
        (OutcomeUnknown(message=f"SlowDown: {MESSAGE}", status=503), True),
        (NotSent(message=MESSAGE), False),
        (OutcomeUnknown(message=MESSAGE), True),
    ],
)
def test_a_put_that_came_to_nothing_is_made_again_to_the_same_url(outcome, uncertain):
    build = putting(outcome)
    registration, delivery = build.registrations[1], build.deliveries[1]

    assert (registration.state, registration.attempts, registration.presigned_url) == (
        R.REGISTERED,
        1,
        registered().presigned_url,
    )
    assert NOW + SECOND // 2 <= registration.due_at <= NOW + SECOND
    assert registration.put_outcome_unknown is uncertain
    assert (delivery.state, delivery.attempts, delivery.first_failure_at, delivery.outage_us_at_first_failure) == (
        D.PENDING,
        0,
        NOW,
        3,
    )
    assert MESSAGE in delivery.last_error
    assert MESSAGE in registration.failure


def test_puts_in_a_row_are_backed_off_and_retry_after_is_honoured():
    fourth = putting(OutcomeUnknown(message=MESSAGE), registration=registered(1, attempts=3)).registrations[1]
    asked_for = putting(put_rejected(503, retry_after_seconds=77)).registrations[1]

    assert NOW + 4 * SECOND <= fourth.due_at <= NOW + 8 * SECOND
    assert asked_for.due_at == NOW + 77 * SECOND


def test_a_put_that_may_have_got_through_stays_so_whatever_the_next_one_says():
    assert (
        putting(NotSent(message=MESSAGE), registration=registered(1, put_outcome_unknown=True))
        .registrations[1]
        .put_outcome_unknown
    )


# -- the URL is spent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "left"),
    [(put_rejected(403, "AccessDenied"), MINUTE - 1), (put_rejected(400, "ExpiredToken"), 4 * MINUTE)],
    ids=["403 in the last minute", "400 ExpiredToken"],
)
@pytest.mark.parametrize("before", [0, 20])
def test_a_url_that_ran_out_is_reported_failed_and_registered_again_without_limit(outcome, left, before):
    earlier = [failed(10 + number) for number in range(before)]
    build = putting(outcome, *earlier, registration=registered(1, expires_at=NOW + left))
    registration, delivery = build.registrations[1], build.deliveries[1]

    assert (registration.state, registration.attempts) == (R.FAILURE_UNREPORTED, 0)
    assert MESSAGE in registration.failure
    assert (delivery.state, delivery.attempts, delivery.first_failure_at) == (D.PENDING, 1, NOW)


@pytest.mark.parametrize(
    "outcome", [put_rejected(403), put_rejected(400, "ExpiredToken"), put_rejected(400, "Nonsense")]
)
def test_the_next_registration_is_backed_off(outcome):
    earlier = failed(9, requested_at=NOW - HOUR)
    delivery = putting(outcome, earlier, delivery=pending(1, attempts=5, pending_since=NOW - HOUR)).deliveries[1]

    assert NOW + 16 * SECOND <= delivery.due_at <= NOW + 32 * SECOND


@pytest.mark.parametrize(
    ("registration", "at"),
    [
        (registered(), NOW),
        (registered(1, put_outcome_unknown=True), NOW + 4 * MINUTE + POLICY.max_put_duration),
        (registered(1, fencing_token=TOKEN - 1), NOW + 4 * MINUTE + POLICY.max_put_duration),
    ],
    ids=["nothing can have got through", "an earlier PUT may have", "another visit's may have"],
)
def test_upload_failed_waits_until_no_put_can_arrive_any_more(registration, at):
    assert putting(put_rejected(403), registration=registration).registrations[1].due_at == at


# -- rejected ----------------------------------------------------------------------------------------------------

REJECTED = [
    put_rejected(400, "InvalidToken"),
    put_rejected(400, "IncompleteBody"),
    put_rejected(400, "BadDigest"),
    put_rejected(400),
    put_rejected(401),
    put_rejected(403, "SignatureDoesNotMatch"),
    put_rejected(403, "AccessDenied"),
    put_rejected(403),
    put_rejected(404, "NoSuchBucket"),
    UrlRejected(message=MESSAGE),
]
SINCE = NOW - REJECTED_FOR
NAMES = [getattr(outcome, "said", "refused URL") for outcome in REJECTED]


def rejected_since(since, outcome, *others, stored_at, **values):
    health = RouteHealth(total_outage_us=3, stored_at=stored_at)
    delivery = pending(1, first_failure_at=since, rejected_since=since, outage_us_at_first_failure=3, **values)
    return putting(outcome, *others, delivery=delivery, health=health).deliveries[1]


@pytest.mark.parametrize("outcome", REJECTED, ids=NAMES)
def test_what_storage_rejects_on_a_fresh_url_is_reported_failed_and_registered_again(outcome):
    build = putting(outcome)
    registration, delivery = build.registrations[1], build.deliveries[1]

    assert (registration.state, registration.presigned_url, registration.due_at) == (R.FAILURE_UNREPORTED, None, NOW)
    assert MESSAGE in registration.failure
    assert (delivery.state, delivery.attempts, delivery.first_failure_at) == (D.PENDING, 1, None)
    assert MESSAGE in delivery.last_error


@pytest.mark.parametrize("outcome", REJECTED, ids=NAMES)
@pytest.mark.parametrize("stored_at", [None, SINCE - 1], ids=["never", "before the clock began"])
def test_storage_that_takes_nothing_else_is_at_fault_itself_and_the_give_up_clock_stands_still(outcome, stored_at):
    delivery = rejected_since(SINCE, outcome, stored_at=stored_at)

    assert (delivery.state, delivery.first_failure_at, delivery.rejected_since) == (D.PENDING, None, None)


BEFORE = NOW - 10 * MINUTE  # the report was registered last


@pytest.mark.parametrize(
    ("others", "stored_at", "since"),
    [
        ([], NOW, None),
        ([failed(2, requested_at=BEFORE)], BEFORE - 1, None),
        ([failed(2, requested_at=BEFORE)], BEFORE, BEFORE),
        ([failed(2, 2, requested_at=BEFORE), pending(2)], NOW, None),
        ([failed(2, requested_at=NOW - 2 * HOUR)], NOW, None),
    ],
    ids=["first time", "none taken since", "others taken since", "of another report", "before it was sent again"],
)
def test_the_give_up_clock_starts_once_storage_took_another_report_between_two_rejections(others, stored_at, since):
    delivery = rejected_since(None, put_rejected(403), *others, stored_at=stored_at, pending_since=NOW - HOUR)

    assert (delivery.state, delivery.first_failure_at, delivery.rejected_since) == (D.PENDING, since, since)


def test_what_failed_otherwise_for_hours_is_not_given_up_for_its_first_rejection():
    health = RouteHealth(total_outage_us=3, stored_at=NOW)
    for others in ([], [failed(2, requested_at=BEFORE)]):
        delivery = pending(1, first_failure_at=SINCE - HOUR, outage_us_at_first_failure=3, pending_since=SINCE - HOUR)
        rejected = putting(put_rejected(403), *others, delivery=delivery, health=health).deliveries[1]
        assert rejected.state is D.PENDING


def test_another_answer_between_rejections_begins_their_time_again():
    delivery = pending(1, first_failure_at=SINCE, rejected_since=SINCE)

    assert putting(OutcomeUnknown(message=MESSAGE, status=503), delivery=delivery).deliveries[1].rejected_since is None


def test_a_403_in_the_second_half_of_a_short_url_is_its_end():
    short = {"registered_at": NOW - 40 * SECOND, "expires_at": NOW + 19 * SECOND}
    young = {"registered_at": NOW - 10 * SECOND, "expires_at": NOW + 49 * SECOND}

    assert (
        putting(put_rejected(403), registration=registered(1, **short)).deliveries[1].first_failure_at == NOW
    )  # ran out: the clock runs
    assert putting(put_rejected(403), registration=registered(1, **young)).deliveries[1].first_failure_at is None


@pytest.mark.parametrize("outcome", REJECTED, ids=NAMES)
def test_a_report_that_is_rejected_for_hours_while_others_are_taken_is_given_up(outcome):
    delivery = rejected_since(SINCE, outcome, stored_at=NOW - ACCEPTED_WITHIN)

    assert (delivery.state, MESSAGE in delivery.last_error) == (D.DEAD, True)


@pytest.mark.parametrize(
    ("since", "stored_at", "away"),
    [(SINCE + 1, NOW, 3), (SINCE, NOW - ACCEPTED_WITHIN - 1, 3), (SINCE, NOW, 2)],
    ids=["not for hours yet", "none was taken lately", "storage was away meanwhile"],
)
def test_a_rejected_report_has_hours_of_working_storage(since, stored_at, away):
    health = RouteHealth(total_outage_us=3, stored_at=stored_at)
    delivery = pending(1, first_failure_at=since, rejected_since=since, outage_us_at_first_failure=away)
    rejected = putting(put_rejected(403), delivery=delivery, health=health).deliveries[1]

    assert (rejected.state, rejected.first_failure_at) == (D.PENDING, since)


def test_the_end_of_a_short_outage_is_noticed_in_time_by_a_report_alone():
    earlier = [failed(10 + number, requested_at=NOW - MINUTE + number) for number in range(7)]
    delivery = putting(
        put_rejected(403), *earlier, delivery=pending(1, attempts=7, pending_since=NOW - HOUR)
    ).deliveries[1]

    assert delivery.due_at == NOW + 20 * SECOND


def test_no_rejected_report_is_given_up_while_the_clock_is_doubted():
    health = RouteHealth(total_outage_us=3, stored_at=NOW, clock_doubted=True)
    delivery = pending(1, first_failure_at=SINCE, rejected_since=SINCE, outage_us_at_first_failure=3)

    assert putting(put_rejected(403), delivery=delivery, health=health).deliveries[1].state is D.PENDING


def test_a_probe_of_storage_is_not_backed_off_by_its_report():
    away = RouteHealth(total_outage_us=3, in_outage=True)
    again = putting(put_rejected(403), delivery=pending(1, attempts=30), health=away).deliveries[1]
    put = putting(OutcomeUnknown(message=MESSAGE), registration=registered(1, attempts=30), health=away).registrations[
        1
    ]

    assert (again.attempts, again.due_at <= NOW + POLICY.retry_initial_delay) == (30, True)
    assert put.attempts == 30


@pytest.mark.parametrize(
    "outcome", [put_rejected(413), put_rejected(400, "EntityTooLarge"), CorruptBody(message=MESSAGE)]
)
def test_a_report_that_storage_can_never_take_is_dead_and_reported_failed(outcome):
    build = putting(outcome)

    assert (build.registrations[1].state, build.deliveries[1].state) == (R.FAILURE_UNREPORTED, D.DEAD)
    assert MESSAGE in build.deliveries[1].last_error
    assert MESSAGE in build.registrations[1].failure


# -- upload_failed -----------------------------------------------------------------------------------------------


def test_a_failure_that_testnod_noted_ends_the_registration_and_its_url():
    build = after_failure(FailureRecorded(status="failed"))

    assert (build.registrations[1].state, build.registrations[1].presigned_url) == (R.FAILED, None)
    assert build.deliveries[1] == pending()


@pytest.mark.parametrize("delivery", [pending(), dead()], ids=["pending", "dead"])
def test_an_upload_that_was_processed_before_was_stored_after_all_if_a_put_may_have_got_through(delivery):
    build = after_failure(
        FailureRecorded(status="processed"), failure_unreported(1, put_outcome_unknown=True), delivery=delivery
    )

    assert (build.registrations[1].state, build.deliveries[1].state) == (R.STORED, D.DELIVERED)


def test_an_upload_that_was_processed_although_no_put_can_have_got_through_delivers_nothing():
    build = after_failure(FailureRecorded(status="processed"), failure_unreported())

    assert (build.registrations[1].state, build.deliveries[1].state) == (R.FAILED, D.PENDING)


@pytest.mark.parametrize(
    ("status", "failing_for", "state"),
    [
        (200, POLICY.confirm_timeout, R.LOST),
        (200, POLICY.confirm_timeout - 1, R.FAILURE_UNREPORTED),
        (503, POLICY.confirm_timeout, R.FAILURE_UNREPORTED),
        (None, POLICY.confirm_timeout, R.FAILURE_UNREPORTED),
    ],
)
def test_an_upload_failed_that_is_answered_in_unknown_words_for_long_lets_the_report_go_out_again(
    status, failing_for, state
):
    build = after_failure(
        OutcomeUnknown(message=MESSAGE, status=status), failure_unreported(1, failing_since=NOW - failing_for)
    )

    assert (build.registrations[1].state, build.deliveries[1].state) == (state, D.PENDING)


def test_a_missing_project_changes_nothing():
    build = a_build(pending(), failure_unreported())

    assert after_upload_failed(build, build.registrations[1], ProjectMissing(message=""), NOW, POLICY) == ()


@pytest.mark.parametrize("status", [400, 404, 409, 422])
def test_another_4xx_means_that_the_upload_cannot_be_reported_failed(status):
    build = after_failure(Rejected(status=status, message=MESSAGE))

    assert (build.registrations[1].state, build.registrations[1].presigned_url) == (R.LOST, None)


AGAIN = [
    Rejected(status=408, message=MESSAGE),
    Rejected(status=425, message=MESSAGE),
    Rejected(status=429, message=MESSAGE),
    UnrecognizedResponse(status=404, message=MESSAGE),
    NotSent(message=MESSAGE),
    OutcomeUnknown(message=MESSAGE, status=500),
]


@pytest.mark.parametrize("outcome", AGAIN)
def test_an_upload_failed_that_came_to_nothing_is_called_again(outcome):
    build = after_failure(outcome)
    registration = build.registrations[1]

    assert (registration.state, registration.attempts, registration.failing_since) == (R.FAILURE_UNREPORTED, 1, NOW)
    assert NOW + SECOND // 2 <= registration.due_at <= NOW + SECOND
    assert (build.last_error, build.stuck_reason) == (MESSAGE, None)


@pytest.mark.parametrize("outcome", AGAIN)
def test_an_upload_failed_that_never_goes_through_is_called_for_ever_and_the_build_shown_as_stuck(outcome):
    registration = failure_unreported(1, attempts=10_000, failing_since=NOW - POLICY.confirm_timeout)
    build = after_failure(outcome, registration)

    assert build.registrations[1].failing_since == registration.failing_since
    assert NOW + POLICY.retry_max_delay // 2 <= build.registrations[1].due_at <= NOW + POLICY.retry_max_delay
    assert build.stuck_reason == f"TestNod has been failing upload_failed: {MESSAGE}"


def test_a_life_without_expiry_is_taken_for_a_url_that_ran_out():
    health = RouteHealth(total_outage_us=3, stored_at=NOW)
    delivery = pending(1, first_failure_at=SINCE, rejected_since=SINCE, outage_us_at_first_failure=3)
    build = putting(
        put_rejected(403), registration=replace(registered(), expires_at=None), delivery=delivery, health=health
    )

    assert build.deliveries[1].state is D.PENDING
