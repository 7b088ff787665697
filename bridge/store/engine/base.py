"""What the rooms know of the ledger: two doors, a time and a place, whichever engine is behind them.

It knows no engine. Work comes as plain functions over a SQLAlchemy connection, so that SQLite and PostgreSQL run the
same ones.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from bridge.domain.instants import Instant
from bridge.errors import Unavailable

GROUP_LIMIT = 64  # writes that share one commit: more gains nothing and makes the first wait
GROUP_BYTES = 4 * 1024 * 1024  # of report bodies in one commit, so that it stays short
QUEUE_LIMIT = 2_000  # writes waiting: beyond it the disk cannot follow, and callers are told so

Item = TypeVar("Item")
Result = TypeVar("Result")
LedgerFunction = Callable[[Connection, int, Sequence[Item]], Sequence[Result]]
"""Writes several items of one kind in one transaction at `now` (microseconds UTC); returns a result for each."""


def results_of(
    batch: LedgerFunction[Item, Result], connection: Connection, now: int, items: Sequence[Item]
) -> Sequence[Result]:
    """Write `items` and return their results; raise, before anything is committed, where that is not one for each.

    Nobody could tell whose they are, and whoever wrote them would wait for ever.
    """
    results = batch(connection, now, items)
    if len(results) != len(items):
        name = getattr(batch, "__qualname__", "a batch function")
        raise RuntimeError(f"{name} gave {len(results)} results for {len(items)} items. Nothing of it was written.")
    return results


class Database(Protocol):
    """The ledger, open."""

    @property
    def shared(self) -> bool:
        """Whether other gateways may have it open too."""

    @property
    def folder(self) -> Path | None:
        """Where its file lies; None: on no disk of this machine."""

    def now(self) -> Instant:
        """Return the ledger's time in microseconds UTC: leases and turns go by it, not by this machine's clock."""

    async def write(self, batch: LedgerFunction[Item, Result], item: Item, size: int = 0) -> Result:
        """Write `item` (with `size` bytes of bodies) and return its result once it is on disk.

        Raise Unavailable where the ledger cannot take it now, and nothing of it is kept then; MaybeKept where nobody
        knows whether it was. Whoever is cancelled meanwhile does not know either: what still waits is left out, what is
        under way is not taken back, and may be on disk after others that came later.
        """

    async def read(self, query: Callable[..., Result], *arguments: object) -> Result:
        """Return `query(connection, *arguments)`, read from one consistent state of the ledger; raise Unavailable."""


def too_many_wait() -> Unavailable:
    """Return what a caller is told whose write would be the one above QUEUE_LIMIT."""
    return Unavailable("The ledger cannot keep up with what arrives. Send it again in a moment.")
