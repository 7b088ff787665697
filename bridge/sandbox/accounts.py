"""Who IAM knows: users with passwords, access keys, and the tokens that were handed out.

It must not know HTTP, the clock or the bridge: times come in as microseconds.
"""

import hmac
import secrets
import uuid
from dataclasses import dataclass, field

from bridge.sandbox.builds import REGION

SECOND = 1_000_000
TOKEN_BYTES = 9_000  # 12,000 characters: longer than the header line that many servers take, as real ones are
MOST_KEY_FAILURES = 5  # in a row: one more locks the key
KEY_LOCK_US = 5 * 60 * SECOND
MOST_LOGIN_FAILURES = 5
LOGIN_LOCK_US = 15 * 60 * SECOND


@dataclass(kw_only=True, slots=True)
class FailureCounter:
    """Wrong tries in a row, and until when none is looked at."""

    count: int = 0
    locked_until: int = 0

    def add(self, at: int, *, lock_at: int, lock_us: int) -> None:
        self.count += 1
        if self.count >= lock_at:
            self.count, self.locked_until = 0, at + lock_us


@dataclass(kw_only=True, slots=True)
class SandboxUser:
    """An IAM user; a security administrator may ask about tokens of others."""

    name: str
    password: str = field(repr=False)
    domain: str
    security_admin: bool = False
    failures: FailureCounter = field(default_factory=FailureCounter)

    @property
    def id(self) -> str:
        return _id(f"user/{self.domain}/{self.name}")


@dataclass(kw_only=True, slots=True)
class SandboxKey:
    """An access key and its secret."""

    access_key: str
    secret_key: str = field(repr=False)
    failures: FailureCounter = field(default_factory=FailureCounter)


@dataclass(kw_only=True, slots=True)
class SandboxToken:
    """A token that was handed out; `project` is None for one of the whole account."""

    value: str = field(repr=False)
    user: SandboxUser
    project: str | None
    issued_at: int
    expires_at: int


class Accounts:
    """Every user, key and token."""

    def __init__(self) -> None:
        self._users: dict[tuple[str, str], SandboxUser] = {}
        self._keys: dict[str, SandboxKey] = {}
        self._tokens: dict[str, SandboxToken] = {}

    def add_user(self, name: str, password: str, domain: str, *, security_admin: bool = False) -> SandboxUser:
        """Make a user, or give it another password; tokens of the old one end, as at Huawei."""
        user = SandboxUser(name=name, password=password, domain=domain, security_admin=security_admin)
        self._users[domain, name] = user
        self._tokens = {value: token for value, token in self._tokens.items() if token.user.id != user.id}
        return user

    def add_key(self, access_key: str, secret_key: str) -> SandboxKey:
        key = SandboxKey(access_key=access_key, secret_key=secret_key)
        self._keys[access_key] = key
        return key

    def forget_key(self, access_key: str) -> None:
        self._keys.pop(access_key, None)

    def key(self, access_key: str) -> SandboxKey | None:
        return self._keys.get(access_key)

    def log_in(self, name: str, password: str, domain: str, *, at: int) -> SandboxUser | None:
        """Return the user, None when name, account or password is wrong, or the user is locked."""
        user = self._users.get((domain, name))
        if user is None or at < user.failures.locked_until:
            return None
        if not hmac.compare_digest(user.password.encode(), password.encode()):
            user.failures.add(at, lock_at=MOST_LOGIN_FAILURES, lock_us=LOGIN_LOCK_US)
            return None
        user.failures.count = 0
        return user

    def hand_out(self, user: SandboxUser, project: str | None, *, at: int, seconds: int) -> SandboxToken:
        """Make a token for a project's name or id."""
        value = "MII" + secrets.token_urlsafe(TOKEN_BYTES)
        token = SandboxToken(value=value, user=user, project=project, issued_at=at, expires_at=at + seconds * SECOND)
        self._tokens[value] = token
        return token

    def token(self, value: str) -> SandboxToken | None:
        """Return the token, also one that has ended."""
        return self._tokens.get(value)

    def end_tokens(self, *, at: int) -> int:
        """End every token that was handed out; return how many there were."""
        for token in self._tokens.values():
            token.expires_at = min(token.expires_at, at)
        return len(self._tokens)


def project_of(text: str | None) -> dict[str, str] | None:
    """Return id and name of a project given by either."""
    if text is None:
        return None
    if len(text) == 32 and set(text) <= set("0123456789abcdef"):
        return {"id": text, "name": REGION}
    return {"id": _id(f"project/{text}"), "name": text}


def domain_of(name: str) -> dict[str, str]:
    """Return id and name of an account."""
    return {"id": _id(f"domain/{name}"), "name": name}


def _id(name: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, name).hex
