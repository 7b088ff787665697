"""What operators do by hand: retry, complete and forget builds, pause and resume routes; each with an audit row.

An action and its audit row are one commit. Actions need no lease: like an upload, they change what is pending and make
the build due, and the reconciler that has the build notices.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import sqlalchemy as sa

from bridge.domain.build import BuildNo, BuildState, DeliveryState, DeliveryTarget
from bridge.domain.circuit_breaker import close_breaker, pause_breaker
from bridge.domain.instants import Instant
from bridge.domain.text_format import counted
from bridge.errors import NotFound, Unavailable
from bridge.store.archive.base import archived_entries
from bridge.store.circuit_breakers import lock_breaker_row, wake_waiting
from bridge.store.duplicates import build_key, requeued
from bridge.store.job_order import ReconcileEnd, wake_first_waiting
from bridge.store.notices import forget_build_in_notices, replace_in_notices
from bridge.store.rejections import of_build_condition
from bridge.store.retention import delete_rows_of_builds
from bridge.store.row_mapping import to_breaker
from bridge.store.schema import audit, builds, circuit_breakers, deliveries, rejections, reports, submissions
from bridge.store.sql_helpers import earlier, first_id_since
from bridge.store.uploads import WAKE_BUILDS
from bridge.values import dataclass

MAX_RETRIES: Final = 1_000
"""Deliveries that one action retries: a commit stays short, and the answer says how many are left."""

MAX_RENAMED: Final = 1_000
"""Rows of each table in which one commit replaces the name of a caller."""

MAX_DELETED: Final = 1_000
"""Rejections that one commit deletes."""

MAX_ID: Final = 2**53


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """Who acts, from where, and how the name was proven, as a text."""

    name: str
    role: str
    address: str
    proof: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Asks to send dead deliveries again: one of them, those of a build, or all of a route."""

    actor: Actor
    delivery_id: int | None = None
    build_id: int | None = None
    route: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Retried:
    """How many deliveries are pending again, how many still wait for a retry, and how many have no bytes any more."""

    retried: int
    left: int
    without_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Complete:
    """Asks to end a build now, as an upload with `complete=true` does."""

    actor: Actor
    build_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Forget:
    """Asks to delete a build with all its rows and rejections."""

    actor: Actor
    build_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildContents:
    """What is lost if a build is forgotten."""

    name: str  # job and number
    reports: int
    undelivered: int  # reports that TestNod does not have
    rejections: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgotten:
    """What was deleted; no row refers any more to `blobs` of the spool and `copies` in the archive."""

    contents: BuildContents
    blobs: tuple[str, ...]
    copies: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgetRejections:
    """Asks to delete the rejections of a job, or of one of its builds, also of builds that have no row."""

    actor: Actor
    job_id: str
    build_no: BuildNo | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ForgottenRejections:
    """How many rejections were deleted; no row refers any more to `blobs` of the spool."""

    count: int
    blobs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutePause:
    """Asks to pause a route, or to resume it; builds that it delayed wait at most so long for each other after it."""

    actor: Actor
    route: str
    pause: bool
    max_finalize_delay_us: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEntry:
    """One action of an operator, at microseconds UTC."""

    id: int
    at: int
    person: str
    role: str
    address: str
    action: str
    target: str
    detail: str
    proof: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditQuery:
    """A page of the audit log: entries with an id below `before_id` and from before `until` (microseconds UTC)."""

    before_id: int = MAX_ID
    until: int | None = None
    limit: int = 100


# -- deliveries and builds ---------------------------------------------------------------------------------------


def retry(connection: sa.Connection, now: int, items: Sequence[Retry]) -> list[Retried]:
    """Make dead deliveries pending; raise NotFound if there is no such delivery or build."""
    return [_retry_one(connection, now, item) for item in items]


def _retry_one(connection: sa.Connection, now: int, item: Retry) -> Retried:
    if item.delivery_id is not None:
        _require(connection, deliveries, item.delivery_id, "delivery")
        wanted, target = [deliveries.c.id == item.delivery_id], f"delivery {item.delivery_id}"
    elif item.build_id is not None:
        wanted, target = [deliveries.c.build_id == item.build_id], _build_name(connection, item.build_id)
    else:
        of_route = sa.select(builds.c.id).where(builds.c.route == item.route)
        wanted, target = [deliveries.c.build_id.in_(of_route)], f"route {item.route}"
    dead = sa.join(deliveries, reports, reports.c.id == deliveries.c.report_id)
    wanted.append(deliveries.c.state == DeliveryState.DEAD)
    has_bytes = sa.or_(reports.c.body.is_not(None), reports.c.blob.is_not(None))
    query = sa.select(deliveries.c.id, deliveries.c.build_id).select_from(dead).where(*wanted, has_bytes)
    possible = connection.execute(query.order_by(deliveries.c.id).limit(MAX_RETRIES)).all()
    if possible:
        connection.execute(requeued(now).where(deliveries.c.id.in_([row.id for row in possible])))
        WAKE_BUILDS.run(connection, {"ids": sorted({row.build_id for row in possible}), "now": now})
    still = sa.select(sa.func.count()).select_from(dead).where(*wanted)
    result = Retried(
        retried=len(possible),
        left=connection.execute(still.where(has_bytes)).scalar_one(),
        without_bytes=connection.execute(still.where(~has_bytes)).scalar_one(),
    )
    _record(connection, now, item.actor, "retry", target, counted(result.retried, "report"))
    return result


def complete(connection: sa.Connection, now: int, items: Sequence[Complete]) -> list[bool]:
    """End builds now; False if the build has ended already. Raise NotFound if there is no such build."""
    return [_complete_one(connection, now, item) for item in items]


def _complete_one(connection: sa.Connection, now: int, item: Complete) -> bool:
    target = _build_name(connection, item.build_id)
    # report_seq stays, so a concurrent reconciler can notice it only by a due time that always changes.
    values = {"complete_at": now, "complete_routes": None, "due_at": earlier(builds.c.due_at - 1, now)}
    is_open = (builds.c.id == item.build_id, builds.c.state == BuildState.OPEN)
    changed = connection.execute(sa.update(builds).where(*is_open).values(values)).rowcount > 0
    _record(connection, now, item.actor, "finalize", target, "" if changed else "it had ended already")
    return changed


# -- forget ------------------------------------------------------------------------------------------------------


def forget(connection: sa.Connection, now: int, items: Sequence[Forget]) -> list[Forgotten]:
    """Delete builds with all their rows; raise NotFound if there is no such build, Unavailable while it is leased."""
    return [_forget_one(connection, now, item) for item in items]


def _forget_one(connection: sa.Connection, now: int, item: Forget) -> Forgotten:
    # Uploads lock the build first, too: what they bring is deleted with it, or begins a new build.
    locked = sa.select(builds.c.key, builds.c.lease_until).where(builds.c.id == item.build_id).with_for_update()
    build = connection.execute(locked).one_or_none()
    contents = build_contents(connection, item.build_id)
    if build is not None and (build.lease_until or 0) > now:
        raise Unavailable(
            f"A gateway is working on build {contents.name} at this moment, so it cannot be forgotten. "
            "Try again in a few seconds, or pause its route first."
        )
    wake_first_waiting(connection, now, [ReconcileEnd(item.build_id, waits=False, wakes_next=True)])
    copies = tuple(entry.key for entry in archived_entries(connection, item.build_id))
    of_reports = sa.select(reports.c.blob).where(reports.c.build_id == item.build_id, reports.c.blob.is_not(None))
    of_build = _rejections_of(item.build_id)
    of_rejections = sa.select(rejections.c.blob).where(of_build, rejections.c.blob.is_not(None))
    blobs = (*connection.execute(of_reports).scalars(), *connection.execute(of_rejections).scalars())
    connection.execute(sa.delete(rejections).where(of_build))
    delete_rows_of_builds(connection, (item.build_id,))
    forget_build_in_notices(connection, contents.name)
    detail = f"{counted(contents.reports, 'report')}, {contents.undelivered} not delivered"
    _record(connection, now, item.actor, "forget", f"build {contents.name}", detail)
    return Forgotten(contents=contents, blobs=blobs, copies=copies)


