"""x"""

import asyncio
import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from bridge.sandbox.builds import REGION, Builds, Checks, Reports
from bridge.sandbox.faults import CallListener, CallLog, Faults
from bridge.sandbox.presign import LONGEST_SECONDS, Keys
from bridge.sandbox.runs import Runs

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


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One object: digests and size always, bytes unless only digests are kept."""

    sha256: str
    etag: str
    size: int
    body: bytes | None


class ObjectReceiver:
    """An object on its way in, digested piece by piece."""

    def __init__(self, *, keep_bytes: bool) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)  # S3's ETag
        self._pieces: list[bytes] | None = [] if keep_bytes else None
        self.size = 0

    def feed(self, piece: bytes) -> None:
        self._sha256.update(piece)
        self._md5.update(piece)
        self.size += len(piece)
        if self._pieces is not None:
            self._pieces.append(piece)

    def done(self) -> StoredObject:
        body = None if self._pieces is None else b"".join(self._pieces)
        return StoredObject(
            sha256=self._sha256.hexdigest(), etag=f'"{self._md5.hexdigest()}"', size=self.size, body=body
        )


class ObjectMap:
    """Whole objects only, the last one written under a key wins."""

    def __init__(self) -> None:
        self._by_key: dict[str, StoredObject] = {}

    def put(self, key: str, stored: StoredObject) -> None:
        self._by_key[key] = stored

    def find(self, key: str) -> StoredObject | None:
        return self._by_key.get(key)

    def __len__(self) -> int:
        return len(self._by_key)


BUCKET = "testnod-sandbox-uploads"


@dataclass(frozen=True, kw_only=True, slots=True)
class Behaviour:
    """What POST /settings may change."""

    url_seconds: int = 300  # how long a presigned URL lives; TestNod's are good for five minutes
    processing_seconds: float = 0.02  # parsing an upload, and again processing a run
    register_latency_seconds: float = 0.002  # the window in which two first registers of a build conflict
    result_shape: Literal["object", "array"] = (
        "object"  # of build-info; the SDK reads the one, the reference shows the other
    )
    keep_bytes: bool = True  # False keeps only size and digest of what is PUT
    storage_idle_seconds: float = 20.0  # S3 answers RequestTimeout to a body that stands still this long
    codearts_tokens: tuple[
        str, ...
    ] = ()  # when any is set, CodeArts wants one of them, or one of IAM's, or a signature
    credentials_wanted: bool = False  # CodeArts and Check want a token of IAM or a signature
    token_seconds: int = 24 * 60 * 60  # how long IAM's tokens live

    def changed(self, changes: Mapping[str, object]) -> "Behaviour":
        """Return these settings with `changes`; ValueError names the key and what it takes."""
        for key, value in changes.items():
            check = _CHECKS.get(key)
            if check is None:
                raise ValueError(f"There is no setting {key!r}. There are {', '.join(_CHECKS)}.")
            if not check(value):
                raise ValueError(f"The setting {key} does not take {value!r}.")
        tokens = changes.get("codearts_tokens", self.codearts_tokens)
        frozen = {"codearts_tokens": tuple(tokens) if isinstance(tokens, list | tuple) else ()}
        return replace(self, **{**changes, **frozen})  # type: ignore[arg-type]  # each was checked above


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


_CHECKS: Mapping[str, Callable[[object], bool]] = {
    "url_seconds": lambda value: type(value) is int and 1 <= value <= LONGEST_SECONDS,
    "processing_seconds": _is_seconds,
    "register_latency_seconds": _is_seconds,
    "result_shape": lambda value: value in ("object", "array"),
    "keep_bytes": lambda value: isinstance(value, bool),
    "storage_idle_seconds": _is_seconds,
    "credentials_wanted": lambda value: isinstance(value, bool),
    "token_seconds": lambda value: type(value) is int and value >= 1,
    "codearts_tokens": lambda value: isinstance(value, list | tuple) and all(isinstance(one, str) for one in value),
}


@dataclass(kw_only=True, slots=True)
class SandboxState:
    """The state behind the listeners, for in-process use by tests and the demo."""

    now: Callable[[], float]  # seconds since 1970, UTC
    testnod_url: str
    s3_url: str
    behaviour: Behaviour = field(default_factory=Behaviour)
    accounts: Accounts = field(default_factory=Accounts)
    checks: Checks = field(default_factory=Checks)
    reports: Reports = field(default_factory=Reports)
    builds: Builds = field(default_factory=Builds)
    runs: Runs = field(default_factory=Runs)
    objects: ObjectMap = field(default_factory=ObjectMap)
    faults: Faults = field(default_factory=Faults)
    calls: CallLog = field(default_factory=CallLog)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    keys: Keys = field(
        default_factory=lambda: Keys(access_key="SANDBOXACCESSKEY", secret_key=secrets.token_hex(20), region=REGION)
    )

    def micros(self) -> int:
        """Return the world's time in microseconds UTC."""
        return int(self.now() * 1_000_000)

    def processing_us(self) -> int:
        return int(self.behaviour.processing_seconds * 1_000_000)

    def observer(self) -> CallListener:
        return CallListener(calls=self.calls, faults=self.faults, micros=self.micros, closing=self.closing)
