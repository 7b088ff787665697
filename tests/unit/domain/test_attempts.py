"""What the record of a call contains, and what a registration shows of calls that need no record."""

from dataclasses import replace

import pytest

from bridge.domain import outcomes
from bridge.domain.attempts import MAX_REASON_CHARACTERS, CallKind, attempts_of_registration, new_attempt
from bridge.domain.build import Registration, RegistrationState
from bridge.domain.instants import SECOND, Duration, Instant

REGISTERED = outcomes.Registered(
    test_run_id="r",
    upload_id="u",
    test_run_url="https://nod.test/r",
    presigned_url="https://s3.test/u",
    expires_at=None,
)
REGISTRATION = Registration(
    id=1, delivery_id=7, state=RegistrationState.REQUESTED, requested_at=Instant(1 * SECOND), fencing_token=1
)
STORED = replace(
    REGISTRATION,
    state=RegistrationState.STORED,
    registered_at=Instant(2 * SECOND),
    due_at=Instant(2 * SECOND),
    stored_at=Instant(5 * SECOND),
)


def recorded(call, outcome, at=REGISTRATION.requested_at):
    return new_attempt(call, outcome, at=at, duration=Duration(SECOND), delivery_id=7)


@pytest.mark.parametrize(
    ("outcome", "ended", "status", "reason"),
    [
        (REGISTERED, "succeeded", 201, None),
        (replace(REGISTERED, presigned_url=""), "rejected", None, "has no URL"),
        (outcomes.Conflict(message="taken"), "rejected", 409, "taken"),
        (outcomes.ProjectMissing(message="Project not found."), "rejected", 404, "Project not found."),
        (outcomes.Rejected(status=422, message="no"), "rejected", 422, "no"),
        (outcomes.UnrecognizedResponse(status=302, message="login"), "rejected", 302, "login"),
        (outcomes.OutcomeUnknown(message="busy", status=503), "unknown", 503, "busy"),
        (outcomes.OutcomeUnknown(message="cut off"), "unknown", None, "cut off"),
        (outcomes.NotSent(message="refused"), "not_sent", None, "refused"),
        (outcomes.UrlRejected(message="host"), "not_sent", None, "host"),
        (outcomes.PutRejected(status=403, code="AccessDenied", message="no"), "rejected", 403, "403 AccessDenied no"),
        (outcomes.Stored(), "succeeded", 200, None),
        (outcomes.CorruptBody(message="gone"), "unreadable", None, "gone"),
        (outcomes.SpoolUnreadable(message="disk"), "unreadable", None, "disk"),
        (outcomes.RunStatus(status="pending"), "succeeded", 200, "the run is pending"),
        (outcomes.RunMissing(message="Test run not found"), "rejected", 404, "not found"),
        (outcomes.RunEmpty(message="No uploads"), "rejected", 422, "No uploads"),
        (outcomes.FailureRecorded(status="failed"), "succeeded", 200, "the upload is failed"),
    ],
)
def test_every_outcome_has_an_end_a_status_and_a_reason(outcome, ended, status, reason):
    found = recorded(CallKind.PUT, outcome)
    assert (found.outcome, found.status) == (ended, status)
    assert found.reason == reason if reason is None else reason in found.reason


def test_a_reason_has_a_bounded_length():
    found = recorded(CallKind.PUT, outcomes.NotSent(message="x" * 10_000))
    assert len(found.reason) == MAX_REASON_CHARACTERS


def test_calls_that_succeed_at_once_are_read_from_the_registration():
    register, put = attempts_of_registration(STORED, ())
    assert (register.call, register.at, register.duration, register.status) == ("register", SECOND, SECOND, 201)
    assert (put.call, put.at, put.duration, put.status) == ("put", 2 * SECOND, 3 * SECOND, 200)


def test_a_put_that_succeeded_after_others_is_a_record_of_its_own():
    (register,) = attempts_of_registration(replace(STORED, due_at=Instant(3 * SECOND)), ())
    assert register.call == "register"


def test_a_register_that_failed_is_not_shown_twice():
    lost = replace(REGISTRATION, state=RegistrationState.LOST)
    failed = recorded(CallKind.REGISTER, outcomes.OutcomeUnknown(message="cut off"))
    assert attempts_of_registration(lost, [failed]) == []


def test_a_register_without_an_answer_says_so():
    lost = replace(REGISTRATION, state=RegistrationState.LOST)
    (interrupted,) = attempts_of_registration(lost, ())
    assert interrupted.outcome == "unknown"
    assert "before the answer came" in interrupted.reason
    assert attempts_of_registration(REGISTRATION, ()) == []
