from dataclasses import replace

import pytest

from bridge.domain.build import SECOND, BuildState, EndedBy, Record, Said
from bridge.domain.changes import apply
from bridge.domain.effects.ending import after_describe, after_poll, ended, poll_deferred
from bridge.domain.outcomes import BuildInfo, Described, NoSuchBuild, NotSent, Rejected, SlowDown, Unauthorized, Unknown
from tests.unit.domain import builders
from tests.unit.domain.builders import MINUTE, NOW, POLICY, a_build

AWAY = 3
SAID = "what CodeArts said"
FAILURES = [
    Unauthorized(message=SAID),
    Rejected(status=400, message=SAID),
    NotSent(message=SAID),
    Unknown(message=SAID, status=502),
]


def after(outcome, **values):
    build = a_build(**values)
    return apply(build, after_poll(build, outcome, NOW, POLICY, AWAY, asked_at=NOW))


@pytest.mark.parametrize("by", EndedBy)
def test_a_guessed_end_remembers_which_reports_it_has_seen(by):
    build = a_build()
    build = apply(build, ended(build, by, NOW, AWAY))

    guess = by in {EndedBy.IDLE, EndedBy.UNKNOWN, EndedBy.MAX_AGE}
    assert (build.state, build.ended_at, build.ended_by) == (BuildState.ENDED, NOW, by)
    assert build.ended_report_at == (build.last_report_at if guess else None)
    assert (build.hold_since, build.hold_away_us) == (NOW, AWAY)
    assert build.ended_by_guess is guess


def test_a_build_that_still_runs_is_looked_at_again_more_seldom_each_time():
    first = after(BuildInfo(building=True, result=None, region=None))
    third = after(BuildInfo(building=True, result=None, region=None), polls=2)

    assert (first.state, first.polls, first.polled_at) == (BuildState.OPEN, 1, NOW)
    assert first.poll_due_at == NOW + POLICY.poll_min
    assert third.poll_due_at == NOW + POLICY.poll_min * 9 // 4


def test_a_build_that_runs_no_more_has_ended_with_its_result():
    build = after(BuildInfo(building=False, result="FAILURE", region="cn-north-4"), unknown_since=NOW - MINUTE)

    assert (build.state, build.ended_by, build.build_result) == (BuildState.ENDED, EndedBy.BUILD_INFO, "FAILURE")
    assert (build.ended_at, build.hold_since, build.hold_away_us, build.unknown_since) == (NOW, NOW, AWAY, None)


@pytest.mark.parametrize(
    "values",
    [{}, {"unknown_since": NOW - POLICY.unknown_for + 1}],
    ids=["once", "for less than unknown_for"],
)
def test_a_build_that_codearts_does_not_know_yet_stays_open(values):
    build = after(NoSuchBuild(message=SAID), **values)

    assert (build.state, build.last_error) == (BuildState.OPEN, SAID)
    assert build.unknown_since == values.get("unknown_since", NOW)


def test_a_build_that_codearts_keeps_not_knowing_has_ended():
    build = after(NoSuchBuild(message=SAID), unknown_since=NOW - POLICY.unknown_for)

    assert (build.state, build.ended_by, build.ended_report_at) == (
        BuildState.ENDED,
        EndedBy.UNKNOWN,
        build.last_report_at,
    )


def test_time_in_which_nobody_could_ask_does_not_count_as_unknown():
    since, looked = NOW - 2 * POLICY.unknown_for, NOW - POLICY.unknown_for
    build = after(NoSuchBuild(message=SAID), unknown_since=since, polled_at=looked)
    counted = POLICY.unknown_for + POLICY.poll_max

    assert (build.state, build.unknown_since) == (BuildState.ENDED, NOW - counted)
    fresh = after(NoSuchBuild(message=SAID), unknown_since=looked, polled_at=looked)
    assert (fresh.state, fresh.unknown_since) == (BuildState.OPEN, NOW - POLICY.poll_max)


@pytest.mark.parametrize("outcome", [*FAILURES, BuildInfo(building=True, result=None, region=None)])
def test_an_outage_or_another_answer_begins_the_count_of_unknown_anew(outcome):
    build = after(outcome, unknown_since=NOW - POLICY.unknown_for)

    assert (build.state, build.unknown_since) == (BuildState.OPEN, None)


def test_being_told_to_slow_down_says_nothing_of_the_build():
    since = NOW - POLICY.unknown_for
    build = after(SlowDown(message=SAID), unknown_since=since)

    assert (build.state, build.unknown_since, build.last_error) == (BuildState.OPEN, since, SAID)
    waited = after(SlowDown(message=SAID), unknown_since=since, polled_at=NOW - MINUTE)
    assert waited.unknown_since == since + MINUTE


@pytest.mark.parametrize("outcome", [*FAILURES, SlowDown(message=SAID), NoSuchBuild(message=SAID)])
def test_every_look_counts_and_uses_up_its_reserved_place(outcome):
    build = after(outcome, poll_reserved=True, polls=3, polled_at=None)

    assert (build.polls, build.polled_at, build.poll_reserved, build.last_error) == (4, NOW, False, SAID)
    assert NOW < build.poll_due_at <= NOW + POLICY.poll_max


@pytest.mark.parametrize(
    "outcome", [BuildInfo(building=False, result="SUCCESS", region=None), NoSuchBuild(message=SAID)]
)
def test_a_build_that_has_ended_does_not_end_again(outcome):
    build = builders.ended(unknown_since=NOW - POLICY.unknown_for)

    after_it = apply(build, after_poll(build, outcome, NOW, POLICY, AWAY, asked_at=NOW))

    assert replace(after_it, polled_at=None, polls=0, poll_due_at=0) == build


def test_a_look_that_has_to_wait_keeps_its_place():
    build = apply(a_build(), poll_deferred(NOW + MINUTE))

    assert (build.poll_due_at, build.poll_reserved, build.polls) == (NOW + MINUTE, True, 0)


def test_a_record_is_kept_and_compared_with_what_the_upload_said():
    build = a_build(said=Said(project_id="mine", commit="c0ffee1"))
    record = Record(devcloud_project_id="theirs", commit="c0ffee1234")

    described = apply(build, after_describe(build, Described(record=record), NOW, POLICY))

    assert (described.record, described.described_at) == (record, NOW)
    assert described.identity_mismatch == "The upload said project mine, the record theirs."


@pytest.mark.parametrize("outcome", [*FAILURES, SlowDown(message=SAID), NoSuchBuild(message=SAID)])
def test_a_record_that_is_away_is_asked_for_again_later(outcome):
    build = a_build(describe_attempts=2)

    build = apply(build, after_describe(build, outcome, NOW, POLICY))

    assert (build.described_at, build.record, build.describe_attempts) == (None, None, 3)
    assert NOW + 2 * SECOND <= build.describe_due_at <= NOW + 4 * SECOND
    assert build.last_error == SAID
