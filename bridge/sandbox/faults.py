"""Faults of the stand-ins, scripted per call or random with a seed, and the log of received calls."""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from enum import StrEnum
from fnmatch import fnmatchcase
from random import Random

from aiohttp import web

from bridge.values import dataclass

CALL_NAMES = (
    "testnod.register",
    "testnod.finalize",
    "testnod.upload_failed",
    "s3.put",
    "codearts.build_info",
    "codearts.record_info",
    "codearts.record_details",
    "codearts.record_list",
    "codearts.job_list",
    "codearts.upload",
    "codearts.summary",
    "codearts.coverage_upload",
    "codearts.coverage_list",
    "codearts.coverage_download",
    "codearts.full_stages",
    "check.run",
    "check.progress",
    "check.refresh",
    "iam.log_in",
    "iam.validate",
    "iam.projects",
)


class FaultKind(StrEnum):
    """What happens to a call's response."""

    PASS = "pass"  # noqa: S105  # a value of the control API
    STATUS = "status"  # replaced by this status, body and headers
    HANG = "hang"  # the call never gets a response
    CUT = "cut"  # the connection is closed
    GARBLED = "garbled"  # the right status with an unreadable body


_FIELDS = {"status", "body", "headers", "hang", "cut", "garbled", "pass", "after", "delay_seconds"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultResponse:
    """One response of a script. If `after`, the call is executed first and only its response is replaced."""

    kind: FaultKind = FaultKind.PASS
    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False
    delay_seconds: float = 0.0

    @property
    def works(self) -> bool:
        """Return whether the call is executed at all."""
        return self.after or self.kind is FaultKind.PASS


Spec = Mapping[str, object] | str  # a response in the control API: an object, or "pass"


def read_answer(spec: object) -> FaultResponse:
    """Return a response as the control API specifies it; raise ValueError if it is invalid."""
    if spec == FaultKind.PASS:
        return FaultResponse()
    if not isinstance(spec, Mapping):
        raise ValueError(f'An answer must be an object or "pass", not {spec!r}.')  # noqa: TRY004  # from JSON
    unknown = sorted(map(str, set(spec) - _FIELDS))
    if unknown:
        raise ValueError(f"An answer has no {', '.join(unknown)}. Use {', '.join(sorted(_FIELDS))}.")
    kinds = [kind for kind in FaultKind if spec.get(kind)]
    if len(kinds) > 1:
        raise ValueError(f"An answer must be only one of {', '.join(kinds)}.")
    headers, delay_seconds, status = spec.get("headers", {}), spec.get("delay_seconds", 0), spec.get("status", 200)
    if not isinstance(headers, Mapping) or not isinstance(delay_seconds, int | float) or not isinstance(status, int):
        raise ValueError("headers must be an object, delay_seconds a number, status a whole number.")  # noqa: TRY004  # from JSON
    return FaultResponse(
        kind=kinds[0] if kinds else FaultKind.PASS,
        status=status,
        body=_body_text(spec.get("body", "")),
        headers={str(name): str(value) for name, value in headers.items()},
        after=bool(spec.get("after", False)),
        delay_seconds=float(delay_seconds),
    )


def _body_text(body: object) -> str:
    return body if isinstance(body, str) else json.dumps(body)


class Faults:
    """The scripts and random faults in force. A pattern is a call name or a wildcard: "testnod.*", "*"."""

    def __init__(self) -> None:
        self._scripts: defaultdict[str, deque[FaultResponse]] = defaultdict(deque)
        self._random_faults: list[_RandomFault] = []

    def script(self, where: str, *answers: Spec) -> None:
        """Queue responses for the next calls at `where`, one each."""
        _check(where)
        self._scripts[where].extend([read_answer(answer) for answer in answers])

    def at_random(self, where: str, *, rate: float, answer: Spec, seed: int) -> None:
        """Replace responses of calls at `where` with probability `rate`, drawn from `seed`."""
        _check(where)
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must be a probability from 0 to 1, not {rate}.")
        random = Random(seed)  # noqa: S311  # must be repeatable
        self._random_faults.append(_RandomFault(where=where, rate=rate, answer=read_answer(answer), random=random))

    def clear(self) -> None:
        self._scripts.clear()
        self._random_faults.clear()

    def draw(self, call_name: str) -> FaultResponse:
        """Return the fault of a call: from the script with the closest pattern, else random, else none."""
        for where in sorted(self._scripts, key=len, reverse=True):
            if fnmatchcase(call_name, where):
                answers = self._scripts[where]
                answer = answers.popleft()
                if not answers:
                    del self._scripts[where]
                return answer
        for random_fault in self._random_faults:
            if fnmatchcase(call_name, random_fault.where) and random_fault.random.random() < random_fault.rate:
                return random_fault.answer
        return FaultResponse()


@dataclass(frozen=True, kw_only=True, slots=True)
class _RandomFault:
    where: str
    rate: float
    answer: FaultResponse
    random: Random


def _check(where: str) -> None:
    if not any(fnmatchcase(call_name, where) for call_name in CALL_NAMES):
        raise ValueError(f"No call has the name {where!r}. Use one of {', '.join(CALL_NAMES)}.")


MAX_CALLS = 10_000  # all calls of a test; a few megabytes
MAX_HANG_SECONDS = 600.0  # no client waits longer; bounds the number of hung calls
SECRET_HEADERS = frozenset({"project-token", "x-auth-token", "x-subject-token", "x-security-token", "authorization"})
CREATED = {"testnod.register": 201, "iam.log_in": 201}  # the status of a call's success, if it is not 200
_GARBLED = b'{"status": \xff\xfe<html'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(kw_only=True, slots=True)
class RecordedCall:
    """One call; `status` is None until it gets a response, and stays so if it is cut or hangs."""

    where: str
    at: int
    method: str
    path: str
    headers: Mapping[str, str]
    status: int | None = None


class CallLog:
    """The latest calls, oldest first, without tokens."""

    def __init__(self) -> None:
        self._calls: deque[RecordedCall] = deque(maxlen=MAX_CALLS)
        self._added = asyncio.Event()

    def add(self, call: RecordedCall) -> None:
        self._calls.append(call)
        self._added.set()
        self._added = asyncio.Event()

    async def wait_for(self, where: str) -> None:
        """Wait until there is a call with this name or pattern."""
        while not self.at(where):
            await self._added.wait()

    def at(self, where: str = "*") -> list[RecordedCall]:
        """Return the calls with this name or pattern."""
        return [call for call in self._calls if fnmatchcase(call.where, where)]


@dataclass(frozen=True, kw_only=True, slots=True)
class CallListener:
    """Wraps handlers: logs the call, draws a fault, and executes the call unless the fault prevents it."""

    calls: CallLog
    faults: Faults
    micros: Callable[[], int]
    closing: asyncio.Event

    def observe(self, where: str, handler: Handler) -> Handler:
        """Return `handler` wrapped under the name `where`."""

        async def observed(request: web.Request) -> web.StreamResponse:
            call = RecordedCall(
                where=where,
                at=self.micros(),
                method=request.method,
                path=request.rel_url.raw_path,
                headers=_redacted(request.headers),
            )
            self.calls.add(call)
            answer = self.faults.draw(where)
            if answer.delay_seconds:
                await asyncio.sleep(answer.delay_seconds)
            try:
                response = await handler(request) if answer.works else None
            except web.HTTPException as error:
                call.status = error.status
                raise
            except ConnectionResetError:  # the caller was killed while it sent: a traceback would look like a bug
                return web.Response()  # not sent: the connection is closed
            replaced = await self._respond(answer, request, response, CREATED.get(where, 200))
            call.status = None if answer.kind in (FaultKind.CUT, FaultKind.HANG) else replaced.status
            return replaced

        return observed

    async def _respond(
        self, answer: FaultResponse, request: web.Request, response: web.StreamResponse | None, success: int
    ) -> web.StreamResponse:
        if answer.kind is FaultKind.PASS and response is not None:
            return response
        if answer.kind is FaultKind.STATUS:
            return web.Response(status=answer.status, body=answer.body.encode(), headers=_with_content_type(answer))
        if answer.kind is FaultKind.GARBLED:
            status = response.status if response is not None else success
            return web.Response(status=status, body=_GARBLED, content_type="application/json")
        if answer.kind is FaultKind.HANG:
            await self._hang()
        if request.transport is not None:
            request.transport.abort()
        return web.Response()  # not sent: the connection is closed

    async def _hang(self) -> None:
        try:
            async with asyncio.timeout(MAX_HANG_SECONDS):
                await self.closing.wait()
        except TimeoutError:
            return


def _redacted(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: "present" if name.lower() in SECRET_HEADERS else value for name, value in headers.items()}


def _with_content_type(answer: FaultResponse) -> dict[str, str]:
    guessed = "application/json" if answer.body.startswith(("{", "[")) else "text/plain"
    return {"Content-Type": guessed, **answer.headers}
