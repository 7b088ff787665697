"""Callers and their credentials as values. Tokens are compared by digest and in constant time."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import field
from enum import StrEnum

from bridge.domain.instants import Instant
from bridge.values import dataclass

SCOPES = frozenset({"upload", "status", "proxy"})
"""upload: upload reports; status: read the status of a build; proxy: call CodeArts through the bridge."""

HASH_PREFIX = "sha256:"

IAM_NAME_PREFIX = "iam:"
"""Prefix of the names of IAM users, so that none can have the name of a token or key of the bridge."""


PROJECT_NAME_PREFIX = "project:"
"""Prefix of the names of callers that have the project token of a route, before the name of the route."""


class AuthScheme(StrEnum):
    """How a caller was authenticated."""

    OPEN = "open"  # not at all
    TOKEN = "token"  # noqa: S105 -- by a token of this bridge
    IAM = "iam"  # by a token that Huawei's IAM validates
    AKSK = "aksk"  # by a signature with a key of this bridge


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """An API client; `routes` None means any route."""

    scheme: AuthScheme
    name: str
    routes: tuple[str, ...] | None
    scopes: frozenset[str]
    iam_token: str | None = field(default=None, repr=False)  # as received: CodeArts checks it too

    def may_use(self, route: str) -> bool:
        """Return whether the caller may use `route`."""
        return self.routes is None or route in self.routes


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """An accepted token by its hash (`sha256:<hex>`), valid until `expires_at`; None: without end."""

    hash: str
    caller: Caller
    expires_at: Instant | None = None

    def is_valid(self, now: Instant) -> bool:
        """Return whether the token is still valid at `now`."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessKey:
    """A key that a caller signs with, valid until `expires_at`; None: without end."""

    access_key: str
    secret_key: str = field(repr=False)
    caller: Caller
    expires_at: Instant | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class IamUsers:
    """The rights of IAM users whose names match the glob `name`; `routes` None means any route."""

    name: str
    routes: tuple[str, ...] | None
    scopes: frozenset[str]


OPEN_CALLER = Caller(scheme=AuthScheme.OPEN, name="open", routes=None, scopes=frozenset({"upload", "status"}))
"""The caller of every request if `callers.auth` is open."""


def hash_token(token: str) -> str:
    """Return `sha256:<hex>` of a token, as in settings. Tokens are long and random, so no salt is needed."""
    return HASH_PREFIX + hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def find_credential(token: str, known: Iterable[Credential], *, now: Instant) -> Credential | None:
    """Return the credential of this token, None if there is none. All are compared, so the time reveals nothing.

    One that is valid at `now` takes precedence over an expired one.
    """
    presented = hash_token(token)
    found: Credential | None = None
    for credential in known:
        same = hmac.compare_digest(presented, credential.hash)
        if same and (found is None or not found.is_valid(now)):
            found = credential
    return found
