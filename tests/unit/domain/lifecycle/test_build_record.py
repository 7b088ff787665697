"""The record of a build: when its details are wanted, and what their answers change."""

from dataclasses import replace

import pytest

from bridge.domain.build import BuildRecord, UploadMetadata
from bridge.domain.changes import apply
from bridge.domain.instants import SECOND
from bridge.domain.lifecycle.build_record import (
    MAX_DETAIL_ATTEMPTS,
    RecordQuestion,
    after_record,
    lacks_details,
    next_question,
)
from bridge.domain.outcomes import (
    BuildsListed,
    CredentialsRejected,
    DetailsFetched,
    ListedBuild,
    NoSuchBuild,
    NotSent,
    OutcomeUnknown,
    RecordDetails,
    RecordFetched,
    Rejected,
    Throttled,
)
from bridge.domain.routing import Route
from tests.support.builders import NOW, POLICY, a_build

WHOLE = BuildRecord(build_record_id="r1", branch="main", commit="abc")
NO_COMMIT = replace(WHOLE, commit=None)
BY_NAME = replace(POLICY, routes=(Route(name="nightly", job_name=("nightly*",)), Route(name="rest")))
REPO = "https://codehub.example.com/codehub/1/home"


def details(build_no=None, **values):
    found = {"job_name": None, "branch": None, "commit": None, "repo_url": None, **values}
    return DetailsFetched(details=RecordDetails(build_no=a_build().build_no if build_no is None else build_no, **found))


def listed(build_no, **values):
    known = dict.fromkeys(("result", "branch", "commit", "repo_url", "started_at", "duration"))
    return ListedBuild(build_no=build_no, finished=True, **{**known, **values})


def fetched(record=NO_COMMIT, policy=POLICY, **values):
    build = a_build(**values)
    return apply(
        build, after_record(build, RecordFetched(record=record), NOW, policy, question=RecordQuestion.RECORD_INFO)
    )


def answered(build, outcome, now, policy, question=RecordQuestion.DETAILS):
    return after_record(build, outcome, now, policy, question=question)


@pytest.mark.parametrize(
    ("record", "route", "wanted"),
    [
        (None, Route(name="r"), False),
        (WHOLE, Route(name="r"), False),
        (NO_COMMIT, Route(name="r"), True),
        (replace(NO_COMMIT, build_record_id=None), Route(name="r"), False),
        (replace(WHOLE, branch=None), Route(name="r"), True),
        (replace(WHOLE, branch=None, tag="v1"), Route(name="r"), False),
        (WHOLE, Route(name="r", job_name=("nightly",)), True),
        (WHOLE, Route(name="r", run_url="https://x/{job_name}"), True),
        (WHOLE, Route(name="r", run_url="{repo_url}/build"), True),
        (WHOLE, Route(name="r", build_id="{job_name}-{job_id}-{build_no}"), True),
        (replace(WHOLE, job_name="a"), Route(name="r", job_name=("nightly",), run_url="https://x/{job_name}"), False),
        (NO_COMMIT, Route(name="r", branch=("release",)), False),  # no route takes the build
    ],
)
def test_details_are_wanted_for_what_the_record_lacks_and_a_route_uses(record, route, wanted):
    assert lacks_details(a_build(record=record), replace(POLICY, routes=(route,))) is wanted


def test_a_record_with_all_that_is_wanted_is_the_end_of_it():
    assert fetched(WHOLE).described_at == NOW


def test_details_complete_the_record():
    build = fetched()
    assert (build.record, build.described_at) == (NO_COMMIT, None)
    build = apply(build, answered(build, details(commit="c1", branch="x", job_name="n", repo_url=REPO), NOW, POLICY))
    assert build.record == replace(NO_COMMIT, commit="c1", job_name="n", repo_url=REPO)
    assert (build.described_at, build.last_error) == (NOW, None)


