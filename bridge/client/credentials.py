"""Who the bridge is at CodeArts: nobody, a token, a user with a password, or an access key.

It knows no call of CodeArts: it hands out headers, learns what became of them, and keeps bad credentials from being
tried until Huawei locks them (a key after five failures for five minutes, a user for a quarter of an hour).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from bridge.client.iam import Iam
from bridge.client.session import Clock
from bridge.domain.outcomes import CredentialsRejected, NotSent, OutcomeUnknown, Throttled
from bridge.protocols import aksk_signing
from bridge.protocols.iam import AUTH_HEADER, Login, Token, is_project_id

HOLD_US = 5 * 60 * 1_000_000
"""Between two tries of credentials that were refused: three in a quarter of an hour, below the five that lock."""

TAKEN_US = 30 * 1_000_000
"""Between two renewals for refused tokens while CodeArts takes the new ones: it may refuse one path for ever."""

UNPROVEN_US = 1_000_000
"""After a try that nobody answered, callers that waited for it share its outcome instead of waiting once more each."""

MARGIN_US = 10 * 60 * 1_000_000
"""A token is renewed this long before its end, or for its last tenth where it lives shorter."""

ENDED = "iam: the token that it hands out has ended already. Compare its clock with this machine's."

PROJECT_HEADER = "X-Project-Id"

MAX_SIGNED_BYTES = 12_000_000
"""Huawei refuses larger signed bodies (facts: AK/SK), and says 12 MB, whichever they are: the smaller ones."""

Headers = tuple[tuple[str, str], ...]
Failure = CredentialsRejected | Throttled | NotSent | OutcomeUnknown
"""Why there are no headers: refused or held credentials, or an IAM that does not answer."""

Result = TypeVar("Result")
Send = Callable[[Headers], Awaitable[Result]]
Judge = Callable[[Result], str | None]
"""What CodeArts says of the credentials: why it refuses them, "" when it takes them, None when nothing can be told."""


class Credentials(Protocol):
    """One of the ways of `codearts.auth`."""

    @property
    def max_body_bytes(self) -> int | None:
        """The largest body that a call may have; None: nothing is known of a limit."""

    async def call(
        self,
        request: aksk_signing.RawRequest,
        send: Send[Result],
        judge: Judge[Result],
        *,
        payload_sha256: str = aksk_signing.EMPTY_SHA256,
        repeatable: bool = True,
    ) -> Result | Failure:
        """Make `request` with the bridge's rights: `send` it with further headers, once more where those were renewed.

        `request` names the headers that arrive as they leave, Host among them; `payload_sha256` is the body's digest
        in hex or UNSIGNED_PAYLOAD; a request that is not `repeatable` is sent once.
        """
        ...


class StaticHeaders:
    """`none` and `token`: the same headers with every call, or no header at all; nobody renews them."""

    max_body_bytes = None

    def __init__(self, headers: Headers = ()) -> None:
        self._headers = headers

    async def call(
        self,
        request: aksk_signing.RawRequest,  # noqa: ARG002 -- nothing is signed
        send: Send[Result],
        judge: Judge[Result],  # noqa: ARG002 -- nothing can be renewed
        *,
        payload_sha256: str = aksk_signing.EMPTY_SHA256,  # noqa: ARG002
        repeatable: bool = True,  # noqa: ARG002
    ) -> Result | Failure:
        """Send the request with the headers."""
        return await send(self._headers)


class PasswordLogin:
    """`password`: a token of IAM, shared by all calls, renewed before its end and once when CodeArts refuses it."""

    max_body_bytes = None

    def __init__(self, iam: Iam, login: Login, clock: Clock) -> None:
        self._iam = iam
        self._login = login
        self._clock = clock
        self._token: Token | None = None
        self._renew_at = 0
        self._failure: Failure = NotSent(message="iam: no token has been asked for yet.")
        self._ask_again_at = 0
        self._renewed_at = self._renew_refused_again_at = 0  # for a refusal by CodeArts, not before the token's end
        self._asking = asyncio.Lock()

    async def call(
        self,
        request: aksk_signing.RawRequest,  # noqa: ARG002 -- nothing is signed
        send: Send[Result],
        judge: Judge[Result],
        *,
        payload_sha256: str = aksk_signing.EMPTY_SHA256,  # noqa: ARG002
        repeatable: bool = True,
    ) -> Result | Failure:
        """Send the request with a token, and once more with a new one where CodeArts refuses that."""
        token = await self._current()
        if not isinstance(token, Token):
            return token
        result = await self._send(token, send, judge)
        if not judge(result):
            return result
        renewed = await self._renewed(token)
        if not isinstance(renewed, Token):
            return result if renewed is None else renewed
        if not repeatable:
            return result
        return await self._send(renewed, send, judge)

    async def _send(self, token: Token, send: Send[Result], judge: Judge[Result]) -> Result:
        result = await send(((AUTH_HEADER, token.token),))
        if judge(result) == "":
            self._renew_refused_again_at = min(self._renew_refused_again_at, self._renewed_at + TAKEN_US)
        return result

    async def _current(self) -> Token | Failure:
        token, now = self._token, self._clock()
        if token is not None and now < (token.expires_at if self._asking.locked() else self._renew_at):
            return token
        async with self._asking:
            if self._token is not None and self._clock() < self._renew_at:
                return self._token
            if not _is_held(self._ask_again_at, self._clock()):
                await self._ask()
            if self._token is not None and self._clock() < self._token.expires_at:
                return self._token
            return self._failure

    async def _renewed(self, refused: Token) -> Token | Failure | None:
        """Return a token newer than the `refused` one; None where another would not help now."""
        async with self._asking:
            if self._token is not refused:
                return self._token or self._failure
            if _is_held(max(self._renew_refused_again_at, self._ask_again_at), self._clock()):
                return None
            self._renewed_at = self._clock()
            self._renew_refused_again_at = self._renewed_at + HOLD_US
            self._token = None
            await self._ask()
            return self._token or self._failure

    async def _ask(self) -> None:
        outcome = await self._iam.log_in(self._login)
        now = self._clock()
        if isinstance(outcome, Token):
            if outcome.expires_at > now:
                self._token = outcome
                self._renew_at = outcome.expires_at - min(MARGIN_US, (outcome.expires_at - now) // 10)
                return
            outcome = OutcomeUnknown(message=ENDED)  # asked for anew with every call it would be else
        held_us = HOLD_US if isinstance(outcome, CredentialsRejected) else UNPROVEN_US
        self._failure, self._ask_again_at = outcome, now + held_us


class AccessKeySigner:
    """`aksk`: every request is signed. A key that was not taken yet, or was refused, is tried by one call alone."""

    max_body_bytes = MAX_SIGNED_BYTES

    def __init__(self, key: aksk_signing.AccessKeyPair, project: str, clock: Clock) -> None:
        self._key = key
        self._project = ((PROJECT_HEADER, project),) if is_project_id(project) else ()
        self._clock = clock
        self._proven = False
        self._failure: Failure = NotSent(message="codearts: the access key has not been tried yet.")
        self._try_again_at = 0
        self._trying = asyncio.Lock()

    async def call(
        self,
        request: aksk_signing.RawRequest,
        send: Send[Result],
        judge: Judge[Result],
        *,
        payload_sha256: str = aksk_signing.EMPTY_SHA256,
        repeatable: bool = True,  # noqa: ARG002 -- another signature of the same key would be refused alike
    ) -> Result | Failure:
        """Send the request signed."""
        if self._proven:
            return await self._send(request, send, judge, payload_sha256)
        async with self._trying:
            if not self._proven and _is_held(self._try_again_at, self._clock()):
                return self._failure
            return await self._send(request, send, judge, payload_sha256)

    async def _send(
        self, request: aksk_signing.RawRequest, send: Send[Result], judge: Judge[Result], payload_sha256: str
    ) -> Result:
        raw = aksk_signing.RawRequest(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=(*request.headers, *self._project),
        )
        signed = aksk_signing.sign(raw, self._key, at=self._clock(), payload_sha256=payload_sha256)
        result = await send((*self._project, *signed))
        self._learn(judge(result))
        return result

    def _learn(self, verdict: str | None) -> None:
        now = self._clock()
        if verdict == "":
            self._proven = True
        elif verdict is not None:
            self._proven = False
            self._failure, self._try_again_at = CredentialsRejected(message=verdict), now + HOLD_US
        elif not self._proven:
            message = "codearts: the call that was to prove the access key got no answer."
            self._failure, self._try_again_at = NotSent(message=message), now + UNPROVEN_US


def _is_held(until: int, now: int) -> bool:
    """Tell whether credentials rest until then; nothing rests longer than HOLD_US, but where the clock was set back."""
    return now < until <= now + HOLD_US
