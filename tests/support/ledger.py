"""Short calls on a ledger for tests: one line for an upload, a claim or a release."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Event
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, select
from sqlalchemy.util import await_only

from bridge.domain.build import (
    Build,
    Delivery,
    DeliveryState,
    Registration,
    RegistrationState,
    RunParameters,
    UploadMetadata,
)
from bridge.domain.changes import AddRegistration, Change, set_build, set_delivery, set_registration
from bridge.domain.intake import AcceptedUpload, NewRejection, NewReport, QuarantinedFile, ReportReceipt, UploadReceipt
from bridge.domain.junit.validator import TestCounts
from bridge.domain.outcomes import Registered
from bridge.store.engine.base import Database
from bridge.store.fenced_writes import (
    FencedChanges,
    LateRegistration,
    record_late_registration,
    write_changes_if_fenced,
)
from bridge.store.leases import Claim, LeasedBuild, Release, claim, read_build, read_claimed, release
from bridge.store.schema import builds
from bridge.store.uploads import accept

LEASE_US = 15_000_000
PATIENCE_SECONDS = 60.0  # for what comes at once unless the machine is busy
KEEP_US = 7 * 24 * 3600 * 1_000_000
COUNTS = TestCounts(suites=1, tests=3, failures=1, errors=0, skipped=0, flaky=0, time_us=1_500)


def report(name: str = "junit.xml", body: bytes = b"<testsuite/>", **other: Any) -> NewReport:
    """Return a report that rides in its row."""
    digest = sha256(body).hexdigest()
    values = {
        "node_id": "default",
        "sent_size": len(body),
        "received_sha256": digest,
        "sent_sha256": digest,
        "body": body,
        **other,
    }
    return NewReport(name=name, size=len(body), counts=COUNTS, **values)


def refusal(name: str = "bad.xml") -> NewRejection:
    """Return a refusal as intake notes it."""
    return NewRejection(name=name, reason=f"{name!r} is no JUnit report. Look at what wrote it.", code="BRIDGE.REPORT")


def kept(content: bytes = b"<testsuite>", **other: Any) -> QuarantinedFile:
    """Return a refused file that rides in its row."""
    digest = sha256(content).hexdigest()
    values: dict[str, Any] = {
        "node_id": "default",
        "route": "shop",
        "size": len(content),
        "sha256": digest,
        "received_size": len(content),
        "received_sha256": digest,
        "keep_us": KEEP_US,
        "body": content,
        **other,
    }
    return QuarantinedFile(**values)


def kept_refusal(name: str = "bad.xml", content: bytes = b"<testsuite>", **other: Any) -> NewRejection:
    """Return a refusal of a file that came whole."""
    return replace(refusal(name), quarantined=kept(content, **other))


def upload(*reports: NewReport, build_no: int = 1, **other: Any) -> AcceptedUpload:
    """Return one upload request."""
    values: dict[str, Any] = {
        "job_id": "a" * 32,
        "upload_metadata": UploadMetadata(),
        "complete": False,
        "caller": "ci",
        "caller_routes": None,
        "address": "192.0.2.1",
        "request_id": "r-1",
        "rejections": (),
        **other,
    }
    return AcceptedUpload(build_no=build_no, reports=reports, **values)


def run_parameters(route: str) -> RunParameters:
    """Return a pin to `route`."""
    return RunParameters(route=route, build_id="codearts-1", tags=(), run_url="", branch=None, commit=None, chosen_at=1)


def asked(delivery: Delivery, *, fencing_token: int = 1) -> AddRegistration:
    """Return the change that is written before a register call."""
    life = Registration(
        id=0, delivery_id=delivery.id, state=RegistrationState.REQUESTED, requested_at=1, fencing_token=fencing_token
    )
    return AddRegistration(life)


def named(life: Registration) -> Change:
    """Return the change that is written before a PUT."""
    ids = {"test_run_id": "run-1", "upload_id": "up-1", "presigned_url": "https://s3.test/put", "expires_at": 9}
    return set_registration(life, state=RegistrationState.REGISTERED, registered_at=2, **ids)


def dead(delivery: Delivery) -> Change:
    """Return the change that gives a delivery up."""
    return set_delivery(
        delivery, state=DeliveryState.DEAD, last_error="storage said no", attempts=7, first_failure_at=5
    )


@dataclass(frozen=True, slots=True)
class Ledger:
    """A database with its usual calls."""

    database: Database

    async def accept(self, *reports: NewReport, **other: Any) -> tuple[ReportReceipt, ...]:
        """Accept one upload."""
        return (await self.enter(*reports, **other)).receipts

    async def enter(self, *reports: NewReport, **other: Any) -> UploadReceipt:
        """Accept one upload, and return all that became of it."""
        return await self.database.write(accept, upload(*reports, **other))

    async def accept_together(self, *acceptances: AcceptedUpload) -> list[tuple[ReportReceipt, ...]]:
        """Accept uploads in one commit for sure."""
        return [entry.receipts for entry in await self.database.write(_accept_each, acceptances)]

    async def claim(self, route: str = "", owner: str = "me") -> LeasedBuild | None:
        """Claim the next due build of a route."""
        leased = await self.database.write(claim, Claim(route=route, owner=owner, lease_us=LEASE_US))
        return None if leased is None else await self.database.read(read_claimed, leased)

    async def claimed(self, route: str = "", owner: str = "me") -> LeasedBuild:
        """Claim the next due build of a route, which must be there."""
        found = await self.claim(route, owner)
        assert found is not None
        return found

    async def record(self, build: Build, *changes: Change) -> tuple[Change, ...] | None:
        """Write changes under the fence that `build` was read with."""
        return await self.database.write(
            write_changes_if_fenced,
            FencedChanges(build_id=build.id, fencing_token=build.fencing_token, changes=changes),
        )

    async def release(self, visit: LeasedBuild, until: int | None, **known: Any) -> bool:
        """End a visit that knew what its claim returned."""
        values = {"report_seq": visit.build.report_seq, "waiting_on": None, "blocked_reason": None, **known}
        build = visit.build
        return await self.database.write(
            release,
            Release(build_id=build.id, fencing_token=build.fencing_token, due_at=visit.due_at, until=until, **values),
        )

    async def late_ids(self, build: Build, life: Registration, run: str = "run-9") -> bool:
        """Append ids that a register answered too late."""
        answer = Registered(
            test_run_id=run, upload_id="up-9", test_run_url=f"https://nod.test/{run}", presigned_url="", expires_at=None
        )
        return await self.database.write(
            record_late_registration, LateRegistration(build_id=build.id, registration=life, answer=answer)
        )

    async def build(self, build_id: int = 1) -> Build:
        """Read a build, which must be there."""
        found = await self.database.read(read_build, build_id)
        assert found is not None
        return found

    async def row(self, build_id: int = 1) -> Row[Any]:
        """Read the row of a build, with its turn and its lease."""
        (row,) = await self.rows(select(builds).where(builds.c.id == build_id))
        return row

    async def rows(self, query: Select[Any]) -> list[Row[Any]]:
        """Read rows."""
        return await self.database.read(lambda connection: list(connection.execute(query)))

    async def register(self, visit: LeasedBuild) -> Registration:
        """Write that the first delivery of a visited build is asked for."""
        delivery = next(iter(visit.build.deliveries.values()))
        written = await self.record(visit.build, asked(delivery, fencing_token=visit.build.fencing_token))
        assert written is not None
        return next(change.registration for change in written if isinstance(change, AddRegistration))

    async def run_parameters(self, visit: LeasedBuild, route: str) -> None:
        """Pin a visited build to a route."""
        assert await self.record(visit.build, set_build(run_parameters=run_parameters(route)))


def stand_still(connection: Connection, until: Event) -> None:
    """Wait within a transaction, without holding up the event loop where the ledger works on it."""
    if connection.dialect.is_async:
        assert await_only(asyncio.to_thread(until.wait, PATIENCE_SECONDS))
    else:
        assert until.wait(PATIENCE_SECONDS)


def engine_of(database: Database, door: str) -> Engine:
    """Return the engine behind `writing` or `reading`, for listeners."""
    engine = getattr(database, door)
    return getattr(engine, "sync_engine", engine)


def record_together(
    connection: Connection, now: int, items: Sequence[Sequence[FencedChanges]]
) -> list[list[tuple[Change, ...] | None]]:
    """Write what several visits decided in one commit for sure."""
    return [write_changes_if_fenced(connection, now, item) for item in items]


def _accept_each(
    connection: Connection, now: int, items: Sequence[Sequence[AcceptedUpload]]
) -> list[list[UploadReceipt]]:
    return [accept(connection, now, item) for item in items]
