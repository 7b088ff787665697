"""The build that the variables of a CI system name."""

from collections.abc import Mapping

import pytest

from bridge.commands.upload.ci_build import CiBuild, read_build
from bridge.errors import BadParameter

JOB = "68491d9bc97b4774adb93e29b46d2dc6"
CODEARTS = {
    "JOB_ID": JOB,
    "INCREASENUM": "532",
    "PROJECT_ID": "p1",
    "COMMIT_ID": "c1",
    "codeBranch": "main",
    "JOB_NAME": "nightly",
    "TIMESTAMP": "20261129083000",
}
OTHERS: dict[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "GitHub Actions": (
        {
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": "o/r",
            "GITHUB_WORKFLOW": "CI",
            "GITHUB_RUN_NUMBER": "7",
            "GITHUB_JOB": "unit tests",
            "GITHUB_HEAD_REF": "topic",
            "GITHUB_REF_NAME": "12/merge",
            "GITHUB_SHA": "c1",
        },
        {"build_no": "7", "node_id": "unit-tests", "branch": "topic", "commit": "c1", "job_name": "o/r/CI"},
    ),
    "GitLab CI": (
        {
            "GITLAB_CI": "true",
            "CI_PROJECT_PATH": "g/p",
            "CI_PIPELINE_IID": "8",
            "CI_JOB_NAME": "test: [linux, 3.11]",
            "CI_COMMIT_REF_NAME": "main",
            "CI_COMMIT_SHA": "c2",
            "CI_PIPELINE_CREATED_AT": "2026-11-29T00:30:00Z",
        },
        {"build_no": "8", "node_id": "test-linux-3-11", "branch": "main", "commit": "c2", "job_name": "g/p"},
    ),
    "Jenkins": (
        {
            "JENKINS_URL": "https://j",
            "JOB_NAME": "folder/job",
            "BUILD_NUMBER": "9",
            "GIT_BRANCH": "origin/main",
            "GIT_COMMIT": "c3",
        },
        {"build_no": "9", "node_id": "", "branch": "main", "commit": "c3", "job_name": "folder/job"},
    ),
    "CircleCI": (
        {
            "CIRCLECI": "true",
            "CIRCLE_PROJECT_USERNAME": "o",
            "CIRCLE_PROJECT_REPONAME": "r",
            "CIRCLE_JOB": "test",
            "CIRCLE_BUILD_NUM": "10",
            "CIRCLE_NODE_INDEX": "2",
            "CIRCLE_BRANCH": "main",
            "CIRCLE_SHA1": "c4",
        },
        {"build_no": "10", "node_id": "2", "branch": "main", "commit": "c4", "job_name": "o/r/test"},
    ),
    "Buildkite": (
        {
            "BUILDKITE": "true",
            "BUILDKITE_ORGANIZATION_SLUG": "o",
            "BUILDKITE_PIPELINE_SLUG": "p",
            "BUILDKITE_BUILD_NUMBER": "11",
            "BUILDKITE_STEP_KEY": "unit",
            "BUILDKITE_BRANCH": "main",
            "BUILDKITE_COMMIT": "c5",
        },
        {"build_no": "11", "node_id": "unit", "branch": "main", "commit": "c5", "job_name": "o/p"},
    ),
}


def test_codearts_variables_name_the_build_and_its_start_in_chinese_time() -> None:
    build = read_build(CODEARTS, {})

    assert build.parameters() == {
        "job_id": JOB,
        "build_no": "532",
        "branch": "main",
        "commit": "c1",
        "project_id": "p1",
        "job_name": "nightly",
    }
    assert build.started_at == 1_795_912_200  # 00:30 UTC


@pytest.mark.parametrize("ci", OTHERS)
def test_other_systems_name_theirs_and_a_pipeline_keeps_its_id(ci: str) -> None:
    environ, wanted = OTHERS[ci]

    build = read_build(environ, {})

    assert build.ci == ci
    assert {name: getattr(build, name) for name in wanted} == wanted
    next_build = read_build({name: "99" if value == build.build_no else value for name, value in environ.items()}, {})
    assert (next_build.job_id, next_build.build_no) == (build.job_id, "99")


def test_pipelines_of_all_systems_have_different_ids() -> None:
    assert len({read_build(environ, {}).job_id for environ, _ in OTHERS.values()}) == len(OTHERS)


def test_a_start_without_a_variable_is_not_known() -> None:
    assert read_build(CODEARTS | {"TIMESTAMP": "20261399999999"}, {}).started_at is None
    assert read_build(OTHERS["GitHub Actions"][0], {}).started_at is None
    assert read_build(OTHERS["GitLab CI"][0], {}).started_at == 1_795_912_200


def test_options_replace_variables() -> None:
    build = read_build(CODEARTS, {"branch": " topic ", "commit": None, "build_no": "533"})
    assert (build.branch, build.commit, build.build_no) == ("topic", "c1", "533")


def test_a_variable_that_was_not_expanded_is_left_out_and_an_option_is_an_error() -> None:
    assert read_build(CODEARTS | {"COMMIT_ID": "${COMMIT_ID}"}, {}).commit == ""
    with pytest.raises(BadParameter, match=r"commit is .*not expanded"):
        read_build(CODEARTS, {"commit": "${COMMIT_ID}"})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"JOB_ID": ""}, "job_id is missing"),
        ({"JOB_ID": "${JOB_ID}"}, "not expanded"),
        ({"INCREASENUM": "20240626.1"}, "which is BUILDNUMBER"),
        ({"NODE_ID": "a b"}, "node_id is"),
    ],
)
def test_what_the_gateway_would_reject_is_rejected_in_its_words(changed: dict[str, str], message: str) -> None:
    with pytest.raises(BadParameter, match=message):
        read_build(CODEARTS | changed, {})


@pytest.mark.parametrize("number", ["1", "999999999", "1000000000", "2147483647"])
def test_every_number_that_the_gateway_takes_is_taken(number: str) -> None:
    assert read_build(CODEARTS | {"INCREASENUM": number}, {}) != CiBuild()
