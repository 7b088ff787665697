from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryState, RegistrationState
from bridge.domain.changes import apply
from bridge.domain.circuit_breaker import RouteHealth
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.upload import after_register
from bridge.domain.outcomes import (
    Conflict,
    NotSent,
    OutcomeUnknown,
    ProjectMissing,
    Registered,
    Rejected,
    UnrecognizedResponse,
)
from bridge.domain.retry import URL_LIFETIME
from tests.support.builders import MINUTE, NOW, POLICY, RUN, a_build, pending, requested, stored

HEALTH = RouteHealth(total_outage_us=3)
SAID = "what TestNod said"


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


def after(outcome, build=None, health=HEALTH):
    build = build or a_build(pending(), requested())
    return apply(build, after_register(build, build.registrations[1], outcome, NOW, POLICY, health))


def test_ids_name_the_registration_and_its_put_is_due_at_once():
    registration = after(answered()).registrations[1]

    assert (registration.state, registration.test_run_id, registration.upload_id) == (
        RegistrationState.REGISTERED,
        "run-1",
        "upload-1",
    )
    assert (registration.expires_at, registration.registered_at, registration.due_at) == (NOW + 5 * MINUTE, NOW, NOW)
    assert registration.presigned_url.startswith("https://storage.test/")


def test_a_url_that_does_not_say_how_long_it_lives_is_counted_from_the_question():
    assert after(answered(expires_at=None)).registrations[1].expires_at == NOW - MINUTE + URL_LIFETIME


def test_ids_of_a_run_that_is_known_add_none_and_prove_nothing():
    older = replace(RUN, test_run_id="run-0")
    build = after(answered(), a_build(pending(), requested(), older, RUN))

    assert build.runs == (older, RUN)


def test_ids_of_a_run_nobody_had_seen_add_it_and_prove_that_the_older_ones_left_pending():
    build = after(answered(test_run_id="run-2", test_run_url="url"))

    assert [(run.test_run_id, run.status) for run in build.runs] == [("run-1", "processing"), ("run-2", None)]


def test_what_a_finalize_said_of_an_older_run_is_kept():
    processed = a_build(pending(), requested(), stored(2), runs=(replace(RUN, test_run_id="a", status="processed"),))

    assert [run.status for run in after(answered(), processed).runs] == ["processed", None]


def test_a_register_that_went_through_ends_a_conflict():
    assert after(answered(), a_build(pending(1, send_alone=True), requested())).deliveries[1].send_alone is False


NO_EFFECT = [
    Conflict(message=SAID),
    Rejected(status=422, message=SAID),
    Rejected(status=429, message=SAID),
    UnrecognizedResponse(status=404, message=SAID),
    NotSent(message=SAID),
]


@pytest.mark.parametrize("outcome", NO_EFFECT, ids=["409", "422 problem creating", "429", "a page", "not sent"])
def test_a_register_without_effect_leaves_no_registration_and_is_tried_again_later(outcome):
    build = after(outcome)
    delivery = build.deliveries[1]

    assert build.registrations == {}
    assert (delivery.state, delivery.attempts, delivery.last_error) == (DeliveryState.PENDING, 1, SAID)
    assert (delivery.first_failure_at, delivery.outage_us_at_first_failure) == (NOW, HEALTH.total_outage_us)
    assert NOW + SECOND // 2 <= delivery.due_at <= NOW + SECOND


@pytest.mark.parametrize("outcome", [*NO_EFFECT, OutcomeUnknown(message=SAID)])
def test_only_a_conflict_makes_a_report_go_alone(outcome):
    assert after(outcome).deliveries[1].send_alone is isinstance(outcome, Conflict)


def test_conflicts_in_a_row_are_backed_off():
    delivery = after(Conflict(message=SAID), a_build(pending(1, attempts=6), requested())).deliveries[1]

    assert delivery.due_at >= NOW + 32 * SECOND


@pytest.mark.parametrize("status", [None, 500, 503, 200])
def test_a_register_whose_effect_is_unknown_is_lost_and_tried_again_later(status):
    build = after(OutcomeUnknown(message=SAID, status=status, retry_after_seconds=90))
    delivery = build.deliveries[1]

    assert build.registrations[1].state is RegistrationState.LOST
    assert (delivery.state, delivery.attempts, delivery.last_error) == (DeliveryState.PENDING, 1, SAID)
    assert (delivery.due_at, delivery.first_failure_at) == (NOW + 90 * SECOND, NOW)


def test_an_answer_that_comes_when_the_registration_is_lost_already_leaves_it_lost():
    build = a_build(pending(), requested())
    changes = after_register(build, build.registrations[1], answered(), NOW, POLICY, HEALTH)
    found = a_build(pending(), requested(1, state=RegistrationState.LOST))

    assert apply(found, changes).registrations == found.registrations


def test_a_missing_project_suspends_the_route_and_not_the_report():
    build = after(ProjectMissing(message="Project not found."))

    assert build.registrations == {}
    assert build.deliveries[1] == pending()


@pytest.mark.parametrize("outcome", NO_EFFECT)
def test_no_refusal_is_the_end_of_a_report_and_an_outage_is_not_backed_off(outcome):
    away = replace(HEALTH, in_outage=True)
    delivery = after(outcome, a_build(pending(1, attempts=30), requested()), away).deliveries[1]

    assert (delivery.state, delivery.attempts) == (DeliveryState.PENDING, 30)
    assert delivery.due_at <= NOW + POLICY.retry_initial_delay


def test_ids_without_a_url_are_kept_and_the_upload_is_reported_failed():
    build = after(answered(presigned_url="", test_run_id="run-2"))
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
    build = after(answered(test_run_id="run-2", project_id="new"), a_build(pending(), requested(), older))

    assert [(run.project_id, run.status) for run in build.runs] == [("old", None), ("new", None)]
