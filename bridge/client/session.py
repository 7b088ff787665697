"""One guarded aiohttp session per upstream: send a request, get an answer, or learn whether it may have had an effect.

It knows time limits, sizes and addresses, but no protocol: what an answer means is read elsewhere.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Self, TypeVar

import aiohttp
from yarl import URL

from bridge.client.outbound_proxy import DIRECT, OutboundProxy
from bridge.client.ssrf_guard import AddressBlocked, guarded_socket
from bridge.domain.outcomes import NotSent, OutcomeUnknown
from bridge.protocols.http_response import HttpResponse, clean, http_date

# Why a call got no answer, said in our own words: aiohttp's hold the whole URL, presigned query and all.
#
# It knows no upstream, and not whether the call may have had an effect.


WORDS: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientHttpProxyError, "the proxy refused to connect (HTTP {status}); see outbound.http_proxy"),
    (aiohttp.ClientProxyConnectionError, "cannot connect to the proxy {host}: {reason}"),
    (aiohttp.ClientConnectorDNSError, "the name {host} does not resolve"),
    (aiohttp.ClientConnectorCertificateError, "the certificate of {host} is not trusted"),
    (aiohttp.ClientConnectorSSLError, "TLS with {host} failed"),
    (aiohttp.ClientConnectorError, "cannot connect to {host}: {reason}"),
    (aiohttp.InvalidURL, "the URL cannot be called"),
    (aiohttp.ConnectionTimeoutError, "no connection in time"),
    (TimeoutError, "no complete answer in time"),
    (aiohttp.ServerDisconnectedError, "the connection was cut"),
    (aiohttp.ClientPayloadError, "the connection was cut"),
    (aiohttp.ClientResponseError, "the answer is not HTTP"),
    (OSError, "the connection was cut"),
)
"""Sought from top to bottom: many of these are subclasses of others."""


def describe_failure(error: Exception) -> str:
    """Return what failed as half a sentence without anything secret."""
    cause = getattr(error, "os_error", None)
    if isinstance(cause, AddressBlocked):
        return str(cause)
    words = next((text for kind, text in WORDS if isinstance(error, kind)), "the call failed ({kind})")
    reason = cause.strerror or str(cause) if isinstance(cause, OSError) else ""
    host, status = clean(str(getattr(error, "host", ""))), getattr(error, "status", "")
    return words.format(host=host, reason=clean(reason), status=status, kind=type(error).__name__)


MAX_ANSWER_BYTES = 64 * 1024
"""No answer that the bridge understands has more than a few KiB; counted after unfolding."""

MAX_HEADER_BYTES = 8190
"""One header line of an answer, as most servers hold it; IAM's are longer, and its session says so."""

MAX_CONNECTIONS = 32
"""Twice the default of delivery.concurrency: a call waits for its turn in the ledger, not here."""

PROXY_WANTS_LOGIN = 407

USER_AGENT = "codearts-testnod-bridge"

AUTOMATIC_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
"""What aiohttp would add by itself: each request says all of its headers, the presigned ones none but their own."""

SECRET_HEADERS = frozenset({"project-token", "x-auth-token", "x-subject-token", "x-security-token", "authorization"})
"""What they say is never shown, also where an upstream repeats it in its own words."""

CallObserver = Callable[[str, str, float, str], None]
"""Receives upstream, call, seconds and the outcome's class name of every call that ended."""

Clock = Callable[[], int]
"""Returns microseconds UTC."""

Dated = Callable[[str, int], None]
"""Receives upstream and Date (microseconds UTC) of every answer that has one and was not kept by a cache."""

Outcome = TypeVar("Outcome")


def wall_clock() -> int:
    """Return microseconds UTC."""
    return time.time_ns() // 1000


def undated(_upstream: str, _at: int) -> None:
    """Do nothing: for those who do not compare clocks."""


def unobserved(_upstream: str, _call: str, _seconds: float, _outcome: str) -> None:
    """Do nothing: the observer of those who measure nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """How long a call may take; a slow upstream must give its place back to the others."""

    connect_seconds: float = 10.0  # with the wait for a free connection, the name, TCP and TLS
    read_seconds: float = 20.0  # between two pieces of the answer, or before the first
    total_seconds: float = 30.0  # all together: nothing that drips is waited for


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request as it goes out: its headers are all that is sent, besides Host and Content-Length."""

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterable[bytes] | None = None  # an iterable needs its own Content-Length header
    limits: Timeouts | None = None
    max_answer_bytes: int = MAX_ANSWER_BYTES
    secrets: tuple[str, ...] = ()  # in its body; those in its headers are known by their names


