"""Rows into the core's values and back.

It knows the tables and the values, and no statement.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from operator import attrgetter
from typing import Any

from sqlalchemy import Row

from bridge.domain.build import (
    Build,
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
    UploadMetadata,
)
from bridge.domain.circuit_breaker import CircuitBreaker
from bridge.domain.code_check.models import CodeCheckState, CodeCheckStatus
from bridge.domain.job_order import is_line
from bridge.domain.rejections import Rejection
from bridge.store.schema import NAME_LENGTH

PLAIN = {
    kind: tuple(field.name for field in fields(kind) if field.name not in special)
    for kind, special in (
        (
            Build,
            {
                "state",
                "end_reason",
                "upload_metadata",
                "record",
                "run_parameters",
                "code_check",
                "earlier_in_queue",
                "line_until",
            }
            | {"runs", "reports", "deliveries", "registrations"},
        ),
        (Report, {"caller_routes", "has_bytes"}),
        (Delivery, {"target", "state"}),
        (Registration, {"state"}),
        (Run, set[str]()),
        (CircuitBreaker, {"builds"}),
        (Rejection, {"at"}),
    )
}
"""Fields whose column has the same name and the same value."""


_TAKEN = {kind: attrgetter(*names) for kind, names in PLAIN.items()}


def _plain(
    kind: type[Build | Report | Delivery | Registration | Run | CircuitBreaker | Rejection], row: Row[Any]
) -> dict[str, Any]:
    return dict(zip(PLAIN[kind], _TAKEN[kind](row), strict=True))


def to_build(
    row: Row[Any],
    *,
    reports: Iterable[Row[Any]],
    deliveries: Iterable[Row[Any]],
    registrations: Iterable[Row[Any]],
    runs: Iterable[Row[Any]],
) -> Build:
    """Return the build with all that belongs to it; the rows come in the order of their ids."""
    return Build(
        **_plain(Build, row),
        state=BuildState(row.state),
        end_reason=EndReason(row.end_reason) if row.end_reason else None,
        upload_metadata=UploadMetadata(**row.upload_metadata),
        record=BuildRecord(**row.record) if row.record else None,
        run_parameters=to_run_parameters(row.run_parameters) if row.run_parameters else None,
        code_check=to_code_check(row.code_check) if row.code_check else None,
        line_until=row.due_at if is_line(row.waiting_on) else None,
        runs=tuple(Run(**_plain(Run, run)) for run in runs),
        reports={report.id: to_report(report) for report in reports},
        deliveries={delivery.id: to_delivery(delivery) for delivery in deliveries},
        registrations={registration.id: to_registration(registration) for registration in registrations},
    )


def to_run_parameters(values: Mapping[str, Any]) -> RunParameters:
    """Return the pin kept in its JSON column."""
    return RunParameters(**{**values, "tags": tuple(values["tags"])})


def to_code_check(values: Mapping[str, Any]) -> CodeCheckState:
    """Return how far the asking of CodeArts Check is, kept in its JSON column."""
    return CodeCheckState(**{**values, "state": CodeCheckStatus(values["state"])})


def to_report(row: Row[Any]) -> Report:
    """Return the report without its bytes."""
    return Report(
        **_plain(Report, row),
        caller_routes=None if row.caller_routes is None else tuple(row.caller_routes),
        has_bytes=bool(row.has_bytes),
    )


def to_delivery(row: Row[Any]) -> Delivery:
    """Return the delivery."""
    return Delivery(**_plain(Delivery, row), target=DeliveryTarget(row.target), state=DeliveryState(row.state))


def to_registration(row: Row[Any]) -> Registration:
    """Return the registration."""
    return Registration(
        **_plain(Registration, row),
        state=RegistrationState(row.state),
    )


def to_breaker(row: Row[Any]) -> CircuitBreaker:
    """Return the gate of one upstream."""
    return CircuitBreaker(**_plain(CircuitBreaker, row), builds=tuple(row.builds or ()))


def to_rejection(row: Row[Any]) -> Rejection:
    """Return the refusal without its bytes."""
    return Rejection(**_plain(Rejection, row), at=row.rejected_at)


def columns_of_build(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the columns of `builds` get for new values of a Build."""
    columns = dict(values)
    for name in ("upload_metadata", "record", "run_parameters", "code_check"):
        if columns.get(name) is not None:
            columns[name] = asdict(columns[name])
    if values.get("run_parameters") is not None:
        columns["route"] = values["run_parameters"].route
    return columns


def shown_name(name: str) -> str:
    """Return a file's name as people see it: escaped where it would not print or store, and cut."""
    escaped = name.encode("utf-8", "backslashreplace").decode("utf-8")
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in escaped)
    return printable[:NAME_LENGTH]
