"""Statements that both SQLite and PostgreSQL run but that SQLAlchemy writes for one dialect at a time."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Case, ColumnElement, Connection, Table, bindparam, case, func, select

from bridge.store.engine.compiled import Row, Statement, own_insert


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *returning: str) -> list[Row]:
    """Insert those of `rows` that break no unique index; return the columns `returning` of the inserted rows.

    All rows have the same columns. The database decides which rows are new, so of two transactions that insert the
    same, only one inserts it.
    """
    statement = _insert_new(table, tuple(rows[0]), returning)
    if not returning:
        statement.run_each(connection, rows)
        return []
    return [inserted for row in rows for inserted in statement.rows(connection, row)]


@cache
def _insert_new(table: Table, columns: tuple[str, ...], returning: tuple[str, ...]) -> Statement:
    values = {name: bindparam(name, type_=table.c[name].type) for name in columns}

    def build(dialect: str) -> Any:
        statement = own_insert(dialect)(table).values(values).on_conflict_do_nothing()
        return statement.returning(*(table.c[name] for name in returning)) if returning else statement

    return Statement(build)


def earlier(due_at: ColumnElement[int], at: int | BindParameter[int]) -> Case[int]:
    """Return the earlier of `due_at` and `at`, so that a build is never due later than before; null is never."""
    return case((due_at < at, due_at), else_=at)


def first_id_since(connection: Connection, ids: ColumnElement[int], times: ColumnElement[int], since: int) -> int:
    """Return the first id of a table whose time is `since` or later, or one above all ids; times rise with ids.

    It reads some dozens of rows, however many there are, and needs no index on the times.
    """
    low, high = 0, connection.execute(select(func.coalesce(func.max(ids), 0))).scalar_one() + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(select(ids, times).where(ids >= middle).order_by(ids).limit(1)).one_or_none()
        if row is None or row[1] >= since:
            high = middle
        else:
            low = row[0] + 1
    return low
