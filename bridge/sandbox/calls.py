"""The log of the calls that the stand-ins received, and the one place where faults reach them.

It must not know what any call does. No token is kept.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aiohttp import web

from bridge.sandbox.faults import FaultKind, FaultResponse, Faults

KEPT_CALLS = 10_000  # enough for a test's whole traffic, a few megabytes at most
LONGEST_HANG_SECONDS = 600.0  # no client waits longer; so a run of chance does not gather hung calls for ever
SECRET_HEADERS = frozenset({"project-token", "x-auth-token", "x-subject-token", "x-security-token", "authorization"})
_GARBLED = b'{"status": \xff\xfe<html'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(kw_only=True, slots=True)
class RecordedCall:
    """One call: `status` is None until it is answered, and stays so when it is cut or hangs."""

    where: str
    at: int
    method: str
    path: str
    headers: Mapping[str, str]
    status: int | None = None


class CallLog:
    """The last calls, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[RecordedCall] = deque(maxlen=KEPT_CALLS)
        self._noted = asyncio.Event()

    def note(self, call: RecordedCall) -> None:
        self._kept.append(call)
        self._noted.set()
        self._noted = asyncio.Event()

    async def came(self, where: str) -> None:
        """Wait until there is a call at a place or pattern of places."""
        while not self.at(where):
            await self._noted.wait()

    def at(self, where: str = "*") -> list[RecordedCall]:
        """Return the calls at a place or pattern of places."""
        return [call for call in self._kept if fnmatchcase(call.where, where)]


@dataclass(frozen=True, kw_only=True, slots=True)
class CallListener:
    """Stands before every handler: notes the call, plays the fault that was drawn, lets the work be done or not."""

    calls: CallLog
    faults: Faults
    micros: Callable[[], int]
    closing: asyncio.Event

    def over(self, where: str, handler: Handler) -> Handler:
        """Return `handler` observed as the place `where`."""

        async def observed(request: web.Request) -> web.StreamResponse:
            call = RecordedCall(
                where=where,
                at=self.micros(),
                method=request.method,
                path=request.rel_url.raw_path,
                headers=_shown(request.headers),
            )
            self.calls.note(call)
            answer = self.faults.draw(where)
            if answer.delay_seconds:
                await asyncio.sleep(answer.delay_seconds)
            try:
                response = await handler(request) if answer.works else None
            except web.HTTPException as error:
                call.status = error.status
                raise
            replaced = await self._play(answer, request, response)
            call.status = None if answer.kind in (FaultKind.CUT, FaultKind.HANG) else replaced.status
            return replaced

        return observed

    async def _play(
        self, answer: FaultResponse, request: web.Request, response: web.StreamResponse | None
    ) -> web.StreamResponse:
        if answer.kind is FaultKind.PASS and response is not None:
            return response
        if answer.kind is FaultKind.STATUS:
            return web.Response(status=answer.status, body=answer.body.encode(), headers=_typed(answer))
        if answer.kind is FaultKind.GARBLED:
            status = response.status if response is not None else 200
            return web.Response(status=status, body=_GARBLED, content_type="application/json")
        if answer.kind is FaultKind.HANG:
            await self._hang()
        if request.transport is not None:
            request.transport.abort()
        return web.Response()  # written to nobody

    async def _hang(self) -> None:
        try:
            async with asyncio.timeout(LONGEST_HANG_SECONDS):
                await self.closing.wait()
        except TimeoutError:
            return


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: "present" if name.lower() in SECRET_HEADERS else value for name, value in headers.items()}


def _typed(answer: FaultResponse) -> dict[str, str]:
    guessed = "application/json" if answer.body.startswith(("{", "[")) else "text/plain"
    return {"Content-Type": guessed, **answer.headers}