def build_contents(connection: sa.Connection, build_id: int) -> BuildContents:
    """Return what is lost if a build is forgotten; raise NotFound if there is no such build."""
    name = _build_name(connection, build_id).removeprefix("build ")
    testnod = (deliveries.c.build_id == build_id, deliveries.c.target == DeliveryTarget.TESTNOD)

    def count(table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
        return connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one()

    return BuildContents(
        name=name,
        reports=count(reports, reports.c.build_id == build_id),
        undelivered=count(deliveries, *testnod, deliveries.c.state != DeliveryState.DELIVERED),
        rejections=count(rejections, _rejections_of(build_id)),
    )


def _rejections_of(build_id: int) -> sa.ColumnElement[bool]:
    source, key = (
        sa.select(column).where(builds.c.id == build_id).scalar_subquery() for column in (builds.c.source, builds.c.key)
    )
    return sa.and_(rejections.c.source == source, rejections.c.key == key)


def forget_rejections(
    connection: sa.Connection, now: int, items: Sequence[ForgetRejections]
) -> list[ForgottenRejections]:
    """Delete up to MAX_DELETED rejections for each item; a count of 0 means that none is left."""
    return [_forget_rejections(connection, now, item) for item in items]


def _forget_rejections(connection: sa.Connection, now: int, item: ForgetRejections) -> ForgottenRejections:
    wanted, target = rejections.c.job_id == item.job_id, f"rejections of job {item.job_id}"
    if item.build_no is not None:
        wanted = of_build_condition(item.job_id, item.build_no)
        target = f"rejections of build {build_key(item.job_id, item.build_no)}"
    some = sa.select(rejections.c.id).where(wanted).limit(MAX_DELETED)
    deleted = sa.delete(rejections).where(rejections.c.id.in_(some)).returning(rejections.c.blob)
    blobs = connection.execute(deleted).scalars().all()
    if blobs:
        _record(connection, now, item.actor, "forget", target, counted(len(blobs), "rejection"))
    return ForgottenRejections(count=len(blobs), blobs=tuple(blob for blob in blobs if blob is not None))


FORGOTTEN: Final = "forgotten"
"""The caller of uploads whose caller's name was forgotten."""


def forget_caller(connection: sa.Connection, _now: int, items: Sequence[str]) -> list[int]:
    """Replace the names of callers, and their addresses, in up to MAX_RENAMED rows of each table.

    Return how many rows changed; 0 if the ledger has the name no more.
    """
    return [_forget_caller(connection, name) for name in items]


def _forget_caller(connection: sa.Connection, name: str) -> int:
    changed = 0
    for table in (reports, submissions, rejections):
        found = sa.select(table.c.id).where(table.c.caller == name).limit(MAX_RENAMED)
        ids = connection.execute(found).scalars().all()
        values: dict[str, Any] = {"caller": FORGOTTEN, "address": ""}
        if table is rejections:  # whose reasons quote it
            values["reason"] = sa.func.replace(rejections.c.reason, f'"{name}"', f'"{FORGOTTEN}"')
        if ids:
            connection.execute(sa.update(table).where(table.c.id.in_(ids)).values(values))
        changed += len(ids)
    return changed + replace_in_notices(connection, f'"{name}"', f'"{FORGOTTEN}"')


# -- routes ------------------------------------------------------------------------------------------------------


def pause_route(connection: sa.Connection, now: int, items: Sequence[RoutePause]) -> list[bool]:
    """Pause or resume routes; False if nothing changes."""
    return [_pause_one(connection, now, item) for item in items]


def _pause_one(connection: sa.Connection, now: int, item: RoutePause) -> bool:
    name = pause_breaker(item.route)
    row = lock_breaker_row(connection, name)
    changed = (row.opened_at is None) is item.pause
    if changed and item.pause:
        resume = f"Resume it in the console, or with POST /api/v1/routes/{item.route}/resume."
        reason = f'{item.actor.name} paused route "{item.route}". {resume}'
        _set_breaker(connection, name, {"failures": 1, "opened_at": now, "reason": reason, "probe_at": None})
    elif changed:
        _set_breaker(connection, name, asdict(close_breaker(to_breaker(row), Instant(now))))
        wake_waiting(connection, name, now, max_finalize_delay_us=item.max_finalize_delay_us)
    action = "pause" if item.pause else "resume"
    _record(connection, now, item.actor, action, f"route {item.route}", "" if changed else "nothing changed")
    return changed


def _set_breaker(connection: sa.Connection, name: str, values: dict[str, Any]) -> None:
    connection.execute(sa.update(circuit_breakers).where(circuit_breakers.c.name == name).values(values))


# -- audit -------------------------------------------------------------------------------------------------------


def record_action(connection: sa.Connection, now: int, items: Sequence[tuple[Actor, str, str, str]]) -> list[None]:
    """Write the audit row of an action that has no other row of its own: who, what, on what, and details."""
    for actor, action, target, detail in items:
        _record(connection, now, actor, action, target, detail)
    return [None] * len(items)


def list_audit(connection: sa.Connection, query: AuditQuery) -> list[AuditEntry]:
    """Return the newest entries of a page."""
    before_id = query.before_id
    if query.until is not None:
        before_id = min(before_id, first_id_since(connection, audit.c.id, audit.c.at, query.until))
    newest = sa.select(audit).where(audit.c.id < before_id).order_by(audit.c.id.desc()).limit(query.limit)
    return [AuditEntry(**row) for row in connection.execute(newest).mappings()]


def _record(connection: sa.Connection, now: int, actor: Actor, action: str, target: str, detail: str) -> None:
    connection.execute(
        sa.insert(audit).values(
            at=now,
            person=actor.name,
            role=actor.role,
            address=actor.address,
            action=action,
            target=target,
            detail=detail,
            proof=actor.proof,
        )
    )


def _build_name(connection: sa.Connection, build_id: int) -> str:
    row = connection.execute(sa.select(builds.c.key).where(builds.c.id == build_id)).one_or_none()
    if row is None:
        raise NotFound("The ledger has no build with this id. Look for it in /api/v1/builds.")
    return f"build {row.key}"


def _require(connection: sa.Connection, table: sa.Table, row_id: int, what: str) -> None:
    if connection.execute(sa.select(table.c.id).where(table.c.id == row_id)).first() is None:
        raise NotFound(f"The ledger has no {what} with this id. Look for it in /api/v1/builds.")
