"""What waits until the clock is trusted, and what does not."""

from dataclasses import replace

import pytest

from bridge.domain.build import DeliveryTarget
from bridge.domain.circuit_breaker import CLOCK, TESTNOD
from bridge.domain.clock_trust import TRUSTED, ClockState, Verdict
from bridge.domain.lifecycle.context import CLOCK_RECHECK_US
from bridge.domain.plan import plan
from bridge.domain.steps import Apply, CopyToArchive, Execute, Poll, Register, Wait
from bridge.domain.why import WhyCase, why
from tests.support.builders import (
    ASKING,
    HOUR,
    NOW,
    POLICY,
    a_build,
    breakers,
    delivered,
    finalized,
    opened,
    pending,
    stored,
)

UNPROVEN = Verdict(state=ClockState.UNPROVEN, reason="No upstream has confirmed it.")
SUSPECT = Verdict(state=ClockState.SUSPECT, reason="The clock is 40 days ahead of that of testnod.")
TRIED_LONG = {"first_failure_at": NOW - POLICY.give_up_after, "last_error": "it was no use"}
COPY = replace(pending(2, target=DeliveryTarget.ARCHIVE, **TRIED_LONG), report_id=1)
IDLE = {"last_report_at": NOW - POLICY.idle_timeout}
OLD = {"last_report_at": NOW - POLICY.max_age}
ENDS = [
    (a_build(pending(**TRIED_LONG, due_at=NOW + HOUR)), POLICY, "delivery_died", {TRUSTED}),
    (finalized(delivered(), replace(COPY, due_at=NOW + HOUR)), POLICY, "delivery_died", {TRUSTED}),
    (a_build(delivered(), stored(), poll_due_at=NOW + HOUR, **OLD), ASKING, "build_ended", {TRUSTED}),
    (a_build(delivered(), stored(), **IDLE), POLICY, "build_ended", {TRUSTED, UNPROVEN}),
]


@pytest.mark.parametrize("verdict", [TRUSTED, UNPROVEN, SUSPECT])
@pytest.mark.parametrize(("build", "policy", "event", "end_reason"), ENDS, ids=["report", "copy", "old", "idle"])
def test_what_time_ends_waits_for_the_clock_and_is_looked_at_soon(build, policy, event, end_reason, verdict):
    step = plan(build, NOW, policy, replace(breakers(), clock=verdict))

    if verdict in end_reason:
        assert isinstance(step, Apply)
        assert step.event == event
    else:
        assert step == Wait(until=NOW + CLOCK_RECHECK_US, waiting_on=CLOCK, blocked_reason=None)


@pytest.mark.parametrize("verdict", [TRUSTED, UNPROVEN, SUSPECT])
def test_work_goes_on_by_any_clock(verdict):
    doubted = replace(breakers(), clock=verdict)
    assert plan(a_build(pending()), NOW, POLICY, doubted) == Execute((Register(1),))
    assert plan(a_build(delivered(), stored()), NOW, ASKING, doubted) == Execute((Poll(reserved=False),))


@pytest.mark.parametrize(("verdict", "kept"), [(TRUSTED, True), (UNPROVEN, True), (SUSPECT, False)])
def test_no_copy_is_filed_under_a_day_that_may_be_wrong(verdict, kept):
    copy = replace(pending(2, target=DeliveryTarget.ARCHIVE), report_id=1)
    step = plan(finalized(delivered(), copy), NOW, POLICY, replace(breakers(), clock=verdict))
    assert (step == Execute((CopyToArchive(2),))) is kept


def test_a_build_that_waits_for_testnod_too_is_called_by_that():
    step = plan(a_build(pending(**TRIED_LONG)), NOW, POLICY, replace(breakers(opened(TESTNOD)), clock=SUSPECT))
    assert isinstance(step, Wait)
    assert step.waiting_on == TESTNOD


@pytest.mark.parametrize(("verdict", "doubted"), [(TRUSTED, False), (UNPROVEN, False), (SUSPECT, True)])
@pytest.mark.parametrize("build", [a_build(pending()), a_build(delivered(), stored(), **OLD), None])
def test_why_states_that_the_clock_is_distrusted(build, verdict, doubted):
    answer = why(
        job_id="a" * 32,
        build_no=1,
        build=build,
        rejections=(),
        breakers=replace(breakers(), clock=verdict),
        now=NOW,
        polled=None,
    )
    assert ("the bridge distrusts its clock (The clock is 40 days ahead" in answer.sentence) is doubted
    assert answer.sentence.endswith(".")
    assert answer.case in (WhyCase.PENDING, WhyCase.WAITING, WhyCase.NO_RUN, WhyCase.NEVER_UPLOADED)
