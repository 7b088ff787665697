"""Rows of the ledger as typed tuples, and the values of the core that they become."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Table, func

from bridge.domain.build import (
    BoundMetadata,
    Build,
    BuildNo,
    BuildRecord,
    BuildState,
    Delivery,
    DeliveryState,
    DeliveryTarget,
    EndReason,
    Registration,
    RegistrationState,
    Report,
    Run,
    RunParameters,
    SubmittedRun,
    UploadMetadata,
)
from bridge.domain.circuit_breaker import CircuitBreaker
from bridge.domain.code_check.models import CodeCheckState, CodeCheckStatus
from bridge.domain.instants import Instant
from bridge.domain.intake import Rejection
from bridge.domain.job_order import is_queue
from bridge.domain.result_mismatch import MismatchKind
from bridge.domain.rows import Rows
from bridge.domain.text_format import page_url, printable
from bridge.store.duplicates import UPLOAD, build_of_key
from bridge.store.schema import NAME_LENGTH, builds, circuit_breakers, deliveries, registrations, reports, runs

# SQLite finds the length of a body without reading it.
HAS_BYTES = (func.length(reports.c.body).is_not(None) | reports.c.blob.is_not(None)).label("has_bytes")
IS_GENERATED = (reports.c.source != UPLOAD).label("generated")


class _BuildColumns(NamedTuple):
    """A row of `builds` as it is in the ledger."""

    id: int
    source: str
    key: str
    job_id: str | None
    build_no: int
    state: str
    report_seq: int
    finalized_seq: int
    due_at: int | None
    waiting_on: str | None
    lease_owner: str | None
    lease_until: int | None
    fencing_token: int
    accepted_at: int
    last_report_at: int
    upload_metadata: dict[str, str | None]
    bound_metadata: list[dict[str, Any]] | None
    submitted: dict[str, Any] | None
    awaits_files: bool
    complete_at: int | None
    complete_routes: list[str] | None
    poll_requested_at: int | None
    ended_at: int | None
    end_reason: str | None
    ended_report_at: int | None
    build_result: str | None
    result_mismatch: str | None
    polled_at: int | None
    polls: int
    poll_due_at: int
    poll_reserved: bool
    not_found_since: int | None
    started_at: int | None
    running_at: int | None
    listed_at: int | None
    listed_result: str | None
    described_at: int | None
    describe_attempts: int
    describe_due_at: int
    record: dict[str, str | None] | None
    record_missing: bool
    metadata_mismatch: str | None
    route: str
    run_parameters: dict[str, Any] | None
    blocked_reason: str | None
    blocked_quietly: bool
    finalize_attempts: int
    finalize_due_at: int
    finalize_failing_since: int | None
    finalized_at: int | None
    confirm_until: int | None
    confirm_due_at: int
    confirm_attempts: int
    code_check: dict[str, Any] | None
    finalize_hold_since: int | None
    outage_us_at_hold: int
    mirror: str | None
    mirror_compared_at: int | None
    mirror_due_at: int
    stuck_reason: str | None
    last_error: str | None


class BuildRow(_BuildColumns):
    """A row of `builds` whose `job_id` and `build_no` identify it: of a submitted build the columns hold its order."""

    __slots__ = ()

    @property
    def job_id(self) -> str:
        return build_of_key(self.source, self.key)[0]

    @property
    def build_no(self) -> BuildNo:  # type: ignore[override]
        return build_of_key(self.source, self.key)[1]

    @property
    def order(self) -> tuple[str | None, int]:
        """Return the queue of the build, None if it has none, and its place there."""
        return self[3], self[4]


class ReportRow(NamedTuple):
    """A row of `reports` without the bytes."""

    id: int
    build_id: int
    name: str
    node_id: str
    size: int
    sent_size: int
    received_sha256: str
    sent_sha256: str
    tests: int
    failures: int
    errors: int
    skipped: int
    flaky: int
    suite_errors: int
    disabled: int
    time_us: int
    notes: list[str]
    highlights: dict[str, Any] | None
    accepted_at: int
    caller: str
    caller_routes: list[str] | None
    has_bytes: bool
    generated: bool
    failure: str | None
    trace_context: str | None


class ReconciledReportRow(NamedTuple):
    """What reconcilers need of a row of `reports`: without what only people read, which costs more to read."""

    id: int
    name: str
    node_id: str
    size: int
    sent_size: int
    sent_sha256: str
    tests: int
    failures: int
    errors: int
    skipped: int
    suite_errors: int
    accepted_at: int
    caller: str
    caller_routes: list[str] | None
    has_bytes: bool
    generated: bool
    failure: str | None
    trace_context: str | None


class DeliveryRow(NamedTuple):
    """A row of `deliveries`."""

    id: int
    build_id: int
    report_id: int
    target: str
    state: str
    pending_since: int
    first_failure_at: int | None
    outage_us_at_first_failure: int
    rejected_since: int | None
    blocked_since: int | None
    attempts: int
    due_at: int
    send_alone: bool
    delivered_at: int | None
    last_error: str | None
    unread: str | None
    unread_since: int | None
    unread_at: int | None


class RegistrationRow(NamedTuple):
    """A row of `registrations`."""

    id: int
    build_id: int
    delivery_id: int
    state: str
    fencing_token: int
    requested_at: int
    test_run_id: str | None
    upload_id: str | None
    presigned_url: str | None
    expires_at: int | None
    registered_at: int | None
    stored_at: int | None
    attempts: int
    due_at: int
    failing_since: int | None
    put_outcome_unknown: bool
    failure: str | None
    generation: int


class RunRow(NamedTuple):
    """A row of `runs`."""

    id: int
    build_id: int
    test_run_id: str
    test_run_url: str
    opened_at: int
    status: str | None
    finalized_at: int | None
    project_id: str
    generation: int


class BreakerRow(NamedTuple):
    """A row of `circuit_breakers`."""

    name: str
    failures: int
    opened_at: int | None
    reason: str | None
    probes: int
    probe_at: int | None
    total_outage_us: int
    outage_began_at: int | None
    outage_ended_at: int | None
    probed_at: int | None
    first_failure_at: int | None
    succeeded_at: int | None
    builds: list[int] | None
    accepted_token: str | None
    rejected_token: str | None


def columns_for(table: Table, kind: type[NamedTuple], **replaced: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    """Return the columns of `table` in the order of the fields of `kind`, which `kind._make` then takes."""
    return [replaced[name] if name in replaced else table.c[name] for name in kind._fields]


BUILD_COLUMNS = columns_for(builds, BuildRow)
REPORT_COLUMNS = columns_for(reports, ReportRow, has_bytes=HAS_BYTES, generated=IS_GENERATED)
RECONCILED_REPORT_COLUMNS = columns_for(reports, ReconciledReportRow, has_bytes=HAS_BYTES, generated=IS_GENERATED)
DELIVERY_COLUMNS = columns_for(deliveries, DeliveryRow)
REGISTRATION_COLUMNS = columns_for(registrations, RegistrationRow)
RUN_COLUMNS = columns_for(runs, RunRow)
BREAKER_COLUMNS = columns_for(circuit_breakers, BreakerRow)


# -- rows to values ----------------------------------------------------------------------------------------------

_CONVERTED: Mapping[type, frozenset[str]] = {
    Build: frozenset({"state", "end_reason", "upload_metadata", "record", "run_parameters", "code_check"})
    | {"submitted", "awaits_files"}
    | {"bound_metadata", "complete_routes", "result_mismatch", "rejected", "earlier_in_queue", "queue_until"}
    | {"runs", "reports", "deliveries", "registrations"},
    Report: frozenset({"caller_routes", "has_bytes", "generated"}),
    Delivery: frozenset({"target", "state"}),
    Registration: frozenset({"state"}),
    Run: frozenset(),
    CircuitBreaker: frozenset({"builds"}),
    Rejection: frozenset({"at"}),
}
"""Fields of values that differ from their columns in name or type."""


@cache
def plain_fields(kind: type) -> tuple[str, ...]:
    """Return the fields of `kind` that have a column of the same name and value."""
    return tuple(field.name for field in fields(kind) if field.name not in _CONVERTED[kind])


@cache
def _plain_values(kind: type) -> "attrgetter[tuple[Any, ...]]":
    return attrgetter(*plain_fields(kind))


def _plain(kind: type, row: object) -> dict[str, Any]:
    return dict(zip(plain_fields(kind), _plain_values(kind)(row), strict=True))


def to_build(
    row: BuildRow,
    *,
    reports: Iterable[ReportRow | ReconciledReportRow],
    deliveries: Iterable[DeliveryRow],
    registrations: Iterable[RegistrationRow],
    runs: Iterable[RunRow],
    rejected: Iterable[str] = (),
) -> Build:
    """Return the build with all its rows, which are in the order of their ids."""
    return Build(
        **_plain(Build, row),
        state=BuildState(row.state),
        end_reason=EndReason(row.end_reason) if row.end_reason else None,
        result_mismatch=MismatchKind(row.result_mismatch) if row.result_mismatch else None,
        rejected=tuple(rejected),
        submitted=None if row.submitted is None else to_submitted_run(row.submitted),
        awaits_files=bool(row.awaits_files),
        complete_routes=None if row.complete_routes is None else tuple(row.complete_routes),
        upload_metadata=UploadMetadata(**row.upload_metadata),
        bound_metadata=tuple(
            BoundMetadata(routes=tuple(bound["routes"]), stated=UploadMetadata(**bound["stated"]))
            for bound in row.bound_metadata or ()
        ),
        record=BuildRecord(**row.record) if row.record else None,
        run_parameters=to_run_parameters(row.run_parameters) if row.run_parameters else None,
        code_check=to_code_check(row.code_check) if row.code_check else None,
        queue_until=Instant(row.due_at) if row.due_at is not None and is_queue(row.waiting_on) else None,
        runs=tuple(Run(**(_plain(Run, run) | {"test_run_url": page_url(run.test_run_url)})) for run in runs),
        reports=Rows(map(to_report, reports)),
        deliveries=Rows(map(to_delivery, deliveries)),
        registrations=Rows(map(to_registration, registrations)),
    )


def to_run_parameters(values: Mapping[str, Any]) -> RunParameters:
    """Return the run parameters of a JSON column."""
    return RunParameters(**{**values, "tags": tuple(values["tags"])})


def to_submitted_run(values: Mapping[str, Any]) -> SubmittedRun:
    """Return the run of a JSON column that a registration stated."""
    return SubmittedRun(**{**values, "tags": tuple(values["tags"])})


def to_code_check(values: Mapping[str, Any]) -> CodeCheckState:
    """Return the state of the code check of a JSON column."""
    return CodeCheckState(**{**values, "state": CodeCheckStatus(values["state"])})


def to_report(row: ReportRow | ReconciledReportRow) -> Report:
    """Return the report without its bytes."""
    return Report(
        **_plain(Report, row),
        caller_routes=None if row.caller_routes is None else tuple(row.caller_routes),
        has_bytes=bool(row.has_bytes),
        generated=bool(row.generated),
    )


def to_delivery(row: DeliveryRow) -> Delivery:
    """Return the delivery."""
    return Delivery(**_plain(Delivery, row), target=DeliveryTarget(row.target), state=DeliveryState(row.state))


def to_registration(row: RegistrationRow) -> Registration:
    """Return the registration."""
    return Registration(**_plain(Registration, row), state=RegistrationState(row.state))


def to_breaker(row: BreakerRow) -> CircuitBreaker:
    """Return the circuit breaker of a row of `circuit_breakers`."""
    return CircuitBreaker(**_plain(CircuitBreaker, row), builds=tuple(row.builds or ()))


def to_rejection(row: Row[Any]) -> Rejection:
    """Return the rejection of a row of `rejections`, without its bytes."""
    return Rejection(**_plain(Rejection, row))


# -- values to columns -------------------------------------------------------------------------------------------


def columns_of_build(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of `builds` for new values of fields of `Build`."""
    columns = dict(values)
    for name in ("upload_metadata", "record", "run_parameters", "code_check"):
        if columns.get(name) is not None:
            columns[name] = asdict(columns[name])
    if "run_parameters" in values:
        parameters = values["run_parameters"]
        columns |= {
            "route": parameters.route if parameters else "",
            "branch": parameters.branch if parameters else None,
            "commit": parameters.commit if parameters else None,
        }
    return columns


def shown_name(name: str) -> str:
    """Return a file's name for display: unprintable characters escaped, at most NAME_LENGTH characters."""
    escaped = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return printable(escaped)[:NAME_LENGTH]
