from dataclasses import replace

import pytest

from bridge.domain.build import BuildState, DeliveryState, DeliveryTarget, RegistrationState, Run
from bridge.domain.changes import apply
from bridge.domain.circuit_breaker import TESTNOD, RouteHealth
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.finalize import after_confirm, after_finalize, build_id_to_finalize
from bridge.domain.lifecycle.replacement import ASK_AGAIN_AFTER, is_replaced_if_pending, may_be_replaced, must_ask_again
from bridge.domain.lifecycle.unreadable_body import DAMAGE_TIMEOUT
from bridge.domain.lifecycle.upload import after_register, registration_succeeded, upload_succeeded
from bridge.domain.outcomes import NotSent, OutcomeUnknown, Registered, RunEmpty, RunMissing, RunStatus
from bridge.domain.plan import plan
from bridge.domain.steps import Apply, Execute, Finalize, Register, Wait
from tests.support.builders import (
    HOUR,
    MINUTE,
    NOW,
    PARAMETERS,
    POLICY,
    RUN,
    a_build,
    breakers,
    dead,
    delivered,
    failure_unreported,
    finalized,
    lost,
    opened,
    pending,
    report,
    requested,
    stored,
)

HEALTHY = RouteHealth(total_outage_us=0)
PENDING, PROCESSING = RunStatus(status="pending"), RunStatus(status="processing")
SECOND_ID = f"{PARAMETERS.build_id}.2"
OFF = replace(POLICY, replace_stuck_runs=False)


def stuck(*things, **values):
    """Return a finalized build whose run has been pending for `polling.confirm_timeout`, with a lost registration."""
    given = things or (delivered(1), delivered(2), stored(1, 1), lost(2, 2), stored(3, 2))
    runs = {"runs": (replace(RUN, status="pending", finalized_at=NOW - HOUR),)}
    return finalized(*given, **{"confirm_until": NOW, "confirm_due_at": NOW, **runs, **values})


def answered(build, outcome=PENDING, policy=POLICY, health=HEALTHY, *, now=NOW, **values):
    return apply(build, after_confirm(build, outcome, now, policy, health, **values))


def replaced(*things, **values):
    return answered(stuck(*things, **values))


def parameters(generation, **values):
    return replace(PARAMETERS, build_id=PARAMETERS.build_id_of(generation), generation=generation, **values)


# -- the build_id of a generation --------------------------------------------------------------------------------


def test_a_generation_has_the_build_id_of_the_route_with_its_number():
    for known in (PARAMETERS, parameters(2)):
        assert [known.build_id_of(number) for number in (1, 2, 3)] == ["codearts-job-1", SECOND_ID, "codearts-job-1.3"]


def test_a_build_id_of_the_route_that_ends_like_a_generation_keeps_its_end():
    own = replace(PARAMETERS, build_id="job.2")

    assert (own.build_id_of(1), own.build_id_of(2)) == ("job.2", "job.2.2")
    assert replace(own, build_id="job.2.2", generation=2).build_id_of(1) == "job.2"


# -- when a run is replaced ----------------------------------------------------------------------------------------


def test_a_run_that_stays_pending_after_a_lost_registration_is_given_up_and_all_its_reports_are_pending_again():
    build = replaced()

    assert (build.run_parameters.generation, build.run_parameters.build_id) == (2, SECOND_ID)
    assert {delivery.state for delivery in build.deliveries.values()} == {DeliveryState.PENDING}
    assert build.report_seq == build.finalized_seq + 1
    assert (build.confirm_until, build.stuck_reason, build.last_error) == (None, None, None)


def test_the_whole_build_is_registered_again_under_the_next_build_id_one_first():
    step = plan(replaced(), NOW, POLICY, breakers())
    assert isinstance(step, Apply)
    assert step.event == "build_reopened"

    build = apply(replaced(), step.changes)

    assert build.state is BuildState.ENDED
    assert plan(build, NOW, POLICY, breakers()) == Execute((Register(1),))


def test_a_report_that_is_sent_again_has_a_new_give_up_clock_and_keeps_the_day_of_its_first_delivery():
    before = delivered(1, first_failure_at=5, attempts=9, rejected_since=5, outage_us_at_first_failure=7)
    build = replaced(before, stored(1), lost(2))
    again = build.deliveries[1]

    assert (again.pending_since, again.due_at, again.attempts) == (NOW, NOW, 0)
    assert (again.first_failure_at, again.rejected_since, again.outage_us_at_first_failure) == (None, None, 0)
    once_more = apply(build, upload_succeeded(build, build.registrations[1], NOW + HOUR))
    assert once_more.deliveries[1].delivered_at == before.delivered_at


