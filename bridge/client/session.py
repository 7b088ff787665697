"""One guarded session per upstream: returns a response, or whether the failed call may have had an effect."""

import asyncio
import math
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field
from functools import partial
from types import TracebackType
from typing import Protocol, Self, TypeVar

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from bridge.client.connections import FAILURES, Body, Connections, Response, UnusableResponse
from bridge.client.outbound_proxy import DIRECT, OutboundProxy
from bridge.client.ssrf_guard import STORAGE_BLOCKED, AddressBlocked, guarded_socket
from bridge.domain.outcomes import NotSent, OutcomeUnknown
from bridge.protocols.http_response import HttpResponse, clean, http_date
from bridge.values import dataclass

# Own texts, because aiohttp's contain the whole URL with its presigned query.
FAILURE_TEXTS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientHttpProxyError, "the proxy refused to connect (HTTP {status}); see outbound.http_proxy"),
    (aiohttp.ClientProxyConnectionError, "cannot connect to the proxy {host}: {reason}"),
    (aiohttp.ClientConnectorDNSError, "the name {host} does not resolve"),
    (aiohttp.ClientConnectorCertificateError, "the certificate of {host} is not trusted"),
    (aiohttp.ClientConnectorSSLError, "TLS with {host} failed"),
    (aiohttp.ClientConnectorError, "cannot connect to {host}: {reason}"),
    (aiohttp.InvalidURL, "the URL cannot be called"),
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (TimeoutError, "no complete response in time"),
    (aiohttp.ServerDisconnectedError, "the connection was closed"),
    (aiohttp.ClientPayloadError, "the connection was closed"),
    (aiohttp.ClientResponseError, "the response is not HTTP"),
    (HttpProcessingError, "the response is not HTTP"),
    (OSError, "the connection was closed"),
)
"""Searched from top to bottom, because many of these are subclasses of others."""


def describe_failure(error: Exception) -> str:
    """Return a text for the failure, as half a sentence without secrets."""
    cause = getattr(error, "os_error", None)
    if isinstance(cause, AddressBlocked):
        return str(cause)
    words = next((text for kind, text in FAILURE_TEXTS if isinstance(error, kind)), "the call failed ({kind})")
    reason = cause.strerror or str(cause) if isinstance(cause, OSError) else ""
    host, status = clean(str(getattr(error, "host", ""))), getattr(error, "status", "")
    return words.format(host=host, reason=clean(reason), status=status, kind=type(error).__name__)


MAX_ANSWER_BYTES = 64 * 1024
"""No response that the bridge reads is larger than a few KiB; counted after decompression."""

MAX_HEADER_BYTES = 8190
"""One header line of a response, as most servers limit it. IAM's are longer, and its session has another limit."""

MAX_CONNECTIONS = 32
"""Twice the default of delivery.concurrency, so that calls wait in the ledger and not here."""

PROXY_AUTHENTICATION_REQUIRED = 407
PROXY_REJECTED = "the proxy rejected its credentials (HTTP 407); see outbound.http_proxy"

USER_AGENT = "codearts-testnod-bridge"

SECRET_HEADERS = frozenset(
    {
        "project-token",
        "x-auth-token",
        "x-subject-token",
        "x-security-token",
        "x-amz-security-token",
        "authorization",
    }
)
"""Their values are never shown, even if an upstream repeats them in a message."""

_CREDENTIAL_PART = re.compile(r"(?:(?:Access|Credential|Signature)=|^[Bb]earer +)([^,;/\s]+)")
"""The parts of an Authorization header that an upstream may repeat alone."""

_LINE_BREAK = re.compile("[\r\n\0]")

DATE_SECONDS = 1.0
"""A Date has whole seconds: one that repeats the last one within this time shows nothing new."""

CallObserver = Callable[[str, str, float, str], None]
"""Receives upstream, call, seconds and the outcome's class name of every call that ended."""


class CallSpan(Protocol):
    """Takes what became of a request, for traces."""

    def set_status(self, status: int) -> None: ...
    def fail(self, error_type: str) -> None: ...


CallTracer = Callable[[str, URL, str], AbstractContextManager[CallSpan | None]]
"""Receives method, URL and template of the path of every request; the context lasts until its response is read."""

Clock = Callable[[], int]
"""Returns microseconds UTC."""

DateObserver = Callable[[str, int], None]
"""Receives upstream and Date (microseconds UTC) of every response that has a Date and is not from a cache."""

Outcome = TypeVar("Outcome")


def wall_clock() -> int:
    """Return microseconds UTC."""
    return time.time_ns() // 1000


def undated(_upstream: str, _at: int) -> None:
    """Ignore the date; for sessions whose clock is not compared."""


def unobserved(_upstream: str, _call: str, _seconds: float, _outcome: str) -> None:
    """Ignore the call; for sessions that are not measured."""


_NO_SPAN: AbstractContextManager[None] = nullcontext()


