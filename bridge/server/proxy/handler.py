"""Handle a proxied call: authenticate, authorize, forward, and stream the response."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn

import aiohttp
import structlog
from aiohttp import web

from bridge.domain.callers import Caller
from bridge.domain.routing import Route
from bridge.errors import BridgeError, GatewayTimeout, TooLarge, Unavailable
from bridge.server.auth.authenticator import UNSIGNED_BODY, Authenticator, AuthResult
from bridge.server.http.requests import content_of, read_body
from bridge.server.http.responses import REQUEST_ID, escape_for_display, json_response
from bridge.server.proxy.authorization import AuthorizationMode, ProxyPolicy, authorization_mode, is_login
from bridge.server.proxy.forwarder import Forwarder
from bridge.server.proxy.headers import require_forwardable
from bridge.server.proxy.report_summary import LocalReportSummaries
from bridge.server.proxy.request_target import RequestTarget, Upstream, parse_target
from bridge.server.proxy.streaming import IDLE_SECONDS, EndCause, IdleTimeout, ResponseWriter, StreamedResponse
from bridge.telemetry.metrics import Metrics

MAX_CALLS: Final = 32
"""Concurrent calls to each upstream. CodeArts (about 200 a second for an API) would not answer more of them sooner, and
each call that streams takes time from uploads."""

BUSY_RETRY_SECONDS: Final = 1

MAX_SIGNED_BYTES: Final = 1024 * 1024
"""A signed body is read completely before it is forwarded. Huawei's own limit is 12 MB; its requests are some KB."""

_log = structlog.get_logger(__name__)


class ConcurrencyLimits:
    """Allows MAX_CALLS concurrent calls to each upstream. Outlives a reload of the settings."""

    def __init__(self) -> None:
        self._calls = dict.fromkeys(Upstream, 0)

    @contextmanager
    def slot(self, upstream: Upstream) -> Iterator[None]:
        """Hold a slot for a block; raise Unavailable if none is free."""
        if self._calls[upstream] >= MAX_CALLS:
            raise Unavailable(
                f"The bridge already forwards {MAX_CALLS} calls to CodeArts. Send it again in a moment.",
                retry_after_seconds=BUSY_RETRY_SECONDS,
            )
        self._calls[upstream] += 1
        try:
            yield
        finally:
            self._calls[upstream] -= 1


@dataclass(kw_only=True, slots=True)
class ProxyCallLog:
    """A call, and what is known of it for its log line."""

    request: web.Request
    started: float  # by the event loop's clock
    target: RequestTarget | None = None
    caller: Caller | None = None
    mode: AuthorizationMode | None = None
    signed_body: bytes | None = None  # read completely to verify its signature
    status: int | None = None  # None: the caller left first
    code: str = ""  # of the bridge's own error
    response_bytes: int = 0

    @property
    def upstream(self) -> str:
        return self.target.upstream.value if self.target else "none"

    def fields(self, now: float) -> dict[str, object]:
        """Return the fields of the log line, without query, headers and body; `now` is by the event loop's clock."""
        return {
            "method": self.request.method,
            "path": escape_for_display(self.target.path if self.target else self.request.raw_path.partition("?")[0]),
            "upstream": self.upstream,
            "status": self.status,
            "code": self.code,
            "forwarded_as": self.mode.value if self.mode else None,
            "bytes": self.response_bytes,
            "seconds": round(now - self.started, 3),
            "caller": self.caller.name if self.caller else None,
            "address": self.request.remote,
            "request_id": self.request[REQUEST_ID],
        }


