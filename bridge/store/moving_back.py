"""A clock that ran ahead and was set back: the times that it left in the ledger are moved back with it.

It knows no clock. Without this, all that is due would wait for as long as the clock was ahead: closed gates for their
probe, builds for their place under the common rate.
"""

from collections.abc import Sequence

from sqlalchemy import BigInteger, Connection, Table, bindparam, case, or_, update

from bridge.store.schema import builds, deliveries, overheard_checks, registrations, upstreams

DECIDING = (builds, deliveries, registrations, upstreams, overheard_checks)
"""Tables by whose times something is decided; those of reports, runs and refusals are only shown, or days away."""

ENDINGS = ("_at", "_since", "_until")  # of columns that hold a time

NOW = bindparam("now", type_=BigInteger)
BY = bindparam("by", type_=BigInteger)


def move_back(connection: Connection, now: int, items: Sequence[int]) -> list[int]:
    """Move every time that is after `now` back, by each of `items` (microseconds); return how many builds it touched.

    What was due later than `now` by a clock that was right comes earlier by that: it is only looked at again.
    """
    return [_move(connection, now, by) for by in items]


def _move(connection: Connection, now: int, by: int) -> int:
    touched = {table: _move_in(connection, table, now, by) for table in DECIDING}
    return touched[builds]


def _move_in(connection: Connection, table: Table, now: int, by: int) -> int:
    times = [column for column in table.c if column.name.endswith(ENDINGS)]
    moved = {column.name: case((column > NOW, column - BY), else_=column) for column in times}
    ahead = or_(*(column > NOW for column in times))
    return connection.execute(update(table).where(ahead).values(moved), {"now": now, "by": by}).rowcount
