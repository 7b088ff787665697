from dataclasses import replace

import pytest

from bridge.domain.build import Delivery, DeliveryState, DeliveryTarget
from bridge.domain.changes import AddReport, apply
from bridge.domain.code_check.models import CheckReport, CodeCheckStatus
from bridge.domain.code_check.outcomes import after_check, begun, deferred, given_up
from bridge.domain.outcomes import (
    CheckReportFetched,
    CheckReportPending,
    CredentialsRejected,
    NotSent,
    OutcomeUnknown,
    Rejected,
    Throttled,
)
from tests.unit.domain.builders import MINUTE, NOW, POLICY, RULES, ended, owed, waiting

SAID = "what Check said"
REPORT = CheckReport(numbers=(("major", 4),), tools=("clangtidy",), url=None)
FAILURES = [
    CredentialsRejected(message=SAID),
    Throttled(message=SAID),
    Rejected(status=400, message=SAID),
    NotSent(message=SAID),
    OutcomeUnknown(message=SAID, status=200),
    OutcomeUnknown(message=SAID),
]
ARCHIVING = replace(POLICY, archives=True)


def changes_after(outcome, *, code_check=None, policy=POLICY):
    code_check = code_check or waiting()
    return after_check(ended(owed(), code_check=code_check), code_check, RULES, outcome, NOW, policy)


def after(outcome, **values):
    code_check = waiting(**values)
    return apply(ended(owed(), code_check=code_check), changes_after(outcome, code_check=code_check)).code_check


def added(changes):
    (change,) = (change for change in changes if isinstance(change, AddReport))
    return change


def test_the_run_waits_from_the_first_look_on_and_check_is_due_at_once():
    code_check = apply(ended(owed()), begun(RULES, NOW)).code_check
    assert (code_check.state, code_check.until, code_check.due_at) == (
        CodeCheckStatus.WAITING,
        NOW + RULES.wait_us,
        NOW,
    )


def test_a_report_ends_the_asking_and_is_owed_as_a_report_of_the_build():
    build = ended(owed(), code_check=waiting())
    changes = changes_after(CheckReportFetched(report=REPORT))
    change = added(changes)
    with_ids = replace(
        change, report=replace(change.report, id=9), deliveries=(replace(change.deliveries[0], id=8, report_id=9),)
    )
    after = apply(build, [with_ids if one is change else one for one in changes])

    assert (after.code_check.state, after.code_check.answered_at) == (CodeCheckStatus.ANSWERED, NOW)
    assert after.code_check.summary == "no limits are set"
    assert after.report_seq == build.report_seq + 1
    assert (after.reports[9].name, after.reports[9].node_id) == ("codearts-check.xml", "codearts-check")
    assert after.deliveries[8] == Delivery(
        id=8, report_id=9, target=DeliveryTarget.TESTNOD, state=DeliveryState.PENDING, pending_since=NOW, due_at=NOW
    )


def test_a_guessed_end_is_not_taken_back_by_the_suite():
    build = ended(owed(), code_check=waiting())
    assert apply(build, changes_after(CheckReportFetched(report=REPORT))).last_report_at == build.last_report_at


def test_a_suite_is_owed_to_the_archive_where_there_is_one():
    change = added(changes_after(CheckReportFetched(report=REPORT), policy=ARCHIVING))
    assert [delivery.target for delivery in change.deliveries] == [DeliveryTarget.TESTNOD, DeliveryTarget.ARCHIVE]


@pytest.mark.parametrize("outcome", FAILURES)
def test_whatever_else_comes_is_asked_for_again_later_and_later(outcome):
    first, later = after(outcome), after(outcome, attempts=6)
    assert (first.state, first.attempts, first.summary) == (CodeCheckStatus.WAITING, 1, SAID)
    assert NOW < first.due_at < later.due_at
    assert not after(outcome, reserved=True).reserved


def test_a_retry_after_is_honoured():
    assert after(Throttled(message=SAID, retry_after_seconds=60)).due_at == NOW + MINUTE


def test_a_check_that_is_too_slow_is_asked_in_the_background_and_then_for_its_report():
    slow = after(OutcomeUnknown(message=SAID))
    assert slow.in_background
    begun = after(CheckReportPending(), in_background=True, summary=SAID)
    assert (begun.in_background, begun.attempts, begun.summary) == (False, 1, SAID)


@pytest.mark.parametrize("outcome", [*FAILURES, CheckReportPending()])
def test_a_call_in_the_background_is_followed_by_one_that_waits_for_the_report(outcome):
    assert not after(outcome, in_background=True).in_background


@pytest.mark.parametrize("outcome", FAILURES[:-1])
def test_what_was_answered_is_not_asked_for_in_the_background(outcome):
    assert not after(outcome).in_background


def test_a_call_without_a_place_is_no_try():
    code_check = waiting(attempts=2)
    later = apply(ended(owed(), code_check=code_check), deferred(code_check, NOW + 5, reserved=True)).code_check
    assert later == replace(code_check, due_at=NOW + 5, reserved=True)


def test_a_report_that_did_not_come_is_said_in_the_suite():
    changes = given_up(waiting(summary=f"{SAID}."), RULES, NOW, POLICY)
    code_check = apply(ended(owed(), code_check=waiting()), changes).code_check
    assert (code_check.state, code_check.summary, code_check.answered_at) == (CodeCheckStatus.MISSING, SAID, None)
    assert f"gave no report in time: {SAID}".encode() in added(changes).body


def test_or_is_left_out_where_the_route_says_so():
    changes = given_up(waiting(summary=SAID), replace(RULES, omit_missing=True), NOW, POLICY)
    (code_check,) = (apply(ended(owed(), code_check=waiting()), changes).code_check,)
    assert (len(changes), code_check.state, code_check.summary) == (1, CodeCheckStatus.OMITTED, SAID)
