"""What costs several times as much as all else of a test of a gateway in this process, done at less cost.

For tests that are about something else: child processes are threads, and a new ledger is created without migrations.
"""

import asyncio
import io
import sqlite3
import tempfile
from contextlib import closing
from functools import cache, wraps
from pathlib import Path
from typing import Any, Self

import pytest
from sqlalchemy import Connection, inspect

from bridge.server.validation import pool
from bridge.server.validation.child_main import respond
from bridge.server.validation.messages import ValidationRequest, ValidationResponse, read_request, read_response
from bridge.store import ledger
from bridge.store.engine.sqlite import SqliteDatabase
from bridge.store.engine.sqlite_writer import sqlite_engine


class ValidationInThread:
    """Answers as a validation process does, by the same messages. CPU time and memory have no limit."""

    @classmethod
    async def start(cls, nice: int) -> Self:  # noqa: ARG003 -- of a process
        return cls()

    async def request(self, request: ValidationRequest) -> ValidationResponse:
        return await asyncio.to_thread(self._respond, request.to_bytes())

    @staticmethod
    def _respond(message: bytes) -> ValidationResponse:
        pipe = io.BytesIO(message)
        return read_response(respond(read_request(pipe.readline(), pipe.read)).to_bytes())

    def kill(self) -> None:
        """Do nothing: a file that is being validated is validated to its end."""

    async def wait(self) -> None:
        """Return at once."""


@wraps(SqliteDatabase)
def _with_writer_in_thread(*arguments: Any, apart: bool = False, **options: Any) -> SqliteDatabase:  # noqa: ARG001 -- not apart
    return SqliteDatabase(*arguments, **options)


def run_children_in_process(patch: pytest.MonkeyPatch) -> None:
    """Let gateways in this process validate reports and write to SQLite in threads."""
    patch.setattr(pool, "_ChildProcess", ValidationInThread)
    patch.setattr(ledger, "SqliteDatabase", _with_writer_in_thread)


def create_ledgers_at_once(patch: pytest.MonkeyPatch) -> None:
    """Let gateways in this process create a SQLite ledger by the statements of its last schema, without migrations."""
    migrate, statements = ledger._upgrade, _statements_of_schema()

    def create(connection: Connection) -> None:
        if connection.dialect.name != "sqlite" or inspect(connection).get_table_names():
            migrate(connection)
            return
        for statement in statements:
            connection.exec_driver_sql(statement)

    patch.setattr(ledger, "_upgrade", create)


@cache
def _statements_of_schema() -> tuple[str, ...]:
    """Return what creates an empty ledger, from one that was migrated."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "migrated.db"
        engine = sqlite_engine(path, begin="BEGIN IMMEDIATE")
        ledger.migrate(engine)
        engine.dispose()
        with closing(sqlite3.connect(path)) as connection:
            return tuple(connection.iterdump())[1:-1]  # without BEGIN and COMMIT
