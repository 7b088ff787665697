"""Statements that both SQLite and PostgreSQL run but that SQLAlchemy writes for one dialect at a time."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Case, ClauseElement, ColumnElement, Connection, CursorResult, Table, case
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]], *returning: str) -> Sequence[Any]:
    """Insert those of `rows` that break no unique index; return the columns `returning` of the inserted rows.

    The database decides which rows are new, so of two transactions that insert the same, only one inserts it.
    """
    result = connection.execute(_insert_new(connection.dialect.name, table, returning), rows)
    return result.all() if returning else ()


@cache
def _insert_new(dialect: str, table: Table, returning: tuple[str, ...]) -> Any:
    """Return the statement, built once: otherwise each commit pays for building it."""
    statement = (sqlite if dialect == "sqlite" else postgresql).insert(table).on_conflict_do_nothing()
    return statement.returning(*(table.c[name] for name in returning)) if returning else statement


class CompiledBulkStatement:
    """A statement over any number of items, compiled once for each number and executed as plain SQL.

    It is meant for the path of uploads: what SQLAlchemy does for each call costs more than the database's own work.
    Values go to the driver as they are, so JSON columns take text.
    """

    def __init__(self, build: Callable[[Any, int], ClauseElement]) -> None:
        """`build(insert, count)` returns the statement, with its binds in the order of items.

        `insert` is the dialect's own function.
        """
        self._build = build
        self._compiled: dict[tuple[str, int], str] = {}

    def run(self, connection: Connection, count: int, values: Sequence[Any]) -> CursorResult[Any]:
        """Execute the statement for `count` items, whose `values` follow each other."""
        key = (connection.dialect.name, count)
        text = self._compiled.get(key)
        if text is None:
            own_insert = (sqlite if key[0] == "sqlite" else postgresql).insert
            text = self._compiled[key] = str(self._build(own_insert, count).compile(dialect=connection.dialect))
        return connection.exec_driver_sql(text, tuple(values))


def earlier(due_at: ColumnElement[int], at: int | BindParameter[int]) -> Case[int]:
    """Return the earlier of `due_at` and `at`, so that a build is never due later than before; null is never."""
    return case((due_at < at, due_at), else_=at)
