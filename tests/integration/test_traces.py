"""Traces of a gateway in this process: what callers send, what is kept, and what happens without a collector."""

import asyncio
import sqlite3
from contextlib import closing

import aiohttp
import pytest
import structlog

from bridge.app import tracing
from bridge.sandbox.sandbox import DEFAULT_PROJECT_TOKEN, Sandbox
from bridge.telemetry import logs
from bridge.telemetry.redaction import Redactor
from bridge.telemetry.traces import HttpRequest
from tests.support.collector import Collector
from tests.support.ports import REFUSED_URL
from tests.support.whole import JOB, JUNIT, build_of, running_gateway, until

UPLOAD = "/v1/report/junit/report/upload"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{PARENT}-01"
REQUEST = HttpRequest(
    method="POST",
    route=UPLOAD,
    path=UPLOAD,
    scheme="http",
    host="bridge.example",
    port=8080,
    client="10.0.0.1",
    user_agent="curl/8.0",
    traceparent=(VALID,),
    tracestate=("a=1",),
)


@pytest.fixture
async def sandbox():
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def collector(monkeypatch):
    async with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


@pytest.fixture
async def gateway(tmp_path, sandbox, collector):  # noqa: ARG001 -- the collector is there before the gateway starts
    async with running_gateway(tmp_path, sandbox) as gateway:
        yield gateway


async def post(gateway, *headers, name="a.xml", query="", body=JUNIT):
    """Upload a report with these headers, which may repeat a name; return the status."""
    form = aiohttp.FormData()
    form.add_field("files", body, filename=name, content_type="application/xml")
    url = f"{gateway.server_url}{UPLOAD}?job_id={JOB}&build_no=1&node_id=n{query}"
    async with aiohttp.ClientSession() as http, http.post(url, data=form, headers=headers) as answer:
        await answer.read()
        return answer.status


async def uploads(collector, count=1):
    """Return the spans of uploads, once there are so many."""
    await until(lambda: len(collector.named(f"POST {UPLOAD}")) >= count)
    return collector.named(f"POST {UPLOAD}")


def contexts(folder):
    with closing(sqlite3.connect(folder / "bridge.db")) as ledger:
        return [row for (row,) in ledger.execute("SELECT trace_context FROM reports ORDER BY id")]


@pytest.mark.parametrize(
    ("headers", "is_continued", "state"),
    [
        ([("traceparent", VALID)], True, ""),
        ([("Traceparent", f" {VALID} "), ("tracestate", "a=1"), ("tracestate", "b=2")], True, "a=1,b=2"),
        ([("traceparent", f"cc-{TRACE}-{PARENT}-01-what-a-later-version-adds")], True, ""),
        ([("traceparent", VALID), ("tracestate", "k=" + "v" * 512)], True, ""),
        ([("traceparent", VALID), ("tracestate", "no state at all")], True, ""),
        ([("traceparent", VALID), ("traceparent", VALID)], False, ""),
        ([("traceparent", f"{VALID}-and-more")], False, ""),
        ([("traceparent", f"ff-{TRACE}-{PARENT}-01")], False, ""),
        ([("traceparent", f"00-{'0' * 32}-{PARENT}-01")], False, ""),
        ([("traceparent", VALID.upper())], False, ""),
        ([("traceparent", "x" * 8000)], False, ""),
        ([("traceparent", "")], False, ""),
        ([("tracestate", "a=1")], False, ""),
    ],
)
async def test_a_valid_context_is_continued_and_any_other_begins_a_trace(
    gateway, collector, tmp_path, headers, is_continued, state
):
    assert await post(gateway, *headers) == 200
    (upload,) = await uploads(collector)
    assert (upload.trace_id == TRACE, upload.parent, upload.trace_state) == (
        is_continued,
        PARENT if is_continued else "",
        state,
    )
    (kept,) = contexts(tmp_path)
    context, _, kept_state = kept.partition(" ")
    assert (context[:-3], kept_state) == (f"00-{upload.trace_id}-{upload.span_id}", state)
    assert context[-2:] == "01" if is_continued else context[-2:] in {"01", "03"}  # 02: the id of a new one is random


