"""A build, its reports, deliveries, registrations and runs as frozen values, and the tables of their states.

Ids are those of the ledger.
"""

from collections.abc import Iterable
from dataclasses import field
from enum import StrEnum

from bridge.domain.code_check.models import CodeCheckState
from bridge.domain.instants import EPOCH, ZERO, Duration, Instant
from bridge.domain.result_mismatch import MismatchKind
from bridge.domain.rows import Rows
from bridge.values import dataclass

BuildNo = int | str
"""What tells the builds of a job apart: CodeArts' number, or as text the build_id of a submitted build."""


class BuildState(StrEnum):
    """How far a build is."""

    OPEN = "open"  # it has not ended, as far as is known
    ENDED = "ended"  # finalized_seq < report_seq: reports wait for a finalize
    FINALIZED = "finalized"  # finalized_seq = report_seq
    NO_RUN = "no_run"  # the same, and TestNod has no run


class EndReason(StrEnum):
    """What showed that the build has ended."""

    BUILD_INFO = "build_info"
    CALLER = "caller"  # an upload had complete=true
    IDLE = "idle"  # no report came for polling.idle_timeout
    NOT_FOUND = "not_found"  # CodeArts has answered for polling.not_found_timeout that there is no such build
    MAX_AGE = "max_age"  # no report came for polling.max_age


INFERRED_END_REASONS = frozenset({EndReason.IDLE, EndReason.NOT_FOUND, EndReason.MAX_AGE})
"""Ends that hold only for the reports accepted before them: a newer report reverts them."""

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
    DEAD = "dead"  # given up; pending again if CI uploads the file again


DELIVERY_TRANSITIONS = {
    DeliveryState.PENDING: frozenset({DeliveryState.DELIVERED, DeliveryState.DEAD}),
    DeliveryState.DELIVERED: frozenset({DeliveryState.PENDING}),  # its run is replaced (lifecycle/replacement.py)
    DeliveryState.DEAD: frozenset({DeliveryState.PENDING, DeliveryState.DELIVERED}),
}


class RegistrationState(StrEnum):
    """How far one upload is that TestNod was asked to open."""

    REQUESTED = "requested"  # committed before the register call is made
    REGISTERED = "registered"  # ids, URL and expiry known, committed before the PUT
    FAILURE_UNREPORTED = "failure_unreported"  # upload_failed must be called
    STORED = "stored"  # storage answered the PUT with 200
    FAILED = "failed"  # upload_failed was answered
    LOST = "lost"  # its id is unknown or useless; its run may stay pending at TestNod


