"""What was not accepted: refusals become rows, and the files among them that came whole keep their bytes for a while.

It knows neither why a file was refused nor the spool: what nobody needs there any more is only named.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, and_, delete, func, select, update

from bridge.domain.acceptance import Acceptance, KeptFile, NewRefusal
from bridge.domain.refusals import MAX_REFUSALS
from bridge.store.identity import SOURCE, build_key, dedupe_key
from bridge.store.rows import shown_name
from bridge.store.schema import refusals
from bridge.store.statements import insert_new

MAX_KEPT_FILES = 1_000  # of one route: more than anybody looks through; a build step that fails for days stays within
MAX_KEPT_BYTES = 256 * 1024 * 1024  # of one route: what one upload may bring, and little beside store.min_free
BATCH = 500  # rows that one upload removes at most: a build that has more from an older program loses them by and by

NO_BYTES = {"body": None, "blob": None, "kept_until": None}
FILE_KEY = ("source", "key", "file_key")


def refuse(connection: Connection, now: int, acceptances: Sequence[Acceptance]) -> list[tuple[str, ...]]:
    """Write what uploads brought in vain; return for each the blobs that no row names now.

    A file that was refused before is one row, whose bytes are kept from now on. Of one upload the first MAX_REFUSALS
    are kept, which CI was told of; of one build the newest.
    """
    return [_refuse(connection, now, acceptance) if acceptance.refusals else () for acceptance in acceptances]


def _refuse(connection: Connection, now: int, acceptance: Acceptance) -> tuple[str, ...]:
    freed: list[str | None] = []
    routes = set()
    for refusal in acceptance.refusals[:MAX_REFUSALS]:
        row = _row(acceptance, refusal, now)
        freed.append(_write(connection, row))
        if row["kept_until"] is not None:
            routes.add(row["route"])
    freed += _forget_older(connection, build_key(acceptance.job_id, acceptance.build_no))
    for route in sorted(routes):
        freed += _make_room(connection, route)
    return tuple(blob for blob in freed if blob is not None)


def _row(acceptance: Acceptance, refusal: NewRefusal, now: int) -> dict[str, Any]:
    return {
        "source": SOURCE,
        "key": build_key(acceptance.job_id, acceptance.build_no),
        "job_id": acceptance.job_id,
        "at": now,
        "name": shown_name(refusal.name),
        "reason": refusal.reason,
        "code": refusal.code,
        "caller": acceptance.caller,
        "caller_routes": None if acceptance.caller_routes is None else list(acceptance.caller_routes),
        "address": acceptance.address,
        "request_id": acceptance.request_id,
        "said": asdict(acceptance.said),
        **_file_columns(refusal.name, refusal.kept, now),
    }


def _file_columns(name: str, kept: KeptFile | None, now: int) -> dict[str, Any]:
    if kept is None:  # named all the same: rows that are inserted together have the same columns
        return dict.fromkeys(("route", "node_id", "raw_name", "size", "sha256", "received", "file_key", *NO_BYTES))
    has_bytes = kept.body is not None or kept.blob is not None
    return {
        "route": kept.route,
        "node_id": kept.node_id,
        "raw_name": name.encode("utf-8", "surrogatepass"),
        "size": kept.size,
        "sha256": kept.sha256,
        "received": {"size": kept.received_size, "sha256": kept.received_sha256},
        "file_key": dedupe_key(node_id=kept.node_id, name=name, received_sha256=kept.received_sha256),
        "body": kept.body,
        "blob": kept.blob,
        "kept_until": now + kept.keep_us if has_bytes else None,
    }


def _write(connection: Connection, row: dict[str, Any]) -> str | None:
    """Insert a refusal, or refresh the row of a file that was refused before; return the blob that is one too many."""
    if row["file_key"] is None:
        connection.execute(refusals.insert(), row)
        return None
    if insert_new(connection, refusals, [row], "id"):
        return None
    same = and_(*(refusals.c[name] == row[name] for name in FILE_KEY))
    found = select(refusals.c.id, refusals.c.kept_until, refusals.c.sent_at).where(same).with_for_update()
    known = connection.execute(found).one_or_none()
    if known is None:  # another gateway has just forgotten it
        return _write(connection, row)
    surplus: str | None = row["blob"]
    if known.sent_at is not None:  # a report by now, which has bytes of its own
        row |= NO_BYTES
    elif known.kept_until is None:
        surplus = None
    else:  # the bytes that are there stay, and whoever reads them is not disturbed
        row = {name: value for name, value in row.items() if name not in ("body", "blob")}
        row["kept_until"] = row["kept_until"] or known.kept_until
    connection.execute(update(refusals).where(refusals.c.id == known.id).values(row))
    return surplus


def _forget_older(connection: Connection, key: str) -> list[str | None]:
    """Delete all but the newest refusals of a build; return their blobs."""
    of_build = and_(refusals.c.source == SOURCE, refusals.c.key == key)
    newest_first = select(refusals.c.id, refusals.c.blob).where(of_build).order_by(*NEWEST_FIRST)
    beyond = newest_first.limit(BATCH).offset(MAX_REFUSALS).with_for_update(skip_locked=True)
    old = connection.execute(beyond).all()
    if old:
        connection.execute(delete(refusals).where(refusals.c.id.in_([row.id for row in old])))
    return [row.blob for row in old]


NEWEST_FIRST = (refusals.c.at.desc(), refusals.c.id.desc())


def _make_room(connection: Connection, route: str) -> list[str | None]:
    """Let go of the oldest bytes where those of a route are more than they may be; return their blobs."""
    of_route = and_(refusals.c.route == route, refusals.c.kept_until.is_not(None))
    files, size = connection.execute(select(func.count(), func.sum(refusals.c.size)).where(of_route)).one()
    if files <= MAX_KEPT_FILES and (size or 0) <= MAX_KEPT_BYTES:
        return []
    over = []
    oldest_first = select(refusals.c.id, refusals.c.size, refusals.c.blob).where(of_route)
    oldest_first = oldest_first.order_by(refusals.c.kept_until, refusals.c.id).with_for_update(skip_locked=True)
    for row in connection.execute(oldest_first):
        if files <= MAX_KEPT_FILES and size <= MAX_KEPT_BYTES:
            break
        over.append(row)
        files, size = files - 1, size - row.size
    return unlink(connection, over)


def unlink(connection: Connection, rows: Sequence[Any]) -> list[str | None]:
    """Unlink the bytes of refusals (id, blob); return their blobs, None for bytes that rode in the row."""
    connection.execute(update(refusals).where(refusals.c.id.in_([row.id for row in rows])).values(NO_BYTES))
    return [row.blob for row in rows]
