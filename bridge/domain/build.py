"""A build and all that belongs to it, as frozen values; their states, with the transitions beside them.

It knows no ledger, no protocol and no clock. Times are integer microseconds UTC, ids are the ledger's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bridge.domain.quality import Quality

SECOND = 1_000_000  # microseconds


class BuildState(StrEnum):
    """What is durably known of a build's end."""

    OPEN = "open"  # no end known
    ENDED = "ended"  # finalized_seq < batch_seq: something is to be finalized
    FINALIZED = "finalized"  # finalized_seq = batch_seq
    CLOSED = "closed"  # likewise, and there is no run


class EndedBy(StrEnum):
    """Who said that the build has ended."""

    BUILD_INFO = "build_info"
    CALLER = "caller"  # an upload said complete=true
    OPERATOR = "operator"
    IDLE = "idle"
    UNKNOWN = "unknown"  # CodeArts keeps saying that it knows no such build
    MAX_AGE = "max_age"


GUESSES = frozenset({EndedBy.IDLE, EndedBy.UNKNOWN, EndedBy.MAX_AGE})
"""Ends that hold only for the reports they have seen: a newer report takes them back."""

BUILD_TRANSITIONS = {
    BuildState.OPEN: frozenset({BuildState.ENDED}),
    BuildState.ENDED: frozenset({BuildState.OPEN, BuildState.FINALIZED, BuildState.CLOSED}),
    BuildState.FINALIZED: frozenset({BuildState.ENDED}),
    BuildState.CLOSED: frozenset({BuildState.ENDED}),
}


class DeliveryState(StrEnum):
    """What became of a report at one target."""

    OWED = "owed"
    DELIVERED = "delivered"
    DEAD = "dead"  # reason kept; owed again when sent again by a person or uploaded again by CI


DELIVERY_TRANSITIONS = {
    DeliveryState.OWED: frozenset({DeliveryState.DELIVERED, DeliveryState.DEAD}),
    DeliveryState.DELIVERED: frozenset[DeliveryState](),
    DeliveryState.DEAD: frozenset({DeliveryState.OWED, DeliveryState.DELIVERED}),
}


class RegistrationState(StrEnum):
    """The life of one upload that TestNod was asked to open."""

    ASKED = "asked"  # committed before the register call is made
    NAMED = "named"  # ids, URL and expiry known, committed before the PUT
    FAILED_OWED = "failed_owed"  # TestNod must be told upload_failed
    STORED = "stored"  # S3 said 200
    FAILED = "failed"  # TestNod knows that it failed
    LOST = "lost"  # nobody can name it; its run may stay pending


REGISTRATION_TRANSITIONS = {
    # Or gone: TestNod recorded nothing. Straight to failed_owed if it gave ids and no URL.
    RegistrationState.ASKED: frozenset(
        {RegistrationState.NAMED, RegistrationState.FAILED_OWED, RegistrationState.LOST}
    ),
    RegistrationState.NAMED: frozenset({RegistrationState.STORED, RegistrationState.FAILED_OWED}),
    RegistrationState.FAILED_OWED: frozenset(
        {RegistrationState.FAILED, RegistrationState.STORED, RegistrationState.LOST}
    ),
    RegistrationState.STORED: frozenset[RegistrationState](),
    RegistrationState.FAILED: frozenset[RegistrationState](),
    RegistrationState.LOST: frozenset({RegistrationState.FAILED_OWED}),
}

UNSETTLED = frozenset({RegistrationState.ASKED, RegistrationState.NAMED, RegistrationState.FAILED_OWED})
"""While a report has one of these it is never registered again, and its run is not finalized."""


