"""When CodeArts Check is asked, as plan() says it: after the end, before finalize, behind everything else."""

from dataclasses import replace

import pytest

from bridge.domain.build import SECOND, BuildState, EndedBy
from bridge.domain.changes import AddReport, apply
from bridge.domain.gates import CODEARTS, TESTNOD
from bridge.domain.plan import plan
from bridge.domain.quality import QualityState
from bridge.domain.routing import Route
from bridge.domain.step import AskCheck, Do, Finalize, Register, Wait, Write
from tests.unit.domain.builders import (
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    ROUTE,
    RULES,
    a_build,
    dead,
    delivered,
    ended,
    finalized,
    gates,
    owed,
    shut,
    stored,
    waiting,
)

CHECKING = replace(POLICY, routes=(Route(name=ROUTE, quality=RULES),))
ASK = Do((AskCheck(reserved=False, in_background=False),))
FINALIZE = Do((Finalize(confirm=False),))


def step(build, *closed, policy=CHECKING, now=NOW):
    return plan(build, now, policy, gates(*closed))


def test_the_wait_for_check_begins_when_nothing_else_is_to_be_done():
    begin = step(ended(delivered(), stored()))
    assert isinstance(begin, Write)
    assert apply(ended(delivered(), stored()), begin.changes).quality == waiting(until=NOW + RULES.wait_us, due_at=NOW)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (ended(delivered(), stored(), quality=waiting()), ASK),
        (ended(delivered(), owed(2, due_at=NOW + HOUR), stored(), quality=waiting()), ASK),
        (
            ended(delivered(), stored(), quality=waiting(reserved=True, in_background=True)),
            Do((AskCheck(reserved=True, in_background=True),)),
        ),
        (ended(dead(), quality=waiting()), ASK),
        (ended(owed(), quality=waiting()), Do((Register(1),))),
        (a_build(delivered(), stored(), quality=waiting()), None),
        (finalized(delivered(), stored(), quality=waiting()), None),
        (ended(delivered(), stored(), quality=waiting(QualityState.ANSWERED)), FINALIZE),
        (ended(delivered(), stored(), quality=waiting(QualityState.MISSING)), FINALIZE),
        (ended(delivered(), stored(), quality=waiting(QualityState.OMITTED)), FINALIZE),
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


@pytest.mark.parametrize("gate", [TESTNOD, CODEARTS])
def test_no_outage_of_another_upstream_keeps_check_from_being_asked(gate):
    build = ended(delivered(), owed(2, due_at=NOW + HOUR), stored(), quality=waiting())
    assert step(build, shut(gate)) == ASK


def test_the_run_waits_for_the_next_try_and_no_longer_than_until():
    build = ended(delivered(), stored(), quality=waiting(due_at=NOW + SECOND))
    assert step(build) == Wait(until=NOW + SECOND)
    late = replace(build, quality=waiting(due_at=NOW + HOUR))
    assert step(late) == Wait(until=late.quality.until)


def test_a_check_that_gave_no_report_is_given_up_and_said():
    build = ended(delivered(), stored(), quality=waiting(until=NOW))
    given_up = step(build)
    assert given_up.event == "CodeArts Check gave no report"
    assert any(isinstance(change, AddReport) for change in given_up.changes)


def test_a_check_that_is_left_out_lets_the_run_go_at_once():
    policy = replace(CHECKING, routes=(Route(name=ROUTE, quality=replace(RULES, omit_missing=True)),))
    build = ended(delivered(), stored(), quality=waiting(until=NOW))
    after = apply(build, step(build, policy=policy).changes)
    assert after.quality.state is QualityState.OMITTED
    assert step(after, policy=policy) == FINALIZE


@pytest.mark.parametrize(
    ("build", "policy"),
    [
        (ended(delivered(), stored()), POLICY),
        (ended(delivered(), stored(), quality=waiting()), POLICY),
    ],
    ids=["no quality table", "it was taken out of the settings meanwhile"],
)
def test_a_route_without_a_quality_table_waits_for_nothing(build, policy):
    assert step(build, policy=policy) == FINALIZE


def test_a_build_without_reports_opens_no_run_for_checks_sake():
    closed = step(ended())
    assert apply(ended(), closed.changes).state is BuildState.CLOSED


def test_an_end_that_is_taken_back_takes_the_wait_back_but_not_the_answer():
    guessed = {"ended_by": EndedBy.IDLE, "ended_report_at": NOW - HOUR, "last_report_at": NOW - MINUTE}
    for quality, kept in ((waiting(), None), (waiting(QualityState.ANSWERED), waiting(QualityState.ANSWERED))):
        build = ended(delivered(), stored(), quality=quality, **guessed)
        back = step(build)
        assert back.event == "end taken back"
        assert apply(build, back.changes).quality == kept


def test_a_late_batch_is_not_asked_about_again():
    build = finalized(delivered(), stored(), batch_seq=2, finalized_seq=1, quality=waiting(QualityState.ANSWERED))
    build = apply(build, step(build).changes)
    assert build.state is BuildState.ENDED
    assert not isinstance(step(build), Do) or step(build) == FINALIZE
