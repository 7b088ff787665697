"""Everything the stand-ins know, in one place: state by noun, how they behave, their clock.

It must not know HTTP's requests and answers, or the bridge.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from bridge.sandbox.accounts import Accounts
from bridge.sandbox.builds import REGION, Builds
from bridge.sandbox.calls import CallListener, CallLog
from bridge.sandbox.check_tasks import Checks
from bridge.sandbox.faults import Faults
from bridge.sandbox.objects import ObjectMap
from bridge.sandbox.presign import LONGEST_SECONDS, Keys
from bridge.sandbox.reports import Reports
from bridge.sandbox.runs import Runs

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
