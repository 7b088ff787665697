"""The tracer of OpenTelemetry behind `telemetry/traces.py`, which imports this module only if traces are requested.

Names and attributes follow the semantic conventions for HTTP:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/. The SDK decides what is sampled, and a thread of it
exports spans that have ended from a bounded queue. It reads its variables itself, such as OTEL_SERVICE_NAME,
OTEL_TRACES_SAMPLER and OTEL_BSP_MAX_QUEUE_SIZE. A span that has not ended is a `_Span`: one of the SDK, with its locks
and checks, costs several times as much.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import Token
from functools import lru_cache
from time import time_ns
from types import TracebackType
from typing import Final, Self, TypeVar

import structlog
from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.service_attributes import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION
from opentelemetry.semconv.attributes.url_attributes import URL_FULL, URL_PATH, URL_SCHEME
from opentelemetry.semconv.attributes.user_agent_attributes import USER_AGENT_ORIGINAL
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from yarl import URL

from bridge import __version__
from bridge.telemetry.logs import redact_text
from bridge.telemetry.otlp import Exporter, SpanData
from bridge.telemetry.traces import (
    MAX_LINKS,
    MAX_TRACESTATE_CHARACTERS,
    NO_SPAN,
    TRACED,
    HttpRequest,
    Traced,
    TraceSpan,
)

CLOSE_SECONDS: Final = 3.0
"""For the last export at the end of the gateway; a collector that is away must not delay the end."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
OTHER_METHOD: Final = "_OTHER"

W3C: Final = TraceContextTextMapPropagator()

QUIET_LOGGERS: Final = {"opentelemetry": logging.CRITICAL, "urllib3": logging.WARNING}
"""The first logs headers of the variables that it cannot read, each batch that is lost, which `Exporter` sums up, and
each header of a caller that is not valid; the second, at level "debug", the path and query of each export.
"""

MAX_SHOWN_CHARACTERS: Final = 512
"""Of what a caller sent: its path, its method, its Host and its User-Agent."""

MOST_ATTRIBUTES: Final = 16
"""No span has more; a limit of the variables that allows so many needs no check."""

FLAGS: Final = tuple(TraceFlags(flags) for flags in range(4))

log = structlog.get_logger(__name__)


class Tracer:
    """Makes spans and exports them. `close` exports those that wait."""

    def __init__(self, instance: str, exporter: SpanExporter | None = None) -> None:
        for name, level in QUIET_LOGGERS.items():
            logging.getLogger(name).setLevel(level)
        own = {SERVICE_NAME: "bridge", SERVICE_VERSION: __version__, SERVICE_INSTANCE_ID: instance}
        resource = Resource.create({**own, **OTELResourceDetector().detect().attributes})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._sampler, self._ids = self._provider.sampler, self._provider.id_generator
        scope = InstrumentationScope("bridge", __version__, Schemas.V1_36_0.value)
        limits = SpanLimits()
        self._max_links = MAX_LINKS if limits.max_links is None else min(limits.max_links, MAX_LINKS)
        self._max_attributes, self._max_characters = limits.max_span_attributes, limits.max_span_attribute_length
        is_few = self._max_attributes is not None and self._max_attributes < MOST_ATTRIBUTES
        self._is_limited = is_few or self._max_characters is not None
        self._exporter = Exporter(resource, scope, exporter)
        self._processor = BatchSpanProcessor(self._exporter)
        self._provider.add_span_processor(self._processor)

    async def close(self) -> None:
        """Export what waits, for at most CLOSE_SECONDS, off the event loop."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the gateway has ended without it
                loop.call_soon_threadsafe(closed.set)

        thread = threading.Thread(target=close, name="close-tracer", daemon=True)
        thread.start()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await closed.wait()
        except TimeoutError:
            log.warning("traces_lost", reason="The collector did not take the last spans before the gateway ended.")

    # -- spans ---------------------------------------------------------------------------------------------------

    def request(self, request: HttpRequest) -> "_RequestSpan":
        """Trace a request to the server: its span continues the trace of the caller, if that is valid."""
        method, attributes = _of_method(request.method)
        attributes[URL_PATH] = _shown(request.path)
        attributes[URL_SCHEME] = request.scheme
        attributes[SERVER_ADDRESS] = _shown(request.host)
        attributes[CLIENT_ADDRESS] = request.client
        if request.port is not None:
            attributes[SERVER_PORT] = request.port
        if request.route:
            attributes[HTTP_ROUTE] = request.route
        if request.user_agent:
            attributes[USER_AGENT_ORIGINAL] = _shown(request.user_agent)
        span = _RequestSpan(self, _name(method, request.route), SpanKind.SERVER, attributes)
        return self._begun(span, _of_headers(request.traceparent, request.tracestate))

    def resumed(
        self, parent: str | None, attributes: Callable[[], Mapping[str, str | int]], links: Sequence[str] = ()
    ) -> AbstractContextManager[None]:
        """Trace the calls of a block in the trace of an upload, whose context is `parent`; none if that is None.

        `attributes` returns what each of them gets. `links` are the contexts of all uploads that the calls belong to.
        """
        found = None if parent is None else _of_ledger(parent)
        if found is None:
            return nullcontext()
        return _Within(Traced(tracer=self, context=found, attributes=attributes, links=links))

    def part(self, traced: Traced, name: str, attributes: Mapping[str, str | int]) -> TraceSpan:
        """Return a span of an operation within a request, which is sampled if that is."""
        parent = traced.context
        if not parent.trace_flags & TraceFlags.SAMPLED:
            return NO_SPAN
        span = _Span(self, name, SpanKind.INTERNAL, dict(attributes))
        span.parent = parent
        span.context = SpanContext(
            parent.trace_id, self._ids.generate_span_id(), False, parent.trace_flags, parent.trace_state
        )
        return span

    def call(self, traced: Traced, method: str, url: URL, template: str) -> TraceSpan:
        """Return a span of a request to an upstream."""
        method, attributes = _of_method(method)
        attributes |= traced.attributes()
        attributes[SERVER_ADDRESS] = url.host or ""
        attributes[SERVER_PORT] = url.port or 0
        attributes[URL_FULL] = f"{url.scheme}://{url.host_port_subcomponent}{_shown(url.raw_path)}"
        links = [Link(found) for found in map(_of_ledger, traced.links[: self._max_links]) if found is not None]
        span = _Span(self, _name(method, template), SpanKind.CLIENT, attributes, links)
        self._begun(span, trace.set_span_in_context(NonRecordingSpan(traced.context), Context()))
        return span if span.context.trace_flags & TraceFlags.SAMPLED else NO_SPAN

    def _begun(self, span: "_SpanT", within: Context) -> "_SpanT":
        """Return a span with its context, in which the sampler's decision is a flag."""
        parent = trace.get_current_span(within).get_span_context()
        trace_id, flags = parent.trace_id, parent.trace_flags & TraceFlags.RANDOM_TRACE_ID
        if not parent.is_valid:
            trace_id, flags = self._ids.generate_trace_id(), TraceFlags.RANDOM_TRACE_ID
        found = self._sampler.should_sample(within, trace_id, span.name, span.kind, span.attributes, span.links)
        if found.decision is Decision.RECORD_AND_SAMPLE:
            flags |= TraceFlags.SAMPLED
            span.attributes.update(found.attributes)  # a sampler may add some
        span.parent = parent if parent.is_valid else None
        span.context = SpanContext(trace_id, self._ids.generate_span_id(), False, FLAGS[flags], found.trace_state)
        return span

    def export(self, span: "_Span") -> None:
        """Queue a span that has ended."""
        if self._is_limited:
            attributes = BoundedAttributes(self._max_attributes, span.attributes, max_value_len=self._max_characters)
            span.attributes = attributes
        span.ended = time_ns()
        self._processor.on_end(self._exporter.prepare(span))

    @staticmethod
    def context_text(context: SpanContext) -> str:
        """Return a context for the ledger."""
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return f"{traceparent} {context.trace_state.to_header()}".rstrip()