async def test_a_trace_that_the_caller_does_not_record_is_not_recorded(gateway, collector, sandbox, tmp_path):
    assert await post(gateway, ("traceparent", VALID.replace("-01", "-00"))) == 200
    assert await post(gateway, ("traceparent", f"00-{'1' * 32}-{PARENT}-01"), name="b.xml") == 200
    await uploads(collector)
    await until(lambda: len(sandbox.state.calls.at("s3.put")) == 2)
    await until(lambda: len(collector.named("PUT")) == 1)
    assert {span.trace_id for span in collector.spans} == {"1" * 32}
    assert [kept[:35] for kept in contexts(tmp_path)] == [f"00-{TRACE}", f"00-{'1' * 32}"]


async def test_a_rejected_upload_is_a_span_with_its_status_and_no_secret(gateway, collector):
    secret = "canary-stranger-9f"
    headers = (("traceparent", VALID), ("X-Auth-Token", secret), ("User-Agent", f"curl token={secret}"))
    assert await post(gateway, *headers, query=f"&branch={secret}", body=b"not xml") == 400
    (upload,) = await uploads(collector)
    assert (upload.attributes["http.response.status_code"], upload.is_error) == (400, False)  # of a server: 5xx only
    async with aiohttp.ClientSession() as http, http.request("PROPFIND", f"{gateway.server_url}/x?{secret}") as answer:
        assert answer.status >= 400
    await until(lambda: bool(collector.named("HTTP")))
    (other,) = collector.named("HTTP")
    assert other.attributes["http.request.method"] == "_OTHER"
    assert other.attributes["http.request.method_original"] == "PROPFIND"
    assert "http.route" not in other.attributes
    assert not [body for body in collector.bodies if secret.encode() in body]


async def test_a_large_upload_has_spans_of_its_first_hundred_files_only(gateway, collector, tmp_path):
    form = aiohttp.FormData()
    for number in range(130):
        form.add_field("files", f'<testsuite name="{number}"/>'.encode(), filename=f"{number}.xml")
    url = f"{gateway.server_url}{UPLOAD}?job_id={JOB}&build_no=1&node_id=n"
    async with aiohttp.ClientSession() as http, http.post(url, data=form) as answer:
        assert answer.status == 200
    await uploads(collector)
    assert len(collector.named("validate")) == 100
    assert len(set(contexts(tmp_path))) == 1
    assert len(contexts(tmp_path)) == 130


async def test_health_checks_make_no_span(gateway, collector):
    async with aiohttp.ClientSession() as http:
        for path in ("/livez", "/readyz"):
            async with http.get(f"{gateway.server_url}{path}") as answer:
                assert answer.status == 200
    assert await post(gateway) == 200
    await uploads(collector)
    assert {span.attributes.get("url.path") for span in collector.spans if span.kind == "SERVER"} == {UPLOAD}


