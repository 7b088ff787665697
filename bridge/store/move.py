"""A move of the ledger to another database, by rows: resumable, compared at its end, and undone while it may be.

Both ledgers hold a row of `moves` with the same id. At the source it keeps gateways from starting, from the
first copied row on; at the target it does so until all rows have arrived. Neither gateway may run meanwhile.

    source: copying -> moved            or, by an undo, -> undone
    target: arriving -> arrived         or, by an undo, -> moved (its rows went back) or undone (it is empty again)
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Column, Connection, LargeBinary, Table, delete, func, insert, select, text, tuple_

from bridge.clock import Clock
from bridge.domain.text_format import counted
from bridge.errors import CorruptBlob, MoveRejected
from bridge.store.blobs.base import Spool, is_key
from bridge.store.engine.postgres_url import is_postgres, shown_url
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.leases import free_leases
from bridge.store.ledger import migrate_over, migrate_sqlite, newest_revision, path_of, require_ledger
from bridge.store.move_marks import BLOCKING, MoveMark, MoveState, add_mark, newest_mark, set_state
from bridge.store.schema import Id, metadata, moves, rejections, reports
from bridge.values import dataclass

ROWS: Final = 500
"""Rows of one commit."""

ROWS_WITH_BYTES: Final = 20
"""The same for tables whose rows may have half a megabyte: bodies of reports, digests of their cases."""

PROGRESS_ROWS: Final = 50_000
"""Rows between two messages of progress."""

OTHER_CONNECTIONS: Final = text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)

Result = TypeVar("Result")
Key = tuple[Any, ...]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What was moved: rows by table, and blobs; `missing` blobs were not in the source's spool either."""

    rows: Mapping[str, int]
    blobs: int
    missing: Sequence[str]
    was_done: bool = False  # by an earlier run of the command


# -- the two ledgers ---------------------------------------------------------------------------------------------


class Side(Protocol):
    """One of the two ledgers, which no gateway has open."""

    name: str
    """For display, without a password."""

    async def run(self, function: Callable[[Connection], Result]) -> Result:
        """Run `function` in one transaction that is committed after it."""

    async def require_alone(self) -> None:
        """Raise MoveRejected if another program has the ledger open."""


class _SqliteSide:
    """A SQLite ledger, locked: a gateway that has it open, or one that starts meanwhile, makes LedgerInUse."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.name = str(database.path.absolute())
        self._database = database

    async def run(self, function: Callable[[Connection], Result]) -> Result:
        return await asyncio.to_thread(self._run, function)

    def _run(self, function: Callable[[Connection], Result]) -> Result:
        with self._database.writing.begin() as connection:
            return function(connection)

    async def require_alone(self) -> None:
        """Do nothing: the lock is held."""


class _PostgresSide:
    """A PostgreSQL ledger over one connection."""

    def __init__(self, engine: Any, name: str) -> None:
        self.name = name
        self._engine = engine

    async def run(self, function: Callable[[Connection], Result]) -> Result:
        async with self._engine.begin() as connection:
            return await connection.run_sync(function)  # type: ignore[no-any-return]

    async def require_alone(self) -> None:
        others = await self.run(lambda connection: connection.execute(OTHER_CONNECTIONS).scalar_one())
        if others:
            raise MoveRejected(
                f"{counted(others, 'other connection')} to the database {self.name} {'is' if others == 1 else 'are'} "
                "open, so a gateway may be running. Stop gateways, poolers and other clients of it, then run the same "
                "command again."
            )


@asynccontextmanager
async def open_side(url: str, clock: Clock, *, create: bool) -> AsyncIterator[Side]:
    """Open and migrate the ledger at `url` for a move; with `create`, it may be missing.

    Raises:
        LedgerInUse: A gateway has the SQLite ledger open.
        LedgerError: It cannot be reached, or belongs to another program.
        MoveRejected: It is missing, newer, or another program is connected to the PostgreSQL ledger.
    """
    if is_postgres(url):
        from bridge.store.engine.postgres import open_pool  # noqa: PLC0415 -- its driver is imported if it is needed

        pool = await open_pool(url, size=1)
        try:
            side = _PostgresSide(pool.engine, shown_url(url))
            await side.require_alone()
            _require_own_version(await side.run(migrate_over), side.name)
            yield side
        finally:
            await pool.engine.dispose()
        return
    path = path_of(url)
    if not create and not path.exists():
        raise MoveRejected(f"There is no ledger at {path}. Name the one of store.url.")
    database = SqliteDatabase(path, clock)
    try:
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(database.lock)
        require_ledger(path)
        _require_own_version(await asyncio.to_thread(migrate_sqlite, database), str(path))
        yield _SqliteSide(database)
    finally:
        await asyncio.to_thread(database.close)


def _require_own_version(schema: str, name: str) -> None:
    """Raise MoveRejected if the ledger is newer: this program would leave behind columns that it does not have."""
    if schema != newest_revision():
        raise MoveRejected(
            f"The ledger {name} has schema {schema}, this program {newest_revision()}. "
            "Run `bridge move` of the version that migrated it."
        )


# -- rows --------------------------------------------------------------------------------------------------------


def _tables() -> list[Table]:
    """Return the tables that are moved, each after those that it refers to."""
    return [table for table in metadata.sorted_tables if table is not moves]


def _key_columns(table: Table) -> list[Column[Any]]:
    return list(table.primary_key.columns)


def _is_numbered(table: Table) -> bool:
    """Return whether both engines sort the table's key in the same order: that of text depends on the database."""
    return all(column.type.python_type is int for column in _key_columns(table))


