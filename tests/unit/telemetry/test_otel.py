"""What is sampled, and the limits of spans, as the variables of OpenTelemetry have it."""

from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from yarl import URL

from bridge.telemetry.otel import Tracer
from bridge.telemetry.traces import HttpRequest, call_span, span, trace_context, trace_id

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED, NONE = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", ""
CONTEXTS = [f"00-{TRACE}-{number:016x}-01" for number in range(1, 6)]


async def spans_of(work: Callable[[Tracer], object]) -> list[ReadableSpan]:
    """Return the spans that are exported by the end of `work`."""
    exporter = InMemorySpanExporter()
    tracer = Tracer("a", exporter)
    work(tracer)
    assert (trace_context(), trace_id()) == (None, None)
    await tracer.close()
    return sorted(exporter.get_finished_spans(), key=lambda each: each.name)


def request(traceparent: str) -> HttpRequest:
    return HttpRequest(
        method="POST",
        route="/upload",
        path="/upload",
        scheme="http",
        host="bridge.example",
        port=8080,
        client="10.0.0.1",
        user_agent="curl/8.0",
        traceparent=(traceparent,) if traceparent else (),
        tracestate=(),
    )


def upload_and_deliver(tracer: Tracer, traceparent: str, kept: list[str]) -> None:
    """Do what a gateway does with an upload; `kept` gets its context."""
    with tracer.request(request(traceparent)) as upload:
        with span("validate", {"bridge.report.size": 5}), span("commit"):
            context = trace_context()
        assert context is not None
        assert trace_id() == context[3:35]
        upload.set_status(200)
    kept.append(context)
    with tracer.resumed(context, dict), call_span("PUT", URL("http://storage.example/report?secret")) as call:
        call.set_status(200)


@pytest.mark.parametrize(
    ("sampler", "traceparent", "flags", "is_sampled"),
    [
        ("", NONE, "03", True),
        ("", SAMPLED, "01", True),
        ("", UNSAMPLED, "00", False),
        ("parentbased_always_off", NONE, "02", False),
        ("parentbased_always_off", SAMPLED, "01", True),
        ("parentbased_always_off", UNSAMPLED, "00", False),
        ("parentbased_traceidratio", NONE, "02", False),
        ("parentbased_traceidratio", SAMPLED, "01", True),
        ("always_on", NONE, "03", True),
        ("always_on", UNSAMPLED, "01", True),
        ("always_off", NONE, "02", False),
        ("always_off", SAMPLED, "00", False),
        ("traceidratio", SAMPLED, "00", False),
    ],
)
async def test_the_sampler_of_the_variables_decides_for_the_upload_and_what_follows(
    monkeypatch: pytest.MonkeyPatch, sampler: str, traceparent: str, flags: str, *, is_sampled: bool
) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    kept: list[str] = []
    spans = await spans_of(lambda tracer: upload_and_deliver(tracer, traceparent, kept))
    assert kept[0][-2:] == flags
    assert (kept[0][3:35] == TRACE) is bool(traceparent)
    assert [each.name for each in spans] == (["POST /upload", "PUT", "commit", "validate"] if is_sampled else [])
    if spans:
        upload = spans[0]
        assert [each.parent.span_id for each in spans[1:]] == 3 * [upload.context.span_id]
        assert len({each.context.span_id for each in spans}) == 4


async def test_a_gateway_that_samples_nothing_makes_no_span_of_what_another_one_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")

    def deliver(tracer: Tracer) -> None:
        with tracer.resumed(SAMPLED, dict), call_span("PUT", URL("http://storage.example/report")) as call:
            call.set_status(200)

    assert await spans_of(deliver) == []


async def test_the_limits_of_the_variables_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    def finalize(tracer: Tracer) -> None:
        attributes = {"bridge.call": "finalize", "bridge.route": "a long name"}
        url = URL("http://testnod.example/x")
        with tracer.resumed(CONTEXTS[0], lambda: attributes, CONTEXTS), call_span("POST", url, "/x") as call:
            call.set_status(200)

    (call,) = await spans_of(finalize)
    assert (len(call.links), call.attributes["bridge.route"]) == (5, "a long name")
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "2")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "6")
    (call,) = await spans_of(finalize)
    assert (len(call.links), call.attributes["bridge.route"]) == (2, "a long")
    assert call.attributes["http.response.status_code"] == 200
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3")
    (call,) = await spans_of(finalize)
    assert (len(call.attributes), call.dropped_attributes) == (3, 4)
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0")
    (call,) = await spans_of(finalize)
    assert len(call.attributes) == 0


async def test_a_span_that_an_exception_ends_has_its_class_and_not_its_text() -> None:
    def fail(tracer: Tracer) -> None:
        with pytest.raises(ValueError, match="secret"), tracer.request(request(SAMPLED)):
            raise ValueError("secret")

    (failed,) = await spans_of(fail)
    assert (failed.attributes["error.type"], failed.status.is_ok, failed.status.description) == (
        "ValueError",
        False,
        None,
    )
    assert "secret" not in failed.to_json()


async def test_the_host_that_a_caller_states_is_bounded() -> None:
    def odd(tracer: Tracer) -> None:
        with tracer.request(request(SAMPLED)._replace(host="x" * 9000, user_agent="\ud800", path="\x1b[2J")):
            pass

    (found,) = await spans_of(odd)
    assert found.attributes["server.address"] == "x" * 512
    assert all(str(value).isprintable() for value in found.attributes.values())