@pytest.mark.parametrize("things", [(delivered(), stored()), (delivered(), stored(), failure_unreported(2))])
def test_a_run_without_a_lost_registration_is_not_replaced(things):
    assert answered(stuck(*things)).generation == 1


def test_a_run_is_not_replaced_before_the_time_is_over():
    build = answered(stuck(confirm_until=NOW + 1))

    assert (build.generation, build.confirm_until, build.confirm_due_at) == (1, NOW + 1, NOW + 1)


@pytest.mark.parametrize("outcome", [NotSent(message="?"), OutcomeUnknown(message="?")])
def test_confirms_that_failed_for_hours_replace_no_run_before_an_answer_shows_it_pending(outcome):
    waiting = answered(stuck(confirm_until=NOW - 9 * HOUR), outcome)
    assert (waiting.generation, waiting.confirm_until) == (1, NOW - 9 * HOUR)

    assert answered(waiting).generation == 2


def test_time_in_an_outage_since_the_finalize_does_not_count():
    build = stuck(confirm_until=NOW - HOUR, outage_us_at_hold=MINUTE)

    waiting = answered(build, health=replace(HEALTHY, testnod_outage_us=MINUTE + HOUR + SECOND))

    assert (waiting.generation, waiting.stuck_reason, waiting.confirm_due_at) == (1, None, NOW + SECOND)
    assert answered(build, health=replace(HEALTHY, testnod_outage_us=MINUTE + HOUR)).generation == 2


def test_an_outage_of_storage_alone_does_not_stop_the_clock_because_no_waiting_report_would_end_it():
    assert answered(stuck(), health=RouteHealth(total_outage_us=HOUR, in_outage=True)).generation == 2


def test_while_the_clock_is_doubted_no_run_is_replaced_or_called_stuck():
    waiting = answered(stuck(), health=replace(HEALTHY, clock_doubted=True))

    assert (waiting.generation, waiting.stuck_reason, waiting.confirm_until) == (1, None, NOW)
    assert waiting.confirm_due_at > NOW


def test_while_the_clock_is_doubted_a_run_without_a_lost_registration_is_not_called_stuck_either():
    waiting = answered(stuck(delivered(1), stored(1, 1)), health=replace(HEALTHY, clock_doubted=True))

    assert (waiting.stuck_reason, waiting.confirm_until) == (None, NOW)
    assert waiting.confirm_due_at > NOW


@pytest.mark.parametrize("status", ["processing", "processed", "failed"])
def test_a_run_that_was_seen_out_of_pending_is_never_replaced(status):
    seen = replace(RUN, status=status)
    build = answered(stuck(runs=(seen,)))

    assert (build.generation, build.confirm_until) == (1, None)
    assert "all delivered reports are in a run that has left pending" in build.stuck_reason
    assert build.runs == (seen,)


def test_a_finalize_that_finds_another_run_pending_does_not_make_one_pending_that_has_left():
    build = a_build(delivered(), stored(), lost(2), state=BuildState.ENDED, runs=(replace(RUN, status="processed"),))

    after = apply(build, after_finalize(build, PENDING, NOW, POLICY, 0))

    assert after.runs[-1].status == "processed"


def test_reports_of_an_earlier_run_that_left_pending_are_not_sent_again():
    left, held = replace(RUN, status="processed"), Run(test_run_id="run-2", test_run_url="", opened_at=NOW)
    build = replaced(
        delivered(1), delivered(2), stored(1, 1), stored(2, 2, test_run_id="run-2"), lost(3, 2), runs=(left, held)
    )

    assert [build.deliveries[key].state for key in (1, 2)] == [DeliveryState.DELIVERED, DeliveryState.PENDING]


def test_dead_reports_stay_dead_and_other_targets_get_nothing_again():
    copy = replace(delivered(3, target=DeliveryTarget.ARCHIVE), report_id=1)
    build = replaced(delivered(1), dead(2), copy, stored(1), lost(2))

    states = [build.deliveries[key].state for key in (1, 2, 3)]
    assert states == [DeliveryState.PENDING, DeliveryState.DEAD, DeliveryState.DELIVERED]


