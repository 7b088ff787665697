"""What the settings keep from its target, while they may be wrong only for a while or at one gateway."""

from dataclasses import replace

import pytest

from bridge.domain.build import BuildState, DeliveryState
from bridge.domain.changes import apply
from bridge.domain.clock_trust import ClockState, Verdict
from bridge.domain.code_check.models import CodeCheckStatus
from bridge.domain.plan import plan
from bridge.domain.routing import ResultSuite, Route
from bridge.domain.steps import Apply, Execute, Finalize, Register, Wait
from tests.support.builders import (
    HOUR,
    MINUTE,
    NOW,
    PARAMETERS,
    POLICY,
    ROUTE,
    RULES,
    a_build,
    breakers,
    delivered,
    ended,
    lost,
    pending,
    report,
    stored,
)

OURS = report(1, caller_routes=(ROUTE,))
THEIRS = report(2, caller_routes=("other",))
BY_JOB = (Route(name=ROUTE, job_id=("job",)), Route(name="other", job_id=("job-of-others",)))
RIGHT = replace(POLICY, routes=BY_JOB, idle_timeout=1_000 * 24 * HOUR, max_age=1_000 * 24 * HOUR)
MOVED = replace(RIGHT, routes=(replace(BY_JOB[0], job_id=("joc",)), replace(BY_JOB[1], job_id=("job",))))
DAY = 24 * HOUR


def step_of(build, policy=RIGHT, now=NOW):
    return plan(build, now, policy, breakers())


def after(build, event, policy=RIGHT, now=NOW):
    """Return the build after the next step, which must be this transition."""
    step = step_of(build, policy, now)
    assert isinstance(step, Apply), step
    assert step.event == event
    return apply(build, step.changes)


def test_a_report_whose_caller_may_not_use_its_route_is_blocked_and_the_build_left_to_other_gateways():
    build = after(a_build(pending(1), OURS), "delivery_blocked", MOVED)

    assert (build.deliveries[1].state, build.deliveries[1].blocked_since) == (DeliveryState.PENDING, NOW)
    step = step_of(build, MOVED)
    assert isinstance(step, Wait)
    assert step.left_to_others
    assert step.blocked_reason == build.deliveries[1].last_error
    assert step.blocked_reason.startswith('Caller "ci" may not send to route "other"')


def test_it_is_sent_as_soon_as_the_settings_are_right_again_and_its_clock_stood_still():
    tried = pending(1, first_failure_at=NOW - 6 * DAY, last_error="HTTP 500")
    build = after(a_build(tried, OURS), "delivery_blocked", MOVED)
    later = NOW + 2 * DAY

    build = after(build, "delivery_unblocked", now=later)

    assert build.deliveries[1].first_failure_at == NOW - 4 * DAY
    assert build.deliveries[1].blocked_since is None
    assert step_of(build, now=later) == Execute((Register(1),))


def test_it_is_given_up_only_after_it_was_blocked_for_as_long_as_a_report_is_tried():
    build = after(a_build(pending(1, pending_since=NOW - 30 * DAY), OURS), "delivery_blocked", MOVED)
    over = NOW + POLICY.give_up_after

    assert isinstance(step_of(build, MOVED, over - 1), Wait)
    suspect = Verdict(state=ClockState.SUSPECT)
    assert isinstance(plan(build, over, MOVED, replace(breakers(), clock=suspect)), Wait)
    dead = after(build, "delivery_died", MOVED, over).deliveries[1]
    assert dead.state is DeliveryState.DEAD
    assert 'may not send to route "other"' in dead.last_error
    assert dead.due_at == over  # its bytes are kept for store.retention from now on


def test_settings_that_are_right_in_between_start_the_time_again():
    build = after(a_build(pending(1), OURS), "delivery_blocked", MOVED)
    build = after(build, "delivery_unblocked", now=NOW + 6 * DAY)
    build = after(build, "delivery_blocked", MOVED, NOW + 6 * DAY)

    assert isinstance(step_of(build, MOVED, NOW + 8 * DAY), Wait)


