from dataclasses import replace

import pytest

from bridge.domain.build import BuildRecord, BuildState, DeliveryState, EndReason, RegistrationState, UploadMetadata
from bridge.domain.changes import apply
from bridge.domain.circuit_breaker import (
    CODEARTS,
    TESTNOD,
    CircuitBreaker,
    register_breaker,
    route_breaker,
    storage_breaker,
)
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle import context as lifecycle_context
from bridge.domain.lifecycle.build_record import MAX_MISSING_ATTEMPTS
from bridge.domain.lifecycle.finalize import after_finalize
from bridge.domain.lifecycle.time_transitions import PUT_MARGIN
from bridge.domain.outcomes import RunStatus
from bridge.domain.plan import plan
from bridge.domain.routing import Route
from bridge.domain.rows import Rows
from bridge.domain.steps import (
    Apply,
    Execute,
    FetchRecord,
    Finalize,
    Poll,
    Probe,
    Put,
    Register,
    ReportUploadFailed,
    Wait,
)
from tests.support.builders import (
    ASKING,
    HOUR,
    MINUTE,
    NOW,
    PARAMETERS,
    POLICY,
    ROUTE,
    RULES,
    RUN,
    TOKEN,
    a_build,
    breakers,
    dead,
    delivered,
    ended,
    failed,
    failure_unreported,
    finalized,
    lost,
    opened,
    pending,
    registered,
    report,
    requested,
    stored,
)

B, D, R = BuildState, DeliveryState, RegistrationState
STORAGE, SUSPENDED, REGISTER = storage_breaker(ROUTE), route_breaker(ROUTE), register_breaker(ROUTE)


def calls(build, *tripped, policy=POLICY, now=NOW, probing=()):
    """Return the calls that are made now; none where the step is another."""
    step = plan(build, now, policy, breakers(*tripped, probing=probing))
    return step.calls if isinstance(step, Execute) else ()


def waits(build, *tripped, policy=POLICY, now=NOW):
    step = plan(build, now, policy, breakers(*tripped))
    assert isinstance(step, Wait), step
    return step


def written(build, *tripped, policy=POLICY, now=NOW):
    """Return the event, and the build as it is after it was written down."""
    step = plan(build, now, policy, breakers(*tripped))
    assert isinstance(step, Apply), step
    return step.event, apply(build, step.changes)


# -- what has become true without any call: registrations and deliveries -----------------------------------------


def test_a_register_of_an_earlier_owner_is_lost_and_its_report_tried_again_later():
    build = a_build(
        pending(), pending(2), requested(1, fencing_token=TOKEN - 1), requested(2, 2, fencing_token=TOKEN - 1)
    )

    event, after = written(build, CircuitBreaker(name=TESTNOD, total_outage_us=4))

    assert event == "register_interrupted"
    assert [registration.state for registration in after.registrations.values()] == [R.LOST, R.LOST]
    for delivery in after.deliveries.values():
        assert (delivery.attempts, delivery.first_failure_at, delivery.outage_us_at_first_failure) == (1, NOW, 4)
        assert NOW < delivery.due_at <= NOW + SECOND
    assert calls(after) == ()


def test_a_register_interrupted_for_a_dead_report_leaves_it_dead():
    _, after = written(a_build(dead(), requested(1, fencing_token=TOKEN - 1)))

    assert (after.registrations[1].state, after.deliveries[1]) == (R.LOST, dead())


@pytest.mark.parametrize(
    ("registration", "due_at"),
    [
        (registered(1, expires_at=NOW + PUT_MARGIN), NOW),
        (
            registered(1, expires_at=NOW + PUT_MARGIN, put_outcome_unknown=True),
            NOW + PUT_MARGIN + POLICY.max_put_duration,
        ),
        (registered(1, expires_at=NOW - 1, fencing_token=TOKEN - 1), NOW - 1 + POLICY.max_put_duration),
        (registered(1, expires_at=None), NOW),
    ],
    ids=["nothing arrived", "something may have arrived", "another visit may have sent it", "expiry unknown"],
)
def test_a_url_that_has_run_out_is_reported_failed_once_no_put_can_arrive(registration, due_at):
    event, after = written(a_build(pending(), registration))

    assert event == "url_expired"
    assert (after.registrations[1].state, after.registrations[1].due_at) == (R.FAILURE_UNREPORTED, due_at)
    assert after.registrations[1].failure == "the presigned URL expired before the upload went through"


def test_what_storage_said_is_what_testnod_is_told_of_a_url_that_has_run_out():
    _, after = written(a_build(pending(), registered(1, attempts=9, expires_at=NOW, failure="storage answered 500")))

    assert (after.registrations[1].failure, after.registrations[1].attempts) == ("storage answered 500", 0)


