"""The bytes of reports that ride in rows, and which bytes nobody is owed any more.

It knows no spool: what lies there is only named.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, exists, select, update

from bridge.domain.build import DeliveryState
from bridge.store.schema import deliveries, reports


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Where a report's bytes are: in `body`, in the spool under `blob`, or gone."""

    body: bytes | None
    blob: str | None


def kept_bytes(connection: Connection, report_id: int) -> Kept:
    """Return where the bytes of a report are."""
    row = connection.execute(select(reports.c.body, reports.c.blob).where(reports.c.id == report_id)).one()
    return Kept(body=row.body, blob=row.blob)


def free_bytes(connection: Connection, _now: int, report_ids: Sequence[int]) -> list[str | None]:
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


def unlink_damaged(connection: Connection, _now: int, found: Sequence[tuple[int, str]]) -> list[bool]:
    """Unlink blobs, each (report id, blob), that are not what was accepted; False where other bytes came meanwhile."""
    return [
        bool(
            connection.execute(
                update(reports).where(reports.c.id == report_id, reports.c.blob == blob).values(blob=None)
            ).rowcount
        )
        for report_id, blob in found
    ]