def _page(connection: Connection, table: Table, after: Key | None) -> list[dict[str, Any]]:
    """Return the next rows in the order of the key."""
    keys = _key_columns(table)
    with_bytes = any(isinstance(column.type, LargeBinary) and column.type.length is None for column in table.c)
    query = select(table).order_by(*keys).limit(ROWS_WITH_BYTES if with_bytes else ROWS)
    if after is not None:
        query = query.where(tuple_(*keys) > tuple_(*after) if len(keys) > 1 else keys[0] > after[0])
    return [dict(row) for row in connection.execute(query).mappings()]


async def _pages(side: Side, table: Table, after: Key | None = None) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the rows of a table in pages, each read in a transaction of its own: nothing else writes to it."""
    names = [column.name for column in _key_columns(table)]
    while rows := await side.run(lambda connection: _page(connection, table, after)):  # noqa: B023 -- called at once
        yield rows
        after = tuple(rows[-1][name] for name in names)


async def _copy_table(source: Side, target: Side, table: Table, progress: Progress) -> None:
    """Copy the rows that the target does not have yet."""
    after = None
    if _is_numbered(table):
        after = await target.run(lambda connection: _last_key(connection, table))
    else:
        await target.run(lambda connection: connection.execute(delete(table)))
    copied = 0
    async for rows in _pages(source, table, after):
        await target.run(lambda connection: connection.execute(insert(table), rows))  # noqa: B023 -- called at once
        copied += len(rows)
        if copied // PROGRESS_ROWS > (copied - len(rows)) // PROGRESS_ROWS:
            progress(f"{table.name}: {copied} rows so far")
    await target.run(lambda connection: _set_sequence(connection, table))


def _last_key(connection: Connection, table: Table) -> Key | None:
    keys = _key_columns(table)
    row = connection.execute(select(*keys).order_by(*(key.desc() for key in keys)).limit(1)).first()
    return None if row is None else tuple(row)


def _set_sequence(connection: Connection, table: Table) -> None:
    """Let PostgreSQL number new rows after the copied ones; SQLite does so by itself."""
    keys = _key_columns(table)
    if connection.dialect.name != "postgresql" or len(keys) != 1 or keys[0].type is not Id:
        return
    sequence = func.pg_get_serial_sequence(table.name, keys[0].name)
    highest = select(func.coalesce(func.max(keys[0]), 1)).scalar_subquery()
    present = select(func.count() > 0).select_from(table).scalar_subquery()
    connection.execute(select(func.setval(sequence, highest, present)))


@dataclass(frozen=True, slots=True)
class _Digest:
    rows: int
    total: int  # the sum of the rows' digests, so that the order does not matter


async def _digest_of(side: Side, table: Table) -> _Digest:
    count = total = 0
    async for rows in _pages(side, table):
        count += len(rows)
        total += await asyncio.to_thread(_sum_of, rows)
    return _Digest(count, total % 2**256)


def _sum_of(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(int.from_bytes(sha256(_canonical(row)).digest()) for row in rows)


def _canonical(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, sort_keys=True, default=lambda value: bytes(value).hex()).encode()


async def _compare(source: Side, target: Side) -> dict[str, int]:
    """Return the number of rows by table; raise MoveRejected unless both ledgers hold the same."""
    rows: dict[str, int] = {}
    for table in _tables():
        ours, theirs = await _digest_of(source, table), await _digest_of(target, table)
        if ours != theirs:
            raise MoveRejected(
                f"The table {table.name} differs after the copy: {ours.rows} rows in {source.name}, {theirs.rows} in "
                f"{target.name}. Something else wrote to one of them. Take the move back with `bridge move --undo`, "
                "look for a running gateway, and move again."
            )
        rows[table.name] = ours.rows
    return rows


def _clear(connection: Connection) -> None:
    for table in reversed(_tables()):
        connection.execute(delete(table))


# -- blobs -------------------------------------------------------------------------------------------------------


async def _copy_blobs(ledger: Side, source: Spool, target: Spool, progress: Progress) -> tuple[int, list[str]]:
    """Copy the blobs of `ledger` that `target` lacks; return how many it has, and the keys that `source` lacks."""
    there, missing = 0, []
    for table in (reports, rejections):
        after = ""
        while keys := await ledger.run(lambda connection: _keys_after(connection, table, after)):  # noqa: B023
            for key in filter(is_key, keys):
                if await _has(target, key) or await _copy_blob(source, target, key):
                    there += 1
                else:
                    missing.append(key)
            after = keys[-1]
            progress(f"spool: {there} files so far")
    return there, missing


def _keys_after(connection: Connection, table: Table, after: str) -> list[str]:
    column = table.c.blob
    query = select(column).where(column > after).order_by(column).limit(ROWS)
    return list(connection.execute(query).scalars())


async def _has(spool: Spool, key: str) -> bool:
    try:
        await spool.metadata(key)
    except CorruptBlob:
        return False
    return True


async def _copy_blob(source: Spool, target: Spool, key: str) -> bool:
    """Copy one blob and read it back; return whether the source has it."""
    try:
        label = await source.metadata(key)
    except CorruptBlob:
        return False
    writer = await target.create(key)
    copied = sha256()
    try:
        async for piece in source.read(key):
            copied.update(piece)
            await writer.write(piece)
        await writer.commit(label)
    except BaseException:
        await writer.discard()
        raise
    stored = sha256()
    async for piece in target.read(key):
        stored.update(piece)
    if stored.digest() != copied.digest():
        await target.delete(key)  # or the next run would take it for copied
        raise MoveRejected(
            f"The blob {key} could not be read back from the new spool as it was written. Look at the new spool's "
            "disk or bucket, then run the same command again."
        )
    return True


# -- the move ----------------------------------------------------------------------------------------------------


Spools = tuple[Spool, Spool] | None
"""Those of source and target; None if both ledgers use the same one."""


async def move(source: Side, target: Side, spools: Spools, clock: Clock, progress: Progress) -> MoveResult:
    """Move everything from `source` to `target`, or go on with a move between them that was cut off.

    Raise MoveRejected if the target is not empty, or another move concerns one of the ledgers.
    """
    ours, theirs = await source.run(newest_mark), await _mark_of_target(target)
    if ours is not None and ours.state in BLOCKING:
        if ours.state is MoveState.ARRIVING:
            raise MoveRejected(f"A move from {ours.peer} to {source.name} has not ended. End it, or take it back.")
        if not _is_of(ours, theirs, target):
            raise MoveRejected(
                f"{source.name} was or is being moved to {ours.peer}, not to {target.name}. Name that one as --to, or "
                "take that move back first."
            )
        if ours.state is MoveState.MOVED:
            return MoveResult({}, 0, [], was_done=True)
        move_id = ours.id
    else:
        move_id = uuid.uuid4().hex
        await _require_empty(target)
        began_at = clock.now()
        await source.run(_free_and_mark(MoveMark(
            id=move_id, state=MoveState.COPYING, peer=target.name, began_at=began_at, last_report_id=0
        )))  # fmt: skip
        theirs = None
    if theirs is None:
        await _require_empty(target)
        mark = MoveMark(id=move_id, state=MoveState.ARRIVING, peer=source.name, began_at=clock.now(), last_report_id=0)
        await target.run(lambda connection: add_mark(connection, mark))
    elif theirs.state is MoveState.ARRIVED:  # a gateway may have run on the target since
        await source.run(lambda connection: set_state(connection, move_id, MoveState.MOVED))
        return MoveResult({}, 0, [], was_done=True)
    await _require_both_alone(source, target)
    for table in _tables():
        await _copy_table(source, target, table, progress)
    blobs, missing = (0, []) if spools is None else await _copy_blobs(target, *spools, progress)
    progress("comparing both ledgers")
    rows = await _compare(source, target)
    last = await source.run(_last_report)
    await target.run(lambda connection: set_state(connection, move_id, MoveState.ARRIVED, last))
    await source.run(lambda connection: set_state(connection, move_id, MoveState.MOVED, last))
    return MoveResult(rows, blobs, missing)


async def _mark_of_target(target: Side) -> MoveMark | None:
    """Return the target's mark; None if it has none, or that of a move that was taken back."""
    mark = await target.run(newest_mark)
    return None if mark is None or mark.state is MoveState.UNDONE else mark