def test_a_report_that_arrived_meanwhile_goes_to_the_newest_run():
    build = apply(replaced(delivered(1), stored(1), lost(2)), ())
    late = replace(
        build, deliveries=build.deliveries.with_rows([pending(9)]), reports=build.reports.with_rows([report(9)])
    )

    assert {delivery.id for delivery in late.pending(DeliveryTarget.TESTNOD)} == {1, 9}
    assert late.run_parameters.build_id == SECOND_ID


# -- when it is not: stuck_reason says why -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "policy", "why"),
    [
        ({}, OFF, "delivery.replace_stuck_runs is false"),
        ({"reports_gone": True}, POLICY, "the bytes of 1 report are gone"),
        ({"run_parameters": replace(PARAMETERS, replaceable=False)}, POLICY, "the ledger was restored"),
    ],
    ids=["off", "no bytes", "restored"],
)
def test_a_stuck_run_that_is_not_replaced_says_why(values, policy, why):
    gone = values.pop("reports_gone", False)
    things = (delivered(), stored(), lost(2), *((report(1, has_bytes=False),) if gone else ()))

    build = answered(stuck(*things, **values), policy=policy)

    assert (build.generation, build.confirm_until) == (1, None)
    assert f"1 lost registration may hold it, and it is not replaced: {why}" in build.stuck_reason


def test_the_third_run_that_stays_pending_is_the_last():
    third = stuck(
        *(delivered(), stored(1, generation=3), lost(2, generation=3)),
        run_parameters=parameters(3),
        runs=(replace(RUN, status="pending", generation=3),),
    )

    build = answered(third)

    assert build.generation == 3
    assert "3 runs in a row have stayed pending" in build.stuck_reason


def test_only_lost_registrations_of_the_present_run_count():
    second = stuck(
        *(delivered(), stored(1), lost(2), stored(3, generation=2)),
        run_parameters=parameters(2),
        runs=(replace(RUN, status="pending"), Run(test_run_id="run-2", test_run_url="", opened_at=NOW, generation=2)),
    )

    build = answered(second)

    assert (build.generation, build.stuck_reason) == (2, "run is pending 1 hour after finalize")


def test_reports_that_the_spool_does_not_return_are_waited_for_and_in_the_end_the_run_is_stuck():
    waiting = answered(stuck(), unreadable="The disk is away.")
    assert (waiting.generation, waiting.confirm_until, waiting.last_error) == (1, NOW, "The disk is away.")
    assert waiting.confirm_due_at > NOW
    assert answered(waiting).generation == 2

    given_up = answered(waiting, unreadable="The disk is away.", now=NOW + DAMAGE_TIMEOUT)

    assert given_up.generation == 1
    assert "a report of it cannot be read (The disk is away)" in given_up.stuck_reason


def test_a_run_whose_time_is_over_only_during_the_call_is_asked_about_once_more_after_the_reports_were_read():
    waiting = answered(stuck(), replaceable=False)

    assert (waiting.generation, waiting.confirm_until, waiting.stuck_reason) == (1, NOW, None)
    assert waiting.confirm_due_at > NOW


def test_reports_are_read_only_before_a_call_that_may_replace_their_run():
    assert is_replaced_if_pending(stuck(), NOW, POLICY, HEALTHY)
    assert not is_replaced_if_pending(stuck(confirm_until=NOW + 1), NOW, POLICY, HEALTHY)
    assert not is_replaced_if_pending(stuck(), NOW, OFF, HEALTHY)
    assert not is_replaced_if_pending(stuck(delivered(), stored()), NOW, POLICY, HEALTHY)


# -- before the next run is opened -------------------------------------------------------------------------------------


def reopened(*things, **values):
    build = replaced(*things, **values)
    step = plan(build, NOW, POLICY, breakers())
    assert isinstance(step, Apply)
    return apply(build, step.changes)


def test_if_the_next_run_is_not_opened_soon_the_status_of_the_last_one_is_asked_first():
    later = NOW + ASK_AGAIN_AFTER + 1
    build = reopened()

    assert not must_ask_again(build, NOW + ASK_AGAIN_AFTER)
    assert plan(build, later, POLICY, breakers()) == Execute((Finalize(confirm=True),))
    assert build_id_to_finalize(build, confirm=True) == PARAMETERS.build_id
    assert build_id_to_finalize(build, confirm=False) == SECOND_ID


