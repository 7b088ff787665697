"""Traces: one trace shows an upload from its request to the finalized run, also if several gateways did the work.

Components call `span`, `call_span` and `trace_context`, which do nothing outside a traced request or call. The tracer
itself is in `telemetry/otel.py`, which `app/tracing.py` imports if the variables of OpenTelemetry ask for traces.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from yarl import URL

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from bridge.telemetry.otel import Tracer

MAX_TRACESTATE_CHARACTERS: Final = 512
"""What https://www.w3.org/TR/trace-context/#tracestate-limits asks systems to pass on; a longer one is dropped."""

MAX_LINKS: Final = 128
"""Uploads that a span names, as OTEL_SPAN_LINK_COUNT_LIMIT has it by default."""

TRACE_ID: Final = slice(3, 35)
"""The trace id in a traceparent."""


class TraceSpan(Protocol):
    """A span inside its `with` block."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def set_status(self, status: int) -> None:
        """Record the HTTP status of the response."""

    def fail(self, error_type: str) -> None:
        """Mark the span as failed; `error_type` is of a small set of words."""


class _NoSpan:
    """Stands for a span if nothing is traced."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def set_status(self, status: int) -> None: ...

    def fail(self, error_type: str) -> None: ...


NO_SPAN: Final = _NoSpan()


class HttpRequest(NamedTuple):
    """A request to the server listener as its span shows it."""

    method: str
    route: str  # empty: a path of CodeArts
    path: str
    scheme: str
    host: str
    port: int | None
    client: str
    user_agent: str
    traceparent: Sequence[str]
    tracestate: Sequence[str]


class Traced(NamedTuple):
    """What this task works on while it is traced: the parent, attributes and links of the spans that it makes."""

    tracer: "Tracer"
    context: "SpanContext"
    attributes: Callable[[], Mapping[str, str | int]] = dict
    links: Sequence[str] = ()  # trace contexts


TRACED: ContextVar[Traced | None] = ContextVar("traced", default=None)


def span(name: str, attributes: Mapping[str, str | int] | None = None) -> AbstractContextManager[TraceSpan]:
    """Return a span for a part of the work of this task."""
    traced = TRACED.get()
    return NO_SPAN if traced is None else traced.tracer.part(traced, name, attributes or {})


def call_span(method: str, url: URL, template: str = "") -> AbstractContextManager[TraceSpan]:
    """Return a span for an HTTP request to an upstream; `template` is its path if that is always the same.

    The query of `url` is left out, because a presigned one is a secret.
    """
    traced = TRACED.get()
    return NO_SPAN if traced is None else traced.tracer.call(traced, method, url, template)


def forward_span(method: str, origin: URL, path: str) -> AbstractContextManager[TraceSpan]:
    """Return a span for a request of a caller that is forwarded to `path` of an upstream."""
    traced = TRACED.get()
    if traced is None:
        return NO_SPAN
    return traced.tracer.call(traced, method, origin.with_path(path, encoded=True), "")


def trace_context() -> str | None:
    """Return the context of the current span for the ledger: traceparent and tracestate of W3C, in one text."""
    traced = TRACED.get()
    return None if traced is None else traced.tracer.context_text(traced.context)


def trace_id() -> str | None:
    """Return the id of the current trace, as lower-case hexadecimal digits."""
    traced = TRACED.get()
    return None if traced is None else format(traced.context.trace_id, "032x")
