"""The state of all stand-ins: IAM accounts, S3 objects, builds, runs, faults, calls, and how the stand-ins behave.

Times are microseconds UTC.
"""

import asyncio
import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from fnmatch import fnmatchcase
from typing import Literal

from bridge.sandbox.builds import REGION, Builds, Checks
from bridge.sandbox.call_limits import CallLimits
from bridge.sandbox.faults import CALL_NAMES, CallListener, CallLog, Faults
from bridge.sandbox.presign import MAX_EXPIRES_SECONDS, Keys
from bridge.sandbox.reports import Reports
from bridge.sandbox.runs import Runs
from bridge.values import dataclass

SECOND = 1_000_000
TOKEN_BYTES = 9_000  # 12,000 characters: like real ones, longer than the header lines that many servers accept
MAX_KEY_FAILURES = 5  # in a row; one more locks the key
KEY_LOCK_US = 5 * 60 * SECOND
MAX_LOGIN_FAILURES = 5
LOGIN_LOCK_US = 15 * 60 * SECOND


@dataclass(kw_only=True, slots=True)
class FailureCounter:
    """Failed attempts in a row, and until when further ones are rejected."""

    count: int = 0
    locked_until: int = 0

    def add(self, at: int, *, lock_at: int, lock_us: int) -> None:
        self.count += 1
        if self.count >= lock_at:
            self.count, self.locked_until = 0, at + lock_us


@dataclass(kw_only=True, slots=True)
class SandboxUser:
    """An IAM user; a security administrator may validate tokens of others."""

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
    """An issued token; `project` is None for a token of the whole account."""

    value: str = field(repr=False)
    user: SandboxUser
    project: str | None
    issued_at: int
    expires_at: int


class Accounts:
    """All users, access keys and tokens of IAM."""

    def __init__(self) -> None:
        self._users: dict[tuple[str, str], SandboxUser] = {}
        self._keys: dict[str, SandboxKey] = {}
        self._tokens: dict[str, SandboxToken] = {}

    def add_user(self, name: str, password: str, domain: str, *, security_admin: bool = False) -> SandboxUser:
        """Create a user or replace its password; tokens of the old one expire, as at Huawei."""
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
        """Return the user; None if name, account or password is wrong, or the user is locked."""
        user = self._users.get((domain, name))
        if user is None or at < user.failures.locked_until:
            return None
        if not hmac.compare_digest(user.password.encode(), password.encode()):
            user.failures.add(at, lock_at=MAX_LOGIN_FAILURES, lock_us=LOGIN_LOCK_US)
            return None
        user.failures.count = 0
        return user

    def issue_token(self, user: SandboxUser, project: str | None, *, at: int, seconds: int) -> SandboxToken:
        """Return a new token for a project's name or id."""
        value = "MII" + secrets.token_urlsafe(TOKEN_BYTES)
        token = SandboxToken(value=value, user=user, project=project, issued_at=at, expires_at=at + seconds * SECOND)
        self._tokens[value] = token
        return token

    def token(self, value: str) -> SandboxToken | None:
        """Return the token, even if it has expired."""
        return self._tokens.get(value)

    def end_tokens(self, *, at: int) -> int:
        """Expire all tokens; return their number."""
        for token in self._tokens.values():
            token.expires_at = min(token.expires_at, at)
        return len(self._tokens)


def project_of(text: str | None) -> dict[str, str] | None:
    """Return id and name of a project, given by either."""
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
    """One object: hashes and size always, bytes only if they are kept."""

    sha256: str
    etag: str
    size: int
    body: bytes | None


class ObjectReceiver:
    """An object that is being received, hashed piece by piece."""

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
    """Complete objects by key; the last one written wins."""

    def __init__(self) -> None:
        self._by_key: dict[str, StoredObject] = {}

    def put(self, key: str, stored: StoredObject) -> None:
        self._by_key[key] = stored

    def find(self, key: str) -> StoredObject | None:
        return self._by_key.get(key)

    def __len__(self) -> int:
        return len(self._by_key)


LIMITED_CALLS = tuple(name for name in CALL_NAMES if name.startswith(("codearts.", "check.")))
BUCKET = "testnod-sandbox-uploads"


