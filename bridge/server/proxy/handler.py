"""One call passed on: who asks, whether they may, with whose rights, and the answer as it comes.

It knows neither what a path means nor how bytes move: target, rights, asking and streaming each stand beside it.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import aiohttp
import structlog
from aiohttp import hdrs, web

from bridge.domain.callers import Caller
from bridge.domain.routing import Route
from bridge.errors import BridgeError, GatewayTimeout, TooLarge, Unavailable
from bridge.server.auth.authenticator import Authenticator
from bridge.server.auth.identity import UNSIGNED_BODY, AuthResult
from bridge.server.http.body import read_body
from bridge.server.http.listener import meet_expectation
from bridge.server.http.responses import REQUEST_ID, json_answer, legible
from bridge.server.proxy.authorization import AuthorizationMode, ProxyPolicy, authorization_mode_of, is_login
from bridge.server.proxy.forwarder import Forwarder
from bridge.server.proxy.headers import refuse_unpassable
from bridge.server.proxy.report_summary import LocalReportSummaries
from bridge.server.proxy.request_target import RequestTarget, Upstream, read_target
from bridge.server.proxy.streaming import IDLE_SECONDS, EndCause, IdleTimeout, ResponseWriter, StreamedResponse

# One call under way: what is known of it so far, for those who carry it and for the line in the log.
#
# It decides nothing.


@dataclass(kw_only=True, slots=True)
class ProxyCallLog:
    """A request that came, and what has been found out about it."""

    request: web.Request
    began: float  # on the event loop's clock
    target: RequestTarget | None = None
    caller: Caller | None = None
    rights: AuthorizationMode | None = None
    signed_body: bytes | None = None  # read whole, because its signature had to be proven
    status: int | None = None  # None: the caller went away first
    code: str = ""  # of our own answer
    passed_bytes: int = 0

    @property
    def upstream(self) -> str:
        """The service that it is for, as far as that is known."""
        return self.target.upstream.value if self.target else "none"

    def line(self, now: float) -> dict[str, object]:
        """Return what the log says of it at `now` on the event loop's clock: no query, no header, no body."""
        return {
            "method": self.request.method,
            "path": legible(self.target.path if self.target else self.request.raw_path.partition("?")[0]),
            "upstream": self.upstream,
            "status": self.status,
            "code": self.code,
            "rights": self.rights.value if self.rights else None,
            "bytes": self.passed_bytes,
            "seconds": round(now - self.began, 3),
            "caller": self.caller.name if self.caller else None,
            "address": self.request.remote,
            "request_id": self.request[REQUEST_ID],
        }


# How many calls to each upstream may be under way at once, whatever becomes of the settings meanwhile.
#
# It knows no call.


PLACES: Final = 32
"""Calls at once to each upstream. More would not be answered sooner by CodeArts (about 200 a second for an API), and
each that streams takes turns from uploads; whoever comes beyond them is sent away for a second."""

FULL_RETRY_SECONDS: Final = 1


class ConcurrencyLimits:
    """PLACES for each upstream."""

    def __init__(self) -> None:
        self._taken = dict.fromkeys(Upstream, 0)

    @contextmanager
    def taken(self, upstream: Upstream) -> Iterator[None]:
        """Hold a place for a block; raise Unavailable where none is free."""
        if self._taken[upstream] >= PLACES:
            raise Unavailable(
                f"{PLACES} calls to CodeArts are under way through this bridge already. Send it again in a moment.",
                retry_after_seconds=FULL_RETRY_SECONDS,
            )
        self._taken[upstream] += 1
        try:
            yield
        finally:
            self._taken[upstream] -= 1


MAX_SIGNED_BYTES: Final = 1024 * 1024
"""A signed body is read whole before anything of it goes on; Huawei's own limit is 12 MB, its requests are some KB."""

_log = structlog.get_logger(__name__)


class ProxyEvents(Protocol):
    """Where calls are counted, refused ones among them; no status: the caller went away first."""

    def proxied(self, upstream: str, status: int | None) -> None: ...


