"""The faults of a run of chance, as values: what goes wrong, not how it is brought about."""

import json
import signal
from dataclasses import dataclass, field
from typing import Any

from bridge.domain.instants import SECOND
from bridge.domain.text_format import span
from tests.faults.proxy import Faults, Spoil
from tests.faults.steps import When

REFUSED_URL = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
REFUSED_FILE = "<Error><Code>InvalidRequest</Code><Message>It cannot be taken.</Message></Error>"
TOO_SLOW = "<Error><Code>RequestTimeout</Code><Message>Idle connections will be closed.</Message></Error>"
NO_LOGIN = {"error_code": "APIGW.0301", "error_msg": "Incorrect IAM authentication information"}
TOO_MANY = {"error_code": "CB.00060211", "error_msg": "Too many requests."}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """SIGKILL, whatever it does at this moment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terminate:
    """SIGTERM, as before an update; the gateway is started again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Freeze:
    """The process stands still (SIGSTOP) and goes on, as on a machine that swaps or is moved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reload:
    """SIGHUP: settings and secrets are read again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoiltWay:
    """The connections to one upstream are spoilt."""

    upstream: str
    how: str
    faults: Faults


@dataclass(frozen=True, kw_only=True, slots=True)
class WrongAnswers:
    """An upstream answers a share of the calls at a place wrongly."""

    place: str
    rate: float
    answer: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class OddAnswers:
    """An upstream, or a proxy before it, answers a share of the calls at a place in words that are not its own."""

    place: str
    rate: float
    what: str
    after: bool  # the call was executed

    @property
    def answer(self) -> dict[str, Any]:
        return {**ODD_ANSWERS[self.place][self.what], "after": self.after}


@dataclass(frozen=True, kw_only=True, slots=True)
class WrongClock:
    """The clock of a gateway is wrong for a while, from a start on or from one moment to the next."""

    ahead_seconds: int  # negative: it is behind
    restarts: bool

    @property
    def what(self) -> str:
        side = "ahead" if self.ahead_seconds > 0 else "behind"
        return f"clock {span(abs(self.ahead_seconds) * SECOND)} {side}{' at a start' if self.restarts else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProjectMissing:
    """TestNod does not know the project's token for a while."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FullDisk:
    """The disk of ledger and spool has no room for these operations."""

    operations: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseRestart:
    """PostgreSQL ends by a signal, and is started again."""

    how: signal.Signals


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageAway:
    """The S3 server of spool and archive is killed, or hangs."""

    hangs: bool


Fault = (
    Kill
    | Terminate
    | Freeze
    | Reload
    | SpoiltWay
    | WrongAnswers
    | OddAnswers
    | WrongClock
    | ProjectMissing
    | FullDisk
    | DatabaseRestart
    | StorageAway
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Death:
    """A step of the product at which the next process dies, before or after it takes it for the `count`-th time."""

    step: str
    when: When
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """A fault that has been, and when.

    It hit `gateway 0`, `clock 0`, `testnod`, `s3`, `codearts`, `disk`, `ledger`, `spool`, or `machine` (busy with other
    work). Times are microseconds UTC.
    """

    whom: str
    what: str
    began_at: int
    ended_at: int


@dataclass(slots=True)
class Troubles:
    """All that has gone wrong so far."""

    met_so_far: list[Trouble] = field(default_factory=list)
    clock_off_us: int = 0  # the most that a clock was wrong by

    def add(self, whom: str, what: str, began_at: int, ended_at: int) -> None:
        self.met_so_far.append(Trouble(whom=whom, what=what, began_at=began_at, ended_at=ended_at))

    def met(self, whom: tuple[str, ...], began_at: int, ended_at: int) -> bool:
        """Tell whether any of these (by the beginning of their names) was in trouble in a span of time."""
        return any(
            each.whom.startswith(whom) and each.began_at <= ended_at and began_at <= each.ended_at
            for each in self.met_so_far
        )


# -- what may go wrong on the way to an upstream, and in its answers ---------------------------------------------------

WAYS = {
    "refuses": Faults(refuse=True),
    "is slow": Faults(back=Spoil(delay_seconds=1.5)),
    "drips": Faults(back=Spoil(bytes_a_second=40)),
    "is cut on the way there": Faults(there=Spoil(cut_after=150)),
    "is cut on the way back": Faults(back=Spoil(cut_after=60)),
    "resets": Faults(back=Spoil(cut_after=20, reset=True)),
    "swallows what it is sent": Faults(there=Spoil(black_hole=True)),
    "swallows its answers": Faults(back=Spoil(black_hole=True)),
    "garbles": Faults(back=Spoil(corrupt_at=3)),
}
"""Garbled is only an answer's first line: over TLS, which these stand-ins do not speak, no byte could change."""

