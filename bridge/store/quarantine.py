"""Refused files as they are looked at and sent after all.

It knows neither HTTP nor the spool. Bytes are read for one file at a time, never for a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select, update

from bridge.domain.build import Said
from bridge.domain.refusals import Refusal
from bridge.store.identity import SOURCE, build_key
from bridge.store.refusing import NO_BYTES
from bridge.store.rows import to_refusal
from bridge.store.schema import refusals

MAX_ID = 2**53
"""Above every id of the ledger."""

SHOWN = [column for column in refusals.c if column.name not in ("body", "blob", "raw_name")]


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusalsQuery:
    """Which refusals are asked for: None is any. `build_no` is read only together with `job_id`."""

    job_id: str | None = None
    build_no: int | None = None
    route: str | None = None
    limit: int = 100
    before_id: int = MAX_ID  # `next_before_id` of the page before


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedFile:
    """A refusal, and where it belongs; `route` and `node_id` are None where no whole file came."""

    refusal: Refusal
    job_id: str
    build_no: int
    route: str | None
    node_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusalsPage:
    """Refusals, newest first; None: there are no older ones."""

    refusals: list[RefusedFile]
    next_before_id: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """A refused file with all that its upload said; its bytes are in `body`, in the spool under `blob`, or gone."""

    file: RefusedFile
    raw_name: str
    received_size: int
    received_sha256: str
    said: Said
    caller_routes: tuple[str, ...] | None
    address: str
    body: bytes | None
    blob: str | None


def list_refusals(connection: Connection, query: RefusalsQuery) -> RefusalsPage:
    """Return one page of refusals."""
    wanted = [refusals.c.id < query.before_id]
    if query.job_id is not None and query.build_no is not None:
        wanted += [refusals.c.source == SOURCE, refusals.c.key == build_key(query.job_id, query.build_no)]
    elif query.job_id is not None:
        wanted.append(refusals.c.job_id == query.job_id)
    if query.route is not None:
        wanted.append(refusals.c.route == query.route)
    found = connection.execute(
        select(*SHOWN).where(*wanted).order_by(refusals.c.id.desc()).limit(query.limit + 1)
    ).all()
    rows = found[: query.limit]
    return RefusalsPage(
        refusals=[_refused_file(row) for row in rows],
        next_before_id=rows[-1].id if len(rows) < len(found) else None,
    )


def find_quarantined(connection: Connection, refusal_id: int) -> Quarantined | None:
    """Return a refusal of a file that came whole; None where there is none of this id."""
    whole = refusals.c.file_key.is_not(None)
    row = connection.execute(select(refusals).where(refusals.c.id == refusal_id, whole)).one_or_none()
    if row is None:
        return None
    return Quarantined(
        file=_refused_file(row),
        raw_name=row.raw_name.decode("utf-8", "surrogatepass"),
        received_size=row.received["size"],
        received_sha256=row.received["sha256"],
        said=Said(**row.said),
        caller_routes=None if row.caller_routes is None else tuple(row.caller_routes),
        address=row.address,
        body=row.body,
        blob=row.blob,
    )


def mark_sent(connection: Connection, now: int, refusal_ids: Sequence[int]) -> list[str | None]:
    """Note that refused files were sent after all, and unlink their bytes; return the blobs to delete then."""
    freed = []
    for refusal_id in refusal_ids:
        unsent = (refusals.c.id == refusal_id, refusals.c.sent_at.is_(None))
        freed.append(connection.execute(select(refusals.c.blob).where(*unsent).with_for_update()).scalar())
        connection.execute(update(refusals).where(*unsent).values(sent_at=now, **NO_BYTES))
    return freed


def _refused_file(row: Row[Any]) -> RefusedFile:
    job_id, _, build_no = row.key.rpartition("/")
    return RefusedFile(
        refusal=to_refusal(row), job_id=job_id, build_no=int(build_no), route=row.route, node_id=row.node_id
    )