@dataclass(frozen=True, kw_only=True, slots=True)
class Behavior:
    """How the stand-ins behave; POST /settings changes it."""

    url_seconds: int = 300  # lifetime of a presigned URL; TestNod's is five minutes
    processing_seconds: float = 0.02  # for parsing an upload, and again for processing a run
    register_latency_seconds: float = 0.002  # during which two first registers of a build conflict
    result_shape: Literal["object", "array"] = (
        "object"  # of build-info; the SDK reads an object, the reference has an array
    )
    keep_bytes: bool = True  # False keeps only size and hash of PUT bodies
    storage_idle_seconds: float = 20.0  # S3 returns RequestTimeout if a body stalls this long
    codearts_tokens: tuple[str, ...] = ()  # if set, CodeArts requires one of them, an IAM token or a signature
    credentials_wanted: bool = False  # CodeArts and Check require an IAM token or a signature
    token_seconds: int = 24 * 60 * 60  # lifetime of IAM's tokens
    calls_per_minute: Mapping[str, int] = field(default_factory=dict)  # of CodeArts, by call name or pattern; else 429
    retry_after: bool = False  # a 429 has Retry-After; whether Huawei's has is not documented
    list_utc_offset_hours: int = 8  # of start_time and end_time of a list of builds; their time zone is not documented

    def changed(self, changes: Mapping[str, object]) -> "Behavior":
        """Return a copy with `changes`; raise ValueError with the key if one is unknown or out of range."""
        for key, value in changes.items():
            check = _CHECKS.get(key)
            if check is None:
                raise ValueError(f"Unknown setting {key!r}. Use one of {', '.join(_CHECKS)}.")
            if not check(value):
                raise ValueError(f"Invalid value for {key}: {value!r}.")
        tokens = changes.get("codearts_tokens", self.codearts_tokens)
        frozen = {"codearts_tokens": tuple(tokens) if isinstance(tokens, list | tuple) else ()}
        return replace(self, **{**changes, **frozen})  # type: ignore[arg-type]  # checked above


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _is_limit(entry: tuple[object, object]) -> bool:
    where, limit = entry
    is_name = isinstance(where, str) and any(fnmatchcase(name, where) for name in LIMITED_CALLS)
    return is_name and type(limit) is int and limit >= 0


_CHECKS: Mapping[str, Callable[[object], bool]] = {
    "url_seconds": lambda value: type(value) is int and 1 <= value <= MAX_EXPIRES_SECONDS,
    "processing_seconds": _is_seconds,
    "register_latency_seconds": _is_seconds,
    "result_shape": lambda value: value in ("object", "array"),
    "keep_bytes": lambda value: isinstance(value, bool),
    "storage_idle_seconds": _is_seconds,
    "calls_per_minute": lambda value: isinstance(value, Mapping) and all(map(_is_limit, value.items())),
    "retry_after": lambda value: isinstance(value, bool),
    "list_utc_offset_hours": lambda value: type(value) is int and -12 <= value <= 14,
    "credentials_wanted": lambda value: isinstance(value, bool),
    "token_seconds": lambda value: type(value) is int and value >= 1,
    "codearts_tokens": lambda value: isinstance(value, list | tuple) and all(isinstance(one, str) for one in value),
}


@dataclass(kw_only=True, slots=True)
class SandboxState:
    """The state behind the listeners; tests and the demo use it in process."""

    now: Callable[[], float]  # seconds since 1970, UTC
    testnod_url: str
    s3_url: str
    behavior: Behavior = field(default_factory=Behavior)
    accounts: Accounts = field(default_factory=Accounts)
    checks: Checks = field(default_factory=Checks)
    reports: Reports = field(default_factory=Reports)
    builds: Builds = field(default_factory=Builds)
    runs: Runs = field(default_factory=Runs)
    objects: ObjectMap = field(default_factory=ObjectMap)
    faults: Faults = field(default_factory=Faults)
    limits: CallLimits = field(default_factory=CallLimits)
    calls: CallLog = field(default_factory=CallLog)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    keys: Keys = field(
        default_factory=lambda: Keys(access_key="SANDBOXACCESSKEY", secret_key=secrets.token_hex(20), region=REGION)
    )

    def micros(self) -> int:
        """Return the sandbox's time in microseconds UTC."""
        return int(self.now() * 1_000_000)

    def processing_us(self) -> int:
        return int(self.behavior.processing_seconds * 1_000_000)

    def listener(self) -> CallListener:
        return CallListener(calls=self.calls, faults=self.faults, micros=self.micros, closing=self.closing)
