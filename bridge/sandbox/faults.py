"""x"""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from random import Random

from aiohttp import web

PLACES = (
    "testnod.register",
    "testnod.finalize",
    "testnod.upload_failed",
    "s3.put",
    "codearts.build_info",
    "codearts.record_info",
    "codearts.upload",
    "codearts.summary",
    "codearts.full_stages",
    "check.run",
    "check.progress",
    "check.refresh",
    "iam.log_in",
    "iam.validate",
    "iam.projects",
)


class FaultKind(StrEnum):
    """What becomes of a call's answer."""

    PASS = "pass"  # noqa: S105  # a word of the control API
    STATUS = "status"  # this status, body and headers instead
    HANG = "hang"  # accepted and never answered
    CUT = "cut"  # the connection is dropped
    GARBLED = "garbled"  # the right status, and a body that nobody can read


_FIELDS = {"status", "body", "headers", "hang", "cut", "garbled", "pass", "after", "delay_seconds"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultResponse:
    """One answer of a script. `after`: the work is done first and only its answer is lost."""

    kind: FaultKind = FaultKind.PASS
    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False
    delay_seconds: float = 0.0

    @property
    def works(self) -> bool:
        """Whether the call's work is done at all."""
        return self.after or self.kind is FaultKind.PASS


Spec = Mapping[str, object] | str  # as the control API takes an answer: an object, or "pass"


def read_answer(spec: object) -> FaultResponse:
    """Read an answer as the control API takes it; ValueError says what is wrong with it."""
    if spec == FaultKind.PASS:
        return FaultResponse()
    if not isinstance(spec, Mapping):
        raise ValueError(f'An answer is an object or "pass", not {spec!r}.')  # noqa: TRY004  # it was read from JSON
    unknown = sorted(map(str, set(spec) - _FIELDS))
    if unknown:
        raise ValueError(f"An answer has no {', '.join(unknown)}. It has {', '.join(sorted(_FIELDS))}.")
    kinds = [kind for kind in FaultKind if spec.get(kind)]
    if len(kinds) > 1:
        raise ValueError(f"An answer is one of {', '.join(kinds)}, not all of them.")
    headers, delay_seconds, status = spec.get("headers", {}), spec.get("delay_seconds", 0), spec.get("status", 200)
    if not isinstance(headers, Mapping) or not isinstance(delay_seconds, int | float) or not isinstance(status, int):
        raise ValueError("headers is an object, delay_seconds a number, status a whole number.")  # noqa: TRY004  # ditto
    return FaultResponse(
        kind=kinds[0] if kinds else FaultKind.PASS,
        status=status,
        body=_read_body(spec.get("body", "")),
        headers={str(name): str(value) for name, value in headers.items()},
        after=bool(spec.get("after", False)),
        delay_seconds=float(delay_seconds),
    )


def _read_body(body: object) -> str:
    return body if isinstance(body, str) else json.dumps(body)


class Faults:
    """The scripts and chances in force. A pattern is a place, or several: "testnod.*", "*"."""

    def __init__(self) -> None:
        self._scripts: defaultdict[str, deque[FaultResponse]] = defaultdict(deque)
        self._chances: list[_Chance] = []

    def script(self, where: str, *answers: Spec) -> None:
        """Give the next calls at `where` these answers, one each, after what was scripted before."""
        _check(where)
        self._scripts[where].extend([read_answer(answer) for answer in answers])

    def sometimes(self, where: str, *, rate: float, answer: Spec, seed: int) -> None:
        """Give calls at `where` this answer with probability `rate`, drawn from `seed`."""
        _check(where)
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is a probability from 0 to 1, not {rate}.")
        self._chances.append(_Chance(where=where, rate=rate, answer=read_answer(answer), chance=Random(seed)))  # noqa: S311  # repeatable on purpose

    def clear(self) -> None:
        self._scripts.clear()
        self._chances.clear()

    def draw(self, place: str) -> FaultResponse:
        """Return what happens to this call: the script that names it most closely, then chance, then nothing."""
        for where in sorted(self._scripts, key=len, reverse=True):
            if fnmatchcase(place, where):
                answers = self._scripts[where]
                answer = answers.popleft()
                if not answers:
                    del self._scripts[where]
                return answer
        for chance in self._chances:
            if fnmatchcase(place, chance.where) and chance.chance.random() < chance.rate:
                return chance.answer
        return FaultResponse()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chance:
    where: str
    rate: float
    answer: FaultResponse
    chance: Random


def _check(where: str) -> None:
    if not any(fnmatchcase(place, where) for place in PLACES):
        raise ValueError(f"No call is at {where!r}. Calls are at {', '.join(PLACES)}.")


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