def untraced(_method: str, _url: URL, _template: str) -> AbstractContextManager[None]:
    """Ignore the request; for sessions that are not traced."""
    return _NO_SPAN


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """How long a call may take; a slow upstream must not occupy a connection that other calls need."""

    connect_seconds: float = 10.0  # includes waiting for a free connection, name resolution, TCP and TLS
    read_seconds: float = 20.0  # between two pieces of the response, or before the first
    total_seconds: float = 30.0  # all together, so that slowly dripping responses end


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request; no headers are sent besides these, Host and Content-Length."""

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = None  # an iterable needs its own Content-Length header
    limits: Timeouts | None = None
    max_answer_bytes: int = MAX_ANSWER_BYTES
    secrets: tuple[str, ...] = ()  # in its URL and body; secret headers are recognized by name
    template: str = ""  # the path, if it is the same for every call of its kind


class GuardedSession:
    """A session with one upstream: no redirects, no cookies, no netrc or environment, no unbounded responses.

    If `public_only`, addresses that are not public are refused, with the text `blocked`, when the connection is made.
    Calls through the proxy have a session of their own: only the proxy's address is connected to, which the
    settings name, and the guard stays in force for all direct calls.
    """

    def __init__(  # noqa: PLR0913 -- keyword arguments with defaults
        self,
        upstream: str,
        *,
        public_only: bool = False,
        blocked: str = STORAGE_BLOCKED,
        outbound_proxy: OutboundProxy = DIRECT,
        limits: Timeouts | None = None,
        connections: int = MAX_CONNECTIONS,
        header_bytes: int = MAX_HEADER_BYTES,
        observer: CallObserver = unobserved,
        clock: Clock = wall_clock,
        dated: DateObserver = undated,
        traced: CallTracer = untraced,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._upstream = upstream
        self._traced = traced
        self._limits = limits or Timeouts()
        self._observer = observer
        self._clock = clock
        self._dated = dated
        self._last_date = ""
        self._last_date_at = -math.inf
        self._outbound_proxy = outbound_proxy
        new_connections = partial(
            Connections, limit=connections, max_header_bytes=header_bytes, trust=outbound_proxy.trust
        )
        self._direct = new_connections(guard=partial(guarded_socket, blocked=blocked) if public_only else None)
        self._proxied = new_connections(proxy=outbound_proxy.proxy) if outbound_proxy.proxy else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._direct.close()
        if self._proxied is not None:
            await self._proxied.close()

    async def send(self, request: Request) -> HttpResponse | NotSent | OutcomeUnknown:
        """Return the response; NotSent if no connection was made; OutcomeUnknown if anything failed after that.

        If the upstream has closed a kept-alive connection meanwhile, the outcome is unknown too, because bytes may have
        been sent.
        """
        if any(map(_LINE_BREAK.search, request.headers.values())):
            return NotSent(message="A header of this call contains a line break. Check the token in the settings.")
        with self._traced(request.method, request.url, request.template) as span:
            outcome = await self._send(request)
            if span is not None:
                if not isinstance(outcome, HttpResponse):
                    span.fail(type(outcome).__name__)
                if not isinstance(outcome, NotSent) and outcome.status is not None:
                    span.set_status(outcome.status)
            return outcome

    async def _send(self, request: Request) -> HttpResponse | NotSent | OutcomeUnknown:
        """Make a call; until it has a connection, no byte of it can have been sent."""
        limits = request.limits or self._limits
        is_proxied = self._proxied is not None and self._outbound_proxy.proxy_for(request.url) is not None
        connections = self._proxied if self._proxied is not None and is_proxied else self._direct
        connection = None
        try:
            give_up_at = self._loop.time() + limits.total_seconds
            connection = await connections.connect(request.url, seconds=limits.connect_seconds)
            response = await connections.call(
                connection,
                *(request.method, request.url, request.headers, request.body),
                give_up_at=give_up_at,
                read_seconds=limits.read_seconds,
                max_answer_bytes=request.max_answer_bytes,
            )
            if is_proxied and response.status == PROXY_AUTHENTICATION_REQUIRED:
                return NotSent(message=f"{self._upstream}: {PROXY_REJECTED}.")
            return self._read(request, response)
        except UnusableResponse as error:
            return OutcomeUnknown(message=f"{self._upstream}: {error}.", status=error.status)
        except FAILURES as error:
            message = f"{self._upstream}: {describe_failure(error)}."
            return NotSent(message=message) if connection is None else OutcomeUnknown(message=message)

    def _read(self, request: Request, response: Response) -> HttpResponse:
        self._note_date(response.headers)
        return HttpResponse(
            status=response.status,
            headers=response.headers,
            body=_decompress(response, request.max_answer_bytes),
            received_at=self._clock(),
            secrets=_secrets(request),
        )

    def _note_date(self, headers: Mapping[str, str]) -> None:
        date, now = headers.get("date", ""), time.monotonic()
        if date == self._last_date and now - self._last_date_at < DATE_SECONDS:
            return
        at = http_date(date)
        if at is not None and "age" not in headers:
            self._last_date, self._last_date_at = date, now
            self._dated(self._upstream, at)

    async def observed(self, call: str, outcome: Awaitable[Outcome]) -> Outcome:
        """Await `outcome` and report its duration to the observer; calls that are canceled are not reported."""
        began = self._loop.time()
        ended = await outcome
        self._observer(self._upstream, call, self._loop.time() - began, type(ended).__name__)
        return ended


def _secrets(request: Request) -> tuple[str, ...]:
    sent = [value for name, value in request.headers.items() if value and name.lower() in SECRET_HEADERS]
    if not sent:
        return request.secrets
    parts = [part for value in sent for part in _CREDENTIAL_PART.findall(value)]
    return (*sent, *parts, *request.secrets)


def _decompress(response: Response, max_bytes: int) -> bytes:
    """Undo a Content-Encoding, which was not requested, up to the size limit."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return response.body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnusableResponse(
            f"the response has the unknown encoding {clean(encoding, limit=32)}", status=response.status
        )
    try:
        body = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(response.body, max_bytes + 1)
    except zlib.error as error:
        raise UnusableResponse("the response does not match its Content-Encoding", status=response.status) from error
    if len(body) > max_bytes:
        fault = f"the response is larger than {max_bytes // 1024} KiB when decompressed"
        raise UnusableResponse(fault, status=response.status)
    return body