async def test_a_file_that_comes_through_testnods_api_has_the_trace_of_its_put(gateway, collector, sandbox):
    document = {"tags": [], "test_run": {"metadata": {"build_id": "b-1", "branch": "main"}}}
    headers = {"Project-Token": DEFAULT_PROJECT_TOKEN}
    async with aiohttp.ClientSession() as http:
        url = f"{gateway.server_url}/integrations/test_runs/upload"
        async with http.post(url, json=document, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            put_url = (await answer.json())["presigned_url"]
        async with http.put(put_url, data=JUNIT, headers={"traceparent": VALID}) as answer:
            assert answer.status == 200
    await until(lambda: any(span.attributes.get("bridge.call") == "put" for span in collector.of_trace(TRACE)))
    spans = collector.of_trace(TRACE)
    (upload,) = [span for span in spans if span.kind == "SERVER"]
    assert upload.name == "PUT /bridge/v1/uploads/{id}"
    assert {span.name for span in spans if span.parent == upload.span_id} >= {"validate", "commit", "PUT"}
    signature = put_url.partition("?")[2].encode()
    assert not [body for body in collector.bodies if signature in body]
    assert len(sandbox.state.calls.at("s3.put")) == 1


async def test_lines_of_a_traced_upload_and_of_its_build_have_the_trace_id(gateway, collector):
    with structlog.testing.capture_logs([logs._complete]) as lines:
        assert await post(gateway, ("traceparent", VALID)) == 200
        await until(lambda: any(line["event"] == "reports_delivered" for line in lines))
    await uploads(collector)
    traced = {line["event"]: line.get("trace_id") for line in lines}
    assert traced["upload_accepted"] == traced["run_opened"] == traced["reports_delivered"] == TRACE


async def test_a_collector_that_is_away_delays_nothing_and_is_logged_once(gateway, collector):
    collector.status = 400  # the SDK does not try again
    with structlog.testing.capture_logs() as lines:
        for number in range(3):
            assert await post(gateway, name=f"{number}.xml") == 200
            await until(lambda: any(line["event"] == "trace_export_failed" for line in lines))

        async def delivered():
            reports = (await build_of(gateway))["reports"]
            return len(reports) == 3 and {each["deliveries"][0]["state"] for each in reports} == {"delivered"}

        await until(delivered)
        collector.status = 200
        assert await post(gateway, name="last.xml") == 200
        await until(lambda: any(line["event"] == "trace_export_recovered" for line in lines))
    assert [line["event"] for line in lines].count("trace_export_failed") == 1


async def test_without_the_variables_no_context_is_kept(tmp_path, sandbox, monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    async with running_gateway(tmp_path, sandbox) as gateway:
        assert await post(gateway, ("traceparent", VALID)) == 200
    assert contexts(tmp_path) == [None]


@pytest.mark.parametrize(
    ("variables", "is_requested"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": REFUSED_URL}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{REFUSED_URL}/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": REFUSED_URL, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": REFUSED_URL, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": REFUSED_URL}, False),
    ],
)
def test_the_standard_variables_switch_traces_on(variables, is_requested):
    assert tracing.is_requested(variables) is is_requested


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "with http/protobuf only, not with grpc"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "not with http/json"),
        ({}, "OpenTelemetry is not installed"),
    ],
)
def test_traces_that_cannot_be_sent_are_a_warning_with_a_remedy(monkeypatch, variables, reason):
    monkeypatch.setitem(__import__("sys").modules, "bridge.telemetry.otel", None)  # its import fails
    with structlog.testing.capture_logs() as lines:
        found = tracing.open_tracing("a", {"OTEL_EXPORTER_OTLP_ENDPOINT": REFUSED_URL, **variables})
    assert found is None
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("tracing_unavailable", "warning")
    assert reason in line["reason"]
    assert line["remedy"].endswith(".")


async def test_the_headers_of_the_collector_are_redacted(collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=canary-of-the-collector,x=y")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=canary-of-it"}
    tracer = await asyncio.to_thread(tracing.open_tracing, "a", environment)
    assert tracer is not None
    await tracer.close()
    assert "canary-of-it" not in logs.redact_text("the key canary-of-it was rejected")


@pytest.mark.parametrize(
    ("name", "text", "secrets"),
    [
        ("HEADERS", "canary without name", ["canary without name"]),
        ("HEADERS", "x=y, canary-1-alone", ["canary-1-alone"]),
        ("TRACES_HEADERS", "api-key=canary%2F2%3D", ["canary%2F2%3D", "canary/2="]),
        ("HEADERS", "Authorization=Bearer%20canary-3", ["canary-3"]),
        ("ENDPOINT", "http://127.0.0.1:1/canaryKey4/otlp?token=canary%205#x", ["canaryKey4", "canary%205", "canary 5"]),
        ("TRACES_ENDPOINT", "http://someone:canary@127.0.0.1:1", ["canary"]),
        ("TRACES_ENDPOINT", "http://canary-7@127.0.0.1:1", ["canary-7"]),
    ],
)
def test_every_secret_of_the_variables_is_redacted(monkeypatch, name, text, secrets):
    monkeypatch.setattr(logs, "_redactor", Redactor())
    monkeypatch.setitem(__import__("sys").modules, "bridge.telemetry.otel", None)  # only the variables are read
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": REFUSED_URL, f"OTEL_EXPORTER_OTLP_{name}": text}
    assert tracing.open_tracing("a", environment) is None
    for secret in secrets:
        assert "canary" not in logs.redact_text(f"the collector rejected {secret} today")
    assert logs.redact_text("a Bearer of the otlp endpoint") == "a Bearer of the otlp endpoint"


