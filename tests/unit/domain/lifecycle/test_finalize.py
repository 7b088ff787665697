from dataclasses import replace

import pytest

from bridge.domain.build import BuildState, Run
from bridge.domain.changes import BumpReportSeq, apply
from bridge.domain.circuit_breaker import RouteHealth
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.finalize import after_confirm, after_finalize
from bridge.domain.lifecycle.time_transitions import show_failing_call
from bridge.domain.outcomes import NotSent, OutcomeUnknown, ProjectMissing, Rejected, RunEmpty, RunMissing, RunStatus
from tests.support.builders import (
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    RUN,
    TOKEN,
    a_build,
    delivered,
    ended,
    finalized,
    lost,
    pending,
    report,
    stored,
)

AWAY = 3
HEALTHY = RouteHealth(total_outage_us=0)
SAID = "what TestNod said"
AGAIN = [
    Rejected(status=429, message=SAID),
    Rejected(status=422, message=SAID),
    NotSent(message=SAID),
    OutcomeUnknown(message=SAID),
]
NO_RUN = [RunMissing(message="Test run not found"), RunEmpty(message="No uploads received")]
OLDER = Run(test_run_id="run-0", test_run_url="", opened_at=0, status="processed", finalized_at=1)


def after(outcome, *things, **values):
    things = things or (delivered(), stored())
    build = ended(*things, **{"report_seq": 4, **values})
    return apply(build, after_finalize(build, outcome, NOW, POLICY, AWAY))


def confirmed(outcome, *things, **values):
    things = things or (delivered(), stored())
    build = finalized(*things, **{"confirm_until": NOW + HOUR, **values})
    return apply(build, after_confirm(build, outcome, NOW, POLICY, HEALTHY))


# -- the finalize of a batch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "processing", "processed", "failed"])
def test_a_run_is_finalized_up_to_the_batch_that_the_visit_read(status):
    trouble = {"finalize_attempts": 3, "finalize_failing_since": 5, "last_error": SAID, "stuck_reason": SAID}
    build = after(RunStatus(status=status), **trouble, confirm_attempts=7)

    assert (build.state, build.finalized_seq, build.report_seq) == (BuildState.FINALIZED, 4, 4)
    assert (build.finalized_at, build.runs[-1].status, build.runs[-1].finalized_at) == (NOW, status, NOW)
    assert (build.finalize_attempts, build.finalize_failing_since, build.confirm_attempts) == (0, None, 0)
    assert (build.last_error, build.stuck_reason) == (None, None)


def test_what_is_still_owed_is_the_next_batch_and_its_hold_begins_now():
    build = after(RunStatus(status="processing"), delivered(), pending(2), stored())

    assert (build.finalized_seq, build.report_seq) == (4, 5)
    assert (build.finalize_hold_since, build.outage_us_at_hold) == (NOW, AWAY)


def test_a_finalize_answers_for_the_newest_run():
    build = after(RunStatus(status="processing"), delivered(), stored(), OLDER, RUN)

    assert [run.status for run in build.runs] == ["processed", "processing"]


def test_a_run_that_left_pending_needs_no_confirming():
    assert after(RunStatus(status="processing"), confirm_until=NOW + 1).confirm_until is None


def test_a_pending_run_is_confirmed_soon_and_for_as_long_as_is_set():
    build = after(RunStatus(status="pending"))

    assert build.confirm_until == NOW + POLICY.confirm_timeout
    assert NOW + SECOND // 2 <= build.confirm_due_at <= NOW + SECOND


def test_after_a_lost_registration_one_last_confirm_is_made_at_the_end():
    build = after(RunStatus(status="processing"), delivered(), stored(), lost(2))

    assert build.confirm_until == build.confirm_due_at == NOW + POLICY.confirm_timeout


@pytest.mark.parametrize("outcome", NO_RUN)
def test_a_build_without_a_run_is_closed(outcome):
    build = after(outcome, delivered(), lost(), runs=(), stuck_reason="TestNod has been failing finalize")

    assert (build.state, build.finalized_seq, build.finalized_at) == (BuildState.NO_RUN, 4, NOW)
    assert (build.confirm_until, build.stuck_reason) == (None, None)


@pytest.mark.parametrize("outcome", NO_RUN)
def test_a_closed_build_that_had_registered_reports_is_shown_as_stuck(outcome):
    build = after(outcome, delivered(), stored())

    assert build.state is BuildState.NO_RUN
    assert build.stuck_reason == f"TestNod answered finalize with: {outcome.message} Reports had been registered there."