def test_urls_that_run_out_one_after_the_other_are_backed_off_and_start_the_give_up_clock():
    _, after = written(a_build(pending(1, attempts=5), registered(1, expires_at=NOW)))

    delivery = after.deliveries[1]
    assert (delivery.attempts, delivery.first_failure_at) == (6, NOW)
    assert NOW + 16 * SECOND <= delivery.due_at <= NOW + 32 * SECOND


def test_a_put_is_not_begun_in_the_last_seconds_of_its_url():
    registration = registered(1, expires_at=NOW + PUT_MARGIN + 1)

    assert calls(a_build(pending(), registration)) == (Put(1),)
    assert waits(a_build(pending(), replace(registration, due_at=NOW + HOUR))).until == NOW + 1


GIVE_UP = POLICY.give_up_after


def test_a_report_that_failed_for_too_long_is_dead_with_its_last_error():
    build = a_build(pending(1, first_failure_at=NOW - GIVE_UP, last_error="storage answered 500"), registered())

    event, after = written(build)

    assert event == "delivery_died"
    assert after.deliveries[1].state is D.DEAD
    assert "storage answered 500" in after.deliveries[1].last_error


def test_a_delivery_that_dies_makes_its_named_registration_failed_owed_in_the_same_commit():
    build = a_build(
        pending(1, first_failure_at=NOW - GIVE_UP), registered(1, put_outcome_unknown=True), lost(2), failed(3)
    )

    _, after = written(build)

    registration = after.registrations[1]
    assert (registration.state, registration.due_at) == (
        R.FAILURE_UNREPORTED,
        NOW + 4 * MINUTE + POLICY.max_put_duration,
    )
    assert registration.failure == after.deliveries[1].last_error
    assert [after.registrations[other].state for other in (2, 3)] == [R.LOST, R.FAILED]


@pytest.mark.parametrize(
    ("delivery", "tripped"),
    [
        (pending(1, first_failure_at=NOW - GIVE_UP + 1), ()),
        (pending(1, pending_since=NOW - 2 * GIVE_UP), ()),
        (pending(1, first_failure_at=NOW - GIVE_UP), [CircuitBreaker(name=TESTNOD, total_outage_us=1)]),
        (pending(1, first_failure_at=NOW - GIVE_UP), [CircuitBreaker(name=STORAGE, total_outage_us=1)]),
        (pending(1, first_failure_at=NOW - GIVE_UP), [opened(SUSPENDED)]),
    ],
    ids=["not long enough", "never tried", "TestNod was away", "storage was away", "the route is away"],
)
def test_a_report_lives_while_the_give_up_clock_has_not_run_out_or_stands_still(delivery, tripped):
    step = plan(a_build(delivery, run_parameters=PARAMETERS), NOW, POLICY, breakers(*tripped))

    assert not isinstance(step, Apply)


@pytest.mark.parametrize("breaker", [TESTNOD, STORAGE, SUSPENDED, REGISTER])
def test_a_give_up_clock_that_stands_still_wakes_no_build_just_before_it_runs_out(breaker):
    tripped = opened(breaker, probe_at=NOW + HOUR)
    build = a_build(pending(1, first_failure_at=NOW - GIVE_UP - MINUTE + 1), run_parameters=PARAMETERS)

    assert waits(build, tripped).until == NOW + POLICY.retry_max_delay


def test_time_away_before_the_first_failure_does_not_count():
    build = a_build(
        pending(1, first_failure_at=NOW - GIVE_UP, outage_us_at_first_failure=MINUTE), run_parameters=PARAMETERS
    )

    assert written(build, CircuitBreaker(name=TESTNOD, total_outage_us=MINUTE))[0] == "delivery_died"


def test_no_report_is_given_up_while_its_route_is_gone():
    build = a_build(pending(1, first_failure_at=NOW - GIVE_UP), run_parameters=replace(PARAMETERS, route="gone"))

    assert waits(build).blocked_reason


def test_a_caller_is_not_judged_before_the_route_is_known():
    build = a_build(pending(), report(1, caller_routes=("other",)))

    assert FetchRecord() in calls(build, policy=ASKING)


# -- what has become true without any call: the build's end ------------------------------------------------------


@pytest.mark.parametrize("state", [B.FINALIZED, B.NO_RUN])
def test_whatever_comes_after_the_last_finalize_is_another_batch(state):
    build = finalized(delivered(), stored(), state=state, report_seq=2, finalize_attempts=3, finalize_due_at=NOW + HOUR)

    event, after = written(build, CircuitBreaker(name=TESTNOD, total_outage_us=4))

    assert event == "build_reopened"
    assert (after.state, after.finalize_attempts, after.finalize_due_at) == (B.ENDED, 0, 0)
    assert (after.finalize_hold_since, after.outage_us_at_hold) == (NOW, 4)


