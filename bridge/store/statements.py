"""Statements that SQLite and PostgreSQL both run, where SQLAlchemy leaves the choice of dialect to its user.

It knows no table.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Case, ColumnElement, Connection, Table, case
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]], *returning: str) -> Sequence[Any]:
    """Insert those of `rows` that break no unique index and return the named columns of these.

    Which rows were new is the database's answer, so two who insert the same at once cannot both be told yes.
    """
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).on_conflict_do_nothing()
    if not returning:
        connection.execute(statement, rows)
        return ()
    columns = [table.c[name] for name in returning]
    return connection.execute(statement.returning(*columns), rows).all()


def earlier(due_at: ColumnElement[int], at: int) -> Case[int]:
    """Return the earlier of `due_at` and `at`, which pulls a turn forward and never pushes it back; null is never."""
    return case((due_at < at, due_at), else_=at)
