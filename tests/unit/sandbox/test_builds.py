import pytest

from bridge.sandbox.builds import Builds

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
STARTED_AT = 1_665_476_922_000_000  # 2022-10-11T08:28:42Z


def test_a_build_that_runs_has_no_result_and_no_finish_time():
    build = Builds().start(JOB, 61, at=STARTED_AT)
    assert build.info() == {"building": True, "build_result": None, "region": "cn-north-4"}
    assert build.record()["finish_time"] is None
    assert build.record()["status"] == "RUNNING"


def test_an_ended_build_has_its_result_in_both_responses():
    builds = Builds()
    builds.start(JOB, 61, at=STARTED_AT)
    build = builds.end(JOB, 61, at=STARTED_AT + 100_068_000, build_result="FAILURE")
    assert build.info() == {"building": False, "build_result": "FAILURE", "region": "cn-north-4"}
    assert build.record()["status"] == "FAILURE"
    assert build.record()["duration"] == 100_068


def test_times_of_a_record_are_written_as_in_the_reference():
    builds = Builds()
    builds.start(JOB, 61, at=STARTED_AT)
    record = builds.end(JOB, 61, at=STARTED_AT + 105_000_000).record()
    assert record["create_time"] == "2022-10-11T08:28:42.000+00:00"
    assert record["finish_time"] == "2022-10-11T08:30:27.000+00:00"
    assert record["daily_build_num"] == "20221011.61"


def test_a_record_shows_what_it_was_told_to_show():
    record = Builds().start(JOB, 1, at=STARTED_AT, record={"branch": None, "commit": "abc"}).record()
    assert (record["branch"], record["commit"]) == (None, "abc")


def test_a_record_has_every_field_of_the_reference_and_no_other():
    record = Builds().start(JOB, 1, at=STARTED_AT).record()
    assert set(record) == {
        "id",
        "build_project_id",
        "build_record_id",
        "parent_record_id",
        "devcloud_project_id",
        "codeci_job_id",
        "user_id",
        "build_no",
        "daily_build_num",
        "execution_id",
        "repo_name",
        "repo_id",
        "branch",
        "tag",
        "commit",
        "commit_message",
        "commit_create_time",
        "trigger_type",
        "build_type",
        "status",
        "domain_id",
        "create_time",
        "schedule_time",
        "queued_time",
        "start_time",
        "runnable_time",
        "finish_time",
        "duration",
        "record_status",
        "use_private_slave",
        "region",
        "err_msg",
        "build_config_type",
    }


@pytest.mark.parametrize(
    ("job_id", "build_no", "record", "complaint"),
    [
        ("short", 1, {}, "32 letters and digits"),
        (JOB, 0, {}, "whole number from 1"),
        (JOB, 2**31, {}, "whole number from 1"),
        (JOB, 1, {"brunch": "main"}, "brunch"),
    ],
)
def test_a_build_that_codearts_could_not_have_is_rejected(job_id, build_no, record, complaint):
    with pytest.raises(ValueError, match=complaint):
        Builds().start(job_id, build_no, at=STARTED_AT, record=record)


def test_a_build_that_was_never_started_cannot_end():
    with pytest.raises(LookupError, match="never started"):
        Builds().end(JOB, 1, at=STARTED_AT)


def test_a_forgotten_build_is_unknown():
    builds = Builds()
    builds.start(JOB, 1, at=STARTED_AT)
    builds.forget(JOB, 1)
    assert builds.find(JOB, 1) is None