def _is_of(ours: MoveMark, theirs: MoveMark | None, target: Side) -> bool:
    """Return whether the move of the source goes to `target`, which has no mark if the move has only begun."""
    if theirs is None:
        return ours.state is MoveState.COPYING and ours.peer == target.name
    return theirs.id == ours.id


async def _require_both_alone(source: Side, target: Side) -> None:
    """Raise MoveRejected if a gateway has started since the ledgers were opened; once both are marked, none does."""
    await source.require_alone()
    await target.require_alone()


def _free_and_mark(mark: MoveMark) -> Callable[[Connection], None]:
    """Return a transaction that ends all leases and marks the source: no gateway holds a build any more."""

    def run(connection: Connection) -> None:
        free_leases(connection, mark.began_at)
        add_mark(connection, mark)

    return run


async def _require_empty(target: Side) -> None:
    used = [table.name for table in _tables() if await target.run(lambda connection: _has_rows(connection, table))]  # noqa: B023
    if used:
        raise MoveRejected(
            f"The ledger {target.name} is not empty: it has rows in {', '.join(used[:3])}. Name a new one as --to."
        )


def _has_rows(connection: Connection, table: Table) -> bool:
    return connection.execute(select(_key_columns(table)[0]).limit(1)).first() is not None


def _last_report(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(reports.c.id), 0))).scalar_one())


