"""What is kept for a while and then goes: refusals and their bytes, and the bytes of dead reports.

It knows neither when it is time nor the spool. Work is done in batches, so that no commit takes long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, not_, or_, select, update

from bridge.domain.build import DeliveryState, DeliveryTarget
from bridge.domain.circuit_breaker import RESTORE_PAUSE
from bridge.store.rejections import unlink
from bridge.store.schema import UNFINISHED_DELIVERY, builds, circuit_breakers, deliveries, rejections, reports

WITH_BYTES = or_(reports.c.body.is_not(None), reports.c.blob.is_not(None))
NO_BYTES = "The report was given up, and its bytes were kept for as long as store.retention says."
OTHER = deliveries.alias("other")
WAITS_FOR_THE_DEAD = and_(OTHER.c.target == DeliveryTarget.ARCHIVE, deliveries.c.target == DeliveryTarget.TESTNOD)
STILL_OWED = exists().where(
    OTHER.c.report_id == deliveries.c.report_id, OTHER.c.state == DeliveryState.PENDING, not_(WAITS_FOR_THE_DEAD)
)
BATCH = 500  # rows a commit: uploads wait for no more than that


def delete_old_rejections(connection: Connection, _now: int, items: Sequence[int]) -> list[int]:
    """Delete up to BATCH refusals from before each given time whose bytes are gone; return how many went."""
    gone = []
    for before in items:
        old = select(rejections.c.id).where(rejections.c.rejected_at < before, rejections.c.kept_until.is_(None))
        oldest = old.order_by(rejections.c.rejected_at).limit(BATCH)
        gone.append(connection.execute(delete(rejections).where(rejections.c.id.in_(oldest))).rowcount)
    return gone


def unlink_rejected(connection: Connection, now: int, items: Sequence[None]) -> list[list[str | None]]:
    """Unlink the bytes of up to BATCH refused files whose time is over.

    Return their blobs, to be deleted only now that no row names them; None for bytes that rode in the row.
    """
    query = select(rejections.c.id, rejections.c.blob).where(rejections.c.kept_until < now).limit(BATCH)
    query = query.with_for_update(skip_locked=True)  # one that comes again in this moment has new bytes
    return [unlink(connection, connection.execute(query).all()) for _ in items]


def unlink_dead(connection: Connection, _now: int, items: Sequence[int]) -> list[list[str | None]]:
    """Unlink the bytes of up to BATCH reports that are dead and were to be tried last before each given time.

    One that is still owed to somebody else keeps them. A copy that waited for TestNod to have such a report is given up
    with it.
    Return their blobs, to be deleted only now that no row names them; None for bytes that rode in the row.
    """
    return [_unlink(connection, before) for before in items]


def _unlink(connection: Connection, before: int) -> list[str | None]:
    dead = deliveries.c.state == DeliveryState.DEAD
    query = (
        select(reports.c.id, reports.c.blob)
        .join(deliveries, deliveries.c.report_id == reports.c.id)
        .where(dead, UNFINISHED_DELIVERY, deliveries.c.due_at < before, WITH_BYTES, ~STILL_OWED)
        .limit(BATCH)
        # One that is sent again in this moment is left alone: it has new bytes.
        .with_for_update(of=(reports, deliveries), skip_locked=True)
    )
    found = connection.execute(query).all()
    waiting = and_(deliveries.c.report_id.in_([row.id for row in found]), deliveries.c.state == DeliveryState.PENDING)
    connection.execute(update(deliveries).where(waiting).values(state=DeliveryState.DEAD, last_error=NO_BYTES))
    return _unlink_found(connection, found)


def _unlink_found(connection: Connection, found: Sequence[Any]) -> list[str | None]:
    connection.execute(update(reports).where(reports.c.id.in_([row.id for row in found])).values(body=None, blob=None))
    return [row.blob for row in found]


def unlink_delivered(connection: Connection, _now: int, items: Sequence[None]) -> list[list[str | None]]:
    """Unlink the bytes of up to BATCH reports that nobody is owed: a crash came between delivery and this.

    Return their blobs, to be deleted only now that no row names them; None for bytes that rode in the row.
    """
    unfinished = exists().where(deliveries.c.report_id == reports.c.id, deliveries.c.state != DeliveryState.DELIVERED)
    query = select(reports.c.id, reports.c.blob).where(WITH_BYTES, ~unfinished).limit(BATCH)
    query = query.with_for_update(skip_locked=True)
    return [_unlink_found(connection, connection.execute(query).all()) for _ in items]


def known_blobs(connection: Connection, blobs: Sequence[str]) -> set[str]:
    """Return which of `blobs` a row names."""
    queries = (select(table.c.blob).where(table.c.blob.in_(blobs)) for table in (reports, rejections))
    return {blob for query in queries for blob in connection.execute(query).scalars()}


def free_leases(connection: Connection, _now: int, items: Sequence[None]) -> list[int]:
    """End every lease: for the one process that owns the ledger, before it begins."""
    leased = builds.c.lease_until.is_not(None)
    freed = connection.execute(update(builds).where(leased).values(lease_until=None, lease_owner=None)).rowcount
    return [freed for _ in items]


def make_probes_due(connection: Connection, now: int, items: Sequence[None]) -> list[None]:
    """Let every closed gate be probed at once: whoever starts the gateway again may just have mended something."""
    closed = and_(circuit_breakers.c.opened_at.is_not(None), circuit_breakers.c.name != RESTORE_PAUSE)
    connection.execute(update(circuit_breakers).where(closed).values(probe_at=now, probes=0))
    return [None for _ in items]


def routes_in_use(connection: Connection) -> set[str]:
    """Return the routes that builds with something to do are pinned to."""
    query = select(builds.c.route).where(builds.c.due_at.is_not(None), builds.c.route != "").distinct()
    return {row.route for row in connection.execute(query)}


# The bytes of reports that ride in rows, and which bytes nobody is owed any more.
#
# It knows no spool: what lies there is only named.


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyLocation:
    """Where a report's bytes are: in `body`, in the spool under `blob`, or gone."""

    body: bytes | None
    blob: str | None


def body_location(connection: Connection, report_id: int) -> BodyLocation:
    """Return where the bytes of a report are."""
    row = connection.execute(select(reports.c.body, reports.c.blob).where(reports.c.id == report_id)).one()
    return BodyLocation(body=row.body, blob=row.blob)


def release_bodies(connection: Connection, _now: int, report_ids: Sequence[int]) -> list[str | None]:
    """Unlink the bytes of reports that are delivered everywhere; return for each the blob to delete then.

    Dead reports keep theirs: they may be sent again.
    """
    unfinished = deliveries.c.state != DeliveryState.DELIVERED
    wanted = exists().where(deliveries.c.report_id == reports.c.id, unfinished)
    free = select(reports.c.id, reports.c.blob).where(reports.c.id.in_(report_ids), ~wanted)
    blobs = {row.id: row.blob for row in connection.execute(free.order_by(reports.c.id).with_for_update())}
    if blobs:
        connection.execute(update(reports).where(reports.c.id.in_(list(blobs))).values(body=None, blob=None))
    return [blobs.get(report_id) for report_id in report_ids]


def unlink_corrupt_body(connection: Connection, _now: int, found: Sequence[tuple[int, str]]) -> list[bool]:
    """Unlink blobs, each (report id, blob), that are not what was accepted; False where other bytes came meanwhile."""
    return [
        bool(
            connection.execute(
                update(reports).where(reports.c.id == report_id, reports.c.blob == blob).values(blob=None)
            ).rowcount
        )
        for report_id, blob in found
    ]
