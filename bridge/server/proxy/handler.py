"""Handle a proxied call: authenticate, authorize, forward, and stream the response."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final, NoReturn

import aiohttp
import structlog
from aiohttp import web

from bridge.client.passthrough import ProxyResponse
from bridge.domain.callers import AuthScheme, Caller
from bridge.domain.request_rate import Api, api_of
from bridge.domain.routing import Route
from bridge.domain.text_format import escape_for_display
from bridge.errors import BridgeError, GatewayTimeout, TooLarge, Unavailable
from bridge.protocols.http_response import MAX_RETRY_AFTER_DIGITS
from bridge.server.auth.authenticator import UNSIGNED_BODY, Authenticator, AuthResult
from bridge.server.http.requests import MAX_SMALL_SECONDS, content_of, network_of, read_body
from bridge.server.http.responses import REQUEST_ID, json_response
from bridge.server.proxy.authorization import (
    AuthorizationMode,
    ProxyPolicy,
    authorization_mode,
    is_bound,
    is_coverage_upload,
    is_login,
)
from bridge.server.proxy.coverage_form import CoverageForm, checked, coverage_form
from bridge.server.proxy.forwarder import Forwarder
from bridge.server.proxy.headers import require_forwardable
from bridge.server.proxy.places import CallPlaces, Place
from bridge.server.proxy.report_summary import LocalReportSummaries
from bridge.server.proxy.request_target import RequestTarget, parse_target
from bridge.server.proxy.streaming import (
    IDLE_SECONDS,
    MAX_BODY_SECONDS,
    TOO_SLOW,
    EndCause,
    IdleTimeout,
    ResponseWriter,
    StreamedResponse,
    request_body,
)
from bridge.telemetry.metrics import Metrics
from bridge.telemetry.repeated_lines import log_refusal
from bridge.values import dataclass

MAX_SIGNED_BYTES: Final = 1024 * 1024
"""A signed body is read completely before it is forwarded. Huawei's own limit is 12 MB; its requests are some KB."""

LOGIN_SECONDS: Final = 30.0
"""For the body of a login, which has some hundred bytes, or a token of up to 100,000 characters."""

RecordThrottled = Callable[[Api, float, float | None], Awaitable[None]]
"""Receives a call of the bridge's account that CodeArts throttled: its API, its age and its Retry-After in seconds."""

_log = structlog.get_logger(__name__)


