"""Huawei's own SDK with the bridge as its endpoint: what works at CodeArts works here, and fails alike."""

import asyncio
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from huaweicloudsdkcodeartsbuild.v3 import (
    CodeArtsBuildClient,
    DownloadJunitCoverageZipRequest,
    ListJunitCoverageSummaryRequest,
    ShowBuildDetailsRequest,
    ShowBuildRecordFullStagesRequest,
    ShowJobBuildRecordDetailRequest,
    ShowRecordDetailRequest,
    ShowReportSummaryRequest,
)
from huaweicloudsdkcodeartscheck.v2 import CodeArtsCheckClient, RunRequestV2, RunTaskRequest, ShowProgressDetailRequest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.http.formdata import FormFile

from bridge.sandbox.sandbox import DEFAULT_KEY, Sandbox
from bridge.settings.model import ProxySettings
from tests.support.processes import GatewayProcess, NewGateway, Settings

JOB, OTHER_JOB = "a" * 32, "b" * 32
CI = ("CIATTHEBRIDGE", "canary-sk-of-ci-51f3")
CHECK_PATHS = ["GET /v2/tasks/*/progress", "POST /v2/tasks/*/run"]
DEFAULT_PATHS = list(ProxySettings().paths)


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
    key = {"name": "ci", "access_key": CI[0], "secret_key": CI[1], "routes": ["all"], "scopes": ["proxy", "upload"]}
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
    assert {stage.build_record_id for stage in stages.result.build_stages.values()} == {record_id}
    said = await ask(build.show_report_summary, ShowReportSummaryRequest(job_id=JOB, build_no=1))
    assert said.result.summary.total == 0
    sandbox.state.checks.open("task-1")
    run = await ask(check.run_task, RunTaskRequest(task_id="task-1", body=RunRequestV2(git_branch="main")))
    progress = await ask(check.show_progress_detail, ShowProgressDetailRequest(task_id="task-1"))
    assert (len(run.exec_id), progress.task_status) == (32, 0)
    assert {line["forwarded_as"] for line in gateway.events("request_proxied")} == {"bridge"}
    assert CI[1] not in gateway.stderr()


def upload_coverage(build: Any, job_id: str, path: Path) -> None:
    """Upload a file as a client of the SDK does; the SDK itself has no call for it."""
    build.do_http_request(
        method="POST",
        resource_path="/v1/report/junit/coverage/upload",
        query_params=[("job_id", job_id), ("build_no", 1), ("node_id", "1")],
        header_params={"Content-Type": "multipart/form-data"},
        body={"files": FormFile(str(path))},
        post_params={},
        path_params={},
        response_type="ShowReportSummaryResponse",
    )


async def test_coverage_is_uploaded_listed_and_downloaded_within_the_callers_jobs(
    sandbox: Sandbox, gateway: GatewayProcess, tmp_path: Path
) -> None:
    build = client(CodeArtsBuildClient, gateway)
    body = b"82 %" * 500_000  # more than signed calls of other kinds may have
    path = tmp_path / "coverage.html"
    path.write_bytes(body)
    await asyncio.to_thread(upload_coverage, build, JOB, path)
    with pytest.raises(ClientRequestException) as others:
        await asyncio.to_thread(upload_coverage, build, OTHER_JOB, path)
    assert (others.value.status_code, others.value.error_code) == (403, "APIGW.0302")

    listed = await ask(build.list_junit_coverage_summary, ListJunitCoverageSummaryRequest(job_id=JOB, build_no=1))
    (report,) = listed.result.unit_summary_list
    wanted = DownloadJunitCoverageZipRequest(job_id=JOB, build_no=1, root_id=report.root_id)
    response = await ask(build.download_junit_coverage_zip, wanted)
    pieces: list[bytes] = []
    response.consume_download_stream(pieces.extend)
    assert zipfile.ZipFile(io.BytesIO(b"".join(pieces))).read("coverage.html") == body
    assert [call.status for call in sandbox.state.calls.at("codearts.coverage_upload")] == [200]
    lines = [line for line in gateway.events("request_proxied") if line["path"].endswith("/coverage/upload")]
    assert [(line["status"], line["forwarded_as"], line["caller"]) for line in lines] == [
        (200, "bridge", "ci"),
        (403, None, "ci"),
    ]
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.admin_url}/metrics") as answer:
        assert 'bridge_coverage_uploads_total{status="2xx"} 1.0' in await answer.text()


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
