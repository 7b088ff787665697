from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.build import BuildRecord, BuildState, EndReason, UploadMetadata
from bridge.domain.changes import apply
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.build_end import (
    MIN_POLL_GAP,
    after_poll,
    defer_poll,
    end_build,
    is_declared_complete,
    poll_interval,
    requested_poll_due_at,
)
from bridge.domain.lifecycle.build_record import RecordQuestion, after_record
from bridge.domain.outcomes import (
    BuildInfo,
    CredentialsRejected,
    NoSuchBuild,
    NotSent,
    OutcomeUnknown,
    RecordFetched,
    Rejected,
    Throttled,
)
from bridge.domain.routing import Route
from tests.support import builders
from tests.support.builders import MINUTE, NOW, PARAMETERS, POLICY, a_build

AWAY = 3
SAID = "what CodeArts said"
FAILURES = [
    CredentialsRejected(message=SAID),
    Rejected(status=400, message=SAID),
    NotSent(message=SAID),
    OutcomeUnknown(message=SAID, status=502),
]


def after(outcome, **values):
    build = a_build(**values)
    return apply(build, after_poll(build, outcome, NOW, POLICY, AWAY, requested_at=NOW))


@pytest.mark.parametrize("by", EndReason)
def test_a_guessed_end_remembers_which_reports_it_has_seen(by):
    build = a_build()
    build = apply(build, end_build(build, by, NOW, AWAY))

    guess = by in {EndReason.IDLE, EndReason.NOT_FOUND, EndReason.MAX_AGE}
    assert (build.state, build.ended_at, build.end_reason) == (BuildState.ENDED, NOW, by)
    assert build.ended_report_at == (build.last_report_at if guess else None)
    assert (build.finalize_hold_since, build.outage_us_at_hold) == (NOW, AWAY)
    assert build.end_is_inferred is guess


def test_a_build_that_still_runs_is_looked_at_again_more_seldom_each_time():
    first = after(BuildInfo(building=True, result=None, region=None))
    third = after(BuildInfo(building=True, result=None, region=None), polls=2)

    assert (first.state, first.polls, first.polled_at) == (BuildState.OPEN, 1, NOW)
    assert first.poll_due_at == NOW + POLICY.poll_min_interval
    assert third.poll_due_at == NOW + POLICY.poll_min_interval * 9 // 4


def test_a_build_that_runs_no_more_has_ended_with_its_result():
    build = after(BuildInfo(building=False, result="FAILURE", region="cn-north-4"), not_found_since=NOW - MINUTE)

    assert (build.state, build.end_reason, build.build_result) == (BuildState.ENDED, EndReason.BUILD_INFO, "FAILURE")
    assert (build.ended_at, build.finalize_hold_since, build.outage_us_at_hold, build.not_found_since) == (
        NOW,
        NOW,
        AWAY,
        None,
    )


@pytest.mark.parametrize(
    "values",
    [{}, {"not_found_since": NOW - POLICY.not_found_timeout + 1}],
    ids=["once", "for less than not_found_timeout"],
)
def test_a_build_that_codearts_does_not_know_yet_stays_open(values):
    build = after(NoSuchBuild(message=SAID), **values)

    assert (build.state, build.last_error) == (BuildState.OPEN, SAID)
    assert build.not_found_since == values.get("not_found_since", NOW)


def test_a_build_that_codearts_keeps_not_knowing_has_ended():
    build = after(NoSuchBuild(message=SAID), not_found_since=NOW - POLICY.not_found_timeout)

    assert (build.state, build.end_reason, build.ended_report_at) == (
        BuildState.ENDED,
        EndReason.NOT_FOUND,
        build.last_report_at,
    )


def test_time_in_which_codearts_could_not_be_asked_does_not_count_as_unknown():
    since, looked = NOW - 2 * POLICY.not_found_timeout, NOW - POLICY.not_found_timeout
    build = after(NoSuchBuild(message=SAID), not_found_since=since, polled_at=looked)
    counted = POLICY.not_found_timeout + POLICY.poll_max_interval

    assert (build.state, build.not_found_since) == (BuildState.ENDED, NOW - counted)
    fresh = after(NoSuchBuild(message=SAID), not_found_since=looked, polled_at=looked)
    assert (fresh.state, fresh.not_found_since) == (BuildState.OPEN, NOW - POLICY.poll_max_interval)


@pytest.mark.parametrize("outcome", [*FAILURES, BuildInfo(building=True, result=None, region=None)])
def test_an_outage_or_another_answer_begins_the_count_of_unknown_anew(outcome):
    build = after(outcome, not_found_since=NOW - POLICY.not_found_timeout)

    assert (build.state, build.not_found_since) == (BuildState.OPEN, None)


def test_being_told_to_slow_down_says_nothing_of_the_build():
    since = NOW - POLICY.not_found_timeout
    build = after(Throttled(message=SAID), not_found_since=since)

    assert (build.state, build.not_found_since, build.last_error) == (BuildState.OPEN, since, SAID)
    waited = after(Throttled(message=SAID), not_found_since=since, polled_at=NOW - MINUTE)
    assert waited.not_found_since == since + MINUTE


