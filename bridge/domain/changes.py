"""Changes as values: the ledger writes them, and `apply` applies the same values to a build in memory.

Every change to a delivery or registration names the state it leaves, so that a late writer changes nothing.
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
from bridge.domain.instants import Instant
from bridge.domain.junit.result import TestCounts


@dataclass(frozen=True, slots=True)
class SetBuild:
    """New values for fields of the build; `values` are names and values of `Build`."""

    values: MappingProxyType[str, Any]


@dataclass(frozen=True, slots=True)
class SetDelivery:
    """New values for one delivery, if it is still in state `leaves`."""

    id: int
    leaves: DeliveryState
    values: MappingProxyType[str, Any]


@dataclass(frozen=True, slots=True)
class SetRegistration:
    """New values for one registration, if it is still in state `leaves`."""

    id: int
    leaves: RegistrationState
    values: MappingProxyType[str, Any]


@dataclass(frozen=True, slots=True)
class DropRegistration:
    """Delete a registration whose register call had no effect, if it is still `requested`."""

    id: int


@dataclass(frozen=True, slots=True)
class AddRun:
    """A new run, unless the ledger has it by now."""

    test_run_id: str
    test_run_url: str
    opened_at: Instant
    project_id: str = ""
    generation: int = 1


@dataclass(frozen=True, slots=True)
class SetRun:
    """New values for one run."""

    test_run_id: str
    values: MappingProxyType[str, Any]


State = TypeVar("State", BuildState, DeliveryState, RegistrationState, CodeCheckStatus)


@dataclass(frozen=True, slots=True)
class BumpReportSeq:
    """Raise `report_seq` by one from its value in the ledger, which uploads raise too."""


@dataclass(frozen=True, slots=True)
class AddRegistration:
    """A new registration; the ledger assigns its id."""

    registration: Registration


@dataclass(frozen=True, slots=True)
class AddDelivery:
    """A new delivery of a report; the ledger assigns its id."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class AddReport:
    """A report that the bridge generated, with its deliveries; the ledger assigns all ids.

    If the id is still 0 after that, the ledger had the report already, and nothing changes.
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
    """Return new values for the build."""
    return SetBuild(MappingProxyType(values))


def set_delivery(delivery: Delivery, **values: Any) -> SetDelivery:
    """Return new values for `delivery`, which apply if it is still in the state it has here."""
    return SetDelivery(delivery.id, delivery.state, MappingProxyType(values))


def set_registration(registration: Registration, **values: Any) -> SetRegistration:
    """Return new values for `registration`, which apply if it is still in the state it has here."""
    return SetRegistration(registration.id, registration.state, MappingProxyType(values))


def set_run(run: Run, **values: Any) -> SetRun:
    """Return new values for `run`."""
    return SetRun(run.test_run_id, MappingProxyType(values))


def apply(build: Build, changes: Iterable[Change]) -> Build:
    """Return `build` after `changes`; raise ValueError for a transition that the tables of build.py do not list."""
    for change in changes:
        build = _apply_one(build, change)
    return build


def _apply_one(build: Build, change: Change) -> Build:
    match change:
        case SetBuild(values):
            _check(BUILD_TRANSITIONS, build.state, values.get("state"))
            _check_code_check(build.code_check, values.get("code_check"))
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
            registrations = {key: value for key, value in build.registrations.items() if key != registration_id}
            return replace(build, registrations=registrations)
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
        run_id, values = change.test_run_id, change.values
        return tuple(replace(run, **values) if run.test_run_id == run_id else run for run in build.runs)
    if any(run.test_run_id == change.test_run_id for run in build.runs):
        return build.runs
    new = Run(
        test_run_id=change.test_run_id,
        test_run_url=change.test_run_url,
        opened_at=change.opened_at,
        project_id=change.project_id,
        generation=change.generation,
    )
    return (*build.runs, new)


def _with_report(build: Build, report: Report, deliveries: Iterable[Delivery]) -> Build:
    return replace(
        build,
        reports={**build.reports, report.id: report},
        deliveries={**build.deliveries, **{delivery.id: delivery for delivery in deliveries}},
    )


def _check_code_check(leaves: CodeCheckState | None, enters: CodeCheckState | None) -> None:
    if leaves is not None and enters is not None:
        _check(CODE_CHECK_TRANSITIONS, leaves.state, enters.state)


def _check(table: Mapping[State, frozenset[State]], leaves: State, enters: State | None) -> None:
    if enters is not None and enters != leaves and enters not in table[leaves]:
        raise ValueError(f"no transition from {leaves} to {enters}")
