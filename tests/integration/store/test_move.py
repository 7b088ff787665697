"""A move between two ledgers, cut off at each of its marks: another target is never taken for the one of the move."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text

from bridge.errors import LedgerMoved, MoveRejected
from bridge.store.ledger import open_ledger
from bridge.store.move import Side, move, open_side, undo
from bridge.store.move_marks import MoveMark, MoveState, add_mark, newest_mark
from tests.support.fake_clock import FakeClock


@pytest.fixture
async def sides(tmp_path) -> AsyncIterator[list[Side]]:
    """Open three empty ledgers: a source, a target, and another one."""
    async with AsyncExitStack() as opened:
        yield [
            await opened.enter_async_context(open_side(f"sqlite:///{tmp_path}/{name}.db", FakeClock(), create=True))
            for name in ("source", "target", "other")
        ]


def silent(_: str) -> None:
    """Show no progress."""


async def mark(side: Side, state: MoveState, peer: Side, move_id: str = "1") -> None:
    made = MoveMark(id=move_id, state=state, peer=peer.name, began_at=1, last_report_id=0)
    await side.run(lambda connection: add_mark(connection, made))


async def state_of(side: Side) -> MoveState | None:
    found = await side.run(newest_mark)
    return found and found.state


async def test_a_ledger_that_was_moved_is_neither_moved_to_another_one_nor_taken_back_from_it(sides):
    source, target, other = sides
    await move(source, target, None, FakeClock(), silent)
    for wrong in (move(source, other, None, FakeClock(), silent), undo(source, other, None, silent)):
        with pytest.raises(MoveRejected, match="moved to"):
            await wrong
    assert [await state_of(side) for side in sides] == [MoveState.MOVED, MoveState.ARRIVED, None]
    assert (await move(source, target, None, FakeClock(), silent)).was_done


async def test_a_move_that_was_cut_off_before_its_last_mark_ends_at_its_own_target_alone(sides):
    source, target, other = sides
    await mark(source, MoveState.COPYING, target)
    await mark(target, MoveState.ARRIVED, source)
    with pytest.raises(MoveRejected, match="is being moved to"):
        await move(source, other, None, FakeClock(), silent)
    assert (await move(source, target, None, FakeClock(), silent)).was_done
    assert await state_of(source) is MoveState.MOVED


@pytest.mark.parametrize("ends", ["move", "undo"])
async def test_a_move_that_was_cut_off_at_its_first_mark_ends_although_one_was_taken_back_before(sides, ends):
    source, target, _ = sides
    for side, peer in ((source, target), (target, source)):
        await mark(side, MoveState.UNDONE, peer)
    await mark(source, MoveState.COPYING, target, "2")
    if ends == "move":
        await move(source, target, None, FakeClock(), silent)
        assert [await state_of(side) for side in (source, target)] == [MoveState.MOVED, MoveState.ARRIVED]
    else:
        await undo(source, target, None, silent)
        assert await state_of(source) is MoveState.UNDONE


async def test_no_gateway_opens_a_ledger_while_it_is_moved(tmp_path):
    clock, urls = FakeClock(), [f"sqlite:///{tmp_path}/{name}.db" for name in ("source", "target")]
    async with open_side(urls[0], clock, create=True) as source, open_side(urls[1], clock, create=True) as target:
        await mark(source, MoveState.COPYING, target)
        await mark(target, MoveState.ARRIVING, source)
    for url in urls:
        with pytest.raises(LedgerMoved, match="has not ended"):
            async with open_ledger(url, clock):
                pass


async def test_a_newer_ledger_is_not_moved_although_this_program_can_use_it(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    async with open_side(url, FakeClock(), create=True) as side:
        await side.run(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")) and None)
    with pytest.raises(MoveRejected, match="has schema 9999"):
        async with open_side(url, FakeClock(), create=False):
            pass
