"""Forward a call to its upstream: choose the headers, the body and the credentials."""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web

from bridge.client.credentials import Credentials, Failure, Headers
from bridge.client.passthrough import ProxyRequest, ProxyResponse, UpstreamConnection
from bridge.domain.callers import Caller
from bridge.domain.outcomes import Throttled
from bridge.domain.text_format import escape_for_display
from bridge.errors import BadGateway, NotFound, Unavailable
from bridge.protocols.aksk_signing import EMPTY_SHA256, UNSIGNED_PAYLOAD, RawRequest
from bridge.server.proxy.authorization import AuthorizationMode
from bridge.server.proxy.headers import Via, caller_headers, headers_for_bridge, headers_with_token, response_headers
from bridge.server.proxy.request_target import RequestTarget, Upstream
from bridge.server.proxy.streaming import IdleTimeout, WaitingFor
from bridge.telemetry.traces import forward_span

THROTTLED_SECONDS: Final = 5  # if CodeArts does not send Retry-After

_WITHOUT_BODY: Final = frozenset({"GET", "HEAD"})
"""With the bridge's credentials: what a server reads in their bodies is not defined (RFC 9110, section 9.3.1)."""

_ENDPOINT_SETTINGS: Final = {
    Upstream.BUILD: "codearts.endpoint",
    Upstream.CHECK: "codearts.check_endpoint",
    Upstream.IAM: "codearts.iam_endpoint",
}


class Forwarder:
    """Forwards calls over `connections`. `credentials` are those of the bridge at CodeArts."""

    def __init__(
        self,
        connections: Mapping[Upstream, UpstreamConnection],
        credentials: Credentials,
        is_token_of_bridge: Callable[[str], bool],
        via: Via | None = None,
    ) -> None:
        self._connections = connections
        self._credentials = credentials
        self._is_token_of_bridge = is_token_of_bridge
        self._via = via or Via()

    @property
    def max_body_bytes(self) -> int | None:
        """Return the largest body that CodeArts accepts with the bridge's credentials; None if no limit is known."""
        return self._credentials.max_body_bytes

    def require_no_loop(self, request: web.Request) -> None:
        """Raise BadGateway if this process has forwarded the call before."""
        self._via.require_no_loop(request.raw_headers)

    def require_endpoint(self, target: RequestTarget) -> None:
        """Raise NotFound if the service has no endpoint."""
        if target.upstream not in self._connections:
            raise NotFound(
                f"{escape_for_display(target.path)} is a path of CodeArts that this bridge has no endpoint for. "
                f"Call CodeArts directly, or have {_ENDPOINT_SETTINGS[target.upstream]} set."
            )

    async def forward(
        self,
        request: web.Request,
        target: RequestTarget,
        *,
        caller: Caller | None,
        mode: AuthorizationMode,
        body: bytes | AsyncIterator[bytes],
        idle_timeout: IdleTimeout,
        stack: AsyncExitStack,
    ) -> ProxyResponse:
        """Return the head of the response, with its connection open on `stack`; raise BadGateway if there is none.

        `caller` is None for a login. `body` was read already, or yields as it arrives. GET and HEAD have none with the
        bridge's credentials.
        """
        connection = self._connections[target.upstream]
        stream, digest = _stream(request, body)
        if mode is AuthorizationMode.BRIDGE and request.method in _WITHOUT_BODY:
            stream, digest = None, EMPTY_SHA256
        headers = [*self._request_headers(request, caller, mode), self._via.header]

        async def send(credential_headers: Headers) -> ProxyResponse:
            await stack.aclose()  # of a first try whose credentials were rejected
            encoded = [(name.encode("ascii"), value.encode("utf-8")) for name, value in credential_headers]
            outgoing = ProxyRequest(
                method=request.method, target=target.raw.encode("ascii"), headers=[*headers, *encoded], body=stream
            )
            # CodeArts gets the traceparent that the caller sent, or none, and never that of this span: a forwarded call
            # is the caller's, and CodeArts sends no spans to the collector of the bridge.
            path = connection.prefix + target.path
            span = stack.enter_context(forward_span(request.method, connection.origin, path))
            incoming = await stack.enter_async_context(connection.exchange(outgoing))
            span.set_status(incoming.status)
            idle_timeout.restart(WaitingFor.UPSTREAM)
            return incoming

        if mode is not AuthorizationMode.BRIDGE:
            return await send(())
        signed = RawRequest(
            method=request.method,
            path=connection.prefix + target.path,
            query=target.query,
            headers=(("Host", connection.host),),  # the only header that certainly arrives unchanged
        )
        result = await self._credentials.call(
            signed, send, _credential_fault, payload_sha256=digest, repeatable=stream is None
        )
        return _require_response(result)

    def response_headers(self, incoming: ProxyResponse, mode: AuthorizationMode) -> list[tuple[bytes, bytes]]:
        """Return the headers of a response for the caller."""
        to_bridge = mode is AuthorizationMode.BRIDGE
        return [*response_headers(incoming.headers, to_bridge=to_bridge), self._via.header]

    def _request_headers(
        self, request: web.Request, caller: Caller | None, mode: AuthorizationMode
    ) -> list[tuple[bytes, bytes]]:
        if mode is AuthorizationMode.BRIDGE:
            return headers_for_bridge(request.raw_headers, with_body=request.method not in _WITHOUT_BODY)
        if caller is not None and caller.iam_token is not None:
            return headers_with_token(request.raw_headers, caller.iam_token)
        return caller_headers(request.raw_headers, self._is_token_of_bridge)


def _stream(request: web.Request, body: bytes | AsyncIterator[bytes]) -> tuple[AsyncIterator[bytes] | None, str]:
    """Return the body, and the payload digest for the bridge's own signature."""
    if isinstance(body, bytes):
        return _one_piece(body), hashlib.sha256(body).hexdigest()
    return (body, UNSIGNED_PAYLOAD) if request.body_exists else (None, EMPTY_SHA256)


async def _one_piece(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def _credential_fault(incoming: ProxyResponse) -> str | None:
    """Return what a response shows of the bridge's credentials: a fault, "" if they work, None if it is unknown."""
    if incoming.status == 401:
        return "CodeArts answered a proxied call with 401"
    return "" if incoming.status < 500 else None


def _require_response(result: ProxyResponse | Failure) -> ProxyResponse:
    """Return the response to a call with the bridge's credentials; their faults are not the caller's."""
    if isinstance(result, Throttled):
        raise Unavailable(
            "CodeArts throttles the bridge. Send the call again in a moment.",
            retry_after_seconds=int(result.retry_after_seconds or THROTTLED_SECONDS),
        )
    if not isinstance(result, ProxyResponse) or result.status == 401:
        raise BadGateway(
            "CodeArts does not accept the bridge's own credentials at the moment. "
            "Use an IAM token of your own, or notify the operator."
        )
    return result
