"""Exports spans with OTLP over HTTP as the package of OpenTelemetry does, but encodes them with less CPU.

Attributes repeat: method, route and host of a request, the build of a call. Their bytes are kept, and joined for each
span, because a protobuf message may be merged from pieces:
https://protobuf.dev/programming-guides/encoding/#last-one-wins
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, cast

import structlog
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

KINDS: Final = {
    SpanKind.INTERNAL: Message.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: Message.SPAN_KIND_SERVER,
    SpanKind.CLIENT: Message.SPAN_KIND_CLIENT,
}
OF_LOCAL_PARENT: Final = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
OF_REMOTE_PARENT: Final = OF_LOCAL_PARENT | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
UNSET, ERROR = Status(), Status(StatusCode.ERROR)

log = structlog.get_logger(__name__)


class SpanData:
    """A span: what is exported of it. Times are nanoseconds since 1970."""

    __slots__ = ("attributes", "context", "ended", "is_error", "kind", "links", "name", "parent", "started")

    name: str
    kind: SpanKind
    context: SpanContext
    parent: SpanContext | None
    attributes: Mapping[str, AttributeValue]
    links: Sequence[Link]
    is_error: bool
    started: int
    ended: int


class EncodedSpan:
    """A span in the queue: its message. Thousands of objects that wait would not stay in the cache of the processor."""

    __slots__ = ("data",)

    context = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))  # what the queue reads

    def __init__(self, data: bytes) -> None:
        self.data = data


class Exporter(SpanExporter):
    """Sends spans with `inner`. Logs when the collector takes no spans any more, and when it takes them again."""

    def __init__(self, resource: Resource, scope: InstrumentationScope, inner: SpanExporter | None = None) -> None:
        self._resource = resource
        self._scope = scope
        self._inner = inner or OTLPSpanExporter()
        client = getattr(self._inner, "_client", None)  # no public name: another version of the package may have none
        self._send_bytes = getattr(client, "export", None)
        self._head = encode_spans(
            [ReadableSpan("", EncodedSpan.context, resource=resource, instrumentation_scope=scope)]
        )
        del self._head.resource_spans[0].scope_spans[0].spans[:]
        self._lost = 0

    def prepare(self, span: SpanData) -> ReadableSpan:
        """Return a span for the queue, as `export` takes it."""
        if self._send_bytes is None:
            return self.readable(span)
        try:
            data = _encode(span)
        except (TypeError, ValueError):
            encoded = encode_spans([self.readable(span)])
            data = encoded.resource_spans[0].scope_spans[0].spans[0].SerializeToString()
        return cast("ReadableSpan", EncodedSpan(data))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send what `prepare` returned."""
        result = self._send(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                log.warning("trace_export_failed", reason="The collector did not take spans. They are dropped.")
            self._lost += len(spans)
        elif self._lost:
            log.info("trace_export_recovered", lost=self._lost)
            self._lost = 0
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def _send(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._send_bytes is None:
            return self._inner.export(spans)
        sent = self._send_bytes(self.request(cast("Sequence[EncodedSpan]", spans)))
        return SpanExportResult.SUCCESS if getattr(sent, "success", False) else SpanExportResult.FAILURE

    def request(self, spans: Sequence[EncodedSpan]) -> bytes:
        """Return the request with these spans."""
        request = ExportTraceServiceRequest()
        request.CopyFrom(self._head)
        messages = request.resource_spans[0].scope_spans[0].spans
        for span in spans:
            messages.add().MergeFromString(span.data)
        body: bytes = request.SerializeToString()
        return body

    def readable(self, span: SpanData) -> ReadableSpan:
        """Return a span as the SDK has it."""
        return ReadableSpan(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=self._resource,
            attributes=span.attributes,
            links=span.links,
            kind=span.kind,
            status=ERROR if span.is_error else UNSET,
            start_time=span.started,
            end_time=span.ended,
            instrumentation_scope=self._scope,
        )


def _encode(span: SpanData) -> bytes:
    """Return the bytes of a span; raise TypeError or ValueError for what few spans have, such as links."""
    context, parent, attributes = span.context, span.parent, span.attributes
    if span.links or isinstance(attributes, BoundedAttributes):
        raise TypeError
    message = Message(
        trace_id=context.trace_id.to_bytes(16),
        span_id=context.span_id.to_bytes(8),
        start_time_unix_nano=span.started,
        end_time_unix_nano=span.ended,
        flags=OF_REMOTE_PARENT if parent is not None and parent.is_remote else OF_LOCAL_PARENT,
    )
    if parent is not None:
        message.parent_span_id = parent.span_id.to_bytes(8)
    if context.trace_state:
        message.trace_state = context.trace_state.to_header()
    pieces = [_attribute(key, value) for key, value in attributes.items()]
    return b"".join([_named(span.name, span.kind, span.is_error), message.SerializeToString(), *pieces])


@lru_cache(maxsize=256)
def _named(name: str, kind: SpanKind, is_error: bool) -> bytes:  # noqa: FBT001 -- keywords make the cache slower
    """Return the bytes of a span that has only a name, a kind and a status."""
    code = StatusMessage.STATUS_CODE_ERROR if is_error else StatusMessage.STATUS_CODE_UNSET
    encoded: bytes = Message(name=name, kind=KINDS[kind], status=StatusMessage(code=code)).SerializeToString()
    return encoded


@lru_cache(maxsize=1024, typed=True)  # 1, 1.0 and True are equal
def _attribute(key: str, value: AttributeValue) -> bytes:
    """Return the bytes of a span that has only this attribute; raise TypeError if it is no text and no number."""
    if type(value) is str:
        pair = KeyValue(key=key, value=AnyValue(string_value=value))
    elif type(value) is int:
        pair = KeyValue(key=key, value=AnyValue(int_value=value))
    else:
        raise TypeError
    encoded: bytes = Message(attributes=[pair]).SerializeToString()
    return encoded
