"""The sandbox's CodeArts Build and Check, called with Huawei's official SDK."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from huaweicloudsdkcodeartsbuild.v3 import (
    CodeArtsBuildClient,
    ListBuildInfoRecordByJobIdRequest,
    ListProjectJobsRequest,
    ShowBuildDetailsRequest,
    ShowBuildRecordFullStagesRequest,
    ShowBuildRecordRequest,
    ShowJobBuildRecordDetailRequest,
    ShowRecordDetailRequest,
    ShowReportSummaryRequest,
)
from huaweicloudsdkcodeartscheck.v2 import CodeArtsCheckClient, RunRequestV2, RunTaskRequest, ShowProgressDetailRequest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.formdata import FormFile

from bridge.sandbox.sandbox import DEFAULT_KEY, Sandbox

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
CASES = b'<testcase name="a"/><testcase name="b"><failure/></testcase><testcase name="c"><skipped/></testcase>'
JUNIT = b"<testsuite>" + CASES + b"</testsuite>"


@pytest.fixture
async def sandbox():
    """A sandbox by the real clock: the SDK signs by it."""
    async with Sandbox() as sandbox:
        sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
        yield sandbox


def client(kind, url, access_key=DEFAULT_KEY[0], secret_key=DEFAULT_KEY[1]):
    credentials = BasicCredentials(access_key, secret_key, "0e7e5c1b6f800f2a2f4dc0098e5b7d5f")
    return kind.new_builder().with_credentials(credentials).with_endpoint(url).build()


async def ask(client, call, **fields):
    return await asyncio.to_thread(getattr(client, call), fields.pop("request")(**fields))


@pytest.fixture
def build(sandbox):
    return client(CodeArtsBuildClient, sandbox.codearts_url)


@pytest.fixture
def check(sandbox):
    return client(CodeArtsCheckClient, sandbox.check_url)


async def test_builds_and_records_are_read(sandbox, build):
    sandbox.state.builds.start(JOB, 61, at=sandbox.state.micros())
    info = await ask(build, "show_build_details", request=ShowBuildDetailsRequest, job_id=JOB, build_no=61)
    assert info.result.building is True
    for call, request in (
        ("show_record_detail", ShowRecordDetailRequest),
        ("show_job_build_record_detail", ShowJobBuildRecordDetailRequest),
    ):
        record = await ask(build, call, request=request, job_id=JOB, build_no=61)
        assert record.result.repo_name == "maven"
    stages = await ask(
        build,
        "show_build_record_full_stages",
        request=ShowBuildRecordFullStagesRequest,
        record_id=record.result.build_record_id,
        cascade=True,
    )
    (stage,) = stages.result.build_stages.values()
    assert (stage.status, stage.build_record_id) == ("RUNNING", record.result.build_record_id)


async def test_what_was_uploaded_is_summed_up(sandbox, build, tmp_path):
    sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
    (tmp_path / "a.xml").write_bytes(JUNIT)

    def upload():
        with (tmp_path / "a.xml").open("rb") as file:
            return build.do_http_request(
                method="POST",
                resource_path="/v1/report/junit/report/upload",
                query_params=[("job_id", JOB), ("build_no", 1), ("node_id", "1")],
                header_params={"Content-Type": "multipart/form-data"},
                body={"files": FormFile(file)},
                post_params={},
                path_params={},
                response_type="ShowReportSummaryResponse",
            )

    await asyncio.to_thread(upload)
    said = await ask(build, "show_report_summary", request=ShowReportSummaryRequest, job_id=JOB, build_no=1)
    total = said.result.summary
    assert (total.total, total.success, total.failures, total.errors, total.others) == (3, 1, 1, 0, 1)
    assert total.is_success is False
    assert [part.stage_name for part in said.result.sub_summarys] == ["1"]


async def test_a_check_is_run_watched_and_read(sandbox, check):
    sandbox.state.checks.open("task-1")
    run = await ask(check, "run_task", request=RunTaskRequest, task_id="task-1", body=RunRequestV2())
    progress = await ask(check, "show_progress_detail", request=ShowProgressDetailRequest, task_id="task-1")
    assert (progress.task_status, progress.progress.ratio) == (0, "50%")
    assert len(run.exec_id) == 32
    with pytest.raises(ClientRequestException) as refused:
        await ask(check, "run_task", request=RunTaskRequest, task_id="nobody", body=RunRequestV2())
    assert refused.value.status_code == 400


@pytest.mark.parametrize(
    ("access_key", "secret_key", "reason"),
    [
        (DEFAULT_KEY[0], "wrong", "verify aksk signature fail"),
        ("UNKNOWN", DEFAULT_KEY[1], "Get secretKey failed,ak:UNKNOWN,err:ak not exist"),
    ],
)
async def test_wrong_and_unknown_keys_are_rejected_as_huawei_rejects_them(sandbox, access_key, secret_key, reason):
    sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
    stranger = client(CodeArtsBuildClient, sandbox.codearts_url, access_key, secret_key)
    with pytest.raises(ClientRequestException) as refused:
        await ask(stranger, "show_build_details", request=ShowBuildDetailsRequest, job_id=JOB, build_no=1)
    assert (refused.value.status_code, refused.value.error_code) == (401, "APIGW.0301")
    assert reason in refused.value.error_msg
    assert refused.value.request_id


async def test_a_key_that_failed_six_times_is_locked_for_five_minutes(clock):
    clock.seconds = datetime.now(UTC).timestamp()
    async with Sandbox(now=clock) as sandbox:
        sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
        wrong = client(CodeArtsBuildClient, sandbox.codearts_url, secret_key="wrong")
        right = client(CodeArtsBuildClient, sandbox.codearts_url)
        for _ in range(6):
            with pytest.raises(ClientRequestException, match="verify aksk signature fail"):
                await ask(wrong, "show_build_details", request=ShowBuildDetailsRequest, job_id=JOB, build_no=1)
        with pytest.raises(ClientRequestException, match="AK access failed to reach the limit"):
            await ask(right, "show_build_details", request=ShowBuildDetailsRequest, job_id=JOB, build_no=1)
        clock.move(5 * 60)
        await ask(right, "show_build_details", request=ShowBuildDetailsRequest, job_id=JOB, build_no=1)


async def test_a_stale_date_is_rejected(build):
    stale = f"{datetime.now(UTC) - timedelta(minutes=16):%Y%m%dT%H%M%SZ}"

    def call():
        return build.do_http_request(
            method="GET",
            resource_path=f"/v1/job/{JOB}/1/build-info",
            header_params={"X-Sdk-Date": stale},
            query_params=[],
            post_params={},
            path_params={},
        )

    with pytest.raises(ClientRequestException, match="verify aksk signature fail"):
        await asyncio.to_thread(call)


async def test_lists_and_details_are_read(sandbox, build):
    project = sandbox.state.builds.start(JOB, 61, at=sandbox.state.micros(), details={"revision": "abc"}).project_id
    now = datetime.now(UTC)
    records = await ask(
        build,
        "list_build_info_record_by_job_id",
        request=ListBuildInfoRecordByJobIdRequest,
        job_id=JOB,
        start_time=f"{now - timedelta(days=1):%Y-%m-%d %H:%M:%S}",
        end_time=f"{now + timedelta(days=1):%Y-%m-%d %H:%M:%S}",
    )
    assert records.result.total_record == "1"
    (record,) = records.result.job_build_states
    assert (record.number, record.job_running_status, record.commit_info.commit_id) == (61, "Running", "abc")
    jobs = await ask(
        build, "list_project_jobs", request=ListProjectJobsRequest, project_id=project, page_index=0, page_size=100
    )
    assert [(job.id, job.is_finished) for job in jobs.jobs] == [(JOB, False)]
    record_id = sandbox.state.builds.find(JOB, 61).record()["build_record_id"]
    details = await ask(build, "show_build_record", request=ShowBuildRecordRequest, record_id=record_id)
    assert (details.result.build_no, details.result.revision) == ("61", "abc")
    assert details.result.build_record_type.record_type == "JOB"


async def test_a_limit_is_an_error_of_the_sdk(sandbox, build):
    sandbox.state.behavior = sandbox.state.behavior.changed({"calls_per_minute": {"*": 0}})
    with pytest.raises(ClientRequestException) as refused:
        await ask(build, "show_build_details", request=ShowBuildDetailsRequest, job_id=JOB, build_no=61)
    assert refused.value.status_code == 429
