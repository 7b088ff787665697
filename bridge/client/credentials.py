"""The bridge's credentials at CodeArts: none, a token, a user with a password, or an access key.

Rejected credentials are not retried at once, because Huawei locks a key after five failures for five minutes, and a
user for a quarter of an hour.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from bridge.client.iam import Iam
from bridge.client.session import Clock
from bridge.domain.outcomes import CredentialsRejected, NotSent, OutcomeUnknown, Throttled
from bridge.protocols import aksk_signing
from bridge.protocols.iam import AUTH_HEADER, Login, Token, is_project_id

RETRY_REJECTED_US = 5 * 60 * 1_000_000
"""Between two attempts with rejected credentials: three in a quarter of an hour, below the five that lock."""

RENEW_AGAIN_US = 30 * 1_000_000
"""Between two renewals for rejected tokens while CodeArts accepts the new ones; it may reject one path always."""

SHARE_FAILURE_US = 1_000_000
"""After a failed attempt, calls that waited for it share its outcome for this long instead of trying too."""

MARGIN_US = 10 * 60 * 1_000_000
"""A token is renewed this long before it expires; if it lives shorter, at nine tenths of its life."""

EXPIRED = "iam: the token that it issued has already expired. Compare its clock with this machine's."

PROJECT_HEADER = "X-Project-Id"

MAX_SIGNED_BYTES = 12_000_000
"""Huawei rejects larger signed bodies. It documents 12 MB; this is the smaller of its two meanings."""

Headers = tuple[tuple[str, str], ...]
Failure = CredentialsRejected | Throttled | NotSent | OutcomeUnknown
"""Why there are no headers: credentials that are rejected or not retried yet, or IAM does not respond."""

Result = TypeVar("Result")
SendRequest = Callable[[Headers], Awaitable[Result]]
RejectionReader = Callable[[Result], str | None]
"""Returns why CodeArts rejected the credentials, "" if it accepted them, None if the result does not show it."""


class Credentials(Protocol):
    """One of the methods of `codearts.auth`."""

    @property
    def max_body_bytes(self) -> int | None:
        """Return the largest body of a call; None if no limit is known."""

    async def call(
        self,
        request: aksk_signing.RawRequest,
        send: SendRequest[Result],
        read_rejection: RejectionReader[Result],
        *,
        payload_sha256: str = aksk_signing.EMPTY_SHA256,
        repeatable: bool = True,
    ) -> Result | Failure:
        """Make `request` with the bridge's credentials: `send` it with further headers, again if they were renewed.

        `request` contains the headers that arrive unchanged, including Host; `payload_sha256` is the body's digest in
        hex or UNSIGNED_PAYLOAD; a request that is not `repeatable` is sent once.
        """
        ...


class StaticHeaders:
    """`none` and `token`: the same headers for every call, or none; they are never renewed."""

    max_body_bytes = None

    def __init__(self, headers: Headers = ()) -> None:
        self._headers = headers

    async def call(
        self,
        request: aksk_signing.RawRequest,  # noqa: ARG002 -- nothing is signed
        send: SendRequest[Result],
        read_rejection: RejectionReader[Result],  # noqa: ARG002 -- nothing can be renewed
        *,
        payload_sha256: str = aksk_signing.EMPTY_SHA256,  # noqa: ARG002
        repeatable: bool = True,  # noqa: ARG002
    ) -> Result | Failure:
        """Send the request with the headers."""
        return await send(self._headers)


class PasswordLogin:
    """`password`: a token of IAM for all calls, renewed before it expires, and once if CodeArts rejects it."""

    max_body_bytes = None

    def __init__(self, iam: Iam, login: Login, clock: Clock) -> None:
        self._iam = iam
        self._login = login
        self._clock = clock
        self._token: Token | None = None
        self._renew_at = 0
        self._failure: Failure = NotSent(message="iam: no token has been requested yet.")
        self._next_login_at = 0
        self._renewed_at = self._renew_rejected_at = 0  # renewals because of a rejection, not of expiry
        self._lock = asyncio.Lock()

    async def call(
        self,
        request: aksk_signing.RawRequest,  # noqa: ARG002 -- nothing is signed
        send: SendRequest[Result],
        read_rejection: RejectionReader[Result],
        *,
        payload_sha256: str = aksk_signing.EMPTY_SHA256,  # noqa: ARG002
        repeatable: bool = True,
    ) -> Result | Failure:
        """Send the request with a token, and once more with a new one if CodeArts rejects it."""
        token = await self._current()
        if not isinstance(token, Token):
            return token
        result = await self._send(token, send, read_rejection)
        if not read_rejection(result):
            return result
        renewed = await self._renewed(token)
        if not isinstance(renewed, Token):
            return result if renewed is None else renewed
        if not repeatable:
            return result
        return await self._send(renewed, send, read_rejection)

    async def _send(self, token: Token, send: SendRequest[Result], read_rejection: RejectionReader[Result]) -> Result:
        result = await send(((AUTH_HEADER, token.token),))
        if read_rejection(result) == "":
            self._renew_rejected_at = min(self._renew_rejected_at, self._renewed_at + RENEW_AGAIN_US)
        return result

    async def _current(self) -> Token | Failure:
        token, now = self._token, self._clock()
        if token is not None and now < (token.expires_at if self._lock.locked() else self._renew_at):
            return token
        async with self._lock:
            if self._token is not None and self._clock() < self._renew_at:
                return self._token
            if not _must_wait(self._next_login_at, self._clock()):
                await self._log_in()
            if self._token is not None and self._clock() < self._token.expires_at:
                return self._token
            return self._failure

    async def _renewed(self, rejected: Token) -> Token | Failure | None:
        """Return a token newer than the `rejected` one; None if another would not help now."""
        async with self._lock:
            if self._token is not rejected:
                return self._token or self._failure
            if _must_wait(max(self._renew_rejected_at, self._next_login_at), self._clock()):
                return None
            self._renewed_at = self._clock()
            self._renew_rejected_at = self._renewed_at + RETRY_REJECTED_US
            self._token = None
            await self._log_in()
            return self._token or self._failure

    async def _log_in(self) -> None:
        outcome = await self._iam.log_in(self._login)
        now = self._clock()
        if isinstance(outcome, Token):
            if outcome.expires_at > now:
                self._token = outcome
                self._renew_at = outcome.expires_at - min(MARGIN_US, (outcome.expires_at - now) // 10)
                return
            outcome = OutcomeUnknown(message=EXPIRED)  # otherwise each call would log in again
        wait_us = RETRY_REJECTED_US if isinstance(outcome, CredentialsRejected) else SHARE_FAILURE_US
        self._failure, self._next_login_at = outcome, now + wait_us


class AccessKeySigner:
    """`aksk`: every request is signed. While the key is untested or rejected, only one call at a time tries it."""

    max_body_bytes = MAX_SIGNED_BYTES

    def __init__(self, key: aksk_signing.AccessKeyPair, project: str, clock: Clock) -> None:
        self._key = key
        self._project = ((PROJECT_HEADER, project),) if is_project_id(project) else ()
        self._clock = clock
        self._accepted = False
        self._failure: Failure = NotSent(message="codearts: the access key has not been tried yet.")
        self._try_again_at = 0
        self._lock = asyncio.Lock()

    async def call(
        self,
        request: aksk_signing.RawRequest,
        send: SendRequest[Result],
        read_rejection: RejectionReader[Result],
        *,
        payload_sha256: str = aksk_signing.EMPTY_SHA256,
        repeatable: bool = True,  # noqa: ARG002 -- the same key would be rejected again
    ) -> Result | Failure:
        """Send the request signed."""
        if self._accepted:
            return await self._send(request, send, read_rejection, payload_sha256)
        async with self._lock:
            if not self._accepted and _must_wait(self._try_again_at, self._clock()):
                return self._failure
            return await self._send(request, send, read_rejection, payload_sha256)

    async def _send(
        self,
        request: aksk_signing.RawRequest,
        send: SendRequest[Result],
        read_rejection: RejectionReader[Result],
        payload_sha256: str,
    ) -> Result:
        raw = aksk_signing.RawRequest(
            method=request.method,
            path=request.path,
            query=request.query,
            headers=(*request.headers, *self._project),
        )
        signed = aksk_signing.sign(raw, self._key, at=self._clock(), payload_sha256=payload_sha256)
        result = await send((*self._project, *signed))
        self._record(read_rejection(result))
        return result

    def _record(self, verdict: str | None) -> None:
        now = self._clock()
        if verdict == "":
            self._accepted = True
        elif verdict is not None:
            self._accepted = False
            self._failure, self._try_again_at = CredentialsRejected(message=verdict), now + RETRY_REJECTED_US
        elif not self._accepted:
            message = "codearts: the call that tried the access key got no response."
            self._failure, self._try_again_at = NotSent(message=message), now + SHARE_FAILURE_US


def _must_wait(until: int, now: int) -> bool:
    """Return whether credentials must not be tried before `until`, at most RETRY_REJECTED_US from now.

    The limit matters if the clock was set back.
    """
    return now < until <= now + RETRY_REJECTED_US
