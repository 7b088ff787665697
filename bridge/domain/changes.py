"""Changes as values: the ledger writes them, and `apply` applies the same values to a build in memory.

Every change to a delivery or registration names the state it leaves, so that a late writer changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from bridge.domain.attempts import Attempt
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
from bridge.values import dataclass


@dataclass(frozen=True)
class SetBuild:
    """New values for fields of the build; `values` are names and values of `Build`."""

    values: MappingProxyType[str, Any]


@dataclass(frozen=True)
class SetDelivery:
    """New values for one delivery, if it is still in state `leaves`."""

    id: int
    leaves: DeliveryState
    values: MappingProxyType[str, Any]


@dataclass(frozen=True)
class SetRegistration:
    """New values for one registration, if it is still in state `leaves`."""

    id: int
    leaves: RegistrationState
    values: MappingProxyType[str, Any]


@dataclass(frozen=True)
class DropRegistration:
    """Delete a registration whose register call had no effect, if it is still `requested`."""

    id: int


@dataclass(frozen=True)
class AddRun:
    """A new run, unless the ledger has it by now."""

    test_run_id: str
    test_run_url: str
    opened_at: Instant
    project_id: str = ""
    generation: int = 1


@dataclass(frozen=True)
class SetRun:
    """New values for one run."""

    test_run_id: str
    values: MappingProxyType[str, Any]


Value = TypeVar("Value", Build, Delivery, Registration)
State = TypeVar("State", BuildState, DeliveryState, RegistrationState, CodeCheckStatus)


@dataclass(frozen=True)
class BumpReportSeq:
    """Raise `report_seq` by one from its value in the ledger, which uploads raise too."""


@dataclass(frozen=True)
class AddRegistration:
    """A new registration; the ledger assigns its id."""

    registration: Registration


@dataclass(frozen=True)
class AddDelivery:
    """A new delivery of a report; the ledger assigns its id."""

    delivery: Delivery


@dataclass(frozen=True)
class AddReport:
    """A report that the bridge generated, with its deliveries; the ledger assigns all ids.

    If the id is still 0 after that, the ledger had the report already, and nothing changes.
    """

    report: Report
    deliveries: tuple[Delivery, ...]
    body: bytes
    counts: TestCounts


@dataclass(frozen=True)
class AddAttempt:
    """The record of a call. It is for people: nothing is decided by it, so the build in memory does not have it."""

    attempt: Attempt


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
    | AddAttempt
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
    draft = _Draft(build)
    for change in changes:
        draft.apply(change)
    return _copy(build, draft.values) if draft.values else build


SET_BY_UPLOADS = (
    *("report_seq", "last_report_at", "complete_at", "complete_routes", "poll_requested_at"),
    *("upload_metadata", "bound_metadata", "awaits_files"),
)
"""Fields of a build that uploads and webhooks set, and no reconciler."""


def with_uploads(build: Build, newer: Build) -> Build:
    """Return `build` with what uploads have set since, and with the reports and deliveries of `newer`."""
    values = {name: getattr(newer, name) for name in SET_BY_UPLOADS}
    values["reports"] = build.reports.with_rows(newer.reports.values())
    values["deliveries"] = build.deliveries.with_rows(newer.deliveries.values())
    return _copy(build, values)


class _Draft:
    """The new values of a build while changes are applied."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self.values: dict[str, Any] = {}

    def apply(self, change: Change) -> None:
        match change:
            case SetBuild(values):
                _check(BUILD_TRANSITIONS, self._of("state"), values.get("state"))
                _check_code_check(self._of("code_check"), values.get("code_check"))
                self.values.update(values)
            case BumpReportSeq():
                self.values["report_seq"] = self._of("report_seq") + 1
            case SetDelivery():
                self._set("deliveries", change, DELIVERY_TRANSITIONS)
            case SetRegistration():
                self._set("registrations", change, REGISTRATION_TRANSITIONS)
            case AddDelivery(delivery):
                self._add("deliveries", delivery)
            case AddRegistration(registration):
                self._add("registrations", registration)
            case DropRegistration(registration_id):
                self.values["registrations"] = self._of("registrations").without(registration_id)
            case AddReport(report, deliveries) if report.id:
                self._add("reports", report)
                self._add("deliveries", *deliveries)
            case AddRun() | SetRun():
                self.values["runs"] = _runs_after(self._of("runs"), change)

    def _of(self, name: str) -> Any:
        return self.values[name] if name in self.values else getattr(self._build, name)

    def _add(self, name: str, *rows: Report | Delivery | Registration) -> None:
        self.values[name] = self._of(name).with_rows(rows)

    def _set(
        self, name: str, change: SetDelivery | SetRegistration, transitions: Mapping[State, frozenset[State]]
    ) -> None:
        row = self._of(name)[change.id]
        if row.state is change.leaves:
            _check(transitions, row.state, change.values.get("state"))
            self._add(name, _copy(row, change.values))


def _copy(value: Value, changed: Mapping[str, Any]) -> Value:
    """Return `value` with changed fields. `dataclasses.replace` takes twenty times as long for a build."""
    fields = value.__dict__
    if not changed.keys() <= fields.keys():
        raise TypeError(f"{type(value).__name__} has no fields {', '.join(changed.keys() - fields.keys())}")
    copy = object.__new__(type(value))
    copy.__dict__.update(fields)
    copy.__dict__.update(changed)
    return copy


def _runs_after(runs: tuple[Run, ...], change: AddRun | SetRun) -> tuple[Run, ...]:
    if isinstance(change, SetRun):
        run_id, values = change.test_run_id, change.values
        return tuple(replace(run, **values) if run.test_run_id == run_id else run for run in runs)
    if any(run.test_run_id == change.test_run_id for run in runs):
        return runs
    new = Run(
        test_run_id=change.test_run_id,
        test_run_url=change.test_run_url,
        opened_at=change.opened_at,
        project_id=change.project_id,
        generation=change.generation,
    )
    return (*runs, new)


def _check_code_check(leaves: CodeCheckState | None, enters: CodeCheckState | None) -> None:
    if leaves is not None and enters is not None:
        _check(CODE_CHECK_TRANSITIONS, leaves.state, enters.state)


def _check(table: Mapping[State, frozenset[State]], leaves: State, enters: State | None) -> None:
    if enters is not None and enters != leaves and enters not in table[leaves]:
        raise ValueError(f"no transition from {leaves} to {enters}")
