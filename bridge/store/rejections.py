"""What was not accepted: refusals become rows, and the files among them that came whole keep their bytes for a while.

It knows neither why a file was refused nor the spool: what nobody needs there any more is only named.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, select, update

from bridge.domain.build import UploadMetadata
from bridge.domain.intake import AcceptedUpload, NewRejection, QuarantinedFile
from bridge.domain.rejections import MAX_REJECTIONS, Rejection
from bridge.store.duplicates import SOURCE, build_key, dedupe_key
from bridge.store.row_mapping import shown_name, to_rejection
from bridge.store.schema import rejections
from bridge.store.sql_helpers import insert_new

MAX_KEPT_FILES = 1_000  # of one route: more than anybody looks through; a build step that fails for days stays within
MAX_KEPT_BYTES = 256 * 1024 * 1024  # of one route: what one upload may bring, and little beside store.min_free
BATCH = 500  # rows that one upload removes at most: a build that has more from an older program loses them by and by

NO_BYTES = {"body": None, "blob": None, "kept_until": None}
FILE_KEY = ("source", "key", "file_key")


def record_rejections(connection: Connection, now: int, acceptances: Sequence[AcceptedUpload]) -> list[tuple[str, ...]]:
    """Write what uploads brought in vain; return for each the blobs that no row names now.

    A file that was refused before is one row, whose bytes are kept from now on. Of one upload the first MAX_REFUSALS
    are kept, which CI was told of; of one build the newest.
    """
    return [_refuse(connection, now, acceptance) if acceptance.refusals else () for acceptance in acceptances]


def _refuse(connection: Connection, now: int, acceptance: AcceptedUpload) -> tuple[str, ...]:
    freed: list[str | None] = []
    routes = set()
    for refusal in acceptance.refusals[:MAX_REJECTIONS]:
        row = _row(acceptance, refusal, now)
        freed.append(_write(connection, row))
        if row["kept_until"] is not None:
            routes.add(row["route"])
    freed += _forget_older(connection, build_key(acceptance.job_id, acceptance.build_no))
    for route in sorted(routes):
        freed += _make_room(connection, route)
    return tuple(blob for blob in freed if blob is not None)


def _row(acceptance: AcceptedUpload, refusal: NewRejection, now: int) -> dict[str, Any]:
    return {
        "source": SOURCE,
        "key": build_key(acceptance.job_id, acceptance.build_no),
        "job_id": acceptance.job_id,
        "rejected_at": now,
        "name": shown_name(refusal.name),
        "reason": refusal.reason,
        "code": refusal.code,
        "caller": acceptance.caller,
        "caller_routes": None if acceptance.caller_routes is None else list(acceptance.caller_routes),
        "address": acceptance.address,
        "request_id": acceptance.request_id,
        "upload_metadata": asdict(acceptance.upload_metadata),
        **_file_columns(refusal.name, refusal.kept, now),
    }


def _file_columns(name: str, kept: QuarantinedFile | None, now: int) -> dict[str, Any]:
    if kept is None:  # named all the same: rows that are inserted together have the same columns
        return dict.fromkeys(
            ("route", "node_id", "raw_name", "size", "sha256", "wire_size", "wire_sha256", "file_key", *NO_BYTES)
        )
    has_bytes = kept.body is not None or kept.blob is not None
    return {
        "route": kept.route,
        "node_id": kept.node_id,
        "raw_name": name.encode("utf-8", "surrogatepass"),
        "size": kept.size,
        "sha256": kept.sha256,
        "wire_size": kept.received_size,
        "wire_sha256": kept.received_sha256,
        "file_key": dedupe_key(node_id=kept.node_id, name=name, received_sha256=kept.received_sha256),
        "body": kept.body,
        "blob": kept.blob,
        "kept_until": now + kept.keep_us if has_bytes else None,
    }


def _write(connection: Connection, row: dict[str, Any]) -> str | None:
    """Insert a refusal, or refresh the row of a file that was refused before; return the blob that is one too many."""
    if row["file_key"] is None:
        connection.execute(rejections.insert(), row)
        return None
    if insert_new(connection, rejections, [row], "id"):
        return None
    same = and_(*(rejections.c[name] == row[name] for name in FILE_KEY))
    found = select(rejections.c.id, rejections.c.kept_until, rejections.c.sent_at).where(same).with_for_update()
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
    connection.execute(update(rejections).where(rejections.c.id == known.id).values(row))
    return surplus


def _forget_older(connection: Connection, key: str) -> list[str | None]:
    """Delete all but the newest refusals of a build; return their blobs."""
    of_build = and_(rejections.c.source == SOURCE, rejections.c.key == key)
    newest_first = select(rejections.c.id, rejections.c.blob).where(of_build).order_by(*NEWEST_FIRST)
    beyond = newest_first.limit(BATCH).offset(MAX_REJECTIONS).with_for_update(skip_locked=True)
    old = connection.execute(beyond).all()
    if old:
        connection.execute(delete(rejections).where(rejections.c.id.in_([row.id for row in old])))
    return [row.blob for row in old]


NEWEST_FIRST = (rejections.c.rejected_at.desc(), rejections.c.id.desc())


def _make_room(connection: Connection, route: str) -> list[str | None]:
    """Let go of the oldest bytes where those of a route are more than they may be; return their blobs."""
    of_route = and_(rejections.c.route == route, rejections.c.kept_until.is_not(None))
    files, size = connection.execute(select(func.count(), func.sum(rejections.c.size)).where(of_route)).one()
    if files <= MAX_KEPT_FILES and (size or 0) <= MAX_KEPT_BYTES:
        return []
    over = []
    oldest_first = select(rejections.c.id, rejections.c.size, rejections.c.blob).where(of_route)
    oldest_first = oldest_first.order_by(rejections.c.kept_until, rejections.c.id).with_for_update(skip_locked=True)
    for row in connection.execute(oldest_first):
        if files <= MAX_KEPT_FILES and size <= MAX_KEPT_BYTES:
            break
        over.append(row)
        files, size = files - 1, size - row.size
    return unlink(connection, over)


def unlink(connection: Connection, rows: Sequence[Any]) -> list[str | None]:
    """Unlink the bytes of refusals (id, blob); return their blobs, None for bytes that rode in the row."""
    connection.execute(update(rejections).where(rejections.c.id.in_([row.id for row in rows])).values(NO_BYTES))
    return [row.blob for row in rows]


# Refused files as they are looked at and sent after all.
#
# It knows neither HTTP nor the spool. Bytes are read for one file at a time, never for a page.


MAX_ID = 2**53
"""Above every id of the ledger."""

SHOWN = [column for column in rejections.c if column.name not in ("body", "blob", "raw_name")]


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectionsQuery:
    """Which refusals are asked for: None is any. `build_no` is read only together with `job_id`."""

    job_id: str | None = None
    build_no: int | None = None
    route: str | None = None
    limit: int = 100
    before_id: int = MAX_ID  # `next_before_id` of the page before


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedFile:
    """A refusal, and where it belongs; `route` and `node_id` are None where no whole file came."""

    refusal: Rejection
    job_id: str
    build_no: int
    route: str | None
    node_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectionsPage:
    """Refusals, newest first; None: there are no older ones."""

    refusals: list[RejectedFile]
    next_before_id: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantinedBody:
    """A refused file with all that its upload said; its bytes are in `body`, in the spool under `blob`, or gone."""

    file: RejectedFile
    raw_name: str
    received_size: int
    received_sha256: str
    upload_metadata: UploadMetadata
    caller_routes: tuple[str, ...] | None
    address: str
    body: bytes | None
    blob: str | None


def list_rejections(connection: Connection, query: RejectionsQuery) -> RejectionsPage:
    """Return one page of refusals."""
    wanted = [rejections.c.id < query.before_id]
    if query.job_id is not None and query.build_no is not None:
        wanted += [rejections.c.source == SOURCE, rejections.c.key == build_key(query.job_id, query.build_no)]
    elif query.job_id is not None:
        wanted.append(rejections.c.job_id == query.job_id)
    if query.route is not None:
        wanted.append(rejections.c.route == query.route)
    found = connection.execute(
        select(*SHOWN).where(*wanted).order_by(rejections.c.id.desc()).limit(query.limit + 1)
    ).all()
    rows = found[: query.limit]
    return RejectionsPage(
        refusals=[_refused_file(row) for row in rows],
        next_before_id=rows[-1].id if len(rows) < len(found) else None,
    )


def find_quarantined(connection: Connection, refusal_id: int) -> QuarantinedBody | None:
    """Return a refusal of a file that came whole; None where there is none of this id."""
    whole = rejections.c.file_key.is_not(None)
    row = connection.execute(select(rejections).where(rejections.c.id == refusal_id, whole)).one_or_none()
    if row is None:
        return None
    return QuarantinedBody(
        file=_refused_file(row),
        raw_name=row.raw_name.decode("utf-8", "surrogatepass"),
        received_size=row.wire_size,
        received_sha256=row.wire_sha256,
        upload_metadata=UploadMetadata(**row.upload_metadata),
        caller_routes=None if row.caller_routes is None else tuple(row.caller_routes),
        address=row.address,
        body=row.body,
        blob=row.blob,
    )


def mark_sent(connection: Connection, now: int, refusal_ids: Sequence[int]) -> list[str | None]:
    """Note that refused files were sent after all, and unlink their bytes; return the blobs to delete then."""
    freed = []
    for refusal_id in refusal_ids:
        unsent = (rejections.c.id == refusal_id, rejections.c.sent_at.is_(None))
        freed.append(connection.execute(select(rejections.c.blob).where(*unsent).with_for_update()).scalar())
        connection.execute(update(rejections).where(*unsent).values(sent_at=now, **NO_BYTES))
    return freed


def _refused_file(row: Row[Any]) -> RejectedFile:
    job_id, _, build_no = row.key.rpartition("/")
    return RejectedFile(
        refusal=to_rejection(row), job_id=job_id, build_no=int(build_no), route=row.route, node_id=row.node_id
    )