async def undo(source: Side, target: Side, spools: Spools, progress: Progress) -> MoveResult:
    """Take a move back: copy what the target delivered since, then let gateways start on the source again.

    Raise MoveRejected if there is no move between the two, or the target has accepted reports since.
    """
    ours, theirs = await source.run(newest_mark), await _mark_of_target(target)
    if ours is None or ours.state not in {MoveState.COPYING, MoveState.MOVED}:
        raise MoveRejected(f"{source.name} was not moved, so there is nothing to take back.")
    if not _is_of(ours, theirs, target):
        raise MoveRejected(f"{source.name} was moved to {ours.peer}, not to {target.name}. Name that one as --to.")
    rows: Mapping[str, int] = {}
    blobs = 0
    missing: list[str] = []
    if theirs is not None and theirs.state in {MoveState.ARRIVED, MoveState.MOVED}:
        await _require_no_upload_since(target, theirs)
        await target.run(lambda connection: set_state(connection, ours.id, MoveState.MOVED))
        try:  # once more: a gateway may have started before the mark
            await _require_both_alone(source, target)
            await _require_no_upload_since(target, theirs)
        except MoveRejected:  # the target has all rows still, so it stays in use
            await target.run(lambda connection: set_state(connection, ours.id, MoveState.ARRIVED))
            raise
        await source.run(_clear)
        for table in _tables():
            await _copy_table(target, source, table, progress)
        if spools is not None:
            blobs, missing = await _copy_blobs(source, spools[1], spools[0], progress)
        rows = await _compare(target, source)
    elif theirs is not None:
        await _require_both_alone(source, target)
        await target.run(_clear)
        await target.run(lambda connection: set_state(connection, ours.id, MoveState.UNDONE))
    await source.run(lambda connection: set_state(connection, ours.id, MoveState.UNDONE))
    return MoveResult(rows, blobs, missing)


async def _require_no_upload_since(target: Side, mark: MoveMark) -> None:
    since = (reports.c.id > mark.last_report_id, reports.c.source == "upload")
    query = select(func.count()).select_from(reports).where(*since)
    uploads = await target.run(lambda connection: connection.execute(query).scalar_one())
    if uploads:
        raise MoveRejected(
            f"{counted(uploads, 'report')} {'was' if uploads == 1 else 'were'} uploaded to {target.name} since the "
            "move, so it cannot be taken back. Move that ledger to a new one instead, with `bridge move`."
        )