class ProxyHandler:
    """Forwards calls with `forwarder`, for the callers and paths that `policy` allows."""

    def __init__(  # noqa: PLR0913 -- one parameter for each collaborator
        self,
        *,
        forwarder: Forwarder,
        authenticator: Authenticator,
        policy: ProxyPolicy,
        routes: Sequence[Route],
        summaries: LocalReportSummaries,
        metrics: Metrics,
        is_stopping: Callable[[], bool],
        limits: ConcurrencyLimits | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._forwarder = forwarder
        self._authenticator = authenticator
        self._policy = policy
        self._routes = routes
        self._summaries = summaries
        self._metrics = metrics
        self._is_stopping = is_stopping
        self._limits = limits or ConcurrencyLimits()
        self._idle_seconds = idle_seconds

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Respond with the upstream's response; raise BadGateway or GatewayTimeout if there is none."""
        loop = asyncio.get_running_loop()
        call = ProxyCallLog(request=request, started=loop.time())
        try:
            response = await self._forward(call)
            call.status = response.status
        except BridgeError as error:
            call.status, call.code = error.status, error.code
            raise
        finally:
            self._metrics.count_proxied(call.upstream, call.status)
            _log.info("request_proxied", **call.fields(loop.time()))
        return response

    async def _forward(self, call: ProxyCallLog) -> web.StreamResponse:
        request = call.request
        target = call.target = parse_target(request.raw_path)
        require_forwardable(request.method, request.raw_headers)
        self._forwarder.require_no_loop(request)
        identity = None if is_login(request.method, target) else await self._authenticator.identify(request)
        if self._is_stopping():
            raise Unavailable("The bridge is stopping, so the call was not forwarded. Send it again in a moment.")
        with self._limits.slot(target.upstream):
            if identity is not None:
                call.signed_body = await _verified_body(request, identity)
                call.caller = identity.caller
            mode = call.mode = self._authorization_mode(call, target)
            summary = await self._summaries.find(call.caller, request.method, target)
            if summary is not None:
                return json_response(summary)
            self._forwarder.require_endpoint(target)
            return await self._exchange(call, target, mode)

    def _authorization_mode(self, call: ProxyCallLog, target: RequestTarget) -> AuthorizationMode:
        if call.caller is None:
            return AuthorizationMode.UNCHANGED
        return authorization_mode(call.caller, call.request.method, target, policy=self._policy, routes=self._routes)

    async def _exchange(self, call: ProxyCallLog, target: RequestTarget, mode: AuthorizationMode) -> StreamedResponse:
        request = call.request
        writer: ResponseWriter | None = None
        idle_timeout = IdleTimeout(request, idle_seconds=self._idle_seconds)
        try:
            async with idle_timeout, AsyncExitStack() as stack:
                incoming = await self._forwarder.forward(
                    request,
                    target,
                    caller=call.caller,
                    mode=mode,
                    signed_body=call.signed_body,
                    idle_timeout=idle_timeout,
                    stack=stack,
                )
                writer = ResponseWriter(request, incoming, self._forwarder.response_headers(incoming, mode))
                call.response_bytes = await writer.write(idle_timeout)
        except TimeoutError:
            _raise_timeout(request, idle_timeout, writer)
        except (aiohttp.ClientPayloadError, ConnectionError):
            _abort(request)  # the caller must not take a part of the response for all of it
        return StreamedResponse(incoming.status, keeps_connection=writer.keeps_connection)


async def _verified_body(request: web.Request, identity: AuthResult) -> bytes | None:
    """Return a signed body after its signature was verified; None if the caller does not sign bodies."""
    if identity.body is UNSIGNED_BODY or not request.body_exists:
        return None
    if (request.content_length or 0) > MAX_SIGNED_BYTES:
        raise TooLarge(f"A signed call may have a body of {MAX_SIGNED_BYTES} bytes. Send a larger one with a token.")
    pieces = identity.feed_body(read_body(await content_of(request), max_bytes=MAX_SIGNED_BYTES))
    body = b"".join([piece async for piece in pieces])
    await identity.body.finish()
    return body


def _raise_timeout(request: web.Request, idle_timeout: IdleTimeout, writer: ResponseWriter | None) -> NoReturn:
    """Raise the error for an exchange that `idle_timeout` ended; abort the connection if no error can be sent."""
    if writer is not None or idle_timeout.end_cause is EndCause.CALLER_GONE:
        _abort(request)
    if idle_timeout.end_cause is EndCause.CALLER_STALLED:
        raise Unavailable("The call arrived too slowly, so it was not forwarded. Send it again.")
    raise GatewayTimeout("CodeArts received the call and did not respond in time. Check its effect, then try again.")


def _abort(request: web.Request) -> NoReturn:
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError
