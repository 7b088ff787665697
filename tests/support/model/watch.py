"""Reads the ledger after every single write, and checks what no write may do: transitions and fencing."""

from collections import namedtuple
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, select

from bridge.domain.build import (
    BUILD_TRANSITIONS,
    DELIVERY_TRANSITIONS,
    REGISTRATION_TRANSITIONS,
    UNSETTLED,
    BuildState,
    DeliveryState,
    RegistrationState,
)
from bridge.domain.changes import (
    AddRegistration,
    BumpReportSeq,
    Change,
    DropRegistration,
    SetBuild,
    SetDelivery,
    SetRegistration,
)
from bridge.domain.intake import AcceptedUpload
from bridge.store.engine.base import Database
from bridge.store.fenced_writes import FencedChanges
from bridge.store.leases import Claim, Release, Renewal
from bridge.store.schema import builds, deliveries, registrations, reports
from tests.support.model.testnod import MAY_BE_PUT

BUILDS = select(
    builds.c.id,
    builds.c.key,
    builds.c.state,
    builds.c.fencing_token,
    builds.c.report_seq,
    builds.c.finalized_seq,
    builds.c.due_at,
    builds.c.lease_until,
    builds.c.confirm_until,
    builds.c.stuck_reason,
    builds.c.run_parameters,
)
DELIVERIES = select(deliveries.c.id, deliveries.c.build_id, deliveries.c.report_id, deliveries.c.state)
REGISTRATIONS = select(
    registrations.c.id,
    registrations.c.build_id,
    registrations.c.delivery_id,
    registrations.c.state,
    registrations.c.upload_id,
    registrations.c.generation,
)
REPORTS = select(reports.c.id, reports.c.build_id, reports.c.dedupe_key, reports.c.body)
ROWS = {
    name: (query, namedtuple("Row", query.selected_columns.keys()))  # noqa: PYI024 -- its fields are the query's
    for name, query in {
        "builds": BUILDS,
        "deliveries": DELIVERIES,
        "registrations": REGISTRATIONS,
        "reports": REPORTS,
    }.items()
}
LATE_IDS = (RegistrationState.REQUESTED, RegistrationState.FAILURE_UNREPORTED)
"""Ids that come late: by way of lost, in one commit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The ledger at one moment: rows by id."""

    builds: dict[int, Any]
    deliveries: dict[int, Any]
    registrations: dict[int, Any]
    reports: dict[int, Any]


def look(connection: Connection) -> Seen:
    """Read what is watched."""
    return Seen(
        **{name: {row.id: kind._make(row) for row in connection.execute(query)} for name, (query, kind) in ROWS.items()}
    )


def stages(seen: Seen, build_id: int, changes: Iterable[Change]) -> Iterator[Seen]:
    """Yield what is watched as it is after each of the changes to a build that one write contains, in their order."""
    for change in changes:
        match change:
            case SetBuild(values) if "state" in values:
                seen = replace(seen, builds=_with(seen.builds, build_id, state=values["state"]))
            case BumpReportSeq():
                seen = replace(
                    seen, builds=_with(seen.builds, build_id, report_seq=seen.builds[build_id].report_seq + 1)
                )
            case SetDelivery(row_id, leaves, values) if "state" in values and seen.deliveries[row_id].state == leaves:
                seen = replace(seen, deliveries=_with(seen.deliveries, row_id, state=values["state"]))
            case SetRegistration(row_id, leaves, values) if "state" in values:
                if row_id in seen.registrations and seen.registrations[row_id].state == leaves:
                    seen = replace(seen, registrations=_with(seen.registrations, row_id, state=values["state"]))
            case AddRegistration(new):
                _, kind = ROWS["registrations"]
                row = kind(new.id, build_id, new.delivery_id, new.state, new.upload_id, new.generation)
                seen = replace(seen, registrations=seen.registrations | {new.id: row})
            case DropRegistration(row_id):
                left = {key: row for key, row in seen.registrations.items() if key != row_id}
                seen = replace(seen, registrations=left)
            case _:
                continue
        yield seen


def _with(rows: dict[int, Any], row_id: int, **values: Any) -> dict[int, Any]:
    return rows | {row_id: rows[row_id]._replace(**values)}


NOTHING = Seen(builds={}, deliveries={}, registrations={}, reports={})


