"""The tracer of OpenTelemetry behind `telemetry/traces.py`, which imports this module only if traces are requested.

Spans wait in a bounded queue; a thread of the SDK exports them with OTLP over HTTP. Names and attributes follow the
semantic conventions for HTTP: https://opentelemetry.io/docs/specs/semconv/http/http-spans/. The SDK reads the other
variables itself, such as OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and OTEL_BSP_MAX_QUEUE_SIZE.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from types import TracebackType
from typing import Final, Self

import structlog
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
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
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from yarl import URL

from bridge import __version__
from bridge.telemetry.logs import redact_text
from bridge.telemetry.traces import MAX_LINKS, MAX_TRACESTATE_CHARACTERS, TRACED, HttpRequest, Traced

CLOSE_SECONDS: Final = 3.0
"""For the last export at the end of the gateway; a collector that is away must not delay the end."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
OTHER_METHOD: Final = "_OTHER"

W3C: Final = TraceContextTextMapPropagator()

QUIET_LOGGERS: Final = {"opentelemetry": logging.CRITICAL, "urllib3": logging.WARNING}
"""The first logs headers of the variables that it cannot read, each batch that is lost, which `_Exporter` sums up, and
each header of a caller that is not valid; the second, at level "debug", the path and query of each export.
"""

MAX_SHOWN_CHARACTERS: Final = 512
"""Of what a caller sent: its path, its method and its User-Agent."""

log = structlog.get_logger(__name__)


class Tracer:
    """Makes spans and exports them. `close` exports those that wait."""

    def __init__(self, instance: str, exporter: SpanExporter | None = None) -> None:
        for name, level in QUIET_LOGGERS.items():
            logging.getLogger(name).setLevel(level)
        own = {SERVICE_NAME: "bridge", SERVICE_VERSION: __version__, SERVICE_INSTANCE_ID: instance}
        resource = Resource.create({**own, **OTELResourceDetector().detect().attributes})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter(exporter or OTLPSpanExporter())))
        self._tracer = self._provider.get_tracer("bridge", __version__, schema_url=Schemas.V1_36_0.value)

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

    @contextmanager
    def request(self, request: HttpRequest) -> Iterator["_Span"]:
        """Trace a request to the server: its span continues the trace of the caller, if that is valid."""
        known = request.method in METHODS
        method = request.method if known else OTHER_METHOD
        attributes: dict[str, AttributeValue] = {
            HTTP_REQUEST_METHOD: method,
            URL_PATH: _shown(request.path),
            URL_SCHEME: request.scheme,
            SERVER_ADDRESS: request.host,
            CLIENT_ADDRESS: request.client,
        }
        if not known:
            attributes[HTTP_REQUEST_METHOD_ORIGINAL] = _shown(request.method)
        if request.port is not None:
            attributes[SERVER_PORT] = request.port
        if request.route:
            attributes[HTTP_ROUTE] = request.route
        if request.user_agent:
            attributes[USER_AGENT_ORIGINAL] = _shown(request.user_agent)
        name = f"{method if known else 'HTTP'} {request.route}".rstrip()
        parent = _of_headers(request.traceparent, request.tracestate)
        started = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        with self._within(trace.set_span_in_context(started), Traced(tracer=self)), _Span(started) as span:
            yield span

    def resumed(
        self, parent: str | None, attributes: Callable[[], Mapping[str, str | int]], links: Sequence[str] = ()
    ) -> AbstractContextManager[None]:
        """Trace the calls of a block in the trace of an upload, whose context is `parent`; none if that is None.

        `attributes` returns what each of them gets. `links` are the contexts of all uploads that the calls belong to.
        """
        found = None if parent is None else _of_ledger(parent)
        if found is None:
            return nullcontext()
        return self._within(found, Traced(tracer=self, attributes=attributes, links=links))

    @staticmethod
    @contextmanager
    def _within(current: Context, traced: Traced) -> Iterator[None]:
        token, attached = TRACED.set(traced), context.attach(current)
        try:
            yield
        finally:
            context.detach(attached)
            TRACED.reset(token)

    def part(self, name: str, attributes: Mapping[str, str | int]) -> "_Span":
        """Return a span of an operation within the gateway."""
        return _Span(self._tracer.start_span(name, None, SpanKind.INTERNAL, dict(attributes)))

    def call(self, traced: Traced, method: str, url: URL, template: str) -> "_Span":
        """Return a span of a request to an upstream."""
        attributes: dict[str, AttributeValue] = {
            **traced.attributes(),
            HTTP_REQUEST_METHOD: method,
            SERVER_ADDRESS: url.host or "",
            SERVER_PORT: url.port or 0,
            URL_FULL: f"{url.scheme}://{url.host_port_subcomponent}{redact_text(url.raw_path)}",
        }
        links = [Link(found) for found in map(_span_context, traced.links[:MAX_LINKS]) if found is not None]
        name = f"{method} {template}".rstrip()
        return _Span(self._tracer.start_span(name, None, SpanKind.CLIENT, attributes, links), fails_from=400)

    @staticmethod
    def context() -> str | None:
        """Return the context of the current span for the ledger."""
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return None
        traceparent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"
        return f"{traceparent} {found.trace_state.to_header()}".rstrip()

    @staticmethod
    def trace_id() -> str | None:
        """Return the id of the current trace."""
        found = trace.get_current_span().get_span_context()
        return format(found.trace_id, "032x") if found.is_valid else None


def _shown(text: str) -> str:
    return redact_text(text[:MAX_SHOWN_CHARACTERS])


def _of_headers(traceparent: Sequence[str], tracestate: Sequence[str]) -> Context:
    """Return the context that a caller sent; an empty one if it sent none that is valid."""
    if len(traceparent) != 1:  # W3C: more than one is invalid
        return Context()
    state = ",".join(tracestate)
    carrier = {"traceparent": traceparent[0].strip()}
    if state and len(state) <= MAX_TRACESTATE_CHARACTERS and state.isprintable():
        carrier["tracestate"] = state
    return W3C.extract(carrier, Context())


@lru_cache(maxsize=1024)  # each call of a report needs it, and a build needs those of all
def _of_ledger(text: str) -> Context | None:
    traceparent, _, tracestate = text.partition(" ")
    found = _of_headers([traceparent], [tracestate] if tracestate else [])
    return found if trace.get_current_span(found).get_span_context().is_valid else None


def _span_context(text: str) -> trace.SpanContext | None:
    found = _of_ledger(text)
    return None if found is None else trace.get_current_span(found).get_span_context()


class _Span:
    """A span that ends with its `with` block.

    An HTTP status from `fails_from` on is an error: of a server 5xx, of a client 4xx too.
    """

    __slots__ = ("_fails_from", "_span")

    def __init__(self, span: trace.Span, *, fails_from: int = 500) -> None:
        self._span = span
        self._fails_from = fails_from

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:  # its text is left out: it may contain what the caller sent
            self.fail(kind.__qualname__)
        self._span.end()

    def set_status(self, status: int) -> None:
        self._span.set_attribute(HTTP_RESPONSE_STATUS_CODE, status)
        if status >= self._fails_from:
            self.fail(str(status))

    def fail(self, error_type: str) -> None:
        self._span.set_attribute(ERROR_TYPE, error_type)
        self._span.set_status(StatusCode.ERROR)


class _Exporter(SpanExporter):
    """Logs when the collector takes no spans any more, and when it takes them again."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
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