@pytest.mark.parametrize("outcome", NO_RUN)
def test_what_a_closed_build_still_owes_is_the_next_batch(outcome):
    build = after(outcome, delivered(), pending(2), stored())

    assert (build.finalized_seq, build.report_seq) == (4, 5)


@pytest.mark.parametrize("call", [after_finalize, after_confirm])
def test_a_missing_project_changes_nothing(call):
    build = finalized(delivered(), stored()) if call is after_confirm else ended(delivered(), stored())
    shown = HEALTHY if call is after_confirm else AWAY

    assert call(build, ProjectMissing(message="Project not found."), NOW, POLICY, shown) == ()


@pytest.mark.parametrize("outcome", AGAIN)
def test_a_finalize_that_came_to_nothing_is_called_again(outcome):
    build = after(outcome, finalize_attempts=2)

    assert (build.state, build.finalized_seq, build.finalize_attempts) == (BuildState.ENDED, 0, 3)
    assert NOW + 2 * SECOND <= build.finalize_due_at <= NOW + 4 * SECOND
    assert (build.finalize_failing_since, build.last_error, build.stuck_reason) == (NOW, SAID, None)


@pytest.mark.parametrize("outcome", AGAIN)
def test_a_finalize_that_never_goes_through_is_called_for_ever_and_shown_as_stuck(outcome):
    build = after(outcome, finalize_attempts=10_000, finalize_failing_since=NOW - POLICY.confirm_timeout)

    assert build.state is BuildState.ENDED
    assert NOW + POLICY.retry_max_delay // 2 <= build.finalize_due_at <= NOW + POLICY.retry_max_delay
    assert build.stuck_reason == f"TestNod has been failing finalize: {SAID}"
    assert build.finalize_failing_since == NOW - POLICY.confirm_timeout


def test_a_finalize_sees_only_the_batch_of_its_visit_however_many_came_meanwhile():
    read = ended(delivered(), stored(), report_seq=4)
    changes = after_finalize(read, RunStatus(status="processing"), NOW, POLICY, AWAY)

    ledger = apply(apply(read, [BumpReportSeq()]), changes)

    assert (ledger.finalized_seq, ledger.report_seq) == (4, 5)


@pytest.mark.parametrize("outcome", [RunStatus(status="processed"), RunMissing(message=SAID)])
def test_a_build_without_a_run_gets_the_values_of_a_finalized_one(outcome):
    build = after(outcome, delivered(), stored(), report_seq=9)

    assert (build.finalized_seq, build.finalized_at, build.confirm_until) == (9, NOW, None)


# -- those that confirm ------------------------------------------------------------------------------------------


def test_a_run_that_is_still_pending_is_asked_about_again_later():
    build = confirmed(RunStatus(status="pending"), confirm_attempts=3)

    assert (build.confirm_attempts, build.confirm_until, build.stuck_reason) == (4, NOW + HOUR, None)
    assert NOW + 8 * SECOND <= build.confirm_due_at <= NOW + 16 * SECOND


def test_the_last_time_is_at_the_end():
    assert confirmed(RunStatus(status="pending"), confirm_attempts=20, confirm_until=NOW + 3).confirm_due_at == NOW + 3


def test_a_run_that_is_pending_to_the_end_is_stuck():
    build = confirmed(RunStatus(status="pending"), confirm_until=NOW)

    assert build.confirm_until is None
    assert build.stuck_reason == "run is pending 1 hour after finalize"


def test_a_stuck_run_says_how_many_registrations_were_lost():
    gone = replace(report(1), has_bytes=False)
    build = confirmed(RunStatus(status="pending"), delivered(), gone, stored(), lost(2), lost(3), confirm_until=NOW)

    assert "; 2 lost registrations may hold it, and it is not replaced: " in build.stuck_reason


def test_a_run_that_left_pending_is_not_stuck_and_not_asked_about_again():
    build = confirmed(RunStatus(status="processed"), stuck_reason=SAID, last_error=SAID)

    assert (build.confirm_until, build.stuck_reason, build.last_error, build.runs[-1].status) == (
        None,
        None,
        None,
        "processed",
    )


