"""Hints about builds from outside the worker: somebody saw that a build has ended, or what its record says.

It knows neither who saw it nor what follows: it pulls turns forward and fills what is missing, without the fence, and
never writes a build's state.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from sqlalchemy import ColumnElement, Connection, and_, select, update

from bridge.domain.build import BuildRecord, BuildState, UploadMetadata
from bridge.domain.instants import Instant
from bridge.domain.lifecycle.build_end import requested_poll_due_at
from bridge.domain.routing import metadata_mismatch
from bridge.store.duplicates import SOURCE
from bridge.store.schema import UNFINISHED_BUILD, builds
from bridge.store.sql_helpers import earlier


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenRecord:
    """A record of a build that was read on its way to somebody else."""

    job_id: str
    build_no: int
    record: BuildRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class PollRequest:
    """A build that may have ended; without a number, any of its job's."""

    job_id: str
    build_no: int | None = None


def request_poll(connection: Connection, now: int, items: Sequence[PollRequest]) -> list[int]:
    """Let the open builds that are meant be looked at now, or a second after the last look; return how many they are.

    A turn that is due already is pulled too: the visit that holds it has asked before.
    """
    return [_look_at(connection, now, item) for item in items]


def _look_at(connection: Connection, now: int, item: PollRequest) -> int:
    named = builds.c.job_id == item.job_id if item.build_no is None else _is(item.job_id, item.build_no)
    # In the order of all who write to several builds: two that wait for each other would both fail.
    query = select(builds.c.id, builds.c.polled_at).where(named, builds.c.state == BuildState.OPEN, UNFINISHED_BUILD)
    found = connection.execute(query.order_by(builds.c.id).with_for_update(key_share=True)).all()
    for row in found:
        due_at = requested_poll_due_at(Instant(now), row.polled_at) or now
        pulled = {"poll_requested_at": now, "due_at": earlier(builds.c.due_at - 1, due_at)}
        connection.execute(update(builds).where(builds.c.id == row.id).values(pulled))
    return len(found)


def fill_record(connection: Connection, now: int, items: Sequence[SeenRecord]) -> list[bool]:
    """Fill what is missing of the records of builds that are not pinned yet; False where nothing was."""
    return [_fill_one(connection, now, passing) for passing in items]


def _fill_one(connection: Connection, now: int, passing: SeenRecord) -> bool:
    unpinned = and_(_is(passing.job_id, passing.build_no), builds.c.run_parameters.is_(None))
    query = select(builds.c.id, builds.c.record, builds.c.described_at, builds.c.upload_metadata).where(unpinned)
    row = connection.execute(query.with_for_update()).first()
    if row is None:
        return False
    known = BuildRecord(**row.record) if row.record else BuildRecord()
    record = _filled(known, passing.record)
    if record == known and row.described_at is not None:
        return False
    values = {
        "record": asdict(record),
        "described_at": row.described_at or now,
        "metadata_mismatch": metadata_mismatch(UploadMetadata(**row.upload_metadata), record),
        "due_at": earlier(builds.c.due_at - 1, now),
    }
    return bool(connection.execute(update(builds).where(builds.c.id == row.id, unpinned).values(values)).rowcount)


def _filled(known: BuildRecord, heard: BuildRecord) -> BuildRecord:
    return BuildRecord(
        **{field.name: getattr(known, field.name) or getattr(heard, field.name) for field in fields(BuildRecord)}
    )


def _is(job_id: str, build_no: int) -> ColumnElement[bool]:
    return and_(builds.c.source == SOURCE, builds.c.key == f"{job_id}/{build_no}")
