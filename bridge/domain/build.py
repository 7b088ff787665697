"""A build and all that belongs to it, as frozen values; their states, with the transitions beside them.

It knows no ledger, no protocol and no clock. Times are integer microseconds UTC, ids are the ledger's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bridge.domain.code_check.models import CodeCheckState

SECOND = 1_000_000  # microseconds


class BuildState(StrEnum):
    """What is durably known of a build's end."""

    OPEN = "open"  # no end known
    ENDED = "ended"  # finalized_seq < report_seq: something is to be finalized
    FINALIZED = "finalized"  # finalized_seq = report_seq
    NO_RUN = "no_run"  # likewise, and there is no run


class EndReason(StrEnum):
    """Who said that the build has ended."""

    BUILD_INFO = "build_info"
    CALLER = "caller"  # an upload said complete=true
    IDLE = "idle"
    NOT_FOUND = "not_found"  # CodeArts keeps saying that it knows no such build
    MAX_AGE = "max_age"


INFERRED_END_REASONS = frozenset({EndReason.IDLE, EndReason.NOT_FOUND, EndReason.MAX_AGE})
"""Ends that hold only for the reports they have seen: a newer report takes them back."""

BUILD_TRANSITIONS = {
    BuildState.OPEN: frozenset({BuildState.ENDED}),
    BuildState.ENDED: frozenset({BuildState.OPEN, BuildState.FINALIZED, BuildState.NO_RUN}),
    BuildState.FINALIZED: frozenset({BuildState.ENDED}),
    BuildState.NO_RUN: frozenset({BuildState.ENDED}),
}


