"""Identify callers by tokens of IAM: each token is validated once, and the verdict is cached for a few minutes.

A token is validated with itself as the credential, so the bridge needs no rights in IAM.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256

import structlog

from bridge.domain.callers import IAM_NAME_PREFIX, AuthScheme, Caller, IamUsers
from bridge.domain.instants import SECOND
from bridge.domain.outcomes import CredentialsRejected, NotSent, Rejected, Throttled
from bridge.errors import Unauthenticated, Unavailable
from bridge.protocols.iam import MAX_TOKEN_CHARACTERS, ValidationOutcome, ValidToken
from bridge.server.auth.fair_queue import FairQueue, QueueFullError
from bridge.telemetry.repeated_lines import log_refusal
from bridge.values import dataclass

VALID_US = 5 * 60 * SECOND
"""A token that IAM revokes is rejected within this time."""

INVALID_US = 60 * SECOND
"""An invalid token that is sent again and again is validated once a minute."""

MAX_VERDICTS = 10_000
"""Of valid tokens, and as many of invalid ones, so that strangers cannot evict valid ones. About 5 MB each."""

CHECK_SECONDS = 10.0
"""For one answer of IAM: CI waits for it, and retries if it does not come."""

Check = Callable[[str], Awaitable[ValidationOutcome | NotSent]]
"""Validates a token at IAM."""

NOT_OF_TENANT = (
    "The token is unknown, or of another account or project (Huawei: decrypt token fail). "
    "Get a token of this project and send that."
)
IAM_AWAY = "IAM cannot validate this token at the moment, so nothing of this request was stored. Send it again."

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """Whose users are accepted: those of the account `domain`, and of its project (name or id) unless that is empty."""

    domain: str
    project: str = ""

    def owns(self, token: ValidToken) -> bool:
        """Return whether a valid token belongs to this tenant: every Huawei account has valid tokens."""
        if token.project_id is None or token.domain != self.domain:
            return False
        return self.project in ("", token.project_id, token.project)


@dataclass(frozen=True, slots=True)
class _Verdict:
    token: ValidToken | None  # None: invalid
    until: int  # by the steady clock: a clock that is set back lengthens no verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class _Check:
    verdict: asyncio.Task[_Verdict]
    requests: list[Callable[[], bool]]  # that wait for it: each returns whether its client is gone

    def is_abandoned(self) -> bool:
        """Return whether no client waits for the verdict."""
        return all(is_gone() for is_gone in self.requests)


Verdicts = OrderedDict[bytes, _Verdict]
"""IAM's verdicts by digest of the token. They hold whatever the settings permit callers."""


class IamTokens:
    """Identifies callers by IAM's tokens. The first matching entry of `users` states what a user may do.

    `now` returns microseconds UTC, `steady` those of a clock that is never set. `valid` are cached verdicts of the same
    IAM, from before a reload.
    """

    def __init__(
        self,
        check: Check,
        users: Sequence[IamUsers],
        tenant: Tenant,
        *,
        now: Callable[[], int],
        steady: Callable[[], int],
        valid: Verdicts | None = None,
    ) -> None:
        self._check = check
        self._users = users
        self._tenant = tenant
        self._now = now
        self._steady = steady
        self._valid: Verdicts = OrderedDict() if valid is None else valid
        self._invalid: Verdicts = OrderedDict()
        self._checks: dict[bytes, _Check] = {}
        self._queue = FairQueue(steady)

    async def identify(self, token: str, *, origin: str = "", is_gone: Callable[[], bool] = lambda: False) -> Caller:
        """Return whose token this is; raise Unauthenticated if it is invalid, Unavailable if IAM does not answer.

        A token that has no verdict waits for its turn among those from its `origin`, unless its client `is_gone`.
        """
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise Unauthenticated(NOT_OF_TENANT)
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        verdict = self._cached(digest) or await self._checked(digest, token, origin, is_gone)
        caller = self._caller(verdict.token, token) if verdict.token is not None else None
        if caller is None:
            raise Unauthenticated(NOT_OF_TENANT)
        return caller

    def _cached(self, digest: bytes) -> _Verdict | None:
        for verdicts in (self._valid, self._invalid):
            verdict = verdicts.get(digest)
            if verdict is None or self._steady() >= verdict.until:
                continue
            if verdict.token is None or self._now() < verdict.token.expires_at:
                return verdict
        return None

    async def _checked(self, digest: bytes, token: str, origin: str, is_gone: Callable[[], bool]) -> _Verdict:
        """Validate the token, or wait for the validation in flight, which goes on if its first request is canceled."""
        check = self._checks.get(digest)
        if check is None:
            requests: list[Callable[[], bool]] = []
            validation = asyncio.create_task(self._validate(digest, token, origin), name="iam-check")
            check = self._checks[digest] = _Check(verdict=validation, requests=requests)
            validation.add_done_callback(lambda ended: self._remove_check(digest, ended))
        check.requests.append(is_gone)
        return await asyncio.shield(check.verdict)

    def _remove_check(self, digest: bytes, check: asyncio.Task[_Verdict]) -> None:
        del self._checks[digest]
        if not check.cancelled():
            check.exception()  # retrieved, because no request may be waiting any more

    async def _validate(self, digest: bytes, token: str, origin: str) -> _Verdict:
        try:
            async with self._queue.turn(origin, self._checks[digest].is_abandoned), asyncio.timeout(CHECK_SECONDS):
                outcome = await self._check(token)
        except (TimeoutError, QueueFullError):
            raise Unavailable(IAM_AWAY) from None
        verdict = self._verdict(digest, token, outcome)
        self._queue.record(origin, good=verdict.token is not None)
        return verdict

    def _verdict(self, digest: bytes, token: str, outcome: ValidationOutcome | NotSent) -> _Verdict:
        steady = self._steady()
        if isinstance(outcome, ValidToken):
            if self._caller(outcome, token) is not None and self._now() < outcome.expires_at:
                verdict = _Verdict(outcome, steady + VALID_US)
                _cache(self._valid, digest, verdict)
                return verdict
        elif not isinstance(outcome, CredentialsRejected | Rejected):
            log_refusal(_log.warning, "iam_unavailable", address=None, reason=outcome.message)
            wait = outcome.retry_after_seconds if isinstance(outcome, Throttled) else None
            raise Unavailable(IAM_AWAY, retry_after_seconds=min(60, round(wait or 5)))
        verdict = _Verdict(None, steady + INVALID_US)
        _cache(self._invalid, digest, verdict)
        return verdict

    def _caller(self, valid: ValidToken, token: str) -> Caller | None:
        """Return the caller of a valid token by the current settings; None if it is not of this tenant."""
        if not self._tenant.owns(valid) or valid.user is None:
            return None
        for users in self._users:
            if fnmatchcase(valid.user, users.name):
                name = IAM_NAME_PREFIX + valid.user
                return Caller(
                    scheme=AuthScheme.IAM, name=name, routes=users.routes, scopes=users.scopes, iam_token=token
                )
        return None


def _cache(verdicts: Verdicts, digest: bytes, verdict: _Verdict) -> None:
    verdicts[digest] = verdict
    verdicts.move_to_end(digest)
    if len(verdicts) > MAX_VERDICTS:
        verdicts.popitem(last=False)
