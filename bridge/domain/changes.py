"""What a decision or an outcome changes: values that the ledger writes down and that apply to a build in memory.

It knows neither how they are stored nor why they were decided. Every change to a delivery or registration
names the states it may leave, so that a late writer changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from bridge.domain.build import (
    BUILD_TRANSITIONS,
    DELIVERY_TRANSITIONS,
    REGISTRATION_TRANSITIONS,
    Build,
    BuildState,
    Delivery,
    DeliveryState,
    Registration,
    RegistrationState,
    Report,
    Run,
)
from bridge.domain.code_check.models import CODE_CHECK_TRANSITIONS, CodeCheckState, CodeCheckStatus
from bridge.domain.junit.result import TestCounts


@dataclass(frozen=True, slots=True)
class SetBuild:
    """New values for fields of the build; `values` are names and values of `Build`."""

    values: MappingProxyType[str, Any]


@dataclass(frozen=True, slots=True)
class SetDelivery:
    """New values for one delivery, where it is still in `leaves`."""

    id: int
    leaves: DeliveryState
    values: MappingProxyType[str, Any]


@dataclass(frozen=True, slots=True)
class SetRegistration:
    """New values for one registration, where it is still in `leaves`."""

    id: int
    leaves: RegistrationState
    values: MappingProxyType[str, Any]


@dataclass(frozen=True, slots=True)
class DropRegistration:
    """The register call had no effect at all: its row goes, where it is still asked."""

    id: int


@dataclass(frozen=True, slots=True)
class AddRun:
    """A run nobody had seen before, unless it is known by now."""

    test_run_id: str
    test_run_url: str
    opened_at: int
    project_id: str = ""


@dataclass(frozen=True, slots=True)
class SetRun:
    """New values for one run."""

    test_run_id: str
    values: MappingProxyType[str, Any]


State = TypeVar("State", BuildState, DeliveryState, RegistrationState, CodeCheckStatus)


@dataclass(frozen=True, slots=True)
class BumpReportSeq:
    """`report_seq` goes up by one, from whatever it is by then: intake raises it too."""


@dataclass(frozen=True, slots=True)
class AddRegistration:
    """A registration was asked for; the ledger gave it its id."""

    registration: Registration


@dataclass(frozen=True, slots=True)
class AddDelivery:
    """A report is owed to one target more; the ledger gave it its id."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class AddReport:
    """A report that the bridge made itself, owed as `deliveries` say; the ledger gave all their ids.

    A report with id 0 is there already, and nothing changes.
    """

    report: Report
    deliveries: tuple[Delivery, ...]
    body: bytes
    counts: TestCounts


Change = (
    SetBuild
    | BumpReportSeq
    | SetDelivery
    | AddDelivery
    | AddRegistration
    | SetRegistration
    | DropRegistration
    | AddReport
    | AddRun
    | SetRun
)


def set_build(**values: Any) -> SetBuild:
    """Say new values of the build."""
    return SetBuild(MappingProxyType(values))


def set_delivery(delivery: Delivery, **values: Any) -> SetDelivery:
    """Say new values of `delivery`, to hold while it is still in the state it has here."""
    return SetDelivery(delivery.id, delivery.state, MappingProxyType(values))


def set_registration(registration: Registration, **values: Any) -> SetRegistration:
    """Say new values of `registration`, to hold while it is still in the state it has here."""
    return SetRegistration(registration.id, registration.state, MappingProxyType(values))


def set_run(run: Run, **values: Any) -> SetRun:
    """Say new values of `run`."""
    return SetRun(run.test_run_id, MappingProxyType(values))


def apply(build: Build, changes: Iterable[Change]) -> Build:
    """Return `build` as it is after `changes`; raise ValueError for a transition that the tables do not list."""
    for change in changes:
        build = _apply_one(build, change)
    return build


def _apply_one(build: Build, change: Change) -> Build:
    match change:
        case SetBuild(values):
            _check(BUILD_TRANSITIONS, build.state, values.get("state"))
            _check_quality(build.code_check, values.get("code_check"))
            return replace(build, **values)
        case BumpReportSeq():
            return replace(build, report_seq=build.report_seq + 1)
        case SetDelivery():
            return _apply_to_delivery(build, change)
        case SetRegistration():
            return _apply_to_registration(build, change)
        case AddDelivery(delivery):
            return replace(build, deliveries={**build.deliveries, delivery.id: delivery})
        case AddRegistration(registration):
            return replace(build, registrations={**build.registrations, registration.id: registration})
        case DropRegistration(registration_id):
            kept = {key: value for key, value in build.registrations.items() if key != registration_id}
            return replace(build, registrations=kept)
        case AddReport(report, deliveries):
            return _with_report(build, report, deliveries) if report.id else build
        case AddRun() | SetRun():
            return replace(build, runs=_runs_after(build, change))


def _apply_to_delivery(build: Build, change: SetDelivery) -> Build:
    delivery = build.deliveries[change.id]
    if delivery.state is not change.leaves:
        return build
    _check(DELIVERY_TRANSITIONS, delivery.state, change.values.get("state"))
    return replace(build, deliveries={**build.deliveries, change.id: replace(delivery, **change.values)})


def _apply_to_registration(build: Build, change: SetRegistration) -> Build:
    registration = build.registrations[change.id]
    if registration.state is not change.leaves:
        return build
    _check(REGISTRATION_TRANSITIONS, registration.state, change.values.get("state"))
    return replace(build, registrations={**build.registrations, change.id: replace(registration, **change.values)})


def _runs_after(build: Build, change: AddRun | SetRun) -> tuple[Run, ...]:
    if isinstance(change, SetRun):
        named, values = change.test_run_id, change.values
        return tuple(replace(run, **values) if run.test_run_id == named else run for run in build.runs)
    if any(run.test_run_id == change.test_run_id for run in build.runs):
        return build.runs
    new = Run(
        test_run_id=change.test_run_id,
        test_run_url=change.test_run_url,
        opened_at=change.opened_at,
        project_id=change.project_id,
    )
    return (*build.runs, new)


def _with_report(build: Build, report: Report, deliveries: Iterable[Delivery]) -> Build:
    return replace(
        build,
        reports={**build.reports, report.id: report},
        deliveries={**build.deliveries, **{delivery.id: delivery for delivery in deliveries}},
    )


def _check_quality(leaves: CodeCheckState | None, enters: CodeCheckState | None) -> None:
    if leaves is not None and enters is not None:
        _check(CODE_CHECK_TRANSITIONS, leaves.state, enters.state)


def _check(table: Mapping[State, frozenset[State]], leaves: State, enters: State | None) -> None:
    if enters is not None and enters != leaves and enters not in table[leaves]:
        raise ValueError(f"no transition from {leaves} to {enters}")