class DeliveryState(StrEnum):
    """What became of a report at one target."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"  # reason kept; owed again when sent again by a person or uploaded again by CI


DELIVERY_TRANSITIONS = {
    DeliveryState.PENDING: frozenset({DeliveryState.DELIVERED, DeliveryState.DEAD}),
    DeliveryState.DELIVERED: frozenset[DeliveryState](),
    DeliveryState.DEAD: frozenset({DeliveryState.PENDING, DeliveryState.DELIVERED}),
}


class RegistrationState(StrEnum):
    """The life of one upload that TestNod was asked to open."""

    REQUESTED = "requested"  # committed before the register call is made
    REGISTERED = "registered"  # ids, URL and expiry known, committed before the PUT
    FAILURE_UNREPORTED = "failure_unreported"  # TestNod must be told upload_failed
    STORED = "stored"  # S3 said 200
    FAILED = "failed"  # TestNod knows that it failed
    LOST = "lost"  # nobody can name it; its run may stay pending


REGISTRATION_TRANSITIONS = {
    # Or gone: TestNod recorded nothing. Straight to failure_unreported if it gave ids and no URL.
    RegistrationState.REQUESTED: frozenset(
        {RegistrationState.REGISTERED, RegistrationState.FAILURE_UNREPORTED, RegistrationState.LOST}
    ),
    RegistrationState.REGISTERED: frozenset({RegistrationState.STORED, RegistrationState.FAILURE_UNREPORTED}),
    RegistrationState.FAILURE_UNREPORTED: frozenset(
        {RegistrationState.FAILED, RegistrationState.STORED, RegistrationState.LOST}
    ),
    RegistrationState.STORED: frozenset[RegistrationState](),
    RegistrationState.FAILED: frozenset[RegistrationState](),
    RegistrationState.LOST: frozenset({RegistrationState.FAILURE_UNREPORTED}),
}

UNSETTLED = frozenset({RegistrationState.REQUESTED, RegistrationState.REGISTERED, RegistrationState.FAILURE_UNREPORTED})
"""While a report has one of these it is never registered again, and its run is not finalized."""


class DeliveryTarget(StrEnum):
    """Whom a report is owed to."""

    TESTNOD = "testnod"
    CODEARTS = "codearts"  # where the route mirrors
    ARCHIVE = "archive"  # where reports are kept


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadMetadata:
    """What an upload itself said of its build; used when record-info is away, compared with it when not."""

    branch: str | None = None
    commit: str | None = None
    project_id: str | None = None
    job_name: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRecord:
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
class RunParameters:
    """What every run of a build is opened with: chosen once, in the commit of its first asked."""

    route: str
    build_id: str
    tags: tuple[str, ...]
    run_url: str
    branch: str | None
    commit: str | None
    chosen_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """One upload that TestNod was asked to open."""

    id: int
    delivery_id: int
    state: RegistrationState
    requested_at: int
    fencing_token: int  # of the visit that asked
    test_run_id: str | None = None
    upload_id: str | None = None
    presigned_url: str | None = None  # a secret: gone as soon as it is not needed
    expires_at: int | None = None
    registered_at: int | None = None
    stored_at: int | None = None
    attempts: int = 0  # of the call that is due next: PUT while named, upload_failed while failure_unreported
    due_at: int = 0
    failing_since: int | None = None  # upload_failed has failed since
    put_outcome_unknown: bool = False  # a PUT may have been stored although no answer said so
    failure: str | None = None  # what TestNod is told in failure_message


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """A report owed to one target."""

    id: int
    report_id: int
    target: DeliveryTarget
    state: DeliveryState
    pending_since: int
    first_failure_at: int | None = None  # the first try that came to nothing: the give-up clock
    outage_us_at_first_failure: int = 0  # the route's away clock then
    rejected_since: int | None = None  # storage has rejected it since, while it took other reports of the route
    attempts: int = 0
    due_at: int = 0
    send_alone: bool = False  # the last register met 409: it goes alone
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
    fencing_token: int  # of the visit that read this
    report_seq: int  # raised whenever something may have to be finalized
    finalized_seq: int  # report_seq as the last finalize's visit read it
    accepted_at: int
    last_report_at: int
    upload_metadata: UploadMetadata
    complete_at: int | None = None  # an upload said complete=true
    poll_requested_at: int | None = None  # somebody who may know asked to look at build-info now
    ended_at: int | None = None
    end_reason: EndReason | None = None
    ended_report_at: int | None = None  # last_report_at as a guessed end saw it
    build_result: str | None = None
    polled_at: int | None = None
    polls: int = 0
    poll_due_at: int = 0
    poll_reserved: bool = False  # poll_due_at is a slot under the common rate, already paid for
    not_found_since: int | None = None
    described_at: int | None = None  # record-info answered, or was given up
    describe_attempts: int = 0
    describe_due_at: int = 0
    describe_reserved: bool = False  # likewise
    record: BuildRecord | None = None
    metadata_mismatch: str | None = None
    run_parameters: RunParameters | None = None
    blocked_reason: str | None = None  # why nothing is sent until a person mends something
    finalize_attempts: int = 0
    finalize_due_at: int = 0
    finalize_failing_since: int | None = None
    finalized_at: int | None = None
    confirm_until: int | None = None  # None: nothing to confirm
    confirm_due_at: int = 0
    confirm_attempts: int = 0
    code_check: CodeCheckState | None = None  # None: CodeArts Check was not to be asked so far
    finalize_hold_since: int | None = None  # the batch's beginning: the end, or the last finalize
    outage_us_at_hold: int = 0  # the route's away clock then
    mirror: str | None = None  # what CodeArts counts beside us: it agrees, or differs, and how
    mirror_compared_at: int | None = None
    mirror_due_at: int = 0
    stuck_reason: str | None = None
    last_error: str | None = None
    earlier_in_queue: bool = False  # an earlier build of its job stands in line for its run (domain/job_order.py)
    line_until: int | None = None  # it stands there itself, and goes then at the latest
    runs: tuple[Run, ...] = ()
    reports: Mapping[int, Report] = field(default_factory=dict)
    deliveries: Mapping[int, Delivery] = field(default_factory=dict)
    registrations: Mapping[int, Registration] = field(default_factory=dict)

    @property
    def end_is_inferred(self) -> bool:
        return self.end_reason in INFERRED_END_REASONS

    def owed(self, target: DeliveryTarget) -> list[Delivery]:
        """Return the deliveries still owed to `target`, oldest first."""
        return [
            delivery
            for delivery in self.deliveries.values()
            if delivery.target is target and delivery.state is DeliveryState.PENDING
        ]

    def unsettled(self) -> list[Registration]:
        """Return the registrations whose life has not ended."""
        return [registration for registration in self.registrations.values() if registration.state in UNSETTLED]
