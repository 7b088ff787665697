"""Huawei's own SDK with the bridge as its endpoint: what works at CodeArts works here, and fails alike."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from huaweicloudsdkcodeartsbuild.v3 import (
    CodeArtsBuildClient,
    ShowBuildDetailsRequest,
    ShowBuildRecordFullStagesRequest,
    ShowJobBuildRecordDetailRequest,
    ShowRecordDetailRequest,
    ShowReportSummaryRequest,
)
from huaweicloudsdkcodeartscheck.v2 import CodeArtsCheckClient, RunRequestV2, RunTaskRequest, ShowProgressDetailRequest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException

from bridge.sandbox.sandbox import DEFAULT_KEY, Sandbox
from tests.support.processes import GatewayProcess, NewGateway, Settings

JOB, OTHER_JOB = "a" * 32, "b" * 32
CI = ("CIATTHEBRIDGE", "canary-sk-of-ci-51f3")
CHECK_PATHS = ["GET /v2/tasks/*/progress", "POST /v2/tasks/*/run"]
DEFAULT_PATHS = ["/v1/job/*/*/build-info", "/v1/record/*/*/record-info", "/v4/jobs/*/*/record-info"]
DEFAULT_PATHS += ["/v1/record/*/full-stages", "/v1/report/*/summary"]


@pytest.fixture
async def gateway(sandbox: Sandbox, settings: Settings, new_gateway: NewGateway) -> GatewayProcess:
    """A bridge that signs at CodeArts with its own key, before a CodeArts that takes that one only."""
    sandbox.state.behavior = sandbox.state.behavior.changed({"credentials_wanted": True})
    for job_id in (JOB, OTHER_JOB):
        sandbox.state.builds.start(job_id, 1, at=sandbox.state.micros())
    access_key, secret_key = DEFAULT_KEY
    ours = {
        "endpoint": sandbox.codearts_url,
        "check_endpoint": sandbox.check_url,
        "auth": "aksk",
        "access_key": access_key,
        "secret_key": secret_key,
    }
    key = {"name": "ci", "access_key": CI[0], "secret_key": CI[1], "routes": ["all"], "scopes": ["proxy"]}
    (route,) = settings["routes"]
    gateway = new_gateway(
        {
            **settings,
            "codearts": ours,
            "callers": {"auth": "aksk"},
            "callers.keys": [key],
            "proxy": {"paths": DEFAULT_PATHS + CHECK_PATHS},
            "routes": [{**route, "job_id": JOB}],
        }
    )
    await gateway.start()
    return gateway


def client(kind: Any, gateway: GatewayProcess, key: tuple[str, str] = CI) -> Any:
    credentials = BasicCredentials(*key, "0e7e5c1b6f800f2a2f4dc0098e5b7d5f")
    return kind.new_builder().with_credentials(credentials).with_endpoint(gateway.server_url).build()


async def ask(call: Callable[..., Any], request: Any) -> Any:
    return await asyncio.to_thread(call, request)


async def test_with_a_right_key_everything_works(sandbox: Sandbox, gateway: GatewayProcess) -> None:
    build, check = client(CodeArtsBuildClient, gateway), client(CodeArtsCheckClient, gateway)

    info = await ask(build.show_build_details, ShowBuildDetailsRequest(job_id=JOB, build_no=1))
    assert info.result.building is True
    record = await ask(build.show_record_detail, ShowRecordDetailRequest(job_id=JOB, build_no=1))
    twin = await ask(build.show_job_build_record_detail, ShowJobBuildRecordDetailRequest(job_id=JOB, build_no=1))
    assert record.result.repo_name == twin.result.repo_name == "maven"
    record_id = record.result.build_record_id
    stages = await ask(
        build.show_build_record_full_stages, ShowBuildRecordFullStagesRequest(record_id=record_id, cascade=True)
    )
    assert [stage.build_record_id for stage in stages.result.build_stages.values()] == [record_id]
    said = await ask(build.show_report_summary, ShowReportSummaryRequest(job_id=JOB, build_no=1))
    assert said.result.summary.total == 0
    sandbox.state.checks.open("task-1")
    run = await ask(check.run_task, RunTaskRequest(task_id="task-1", body=RunRequestV2(git_branch="main")))
    progress = await ask(check.show_progress_detail, ShowProgressDetailRequest(task_id="task-1"))
    assert (len(run.exec_id), progress.task_status) == (32, 0)
    assert {line["forwarded_as"] for line in gateway.events("request_proxied")} == {"bridge"}
    assert CI[1] not in gateway.stderr()


@pytest.mark.parametrize("key", [(CI[0], "wrong"), ("NOBODYSKEY", CI[1]), DEFAULT_KEY])
async def test_a_wrong_or_unknown_key_fails_as_at_huawei(
    sandbox: Sandbox, gateway: GatewayProcess, key: tuple[str, str]
) -> None:
    build = client(CodeArtsBuildClient, gateway, key)

    with pytest.raises(ClientRequestException) as refused:
        await ask(build.show_build_details, ShowBuildDetailsRequest(job_id=JOB, build_no=1))

    assert (refused.value.status_code, refused.value.error_code) == (401, "APIGW.0301")
    assert refused.value.request_id
    assert sandbox.state.calls.at("codearts.*") == []


async def test_a_stale_date_fails_as_at_huawei(gateway: GatewayProcess) -> None:
    build = client(CodeArtsBuildClient, gateway)

    with pytest.raises(ClientRequestException) as refused:
        await asyncio.to_thread(
            build.do_http_request,
            method="GET",
            resource_path=f"/v1/job/{JOB}/1/build-info",
            header_params={"X-Sdk-Date": "20200101T000000Z"},
            response_type="ShowBuildDetailsResponse",
        )

    assert (refused.value.status_code, refused.value.error_code) == (401, "APIGW.0301")


async def test_another_routes_job_is_refused_and_what_codearts_refuses_comes_through(gateway: GatewayProcess) -> None:
    build = client(CodeArtsBuildClient, gateway)

    with pytest.raises(ClientRequestException) as others:
        await ask(build.show_build_details, ShowBuildDetailsRequest(job_id=OTHER_JOB, build_no=1))
    with pytest.raises(ClientRequestException) as unknown:
        await ask(build.show_build_details, ShowBuildDetailsRequest(job_id=JOB, build_no=99))

    assert (others.value.status_code, others.value.error_code) == (403, "APIGW.0302")
    assert (unknown.value.status_code, unknown.value.error_code) == (422, "DEVCB.00031006")
