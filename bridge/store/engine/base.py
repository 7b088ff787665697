"""The protocol that both engines of the ledger follow, and the functions that run in its transactions.

Work comes as plain functions over a SQLAlchemy connection, so that SQLite and PostgreSQL run the same code.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from bridge.domain.instants import Instant

Item = TypeVar("Item")
Result = TypeVar("Result")
LedgerFunction = Callable[[Connection, int, Sequence[Item]], Sequence[Result]]
"""Writes several items of one kind in one transaction at `now` (microseconds UTC); returns a result for each."""

Query = TypeVar("Query", bound=Callable[..., Any])
_SINGLE: set[Callable[..., Any]] = set()
Transaction = Callable[[Connection, int], Result]
"""Does one thing in a transaction at `now` (microseconds UTC)."""


def results_of(
    function: LedgerFunction[Item, Result], connection: Connection, now: int, items: Sequence[Item]
) -> Sequence[Result]:
    """Write `items` and return their results.

    Raise RuntimeError, before anything is committed, if the number of results differs: they could not be assigned to
    their items, and their writers would wait without end.
    """
    results = function(connection, now, items)
    if len(results) != len(items):
        name = getattr(function, "__qualname__", "a ledger function")
        raise RuntimeError(f"{name} gave {len(results)} results for {len(items)} items. Nothing of it was written.")
    return results


def other_schema(found: str, needed: str) -> str:
    """Return the reason why a gateway neither accepts uploads nor delivers: another version has migrated its ledger."""
    return f"The ledger has schema {found}, this program needs {needed}. Run the newer of the two programs."


def run_each(connection: Connection, now: int, transactions: Sequence[Transaction[Result]]) -> list[Result]:
    """Run transactions that share a commit, one after another; the ledger function behind `Database.transact`."""
    return [transaction(connection, now) for transaction in transactions]


def one_statement(query: Query) -> Query:
    """Mark a query that executes a single statement, which is consistent by itself: it needs no transaction."""
    _SINGLE.add(query)
    return query


def needs_transaction(query: Callable[..., Any]) -> bool:
    """Return whether a query must be read in a transaction."""
    return query not in _SINGLE


class Database(Protocol):
    """The open ledger."""

    @property
    def shared(self) -> bool:
        """Whether other gateways may have it open too."""

    @property
    def folder(self) -> Path | None:
        """The folder of its file; None if it has none on this machine."""

    @property
    def failing(self) -> str | None:
        """The error of the last try of a write, which is tried again; None if the last one succeeded."""

    def now(self) -> Instant:
        """Return the ledger's time in microseconds UTC. Leases and due times follow it, not this machine's clock."""

    async def write(self, function: LedgerFunction[Item, Result], item: Item, size: int = 0) -> Result:
        """Write `item` (with `size` bytes of report bodies) in a commit that other writes may share.

        Return its result once the commit is on disk. If the caller is canceled, a write that still waits is dropped,
        and one that has begun is not undone: it may become durable after writes that came later.

        Raises:
            Unavailable: The ledger cannot take it now. Nothing of it is stored.
            CommitUncertain: The outcome of the commit is not known.
        """

    async def transact(self, transaction: Transaction[Result]) -> Result:
        """Return `transaction(connection, now)` once its commit is on disk; raise as `write` does."""

    async def read(self, query: Callable[..., Result], *arguments: object) -> Result:
        """Return `query(connection, *arguments)`, read from one consistent state of the ledger; raise Unavailable."""
