"""Statements that SQLite and PostgreSQL both run, where SQLAlchemy leaves the choice of dialect to its user.

It knows no table.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Case, ClauseElement, ColumnElement, Connection, CursorResult, Table, case
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]], *returning: str) -> Sequence[Any]:
    """Insert those of `rows` that break no unique index and return the named columns of these.

    Which rows were new is the database's answer, so two who insert the same at once cannot both be told yes.
    """
    result = connection.execute(_insert_new(connection.dialect.name, table, returning), rows)
    return result.all() if returning else ()


@cache
def _insert_new(dialect: str, table: Table, returning: tuple[str, ...]) -> Any:
    """Return the statement, built once: what building one costs is paid for every commit otherwise."""
    statement = (sqlite if dialect == "sqlite" else postgresql).insert(table).on_conflict_do_nothing()
    return statement.returning(*(table.c[name] for name in returning)) if returning else statement


class CompiledBulkStatement:
    """A statement over any number of items, compiled once for each number and run as plain SQL.

    In the path of uploads, what SQLAlchemy does anew for every call costs more than the database's own work. Values
    go to the driver as they are: JSON columns get text.
    """

    def __init__(self, build: Callable[[Any, int], ClauseElement]) -> None:
        """Remember how to build the statement: `build(dialect's own insert, number of items)`, binds in item order."""
        self._build = build
        self._compiled: dict[tuple[str, int], str] = {}

    def run(self, connection: Connection, count: int, values: Sequence[Any]) -> CursorResult[Any]:
        """Run the statement for `count` items, whose `values` follow each other."""
        key = (connection.dialect.name, count)
        text = self._compiled.get(key)
        if text is None:
            own_insert = (sqlite if key[0] == "sqlite" else postgresql).insert
            text = self._compiled[key] = str(self._build(own_insert, count).compile(dialect=connection.dialect))
        return connection.exec_driver_sql(text, tuple(values))


def earlier(due_at: ColumnElement[int], at: int | BindParameter[int]) -> Case[int]:
    """Return the earlier of `due_at` and `at`, which pulls a turn forward and never pushes it back; null is never."""
    return case((due_at < at, due_at), else_=at)
