"""What a gateway runs as child processes, run in this process instead, for tests that are about something else.

The interpreters of these processes cost several times what all else of such a test does.
"""

import asyncio
import io
from functools import wraps
from typing import Any, Self

import pytest

from bridge.server.validation import pool
from bridge.server.validation.child_main import respond
from bridge.server.validation.messages import ValidationRequest, ValidationResponse, read_request, read_response
from bridge.store import ledger
from bridge.store.engine.sqlite import SqliteDatabase


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