async def test_at_level_debug_the_sdk_and_its_exporter_log_no_secret(collector, monkeypatch, caplog):
    endpoint = f"{collector.url}/canary1/?key=canary2"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "canary3")
    with caplog.at_level("DEBUG"):
        tracer = await asyncio.to_thread(tracing.open_tracing, "a")
        assert tracer is not None
        with tracer.request(REQUEST):
            pass
        await tracer.close()
    lines = [f"{record.name} {record.getMessage()}" for record in caplog.records if record.name != "aiohttp.access"]
    assert not [line for line in lines if "canary" in line]


async def test_a_forwarded_call_is_a_span_below_that_of_the_request_and_keeps_the_traceparent_of_its_caller(
    tmp_path, sandbox, collector
):
    secret = "canary-in-a-query"
    path = f"/v1/job/{JOB}/1/build-info"
    sandbox.state.builds.start(JOB, 1, at=sandbox.state.micros())
    tables = f'[codearts]\nendpoint = "{sandbox.codearts_url}"'
    async with running_gateway(tmp_path, sandbox, tables) as gateway, aiohttp.ClientSession() as http:
        headers = {"traceparent": VALID, "tracestate": "a=1", "X-Auth-Token": "any"}
        for others in (headers, {"X-Auth-Token": "any"}):
            async with http.get(f"{gateway.server_url}{path}?x={secret}", headers=others) as answer:
                assert answer.status == 200, await answer.text()
        async with http.get(f"{gateway.server_url}/v1/job/{JOB}/none/build-info", headers=headers) as answer:
            assert answer.status >= 400
        await until(lambda: len([span for span in collector.spans if span.kind == "CLIENT"]) == 3)
        await until(lambda: len([span for span in collector.spans if span.kind == "SERVER"]) == 3)
        calls = {(span.trace_id == TRACE, span.is_error): span for span in collector.spans if span.kind == "CLIENT"}
        forwarded, failed = calls[True, False], calls[True, True]
        assert (False, False) in calls  # without a traceparent, in a trace of its own
        (request,) = [span for span in collector.spans if span.span_id == forwarded.parent]
        assert (request.kind, request.parent, forwarded.name) == ("SERVER", PARENT, "GET")
        assert (forwarded.trace_id, forwarded.trace_state) == (TRACE, "a=1")
        assert forwarded.attributes["url.full"] == f"{sandbox.codearts_url}{path}"
        assert (forwarded.attributes["http.response.status_code"], forwarded.is_error) == (200, False)
        assert (failed.is_error, failed.attributes["error.type"]) == (True, str(answer.status))
        arrived = [call.headers for call in sandbox.state.calls.at("codearts.build_info")]
        sent = [{name.lower(): value for name, value in headers.items()}.get("traceparent") for headers in arrived]
        assert sent[:2] == [VALID, None]
        assert not [body for body in collector.bodies if secret.encode() in body]


async def test_a_forwarded_call_without_an_answer_is_a_failed_span(tmp_path, sandbox, collector):
    tables = f'[codearts]\nendpoint = "{REFUSED_URL}"'
    async with running_gateway(tmp_path, sandbox, tables) as gateway, aiohttp.ClientSession() as http:
        async with http.get(f"{gateway.server_url}/v1/job/{JOB}/1/build-info") as answer:
            assert answer.status == 502
        await until(lambda: len(collector.spans) >= 2)
    (call,) = [span for span in collector.spans if span.kind == "CLIENT"]
    (request,) = [span for span in collector.spans if span.kind == "SERVER"]
    assert (call.attributes["error.type"], call.is_error) == ("BadGateway", True)
    assert (request.attributes["http.response.status_code"], call.parent) == (502, request.span_id)