@pytest.mark.parametrize(("until", "kept"), [(NOW + HOUR, NOW + HOUR), (NOW, None)], ids=["before", "at the end"])
def test_after_a_lost_registration_a_run_that_left_pending_is_asked_about_once_more_at_the_end(until, kept):
    build = confirmed(RunStatus(status="processed"), delivered(), stored(), lost(2), confirm_until=until)

    assert build.confirm_until == kept
    assert kept is None or build.confirm_due_at == kept


@pytest.mark.parametrize("outcome", NO_RUN)
def test_a_run_that_is_no_longer_there_is_stuck(outcome):
    build = confirmed(outcome)

    assert build.confirm_until is None
    assert build.stuck_reason == f"TestNod no longer has the run: {outcome.message}"


@pytest.mark.parametrize("outcome", AGAIN)
def test_a_confirm_that_came_to_nothing_is_made_again(outcome):
    build = confirmed(outcome)

    assert (build.confirm_attempts, build.last_error, build.stuck_reason) == (1, SAID, None)
    assert NOW + SECOND <= build.confirm_due_at <= NOW + 2 * SECOND


@pytest.mark.parametrize("outcome", AGAIN)
def test_a_last_confirm_without_an_answer_says_nothing_of_the_run_and_is_made_again(outcome):
    build = confirmed(outcome, confirm_until=NOW)

    assert (build.confirm_until, build.stuck_reason, build.finalize_failing_since) == (NOW, None, NOW)
    assert build.confirm_due_at > NOW


@pytest.mark.parametrize("outcome", AGAIN)
def test_confirms_that_come_to_nothing_for_long_mean_that_the_build_is_stuck(outcome):
    build = confirmed(outcome, finalize_failing_since=NOW - POLICY.confirm_timeout)

    assert build.stuck_reason == f"TestNod has been failing finalize: {SAID}"
    assert build.confirm_until is not None


def test_an_answer_ends_the_time_in_which_confirms_came_to_nothing():
    failing = {"finalize_failing_since": NOW - MINUTE, "last_error": SAID}

    for status in ("pending", "processed"):
        build = confirmed(RunStatus(status=status), **failing)
        assert (build.finalize_failing_since, build.last_error) == (None, None)


def test_confirming_never_finalizes_another_batch():
    build = confirmed(RunStatus(status="pending"), report_seq=5)

    assert (build.state, build.finalized_seq, build.fencing_token) == (BuildState.FINALIZED, 1, TOKEN)
    assert build.finalized_at == NOW - MINUTE // 2


# -- runs of an earlier project_token ----------------------------------------------------------------------------

EARLIER, TODAY = replace(RUN, project_id="old"), replace(RUN, test_run_id="run-2", project_id="new")
PROCESSED = RunStatus(status="processed")


@pytest.mark.parametrize("call", [after_finalize, after_confirm])
def test_a_run_that_stays_pending_in_another_project_is_shown_as_stuck(call):
    runs = {"runs": (EARLIER, TODAY)}
    if call is after_finalize:
        build = after(PROCESSED, delivered(), stored(), **runs)
    else:
        confirmed = finalized(delivered(), stored(), confirm_until=NOW + HOUR, **runs)
        build = apply(confirmed, after_confirm(confirmed, PROCESSED, NOW, POLICY, HEALTHY))

    assert build.state is BuildState.FINALIZED
    assert "earlier project_token" in build.stuck_reason
    assert EARLIER.test_run_url in build.stuck_reason


@pytest.mark.parametrize(
    "runs",
    [
        (replace(EARLIER, status="processed"), TODAY),
        (replace(EARLIER, project_id="new"), TODAY),
        (replace(EARLIER, project_id=""), TODAY),
        (EARLIER, replace(TODAY, project_id="")),
        (EARLIER,),
    ],
    ids=["it left pending", "the same project", "its project unknown", "today's unknown", "the only run"],
)
def test_runs_that_left_pending_or_may_be_of_the_same_project_are_not_stuck(runs):
    assert after(PROCESSED, delivered(), stored(), runs=runs).stuck_reason is None


@pytest.mark.parametrize(("short_by", "stuck"), [(1, False), (0, True)])
def test_a_call_that_fails_for_as_long_as_a_run_is_confirmed_means_that_its_build_is_stuck(short_by, stuck):
    change = show_failing_call(NOW - POLICY.confirm_timeout + short_by, NOW, POLICY, "finalize", "answered 500")

    build = apply(a_build(), [change])

    assert build.last_error == "answered 500"
    assert build.stuck_reason == ("TestNod has been failing finalize: answered 500" if stuck else None)
