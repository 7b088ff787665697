"""TestNod's submission API at the gateway as a process: the worked example of its page, and its uploader's calls."""

import asyncio
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.demo.postgres import PostgresServer
from bridge.sandbox.sandbox import Sandbox
from tests.support.processes import GatewayProcess, NewGateway, until

TOKEN = "canary-of-the-submission"
PLACE = "https://app.testnod.com"
PATIENCE_SECONDS = 90.0
REPORT = '<testsuite name="rspec"><testcase classname="Shop" name="sells {}" time="0.01"/></testsuite>'

WORKED_EXAMPLE = r"""
# 1. Register the upload. The response includes a presigned URL.
response=$(curl -sS -X POST https://app.testnod.com/integrations/test_runs/upload \
-H "Project-Token: $TESTNOD_PROJECT_TOKEN" \
-F "test_run[metadata][build_id]=$CI_BUILD_ID" \
-F "test_run[metadata][branch]=$CI_BRANCH" \
-F "test_run[metadata][commit_sha]=$CI_COMMIT_SHA" \
-F "test_run[metadata][run_url]=$CI_RUN_URL" \
-F "tags[][value]=smoke")
# 2. PUT the JUnit file to the presigned URL from that response.
upload_url=$(echo "$response" | grep -o '"presigned_url":"[^"]*"' | cut -d'"' -f4)
curl -sS -H "Content-Type: application/xml" --upload-file tmp/rspec.xml "$upload_url"
# 3. When every file for this build has been uploaded:
curl -sS -X POST https://app.testnod.com/integrations/test_runs/finalize \
-H "Project-Token: $TESTNOD_PROJECT_TOKEN" \
-d "build_id=$CI_BUILD_ID"
"""
"""The worked example of TestNod's page "Submission API", as it stands there."""

REPORT_FAILURE = r"""
curl -sS -X POST https://app.testnod.com/integrations/test_runs/upload_failed \
-H "Project-Token: $TESTNOD_PROJECT_TOKEN" \
-d "test_run_id=$TEST_RUN_ID" \
-d "upload_id=$UPLOAD_ID" \
-d "failure_message=s3 PUT returned 502"
"""
"""The page's section "Reporting an upload failure"."""

SHELLS = pytest.mark.parametrize(
    "shell", [("sh", "-e"), ("dash", "-e"), ("bash", "-e"), ("busybox", "sh", "-e")], ids=" ".join
)


@pytest.fixture
def settings(settings: dict[str, Any]) -> dict[str, Any]:
    callers = {"auth": "token", "tokens": [TOKEN]}
    return {**settings, "callers": callers}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a script went."""

    code: int
    stdout: str
    stderr: str


async def run(shell: tuple[str, ...], script: str, gateway: GatewayProcess, folder: Path, **environ: str) -> Ended:
    """Run one of the page's scripts with the gateway's address in place of TestNod's."""
    assert shutil.which("curl"), "The page's example needs curl. Install it, as every CI image has it."
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed.")
    assert PLACE in script
    process = await asyncio.create_subprocess_exec(
        *(*shell, "-c", script.replace(PLACE, gateway.server_url)),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "CURL_HOME": str(folder), **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode or 0, stdout.decode(), stderr.decode())