class ProxyHandler:
    """Passes calls on to the upstreams that `asking` knows, for callers and paths that may."""

    def __init__(  # noqa: PLR0913 -- everything it meets, each once
        self,
        *,
        asking: Forwarder,
        callers: Authenticator,
        allowance: ProxyPolicy,
        routes: Sequence[Route],
        summaries: LocalReportSummaries,
        observe: ProxyEvents,
        is_stopping: Callable[[], bool],
        places: ConcurrencyLimits | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._asking = asking
        self._callers = callers
        self._allowance = allowance
        self._routes = routes
        self._summaries = summaries
        self._observe = observe
        self._is_stopping = is_stopping
        self._idle_seconds = idle_seconds
        self._places = places or ConcurrencyLimits()

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Answer with what the upstream answers; raise BadGateway or GatewayTimeout where it does not."""
        loop = asyncio.get_running_loop()
        call = ProxyCallLog(request=request, began=loop.time())
        try:
            answered = await self._pass_on(call)
            call.status = answered.status
        except BridgeError as error:
            call.status, call.code = error.status, error.code
            raise
        finally:
            self._observe.proxied(call.upstream, call.status)
            _log.info("proxied", **call.line(loop.time()))
        return answered

    async def _pass_on(self, call: ProxyCallLog) -> web.StreamResponse:
        request = call.request
        target = call.target = read_target(request.raw_path)
        refuse_unpassable(request.method, request.raw_headers)
        self._asking.refuse_loop(request)
        identity = None if is_login(request.method, target) else await self._callers.identify(request)
        if self._is_stopping():
            raise Unavailable("The bridge is stopping, so the call was not passed on. Send it again in a moment.")
        with self._places.taken(target.upstream):
            if identity is not None:
                call.signed_body = await _proven_body(request, identity)
                call.caller = identity.caller
            rights = call.rights = self._rights(call, target)
            own = await self._summaries.answer(call.caller, request.method, target)
            if own is not None:
                return json_answer(own)
            self._asking.require_way(target)
            return await self._exchange(call, target, rights)

    def _rights(self, call: ProxyCallLog, target: RequestTarget) -> AuthorizationMode:
        if call.caller is None:
            return AuthorizationMode.AS_IT_CAME
        return authorization_mode_of(
            call.caller, call.request.method, target, allowance=self._allowance, routes=self._routes
        )

    async def _exchange(self, call: ProxyCallLog, target: RequestTarget, rights: AuthorizationMode) -> StreamedResponse:
        request = call.request
        answer: ResponseWriter | None = None
        watch = IdleTimeout(request, idle_seconds=self._idle_seconds)
        try:
            async with watch, AsyncExitStack() as stack:
                incoming = await self._asking.ask(
                    request,
                    target,
                    caller=call.caller,
                    rights=rights,
                    signed_body=call.signed_body,
                    watch=watch,
                    stack=stack,
                )
                answer = ResponseWriter(request, incoming, self._asking.answer_headers(incoming, rights))
                call.passed_bytes = await answer.write(watch)
        except TimeoutError:
            _end(request, watch, answer)
        except (aiohttp.ClientPayloadError, ConnectionError):
            _cut(request)  # the caller must not take the part for the whole
        return StreamedResponse(incoming.status, keeps_connection=answer.keeps_connection)


async def defer_100_continue(request: web.Request) -> web.StreamResponse | None:
    """Let the body wait until somebody is there to take it: `request_body` then says 100 (Continue)."""
    return None if request.headers[hdrs.EXPECT].lower() == "100-continue" else await meet_expectation(request)


async def _proven_body(request: web.Request, identity: AuthResult) -> bytes | None:
    """Return the body of a caller that signed it, once it proved to be theirs; None where nothing is to be proven."""
    if identity.body is UNSIGNED_BODY or not request.body_exists:
        return None
    if (request.content_length or 0) > MAX_SIGNED_BYTES:
        raise TooLarge(f"A signed call may have a body of {MAX_SIGNED_BYTES} bytes. Send a larger one with a token.")
    if hdrs.EXPECT in request.headers:
        await meet_expectation(request)
    pieces = identity.heard(read_body(request.content, max_bytes=MAX_SIGNED_BYTES))
    body = b"".join([piece async for piece in pieces])
    identity.body.finish()
    return body


def _end(request: web.Request, watch: IdleTimeout, answer: ResponseWriter | None) -> NoReturn:
    """Answer an exchange that `watch` has ended, where there is still somebody to answer and something to say."""
    if answer is not None or watch.ended is EndCause.CALLER_GONE:
        _cut(request)
    if watch.ended is EndCause.CALLER_STALLED:
        raise Unavailable("The call came in too slowly, so it was not passed on. Send it again.")
    raise GatewayTimeout("CodeArts took the call and did not answer in time. Look whether it was done, then try again.")


def _cut(request: web.Request) -> NoReturn:
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError
