"""Asks an upstream in the name that a call goes on with: its headers, its body, and the proof of who is asking.

It knows neither who may ask what nor what becomes of the answer.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final

from aiohttp import web

from bridge.client.credentials import Credentials, Failure, Headers
from bridge.client.passthrough import ProxyRequest, ProxyResponse, UpstreamConnection
from bridge.domain.callers import Caller
from bridge.domain.outcomes import Throttled
from bridge.errors import BadGateway, NotFound, Unavailable
from bridge.protocols.aksk_signing import EMPTY_SHA256, UNSIGNED_PAYLOAD, RawRequest
from bridge.server.http.responses import escape_for_display
from bridge.server.proxy import headers as passing
from bridge.server.proxy.authorization import AuthorizationMode
from bridge.server.proxy.request_target import RequestTarget, Upstream
from bridge.server.proxy.streaming import IdleTimeout, WaitingFor, request_body

SLOW_DOWN_SECONDS: Final = 5  # where CodeArts does not say for how long

_SETTING: Final = {
    Upstream.BUILD: "codearts.endpoint",
    Upstream.CHECK: "codearts.check_endpoint",
    Upstream.IAM: "codearts.iam_endpoint",
}


class Forwarder:
    """The ways to all upstreams that have one; `account` is who the bridge is there."""

    def __init__(
        self,
        passages: Mapping[Upstream, UpstreamConnection],
        account: Credentials,
        is_token_of_bridge: Callable[[str], bool],
        via: passing.Via | None = None,
    ) -> None:
        self._passages = passages
        self._account = account
        self._is_token_of_bridge = is_token_of_bridge
        self._via = via or passing.Via()

    def refuse_loop(self, request: web.Request) -> None:
        """Raise BadGateway for a call that this process has passed on before."""
        self._via.refuse_loop(request.raw_headers)

    def require_way(self, target: RequestTarget) -> None:
        """Raise NotFound for a service without an endpoint."""
        if target.upstream not in self._passages:
            raise NotFound(
                f"{escape_for_display(target.path)} is a path of CodeArts that this bridge has no endpoint for. "
                f"Ask CodeArts itself, or have {_SETTING[target.upstream]} set."
            )

    async def ask(
        self,
        request: web.Request,
        target: RequestTarget,
        *,
        caller: Caller | None,
        rights: AuthorizationMode,
        signed_body: bytes | None,
        watch: IdleTimeout,
        stack: AsyncExitStack,
    ) -> ProxyResponse:
        """Return the upstream's answer, its exchange open on `stack`; raise BadGateway where there is none.

        `caller` None is somebody who has no token yet.
        """
        passage = self._passages[target.upstream]
        body, digest = _body(request, signed_body, watch)
        own = [*self._own_headers(request, caller, rights), self._via.line]

        async def send(proof: Headers) -> ProxyResponse:
            await stack.aclose()  # of a first try, whose credentials were refused
            proofs = [(name.encode("ascii"), value.encode("utf-8")) for name, value in proof]
            outgoing = ProxyRequest(
                method=request.method, target=target.raw.encode("ascii"), headers=[*own, *proofs], body=body
            )
            incoming = await stack.enter_async_context(passage.exchange(outgoing))
            watch.wait_for(WaitingFor.UPSTREAM)
            return incoming

        if rights is not AuthorizationMode.OURS:
            return await send(())
        path = passage.prefix + target.path
        host = (("Host", passage.host),)  # all that arrives as it leaves
        signed = RawRequest(method=request.method, path=path, query=target.query, headers=host)
        result = await self._account.call(signed, send, _verdict, payload_sha256=digest, repeatable=body is None)
        return _ours(result)

    def answer_headers(self, incoming: ProxyResponse, rights: AuthorizationMode) -> list[tuple[bytes, bytes]]:
        """Return the headers of an answer as the caller gets them."""
        return [*passing.of_answer(incoming.headers, to_our_account=rights is AuthorizationMode.OURS), self._via.line]

    def _own_headers(
        self, request: web.Request, caller: Caller | None, rights: AuthorizationMode
    ) -> list[tuple[bytes, bytes]]:
        if rights is AuthorizationMode.OURS:
            return passing.without_proofs(request.raw_headers)
        if caller is not None and caller.iam_token is not None:
            return passing.with_token(request.raw_headers, caller.iam_token)
        return passing.as_it_came(request.raw_headers, self._is_token_of_bridge)


def _body(
    request: web.Request, signed_body: bytes | None, watch: IdleTimeout
) -> tuple[AsyncIterator[bytes] | None, str]:
    """Return the body, and the digest that stands for it in a signature of ours."""
    if signed_body is not None:
        return _one_piece(signed_body), hashlib.sha256(signed_body).hexdigest()
    if not request.body_exists:
        return None, EMPTY_SHA256
    return request_body(request, watch), UNSIGNED_PAYLOAD


async def _one_piece(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def _verdict(incoming: ProxyResponse) -> str | None:
    """Say what an answer tells of the bridge's own credentials."""
    if incoming.status == 401:
        return "CodeArts answered a proxied call with 401"
    return "" if incoming.status < 500 else None


def _ours(result: ProxyResponse | Failure) -> ProxyResponse:
    """Return the answer to a call in the bridge's name; the caller has no part in what is wrong with that."""
    if isinstance(result, Throttled):
        raise Unavailable(
            "CodeArts asks the bridge to slow down. Send it again in a moment.",
            retry_after_seconds=int(result.retry_after_seconds or SLOW_DOWN_SECONDS),
        )
    if not isinstance(result, ProxyResponse) or result.status == 401:
        raise BadGateway(
            "The bridge is not let in at CodeArts with its own credentials just now. "
            "Use an IAM token of your own, or tell its operator."
        )
    return result