class Target(StrEnum):
    """Whom a report is owed to."""

    TESTNOD = "testnod"
    CODEARTS = "codearts"  # where the route mirrors
    ARCHIVE = "archive"  # where reports are kept


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What an upload itself said of its build; used when record-info is away, compared with it when not."""

    branch: str | None = None
    commit: str | None = None
    project_id: str | None = None
    job_name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What the bridge needs of record-info (shared names with the reference page)."""

    devcloud_project_id: str | None = None
    repo_name: str | None = None
    branch: str | None = None
    tag: str | None = None
    commit: str | None = None
    daily_build_num: str | None = None
    trigger_type: str | None = None
    region: str | None = None
    build_record_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """What every run of a build is opened with: chosen once, in the commit of its first asked."""

    route: str
    build_id: str
    tags: tuple[str, ...]
    run_url: str
    branch: str | None
    commit: str | None
    pinned_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """One upload that TestNod was asked to open."""

    id: int
    delivery_id: int
    state: RegistrationState
    asked_at: int
    fence: int  # of the visit that asked
    test_run_id: str | None = None
    upload_id: str | None = None
    presigned_url: str | None = None  # a secret: gone as soon as it is not needed
    expires_at: int | None = None
    named_at: int | None = None
    stored_at: int | None = None
    attempts: int = 0  # of the call that is due next: PUT while named, upload_failed while failed_owed
    due_at: int = 0
    failing_since: int | None = None  # upload_failed has failed since
    put_uncertain: bool = False  # a PUT may have been stored although no answer said so
    failure: str | None = None  # what TestNod is told in failure_message


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """A report owed to one target."""

    id: int
    report_id: int
    target: Target
    state: DeliveryState
    owed_since: int
    trying_since: int | None = None  # the first try that came to nothing: the give-up clock
    trying_away_us: int = 0  # the route's away clock then
    rejected_since: int | None = None  # storage has rejected it since, while it took other reports of the route
    attempts: int = 0
    due_at: int = 0
    conflicted: bool = False  # the last register met 409: it goes alone
    delivered_at: int | None = None
    last_error: str | None = None  # of a dead one: its reason
    unread: str | None = None  # why the spool did not return its bytes at the last look; None: it did
    unread_since: int | None = None  # the first look with this reason, later by the time in which no gateway looked
    unread_at: int | None = None  # the last look


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One JUnit file as it was accepted; its bytes stay in the store."""

    id: int
    name: str
    node_id: str
    size: int  # bytes as received
    sent_size: int  # bytes of what is PUT
    sent_sha256: str
    accepted_at: int
    caller: str
    caller_routes: tuple[str, ...] | None  # routes the caller is bound to; None = any
    has_bytes: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A TestNod test run that the build's reports went to, oldest first."""

    test_run_id: str
    test_run_url: str
    opened_at: int
    status: str | None = None  # what the last finalize answered
    finalized_at: int | None = None
    project_id: str = ""  # of TestNod's project, as register answered it; empty: it did not say

    @property
    def is_pending(self) -> bool:
        """Whether the run has not been seen out of pending."""
        return self.status in (None, "pending")

    def may_be_of(self, project_id: str) -> bool:
        """Return whether the run may belong to the project: either side may not have named it."""
        return self.project_id == project_id or not (self.project_id and project_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """One run of a CodeArts build task with everything that is durably known of it."""

    id: int
    job_id: str
    build_no: int
    state: BuildState
    fence: int  # of the visit that read this
    batch_seq: int  # raised whenever something may have to be finalized
    finalized_seq: int  # batch_seq as the last finalize's visit read it
    accepted_at: int
    last_report_at: int
    said: Said
    complete_at: int | None = None  # an upload said complete=true
    look_at: int | None = None  # somebody who may know asked to look at build-info now
    ended_at: int | None = None
    ended_by: EndedBy | None = None
    ended_report_at: int | None = None  # last_report_at as a guessed end saw it
    build_result: str | None = None
    polled_at: int | None = None
    polls: int = 0
    poll_due_at: int = 0
    poll_reserved: bool = False  # poll_due_at is a slot under the common rate, already paid for
    unknown_since: int | None = None
    described_at: int | None = None  # record-info answered, or was given up
    describe_attempts: int = 0
    describe_due_at: int = 0
    describe_reserved: bool = False  # likewise
    record: Record | None = None
    identity_mismatch: str | None = None
    pin: Pin | None = None
    held: str | None = None  # why nothing is sent until a person mends something
    finalize_attempts: int = 0
    finalize_due_at: int = 0
    finalize_failing_since: int | None = None
    finalized_at: int | None = None
    confirm_until: int | None = None  # None: nothing to confirm
    confirm_due_at: int = 0
    confirm_attempts: int = 0
    quality: Quality | None = None  # None: CodeArts Check was not to be asked so far
    hold_since: int | None = None  # the batch's beginning: the end, or the last finalize
    hold_away_us: int = 0  # the route's away clock then
    mirror: str | None = None  # what CodeArts counts beside us: it agrees, or differs, and how
    mirror_compared_at: int | None = None
    mirror_due_at: int = 0
    stuck: str | None = None
    last_error: str | None = None
    earlier_in_line: bool = False  # an earlier build of its job stands in line for its run (domain/line.py)
    line_until: int | None = None  # it stands there itself, and goes then at the latest
    runs: tuple[Run, ...] = ()
    reports: Mapping[int, Report] = field(default_factory=dict)
    deliveries: Mapping[int, Delivery] = field(default_factory=dict)
    registrations: Mapping[int, Registration] = field(default_factory=dict)

    @property
    def ended_by_guess(self) -> bool:
        return self.ended_by in GUESSES

    def owed(self, target: Target) -> list[Delivery]:
        """Return the deliveries still owed to `target`, oldest first."""
        return [
            delivery
            for delivery in self.deliveries.values()
            if delivery.target is target and delivery.state is DeliveryState.OWED
        ]

    def unsettled(self) -> list[Registration]:
        """Return the registrations whose life has not ended."""
        return [registration for registration in self.registrations.values() if registration.state in UNSETTLED]
