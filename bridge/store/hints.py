"""Hints about builds from outside the worker: somebody saw that a build has ended, or what its record says.

It knows neither who saw it nor what follows: it pulls turns forward and fills what is missing, without the fence, and
never writes a build's state.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from sqlalchemy import ColumnElement, Connection, and_, select, update

from bridge.domain.build import BuildState, Record, Said
from bridge.domain.routing import identity_mismatch
from bridge.store.identity import SOURCE
from bridge.store.schema import builds
from bridge.store.statements import earlier


@dataclass(frozen=True, kw_only=True, slots=True)
class Passing:
    """A record of a build that was read on its way to somebody else."""

    job_id: str
    build_no: int
    record: Record


def look_now(connection: Connection, now: int, items: Sequence[tuple[str, int]]) -> list[bool]:
    """Let each open build (job id, build number) be looked at now: it may have ended. False where there is none.

    A turn that is due already is pulled too: the visit that holds it has asked before.
    """
    pulled = {"look_at": now, "due_at": earlier(builds.c.due_at - 1, now)}
    return [
        bool(
            connection.execute(
                update(builds).where(_is(job_id, build_no), builds.c.state == BuildState.OPEN).values(pulled)
            ).rowcount
        )
        for job_id, build_no in items
    ]


def fill_record(connection: Connection, now: int, items: Sequence[Passing]) -> list[bool]:
    """Fill what is missing of the records of builds that are not pinned yet; False where nothing was."""
    return [_fill_one(connection, now, passing) for passing in items]


def _fill_one(connection: Connection, now: int, passing: Passing) -> bool:
    unpinned = and_(_is(passing.job_id, passing.build_no), builds.c.pin.is_(None))
    query = select(builds.c.id, builds.c.record, builds.c.described_at, builds.c.said).where(unpinned)
    row = connection.execute(query.with_for_update()).first()
    if row is None:
        return False
    known = Record(**row.record) if row.record else Record()
    record = _filled(known, passing.record)
    if record == known and row.described_at is not None:
        return False
    values = {
        "record": asdict(record),
        "described_at": row.described_at or now,
        "identity_mismatch": identity_mismatch(Said(**row.said), record),
        "due_at": earlier(builds.c.due_at - 1, now),
    }
    return bool(connection.execute(update(builds).where(builds.c.id == row.id, unpinned).values(values)).rowcount)


def _filled(known: Record, heard: Record) -> Record:
    return Record(**{field.name: getattr(known, field.name) or getattr(heard, field.name) for field in fields(Record)})


def _is(job_id: str, build_no: int) -> ColumnElement[bool]:
    return and_(builds.c.source == SOURCE, builds.c.key == f"{job_id}/{build_no}")