@pytest.mark.parametrize("state", [B.FINALIZED, B.NO_RUN])
def test_a_build_whose_batch_is_finalized_rests(state):
    assert waits(finalized(delivered(), stored(), state=state)) == Wait(until=None)


@pytest.mark.parametrize("by", EndReason)
def test_an_end_that_was_only_guessed_is_taken_back_by_a_newer_report(by):
    looked = {"polls": 9, "poll_due_at": NOW + HOUR, "poll_reserved": True, "not_found_since": 1}
    build = ended(delivered(), pending(2), stored(), end_reason=by, ended_report_at=NOW - HOUR, **looked)
    step = plan(build, NOW, ASKING, breakers())

    if by in {EndReason.IDLE, EndReason.NOT_FOUND, EndReason.MAX_AGE}:
        after = apply(build, step.changes)
        assert step.event == "end_reverted"
        assert (after.state, after.ended_at, after.end_reason, after.not_found_since) == (B.OPEN, None, None, None)
        assert after.polls == 0
        assert calls(after, policy=ASKING)[0] == Poll(reserved=False)
    else:
        assert isinstance(step, Execute)


@pytest.mark.parametrize("by", [EndReason.IDLE, EndReason.NOT_FOUND, EndReason.MAX_AGE])
def test_a_guessed_end_holds_for_the_reports_it_has_seen(by):
    build = ended(delivered(), stored(), end_reason=by, ended_report_at=NOW - MINUTE, report_seq=5)

    assert calls(build) == (Finalize(confirm=False),)


def test_a_guessed_end_of_a_finalized_build_is_taken_back_too():
    build = finalized(
        delivered(), pending(2), stored(), end_reason=EndReason.IDLE, ended_report_at=NOW - HOUR, report_seq=2
    )

    _, after = written(build)

    assert written(after)[0] == "end_reverted"


def test_nothing_is_taken_back_of_a_finalized_build_that_got_nothing_new():
    build = finalized(delivered(), stored(), end_reason=EndReason.IDLE, ended_report_at=NOW - HOUR)

    assert waits(build).until is None


QUIET = [
    ({"complete_at": NOW}, POLICY, EndReason.CALLER),
    ({"complete_at": NOW}, ASKING, EndReason.CALLER),
    ({"last_report_at": NOW - POLICY.idle_timeout}, POLICY, EndReason.IDLE),
    ({"last_report_at": NOW - POLICY.max_age}, ASKING, EndReason.MAX_AGE),
    ({"last_report_at": NOW - POLICY.max_age}, replace(POLICY, idle_timeout=2 * POLICY.max_age), EndReason.MAX_AGE),
]


@pytest.mark.parametrize(("values", "policy", "by"), QUIET)
def test_a_build_ends_without_a_call(values, policy, by):
    build = a_build(pending(), **values)

    event, after = written(build, CircuitBreaker(name=TESTNOD, total_outage_us=4), policy=policy)

    assert event == "build_ended"
    assert (after.state, after.end_reason, after.ended_at) == (B.ENDED, by, NOW)
    assert (after.finalize_hold_since, after.outage_us_at_hold) == (NOW, 4)


def test_the_callers_word_is_better_than_a_guess():
    build = a_build(pending(), complete_at=NOW, last_report_at=NOW - POLICY.max_age)

    assert written(build)[1].end_reason is EndReason.CALLER


def test_a_build_is_looked_at_again_when_it_may_have_been_quiet_for_long_enough():
    build = a_build(delivered(), stored())

    assert waits(build).until == NOW - MINUTE + POLICY.idle_timeout
    assert waits(replace(build, last_report_at=NOW), policy=replace(POLICY, max_age=7)).until == NOW + 7


def test_where_codearts_can_be_asked_quiet_is_no_end():
    build = a_build(delivered(), stored(), last_report_at=NOW - HOUR, poll_due_at=NOW + HOUR)

    assert waits(build, policy=ASKING).until == NOW + HOUR


def test_an_end_is_not_written_twice():
    assert calls(ended(pending(), complete_at=NOW, last_report_at=NOW - 2 * POLICY.max_age)) == (Register(1),)


# -- describe ----------------------------------------------------------------------------------------------------


def test_a_build_is_described_before_anything_is_registered():
    build = a_build(pending(), poll_due_at=NOW + HOUR)

    assert calls(build, policy=ASKING) == (FetchRecord(),)
    assert calls(build, policy=POLICY) == (Register(1),)


@pytest.mark.parametrize(
    "values",
    [
        {"described_at": NOW},
        {"run_parameters": PARAMETERS},
        {"accepted_at": NOW - ASKING.record_timeout, "describe_attempts": 1, "describe_due_at": NOW},
        {"accepted_at": NOW - ASKING.record_timeout, "describe_due_at": NOW + ASKING.record_timeout + 1},
    ],
    ids=["described", "pinned", "waited long enough", "its place to ask is far away"],
)
def test_then_its_reports_are_registered(values):
    assert calls(a_build(pending(), poll_due_at=NOW + HOUR, **values), policy=ASKING) == (Register(1),)