@dataclass(slots=True)
class Watch:
    """What has been seen so far; `watched` is the only way to write."""

    seen: Seen = NOTHING
    writes: int = 0
    late: int = 0  # writes of owners who had lost their build: none of them changed anything
    broken: list[AssertionError] = field(default_factory=list)  # the writer may not get it as an exception

    async def watched(self, database: Database, batch: Any, item: Any, size: int = 0) -> Any:
        """Write, look, and check what became of it."""
        result = await database.write(batch, item, size)
        before, self.seen = self.seen, await database.read(look)
        self.writes += 1
        try:
            self._check_changes(before, item, result)
            self._check_fence(before, item, result, database.now())
        except AssertionError as error:
            self.broken.append(error)
        return result

    def _check_changes(self, before: Seen, item: Any, result: Any) -> None:
        """Check each change alone: those that were deferred share a write, so it may take several steps at once."""
        shown = [before]
        if isinstance(item, FencedChanges):
            shown += stages(before, item.build_id, () if result is None else result.changes or item.changes)
            assert _states(shown[-1]) == _states(self.seen), "the ledger has other states than were written"
        for earlier, later in pairwise([*shown, self.seen]):
            self._check_states(earlier, later)
            self._check_registrations(earlier, later)

    def _check_states(self, before: Seen, after: Seen) -> None:
        assert before.reports.keys() <= after.reports.keys(), "a report is lost"
        assert before.deliveries.keys() <= after.deliveries.keys(), "a delivery is lost"
        for key, row in before.builds.items():
            now = after.builds[key]
            _step(BUILD_TRANSITIONS, BuildState(row.state), BuildState(now.state))
            assert now.fencing_token >= row.fencing_token
            assert now.report_seq >= row.report_seq
            assert now.finalized_seq <= now.report_seq
        for key, row in before.deliveries.items():
            _step(DELIVERY_TRANSITIONS, DeliveryState(row.state), DeliveryState(after.deliveries[key].state))
        for key, row in before.registrations.items():
            now = after.registrations.get(key)
            if now is None:
                assert row.state == RegistrationState.REQUESTED, f"a registration is gone that was {row.state}"
            elif (row.state, now.state) != LATE_IDS:
                _step(REGISTRATION_TRANSITIONS, RegistrationState(row.state), RegistrationState(now.state))

    def _check_registrations(self, before: Seen, after: Seen) -> None:
        for key in after.registrations.keys() - before.registrations.keys():
            added = after.registrations[key]
            delivery_id = added.delivery_id
            state = before.deliveries[delivery_id].state
            assert state == DeliveryState.PENDING, f"a report is registered whose delivery is {state}"
            rows = [row for row in before.registrations.values() if row.generation == added.generation]
            mine = [row.state for row in rows if row.delivery_id == delivery_id]
            assert UNSETTLED.isdisjoint(mine), f"a report is registered that has a registration {mine}"
        put = [row.delivery_id for row in after.registrations.values() if row.state in MAY_BE_PUT]
        assert len(put) == len(set(put)), "two registrations of one report may be PUT"
        for row in after.deliveries.values():
            if row.state != DeliveryState.DELIVERED:
                assert after.reports[row.report_id].body is not None or row.state == DeliveryState.DEAD, (
                    "bytes are gone"
                )

    def _check_fence(self, before: Seen, item: Any, result: Any, now: int) -> None:
        match item:
            case Claim() if result is not None:
                row = before.builds[result.row.id]
                assert result.row.fencing_token == row.fencing_token + 1, "two claims under one fence"
                assert row.lease_until is None or row.lease_until <= now, "a build with an owner is claimed"
            case AcceptedUpload(reports=(), complete=False):
                assert self.seen == before, "a refusal has changed a build"
            case (
                FencedChanges(build_id=build_id, fencing_token=fencing_token)
                | Release(build_id=build_id, fencing_token=fencing_token)
                | Renewal(build_id=build_id, fencing_token=fencing_token)
            ):
                if fencing_token < before.builds[build_id].fencing_token:
                    self.late += 1
                    assert not result, "a late owner is told that it wrote"
                    assert self.seen == before, "a late owner's write took effect"


def _states(seen: Seen) -> list[dict[int, str]]:
    return [
        {key: row.state for key, row in rows.items()} for rows in (seen.builds, seen.deliveries, seen.registrations)
    ]


def _step(table: Any, leaves: Any, enters: Any) -> None:
    assert leaves is enters or enters in table[leaves], f"no table lists {leaves} to {enters}"
