"""Rejections in the ledger, and the quarantine: rejected files whose bytes are kept for a while, to be sent later."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, literal_column, select, update

from bridge.domain.build import BuildNo, UploadMetadata
from bridge.domain.intake import MAX_REJECTIONS, AcceptedUpload, NewRejection, QuarantinedFile, Rejection
from bridge.store.duplicates import SOURCES, UPLOAD, build_key, build_of_key, dedupe_key, source_of
from bridge.store.row_mapping import shown_name, to_rejection
from bridge.store.schema import rejections
from bridge.store.sql_helpers import insert_new
from bridge.values import dataclass

MAX_QUARANTINED_FILES: Final = 1_000
"""For one route and caller: a build step that fails for days stays within, and people do not look through more."""

MAX_QUARANTINED_BYTES: Final = 256 * 1024 * 1024
"""For one route and caller: as much as one upload may bring, and little compared with store.min_free_space."""

MAX_UNPROVEN: Final = 1_000
MAX_UNPROVEN_OF_ADDRESS: Final = 200
MAX_UNPROVEN_OF_BUILD: Final = 10
"""Rejections of callers that are not proven (a wrong token), so that strangers can neither fill the table nor replace
the rejections of callers. They bring no bytes."""

MAX_FOREIGN_OF_CALLER: Final = 200
MAX_FOREIGN_OF_BUILD: Final = 10
"""Rejections of one caller that may not upload, or for jobs that no route of it takes. They bring no bytes either."""

MAX_JOB_ID: Final = 32
"""Characters of the column, in which only filters look for a job or, of submitted builds, a route."""

DELETE_LIMIT: Final = 500
"""Rows that one upload deletes at most."""

MAX_ID: Final = 2**53
"""Above every id of the ledger."""

NO_BYTES = {"body": None, "blob": None, "kept_until": None}
FILE_KEY = ("source", "key", "file_key")
# Literally, as in the conditions of their indexes.
IS_FOREIGN: ColumnElement[bool] = literal_column("is_foreign")
IS_UNPROVEN = rejections.c.caller == literal_column("''")
NEWEST_FIRST = (rejections.c.rejected_at.desc(), rejections.c.id.desc())
SHOWN_COLUMNS = [column for column in rejections.c if column.name not in ("body", "blob", "raw_name")]


class BlobRow(NamedTuple):
    """The id of a row, and the key of its blob; None if its bytes are in the row itself."""

    id: int
    blob: str | None


# -- record ------------------------------------------------------------------------------------------------------


def record_rejections(connection: Connection, now: int, uploads: Sequence[AcceptedUpload]) -> list[tuple[str, ...]]:
    """Write the rejections of uploads; return for each the blobs that no row refers to any more.

    A file of a caller that was rejected before stays one row, and its bytes are kept from now on. Of one upload the
    first MAX_REJECTIONS are kept, of one build and caller the newest, and few of callers that are not proven or may use
    no route of the job. So rejections of a caller replace only its own.
    """
    return [_record_upload(connection, now, upload) if upload.rejections else () for upload in uploads]


def _record_upload(connection: Connection, now: int, upload: AcceptedUpload) -> tuple[str, ...]:
    freed: list[str | None] = []
    routes = set()
    for rejection in upload.rejections[:MAX_REJECTIONS]:
        row = _row(upload, rejection, now)
        freed.append(_write(connection, row))
        if row["kept_until"] is not None:
            routes.add(row["route"])
    of_build = of_build_condition(upload.job_id, upload.build_no)
    if not upload.caller:
        _delete_unproven(connection, of_build, upload.address)
    elif upload.is_foreign:
        _delete_foreign(connection, of_build, upload.caller)
    freed += _delete_older(connection, of_build, upload.caller)
    for route in sorted(routes):
        freed += _unlink_surplus(connection, route, upload.caller)
    return tuple(blob for blob in freed if blob is not None)


def _row(upload: AcceptedUpload, rejection: NewRejection, now: int) -> dict[str, Any]:
    return {
        "source": source_of(upload.build_no),
        "key": build_key(upload.job_id, upload.build_no),
        "job_id": upload.job_id if len(upload.job_id) <= MAX_JOB_ID else None,
        "rejected_at": now,
        "name": shown_name(rejection.name),
        "reason": rejection.reason,
        "code": rejection.code,
        "caller": upload.caller,
        "is_foreign": upload.is_foreign,
        "caller_routes": None if upload.caller_routes is None else list(upload.caller_routes),
        "address": upload.address,
        "request_id": upload.request_id,
        "upload_metadata": asdict(upload.upload_metadata),
        **_file_columns(rejection.name, rejection.quarantined, upload.caller, now),
    }


def _file_columns(name: str, kept: QuarantinedFile | None, caller: str, now: int) -> dict[str, Any]:
    if kept is None:  # rows that are inserted together need the same columns
        names = ("route", "node_id", "raw_name", "size", "sha256", "wire_size", "wire_sha256", "file_key", *NO_BYTES)
        return dict.fromkeys(names)
    has_bytes = kept.body is not None or kept.blob is not None
    return {
        "route": kept.route,
        "node_id": kept.node_id,
        "raw_name": name.encode("utf-8", "surrogatepass"),
        "size": kept.size,
        "sha256": kept.sha256,
        "wire_size": kept.received_size,
        "wire_sha256": kept.received_sha256,
        # Each caller has a row of its own: it keeps the routes that the file may be sent to.
        "file_key": dedupe_key(
            node_id=kept.node_id, name=name, received_sha256=kept.received_sha256, source=f"{UPLOAD} {caller}"
        ),
        "body": kept.body,
        "blob": kept.blob,
        "kept_until": now + kept.keep_us if has_bytes else None,
    }


def _write(connection: Connection, row: dict[str, Any]) -> str | None:
    """Insert a rejection, or update the row of a file that was rejected before; return a blob that is not needed."""
    if row["file_key"] is None:
        connection.execute(rejections.insert(), row)
        return None
    if insert_new(connection, rejections, [row], "id"):
        return None
    same_file = and_(*(rejections.c[name] == row[name] for name in FILE_KEY))
    found = select(rejections.c.id, rejections.c.kept_until, rejections.c.sent_at).where(same_file).with_for_update()
    known = connection.execute(found).one_or_none()
    if known is None:  # another gateway has just deleted it
        return _write(connection, row)
    surplus: str | None = row["blob"]
    if known.sent_at is not None:  # it was accepted since, and the report has bytes of its own
        row |= NO_BYTES
    elif known.kept_until is None:
        surplus = None
    else:  # the stored bytes stay: another request may be reading them
        row = {name: value for name, value in row.items() if name not in ("body", "blob")}
        row["kept_until"] = row["kept_until"] or known.kept_until
    connection.execute(update(rejections).where(rejections.c.id == known.id).values(row))
    return surplus


def _delete_older(connection: Connection, of_build: ColumnElement[bool], caller: str) -> list[str | None]:
    """Delete all but the newest rejections of a build and caller; return their blobs."""
    of_caller = and_(of_build, rejections.c.caller == caller)
    newest_first = select(rejections.c.id, rejections.c.blob).where(of_caller).order_by(*NEWEST_FIRST)
    beyond = newest_first.limit(DELETE_LIMIT).offset(MAX_REJECTIONS).with_for_update(skip_locked=True)
    old = [BlobRow._make(row) for row in connection.execute(beyond)]
    if old:
        connection.execute(delete(rejections).where(rejections.c.id.in_([row.id for row in old])))
    return [row.blob for row in old]


def _delete_unproven(connection: Connection, of_build: ColumnElement[bool], address: str) -> None:
    """Delete the older rejections of unproven callers: of this build, of this address, and of all."""
    keep_newest(connection, MAX_UNPROVEN_OF_BUILD, IS_UNPROVEN, of_build)
    keep_newest(connection, MAX_UNPROVEN_OF_ADDRESS, IS_UNPROVEN, rejections.c.address == address)
    keep_newest(connection, MAX_UNPROVEN, IS_UNPROVEN)


def _delete_foreign(connection: Connection, of_build: ColumnElement[bool], caller: str) -> None:
    """Delete the older rejections of a caller for jobs that no route of it takes: of this build, and of all."""
    of_caller = (IS_FOREIGN, rejections.c.caller == caller)
    keep_newest(connection, MAX_FOREIGN_OF_BUILD, *of_caller, of_build)
    keep_newest(connection, MAX_FOREIGN_OF_CALLER, *of_caller)


def of_build_condition(job_id: str, build_no: BuildNo) -> ColumnElement[bool]:
    """Return the condition of the rejections of a build."""
    return and_(rejections.c.source == source_of(build_no), rejections.c.key == build_key(job_id, build_no))


def keep_newest(connection: Connection, kept: int, *where: ColumnElement[bool]) -> None:
    """Delete all but the newest `kept` rejections, which have no bytes."""
    newest_first = select(rejections.c.id).where(*where).order_by(rejections.c.id.desc())
    old = connection.execute(newest_first.limit(DELETE_LIMIT).offset(kept)).scalars().all()
    if old:
        connection.execute(delete(rejections).where(rejections.c.id.in_(old)))


def _unlink_surplus(connection: Connection, route: str, caller: str) -> list[str | None]:
    """Unlink the oldest bytes of a caller that has more of a route than it may have; return their blobs."""
    of_route = and_(rejections.c.route == route, rejections.c.caller == caller, rejections.c.kept_until.is_not(None))
    files, size = connection.execute(select(func.count(), func.sum(rejections.c.size)).where(of_route)).one()
    if files <= MAX_QUARANTINED_FILES and (size or 0) <= MAX_QUARANTINED_BYTES:
        return []
    surplus = []
    oldest_first = select(rejections.c.id, rejections.c.size, rejections.c.blob).where(of_route)
    oldest_first = oldest_first.order_by(rejections.c.kept_until, rejections.c.id).with_for_update(skip_locked=True)
    for row in connection.execute(oldest_first):
        if files <= MAX_QUARANTINED_FILES and size <= MAX_QUARANTINED_BYTES:
            break
        surplus.append(BlobRow(row.id, row.blob))
        files, size = files - 1, size - row.size
    return unlink(connection, surplus)


def unlink(connection: Connection, rows: Sequence[BlobRow]) -> list[str | None]:
    """Unlink the bytes of rejections; return their blobs, None for bytes in the row."""
    connection.execute(update(rejections).where(rejections.c.id.in_([row.id for row in rows])).values(NO_BYTES))
    return [row.blob for row in rows]


def mark_sent(connection: Connection, now: int, rejection_ids: Sequence[int]) -> list[str | None]:
    """Record that rejected files were sent, and unlink their bytes; return the blobs to delete after the commit."""
    freed = []
    for rejection_id in rejection_ids:
        unsent = (rejections.c.id == rejection_id, rejections.c.sent_at.is_(None))
        freed.append(connection.execute(select(rejections.c.blob).where(*unsent).with_for_update()).scalar())
        connection.execute(update(rejections).where(*unsent).values(sent_at=now, **NO_BYTES))
    return freed


# -- read --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectionsQuery:
    """Filters of a page of rejections; None matches any. `build_no` counts only together with `job_id`."""

    job_id: str | None = None
    build_no: BuildNo | None = None
    route: str | None = None
    limit: int = 100
    before_id: int = MAX_ID  # `next_before_id` of the page before
    until: int | None = None  # rejected before, microseconds UTC


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectedFile:
    """A rejection and its build; `route` and `node_id` are None if no whole file came."""

    rejection: Rejection
    job_id: str
    build_no: BuildNo
    route: str | None
    node_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RejectionsPage:
    """Rejections, newest first; `next_before_id` is None if there are no older ones."""

    rejections: list[RejectedFile]
    next_before_id: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantinedBody:
    """A rejected file with its upload; its bytes are in `body`, in the spool under `blob`, or gone."""

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
    """Return one page of rejections."""
    wanted = [rejections.c.id < query.before_id]
    if query.job_id is not None and query.build_no is not None:
        wanted.append(of_build_condition(query.job_id, query.build_no))
    elif query.job_id is not None:
        wanted.append(rejections.c.job_id == query.job_id)
    if query.route is not None:
        wanted.append(rejections.c.route == query.route)
    if query.until is not None:  # a file that is rejected again gets a new time and keeps its id
        wanted.append(rejections.c.rejected_at < query.until)
    statement = select(*SHOWN_COLUMNS).where(*wanted).order_by(rejections.c.id.desc()).limit(query.limit + 1)
    found = connection.execute(statement).all()
    rows = found[: query.limit]
    return RejectionsPage(
        rejections=[_rejected_file(row) for row in rows],
        next_before_id=rows[-1].id if len(rows) < len(found) else None,
    )


def find_quarantined(connection: Connection, rejection_id: int) -> QuarantinedBody | None:
    """Return a rejected file that came whole; None if there is none with this id."""
    whole = rejections.c.file_key.is_not(None)
    row = connection.execute(select(rejections).where(rejections.c.id == rejection_id, whole)).one_or_none()
    if row is None:
        return None
    return QuarantinedBody(
        file=_rejected_file(row),
        raw_name=row.raw_name.decode("utf-8", "surrogatepass"),
        received_size=row.wire_size,
        received_sha256=row.wire_sha256,
        upload_metadata=UploadMetadata(**row.upload_metadata),
        caller_routes=None if row.caller_routes is None else tuple(row.caller_routes),
        address=row.address,
        body=row.body,
        blob=row.blob,
    )


def rejections_by_key(connection: Connection, routes: Mapping[str, str]) -> dict[str, list[Rejection]]:
    """Return the newest rejections of each build, oldest first, also of builds that have no row.

    `routes` has the route of each build by key, empty if none is known. Callers take turns, so that the rejections of
    one cannot push out those of another.
    """
    table = rejections.c
    turn = func.row_number().over(partition_by=(table.key, table.caller), order_by=NEWEST_FIRST).label("turn")
    of_builds = select(*SHOWN_COLUMNS, turn).where(table.source.in_(SOURCES), table.key.in_(routes)).subquery()
    in_turn = (of_builds.c.is_foreign, of_builds.c.turn, of_builds.c.rejected_at.desc(), of_builds.c.id.desc())
    rank = func.row_number().over(partition_by=of_builds.c.key, order_by=in_turn).label("rank")
    ranked = select(of_builds, rank).subquery()
    query = select(ranked).where(ranked.c.rank <= MAX_REJECTIONS).order_by(ranked.c.rejected_at, ranked.c.id)
    found: dict[str, list[Rejection]] = {}
    for row in connection.execute(query):
        rejection, route = to_rejection(row), routes[row.key]
        bound_elsewhere = (
            bool(row.caller and route) and row.caller_routes is not None and route not in row.caller_routes
        )
        found.setdefault(row.key, []).append(replace(rejection, is_foreign=rejection.is_foreign or bound_elsewhere))
    return found


def _rejected_file(row: Row[Any]) -> RejectedFile:
    job_id, build_no = build_of_key(row.source, row.key)
    return RejectedFile(
        rejection=to_rejection(row), job_id=job_id, build_no=build_no, route=row.route, node_id=row.node_id
    )
