"""What a step costs depends on what is still to be done, not on the thousands of reports that are done."""

from dataclasses import replace
from functools import partial

import pytest

from bridge.domain.build import DeliveryState, DeliveryTarget, RegistrationState
from bridge.domain.changes import AddRegistration, apply, set_delivery, set_registration
from bridge.domain.plan import plan
from bridge.domain.routing import Route
from bridge.domain.steps import Execute
from bridge.worker.build_log import log_deliveries
from tests.support.builders import (
    ASKING,
    NOW,
    PARAMETERS,
    POLICY,
    ROUTE,
    RUN,
    a_build,
    breakers,
    delivered,
    ended,
    pending,
    registered,
    report,
    requested,
    stored,
)
from tests.support.work import instructions

FEW, MANY = 200, 2_000
LEFT = 12
ROUTES = (Route(name=ROUTE), Route(name="other"))
CASES = {
    "open": (a_build, ASKING),
    "ended": (partial(ended, build_result="success"), POLICY),
    "of several routes": (a_build, replace(POLICY, routes=ROUTES)),
    "mirrored": (a_build, replace(ASKING, routes=(Route(name=ROUTE, mirror=True),))),
}


def with_done(make, done):
    """Return a build with so many delivered reports, a dozen pending ones, and one that is being sent; all mirrored."""
    first = done + 1
    copies = (delivered(MANY * 2 + number, target=DeliveryTarget.CODEARTS) for number in range(1, first + LEFT))
    return make(
        *(replace(copy, report_id=number) for number, copy in enumerate(copies, start=1)),
        *(delivered(number) for number in range(1, first)),
        *(stored(number, number) for number in range(1, first)),
        *(pending(number, due_at=NOW) for number in range(first, first + LEFT)),
        registered(first, first),
        *(report(number, caller_routes=(ROUTE,)) for number in range(1, first + LEFT)),
        run_parameters=PARAMETERS,
        runs=(RUN,),
    )


def stored_now(build, number):
    """Return the changes of a report that is stored, and of the next one that is registered."""
    return (
        set_registration(build.registrations[number], state=RegistrationState.STORED, stored_at=NOW),
        set_delivery(build.deliveries[number], state=DeliveryState.DELIVERED, delivered_at=NOW),
        AddRegistration(requested(number + 1, number + 1)),
    )


def growth(work):
    """Return by how many instructions `work` grows with each report that is done."""
    return (work(MANY) - work(FEW)) / (MANY - FEW)


@pytest.mark.parametrize(("make", "policy"), CASES.values(), ids=CASES)
def test_the_plan_of_a_step_does_not_read_the_reports_that_are_done(make, policy):
    def work(done):
        build = with_done(make, done)
        assert isinstance(plan(build, NOW, policy, breakers()), Execute)
        build = apply(build, stored_now(build, done + 1))
        build = apply(build, [set_registration(build.registrations[done + 2], state=RegistrationState.LOST)])
        return instructions(lambda: plan(build, NOW, policy, breakers()))

    assert growth(work) < 20  # a step for each page, of which there is one for 64 rows; it was 120 to 200


def test_changes_do_not_copy_the_rows_of_the_reports_that_are_done():
    before = with_done(a_build, MANY)
    after = apply(before, stored_now(before, MANY + 1))
    for name in ("reports", "deliveries", "registrations"):
        known = set(map(id, getattr(before, name).pages))
        copied = [page for page in getattr(after, name).pages if id(page) not in known]
        assert len(copied) == (name != "reports")


def test_the_log_of_what_a_step_has_delivered_does_not_read_the_reports_that_were_delivered_before():
    def work(done):
        before = with_done(a_build, done)
        assert len(before.pending(DeliveryTarget.TESTNOD)) == LEFT  # as the plan has found them
        after = apply(before, stored_now(before, done + 1))
        return instructions(lambda: log_deliveries(before, after, dict))

    assert growth(work) < 1
