"""Bytes and rows that are no longer needed: reports that are delivered or dead for long, and old rejections.

Bytes are unlinked from their rows first. Their blobs are deleted after that commit, so no row ever refers to a deleted
blob. Work is done in portions of LIMIT rows, so that no commit takes long.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, func, not_, null, or_, select, update

from bridge.domain.build import BuildState, DeliveryState, DeliveryTarget
from bridge.store.engine.base import one_statement
from bridge.store.engine.compiled import Statement, is_one_of
from bridge.store.rejections import BlobRow, unlink
from bridge.store.schema import UNFINISHED_DELIVERY, builds, deliveries, metadata, rejections, reports, runs
from bridge.values import dataclass

LIMIT: Final = 500
"""Rows in one commit, which uploads may have to wait for."""

BUILDS_LIMIT: Final = 100
"""Builds in one commit: each may have thousands of rows."""

EXPIRED: Final = "The report was given up, and its bytes were deleted after store.retention."

UNLINK = Statement(update(reports).where(is_one_of(reports.c.id, "ids")).values(body=null(), blob=null()))
BODIES = Statement(select(reports.c.id, reports.c.body, reports.c.blob).where(is_one_of(reports.c.id, "ids")))
WITH_BYTES = or_(reports.c.body.is_not(None), reports.c.blob.is_not(None))
OTHER = deliveries.alias("other")
WAITS_FOR_DEAD = and_(OTHER.c.target == DeliveryTarget.ARCHIVE, deliveries.c.target == DeliveryTarget.TESTNOD)
HAS_OTHER_PENDING = exists().where(
    OTHER.c.report_id == deliveries.c.report_id, OTHER.c.state == DeliveryState.PENDING, not_(WAITS_FOR_DEAD)
)
UNDELIVERED = exists().where(deliveries.c.report_id == reports.c.id, deliveries.c.state != DeliveryState.DELIVERED)
HAS_PENDING_RUN = exists().where(
    runs.c.build_id == builds.c.id, or_(runs.c.status.is_(None), runs.c.status == "pending")
)
MAY_BE_REPLACED = exists().where(
    builds.c.id == reports.c.build_id,
    or_(
        builds.c.state == BuildState.OPEN,
        builds.c.state == BuildState.ENDED,
        and_(builds.c.confirm_until.is_not(None), HAS_PENDING_RUN),
    ),
)
"""The reports of builds for which domain/lifecycle/replacement.py: `may_be_replaced` is true."""


# -- reports -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyLocation:
    """Where the bytes of a report are: in `body`, in the spool under `blob`, or gone."""

    body: bytes | None
    blob: str | None


@one_statement
def body_location(connection: Connection, report_id: int) -> BodyLocation:
    """Return where the bytes of a report are."""
    return body_locations(connection, (report_id,))[report_id]


@one_statement
def body_locations(connection: Connection, report_ids: Sequence[int]) -> dict[int, BodyLocation]:
    """Return where the bytes of reports are, by id."""
    rows = BODIES.rows(connection, {"ids": report_ids})
    return {report_id: BodyLocation(body=body, blob=blob) for report_id, body, blob in rows}


@dataclass(frozen=True, kw_only=True)
class BodyRelease:
    """Asks to unlink the bytes of the delivered reports of a build, or of one of them.

    With `replacements` they are kept until no replacement of their run can need them.
    """

    build_id: int
    report_id: int | None = None
    replacements: bool


def release_bodies(connection: Connection, _now: int, items: Sequence[BodyRelease]) -> list[list[str]]:
    """Unlink the bytes of reports that are delivered to all targets; return for each item the blobs to delete.

    Dead reports keep their bytes: they may be sent again.
    """
    return _release(connection, items) if items else []


def _release(connection: Connection, items: Sequence[BodyRelease]) -> list[list[str]]:
    alike: defaultdict[Statement, list[BodyRelease]] = defaultdict(list)
    for item in items:
        alike[_delivered(of_build=item.report_id is None, replacements=item.replacements)].append(item)
    found = []
    for statement, releases in alike.items():
        ids = [item.build_id if item.report_id is None else item.report_id for item in releases]
        found += [_Unlinked._make(row) for row in statement.rows(connection, {"ids": ids})]
    if found:
        UNLINK.run(connection, {"ids": [report.id for report in found]})
    with_blobs = {report.id: report for report in found if report.blob is not None}
    return [_take_blobs(with_blobs, item) for item in items]


class _Unlinked(NamedTuple):
    id: int
    build_id: int
    blob: str | None


def _take_blobs(unlinked: dict[int, _Unlinked], item: BodyRelease) -> list[str]:
    """Remove the reports of `item` and return their blobs."""
    if item.report_id is None:
        ids = [report.id for report in unlinked.values() if report.build_id == item.build_id]
    else:
        ids = [item.report_id] if item.report_id in unlinked else []
    return [blob for blob in (unlinked.pop(report_id).blob for report_id in ids) if blob is not None]


@cache
def _delivered(*, of_build: bool, replacements: bool) -> Statement:
    """Return the query of delivered reports with bytes, of builds or among reports."""
    which = is_one_of(reports.c.build_id if of_build else reports.c.id, "ids")
    kept = (~MAY_BE_REPLACED,) if replacements else ()
    query = select(reports.c.id, reports.c.build_id, reports.c.blob).where(which, WITH_BYTES, ~UNDELIVERED, *kept)
    return Statement(query.order_by(reports.c.id).with_for_update(of=reports))


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveredBodies:
    """Asks for the bytes of delivered reports that a crash or a lost answer has left.

    With `replacements` those are kept that a replacement may need, unless they were delivered before `before`.
    """

    before: int
    replacements: bool


def unlink_delivered(connection: Connection, _now: int, items: Sequence[DeliveredBodies]) -> list[list[str | None]]:
    """Unlink the bytes of up to LIMIT delivered reports for each item; return their blobs, None for bytes in rows."""
    return [_unlink_delivered(connection, item) for item in items]


def _unlink_delivered(connection: Connection, item: DeliveredBodies) -> list[str | None]:
    recent = exists().where(deliveries.c.report_id == reports.c.id, deliveries.c.delivered_at >= item.before)
    kept = (~and_(MAY_BE_REPLACED, recent),) if item.replacements else ()
    query = select(reports.c.id, reports.c.blob).where(WITH_BYTES, ~UNDELIVERED, *kept).limit(LIMIT)
    found = [BlobRow._make(row) for row in connection.execute(query.with_for_update(of=reports, skip_locked=True))]
    return _unlink_reports(connection, found)


def unlink_dead(connection: Connection, _now: int, items: Sequence[int]) -> list[list[str | None]]:
    """Unlink the bytes of up to LIMIT reports that are dead and had their last attempt due before each given time.

    A report that is pending for another target keeps its bytes. A copy to the archive that waited for TestNod is given
    up with the report. Return their blobs, None for bytes in the row.
    """
    return [_unlink_dead_before(connection, before) for before in items]


def _unlink_dead_before(connection: Connection, before: int) -> list[str | None]:
    dead = and_(deliveries.c.state == DeliveryState.DEAD, UNFINISHED_DELIVERY)
    query = (
        select(reports.c.id, reports.c.blob)
        .join(deliveries, deliveries.c.report_id == reports.c.id)
        .where(dead, deliveries.c.due_at < before, WITH_BYTES, ~HAS_OTHER_PENDING)
        .limit(LIMIT)
        # A report that is sent again at this moment is skipped: it gets new bytes.
        .with_for_update(of=(reports, deliveries), skip_locked=True)
    )
    found = [BlobRow._make(row) for row in connection.execute(query)]
    pending = and_(deliveries.c.report_id.in_([row.id for row in found]), deliveries.c.state == DeliveryState.PENDING)
    connection.execute(update(deliveries).where(pending).values(state=DeliveryState.DEAD, last_error=EXPIRED))
    return _unlink_reports(connection, found)


def _unlink_reports(connection: Connection, found: Sequence[BlobRow]) -> list[str | None]:
    if not found:
        return []
    UNLINK.run(connection, {"ids": [row.id for row in found]})
    return [row.blob for row in found]


def unlink_corrupt_body(connection: Connection, _now: int, found: Sequence[tuple[int, str]]) -> list[bool]:
    """Unlink corrupt blobs, given as (report id, blob); False if the report has got other bytes meanwhile."""
    return [
        bool(
            connection.execute(
                update(reports).where(reports.c.id == report_id, reports.c.blob == blob).values(blob=None)
            ).rowcount
        )
        for report_id, blob in found
    ]


# -- rejections --------------------------------------------------------------------------------------------------


def delete_old_rejections(connection: Connection, _now: int, items: Sequence[int]) -> list[int]:
    """Delete up to LIMIT rejections without bytes from before each given time; return the numbers of deleted rows."""
    deleted = []
    for before in items:
        old = select(rejections.c.id).where(rejections.c.rejected_at < before, rejections.c.kept_until.is_(None))
        oldest = old.order_by(rejections.c.rejected_at).limit(LIMIT)
        deleted.append(connection.execute(delete(rejections).where(rejections.c.id.in_(oldest))).rowcount)
    return deleted


def unlink_rejected(connection: Connection, now: int) -> list[str | None]:
    """Unlink the bytes of up to LIMIT expired rejected files; return their blobs, None for bytes in the row."""
    query = select(rejections.c.id, rejections.c.blob).where(rejections.c.kept_until < now).limit(LIMIT)
    # A file that is rejected again at this moment is skipped: it gets new bytes.
    return unlink(
        connection, [BlobRow._make(row) for row in connection.execute(query.with_for_update(skip_locked=True))]
    )


# -- builds ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedBuilds:
    """Asks to look at the next BUILDS_LIMIT builds with an id above `after`, for those finished before `before`."""

    after: int
    before: int  # microseconds UTC


@dataclass(frozen=True, kw_only=True, slots=True)
class DeletedBuilds:
    """How many builds were deleted, and the last id that was looked at; 0 if there are no more."""

    deleted: int
    last: int


def delete_finished(connection: Connection, now: int, items: Sequence[FinishedBuilds]) -> list[DeletedBuilds]:
    """Delete builds with all their rows if nothing is left to do for them, and no bytes of them are kept.

    A build that waits for an operator stays.
    """
    return [_delete_finished(connection, now, item) for item in items]


def _delete_finished(connection: Connection, now: int, item: FinishedBuilds) -> DeletedBuilds:
    following = select(builds.c.id).where(builds.c.id > item.after).order_by(builds.c.id).limit(BUILDS_LIMIT)
    ids = connection.execute(following).scalars().all()
    of_build = reports.c.build_id == builds.c.id
    pending = and_(deliveries.c.build_id == builds.c.id, deliveries.c.state == DeliveryState.PENDING)
    finished = select(builds.c.id).where(
        builds.c.id.in_(ids),
        builds.c.state.in_((BuildState.FINALIZED, BuildState.NO_RUN)),
        builds.c.due_at.is_(None),
        builds.c.stuck_reason.is_(None),
        builds.c.blocked_reason.is_(None),
        or_(builds.c.lease_until.is_(None), builds.c.lease_until <= now),
        func.coalesce(builds.c.finalized_at, builds.c.ended_at) < item.before,
        ~exists().where(of_build, or_(WITH_BYTES, reports.c.accepted_at >= item.before)),
        ~exists().where(pending),
    )
    # Uploads lock the build first, too: what arrives at this moment keeps its build, or begins a new one.
    locked = finished.order_by(builds.c.id).with_for_update(of=builds, skip_locked=True)
    chosen = connection.execute(locked).scalars().all()
    if chosen:
        delete_rows_of_builds(connection, chosen)
    return DeletedBuilds(deleted=len(chosen), last=ids[-1] if ids else 0)


def delete_rows_of_builds(connection: Connection, build_ids: Sequence[int]) -> None:
    """Delete builds with the rows of all tables that refer to them; rejections stay."""
    for table, condition in _rows_of_builds(build_ids):
        connection.execute(delete(table).where(condition))
    connection.execute(delete(builds).where(builds.c.id.in_(build_ids)))


def _rows_of_builds(build_ids: Sequence[int]) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    """Yield every table with rows of builds and their condition, tables before those that they refer to."""
    children = list(reversed(metadata.sorted_tables))
    of_reports = select(reports.c.id).where(reports.c.build_id.in_(build_ids))
    for table in children:
        if "report_id" in table.c and "build_id" not in table.c:
            yield table, table.c.report_id.in_(of_reports)
    for table in children:
        if "build_id" in table.c:
            yield table, table.c.build_id.in_(build_ids)


# -- references --------------------------------------------------------------------------------------------------


def known_blobs(connection: Connection, blobs: Sequence[str]) -> set[str]:
    """Return which of `blobs` any row refers to."""
    queries = (select(table.c.blob).where(table.c.blob.in_(blobs)) for table in (reports, rejections))
    return {blob for query in queries for blob in connection.execute(query).scalars()}


def routes_in_use(connection: Connection) -> set[str]:
    """Return the routes of builds that are not finished."""
    query = select(builds.c.route).where(builds.c.due_at.is_not(None), builds.c.route != "").distinct()
    return set(connection.execute(query).scalars())
