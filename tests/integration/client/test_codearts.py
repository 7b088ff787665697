import asyncio
import hashlib

import pytest
from aiohttp import web

from bridge.client.codearts import CodeArts, CodeArtsReports, ReportFile
from bridge.client.credentials import StaticHeaders
from bridge.domain.build import BuildRecord
from bridge.domain.instants import Instant
from bridge.domain.outcomes import BuildInfo, CorruptBody, NotSent, RecordFetched, Rejected, SpoolUnreadable
from bridge.errors import CorruptBlob, Unavailable
from bridge.sandbox.sandbox import Sandbox

JOB = "cb5fa20de5fd4cf8be681d4bd6fdd2f6"
V1 = f"/v1/record/{JOB}/61/record-info"
V4 = f"/v4/jobs/{JOB}/61/record-info"
NO_SUCH_API = (404, {"error_code": "APIGW.0101", "error_msg": "The API does not exist", "request_id": "1"})
RECORD = (200, {"status": "success", "result": {"branch": "main"}})


class Stub:
    """A CodeArts that answers by path and keeps what it was asked."""

    def __init__(self):
        self.calls = []
        self.answers = {}

    async def handle(self, request):
        self.calls.append((request.path, request.headers.get("X-Auth-Token")))
        status, body = self.answers.get(request.path, NO_SUCH_API)
        return web.json_response(body, status=status)

    @property
    def paths(self):
        return [path for path, _ in self.calls]


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
async def endpoint(stub, aiohttp_server):
    app = web.Application()
    app.router.add_get("/{path:.*}", stub.handle)
    return str((await aiohttp_server(app)).make_url("/"))


@pytest.mark.parametrize("token", [None, "t" * 20_000])
async def test_build_info_is_asked_with_the_token_where_there_is_one(stub, aiohttp_server, new_session, token):
    app = web.Application()
    app.router.add_get("/{path:.*}", stub.handle)
    server = await aiohttp_server(app, max_field_size=100_000, max_line_size=100_000)
    path = f"/v1/job/{JOB}/61/build-info"
    stub.answers[path] = (200, {"status": "success", "result": {"building": False, "build_result": "SUCCESS"}})
    client = CodeArts(
        new_session("codearts"),
        str(server.make_url("/")),
        StaticHeaders((("X-Auth-Token", token),)) if token else StaticHeaders(),
    )
    assert await client.build_info(JOB, 61) == BuildInfo(building=False, result="SUCCESS", region=None)
    assert stub.calls == [(path, token)]


async def test_record_info_asks_the_current_twin_first(stub, endpoint, new_session):
    stub.answers = {V1: RECORD, V4: RECORD}
    client = CodeArts(new_session("codearts"), endpoint, StaticHeaders())
    assert await client.record_info(JOB, 61) == RecordFetched(record=BuildRecord(branch="main"))
    assert stub.paths == [V1]


async def test_the_twin_that_exists_is_found_and_remembered(stub, endpoint, new_session):
    stub.answers = {V4: RECORD}
    client = CodeArts(new_session("codearts"), endpoint, StaticHeaders())
    for _ in range(2):
        assert isinstance(await client.record_info(JOB, 61), RecordFetched)
    assert stub.paths == [V1, V4, V4]


async def test_the_other_twin_is_found_again_when_the_remembered_one_goes(stub, endpoint, new_session):
    stub.answers = {V4: RECORD}
    client = CodeArts(new_session("codearts"), endpoint, StaticHeaders())
    await client.record_info(JOB, 61)
    stub.answers = {V1: RECORD}
    assert isinstance(await client.record_info(JOB, 61), RecordFetched)
    assert stub.paths == [V1, V4, V4, V1]


async def test_without_either_twin_the_response_is_a_rejection(stub, endpoint, new_session):
    client = CodeArts(new_session("codearts"), endpoint, StaticHeaders())
    for _ in range(2):
        assert isinstance(await client.record_info(JOB, 61), Rejected)
    assert stub.paths == [V1, V4, V1, V4]


async def test_any_other_rejection_does_not_ask_the_twin(stub, endpoint, new_session):
    stub.answers = {V1: (403, {"error_code": "APIGW.0302", "error_msg": "no"})}
    client = CodeArts(new_session("codearts"), endpoint, StaticHeaders())
    assert isinstance(await client.record_info(JOB, 61), Rejected)
    assert stub.paths == [V1]


async def test_an_unreachable_codearts_is_an_outcome(closed_port, new_session):
    client = CodeArts(
        new_session("codearts"), f"http://127.0.0.1:{closed_port}", StaticHeaders((("X-Auth-Token", "canary"),))
    )
    for outcome in (await client.build_info(JOB, 1), await client.record_info(JOB, 1)):
        assert isinstance(outcome, NotSent)
        assert "canary" not in outcome.message


async def test_each_call_is_observed_by_its_name(endpoint, new_session):
    observed = []
    session = new_session("codearts", observer=lambda up, call, _, outcome: observed.append((up, call, outcome)))
    client = CodeArts(session, endpoint, StaticHeaders())
    await client.build_info(JOB, 1)
    await client.record_info(JOB, 1)
    assert observed == [("codearts", "build_info", "Rejected"), ("codearts", "record_info", "Rejected")]


REPORT = b"<testsuite/>"
PATIENCE_SECONDS = 45  # far less than a CodeArts that waits for the rest would be waited for


def file_of(*pieces, error=None):
    async def read():
        for piece in pieces:
            yield piece
        if error is not None:
            raise error

    return ReportFile(name="r.xml", size=len(REPORT), sha256=hashlib.sha256(REPORT).hexdigest(), read=read)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (file_of(error=Unavailable("S3 is away.")), SpoolUnreadable),
        (file_of(error=PermissionError("no")), SpoolUnreadable),
        (file_of(error=CorruptBlob("It is gone.")), CorruptBody),
        (file_of(REPORT[:-1]), CorruptBody),
    ],
    ids=["away", "unreadable", "gone", "different"],
)
async def test_only_a_damaged_report_is_given_up_and_none_is_taken_by_half(raw_server, new_session, file, kind):
    came_whole = asyncio.get_running_loop().create_future()

    async def serve(reader, _writer):
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        came_whole.set_result(body.endswith(b"--\r\n"))

    reports = CodeArtsReports(new_session("codearts"), f"http://127.0.0.1:{await raw_server(serve)}", StaticHeaders())
    async with asyncio.timeout(PATIENCE_SECONDS):
        outcome = await reports.upload(JOB, 1, "1", [file])
        assert isinstance(outcome, kind)
        assert not await came_whole


async def test_lists_and_details_are_read_from_the_sandbox(new_session):
    now = Instant(1_700_000_000 * 1_000_000)
    async with Sandbox(now=lambda: now / 1_000_000) as sandbox:
        build = sandbox.state.builds.start(JOB, 61, at=now, details={"revision": "abc", "display_name": "nightly"})
        client = CodeArts(new_session("codearts"), sandbox.codearts_url, StaticHeaders())
        builds = await client.record_list(JOB, now, now)
        jobs = await client.job_list(str(build.project_id))
        details = await client.record_details(str(build.record()["build_record_id"]))
        calls = [(call.where, call.status) for call in sandbox.state.calls.at()]
    assert [(each.build_no, each.finished, each.commit, each.started_at) for each in builds.builds] == [
        (61, False, "abc", now)
    ]
    assert [(job.job_id, job.job_name, job.finished) for job in jobs.jobs] == [(JOB, "nightly", False)]
    assert (details.details.build_no, details.details.commit) == (61, "abc")
    assert calls == [("codearts.record_list", 200), ("codearts.job_list", 200), ("codearts.record_details", 200)]
