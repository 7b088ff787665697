"""Callers whose tokens IAM vouches for: asked once, believed for a few minutes.

It knows neither sessions nor where IAM is. A token is asked about in its own name, so the bridge needs no rights there.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256

import structlog

from bridge.domain.callers import IAM_NAME_PREFIX, AuthScheme, Caller, IamUsers
from bridge.domain.outcomes import CredentialsRejected, NotSent, Rejected, Throttled
from bridge.errors import Unauthenticated, Unavailable
from bridge.protocols.iam import MAX_TOKEN_CHARACTERS, ValidationOutcome, ValidToken

BELIEVED_US = 5 * 60 * 1_000_000
"""A token that IAM takes back is refused within this time."""

REFUSED_US = 60 * 1_000_000
"""A bad token that is sent again and again is asked about once a minute; no token becomes good by waiting."""

MAX_VERDICTS = 10_000
"""Of good tokens, and as many of bad ones: strangers cannot crowd out the tokens that work. About 5 MB each."""

MAX_CHECKS = 64
"""Under way or waiting at once: beyond that IAM is slower than its callers, who are told to come again."""

PATIENCE_SECONDS = 10.0
"""For one answer of IAM: CI waits for it, and tries again where it does not come."""

Check = Callable[[str], Awaitable[ValidationOutcome | NotSent]]
"""Asks IAM about a token."""

BAD_TOKEN = "Incorrect IAM authentication information: decrypt token fail. Get a token of this project and send that."  # noqa: S105
NOT_NOW = "IAM cannot say just now whose token this is, so nothing of this request was kept. Send it again in a moment."

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """Whose users come in: of the account `domain`, and of its project (name or id) where that is not empty."""

    domain: str
    project: str = ""

    def owns(self, token: ValidToken) -> bool:
        """Tell whether a good token is one of ours: every account of Huawei has good tokens."""
        if token.project_id is None or token.domain != self.domain:
            return False
        return self.project in ("", token.project_id, token.project)


@dataclass(frozen=True, slots=True)
class _Verdict:
    token: ValidToken | None  # None for a bad one
    until: int


Verdicts = OrderedDict[bytes, _Verdict]
"""What IAM has said of tokens, by their digests: it holds whatever callers may do by the settings of today."""


class IamTokens:
    """Recognises IAM's tokens; `users` says what each may do, the first match counts. `now` is microseconds UTC.

    `good` are the verdicts of an IAM that was asked before, None where none was.
    """

    def __init__(
        self,
        check: Check,
        users: Sequence[IamUsers],
        tenant: Tenant,
        *,
        now: Callable[[], int],
        good: Verdicts | None = None,
    ) -> None:
        self._check = check
        self._users = users
        self._tenant = tenant
        self._now = now
        self._good: Verdicts = OrderedDict() if good is None else good
        self._bad: Verdicts = OrderedDict()
        self._checks: dict[bytes, asyncio.Task[_Verdict]] = {}

    async def identify(self, token: str) -> Caller:
        """Return whose token this is; raise Unauthenticated where it is bad, Unavailable where IAM cannot say."""
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise Unauthenticated(BAD_TOKEN)
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        verdict = self._remembered(digest) or await self._asked(digest, token)
        caller = self._caller(verdict.token, token) if verdict.token is not None else None
        if caller is None:
            raise Unauthenticated(BAD_TOKEN)
        return caller

    def _remembered(self, digest: bytes) -> _Verdict | None:
        for verdicts in (self._good, self._bad):
            verdict = verdicts.get(digest)
            if verdict is not None and self._now() < verdict.until:
                return verdict
        return None

    async def _asked(self, digest: bytes, token: str) -> _Verdict:
        """Ask, or wait for the one who asks already: whoever gives up waiting takes the answer from nobody."""
        check = self._checks.get(digest)
        if check is None:
            if len(self._checks) >= MAX_CHECKS:
                raise Unavailable(NOT_NOW)
            check = self._checks[digest] = asyncio.create_task(self._ask(digest, token), name="iam-check")
            check.add_done_callback(lambda ended: self._ended(digest, ended))
        return await asyncio.shield(check)

    def _ended(self, digest: bytes, check: asyncio.Task[_Verdict]) -> None:
        del self._checks[digest]
        if not check.cancelled():
            check.exception()  # looked at, also where nobody waits any more

    async def _ask(self, digest: bytes, token: str) -> _Verdict:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                outcome = await self._check(token)
        except TimeoutError:
            raise Unavailable(NOT_NOW) from None
        now = self._now()
        if isinstance(outcome, ValidToken):
            if self._caller(outcome, token) is not None and now < outcome.expires_at:
                verdict = _Verdict(outcome, min(now + BELIEVED_US, outcome.expires_at))
                _remember(self._good, digest, verdict)
                return verdict
        elif not isinstance(outcome, CredentialsRejected | Rejected):
            _log.warning("iam_cannot_say", reason=outcome.message)
            wait = outcome.retry_after_seconds if isinstance(outcome, Throttled) else None
            raise Unavailable(NOT_NOW, retry_after_seconds=min(60, round(wait or 5)))
        verdict = _Verdict(None, now + REFUSED_US)
        _remember(self._bad, digest, verdict)
        return verdict

    def _caller(self, valid: ValidToken, token: str) -> Caller | None:
        """Return whose token this is by today's settings, None for nobody's of ours."""
        if not self._tenant.owns(valid) or valid.user is None:
            return None
        for users in self._users:
            if fnmatchcase(valid.user, users.name):
                name = IAM_NAME_PREFIX + valid.user
                return Caller(
                    scheme=AuthScheme.IAM, name=name, routes=users.routes, scopes=users.scopes, iam_token=token
                )
        return None


def _remember(verdicts: Verdicts, digest: bytes, verdict: _Verdict) -> None:
    verdicts[digest] = verdict
    verdicts.move_to_end(digest)
    if len(verdicts) > MAX_VERDICTS:
        verdicts.popitem(last=False)