@pytest.mark.parametrize("outcome", [PENDING, RunMissing(message="?"), RunEmpty(message="?")])
def test_a_run_that_is_still_pending_or_gone_stays_replaced(outcome):
    later = NOW + HOUR

    build = answered(reopened(), outcome, now=later)

    assert build.generation == 2
    assert plan(build, later, POLICY, breakers()) == Execute((Register(1),))


def test_a_run_that_has_left_pending_meanwhile_counts_and_nothing_is_sent_again():
    build = answered(reopened(), PROCESSING, now=NOW + HOUR)

    assert (build.generation, build.run_parameters.build_id) == (1, PARAMETERS.build_id)
    assert {delivery.state for delivery in build.deliveries.values()} == {DeliveryState.DELIVERED}
    assert [run.status for run in build.runs] == ["processing"]
    assert plan(build, NOW + HOUR, POLICY, breakers()) == Execute((Finalize(confirm=False),))
    assert build_id_to_finalize(build, confirm=False) == PARAMETERS.build_id


def test_a_report_that_came_since_stays_pending_if_the_run_counts_again():
    build = reopened()
    late = replace(
        build, deliveries=build.deliveries.with_rows([pending(9)]), reports=build.reports.with_rows([report(9)])
    )

    counts = answered(late, PROCESSING, now=NOW + HOUR)

    assert [delivery.id for delivery in counts.pending(DeliveryTarget.TESTNOD)] == [9]


def test_while_testnod_is_away_nothing_is_opened_and_nothing_is_asked():
    step = plan(reopened(), NOW + HOUR, POLICY, breakers(opened(TESTNOD)))

    assert isinstance(step, Wait)
    assert step.waiting_on == TESTNOD


def test_once_a_register_was_called_for_the_next_run_nothing_is_asked_of_the_last_one():
    build = reopened()
    calling = replace(build, registrations=build.registrations.with_rows([requested(9, 1, generation=2)]))

    assert not must_ask_again(calling, NOW + HOUR)
    assert build_id_to_finalize(calling, confirm=True) == SECOND_ID


# -- registrations and runs of the run that was given up ---------------------------------------------------------------


def test_ids_that_arrive_late_belong_to_the_run_that_was_given_up_and_block_nothing():
    build = reopened()
    late = replace(
        build,
        registrations=build.registrations.with_rows([replace(failure_unreported(2, 2), due_at=NOW, generation=1)]),
    )

    assert late.unsettled() == []
    assert plan(late, NOW, POLICY, breakers()) == Execute((Register(1),))


def test_the_first_register_of_the_next_run_goes_alone_and_its_answer_shows_nothing_of_the_last_run():
    build = reopened()
    asked = requested(9, 1, generation=2)
    asking = replace(build, registrations=build.registrations.with_rows([asked]))
    answer = Registered(
        test_run_id="run-2", upload_id="u", test_run_url="", presigned_url="https://s/1", expires_at=None
    )

    after = apply(asking, registration_succeeded(asking, asked, answer, NOW))

    assert [(run.test_run_id, run.status, run.generation) for run in after.runs] == [
        ("run-1", "pending", 1),
        ("run-2", None, 2),
    ]
    assert [run.test_run_id for run in after.current_runs] == ["run-2"]


def test_a_lost_answer_for_the_next_run_counts_for_that_run():
    build = reopened()
    asked = requested(9, 1, generation=2)
    asking = replace(build, registrations=build.registrations.with_rows([asked]))

    after = apply(asking, after_register(asking, asked, OutcomeUnknown(message="cut"), NOW, POLICY, HEALTHY))

    assert after.registrations[9].state is RegistrationState.LOST
    assert [each.id for each in after.current_registrations] == [9]


# -- how long bytes are kept -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "kept"),
    [
        (a_build(delivered(), stored()), True),
        (stuck(), True),
        (stuck(runs=(replace(RUN, status="processed"),)), False),
        (stuck(confirm_until=None), False),
        (stuck(state=BuildState.NO_RUN, confirm_until=None), False),
    ],
    ids=["open", "pending", "left pending", "nothing to confirm", "no run"],
)
def test_bytes_are_kept_until_the_run_has_left_pending(build, kept):
    assert may_be_replaced(build) is kept
