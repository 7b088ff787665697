"""When CodeArts Check is asked, as plan() says it: after the end, before finalize, behind everything else."""

from dataclasses import replace

import pytest

from bridge.domain.build import BuildState, EndReason
from bridge.domain.changes import AddReport, apply
from bridge.domain.circuit_breaker import CODEARTS, TESTNOD
from bridge.domain.code_check.models import CodeCheckStatus
from bridge.domain.instants import SECOND
from bridge.domain.plan import plan
from bridge.domain.routing import Route
from bridge.domain.steps import Apply, Execute, FetchCheckReport, Finalize, Register, Wait
from tests.support.builders import (
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    ROUTE,
    RULES,
    a_build,
    breakers,
    dead,
    delivered,
    ended,
    finalized,
    opened,
    pending,
    stored,
    waiting,
)

CHECKING = replace(POLICY, routes=(Route(name=ROUTE, code_check=RULES),))
ASK = Execute((FetchCheckReport(reserved=False, in_background=False),))
FINALIZE = Execute((Finalize(confirm=False),))


def step(build, *closed, policy=CHECKING, now=NOW):
    return plan(build, now, policy, breakers(*closed))


def test_the_wait_for_check_begins_when_nothing_else_is_to_be_done():
    begin = step(ended(delivered(), stored()))
    assert isinstance(begin, Apply)
    assert apply(ended(delivered(), stored()), begin.changes).code_check == waiting(
        until=NOW + RULES.wait_us, due_at=NOW
    )


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (ended(delivered(), stored(), code_check=waiting()), ASK),
        (ended(delivered(), pending(2, due_at=NOW + HOUR), stored(), code_check=waiting()), ASK),
        (
            ended(delivered(), stored(), code_check=waiting(reserved=True, in_background=True)),
            Execute((FetchCheckReport(reserved=True, in_background=True),)),
        ),
        (ended(dead(), code_check=waiting()), ASK),
        (ended(pending(), code_check=waiting()), Execute((Register(1),))),
        (a_build(delivered(), stored(), code_check=waiting()), None),
        (finalized(delivered(), stored(), code_check=waiting()), None),
        (ended(delivered(), stored(), code_check=waiting(CodeCheckStatus.ANSWERED)), FINALIZE),
        (ended(delivered(), stored(), code_check=waiting(CodeCheckStatus.MISSING)), FINALIZE),
        (ended(delivered(), stored(), code_check=waiting(CodeCheckStatus.OMITTED)), FINALIZE),
    ],
    ids=[
        "due",
        "a report waits for its next try",
        "with a place, in the background",
        "all reports were given up",
        "a report is due",
        "the build runs",
        "the run is finalized",
        "answered",
        "missing",
        "omitted",
    ],
)
def test_check_is_asked_after_the_end_and_before_finalize_behind_everything_else(build, expected):
    found = step(build)
    assert found == expected or (expected is None and isinstance(found, Wait))


@pytest.mark.parametrize("breaker", [TESTNOD, CODEARTS])
def test_no_outage_of_another_upstream_keeps_check_from_being_asked(breaker):
    build = ended(delivered(), pending(2, due_at=NOW + HOUR), stored(), code_check=waiting())
    assert step(build, opened(breaker)) == ASK


def test_the_run_waits_for_the_next_try_and_no_longer_than_until():
    build = ended(delivered(), stored(), code_check=waiting(due_at=NOW + SECOND))
    assert step(build) == Wait(until=NOW + SECOND)
    late = replace(build, code_check=waiting(due_at=NOW + HOUR))
    assert step(late) == Wait(until=late.code_check.until)


def test_a_check_that_gave_no_report_is_given_up_and_said():
    build = ended(delivered(), stored(), code_check=waiting(until=NOW))
    stop_waiting = step(build)
    assert stop_waiting.event == "code_check_missed"
    assert any(isinstance(change, AddReport) for change in stop_waiting.changes)


def test_a_check_that_is_left_out_lets_the_run_go_at_once():
    policy = replace(CHECKING, routes=(Route(name=ROUTE, code_check=replace(RULES, omit_missing=True)),))
    build = ended(delivered(), stored(), code_check=waiting(until=NOW))
    after = apply(build, step(build, policy=policy).changes)
    assert after.code_check.state is CodeCheckStatus.OMITTED
    assert step(after, policy=policy) == FINALIZE


@pytest.mark.parametrize(
    ("build", "policy"),
    [
        (ended(delivered(), stored()), POLICY),
        (ended(delivered(), stored(), code_check=waiting()), POLICY),
    ],
    ids=["no quality table", "it was taken out of the settings meanwhile"],
)
def test_a_route_without_a_quality_table_waits_for_nothing(build, policy):
    assert step(build, policy=policy) == FINALIZE


def test_a_build_without_reports_opens_no_run_for_checks_sake():
    closed = step(ended())
    assert apply(ended(), closed.changes).state is BuildState.NO_RUN


def test_an_end_that_is_taken_back_takes_the_wait_back_but_not_the_answer():
    guessed = {"end_reason": EndReason.IDLE, "ended_report_at": NOW - HOUR, "last_report_at": NOW - MINUTE}
    for code_check, kept in ((waiting(), None), (waiting(CodeCheckStatus.ANSWERED), waiting(CodeCheckStatus.ANSWERED))):
        build = ended(delivered(), stored(), code_check=code_check, **guessed)
        back = step(build)
        assert back.event == "end_reverted"
        assert apply(build, back.changes).code_check == kept


def test_a_late_batch_is_not_asked_about_again():
    build = finalized(
        delivered(), stored(), report_seq=2, finalized_seq=1, code_check=waiting(CodeCheckStatus.ANSWERED)
    )
    build = apply(build, step(build).changes)
    assert build.state is BuildState.ENDED
    assert not isinstance(step(build), Execute) or step(build) == FINALIZE
