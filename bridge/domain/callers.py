"""Who may ask what: callers as values, and finding one by its token without telling how near a guess was.

It knows neither HTTP headers nor where tokens are kept. Tokens are compared by digest, in constant time.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

SCOPES = frozenset({"upload", "status", "proxy"})
"""upload: hand in reports; status: ask what became of a build; proxy: ask CodeArts through the bridge."""

HASH_PREFIX = "sha256:"

IAM_NAME_PREFIX = "iam:"
"""Stands before the name of an IAM user, so that none of them can call himself like a token or a key of the bridge."""


class AuthScheme(StrEnum):
    """How a caller was recognised."""

    OPEN = "open"  # not at all
    TOKEN = "token"  # noqa: S105 -- by a token of this bridge
    IAM = "iam"  # by a token that Huawei's IAM vouches for
    AKSK = "aksk"  # by a signature with a key of this bridge


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Somebody who uploads or asks; `routes` None means any route."""

    scheme: AuthScheme
    name: str
    routes: tuple[str, ...] | None
    scopes: frozenset[str]
    iam_token: str | None = field(default=None, repr=False)  # as it came; a caller by IAM has rights of its own

    def may_use(self, route: str) -> bool:
        """Tell whether `route` is one of the caller's own."""
        return self.routes is None or route in self.routes


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """A token that is accepted, by its hash (`sha256:<hex>`), until `expires_at` (microseconds UTC; None: no end)."""

    hash: str
    caller: Caller
    expires_at: int | None = None

    def holds(self, now: int) -> bool:
        """Tell whether the token still counts at `now` (microseconds UTC)."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessKey:
    """A key that a caller signs with."""

    access_key: str
    secret_key: str = field(repr=False)
    caller: Caller
    expires_at: int | None = None  # microseconds UTC; None = for good


@dataclass(frozen=True, kw_only=True, slots=True)
class IamUsers:
    """What the IAM users whose names match the glob `name` may do; `routes` None means any route."""

    name: str
    routes: tuple[str, ...] | None
    scopes: frozenset[str]


OPEN_CALLER = Caller(scheme=AuthScheme.OPEN, name="open", routes=None, scopes=frozenset({"upload", "status"}))
"""Everybody, where `callers.auth` is open."""


def hash_token(token: str) -> str:
    """Return `sha256:<hex>` of a token, as settings hold it: tokens are long and random, so no salt is needed."""
    return HASH_PREFIX + hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def find_credential(token: str, known: Iterable[Credential], *, now: int) -> Credential | None:
    """Return the credential that this token is, None for none; all are compared, whichever matches.

    One that still counts at `now` (microseconds UTC) goes before one that ended.
    """
    presented = hash_token(token)
    found: Credential | None = None
    for credential in known:
        same = hmac.compare_digest(presented, credential.hash)
        if same and (found is None or not found.holds(now)):
            found = credential
    return found