@pytest.mark.parametrize("outcome", [*FAILURES, Throttled(message=SAID), NoSuchBuild(message=SAID)])
def test_every_look_counts_and_uses_up_its_reserved_place(outcome):
    build = after(outcome, poll_reserved=True, polls=3, polled_at=None)

    assert (build.polls, build.polled_at, build.poll_reserved, build.last_error) == (4, NOW, False, SAID)
    assert NOW < build.poll_due_at <= NOW + POLICY.poll_max_interval


@pytest.mark.parametrize(
    "outcome", [BuildInfo(building=False, result="SUCCESS", region=None), NoSuchBuild(message=SAID)]
)
def test_a_build_that_has_ended_does_not_end_again(outcome):
    build = builders.ended(not_found_since=NOW - POLICY.not_found_timeout)

    after_it = apply(build, after_poll(build, outcome, NOW, POLICY, AWAY, requested_at=NOW))

    assert replace(after_it, polled_at=None, polls=0, poll_due_at=0) == build


def test_a_look_that_has_to_wait_keeps_its_place():
    build = apply(a_build(), defer_poll(NOW + MINUTE))

    assert (build.poll_due_at, build.poll_reserved, build.polls) == (NOW + MINUTE, True, 0)


def test_a_record_is_kept_and_compared_with_what_the_upload_said():
    build = a_build(upload_metadata=UploadMetadata(project_id="mine", commit="c0ffee1"))
    record = BuildRecord(devcloud_project_id="theirs", commit="c0ffee1234")

    described = apply(build, after_record(build, RecordFetched(record=record), NOW, POLICY, question=RECORD_INFO))

    assert (described.record, described.described_at) == (record, NOW)
    assert described.metadata_mismatch == "The upload named project mine, the record theirs."


@pytest.mark.parametrize("outcome", [*FAILURES, Throttled(message=SAID), NoSuchBuild(message=SAID)])
def test_a_record_that_is_away_is_asked_for_again_later(outcome):
    build = a_build(describe_attempts=2)

    build = apply(build, after_record(build, outcome, NOW, POLICY, question=RECORD_INFO))

    assert (build.described_at, build.record, build.describe_attempts) == (None, None, 3)
    assert NOW + 2 * SECOND <= build.describe_due_at <= NOW + 4 * SECOND
    assert build.last_error == SAID


RECORD_INFO = RecordQuestion.RECORD_INFO
SHORT, LONG = 5_000_000, 60_000_000


@pytest.mark.parametrize(
    ("polls", "seconds"), [(0, 5), (1, 5), (2, 7.5), (3, 11.25), (7, 56.953125), (8, 60), (100_000, 60)]
)
def test_builds_that_run_long_are_looked_at_more_seldom(polls, seconds):
    assert poll_interval(polls, min_us=SHORT, max_us=LONG) == seconds * 1_000_000


@given(st.integers(0, 10_000))
def test_the_interval_never_shrinks_and_stays_within_its_bounds(polls):
    interval = poll_interval(polls, min_us=SHORT, max_us=LONG)

    assert SHORT <= interval <= poll_interval(polls + 1, min_us=SHORT, max_us=LONG) <= LONG


@pytest.mark.parametrize(
    ("poll_requested_at", "polled_at", "due_at"),
    [
        (None, None, None),
        (None, LONG, None),
        (LONG, None, LONG),
        (LONG, LONG, None),
        (LONG, LONG + 1, None),
        (LONG, LONG - 1, LONG - 1 + MIN_POLL_GAP),
        (LONG, SHORT, LONG),
    ],
)
def test_who_asks_to_look_is_heard_once_and_not_twice_a_second(poll_requested_at, polled_at, due_at):
    assert requested_poll_due_at(poll_requested_at, polled_at) == due_at


# -- complete=true -----------------------------------------------------------------------------------------------

BY_BRANCH = replace(POLICY, routes=(Route(name="a", branch=("main",)), Route(name="b")))


@pytest.mark.parametrize(
    ("complete_routes", "values", "is_complete"),
    [
        (None, {}, True),
        (("b",), {}, False),
        (("a",), {}, False),
        (("a", "b"), {}, True),
        (("b",), {"upload_metadata": UploadMetadata(branch="dev")}, False),
        (("b",), {"record": BuildRecord(branch="dev")}, True),
        (("b",), {"record": BuildRecord(branch="main")}, False),
        (("a",), {"record": BuildRecord(branch="main")}, True),
        (("b",), {"run_parameters": replace(PARAMETERS, route="a")}, False),
        (("a",), {"run_parameters": replace(PARAMETERS, route="a")}, True),
    ],
)
def test_complete_counts_if_its_caller_may_use_whichever_route_the_build_gets(complete_routes, values, is_complete):
    build = a_build(complete_at=NOW, complete_routes=complete_routes, **values)
    assert is_declared_complete(build, BY_BRANCH) is is_complete


def test_a_build_without_a_route_is_completed_only_by_a_caller_that_may_use_any():
    policy = replace(POLICY, routes=(Route(name="a", job_id=("other",)),))
    assert is_declared_complete(a_build(complete_at=NOW), policy)
    assert not is_declared_complete(a_build(complete_at=NOW, complete_routes=("a",)), policy)
    assert not is_declared_complete(a_build(), policy)