class GuardedSession:
    """A session with one upstream: no redirects, cookies, surroundings (netrc, variables) or unbounded answers.

    With `public_only`, addresses that are not public are refused as the connection is made. What goes through the
    proxy of `way_out` is connected to the proxy alone, which is trusted to be where the settings say: those calls have
    a session of their own, so that nothing else gets around the guard.
    """

    def __init__(  # noqa: PLR0913 -- each is said by name, and none is needed but the first
        self,
        upstream: str,
        *,
        public_only: bool = False,
        way_out: OutboundProxy = DIRECT,
        limits: Timeouts | None = None,
        connections: int = MAX_CONNECTIONS,
        header_bytes: int = MAX_HEADER_BYTES,
        observer: CallObserver = unobserved,
        clock: Clock = wall_clock,
        dated: Dated = undated,
    ) -> None:
        self._upstream = upstream
        self._limits = limits or Timeouts()
        self._observer = observer
        self._clock = clock
        self._dated = dated
        self._way_out = way_out
        new_http = partial(_new_http, way_out, connections=connections, header_bytes=header_bytes)
        self._direct = new_http(public_only=public_only)
        self._proxied = new_http(public_only=False) if way_out.proxy else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._direct.close()
        if self._proxied is not None:
            await self._proxied.close()

    async def send(self, request: Request) -> HttpResponse | NotSent | OutcomeUnknown:
        """Return the answer to `request`; NotSent while no connection stood, Unknown when anything failed after that.

        A connection kept alive that the upstream has closed meanwhile counts as Unknown: bytes may have been sent.
        """
        if any(char in value for value in request.headers.values() for char in "\r\n\0"):
            return NotSent(message="A header for this call holds a line break. Check the token in the settings.")
        way = _Way()
        try:
            return await self._exchange(request, way)
        except _Garbled as error:
            message = f"{self._upstream}: {error}."
            return OutcomeUnknown(message=message, status=error.status) if way.connected else NotSent(message=message)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            message = f"{self._upstream}: {describe_failure(error)}."
            return OutcomeUnknown(message=message) if way.connected else NotSent(message=message)

    async def observed(self, call: str, outcome: Awaitable[Outcome]) -> Outcome:
        """Return what `outcome` comes to, and tell the observer how long it took; nothing of a call given up."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        ended = await outcome
        self._observer(self._upstream, call, loop.time() - began, type(ended).__name__)
        return ended

    async def _exchange(self, request: Request, way: "_Way") -> HttpResponse:
        proxy = self._way_out.proxy_for(request.url)
        http = self._proxied if proxy is not None and self._proxied is not None else self._direct
        async with http.request(
            request.method,
            request.url,
            proxy=proxy,
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
            timeout=_client_timeout(request.limits or self._limits),
            trace_request_ctx=way,
        ) as response:
            self._note_date(response)
            if proxy is not None and response.status == PROXY_WANTS_LOGIN:
                way.connected = False  # with the proxy only
                fault = "the proxy wants other credentials (HTTP 407); see outbound.http_proxy"
                raise _Garbled(fault, status=response.status)
            body = await _read_bounded(response, request.max_answer_bytes)
            return HttpResponse(
                status=response.status,
                headers={name.lower(): value for name, value in response.headers.items()},
                body=_unfold(response, body, request.max_answer_bytes),
                received_at=self._clock(),
                secrets=_secrets(request),
            )

    def _note_date(self, response: aiohttp.ClientResponse) -> None:
        at = http_date(response.headers.get("Date", ""))
        if at is not None and "Age" not in response.headers:
            self._dated(self._upstream, at)


@dataclass(slots=True)
class _Way:
    """How far a request came: before a connection stands, not one byte of it can have left."""

    connected: bool = False


class _Garbled(Exception):
    """An answer with this HTTP status came, but cannot be taken."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def _new_http(
    way_out: OutboundProxy, *, connections: int, header_bytes: int, public_only: bool
) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(_note_connected)
    trace.on_connection_reuseconn.append(_note_connected)
    http = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections,
            ssl=way_out.trust or True,
            socket_factory=guarded_socket if public_only else None,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=AUTOMATIC_HEADERS,
        auto_decompress=False,  # unfolded here, where it is counted
        max_field_size=header_bytes,
        trust_env=False,
        trace_configs=[trace],
    )
    # aiohttp sends GET and PUT again by itself over a new connection; what is sent how often is the plan's to say.
    http._retry_connection = False  # noqa: SLF001 -- it has no public name
    return http


async def _note_connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    way = context.trace_request_ctx
    if isinstance(way, _Way):
        way.connected = True


def _secrets(request: Request) -> tuple[str, ...]:
    sent = (value for name, value in request.headers.items() if name.lower() in SECRET_HEADERS)
    return tuple(secret for secret in (*sent, *request.secrets) if secret)


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
            response.close()  # the rest is not wanted, so neither is the connection
            fault = f"the answer (HTTP {response.status}) is larger than {max_bytes // 1024} KiB"
            raise _Garbled(fault, status=response.status)
    return bytes(body)


def _unfold(response: aiohttp.ClientResponse, body: bytes, max_bytes: int) -> bytes:
    """Undo a Content-Encoding that nobody asked for, no further than the limit."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise _Garbled(f"the answer has the unknown encoding {clean(encoding, limit=32)}", status=response.status)
    try:
        unfolded = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise _Garbled("the answer is not what its Content-Encoding says", status=response.status) from error
    if len(unfolded) > max_bytes:
        fault = f"the answer is larger than {max_bytes // 1024} KiB when unfolded"
        raise _Garbled(fault, status=response.status)
    return unfolded
