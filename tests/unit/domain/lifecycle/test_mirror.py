from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.circuit_breaker import MIRROR, HealthSignal
from bridge.domain.lifecycle.mirror import MirrorRejected, MirrorUploaded, TooLargeToSign, after_upload, of_mirror
from bridge.domain.outcomes import (
    CorruptBody,
    CredentialsRejected,
    NoSuchBuild,
    NotSent,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from tests.unit.domain.builders import NOW, POLICY, pending

PAGE = Rejected(status=400, message="HTTP 400 without a readable message")
REFUSED = MirrorRejected(status=400, message="CB.00060200: Invalid parameter.")


def copies(*numbers):
    return [replace(pending(number, target=DeliveryTarget.CODEARTS), report_id=number) for number in numbers]


def after(outcome, *numbers, now=NOW):
    return [change.values for change in after_upload(copies(*numbers), outcome, now, POLICY, 0)]


def test_what_was_taken_is_delivered():
    (values,) = after(MirrorUploaded(), 1)
    assert (values["state"], values["delivered_at"]) == (DeliveryState.DELIVERED, NOW)


@pytest.mark.parametrize("outcome", [REFUSED, TooLargeToSign(message="too large"), CorruptBody(message="gone")])
def test_what_is_refused_alone_is_dead_and_together_is_sent_alone_at_once(outcome):
    (alone,) = after(outcome, 1)
    assert (alone["state"], alone["last_error"]) == (DeliveryState.DEAD, outcome.message)

    for together in after(outcome, 1, 2):
        assert "state" not in together
        assert (together["send_alone"], together["due_at"]) == (True, NOW)


@pytest.mark.parametrize("outcome", [PAGE, replace(PAGE, status=200), replace(PAGE, status=404)])
def test_a_page_of_something_in_front_kills_nothing_and_parts_what_was_sent_together(outcome):
    (alone,) = after(outcome, 1)
    assert "state" not in alone
    assert alone["attempts"] == 1
    assert alone["due_at"] > NOW
    assert alone["first_failure_at"] == NOW

    for together in after(outcome, 1, 2):
        assert "state" not in together
        assert together["send_alone"]
        assert together["due_at"] > NOW


@pytest.mark.parametrize(
    "outcome",
    [
        OutcomeUnknown(message="cut"),
        OutcomeUnknown(status=200, message="no success"),
        NotSent(message="no way"),
        Throttled(message="429"),
        CredentialsRejected(message="401"),
        NoSuchBuild(message="no such build"),
    ],
)
def test_what_failed_is_tried_again_together(outcome):
    for values in after(outcome, 1, 2):
        assert "state" not in values
        assert "send_alone" not in values
        assert values["due_at"] > NOW


def test_a_codearts_that_refuses_one_report_in_its_own_words_works():
    assert of_mirror(REFUSED) == ((MIRROR, HealthSignal.SUCCESS, ""),)


@pytest.mark.parametrize("outcome", [PAGE, Throttled(message="429"), OutcomeUnknown(message="HTTP 500", status=500)])
def test_an_odd_answer_to_one_report_is_no_outage_by_itself(outcome):
    assert of_mirror(outcome) == ((MIRROR, HealthSignal.UNEXPECTED, outcome.message),)