GONE = {"complete_at": NOW, "record_missing": True, "describe_attempts": MAX_MISSING_ATTEMPTS}


@pytest.mark.parametrize(
    ("values", "goes"),
    [
        ({}, True),
        ({"complete_at": None}, False),  # CodeArts may not list a running build yet
        ({"record_missing": False}, False),  # the last answer was no answer
        ({"describe_attempts": MAX_MISSING_ATTEMPTS - 1}, False),
    ],
)
def test_a_complete_build_that_codearts_does_not_have_goes_without_its_record(values, goes):
    build = ended(pending(), accepted_at=NOW, describe_due_at=NOW + 3, **{**GONE, **values})

    assert (calls(build, policy=ASKING) == (Register(1),)) is goes


LATE = {"accepted_at": NOW - HOUR, "poll_due_at": NOW + HOUR}


def test_a_build_that_was_not_reconciled_for_long_is_described_all_the_same():
    assert calls(a_build(pending(), **LATE), policy=ASKING) == (FetchRecord(),)
    assert waits(a_build(pending(), **LATE, describe_due_at=NOW + 1), policy=ASKING).until == NOW + 1


def test_a_build_without_pending_deliveries_does_not_wait_for_its_record():
    checked = replace(ASKING, routes=(Route(name=ROUTE, code_check=RULES),))
    assert written(ended(delivered(), **LATE), policy=checked)[0] == "code_check_started"


def test_a_build_that_was_not_reconciled_for_long_does_not_wait_for_codearts_that_is_away():
    assert calls(a_build(pending(), **LATE), opened(CODEARTS, probe_at=NOW + HOUR), policy=ASKING) == (Register(1),)


def test_a_record_that_is_away_is_waited_for_no_longer_than_is_set():
    build = a_build(pending(), accepted_at=NOW, poll_due_at=NOW + HOUR, describe_due_at=NOW + HOUR)

    assert waits(build, policy=ASKING).until == NOW + ASKING.record_timeout


def test_a_record_is_asked_for_again_when_its_time_has_come():
    build = a_build(pending(), accepted_at=NOW, poll_due_at=NOW + HOUR, describe_due_at=NOW + 3)

    assert waits(build, policy=ASKING).until == NOW + 3


def test_a_build_that_owes_nothing_needs_no_record():
    assert waits(a_build(delivered(), poll_due_at=NOW + HOUR), policy=ASKING)


# -- poll --------------------------------------------------------------------------------------------------------


def polls(values, *tripped, policy=ASKING, probing=()):
    build = a_build(delivered(), stored(), **values)
    return [call for call in calls(build, *tripped, policy=policy, probing=probing) if isinstance(call, Poll)]


@pytest.mark.parametrize(
    ("values", "looks"),
    [
        ({"accepted_at": NOW - ASKING.poll_initial_delay}, True),
        ({"accepted_at": NOW - ASKING.poll_initial_delay + 1}, False),
        ({"poll_due_at": NOW}, True),
        ({"poll_due_at": NOW + 1}, False),
        ({"poll_due_at": NOW + 1, "poll_requested_at": NOW}, True),
        ({"poll_due_at": NOW + 1, "poll_requested_at": NOW, "polled_at": NOW - SECOND}, True),
        ({"poll_due_at": NOW + 1, "poll_requested_at": NOW, "polled_at": NOW - SECOND + 1}, False),
        ({"poll_due_at": NOW + 1, "poll_requested_at": NOW, "polled_at": NOW}, False),
        ({"poll_due_at": NOW + 1, "poll_requested_at": NOW, "poll_reserved": True}, False),
        ({"poll_due_at": NOW, "poll_requested_at": NOW, "poll_reserved": True}, True),
    ],
    ids=[
        "first look",
        "not yet",
        "due",
        "not due",
        "asked to look",
        "asked to look since",
        "looked less than a second before",
        "looked since",
        "asked to look, but its place is later",
        "its place has come",
    ],
)
def test_build_info_is_asked_when_it_is_due_or_a_poll_was_requested(values, looks):
    assert polls(values) == ([Poll(reserved=values.get("poll_reserved", False))] if looks else [])


def test_a_build_waits_for_its_next_look():
    assert waits(a_build(delivered(), poll_due_at=NOW + 9), policy=ASKING).until == NOW + 9
    assert waits(a_build(delivered(), accepted_at=NOW), policy=ASKING).until == NOW + ASKING.poll_initial_delay


