"""Spans are encoded as the package of OpenTelemetry encodes them."""

import pytest
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from bridge.telemetry.otlp import Exporter, encode
from tests.support.ports import REFUSED_URL

RESOURCE = Resource({"service.name": "bridge"}, "https://schema.example/1")
SCOPE = InstrumentationScope("bridge", "1.0", "https://schema.example/2")
STATE = TraceState([("vendor", "a b"), ("b", "2")])


def context(number: int, *, is_remote: bool = False, state: TraceState | None = None) -> SpanContext:
    return SpanContext(2**127 + number, 2**63 + number, is_remote, TraceFlags(TraceFlags.SAMPLED), state)


def span(**fields: object) -> ReadableSpan:
    known = {"name": "POST /x", "context": context(1), "resource": RESOURCE, "instrumentation_scope": SCOPE}
    return ReadableSpan(**(known | {"start_time": 10**18, "end_time": 10**18 + 5} | fields))  # type: ignore[arg-type]


SPANS = [
    span(),
    span(attributes={}),
    span(attributes={"a": "text", "b": 5, "c": -1, "d": "", "e": 0, "f": "\u6d4b\n", "g": 2**62}),
    span(kind=SpanKind.SERVER, parent=context(2, is_remote=True), context=context(3, state=STATE)),
    span(kind=SpanKind.CLIENT, parent=context(4), status=Status(StatusCode.ERROR)),
    span(status=Status(StatusCode.OK), name=""),
    span(links=[Link(context(5)), Link(context(6, is_remote=True))], attributes={"a": 1}),
    span(events=[Event("e", {"a": 1}, timestamp=7)]),
    span(attributes={"a": 1, "b": True, "c": 1.0, "d": ["x", "y"], "e": b"raw"}),  # 1, True and 1.0 are equal
    span(attributes={"a": 1.0, "b": 1, "c": False}),
    span(attributes={"a": "\ud800", "b": "is kept"}),
    span(attributes=BoundedAttributes(1, {"a": "long text", "b": "long text"}, max_value_len=4)),
]


@pytest.mark.parametrize("turn", range(2), ids=("first", "from bytes that were kept"))
def test_they_are_what_the_package_makes_of_them(turn: int) -> None:
    for spans in (SPANS, SPANS[::-1], SPANS[:1], SPANS + SPANS):
        assert ExportTraceServiceRequest.FromString(encode(spans)) == encode_spans(spans), turn


def test_the_exporter_sends_what_was_encoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded_by_the_package(_: object) -> None:
        raise AssertionError

    sent: list[bytes] = []
    exporter = Exporter(endpoint=f"{REFUSED_URL}/v1/traces")
    monkeypatch.setattr(trace_exporter, "encode_spans", encoded_by_the_package)
    monkeypatch.setattr(type(exporter._client), "_submit", lambda _, data, __: sent.append(data) or Accepted())
    assert exporter.export(SPANS) is SpanExportResult.SUCCESS
    assert sent == [encode(SPANS)]


class Accepted:
    """A response of the collector."""

    status_code = 200
    reason = "OK"
    error = None


@pytest.mark.parametrize("client", [None, object()], ids=("none", "another one"))
def test_if_the_package_has_another_client_it_encodes_and_sends_itself(
    monkeypatch: pytest.MonkeyPatch, client: object
) -> None:
    given: list[object] = []

    def export(_: object, spans: object) -> SpanExportResult:
        given.append(spans)
        return SpanExportResult.FAILURE

    exporter = Exporter(endpoint=f"{REFUSED_URL}/v1/traces")
    monkeypatch.setattr(trace_exporter.OTLPSpanExporter, "export", export)
    monkeypatch.setattr(exporter, "_client", client)
    assert exporter.export(SPANS) is SpanExportResult.FAILURE
    assert given == [SPANS]
