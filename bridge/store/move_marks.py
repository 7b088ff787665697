"""The marks of a move of the ledger (move.py): no gateway starts on a ledger that is not the one in use."""

from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from bridge.errors import LedgerMoved
from bridge.store.schema import moves
from bridge.values import dataclass


class MoveState(StrEnum):
    """How far a move is, at the source or at the target."""

    COPYING = "copying"
    MOVED = "moved"
    ARRIVING = "arriving"
    ARRIVED = "arrived"
    UNDONE = "undone"


BLOCKING: Final = frozenset({MoveState.COPYING, MoveState.MOVED, MoveState.ARRIVING})
"""States in which no gateway may open the ledger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MoveMark:
    """The row of `moves` of one ledger; `peer` is the other one, for display, `began_at` microseconds UTC."""

    id: str
    state: MoveState
    peer: str
    began_at: int
    last_report_id: int  # the highest one when all had arrived


def require_unmoved(connection: Connection) -> None:
    """Raise LedgerMoved if the ledger was moved, or if a move from it or to it has not ended."""
    mark = newest_mark(connection)
    if mark is None or mark.state not in BLOCKING:
        return
    if mark.state is MoveState.MOVED:
        raise LedgerMoved(
            f"The ledger was moved to {mark.peer}. Name that one as store.url, or take the move back with "
            "`bridge move --undo` and the same --from and --to."
        )
    direction = "to" if mark.state is MoveState.COPYING else "from"
    raise LedgerMoved(
        f"A move of this ledger {direction} {mark.peer} has not ended. Run the same `bridge move` again, or take it "
        "back with `bridge move --undo` and the same --from and --to."
    )


def newest_mark(connection: Connection) -> MoveMark | None:
    """Return the mark of the last move from or to this ledger; None if there was none."""
    row = connection.execute(select(moves).order_by(moves.c.number.desc()).limit(1)).mappings().first()
    if row is None:
        return None
    return MoveMark(
        id=row["id"],
        state=MoveState(row["state"]),
        peer=row["peer"],
        began_at=row["began_at"],
        last_report_id=row["last_report_id"],
    )


def add_mark(connection: Connection, mark: MoveMark) -> None:
    """Begin a move at one of its two ledgers."""
    connection.execute(
        insert(moves).values(
            id=mark.id,
            state=mark.state,
            peer=mark.peer,
            began_at=mark.began_at,
            last_report_id=mark.last_report_id,
        )
    )


def set_state(connection: Connection, move_id: str, state: MoveState, last_report_id: int = 0) -> None:
    """Change the state of a move at one of its two ledgers; 0 keeps `last_report_id`."""
    values: dict[str, Any] = {"state": state}
    if last_report_id:
        values["last_report_id"] = last_report_id
    connection.execute(update(moves).where(moves.c.id == move_id).values(values))
