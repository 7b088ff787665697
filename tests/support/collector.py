"""A stand-in for an OpenTelemetry collector: takes spans over OTLP/HTTP and parses them with the official messages."""

import gzip
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

TRACES_PATH = "/v1/traces"


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectedSpan:
    """A span as it was received, with the attributes of the process that sent it."""

    name: str
    kind: str  # SERVER, CLIENT, INTERNAL
    trace_id: str
    span_id: str
    parent: str  # empty: none
    trace_state: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    links: list[tuple[str, str]]  # trace id and span id
    is_error: bool
    seconds: float


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs if isinstance(pair, KeyValue)}


@dataclass(slots=True)
class Collector:
    """Runs inside `async with`; `url` is what OTEL_EXPORTER_OTLP_ENDPOINT names."""

    url: str = ""
    status: int = 200  # of its answers
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    spans: list[CollectedSpan] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post(TRACES_PATH, self._receive)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        if body[:2] == b"\x1f\x8b":  # aiohttp decompresses what names its encoding
            body = gzip.decompress(body)
        if self.status != 200:
            return web.Response(status=self.status)
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            process = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_span(span, process) for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[CollectedSpan]:
        """Return the spans of this name."""
        return [span for span in self.spans if span.name == name]

    def of_trace(self, trace_id: str) -> list[CollectedSpan]:
        """Return the spans of a trace."""
        return [span for span in self.spans if span.trace_id == trace_id]


def _span(span: SpanMessage, process: dict[str, Any]) -> CollectedSpan:
    return CollectedSpan(
        name=span.name,
        kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        trace_state=span.trace_state,
        attributes=_attributes(span.attributes),
        resource=process,
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )
