"""Find statements that scan a whole table: EXPLAIN each statement of an operation on its engine."""

import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event

from bridge.store.schema import metadata

SMALL_TABLES = {"circuit_breakers"}  # one row per circuit breaker
PARTIAL = {
    index.name
    for table in metadata.tables.values()
    for index in table.indexes
    if index.dialect_options["sqlite"]["where"] is not None
}
"""Partial indexes cover unfinished rows only: a scan of one is not a scan of a table."""

SHOWN_LENGTH = 300
SQLITE_SCAN = re.compile(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?")
POSTGRES_SCAN = re.compile(r"Seq Scan on (\w+)")


def scans_of(connection: Connection, work: Callable[[Connection], Any]) -> list[str]:
    """Run `work` on `connection` and return a line for each of its statements that scans a whole table."""
    found: list[str] = []
    explaining = False

    def explain(*event_arguments: Any) -> None:
        nonlocal explaining
        _connection, _cursor, statement, parameters, _context, many = event_arguments
        if explaining or not statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")):
            return
        explaining = True
        try:
            found.extend(_scans(connection, statement, parameters[0] if many else parameters))
        finally:
            explaining = False

    event.listen(connection, "before_cursor_execute", explain)
    try:
        work(connection)
    finally:
        event.remove(connection, "before_cursor_execute", explain)
    return found


def _scans(connection: Connection, statement: str, parameters: Any) -> list[str]:
    sqlite = connection.dialect.name == "sqlite"
    rows = connection.exec_driver_sql(("EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN ") + statement, parameters).all()
    lines = [str(row[-1]) for row in rows]
    read = _sqlite(lines) if sqlite else {match[1] for line in lines for match in POSTGRES_SCAN.finditer(line)}
    whole = read & (set(metadata.tables) - SMALL_TABLES)
    return [f"scans all of {', '.join(sorted(whole))}: {_shown(statement)}"] if whole else []


def _sqlite(lines: list[str]) -> set[str]:
    matches = [match for line in lines if (match := SQLITE_SCAN.match(line))]
    return {match[1] for match in matches if match[2] not in PARTIAL}


def _shown(statement: str) -> str:
    """Return the part of a statement that the plan depends on, on one line."""
    line = re.sub(r"IN \(.*?\)+", "IN (...)", " ".join(statement.split()))
    return line[line.find(" FROM ") :][:SHOWN_LENGTH]
