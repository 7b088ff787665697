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
    BuildState,
    Delivery,
    DeliveryState,
    EndedBy,
    Pin,
    Record,
    Registration,
    RegistrationState,
    Report,
    Run,
    Said,
    Target,
)
from bridge.domain.gates import Gate
from bridge.domain.line import is_line
from bridge.domain.quality import Quality, QualityState
from bridge.domain.refusals import Refusal
from bridge.store.schema import NAME_LENGTH

PLAIN = {
    kind: tuple(field.name for field in fields(kind) if field.name not in special)
    for kind, special in (
        (
            Build,
            {"state", "ended_by", "said", "record", "pin", "quality", "earlier_in_line", "line_until"}
            | {"runs", "reports", "deliveries", "registrations"},
        ),
        (Report, {"caller_routes", "has_bytes"}),
        (Delivery, {"target", "state"}),
        (Registration, {"state"}),
        (Run, set[str]()),
        (Gate, {"builds"}),
        (Refusal, set[str]()),
    )
}
"""Fields whose column has the same name and the same value."""


_TAKEN = {kind: attrgetter(*names) for kind, names in PLAIN.items()}


def _plain(
    kind: type[Build | Report | Delivery | Registration | Run | Gate | Refusal], row: Row[Any]
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
        ended_by=EndedBy(row.ended_by) if row.ended_by else None,
        said=Said(**row.said),
        record=Record(**row.record) if row.record else None,
        pin=to_pin(row.pin) if row.pin else None,
        quality=to_quality(row.quality) if row.quality else None,
        line_until=row.due_at if is_line(row.waits_for) else None,
        runs=tuple(Run(**_plain(Run, run)) for run in runs),
        reports={report.id: to_report(report) for report in reports},
        deliveries={delivery.id: to_delivery(delivery) for delivery in deliveries},
        registrations={registration.id: to_registration(registration) for registration in registrations},
    )


def to_pin(values: Mapping[str, Any]) -> Pin:
    """Return the pin kept in its JSON column."""
    return Pin(**{**values, "tags": tuple(values["tags"])})


def to_quality(values: Mapping[str, Any]) -> Quality:
    """Return how far the asking of CodeArts Check is, kept in its JSON column."""
    return Quality(**{**values, "state": QualityState(values["state"])})


def to_report(row: Row[Any]) -> Report:
    """Return the report without its bytes."""
    return Report(
        **_plain(Report, row),
        caller_routes=None if row.caller_routes is None else tuple(row.caller_routes),
        has_bytes=bool(row.has_bytes),
    )


def to_delivery(row: Row[Any]) -> Delivery:
    """Return the delivery."""
    return Delivery(**_plain(Delivery, row), target=Target(row.target), state=DeliveryState(row.state))


def to_registration(row: Row[Any]) -> Registration:
    """Return the registration."""
    return Registration(
        **_plain(Registration, row),
        state=RegistrationState(row.state),
    )


def to_gate(row: Row[Any]) -> Gate:
    """Return the gate of one upstream."""
    return Gate(**_plain(Gate, row), builds=tuple(row.builds or ()))


def to_refusal(row: Row[Any]) -> Refusal:
    """Return the refusal without its bytes."""
    return Refusal(**_plain(Refusal, row))


def columns_of_build(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the columns of `builds` get for new values of a Build."""
    columns = dict(values)
    for name in ("said", "record", "pin", "quality"):
        if columns.get(name) is not None:
            columns[name] = asdict(columns[name])
    if values.get("pin") is not None:
        columns["route"] = values["pin"].route
    return columns


def shown_name(name: str) -> str:
    """Return a file's name as people see it: escaped where it would not print or store, and cut."""
    escaped = name.encode("utf-8", "backslashreplace").decode("utf-8")
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in escaped)
    return printable[:NAME_LENGTH]
