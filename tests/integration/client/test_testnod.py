import pytest
from aiohttp import web

from bridge.client.testnod import TestNod as Client
from bridge.domain.build import RunParameters
from bridge.domain.outcomes import (
    FailureRecorded,
    NotSent,
    OutcomeUnknown,
    ProjectMissing,
    Registered,
    RunMissing,
    RunStatus,
)

TOKEN = "canary-token"
PIN = RunParameters(
    route="shop",
    build_id="b-7",
    tags=("smoke", "linux"),
    run_url="https://ci.example/7?a=b&c",
    branch="主干 & more",
    commit="c0ffee",
    chosen_at=0,
)
REGISTERED = {
    "test_run_id": 42,
    "upload_id": 1,
    "test_run_url": "https://app.testnod.com/r/42",
    "presigned_url": "https://b.example/k?X-Amz-Expires=300",
}


class Stub:
    """A TestNod that answers what it is told and keeps what it was asked."""

    def __init__(self):
        self.calls = []
        self.status = 200
        self.body = {"status": "processed"}

    async def handle(self, request):
        form = await request.post()
        self.calls.append((request.path, request.headers.copy(), list(form.items())))
        return web.json_response(self.body, status=self.status)


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
async def client(stub, aiohttp_server, new_session):
    app = web.Application()
    app.router.add_post("/{path:.*}", stub.handle)
    server = await aiohttp_server(app)
    return Client(new_session(clock=lambda: 1_000_000), str(server.make_url("/")))


async def test_register_sends_the_references_form(client, stub):
    stub.status, stub.body = 201, REGISTERED
    outcome = await client.register(TOKEN, PIN)
    assert outcome == Registered(
        test_run_id="42",
        upload_id="1",
        test_run_url="https://app.testnod.com/r/42",
        presigned_url="https://b.example/k?X-Amz-Expires=300",
        expires_at=outcome.expires_at,
    )
    assert outcome.expires_at == 301_000_000
    [(path, headers, form)] = stub.calls
    assert path == "/integrations/test_runs/upload"
    assert headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert headers["Project-Token"] == TOKEN
    assert form == [
        ("test_run[metadata][build_id]", "b-7"),
        ("test_run[metadata][branch]", "主干 & more"),
        ("test_run[metadata][commit_sha]", "c0ffee"),
        ("test_run[metadata][run_url]", "https://ci.example/7?a=b&c"),
        ("tags[][value]", "smoke"),
        ("tags[][value]", "linux"),
    ]


async def test_finalize_sends_the_build_id(client, stub):
    assert await client.finalize(TOKEN, "b-7") == RunStatus(status="processed")
    [(path, headers, form)] = stub.calls
    assert path == "/integrations/test_runs/finalize"
    assert headers["Project-Token"] == TOKEN
    assert form == [("build_id", "b-7")]


async def test_upload_failed_sends_ids_and_reason(client, stub):
    stub.body = {"status": "failed"}
    outcome = await client.upload_failed(TOKEN, test_run_id="42", upload_id="1", failure_message="PUT 502")
    assert outcome == FailureRecorded(status="failed")
    [(path, _, form)] = stub.calls
    assert path == "/integrations/test_runs/upload_failed"
    assert form == [("test_run_id", "42"), ("upload_id", "1"), ("failure_message", "PUT 502")]


async def test_a_probe_asks_for_a_run_that_never_exists(client, stub):
    stub.status, stub.body = 404, {"error_message": "Test run not found for this build_id."}
    assert isinstance(await client.probe(TOKEN), RunMissing)
    [(path, _, form)] = stub.calls
    assert path == "/integrations/test_runs/finalize"
    assert form[0][1].startswith("bridge-probe-")


async def test_the_token_goes_into_its_header_and_nowhere_else(client, stub):
    await client.register(TOKEN, PIN)
    [(path, headers, form)] = stub.calls
    elsewhere = [path, *(value for name, value in headers.items() if name != "Project-Token"), repr(form)]
    assert not any(TOKEN in text for text in elsewhere)


async def test_a_wrong_token_is_told_from_a_wrong_report(client, stub):
    stub.status, stub.body = 404, {"error_message": "Project not found."}
    assert await client.register(TOKEN, PIN) == ProjectMissing(message="Project not found.")


async def test_an_unreachable_testnod_was_sent_nothing(closed_port, new_session):
    client = Client(new_session(), f"http://127.0.0.1:{closed_port}")
    assert isinstance(await client.register(TOKEN, PIN), NotSent)
    assert isinstance(await client.finalize(TOKEN, "b"), NotSent)
    assert isinstance(await client.upload_failed(TOKEN, test_run_id="1", upload_id="1", failure_message="x"), NotSent)
    assert isinstance(await client.probe(TOKEN), NotSent)


async def test_a_register_whose_answer_is_cut_is_unknown_and_asked_once(raw_server, new_session):
    asked = []

    async def serve(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{")

    client = Client(new_session(), f"http://127.0.0.1:{await raw_server(serve)}")
    assert isinstance(await client.register(TOKEN, PIN), OutcomeUnknown)
    assert len(asked) == 1


async def test_each_call_is_observed_by_its_name(stub, aiohttp_server, new_session):
    app = web.Application()
    app.router.add_post("/{path:.*}", stub.handle)
    observed = []
    session = new_session(observer=lambda upstream, call, _, outcome: observed.append((upstream, call, outcome)))
    client = Client(session, str((await aiohttp_server(app)).make_url("/")))
    await client.register(TOKEN, PIN)
    await client.finalize(TOKEN, "b")
    await client.upload_failed(TOKEN, test_run_id="1", upload_id="1", failure_message="x")
    await client.probe(TOKEN)
    assert observed == [
        ("testnod", "register", "OutcomeUnknown"),
        ("testnod", "finalize", "RunStatus"),
        ("testnod", "upload_failed", "FailureRecorded"),
        ("testnod", "probe", "RunStatus"),
    ]
