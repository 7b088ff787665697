"""One call passed on: who asks, whether they may, with whose rights, and the answer as it comes.

It knows neither what a path means nor how bytes move: target, rights, asking and streaming each stand beside it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, NoReturn, Protocol

import aiohttp
import structlog
from aiohttp import hdrs, web

from bridge.domain.routing import Route
from bridge.errors import BridgeError, GatewayTimeout, TooLarge, Unavailable
from bridge.server.callers.callers import Callers
from bridge.server.callers.identity import NOTHING_TO_PROVE, Identity
from bridge.server.http.answers import json_answer
from bridge.server.http.body import read_body
from bridge.server.http.connection import meet_expectation
from bridge.server.proxy.asking import Asking
from bridge.server.proxy.call import Call
from bridge.server.proxy.headers import refuse_unpassable
from bridge.server.proxy.overheard import Overheard
from bridge.server.proxy.places import Places
from bridge.server.proxy.rights import Allowance, Rights, is_login, rights_of
from bridge.server.proxy.streaming import Answer, PassedOn
from bridge.server.proxy.summary import OwnSummaries
from bridge.server.proxy.target import Target, read_target
from bridge.server.proxy.watch import IDLE_SECONDS, Ended, Watch

MAX_SIGNED_BYTES: Final = 1024 * 1024
"""A signed body is read whole before anything of it goes on; Huawei's own limit is 12 MB, its requests are some KB."""

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Where calls are counted, refused ones among them; no status: the caller went away first."""

    def proxied(self, upstream: str, status: int | None) -> None: ...


class Proxy:
    """Passes calls on to the upstreams that `asking` knows, for callers and paths that may."""

    def __init__(  # noqa: PLR0913 -- everything it meets, each once
        self,
        *,
        asking: Asking,
        callers: Callers,
        allowance: Allowance,
        routes: Sequence[Route],
        overheard: Overheard,
        summaries: OwnSummaries,
        observe: Observer,
        is_stopping: Callable[[], bool],
        places: Places | None = None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._asking = asking
        self._callers = callers
        self._allowance = allowance
        self._routes = routes
        self._overheard = overheard
        self._summaries = summaries
        self._observe = observe
        self._is_stopping = is_stopping
        self._idle_seconds = idle_seconds
        self._places = places or Places()

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Answer with what the upstream answers; raise BadGateway or GatewayTimeout where it does not."""
        loop = asyncio.get_running_loop()
        call = Call(request=request, began=loop.time())
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

    async def _pass_on(self, call: Call) -> web.StreamResponse:
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

    def _rights(self, call: Call, target: Target) -> Rights:
        if call.caller is None:
            return Rights.AS_IT_CAME
        return rights_of(call.caller, call.request.method, target, allowance=self._allowance, routes=self._routes)

    async def _exchange(self, call: Call, target: Target, rights: Rights) -> PassedOn:
        request = call.request
        answer: Answer | None = None
        watch = Watch(request, idle_seconds=self._idle_seconds)
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
                answer = Answer(request, incoming, self._asking.answer_headers(incoming, rights))
                heard = self._overheard.listen(request.method, target, incoming)
                call.passed_bytes = await answer.write(watch, heard.feed)
        except TimeoutError:
            _end(request, watch, answer)
        except (aiohttp.ClientPayloadError, ConnectionError):
            _cut(request)  # the caller must not take the part for the whole
        await self._overheard.note(heard)
        return PassedOn(incoming.status, keeps_connection=answer.keeps_connection)


async def expected(request: web.Request) -> web.StreamResponse | None:
    """Let the body wait until somebody is there to take it: `request_body` then says 100 (Continue)."""
    return None if request.headers[hdrs.EXPECT].lower() == "100-continue" else await meet_expectation(request)


async def _proven_body(request: web.Request, identity: Identity) -> bytes | None:
    """Return the body of a caller that signed it, once it proved to be theirs; None where nothing is to be proven."""
    if identity.body is NOTHING_TO_PROVE or not request.body_exists:
        return None
    if (request.content_length or 0) > MAX_SIGNED_BYTES:
        raise TooLarge(f"A signed call may have a body of {MAX_SIGNED_BYTES} bytes. Send a larger one with a token.")
    if hdrs.EXPECT in request.headers:
        await meet_expectation(request)
    pieces = identity.heard(read_body(request.content, max_bytes=MAX_SIGNED_BYTES))
    body = b"".join([piece async for piece in pieces])
    identity.body.finish()
    return body


def _end(request: web.Request, watch: Watch, answer: Answer | None) -> NoReturn:
    """Answer an exchange that `watch` has ended, where there is still somebody to answer and something to say."""
    if answer is not None or watch.ended is Ended.CALLER_GONE:
        _cut(request)
    if watch.ended is Ended.CALLER_STALLED:
        raise Unavailable("The call came in too slowly, so it was not passed on. Send it again.")
    raise GatewayTimeout("CodeArts took the call and did not answer in time. Look whether it was done, then try again.")


def _cut(request: web.Request) -> NoReturn:
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError
