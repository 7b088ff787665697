from dataclasses import replace

import pytest

from bridge.domain.build import Delivery, DeliveryState, Target
from bridge.domain.changes import AddReport, apply
from bridge.domain.effects.quality import after_check, begun, deferred, given_up
from bridge.domain.outcomes import (
    Checked,
    NotSent,
    Refreshing,
    Rejected,
    SlowDown,
    Unauthorized,
    Unknown,
)
from bridge.domain.quality import CheckReport, QualityState
from tests.unit.domain.builders import MINUTE, NOW, POLICY, RULES, ended, owed, waiting

SAID = "what Check said"
REPORT = CheckReport(numbers=(("major", 4),), tools=("clangtidy",), url=None)
FAILURES = [
    Unauthorized(message=SAID),
    SlowDown(message=SAID),
    Rejected(status=400, message=SAID),
    NotSent(message=SAID),
    Unknown(message=SAID, status=200),
    Unknown(message=SAID),
]
ARCHIVING = replace(POLICY, archives=True)


def changes_after(outcome, *, quality=None, policy=POLICY):
    quality = quality or waiting()
    return after_check(ended(owed(), quality=quality), quality, RULES, outcome, NOW, policy)


def after(outcome, **values):
    quality = waiting(**values)
    return apply(ended(owed(), quality=quality), changes_after(outcome, quality=quality)).quality


def added(changes):
    (change,) = (change for change in changes if isinstance(change, AddReport))
    return change


def test_the_run_waits_from_the_first_look_on_and_check_is_due_at_once():
    quality = apply(ended(owed()), begun(RULES, NOW)).quality
    assert (quality.state, quality.until, quality.due_at) == (QualityState.WAITING, NOW + RULES.wait_us, NOW)


def test_a_report_ends_the_asking_and_is_owed_as_a_report_of_the_build():
    build = ended(owed(), quality=waiting())
    changes = changes_after(Checked(report=REPORT))
    change = added(changes)
    with_ids = replace(
        change, report=replace(change.report, id=9), deliveries=(replace(change.deliveries[0], id=8, report_id=9),)
    )
    after = apply(build, [with_ids if one is change else one for one in changes])

    assert (after.quality.state, after.quality.answered_at) == (QualityState.ANSWERED, NOW)
    assert after.quality.summary == "no limits are set"
    assert after.batch_seq == build.batch_seq + 1
    assert (after.reports[9].name, after.reports[9].node_id) == ("codearts-check.xml", "codearts-check")
    assert after.deliveries[8] == Delivery(
        id=8, report_id=9, target=Target.TESTNOD, state=DeliveryState.OWED, owed_since=NOW, due_at=NOW
    )


def test_a_guessed_end_is_not_taken_back_by_the_suite():
    build = ended(owed(), quality=waiting())
    assert apply(build, changes_after(Checked(report=REPORT))).last_report_at == build.last_report_at


def test_a_suite_is_owed_to_the_archive_where_there_is_one():
    change = added(changes_after(Checked(report=REPORT), policy=ARCHIVING))
    assert [delivery.target for delivery in change.deliveries] == [Target.TESTNOD, Target.ARCHIVE]


def test_a_report_that_passed_by_is_as_old_as_it_is():
    changes = changes_after(Checked(report=REPORT, heard_at=NOW - MINUTE))
    assert apply(ended(owed(), quality=waiting()), changes).quality.answered_at == NOW - MINUTE
    assert b"a caller of the bridge" in added(changes).body


@pytest.mark.parametrize("outcome", FAILURES)
def test_whatever_else_comes_is_asked_for_again_later_and_later(outcome):
    first, later = after(outcome), after(outcome, attempts=6)
    assert (first.state, first.attempts, first.summary) == (QualityState.WAITING, 1, SAID)
    assert NOW < first.due_at < later.due_at
    assert not after(outcome, reserved=True).reserved


def test_a_retry_after_is_honoured():
    assert after(SlowDown(message=SAID, retry_after_seconds=60)).due_at == NOW + MINUTE


def test_a_check_that_is_too_slow_is_asked_in_the_background_and_then_for_its_report():
    slow = after(Unknown(message=SAID))
    assert slow.in_background
    begun = after(Refreshing(), in_background=True, summary=SAID)
    assert (begun.in_background, begun.attempts, begun.summary) == (False, 1, SAID)


@pytest.mark.parametrize("outcome", [*FAILURES, Refreshing()])
def test_a_call_in_the_background_is_followed_by_one_that_waits_for_the_report(outcome):
    assert not after(outcome, in_background=True).in_background


@pytest.mark.parametrize("outcome", FAILURES[:-1])
def test_what_was_answered_is_not_asked_for_in_the_background(outcome):
    assert not after(outcome).in_background


def test_a_call_without_a_place_is_no_try():
    quality = waiting(attempts=2)
    later = apply(ended(owed(), quality=quality), deferred(quality, NOW + 5, reserved=True)).quality
    assert later == replace(quality, due_at=NOW + 5, reserved=True)


def test_a_report_that_did_not_come_is_said_in_the_suite():
    changes = given_up(waiting(summary=f"{SAID}."), RULES, NOW, POLICY)
    quality = apply(ended(owed(), quality=waiting()), changes).quality
    assert (quality.state, quality.summary, quality.answered_at) == (QualityState.MISSING, SAID, None)
    assert f"gave no report in time: {SAID}".encode() in added(changes).body


def test_or_is_left_out_where_the_route_says_so():
    changes = given_up(waiting(summary=SAID), replace(RULES, omit_missing=True), NOW, POLICY)
    (quality,) = (apply(ended(owed(), quality=waiting()), changes).quality,)
    assert (len(changes), quality.state, quality.summary) == (1, QualityState.OMITTED, SAID)
