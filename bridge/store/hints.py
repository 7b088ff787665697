"""Hints about builds from outside the worker: somebody saw that a build has ended, or what its record says.

It knows neither who saw it nor what follows: it pulls turns forward and fills what is missing, without the fence, and
never writes a build's state.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from sqlalchemy import ColumnElement, Connection, and_, select, update

from bridge.domain.build import BuildState, Record, Said
from bridge.domain.polling import look_due_at
from bridge.domain.routing import identity_mismatch
from bridge.store.identity import SOURCE
from bridge.store.schema import UNFINISHED_BUILD, builds
from bridge.store.statements import earlier


@dataclass(frozen=True, kw_only=True, slots=True)
class Passing:
    """A record of a build that was read on its way to somebody else."""

    job_id: str
    build_no: int
    record: Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A build that may have ended; without a number, any of its job's."""

    job_id: str
    build_no: int | None = None


def look_now(connection: Connection, now: int, items: Sequence[Look]) -> list[int]:
    """Let the open builds that are meant be looked at now, or a second after the last look; return how many they are.

    A turn that is due already is pulled too: the visit that holds it has asked before.
    """
    return [_look_at(connection, now, item) for item in items]


def _look_at(connection: Connection, now: int, item: Look) -> int:
    named = builds.c.job_id == item.job_id if item.build_no is None else _is(item.job_id, item.build_no)
    # In the order of all who write to several builds: two that wait for each other would both fail.
    query = select(builds.c.id, builds.c.polled_at).where(named, builds.c.state == BuildState.OPEN, UNFINISHED_BUILD)
    found = connection.execute(query.order_by(builds.c.id).with_for_update(key_share=True)).all()
    for row in found:
        due_at = look_due_at(now, row.polled_at) or now
        pulled = {"look_at": now, "due_at": earlier(builds.c.due_at - 1, due_at)}
        connection.execute(update(builds).where(builds.c.id == row.id).values(pulled))
    return len(found)


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
