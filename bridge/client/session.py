"""One guarded aiohttp session per upstream: returns a response, or whether the failed call may have had an effect."""

import asyncio
import math
import re
import socket
import time
import zlib
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import field
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import aiohttp
from yarl import URL

from bridge.client.outbound_proxy import DIRECT, OutboundProxy
from bridge.client.ssrf_guard import STORAGE_BLOCKED, AddressBlocked, guarded_socket
from bridge.domain.outcomes import NotSent, OutcomeUnknown
from bridge.protocols.http_response import HttpResponse, clean, http_date
from bridge.values import dataclass

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

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

USER_AGENT = "codearts-testnod-bridge"

AUTOMATIC_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
"""Headers that aiohttp would add. Each request has its full set; presigned ones only those that are signed."""

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
    body: bytes | AsyncIterable[bytes] | None = None  # an iterable needs its own Content-Length header
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
        self._upstream = upstream
        self._traced = traced
        self._limits = limits or Timeouts()
        self._observer = observer
        self._clock = clock
        self._dated = dated
        self._last_date = ""
        self._last_date_at = -math.inf
        self._outbound_proxy = outbound_proxy
        new_http = partial(_new_http, outbound_proxy, connections=connections, header_bytes=header_bytes)
        guard = partial(guarded_socket, blocked=blocked) if public_only else None
        self._direct = new_http(guard=guard)
        self._proxied = new_http(guard=None) if outbound_proxy.proxy else None

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
        transfer = _Transfer()
        running = _TRANSFER.set(transfer)
        try:
            return await self._exchange(request, transfer)
        except _UnusableResponse as error:
            message = f"{self._upstream}: {error}."
            return (
                OutcomeUnknown(message=message, status=error.status) if transfer.connected else NotSent(message=message)
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            message = f"{self._upstream}: {describe_failure(error)}."
            return OutcomeUnknown(message=message) if transfer.connected else NotSent(message=message)
        finally:
            _TRANSFER.reset(running)

    async def observed(self, call: str, outcome: Awaitable[Outcome]) -> Outcome:
        """Await `outcome` and report its duration to the observer; calls that are canceled are not reported."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        ended = await outcome
        self._observer(self._upstream, call, loop.time() - began, type(ended).__name__)
        return ended

    async def _exchange(self, request: Request, transfer: "_Transfer") -> HttpResponse:
        proxy = self._outbound_proxy.proxy_for(request.url)
        http = self._proxied if proxy is not None and self._proxied is not None else self._direct
        async with http.request(
            request.method,
            request.url,
            proxy=proxy,
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
            timeout=_client_timeout(request.limits or self._limits),
        ) as response:
            self._note_date(response)
            if proxy is not None and response.status == PROXY_AUTHENTICATION_REQUIRED:
                transfer.connected = False  # connected to the proxy only
                fault = "the proxy rejected its credentials (HTTP 407); see outbound.http_proxy"
                raise _UnusableResponse(fault, status=response.status)
            body = await _read_bounded(response, request.max_answer_bytes)
            return HttpResponse(
                status=response.status,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=_decompress(response, body, request.max_answer_bytes),
                received_at=self._clock(),
                secrets=_secrets(request),
            )

    def _note_date(self, response: aiohttp.ClientResponse) -> None:
        date, now = response.headers.get("Date", ""), time.monotonic()
        if date == self._last_date and now - self._last_date_at < DATE_SECONDS:
            return
        at = http_date(date)
        if at is not None and "Age" not in response.headers:
            self._last_date, self._last_date_at = date, now
            self._dated(self._upstream, at)


@dataclass(slots=True)
class _Transfer:
    """Progress of a request: until it is connected, no byte of it can have been sent."""

    connected: bool = False


_TRANSFER: ContextVar[_Transfer] = ContextVar("transfer")
"""The request that this task makes."""


class _UnusableResponse(Exception):
    """A response with this HTTP status came, but cannot be used."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def _new_http(
    outbound_proxy: OutboundProxy,
    *,
    connections: int,
    header_bytes: int,
    guard: Callable[[aiohttp.AddrInfoType], socket.socket] | None,
) -> aiohttp.ClientSession:
    http = aiohttp.ClientSession(
        connector=_NotingConnector(
            limit=connections,
            ssl=outbound_proxy.trust or True,
            socket_factory=guard,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=AUTOMATIC_HEADERS,
        auto_decompress=False,  # decompressed in _decompress, which limits the size
        max_field_size=header_bytes,
        trust_env=False,
    )
    # aiohttp would send GET and PUT a second time over a new connection, but domain/plan.py decides about retries.
    http._retry_connection = False  # noqa: SLF001 -- there is no public setting
    return http


class _NotingConnector(aiohttp.TCPConnector):
    """Notes that the call that runs has a connection. aiohttp's own tracing would cost a tenth of each call."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 -- as aiohttp calls it
    ) -> "Connection":
        connection = await super().connect(req, traces, timeout)
        _TRANSFER.get().connected = True
        return connection


def _secrets(request: Request) -> tuple[str, ...]:
    sent = [value for name, value in request.headers.items() if value and name.lower() in SECRET_HEADERS]
    if not sent:
        return request.secrets
    parts = [part for value in sent for part in _CREDENTIAL_PART.findall(value)]
    return (*sent, *parts, *request.secrets)


@lru_cache(maxsize=64)
def _client_timeout(limits: Timeouts) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=limits.total_seconds,
        connect=limits.connect_seconds,
        sock_connect=limits.connect_seconds,
        sock_read=limits.read_seconds,
    )


async def _read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > max_bytes:
            response.close()  # the rest is not read, so the connection cannot be reused
            fault = f"the response (HTTP {response.status}) is larger than {max_bytes // 1024} KiB"
            raise _UnusableResponse(fault, status=response.status)
    return bytes(body)


def _decompress(response: aiohttp.ClientResponse, body: bytes, max_bytes: int) -> bytes:
    """Undo a Content-Encoding, which was not requested, up to the size limit."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise _UnusableResponse(
            f"the response has the unknown encoding {clean(encoding, limit=32)}", status=response.status
        )
    try:
        decompressed = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise _UnusableResponse("the response does not match its Content-Encoding", status=response.status) from error
    if len(decompressed) > max_bytes:
        fault = f"the response is larger than {max_bytes // 1024} KiB when decompressed"
        raise _UnusableResponse(fault, status=response.status)
    return decompressed
