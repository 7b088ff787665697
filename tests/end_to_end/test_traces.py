"""Traces of gateways as processes: one trace shows an upload from the request to the finalized run, across replicas."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import bridge
from bridge.demo.postgres import PostgresServer
from bridge.sandbox.sandbox import Sandbox
from tests.support.builds import UPLOAD_PATH
from tests.support.canaries import leaks
from tests.support.collector import CollectedSpan, Collector
from tests.support.processes import GatewayProcess, NewGateway, until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STATE = "vendor=opaque,other=1"
JOB = "a" * 32
QUERY_SECRET = "canary-in-a-query-77"
COLLECTOR_SECRET = "canary-of-the-collector-88"
AWAY = {"status": 503, "body": "{}"}


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    async with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={COLLECTOR_SECRET}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield collector


@pytest.fixture
async def postgres() -> AsyncIterator[PostgresServer]:
    async with PostgresServer() as server:
        yield server


async def send(gateway: GatewayProcess, *, trace: str, more: str = "") -> None:
    """Upload a report as a traced CI does."""
    form = aiohttp.FormData()
    body = f'<testsuite name="{trace}"><testcase name="a"/></testsuite>'.encode()
    form.add_field("files", body, filename=f"{trace}.xml", content_type="application/xml")
    headers = {"traceparent": f"00-{trace}-{PARENT}-01", "tracestate": STATE}
    query = f"job_id={JOB}&build_no=1&node_id=default{more}"
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{gateway.server_url}{UPLOAD_PATH}?{query}", data=form) as answer,
    ):
        assert answer.status == 200, await answer.text()


def one(spans: list[CollectedSpan], name: str, call: str = "") -> CollectedSpan:
    """Return the only span of a name and a call that succeeded."""
    named = [span for span in spans if span.name == name and not span.is_error]
    found = [span for span in named if span.attributes.get("bridge.call", "") == call]
    assert len(found) == 1, (name, call, [(span.name, span.attributes) for span in spans])
    return found[0]


def has_call(collector: Collector, trace: str, call: str) -> bool:
    spans = collector.of_trace(trace)
    return any(span.attributes.get("bridge.call") == call and not span.is_error for span in spans)


def failed_registers(collector: Collector) -> list[CollectedSpan]:
    return [span for span in collector.spans if span.attributes.get("bridge.call") == "register" and span.is_error]


@pytest.mark.timeout(600)
async def test_one_trace_shows_an_upload_to_one_replica_and_its_delivery_by_another(
    collector: Collector,
    new_gateway: NewGateway,
    settings: dict[str, Any],
    postgres: PostgresServer,
    sandbox: Sandbox,
) -> None:
    settings["store"]["url"] = postgres.url()
    settings["delivery"]["lease_duration"] = "2s"
    first, second = new_gateway(settings), new_gateway(settings)
    world = sandbox.state
    await first.start()
    world.faults.script("testnod.register", *[AWAY] * 1000)
    world.faults.script("testnod.finalize", *[AWAY] * 1000)
    world.builds.start(JOB, 1, at=world.micros())
    other = "1" * 32
    for trace in (TRACE, other):
        await send(first, trace=trace, more=f"&branch={QUERY_SECRET}")
    await until(lambda: len(collector.named(f"POST {UPLOAD_PATH}")) == 2, "the first gateway has exported its uploads")
    await until(lambda: bool(failed_registers(collector)), "the first gateway has exported a register that failed")
    await first.kill()
    world.faults.clear()
    await second.start()
    world.builds.end(JOB, 1, at=world.micros())
    await until(lambda: has_call(collector, TRACE, "finalize"), "the second gateway has finalized the run")
    await until(lambda: has_call(collector, other, "put"), "the other report's PUT is exported")

    spans = collector.of_trace(TRACE)
    upload = one(spans, f"POST {UPLOAD_PATH}")
    assert (upload.kind, upload.parent, upload.trace_state) == ("SERVER", PARENT, STATE)
    assert upload.attributes["http.route"] == upload.attributes["url.path"] == UPLOAD_PATH
    assert upload.attributes["http.response.status_code"] == 200
    for name in ("validate", "commit"):
        part = one(spans, name)
        assert (part.kind, part.parent) == ("INTERNAL", upload.span_id)
    register = one(spans, "POST /integrations/test_runs/upload", "register")
    put = one(spans, "PUT", "put")
    finalize = one(spans, "POST /integrations/test_runs/finalize", "finalize")
    for call in (register, put, finalize):
        assert (call.kind, call.parent, call.trace_state) == ("CLIENT", upload.span_id, STATE)
        assert call.attributes["http.response.status_code"] in {200, 201}
        assert call.attributes["server.address"] == "127.0.0.1"
        assert "?" not in call.attributes["url.full"]
        assert (call.attributes["bridge.job_id"], call.attributes["bridge.build_no"]) == (JOB, 1)
        assert call.attributes["bridge.route"] == "all"
    failed = failed_registers(collector)[0]
    assert (failed.attributes["error.type"], failed.attributes["http.response.status_code"]) == ("503", 503)
    others = one(collector.of_trace(other), f"POST {UPLOAD_PATH}")
    assert sorted(finalize.links) == sorted([(TRACE, upload.span_id), (other, others.span_id)])
    assert not has_call(collector, other, "finalize")  # it is in the trace of the first upload, and names the others

    assert failed.resource == upload.resource != register.resource == put.resource == finalize.resource
    assert {(span.resource["service.name"], span.resource["service.version"]) for span in spans} == {
        ("bridge", bridge.__version__)
    }

    sent = [call.headers for call in world.calls.at("*")]
    assert sent
    assert not any({"traceparent", "tracestate"} & {name.lower() for name in headers} for headers in sent)
    secrets = [b"X-Amz", sandbox.project_token.encode(), QUERY_SECRET.encode(), COLLECTOR_SECRET.encode()]
    assert not [secret for secret in secrets for body in collector.bodies if secret in body]
    assert {headers["api-key"] for headers in collector.headers} == {COLLECTOR_SECRET}
    assert not leaks([first.stderr(), second.stderr()], COLLECTOR_SECRET)


@pytest.mark.timeout(600)
async def test_the_demo_sends_one_trace_for_each_upload(collector: Collector, tmp_path: Path) -> None:
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "demo", env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(demo.communicate(), timeout=300)
    finally:
        if demo.returncode is None:
            demo.kill()
    assert (demo.returncode, err) == (0, b""), out

    # The demo has exported everything when it has ended.
    uploads = collector.named(f"POST {UPLOAD_PATH}")
    assert len(uploads) >= 4
    assert len({upload.trace_id for upload in uploads}) == len(uploads)
    for upload in uploads:
        calls = [span.attributes.get("bridge.call", span.name) for span in collector.of_trace(upload.trace_id)]
        files = calls.count("validate")
        assert files >= 1
        assert (calls.count("register"), calls.count("put"), calls.count("commit")) == (files, files, 1)
    linked = {link for span in collector.spans for link in span.links if span.attributes["bridge.call"] == "finalize"}
    assert linked == {(upload.trace_id, upload.span_id) for upload in uploads}
    parents = {span.parent for span in collector.spans if span.kind == "CLIENT"}
    assert parents <= {upload.span_id for upload in uploads}