@dataclass(kw_only=True, slots=True)
class ProxyCallLog:
    """A call, and what is known of it for its log line."""

    request: web.Request
    started: float  # by the event loop's clock
    target: RequestTarget | None = None
    caller: Caller | None = None
    mode: AuthorizationMode | None = None
    identity: AuthResult | None = None
    signed_body: bytes | None = None  # read completely to verify its signature
    max_body_bytes: int | None = None  # None: any size
    form: CoverageForm | None = None  # of a coverage upload that may be for jobs of the caller only
    status: int | None = None  # None: the caller left first
    code: str = ""  # of the bridge's own error
    response_bytes: int = 0

    @property
    def upstream(self) -> str:
        return self.target.upstream.value if self.target else "none"

    @property
    def is_coverage_upload(self) -> bool:
        return self.target is not None and is_coverage_upload(self.request.method, self.target)

    @property
    def streams_signed_body(self) -> bool:
        """Return whether the body is streamed although its signature, which the headers prove, may be a copy."""
        return (
            self.identity is not None
            and self.identity.body is not UNSIGNED_BODY
            and self.signed_body is None
            and self.request.body_exists
        )

    @property
    def is_refused_stranger(self) -> bool:
        """Return whether the caller is not verified, and got no success."""
        return (self.caller is None or self.caller.scheme is AuthScheme.OPEN) and not 200 <= (self.status or 0) < 400

    def fields(self, now: float) -> dict[str, Any]:
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
        record_throttled: RecordThrottled | None = None,
        places: CallPlaces | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._forwarder = forwarder
        self._authenticator = authenticator
        self._policy = policy
        self._routes = routes
        self._summaries = summaries
        self._metrics = metrics
        self._is_stopping = is_stopping
        self._record_throttled = record_throttled
        self._places = places or CallPlaces()
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
            if call.is_coverage_upload:
                self._metrics.count_coverage_upload(call.status)
            if call.is_refused_stranger:
                log_refusal(_log.info, "request_proxied", **call.fields(loop.time()))
            else:
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
        if identity is not None:
            call.identity = identity
            if not (call.is_coverage_upload and identity.body.signature_verified):  # that may be large: it is streamed
                call.signed_body = await self._verified_body(request, identity)
            call.caller = identity.caller
        mode = call.mode = self._authorization_mode(call, target)
        if call.is_coverage_upload and call.caller is not None and is_bound(call.caller, mode):
            if mode is AuthorizationMode.BRIDGE:
                call.max_body_bytes = self._max_coverage_bytes(request)
            call.form = coverage_form(request, target) if request.body_exists else None
            if call.form is not None and call.signed_body is not None:
                call.form.feed(call.signed_body)
                call.form.finish()
        async with self._place(call, target) as place:
            summary = await self._summaries.find(call.caller, request.method, target)
            if summary is not None:
                return json_response(summary)
            self._forwarder.require_endpoint(target)
            return await self._exchange(call, target, mode, place)

    @asynccontextmanager
    async def _place(self, call: ProxyCallLog, target: RequestTarget) -> AsyncIterator[Place | None]:
        """Hold a place for a call; yield it if the caller can lose it while it sends its body."""
        if call.streams_signed_body:
            async with self._places.signed_bodies.place(network_of(call.request.remote)) as place:
                yield place
        elif call.caller is None or call.caller.scheme is AuthScheme.OPEN:
            async with self._places.unverified(target.upstream).place(network_of(call.request.remote)) as place:
                yield place
        else:
            with self._places.verified(target.upstream):
                yield None

    async def _verified_body(self, request: web.Request, identity: AuthResult) -> bytes | None:
        """Return a signed body after its signature was verified; None if the caller does not sign bodies.

        The call has no place of a verified caller until then.
        """
        if identity.body is UNSIGNED_BODY or not request.body_exists:
            return None
        if (request.content_length or 0) > MAX_SIGNED_BYTES:
            raise TooLarge(
                f"A signed call may have a body of {MAX_SIGNED_BYTES} bytes. Send a larger one with a token."
            )
        places = self._places.signed_bodies if identity.body.signature_verified else self._places.unproven_bodies
        async with places.place(network_of(request.remote)) as place:
            pieces = read_body(await content_of(request), max_bytes=MAX_SIGNED_BYTES, max_seconds=MAX_SMALL_SECONDS)
            body = b"".join([piece async for piece in identity.feed_body(pieces)])
            place.keep()
            await identity.body.finish()
        return body

    def _authorization_mode(self, call: ProxyCallLog, target: RequestTarget) -> AuthorizationMode:
        if call.caller is None:
            return AuthorizationMode.UNCHANGED
        return authorization_mode(
            call.caller,
            call.request.method,
            target,
            policy=self._policy,
            routes=self._routes,
        )

    def _max_coverage_bytes(self, request: web.Request) -> int:
        """Return the largest body of a coverage upload; raise TooLarge if the request announces a larger one."""
        allowed, signed = self._policy.max_upload_bytes, self._forwarder.max_body_bytes
        limit = allowed if signed is None else min(allowed, signed)
        if (request.content_length or 0) > limit:
            raise _coverage_too_large(limit)
        return limit

    async def _exchange(
        self, call: ProxyCallLog, target: RequestTarget, mode: AuthorizationMode, place: Place | None
    ) -> StreamedResponse:
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
                    body=_stream(call, idle_timeout, place) if call.signed_body is None else call.signed_body,
                    idle_timeout=idle_timeout,
                    stack=stack,
                )
                await self._note_throttled(call, target, mode, incoming)
                if place is not None:
                    place.keep()
                writer = ResponseWriter(request, incoming, self._forwarder.response_headers(incoming, mode))
                call.response_bytes = await writer.write(idle_timeout)
        except TimeoutError:
            _raise_timeout(request, idle_timeout, writer)
        except (aiohttp.ClientPayloadError, ConnectionError):
            _abort(request)  # the caller must not take a part of the response for all of it
        return StreamedResponse(incoming.status, keeps_connection=writer.keeps_connection)

    async def _note_throttled(
        self, call: ProxyCallLog, target: RequestTarget, mode: AuthorizationMode, incoming: ProxyResponse
    ) -> None:
        """Have the bridge's own calls slow down if its account is throttled, because they share its limits."""
        api = api_of(target.path)
        if incoming.status != 429 or api is None or mode is not AuthorizationMode.BRIDGE:
            return
        header = next((value for name, value in incoming.headers if name.lower() == b"retry-after"), b"")
        seconds = float(header) if header.isdigit() and len(header) <= MAX_RETRY_AFTER_DIGITS else None
        if self._record_throttled is not None:
            ago = asyncio.get_running_loop().time() - call.started
            with suppress(BridgeError):  # the answer goes to the caller all the same
                await self._record_throttled(api, ago, seconds)


async def _stream(call: ProxyCallLog, idle_timeout: IdleTimeout, place: Place | None) -> AsyncIterator[bytes]:
    """Yield the body of a call; the caller keeps its place once all of it has arrived."""
    max_seconds = LOGIN_SECONDS if call.caller is None else MAX_BODY_SECONDS
    pieces = request_body(call.request, idle_timeout, max_seconds=max_seconds, max_bytes=call.max_body_bytes)
    if call.form is not None:
        pieces = checked(pieces, call.form, call.identity if call.streams_signed_body else None)
    try:
        async for piece in pieces:
            yield piece
    except TooLarge as error:
        raise _coverage_too_large(call.max_body_bytes or 0) from error
    if place is not None:
        place.keep()


def _coverage_too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The coverage upload is larger than {limit} bytes, so it was not forwarded. Send the files in several uploads."
    )


def _raise_timeout(request: web.Request, idle_timeout: IdleTimeout, writer: ResponseWriter | None) -> NoReturn:
    """Raise the error for an exchange that `idle_timeout` ended; abort the connection if no error can be sent."""
    if writer is not None or idle_timeout.end_cause is EndCause.CALLER_GONE:
        _abort(request)
    if idle_timeout.end_cause is EndCause.CALLER_STALLED:
        raise Unavailable(TOO_SLOW)
    raise GatewayTimeout("CodeArts received the call and did not respond in time. Check its effect, then try again.")


def _abort(request: web.Request) -> NoReturn:
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError
