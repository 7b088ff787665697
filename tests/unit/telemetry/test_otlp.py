"""Spans are encoded as the package of OpenTelemetry encodes them."""

from typing import cast

import pytest
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState

from bridge.telemetry.otlp import EncodedSpan, Exporter, SpanData
from tests.support.ports import REFUSED_URL

RESOURCE = Resource({"service.name": "bridge"}, "https://schema.example/1")
SCOPE = InstrumentationScope("bridge", "1.0", "https://schema.example/2")
STATE = TraceState([("vendor", "a b"), ("b", "2")])


def context(number: int, *, is_remote: bool = False, state: TraceState | None = None) -> SpanContext:
    return SpanContext(2**127 + number, 2**63 + number, is_remote, TraceFlags(TraceFlags.SAMPLED), state)


def span(**fields: object) -> SpanData:
    made = SpanData()
    usual = {"name": "POST /x", "kind": SpanKind.INTERNAL, "context": context(1), "parent": None, "attributes": {}}
    usual |= {"links": (), "is_error": False, "started": 10**18, "ended": 10**18 + 5}
    for name, value in (usual | fields).items():
        setattr(made, name, value)
    return made


SPANS = [
    span(),
    span(attributes={"a": "text", "b": 5, "c": -1, "d": "", "e": 0, "f": "\u6d4b\n", "g": 2**62}),
    span(kind=SpanKind.SERVER, parent=context(2, is_remote=True), context=context(3, state=STATE)),
    span(kind=SpanKind.CLIENT, parent=context(4), is_error=True, name=""),
    span(links=[Link(context(5)), Link(context(6, is_remote=True))], attributes={"a": 1}),
    span(attributes={"a": 1, "b": True, "c": 1.0, "d": ["x", "y"], "e": b"raw"}),  # 1, True and 1.0 are equal
    span(attributes={"a": 1.0, "b": 1, "c": False}),
    span(attributes={"a": "\ud800", "b": "is kept"}),
    span(attributes=BoundedAttributes(1, {"a": "long text", "b": "long text"}, max_value_len=4)),
]


def new_exporter() -> Exporter:
    return Exporter(RESOURCE, SCOPE, OTLPSpanExporter(endpoint=f"{REFUSED_URL}/v1/traces"))


def export(exporter: Exporter) -> SpanExportResult:
    return exporter.export([exporter.prepare(each) for each in SPANS])


def encoded(exporter: Exporter, spans: list[SpanData]) -> bytes:
    return exporter.request([cast("EncodedSpan", exporter.prepare(each)) for each in spans])


@pytest.mark.parametrize("turn", range(2), ids=("first", "from bytes that were kept"))
def test_they_are_what_the_package_makes_of_them(turn: int) -> None:
    exporter = new_exporter()
    for spans in (SPANS, SPANS[::-1], SPANS[:1], SPANS + SPANS):
        expected = encode_spans([exporter.readable(each) for each in spans])
        assert ExportTraceServiceRequest.FromString(encoded(exporter, spans)) == expected, turn


def test_the_exporter_sends_what_was_encoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def export_by_the_package(_: object, __: object) -> None:
        raise AssertionError

    def submit(_: object, data: bytes, __: float) -> Accepted:
        sent.append(data)
        return Accepted()

    sent: list[bytes] = []
    exporter = new_exporter()
    monkeypatch.setattr(OTLPSpanExporter, "export", export_by_the_package)
    monkeypatch.setattr(type(exporter._inner._client), "_submit", submit)  # type: ignore[attr-defined]
    assert export(exporter) is SpanExportResult.SUCCESS
    assert sent == [encoded(exporter, SPANS)]


class Accepted:
    """A response of the collector."""

    status_code = 200
    reason = "OK"
    error = None


@pytest.mark.parametrize("client", [None, object()], ids=("none", "another one"))
def test_if_the_package_has_another_client_it_encodes_and_sends_itself(
    monkeypatch: pytest.MonkeyPatch, client: object
) -> None:
    given: list[ReadableSpan] = []

    def export_by_the_package(_: object, spans: list[ReadableSpan]) -> SpanExportResult:
        given.extend(spans)
        return SpanExportResult.SUCCESS

    monkeypatch.setattr(OTLPSpanExporter, "export", export_by_the_package)
    inner = OTLPSpanExporter(endpoint=f"{REFUSED_URL}/v1/traces")
    inner._client = client  # type: ignore[assignment]
    exporter = Exporter(RESOURCE, SCOPE, inner)
    assert export(exporter) is SpanExportResult.SUCCESS
    assert encode_spans(given) == encode_spans([exporter.readable(each) for each in SPANS])