def test_without_codearts_and_after_the_end_nothing_is_polled():
    assert polls({"poll_due_at": NOW, "poll_requested_at": NOW}, policy=POLICY) == []
    assert calls(ended(delivered(), stored(), poll_due_at=NOW, poll_requested_at=NOW), policy=ASKING) == (
        Finalize(confirm=False),
    )


# -- registers: order --------------------------------------------------------------------------------------------


def test_the_first_register_of_a_build_goes_alone():
    assert calls(a_build(pending(1), pending(2), pending(3))) == (Register(1),)


def test_nothing_is_registered_beside_the_first_one_of_a_build():
    failed_first = failure_unreported(1, 1, registered_at=None, due_at=NOW + HOUR)

    assert calls(a_build(pending(1), pending(2), failed_first)) == ()


def test_once_a_run_is_open_the_rest_go_side_by_side_as_places_are_free(monkeypatch):
    monkeypatch.setattr(lifecycle_context, "UPLOADS_AHEAD", 1)
    build = a_build(delivered(1), *map(pending, range(2, 9)), stored(1, 1))

    assert calls(build) == (Register(2), Register(3), Register(4), Register(5))
    assert calls(build, policy=replace(POLICY, concurrency_per_build=1)) == (Register(2),)


def test_registrations_that_testnod_knows_of_take_places_first(monkeypatch):
    monkeypatch.setattr(lifecycle_context, "UPLOADS_AHEAD", 1)
    build = a_build(*map(pending, range(1, 6)), registered(1, 1), registered(2, 2), failure_unreported(3, 3))

    assert calls(build) == (Put(1), Put(2), ReportUploadFailed(3), Register(4))
    assert calls(build, policy=replace(POLICY, concurrency_per_build=2)) == (Put(1), Put(2))


def test_the_first_register_of_each_batch_goes_alone_because_it_may_open_a_run():
    build = ended(delivered(1), pending(2), pending(3), stored(1, 1), report_seq=2, finalized_seq=1, finalized_at=NOW)

    assert calls(build) == (Register(2),)


def test_after_a_409_a_report_is_registered_again_alone():
    build = a_build(delivered(1), pending(2), pending(3, send_alone=True), pending(4), stored(1, 1))

    assert calls(build) == (Register(3),)
    assert calls(replace(build, registrations=Rows([stored(1, 1), registered(2, 2)]))) == (Put(2),)


@pytest.mark.parametrize("registration", [registered, failure_unreported])
def test_a_report_is_never_registered_while_it_has_a_registration_unsettled(registration):
    build = a_build(pending(), registration(1, due_at=NOW + 1))

    assert waits(build).until == NOW + 1


@pytest.mark.parametrize("registration", [failed(), lost()], ids=["failed", "lost"])
def test_a_report_whose_registration_came_to_nothing_is_registered_anew(registration):
    assert calls(a_build(pending(), registration)) == (Register(1),)


@pytest.mark.parametrize("delivery", [delivered(), dead()], ids=["delivered", "dead"])
def test_only_what_is_owed_is_registered(delivery):
    assert calls(a_build(delivery, run_parameters=PARAMETERS)) == ()


def test_a_register_waits_until_it_is_due():
    build = a_build(pending(1, due_at=NOW + 5), pending(2, due_at=NOW + 3))

    assert waits(build).until == NOW + 3
    assert calls(build, now=NOW + 3) == (Register(2),)


@pytest.mark.parametrize(
    ("registration", "call"),
    [(registered(1, due_at=NOW), Put(1)), (failure_unreported(1, due_at=NOW), ReportUploadFailed(1))],
)
@pytest.mark.parametrize("delivery", [pending(), dead()], ids=["pending", "dead"])
def test_what_testnod_was_told_of_is_brought_to_an_end(registration, call, delivery):
    assert call in calls(a_build(delivery, registration))
    assert calls(a_build(delivery, replace(registration, due_at=NOW + 1))) == ()


# -- routes ------------------------------------------------------------------------------------------------------


def test_a_build_that_no_route_takes_is_blocked_and_says_so():
    nowhere = replace(POLICY, routes=(Route(name=ROUTE, job_id=("other",)),))
    wait = waits(a_build(pending()), policy=nowhere)

    assert wait.until == NOW + POLICY.retry_max_delay
    assert wait.blocked_reason == "No route takes this build. Add or correct a [[routes]] table that matches it."


def test_a_build_whose_route_is_gone_is_blocked_and_says_so():
    build = a_build(pending(), registered(), run_parameters=replace(PARAMETERS, route="old"))
    wait = waits(build, opened(route_breaker("old")))

    assert (wait.waiting_on, wait.until) == (route_breaker("old"), NOW + 4 * MINUTE - PUT_MARGIN)
    assert waits(build).waiting_on is None  # a closed breaker would wake it at once, again and again
    assert wait.blocked_reason.startswith('Its route "old" is no longer in the settings.')


