from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryState, Target
from bridge.domain.effects.mirror import after_upload, of_mirror
from bridge.domain.gates import MIRROR, Signal
from bridge.domain.mirror import Refused, TooLargeToSign, Uploaded
from bridge.domain.outcomes import Damaged, NoSuchBuild, NotSent, Rejected, SlowDown, Unauthorized, Unknown
from tests.unit.domain.builders import NOW, POLICY, owed

PAGE = Rejected(status=400, message="HTTP 400 without a readable message")
REFUSED = Refused(status=400, message="CB.00060200: Invalid parameter.")


def copies(*numbers):
    return [replace(owed(number, target=Target.CODEARTS), report_id=number) for number in numbers]


def after(outcome, *numbers, now=NOW):
    return [change.values for change in after_upload(copies(*numbers), outcome, now, POLICY, 0)]


def test_what_was_taken_is_delivered():
    (values,) = after(Uploaded(), 1)
    assert (values["state"], values["delivered_at"]) == (DeliveryState.DELIVERED, NOW)


@pytest.mark.parametrize("outcome", [REFUSED, TooLargeToSign(message="too large"), Damaged(message="gone")])
def test_what_is_refused_alone_is_dead_and_together_is_sent_alone_at_once(outcome):
    (alone,) = after(outcome, 1)
    assert (alone["state"], alone["last_error"]) == (DeliveryState.DEAD, outcome.message)

    for together in after(outcome, 1, 2):
        assert "state" not in together
        assert (together["conflicted"], together["due_at"]) == (True, NOW)


@pytest.mark.parametrize("outcome", [PAGE, replace(PAGE, status=200), replace(PAGE, status=404)])
def test_a_page_of_something_in_front_kills_nothing_and_parts_what_was_sent_together(outcome):
    (alone,) = after(outcome, 1)
    assert "state" not in alone
    assert alone["attempts"] == 1
    assert alone["due_at"] > NOW
    assert alone["trying_since"] == NOW

    for together in after(outcome, 1, 2):
        assert "state" not in together
        assert together["conflicted"]
        assert together["due_at"] > NOW


@pytest.mark.parametrize(
    "outcome",
    [
        Unknown(message="cut"),
        Unknown(status=200, message="no success"),
        NotSent(message="no way"),
        SlowDown(message="429"),
        Unauthorized(message="401"),
        NoSuchBuild(message="no such build"),
    ],
)
def test_what_failed_is_tried_again_together(outcome):
    for values in after(outcome, 1, 2):
        assert "state" not in values
        assert "conflicted" not in values
        assert values["due_at"] > NOW


def test_a_codearts_that_refuses_one_report_in_its_own_words_works():
    assert of_mirror(REFUSED) == ((MIRROR, Signal.GOOD, ""),)


@pytest.mark.parametrize("outcome", [PAGE, SlowDown(message="429"), Unknown(message="HTTP 500", status=500)])
def test_an_odd_answer_to_one_report_is_no_outage_by_itself(outcome):
    assert of_mirror(outcome) == ((MIRROR, Signal.ODD, outcome.message),)
