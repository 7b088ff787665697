"""Who may ask what: callers as values, and finding one by its token without telling how near a guess was.

It knows neither HTTP headers nor where tokens are kept. Tokens are compared by digest, in constant time.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

SCOPES = frozenset({"upload", "status", "proxy"})
"""upload: hand in reports; status: ask what became of a build; proxy: ask CodeArts in the bridge's name."""

HASH_PREFIX = "sha256:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Somebody who uploads or asks; `routes` None means any route."""

    name: str
    routes: tuple[str, ...] | None
    scopes: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """A token that is accepted, by its hash (`sha256:<hex>`), until `not_after` (microseconds UTC; None = for good)."""

    hash: str
    caller: Caller
    not_after: int | None = None


OPEN_CALLER = Caller(name="open", routes=None, scopes=frozenset({"upload", "status"}))
"""Everybody, where `callers.auth` is open."""


def hash_token(token: str) -> str:
    """Return `sha256:<hex>` of a token, as settings hold it: tokens are long and random, so no salt is needed."""
    return HASH_PREFIX + hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def find_caller(token: str, known: Iterable[Credential], *, now: int) -> Caller | None:
    """Return whose token this is at `now` (microseconds UTC), or None; all are compared, whichever matches."""
    presented = hash_token(token)
    found: Caller | None = None
    for credential in known:
        same = hmac.compare_digest(presented, credential.hash)
        if same and (credential.not_after is None or now < credential.not_after):
            found = found or credential.caller
    return found