FAILS: tuple[dict[str, Any], ...] = (
    {"status": 503},
    {"status": 503, "after": True},
    {"status": 500, "after": True},
    {"hang": True},
    {"hang": True, "after": True},
    {"cut": True},
    {"cut": True, "after": True},
    {"garbled": True, "after": True},
)
WRONG_ANSWERS: dict[str, tuple[dict[str, Any], ...]] = {
    "testnod.register": (*FAILS, {"status": 409}, {"status": 429, "headers": {"Retry-After": "1"}}, {"status": 422}),
    "testnod.finalize": (*FAILS, {"status": 429, "headers": {"Retry-After": "1"}}),
    "testnod.upload_failed": (*FAILS, {"status": 429}),
    "s3.put": (
        *FAILS,
        {"status": 403, "body": REFUSED_URL},
        {"status": 400, "body": REFUSED_FILE},
        {"status": 400, "body": TOO_SLOW},
    ),
    "codearts.build_info": (*FAILS, {"status": 401, "body": NO_LOGIN}, {"status": 500, "body": TOO_MANY}),
    "codearts.record_info": (*FAILS, {"status": 401, "body": NO_LOGIN}, {"status": 429}),
}
FULL = (("write",), ("fsync",), ("rename",), ("commit",), ("space",), ("write", "commit", "space"))

CLOCKS = (90, -90, 15 * 60, -15 * 60, 3 * 3600, 40 * 86400)  # seconds ahead: a bad battery, a time zone, a wrong date


def _answer(code: int, **fields: object) -> dict[str, Any]:
    return {"status": code, "body": json.dumps(fields)}


def _storage_error(status: int, code: str) -> dict[str, Any]:
    return {"status": status, "body": f"<Error><Code>{code}</Code><Message>no</Message></Error>"}


PAGE = "<html><title>Sign in</title></html>"
ODD_PAGES: dict[str, dict[str, Any]] = {
    "404 with a page": {"status": 404, "body": PAGE},
    "407 with a page": {"status": 407, "body": PAGE},
    "a redirect": {"status": 307, "headers": {"Location": "/elsewhere"}},
    "a huge page": {"status": 502, "body": PAGE + "x" * 2_000_000},
}
"""What any proxy may answer in place of an upstream."""

PAGE_AS_SUCCESS: dict[str, dict[str, Any]] = {
    "200 with a page": {"status": 200, "body": PAGE},
    "200 with a huge page": {"status": 200, "body": PAGE + "x" * 2_000_000},
    "a list": {"status": 200, "body": "[]"},
    "an empty answer": {"status": 200},
}
ODD_ANSWERS: dict[str, dict[str, dict[str, Any]]] = {
    "testnod.register": {
        **ODD_PAGES,
        **PAGE_AS_SUCCESS,
        "201 with a page": {"status": 201, "body": PAGE},
        "no ids": _answer(201),
        "ids null": _answer(201, id=None, test_run_id=None, upload_id=None, presigned_url=None),
        "ids as lists": _answer(201, id=[1], test_run_id=[], upload_id={}, presigned_url=7),
        "finalize's words": _answer(201, status="processed"),
    },
    "testnod.finalize": {
        **ODD_PAGES,
        **PAGE_AS_SUCCESS,
        "a weird status": _answer(200, status="weird"),
        "a status in capitals": _answer(200, status="Processed"),
        "a number as status": _answer(200, status=5),
        "no status": _answer(200, status=None),
    },
    "testnod.upload_failed": {
        **ODD_PAGES,
        **PAGE_AS_SUCCESS,
        "still pending": _answer(200, status="pending"),
        "a status in capitals": _answer(200, status="Failed"),
        "a number as status": _answer(200, status=5),
        "no status": _answer(200, status=None),
    },
    "s3.put": {
        **ODD_PAGES,
        "403 with a page": {"status": 403, "body": PAGE},
        "400 with a page": {"status": 400, "body": PAGE},
        "SignatureDoesNotMatch": _storage_error(403, "SignatureDoesNotMatch"),
        "InvalidToken": _storage_error(400, "InvalidToken"),
        "NoSuchBucket": _storage_error(404, "NoSuchBucket"),
    },
    "codearts.build_info": {
        **ODD_PAGES,
        **PAGE_AS_SUCCESS,
        "no result": _answer(200, result=None, status="success"),
        "a text as result": _answer(200, result="running", status="success"),
        "no truth": _answer(200, result={"building": "perhaps", "build_result": 5}, status="success"),
    },
    "codearts.record_info": {
        **ODD_PAGES,
        **PAGE_AS_SUCCESS,
        "no result": _answer(200, result=None, status="success"),
        "numbers as texts": _answer(200, result={"branch": 5, "commit": [], "build_no": "x"}, status="success"),
    },
}
"""Answers of nothing: none of them says that a call was executed, or that a build, run or project does not exist."""


def may_come_after(place: str, what: str) -> bool:
    """Return whether a call may have been executed although it was answered so.

    Storage rejects no stored bytes. A proxy that redirects a register, or rejects it, does not forward it.
    """
    rejects = 300 <= int(ODD_ANSWERS[place][what]["status"]) < 500
    return place.startswith("testnod.") and not (place == "testnod.register" and rejects)