def test_a_build_whose_route_is_suspended_is_blocked_and_says_so():
    wait = waits(a_build(pending()), opened(SUSPENDED, reason="TestNod responded: Project not found."))

    assert (wait.waiting_on, wait.until) == (SUSPENDED, NOW + POLICY.retry_max_delay)
    assert wait.blocked_reason.startswith(f'Route "{ROUTE}": TestNod responded: Project not found.')


def test_a_route_of_another_build_being_suspended_holds_nothing():
    assert calls(a_build(pending()), opened(route_breaker("other")), opened(storage_breaker("other"))) == (Register(1),)


def test_the_pin_decides_whatever_the_routes_would_say_now():
    build = a_build(pending(), lost(), run_parameters=replace(PARAMETERS, route="pinned"))
    policy = replace(POLICY, routes=(Route(name="first"), Route(name="pinned")))

    assert calls(build, opened(route_breaker("first")), policy=policy) == (Register(1),)
    assert calls(build, opened(route_breaker("pinned")), policy=policy) == ()


def test_before_the_pin_record_and_upload_decide():
    policy = replace(POLICY, routes=(Route(name="main", branch=("main",)), Route(name="rest")))
    of_record = a_build(pending(), record=BuildRecord(branch="main"), upload_metadata=UploadMetadata(branch="other"))

    assert calls(of_record, opened(route_breaker("main")), policy=policy) == ()
    assert calls(a_build(pending()), opened(route_breaker("main")), policy=policy) == (Register(1),)


# -- breakers and probes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaker", [TESTNOD, SUSPENDED, REGISTER])
def test_a_live_url_needs_its_storage_and_no_other_upstream(breaker):
    assert calls(a_build(pending(), registered()), opened(breaker)) == (Put(1),)
    assert waits(a_build(pending(), registered()), opened(breaker), opened(STORAGE)).until


def test_while_only_registers_fail_one_visit_tries_and_the_others_wait():
    assert waits(a_build(pending()), opened(REGISTER)).waiting_on == REGISTER
    assert plan(a_build(pending()), NOW, POLICY, breakers(opened(REGISTER, probe_at=NOW))) == Probe(REGISTER)
    trying = breakers(opened(REGISTER, probe_at=NOW), probing=[REGISTER])
    assert plan(a_build(pending(), pending(2)), NOW, POLICY, trying) == Execute((Register(1),))
    assert calls(a_build(pending(), failure_unreported()), opened(REGISTER)) == (ReportUploadFailed(1),)


@pytest.mark.parametrize("registration", [None, failure_unreported()], ids=["register", "upload_failed"])
def test_while_testnod_is_away_nothing_of_it_is_called(registration):
    wait = waits(a_build(pending(), *([registration] if registration else [])), opened(TESTNOD))

    assert (wait.waiting_on, wait.blocked_reason) == (TESTNOD, None)
    assert NOW < wait.until <= NOW + POLICY.retry_max_delay


@pytest.mark.parametrize("breaker", [TESTNOD, SUSPENDED])
@pytest.mark.parametrize(
    "build", [ended(delivered(), stored()), finalized(delivered(), stored(), confirm_until=NOW + HOUR)]
)
def test_while_testnod_or_the_route_is_away_nothing_is_finalized(breaker, build):
    wait = waits(build, opened(breaker))

    assert (wait.waiting_on, wait.until) == (breaker, NOW + POLICY.retry_max_delay)


def test_testnod_is_not_probed_by_a_visit():
    assert waits(a_build(pending()), opened(TESTNOD, probe_at=NOW))


@pytest.mark.parametrize("due", [NOW - 1, NOW])
def test_storage_and_codearts_are_probed_by_a_visit_when_it_is_time(due):
    assert plan(a_build(pending()), NOW, POLICY, breakers(opened(STORAGE, probe_at=due))) == Probe(STORAGE)
    looking = a_build(delivered(), poll_due_at=NOW)
    assert plan(looking, NOW, ASKING, breakers(opened(CODEARTS, probe_at=due))) == Probe(CODEARTS)


def test_a_build_that_waits_for_a_breaker_is_woken_by_the_probe_and_is_due_by_itself_in_the_end():
    wait = waits(a_build(pending()), opened(STORAGE, probe_at=NOW + 7))

    assert (wait.until, wait.waiting_on) == (NOW + POLICY.retry_max_delay, STORAGE)


def test_what_storage_does_not_hold_up_goes_first():
    build = a_build(pending(), pending(2), registered(), failure_unreported(2, 2))

    assert calls(build, opened(STORAGE, probe_at=NOW)) == (ReportUploadFailed(2),)


def test_nothing_that_is_not_due_is_a_probe():
    assert waits(a_build(pending(), registered(1, due_at=NOW + 1)), opened(STORAGE, probe_at=NOW)).until == NOW + 1