REGISTRATION_TRANSITIONS = {
    # Or deleted, if TestNod recorded nothing. To failure_unreported if TestNod answered with ids and no URL.
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
"""While a report has a registration in one of these, it is not registered again and its run is not finalized.

Registrations of an earlier generation do not count: their run was given up."""


class DeliveryTarget(StrEnum):
    """Where a report must be delivered."""

    TESTNOD = "testnod"
    CODEARTS = "codearts"  # if the route has mirror = true
    ARCHIVE = "archive"  # if store.archive is set


@dataclass(frozen=True, kw_only=True)
class UploadMetadata:
    """What an upload stated of its build; used if record-info cannot be read, otherwise compared with it."""

    branch: str | None = None
    commit: str | None = None
    project_id: str | None = None
    job_name: str | None = None

    def merged(self, other: "UploadMetadata") -> "UploadMetadata":
        """Return these values, and those of `other` that are missing here."""
        return UploadMetadata(
            branch=self.branch or other.branch,
            commit=self.commit or other.commit,
            project_id=self.project_id or other.project_id,
            job_name=self.job_name or other.job_name,
        )


@dataclass(frozen=True, kw_only=True)
class SubmittedRun:
    """What the first registration through TestNod's API stated of a run; empty values were not stated."""

    build_id: str
    branch: str = ""
    commit: str = ""
    run_url: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundMetadata:
    """What uploads of callers stated that are bound to the same routes; it counts for these routes only."""

    routes: tuple[str, ...]
    stated: UploadMetadata


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRecord:
    """What the bridge uses of record-info and of the details of the record; the names are those of record-info."""

    devcloud_project_id: str | None = None
    repo_name: str | None = None
    branch: str | None = None
    tag: str | None = None
    commit: str | None = None
    daily_build_num: str | None = None
    trigger_type: str | None = None
    region: str | None = None
    build_record_id: str | None = None
    job_name: str | None = None  # display_name of the details
    repo_url: str | None = None  # scm_web_url of the details: the page of the repository


@dataclass(frozen=True, kw_only=True, slots=True)
class RunParameters:
    """What every run of a build is opened with: chosen once, and committed with its first registration.

    Only a replaced run changes them: the next generation has a `build_id` of its own.
    """

    route: str
    build_id: str  # that of the route; from the second generation on with the suffix ".2", ".3"
    tags: tuple[str, ...]
    run_url: str
    branch: str | None
    commit: str | None
    chosen_at: Instant  # from the second generation on: when the run before it was last seen pending
    generation: int = 1  # raised each time a stuck run is replaced
    replaceable: bool = True  # false after a restore: another gateway may have replaced the run already

    def build_id_of(self, generation: int) -> str:
        """Return the build_id of an earlier or later generation."""
        own = self.build_id.removesuffix(f".{self.generation}") if self.generation > 1 else self.build_id
        return f"{own}.{generation}" if generation > 1 else own


@dataclass(frozen=True, kw_only=True)  # without slots: `changes.apply` copies these
class Registration:
    """One upload that TestNod was asked to open."""

    id: int
    delivery_id: int
    state: RegistrationState
    requested_at: Instant
    fencing_token: int  # of the lease under which it was requested
    test_run_id: str | None = None
    upload_id: str | None = None
    presigned_url: str | None = None  # a secret: deleted as soon as it is not needed
    expires_at: Instant | None = None
    registered_at: Instant | None = None
    stored_at: Instant | None = None
    attempts: int = 0  # of the call that is due next: the PUT, or upload_failed while failure_unreported
    due_at: Instant = EPOCH
    failing_since: Instant | None = None  # upload_failed has failed since then
    put_outcome_unknown: bool = False  # a PUT may have been stored although no response confirmed it
    failure: str | None = None  # what upload_failed sends as failure_message
    generation: int = 1  # of the run parameters it was requested with


@dataclass(frozen=True, kw_only=True)  # without slots: `changes.apply` copies these
class Delivery:
    """A report that must reach one target, or has reached it."""

    id: int
    report_id: int
    target: DeliveryTarget
    state: DeliveryState
    pending_since: Instant
    first_failure_at: Instant | None = None  # starts the give-up clock
    outage_us_at_first_failure: Duration = ZERO  # total_outage_us of the route then
    rejected_since: Instant | None = None  # storage has rejected it since then, and accepted other reports of the route
    blocked_since: Instant | None = None  # the settings keep it from its target: time_transitions.py, follow_settings
    attempts: int = 0
    due_at: Instant = EPOCH
    send_alone: bool = False  # the last register was answered 409, so no other is sent beside it
    delivered_at: Instant | None = None  # for the first time; kept if it is sent again in place of a stuck run
    last_error: str | None = None  # if dead: the reason
    unread: str | None = None  # why the spool did not return the bytes at the last read; None: it did
    unread_since: Instant | None = None  # the first read with this reason, later by the time in which no gateway ran
    unread_at: Instant | None = None  # the last read


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One JUnit file as it was accepted, without its bytes."""

    id: int
    name: str
    node_id: str
    size: int  # bytes as received
    sent_size: int  # bytes as delivered: they differ if it was decompressed, repaired or stripped
    sent_sha256: str
    accepted_at: Instant
    caller: str
    caller_routes: tuple[str, ...] | None  # routes the caller is bound to; None: any
    has_bytes: bool
    tests: int = 0
    failures: int = 0
    errors: int = 0
    skipped: int = 0
    suite_errors: int = 0  # suites with errors outside any test, which TestNod does not show
    generated: bool = False  # by the bridge itself
    failure: str | None = None  # why its file never came: TestNod is sent this reason, and no file
    trace_context: str | None = None  # traceparent and tracestate of W3C of its upload, in one text; None: not traced

    def may_go_to(self, route: str) -> bool:
        """Return whether the caller may use `route`."""
        return self.caller_routes is None or route in self.caller_routes


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A TestNod test run that the build's reports went to."""

    test_run_id: str
    test_run_url: str
    opened_at: Instant
    status: str | None = None  # as the last finalize answered
    finalized_at: Instant | None = None
    project_id: str = ""  # of TestNod's project, as register answered it; empty: not in the answer
    generation: int = 1  # of the run parameters it was opened with; only runs of the newest one count

    @property
    def is_pending(self) -> bool:
        """Return whether no answer has shown the run out of pending."""
        return self.status in (None, "pending")

    def may_be_of(self, project_id: str) -> bool:
        """Return whether the run may belong to the project; an empty id may stand for any."""
        return self.project_id == project_id or not (self.project_id and project_id)


@dataclass(frozen=True, kw_only=True)  # without slots: `changes.apply` copies these
class Build:
    """One run of a CodeArts build task, or one submitted build, and everything that the ledger has of it."""

    id: int
    job_id: str  # of a submitted build: its route
    build_no: BuildNo
    state: BuildState
    fencing_token: int  # of the lease under which this was read
    report_seq: int  # raised whenever something may have to be finalized
    finalized_seq: int  # report_seq at the last finalize
    accepted_at: Instant
    last_report_at: Instant
    upload_metadata: UploadMetadata  # of callers that may use any route
    bound_metadata: tuple[BoundMetadata, ...] = ()
    submitted: SubmittedRun | None = None  # uploaded through TestNod's API; CodeArts has no such build
    awaits_files: bool = False  # files were registered through TestNod's API whose PUTs may still come
    complete_at: Instant | None = None  # an upload had complete=true, or finalize was called
    complete_routes: tuple[str, ...] | None = None  # that the callers of such uploads may use; None: any
    poll_requested_at: Instant | None = None  # when a webhook last asked for a poll
    ended_at: Instant | None = None
    end_reason: EndReason | None = None
    ended_report_at: Instant | None = None  # last_report_at at an inferred end
    build_result: str | None = None  # empty: an upload ended the build, and CodeArts has no result of it
    result_mismatch: MismatchKind | None = None  # how it differs from the reports, as of the end of the grace period
    rejected: tuple[str, ...] = ()  # names of rejected files, empty for uploads; read only if there is no report
    polled_at: Instant | None = None
    polls: int = 0
    poll_due_at: Instant = EPOCH
    poll_reserved: bool = False  # poll_due_at is a slot of the shared rate limit
    not_found_since: Instant | None = None
    started_at: Instant | None = None  # as CodeArts has it
    running_at: Instant | None = None  # when CodeArts last answered that it runs
    listed_at: Instant | None = None  # when a list of its job was requested that shows it finished
    listed_result: str | None = None
    described_at: Instant | None = None  # when record-info was read
    describe_attempts: int = 0
    describe_due_at: Instant = EPOCH
    record: BuildRecord | None = None
    record_missing: bool = False  # record-info last answered that there is no such build
    metadata_mismatch: str | None = None
    run_parameters: RunParameters | None = None
    blocked_reason: str | None = None  # why nothing is sent until an operator acts
    blocked_quietly: bool = False  # that is no event: a pause, or another gateway may go on
    finalize_attempts: int = 0
    finalize_due_at: Instant = EPOCH
    finalize_failing_since: Instant | None = None
    finalized_at: Instant | None = None
    confirm_until: Instant | None = None  # None: nothing to confirm
    confirm_due_at: Instant = EPOCH
    confirm_attempts: int = 0
    code_check: CodeCheckState | None = None  # None: CodeArts Check has not been due so far
    finalize_hold_since: Instant | None = None  # the end of the build, or the last finalize
    outage_us_at_hold: Duration = ZERO  # total_outage_us of the route then; while finalized: testnod_outage_us
    mirror: str | None = None  # whether CodeArts counts the same tests, or how it differs
    mirror_compared_at: Instant | None = None
    mirror_due_at: Instant = EPOCH
    stuck_reason: str | None = None
    last_error: str | None = None
    earlier_in_queue: bool = False  # an earlier build of its job waits in the queue (job_order.py)
    queue_until: Instant | None = None  # it waits in the queue itself, until then at the latest
    runs: tuple[Run, ...] = ()
    reports: Rows[Report] = field(default_factory=Rows)
    deliveries: Rows[Delivery] = field(default_factory=Rows)
    registrations: Rows[Registration] = field(default_factory=Rows)

    @property
    def number(self) -> int:
        """Return the number that CodeArts counts; raise TypeError for a submitted build, which has none."""
        if isinstance(self.build_no, str):
            raise TypeError(f"build {self.build_no} is not of CodeArts")
        return self.build_no

    @property
    def own_reports(self) -> list[Report]:
        """Return the reports whose callers may use the route of the build; all while it has none."""
        route = self.run_parameters.route if self.run_parameters else None
        return [report for report in self.reports.values() if route is None or report.may_go_to(route)]

    @property
    def trace_contexts(self) -> tuple[str, ...]:
        """Return the trace contexts of the uploads of its reports, oldest first."""
        traced = (report.trace_context for report in self.reports.where(_is_traced))
        return tuple(dict.fromkeys(filter(None, traced)))

    @property
    def completed_at(self) -> Instant | None:
        """Return when a caller completed the build that certainly may use its route; None if none did."""
        routes, parameters = self.complete_routes, self.run_parameters
        counts = routes is None or (parameters is not None and parameters.route in routes)
        return self.complete_at if counts else None

    @property
    def end_is_inferred(self) -> bool:
        """Return whether the end holds only for the reports accepted before it."""
        return self.end_reason in INFERRED_END_REASONS

    @property
    def generation(self) -> int:
        """Return the generation of the runs that count: 1, and one more for each time a stuck run was replaced."""
        return self.run_parameters.generation if self.run_parameters else 1

    @property
    def current_runs(self) -> tuple[Run, ...]:
        """Return the runs of this generation, oldest first."""
        return tuple(run for run in self.runs if run.generation == self.generation)

    @property
    def current_registrations(self) -> list[Registration]:
        """Return the registrations of this generation."""
        generation = self.generation
        return [each for each in self.registrations.values() if each.generation == generation]

    def pending(self, target: DeliveryTarget) -> list[Delivery]:
        """Return the pending deliveries to `target`, oldest first."""
        return [delivery for delivery in self.deliveries.where(is_pending) if delivery.target is target]

    def sendable(self, target: DeliveryTarget) -> list[Delivery]:
        """Return the pending deliveries to `target` that no setting keeps from it, oldest first."""
        return [delivery for delivery in self.pending(target) if delivery.blocked_since is None]

    def has_report_for(self, route: str | None) -> bool:
        """Return whether a caller that may use `route` uploaded a report."""
        reports = self.reports.values()
        return any(not report.generated and (route is None or report.may_go_to(route)) for report in reports)

    def unsettled(self) -> list[Registration]:
        """Return the registrations of this generation in a state of UNSETTLED."""
        generation = self.generation
        return [each for each in self.registrations.where(is_unsettled) if each.generation == generation]

    @property
    def last_registered_at(self) -> Instant | None:
        """Return when the last upload of this generation was registered; None if none was."""
        return _latest(self.registrations.by_page(_last_registered_at, self.generation))

    @property
    def last_stored_at(self) -> Instant | None:
        """Return when the last report was stored in a run of this generation; None if none was."""
        return _latest(self.registrations.by_page(_last_stored_at, self.generation))


def is_pending(delivery: Delivery) -> bool:
    """Return whether the report must still reach its target."""
    return delivery.state is DeliveryState.PENDING


def is_unsettled(registration: Registration) -> bool:
    """Return whether it is still open what becomes of the upload, whatever its generation."""
    return registration.state in UNSETTLED


def _is_traced(report: Report) -> bool:
    return report.trace_context is not None


def _last_registered_at(registrations: Iterable[Registration], generation: int) -> Instant | None:
    return _latest(each.registered_at for each in registrations if each.generation == generation)


def _last_stored_at(registrations: Iterable[Registration], generation: int) -> Instant | None:
    return _latest(each.stored_at for each in registrations if each.generation == generation)


def _latest(times: Iterable[Instant | None]) -> Instant | None:
    return max((at for at in times if at is not None), default=None)