async def build_of(gateway: GatewayProcess, build_id: str) -> dict[str, Any]:
    """Return what the admin API shows of a build."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{gateway.admin_url}/api/v1/builds", params={"job_id": "all", "build_no": build_id}) as answer,
    ):
        assert answer.status == 200, await answer.text()
        (build,) = (await answer.json())["builds"]
        return dict(build)


async def until_finalized(gateway: GatewayProcess, build_id: str) -> dict[str, Any]:
    async def is_finalized() -> bool:
        return (await build_of(gateway, build_id))["state"] == "finalized"

    await until(is_finalized, f"build {build_id} is finalized")
    return await build_of(gateway, build_id)


@SHELLS
@pytest.mark.parametrize("token", ["caller", "project"])
async def test_the_worked_example_of_the_page_runs_as_it_stands(
    shell: tuple[str, ...], token: str, gateway: GatewayProcess, sandbox: Sandbox, tmp_path: Path
) -> None:
    build_id = f"build-{'-'.join(shell).replace('-e', 'e')}-{token}"
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "rspec.xml").write_text(REPORT.format(build_id))

    ended = await run(
        shell,
        WORKED_EXAMPLE,
        gateway,
        tmp_path,
        TESTNOD_PROJECT_TOKEN=TOKEN if token == "caller" else sandbox.project_token,
        CI_BUILD_ID=build_id,
        CI_BRANCH="main",
        CI_COMMIT_SHA="0123456789abcdef",
        CI_RUN_URL="https://ci.example.com/runs/7",
    )

    assert (ended.code, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == {"status": "processing"}
    build = await until_finalized(gateway, build_id)
    (run_of_testnod,) = sandbox.state.runs.all(build_id)
    (upload,) = run_of_testnod.uploads
    assert upload.puts == 1
    assert upload.failed_at is None
    assert upload.registered.tags == ("smoke",)
    assert upload.registered.metadata == {
        "build_id": build_id,
        "branch": "main",
        "commit_sha": "0123456789abcdef",
        "run_url": "https://ci.example.com/runs/7",
    }
    assert (build["route"], build["branch"], build["commit"]) == ("all", "main", "0123456789abcdef")
    assert build["testnod"]["build_id"] == build_id
    assert [report["tests"] for report in build["reports"]] == [1]


async def test_the_pages_report_of_a_failed_put_runs_as_it_stands(
    gateway: GatewayProcess, sandbox: Sandbox, calls: "Calls", tmp_path: Path
) -> None:
    registered = await calls.register(gateway, "failed")
    ids = {"TEST_RUN_ID": str(registered["test_run_id"]), "UPLOAD_ID": str(registered["upload_id"])}

    ended = await run(("sh", "-e"), REPORT_FAILURE, gateway, tmp_path, TESTNOD_PROJECT_TOKEN=TOKEN, **ids)

    assert (ended.code, ended.stderr, json.loads(ended.stdout)) == (0, "", {"status": "failed"})
    await calls.post(gateway, "finalize", build_id="failed")
    await until_finalized(gateway, "failed")
    (run_of_testnod,) = sandbox.state.runs.all("failed")
    assert [upload.failure_message for upload in run_of_testnod.uploads] == ["s3 PUT returned 502"]


# -- kills and replicas ----------------------------------------------------------------------------------------------


class Calls:
    """The calls of a client that tries again until the gateway answers, at the address that `gateway` returns."""

    def __init__(self, http: aiohttp.ClientSession, token: str) -> None:
        self._http = http
        self._token = token

    async def post(self, gateway: GatewayProcess, call: str, **fields: Any) -> dict[str, Any]:
        url = f"{gateway.server_url}/integrations/test_runs/{call}"
        async with self._http.post(url, json=fields, headers={"Project-Token": self._token}) as answer:
            assert answer.status in {200, 201}, await answer.text()
            return dict(await answer.json())

    async def register(self, gateway: GatewayProcess, build_id: str) -> dict[str, Any]:
        return await self.post(gateway, "upload", tags=None, test_run={"metadata": {"build_id": build_id}})

    async def put(self, gateway: GatewayProcess, registered: dict[str, Any], body: bytes) -> int:
        url = gateway.server_url + re.sub("^https?://[^/]+", "", registered["presigned_url"])
        async with self._http.put(url, data=body, headers={"Content-Type": "application/xml"}) as answer:
            return answer.status


@pytest.fixture
async def calls() -> Any:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        yield Calls(http, TOKEN)


async def test_a_kill_between_any_two_steps_loses_and_doubles_nothing(
    gateway: GatewayProcess, sandbox: Sandbox, calls: Calls
) -> None:
    async def die() -> None:
        await gateway.kill()
        await gateway.start()

    body = REPORT.format("all").encode()
    registered = await calls.register(gateway, "killed")
    lost = await calls.register(gateway, "killed")
    await die()
    assert await calls.put(gateway, registered, body) == 200
    await die()
    assert await calls.put(gateway, registered, body) == 200  # its answer may have been lost
    ids = {"test_run_id": lost["test_run_id"], "upload_id": lost["upload_id"], "failure_message": "connection reset"}
    assert await calls.post(gateway, "upload_failed", **ids) == {"status": "failed"}
    await die()
    assert await calls.post(gateway, "upload_failed", **ids) == {"status": "failed"}
    assert await calls.post(gateway, "finalize", build_id="killed") == {"status": "processing"}
    await die()
    assert (await calls.post(gateway, "finalize", build_id="killed"))["status"] != "pending"

    build = await until_finalized(gateway, "killed")
    uploads = [upload for run in sandbox.state.runs.all("killed") for upload in run.uploads]
    assert len([upload for upload in uploads if upload.failed_at is None and upload.puts]) == 1
    assert "connection reset" in {upload.failure_message for upload in uploads}
    assert sorted(report["tests"] for report in build["reports"]) == [0, 1]


async def test_any_replica_answers_any_call(
    settings: dict[str, Any], new_gateway: NewGateway, sandbox: Sandbox, calls: Calls
) -> None:
    async with PostgresServer() as server:
        shared = {**settings, "store": settings["store"] | {"url": server.url()}}
        first, second = new_gateway(shared), new_gateway(shared)
        await first.start()
        await second.start()
        registered, lost = await calls.register(first, "shared"), await calls.register(second, "shared")
        assert registered["test_run_id"] == lost["test_run_id"]
        assert await calls.put(second, registered, REPORT.format("shared").encode()) == 200
        ids = {"test_run_id": lost["test_run_id"], "upload_id": lost["upload_id"], "failure_message": "gone"}
        assert await calls.post(first, "upload_failed", **ids) == {"status": "failed"}
        assert await calls.post(second, "finalize", build_id="shared") == {"status": "processing"}

        await until_finalized(first, "shared")
        (run_of_testnod,) = sandbox.state.runs.all("shared")
        assert sorted((upload.puts, upload.failure_message) for upload in run_of_testnod.uploads) == [
            (0, "gone"),
            (1, None),
        ]
        for gateway in (first, second):
            await gateway.close()