def test_while_storage_fails_one_report_registers_and_puts_and_the_others_wait():
    fresh = a_build(delivered(1), pending(2), pending(3), stored(1, 1))
    tripped = opened(STORAGE, probe_at=NOW)

    assert calls(fresh, tripped, probing=[STORAGE]) == (Register(2),)
    assert calls(a_build(pending(2), pending(3), registered(2, 2), registered(3, 3)), tripped, probing=[STORAGE]) == (
        Put(2),
    )


def test_while_codearts_is_away_reports_go_their_way_without_it():
    build = a_build(pending(), run_parameters=PARAMETERS, poll_due_at=NOW)

    assert calls(build, opened(CODEARTS), policy=ASKING) == (Register(1),)


@pytest.mark.parametrize("values", [{"poll_due_at": NOW}, {"poll_due_at": NOW + HOUR, "poll_requested_at": NOW}])
def test_while_codearts_is_away_only_its_probe_polls(values):
    assert polls(values, opened(CODEARTS)) == []
    assert polls(values, opened(CODEARTS), probing=[CODEARTS]) == [Poll(reserved=False)]


def test_a_record_is_not_asked_for_while_codearts_is_away():
    build = a_build(pending(), accepted_at=NOW, poll_due_at=NOW + HOUR)

    assert waits(build, opened(CODEARTS), policy=ASKING).until == NOW + MINUTE


# -- finalize ----------------------------------------------------------------------------------------------------


def test_a_run_is_finalized_when_all_has_arrived_and_settled():
    build = ended(delivered(), stored(), ended_at=NOW - POLICY.grace_period)

    assert calls(build) == (Finalize(confirm=False),)


@pytest.mark.parametrize(
    "values",
    [
        {"ended_at": NOW - POLICY.grace_period + 1},
        {"last_report_at": NOW - POLICY.grace_period + 1},
        {"finalize_due_at": NOW + 1},
    ],
    ids=["ended just now", "a report came just now", "backed off"],
)
def test_a_finalize_waits_until_the_build_has_settled_and_it_is_due(values):
    assert waits(ended(delivered(), stored(), **values)).until == NOW + 1


def test_dead_reports_do_not_hold_a_run():
    assert calls(ended(delivered(), dead(2), stored(), failed(2, 2), lost(3, 2))) == (Finalize(confirm=False),)


@pytest.mark.parametrize(
    "unsettled",
    [registered(2, 2, due_at=NOW + 1), failure_unreported(2, 2, due_at=NOW + 1)],
    ids=["registered", "failure_unreported"],
)
def test_an_unsettled_registration_holds_a_run_even_where_its_report_is_dead(unsettled):
    assert waits(ended(delivered(), dead(2), stored(), unsettled)).until == NOW + 1


def test_an_open_build_is_never_finalized():
    assert waits(a_build(delivered(), stored())).until


def test_a_build_that_testnod_was_never_asked_about_is_closed_without_asking_it():
    build = ended(dead(), report_seq=3)

    event, after = written(build, opened(TESTNOD))

    assert event == "build_without_run"
    assert (after.state, after.finalized_seq, after.finalized_at) == (B.NO_RUN, 3, NOW)
    assert waits(after).until is None


def test_a_build_of_which_a_register_was_lost_is_finalized_because_it_may_have_a_run():
    assert calls(ended(dead(), lost(), runs=())) == (Finalize(confirm=False),)


# -- stragglers --------------------------------------------------------------------------------------------------

OVER = {"finalize_hold_since": NOW - POLICY.max_finalize_delay}


def straggling(*things, **values):
    """Return an ended build with one stored report and one that cannot be delivered now."""
    return ended(delivered(), stored(), *(things or (pending(2, due_at=NOW + 9),)), **values)


def test_what_is_owed_holds_a_run_while_the_hold_lasts():
    assert waits(straggling(finalize_hold_since=NOW - POLICY.max_finalize_delay + 1)).until == NOW + 1


def test_once_the_hold_is_over_the_run_is_finalized_without_the_stragglers():
    assert calls(straggling(**OVER)) == (Finalize(confirm=False),)


def test_once_the_hold_is_over_nothing_more_is_registered():
    assert calls(straggling(pending(2), **OVER)) == (Finalize(confirm=False),)
    assert calls(straggling(pending(2), finalize_hold_since=NOW)) == (Register(2),)


def test_named_registrations_end_in_their_usual_way_after_the_hold():
    assert calls(straggling(pending(2), registered(2, 2), **OVER)) == (Put(2),)
    assert calls(straggling(pending(2), failure_unreported(2, 2), **OVER)) == (ReportUploadFailed(2),)
    assert waits(straggling(pending(2), registered(2, 2, due_at=NOW + 1), **OVER)).until == NOW + 1