def test_the_commit_of_the_details_is_compared_with_what_the_upload_stated():
    build = fetched(upload_metadata=UploadMetadata(commit="abc"))
    build = apply(build, answered(build, details(commit="def"), NOW, POLICY))
    assert build.metadata_mismatch == "The upload named commit abc, the record def."


def test_details_of_another_build_are_not_believed():
    build = fetched()
    build = apply(build, answered(build, details(build_no=build.build_no + 1, commit="c1"), NOW, POLICY))
    assert (build.record, build.described_at) == (NO_COMMIT, NOW)


def test_a_tag_is_not_taken_for_a_branch():
    build = fetched(replace(NO_COMMIT, branch=None, tag="v1"))
    build = apply(build, answered(build, details(commit="c1", branch="v1"), NOW, POLICY))
    assert (build.record.branch, build.record.commit) == (None, "c1")


def test_the_list_of_the_jobs_builds_has_the_commit_too():
    build = fetched()
    answer = BuildsListed(
        builds=(listed(build.build_no + 1, commit="no"), listed(build.build_no, commit="c1")), pages=1
    )
    build = apply(build, answered(build, answer, NOW, POLICY))
    assert (build.record.commit, build.described_at) == ("c1", NOW)


def test_a_list_without_the_build_is_the_end_of_it():
    build = fetched()
    build = apply(build, answered(build, BuildsListed(builds=(), pages=0), NOW, POLICY))
    assert (build.record, build.described_at) == (NO_COMMIT, NOW)


@pytest.mark.parametrize("policy", [POLICY, BY_NAME], ids=["one route", "routes by name"])
@pytest.mark.parametrize(
    "outcome",
    [NoSuchBuild(message="m"), Rejected(status=403, message="m"), OutcomeUnknown(status=200, message="m")],
    ids=lambda outcome: type(outcome).__name__,
)
def test_an_answer_that_would_come_again_ends_the_wait_for_details(outcome, policy):
    build = fetched(policy=policy)
    if not isinstance(outcome, NoSuchBuild):  # the list may help
        build = apply(build, answered(build, outcome, NOW, policy))
        assert (build.described_at, build.describe_due_at, build.describe_attempts) == (None, NOW, 0)
        assert next_question(build, details_refused=True) is RecordQuestion.LIST
    build = apply(build, answered(build, outcome, NOW, policy, RecordQuestion.LIST))
    assert (build.record, build.described_at, build.last_error) == (NO_COMMIT, NOW, "m")
    assert build.record_missing is False


FAILURES = [
    NotSent(message="m"),
    OutcomeUnknown(status=503, message="m"),
    Throttled(message="m"),
    CredentialsRejected(message="m"),
]


@pytest.mark.parametrize("outcome", FAILURES, ids=lambda outcome: type(outcome).__name__)
def test_a_failure_is_tried_again_and_holds_no_report_back_for_long(outcome):
    build = fetched()
    for attempt in range(1, MAX_DETAIL_ATTEMPTS + 1):
        assert build.described_at is None
        build = apply(build, answered(build, outcome, NOW, POLICY))
        assert build.describe_attempts == attempt
        assert build.describe_due_at >= NOW + SECOND / 2
    assert (build.record, build.described_at) == (NO_COMMIT, NOW)


@pytest.mark.parametrize("outcome", FAILURES, ids=lambda outcome: type(outcome).__name__)
def test_a_name_that_decides_the_route_is_waited_for_as_long_as_the_record(outcome):
    build = fetched(policy=BY_NAME)
    for _ in range(2 * MAX_DETAIL_ATTEMPTS):
        build = apply(build, answered(build, outcome, NOW, BY_NAME))
    assert build.described_at is None


def test_questions_come_in_their_order():
    assert next_question(a_build(), details_refused=False) is RecordQuestion.RECORD_INFO
    assert next_question(a_build(), details_refused=True) is RecordQuestion.RECORD_INFO
    assert next_question(fetched(), details_refused=False) is RecordQuestion.DETAILS
    assert next_question(fetched(), details_refused=True) is RecordQuestion.LIST
