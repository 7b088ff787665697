"""When the run that replaces another one is sent: TestNod must have been calm."""

from dataclasses import replace

import pytest

from bridge.domain.build import Run
from bridge.domain.changes import apply
from bridge.domain.circuit_breaker import TESTNOD, CircuitBreaker, RouteHealth, register_breaker, storage_breaker
from bridge.domain.lifecycle.finalize import after_confirm
from bridge.domain.lifecycle.replacement import CALM_CALLS, CALM_SHARE, MAX_CALM_WAIT, NOT_CALM
from bridge.domain.outcomes import RunStatus
from bridge.domain.plan import plan
from bridge.domain.retry import backoff_us
from bridge.domain.steps import Apply, Execute, Finalize, Probe, Put, Register, Wait
from bridge.domain.why import delivery_wait
from tests.support.builders import (
    HOUR,
    MINUTE,
    NOW,
    PARAMETERS,
    POLICY,
    ROUTE,
    RUN,
    a_build,
    breakers,
    delivered,
    ended,
    failure_unreported,
    finalized,
    lost,
    opened,
    pending,
    registered,
    stored,
)

CALM, LONGEST = POLICY.confirm_timeout // CALM_SHARE, MAX_CALM_WAIT * POLICY.confirm_timeout
ASK = CALM // CALM_CALLS
REGISTER = register_breaker(ROUTE)
SECOND_RUN = Run(test_run_id="run-2", test_run_url="", opened_at=NOW, generation=2)
OLD = (stored(1, 1), lost(2, 2), stored(3, 2))  # of the run that was given up


def again(delivery_id, **values):
    """Return a delivery that is pending again since a moment."""
    return pending(delivery_id, **{"pending_since": NOW, "delivered_at": NOW - HOUR, **values})


def replacing(*things, generation=2, **values):
    """Return a build of which two reports are to be sent again, in a run of another generation."""
    parameters = replace(PARAMETERS, generation=generation, build_id=PARAMETERS.build_id_of(generation), chosen_at=NOW)
    runs = {"runs": (replace(RUN, status="pending"),)}
    things = things or (again(1), again(2))
    return ended(*things, *OLD, **{"run_parameters": parameters, "finalize_hold_since": NOW, **runs, **values})


def disturbed(ago=0, *known, **values):
    return replace(breakers(*known, **values), disturbed_at=NOW - ago)


def outage_ended(name, ago, **values):
    ended_at = NOW - ago
    return CircuitBreaker(name=name, outage_began_at=ended_at - 5 * HOUR, outage_ended_at=ended_at, **values)


def due_times(build, *given, now=NOW):
    """Return the due times to which the reports are deferred."""
    step = plan(build, now, POLICY, *given)
    assert isinstance(step, Apply)
    assert step.event == "replacement_deferred"
    build = apply(build, step.changes)
    assert {build.deliveries[change.id].last_error for change in step.changes} == {NOT_CALM}
    return [build.deliveries[change.id].due_at for change in step.changes]


# -- while TestNod is disturbed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ago", [0, CALM - 1])
def test_reports_that_are_sent_again_wait_until_testnod_has_been_calm(ago):
    assert due_times(replacing(), disturbed(ago)) == [NOW - ago + CALM] * 2


@pytest.mark.parametrize("known", [breakers(), disturbed(CALM), breakers(outage_ended(TESTNOD, CALM))])
def test_in_calm_times_they_are_sent_at_once(known):
    assert plan(replacing(), NOW, POLICY, known) == Execute((Register(1),))


@pytest.mark.parametrize("name", [TESTNOD, REGISTER])
def test_the_calm_begins_with_the_end_of_an_outage(name):
    assert due_times(replacing(), breakers(outage_ended(name, MINUTE))) == [NOW - MINUTE + CALM] * 2


@pytest.mark.parametrize("name", [storage_breaker(ROUTE), register_breaker("other")])
def test_outages_in_which_testnod_registers_delay_nothing(name):
    assert plan(replacing(), NOW, POLICY, breakers(outage_ended(name, MINUTE))) == Execute((Register(1),))


def test_an_outage_that_ended_by_a_clock_ahead_counts_from_now():
    assert due_times(replacing(), breakers(outage_ended(TESTNOD, -40 * HOUR))) == [NOW + CALM] * 2


def test_they_do_not_wait_longer_than_that_however_long_the_faults_go_on():
    long = replacing(again(1, pending_since=NOW - LONGEST + 1), again(2, pending_since=NOW))

    assert due_times(long, disturbed()) == [NOW + 1] * 2
    assert plan(long, NOW + 1, POLICY, disturbed()) == Execute((Register(1),))


def test_after_a_long_outage_they_wait_for_calm_too():
    long = replacing(again(1, pending_since=NOW - 2 * LONGEST), again(2, pending_since=NOW - 2 * LONGEST))

    assert due_times(long, breakers(outage_ended(TESTNOD, 0))) == [NOW + CALM] * 2


def test_what_was_deferred_is_due_then_and_testnod_is_asked_about_the_last_run_first():
    build = replacing()
    step = plan(build, NOW, POLICY, disturbed())
    build = apply(build, step.changes)

    assert plan(build, NOW, POLICY, breakers()) == Wait(until=NOW + CALM)
    assert plan(build, NOW + CALM, POLICY, breakers()) == Execute((Finalize(confirm=True),))