def test_a_batch_in_which_nothing_is_stored_yet_is_not_cut_short():
    build = ended(pending(1, due_at=NOW + 9), failed(), **OVER)
    later_batch = straggling(finalized_at=NOW - MINUTE + 1, report_seq=2, finalized_seq=1, **OVER)

    assert waits(build).until == NOW + 9
    assert waits(later_batch).until == NOW + 9


@pytest.mark.parametrize(
    "breaker", [CircuitBreaker(name=name, total_outage_us=5) for name in (TESTNOD, STORAGE, SUSPENDED, REGISTER)]
)
def test_the_hold_does_not_count_while_testnod_its_storage_or_the_route_is_away(breaker):
    assert waits(straggling(**OVER), breaker).until == NOW + 5
    assert calls(straggling(**OVER, outage_us_at_hold=5), breaker) == (Finalize(confirm=False),)


@pytest.mark.parametrize("breaker", [TESTNOD, STORAGE, SUSPENDED, REGISTER])
def test_a_hold_that_stands_still_wakes_no_build_just_before_it_is_over(breaker):
    build = straggling(pending(2), finalize_hold_since=NOW - POLICY.max_finalize_delay - MINUTE + 1)

    assert waits(build, opened(breaker, probe_at=NOW + HOUR)).until == NOW + POLICY.retry_max_delay


def test_an_open_build_has_no_stragglers():
    build = a_build(delivered(), stored(), pending(2), **OVER)

    assert calls(build) == (Register(2),)


# -- stragglers that join the finalized run ------------------------------------------------------------------------


def joined(*things, run=None, **values):
    """Return a build whose second report joined its run after that was finalized; a third one is due."""
    late = stored(2, 2, registered_at=NOW - SECOND, stored_at=NOW - SECOND)
    run = run or replace(RUN, status="pending", finalized_at=NOW - 2 * SECOND)
    given = {"finalized_at": NOW - 2 * SECOND, "finalized_seq": 1, "report_seq": 2, "finalize_hold_since": NOW - SECOND}
    shown = things or (delivered(2), late)
    return ended(delivered(), stored(), *shown, pending(3), runs=(run,), **given | values)


def test_a_run_that_a_straggler_joined_is_finalized_again_before_another_run_can_be_opened():
    build = joined()
    assert calls(build) == (Finalize(confirm=False),)
    after = apply(build, after_finalize(build, RunStatus(status="processing"), NOW, POLICY, 0))
    _, reopened = written(after)
    assert calls(reopened) == (Register(3),)


def test_it_is_finalized_again_once_the_straggler_is_there():
    late = registered(2, 2, registered_at=NOW - SECOND)
    assert calls(joined(pending(2), late)) == (Put(2),)


@pytest.mark.parametrize(
    ("changes", "run"),
    [
        ({}, replace(RUN, test_run_id="run-2")),  # the straggler is in the run before
        ({}, RUN),  # it is in a run that was never finalized
        ({"finalized_at": NOW}, None),  # it was finalized since
        ({"finalize_attempts": 1, "finalize_due_at": NOW + 9}, None),  # and TestNod failed to
        ({"state": BuildState.OPEN}, None),
    ],
)
def test_nothing_keeps_the_other_stragglers_longer(changes, run):
    assert calls(joined(run=run, **changes)) == (Register(3),)


# -- confirm -----------------------------------------------------------------------------------------------------


def confirming(*things, **values):
    return finalized(delivered(), stored(), *things, **{"confirm_until": NOW + HOUR, **values})


def test_a_finalized_run_is_confirmed_when_it_is_due():
    assert calls(confirming(confirm_due_at=NOW)) == (Finalize(confirm=True),)
    assert waits(confirming(confirm_due_at=NOW + 1)).until == NOW + 1


@pytest.mark.parametrize(
    "things",
    [(pending(2, due_at=NOW + 1),), (dead(2), failure_unreported(2, 2, due_at=NOW + 1))],
    ids=["pending", "unsettled"],
)
def test_nothing_is_confirmed_while_anything_is_owed_or_unsettled(things):
    assert waits(confirming(*things)).until == NOW + 1


def test_a_closed_build_is_not_confirmed():
    assert waits(confirming(state=B.NO_RUN)).until is None


# -- several at once ---------------------------------------------------------------------------------------------


def test_all_that_is_due_is_called_side_by_side():
    build = a_build(pending(), registered(), poll_due_at=NOW)

    assert calls(build, policy=ASKING) == (Poll(reserved=False), Put(1))


def test_a_build_wakes_for_the_first_of_all_that_it_waits_for():
    build = a_build(pending(1, due_at=NOW + 5), pending(2), registered(2, 2, due_at=NOW + 3), poll_due_at=NOW + 4)

    assert waits(build, policy=ASKING).until == NOW + 3