# -- what a blocked report may do to its build ---------------------------------------------------------------------


def shared(**values):
    """Return an ended build with our stored report and a blocked one of another caller."""
    given = {"ended_at": NOW - HOUR, "finalize_hold_since": NOW - HOUR, **values}
    build = ended(delivered(1), pending(2), stored(), OURS, THEIRS, **given)
    return after(build, "delivery_blocked")


def test_a_blocked_report_of_another_caller_delays_no_finalize_and_explains_nothing():
    build = shared()

    assert step_of(build) == Execute((Finalize(confirm=False),))
    waits = step_of(replace(build, finalize_due_at=NOW + MINUTE))
    assert isinstance(waits, Wait)
    assert (waits.blocked_reason, waits.left_to_others) == (None, False)


def test_a_finalized_build_stays_so_and_is_finalized_again_if_the_report_may_be_sent_after_all():
    build = shared()
    build = replace(build, state=BuildState.FINALIZED, finalized_seq=build.report_seq, finalized_at=NOW)
    assert isinstance(step_of(build), Wait)

    widened = build.reports.with_rows([replace(THEIRS, caller_routes=("other", ROUTE))])  # it was uploaded once more
    build = after(replace(build, reports=widened), "delivery_unblocked")
    build = after(build, "build_reopened")
    assert step_of(build) == Execute((Register(2),))


def test_a_build_whose_reports_are_all_blocked_is_not_finished_without_a_run():
    build = after(ended(pending(2), THEIRS, ended_at=NOW - HOUR), "delivery_blocked")

    assert isinstance(step_of(build, now=NOW + DAY), Wait)


@pytest.mark.parametrize(
    "settings", [{"code_check": RULES}, {"result_suite": ResultSuite.ALWAYS}], ids=["code check", "result suite"]
)
def test_no_report_of_the_bridge_itself_opens_a_run_in_the_route_of_blocked_reports(settings):
    moved = replace(MOVED, routes=(MOVED.routes[0], replace(MOVED.routes[1], **settings)))
    build = ended(pending(1), OURS, ended_at=NOW - HOUR, build_result="success")
    build = after(build, "delivery_blocked", moved)

    assert isinstance(step_of(build, moved), Wait)
    assert build.code_check is None or build.code_check.state is not CodeCheckStatus.WAITING


# -- run parameters ------------------------------------------------------------------------------------------------


def test_run_parameters_that_nothing_was_registered_with_follow_the_settings():
    chosen = replace(PARAMETERS, route="other")
    tried = pending(1, first_failure_at=NOW - DAY, outage_us_at_first_failure=HOUR, attempts=3)
    build = after(a_build(tried, run_parameters=chosen), "run_parameters_dropped")

    assert build.run_parameters is None
    assert (build.deliveries[1].first_failure_at, build.deliveries[1].attempts) == (None, 3)
    assert step_of(build) == Execute((Register(1),))


def test_other_tags_count_too_and_what_uploads_state_does_not():
    tagged = replace(RIGHT, routes=(replace(BY_JOB[0], tags=("nightly",)), BY_JOB[1]))
    build = a_build(pending(1), run_parameters=PARAMETERS)

    assert isinstance(step_of(build), Execute)
    assert after(build, "run_parameters_dropped", tagged).run_parameters is None


@pytest.mark.parametrize(
    ("things", "values"),
    [
        ((lost(),), {}),
        ((), {"route": "removed"}),
        ((), {"replaceable": False}),
        ((), {"generation": 2}),
    ],
    ids=["TestNod may have a run", "its route was removed", "restored", "replaced"],
)
def test_other_run_parameters_stay(things, values):
    chosen = replace(PARAMETERS, **{"route": "other", **values})
    build = a_build(pending(1), *things, run_parameters=chosen)

    step = step_of(build)
    assert not (isinstance(step, Apply) and step.event == "run_parameters_dropped")