def test_meanwhile_testnod_is_asked_about_the_last_run_often():
    build = replacing()
    build = apply(build, plan(build, NOW, POLICY, disturbed()).changes)

    assert plan(build, NOW, POLICY, disturbed()) == Wait(until=NOW + ASK)
    assert plan(build, NOW + ASK, POLICY, disturbed()) == Execute((Finalize(confirm=True),))


@pytest.mark.parametrize(
    ("left", "asks_in"),
    [(HOUR, None), (2 * CALM, CALM), (CALM + ASK // 2, ASK), (CALM, ASK), (ASK // 2, ASK // 2)],
    ids=["as usual", "once its calm must begin", "often by then", "often", "at the end"],
)
def test_before_a_run_is_replaced_testnod_is_asked_often_whether_it_answers(left, asks_in):
    attempts = 0 if left == HOUR else 20  # asked so often before that the next time would be far away
    values = {"confirm_until": NOW + left, "confirm_due_at": NOW, "confirm_attempts": attempts}
    build = finalized(delivered(1), *OLD, **values, runs=(replace(RUN, status="pending"),))
    policy = replace(POLICY, retry_max_delay=24 * HOUR)

    after = apply(build, after_confirm(build, RunStatus(status="pending"), NOW, policy, RouteHealth(total_outage_us=0)))

    usual = backoff_us(policy, attempts + 2, f"confirm/{build.id}")
    assert after.confirm_due_at - NOW == (asks_in or usual)


def test_what_is_deferred_or_backed_off_already_is_left_as_it_is():
    assert due_times(replacing(again(1, due_at=NOW + 1), again(2)), disturbed()) == [NOW + CALM]


def test_a_run_that_was_opened_gets_no_further_registers_but_what_was_registered_is_sent():
    things = (again(1), again(2), registered(4, 1, generation=2, test_run_id="run-2", registered_at=NOW))
    build = replacing(*things, runs=(replace(RUN, status="pending"), SECOND_RUN))

    assert due_times(build, disturbed()) == [NOW + CALM]
    step = plan(apply(build, plan(build, NOW, POLICY, disturbed()).changes), NOW, POLICY, disturbed())
    assert step == Execute((Put(4),))


def test_a_report_with_an_upload_of_the_run_that_was_given_up_waits_too():
    late = replacing(again(1), again(2), failure_unreported(5, 2, due_at=NOW + HOUR))

    assert due_times(late, disturbed()) == [NOW + CALM] * 2


def test_a_report_that_came_since_waits_with_them():
    assert due_times(replacing(again(1), pending(9)), disturbed()) == [NOW + CALM] * 2


# -- what does not wait ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        a_build(pending()),
        ended(pending(1), delivered(2), stored(2, 2, registered_at=NOW), finalize_hold_since=NOW),
        replacing(pending(1), delivered(2)),  # it came after all others had been sent again
        replacing(again(1), again(2), lost(4, 1, generation=2)),  # its run is held already
    ],
    ids=["first run", "late report", "late report of a replaced run", "lost already"],
)
def test_no_other_report_waits(build):
    step = plan(build, NOW, POLICY, disturbed(0, outage_ended(TESTNOD, MINUTE)))

    assert isinstance(step, Execute)
    assert isinstance(step.calls[0], Register)


@pytest.mark.parametrize("name", [TESTNOD, REGISTER, storage_breaker(ROUTE)])
def test_while_a_breaker_is_open_it_holds_them_back_by_itself(name):
    assert isinstance(plan(replacing(), NOW, POLICY, disturbed(0, opened(name))), Wait)


# -- probes ------------------------------------------------------------------------------------------------------------


def test_a_build_that_may_lose_its_run_leaves_probes_of_register_to_others():
    step = plan(replacing(), NOW, POLICY, breakers(opened(REGISTER, probe_at=NOW)))

    assert step == Wait(until=NOW + POLICY.retry_max_delay)  # not on the breaker, which would choose it for a probe


@pytest.mark.parametrize(
    "things",
    [
        (again(1), again(2), lost(4, 1, generation=2)),
        (again(1, pending_since=NOW - LONGEST), again(2)),
    ],
    ids=["lost already", "waited long enough"],
)
def test_it_probes_if_it_has_nothing_to_lose_or_nothing_else_probes_for_long(things):
    step = plan(replacing(*things), NOW, POLICY, breakers(opened(REGISTER, probe_at=NOW)))

    assert step == Probe(REGISTER)


def test_it_probes_storage_whose_probe_holds_no_run():
    step = plan(replacing(), NOW, POLICY, breakers(opened(storage_breaker(ROUTE), probe_at=NOW)))

    assert step == Probe(storage_breaker(ROUTE))


# -- what operators see ------------------------------------------------------------------------------------------------


def test_why_states_the_wait_and_counts_no_attempt():
    build = replacing()
    build = apply(build, plan(build, NOW, POLICY, disturbed()).changes)

    wait = delivery_wait(build, breakers(), NOW)

    assert (wait.cause, wait.until) == (NOT_CALM, NOW + CALM)