def _of_method(method: str) -> tuple[str, dict[str, AttributeValue]]:
    """Return the method for a span's name, and its attributes: callers may send any word."""
    if method in METHODS:
        return method, {HTTP_REQUEST_METHOD: method}
    return "HTTP", {HTTP_REQUEST_METHOD: OTHER_METHOD, HTTP_REQUEST_METHOD_ORIGINAL: _shown(method)}


def _name(method: str, route: str) -> str:
    return f"{method} {route}" if route else method


def _shown(text: str) -> str:
    return redact_text(text[:MAX_SHOWN_CHARACTERS])


def _of_headers(traceparent: Sequence[str], tracestate: Sequence[str]) -> Context:
    """Return the context that a caller sent; an empty one if it sent none that is valid."""
    if len(traceparent) != 1:  # W3C: more than one is invalid
        return Context()
    state = ",".join(tracestate)
    headers = {"traceparent": traceparent[0].strip()}
    if state and len(state) <= MAX_TRACESTATE_CHARACTERS and state.isprintable():
        headers["tracestate"] = state
    return W3C.extract(headers, Context())


@lru_cache(maxsize=1024)  # each call of a report needs it, and a build needs those of all
def _of_ledger(text: str) -> SpanContext | None:
    traceparent, _, tracestate = text.partition(" ")
    found = trace.get_current_span(_of_headers([traceparent], [tracestate] if tracestate else [])).get_span_context()
    return found if found.is_valid else None


class _Span(SpanData):
    """A span that ends with its `with` block.

    An HTTP status from 500 on is an error of a server; from 400 on it is one of a client.
    """

    __slots__ = ("tracer",)

    attributes: MutableMapping[str, AttributeValue]

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        kind: SpanKind,
        attributes: dict[str, AttributeValue],
        links: Sequence[Link] = (),
    ) -> None:
        self.tracer = tracer
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.links = links
        self.is_error = False
        self.started = time_ns()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:  # its text is left out: it may contain what the caller sent
            self.fail(kind.__qualname__)
        if self.context.trace_flags & TraceFlags.SAMPLED:
            self.tracer.export(self)

    def set_status(self, status: int) -> None:
        self.attributes[HTTP_RESPONSE_STATUS_CODE] = status
        if status >= (500 if self.kind is SpanKind.SERVER else 400):
            self.fail(str(status))

    def fail(self, error_type: str) -> None:
        self.attributes[ERROR_TYPE] = error_type
        self.is_error = True


class _RequestSpan(_Span):
    """The span of a request to the server; what is done inside its block belongs to it."""

    __slots__ = ("_token",)

    _token: Token[Traced | None]

    def __enter__(self) -> Self:
        self._token = TRACED.set(Traced(tracer=self.tracer, context=self.context))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        TRACED.reset(self._token)
        super().__exit__(kind, error, traceback)


_SpanT = TypeVar("_SpanT", bound=_Span)


class _Within:
    """Sets what is traced for a block."""

    __slots__ = ("_token", "_traced")

    _token: Token[Traced | None]

    def __init__(self, traced: Traced) -> None:
        self._traced = traced

    def __enter__(self) -> None:
        self._token = TRACED.set(self._traced)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        TRACED.reset(self._token)
