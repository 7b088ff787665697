"""A move between two ledgers, cut off at each of its marks: another target is never taken for the one of the move."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import Column, Connection, select, text, update

from bridge.errors import LedgerMoved, MoveRejected
from bridge.store.ledger import open_ledger
from bridge.store.move import Side, move, open_side, undo
from bridge.store.move_marks import BLOCKING, MoveMark, MoveState, add_mark, newest_mark
from bridge.store.schema import builds, reports
from bridge.store.uploads import accept
from tests.support.fake_clock import START, FakeClock
from tests.support.ledger import report, upload


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


class Cut(Exception):
    """The end of a program."""


class Watched:
    """A side that calls `marked` after each transaction that changes its mark, and refuses as `rejection` has it."""

    def __init__(self, side: Side, marked: Callable[[], Awaitable[None]], rejection: str = "") -> None:
        self.name = side.name
        self._side = side
        self._marked = marked
        self._rejection = rejection

    async def run(self, function: Callable[[Connection], Any]) -> Any:
        before = await self._side.run(newest_mark)
        result = await self._side.run(function)
        if await self._side.run(newest_mark) != before:
            await self._marked()
        return result

    async def require_alone(self) -> None:
        if self._rejection:
            raise MoveRejected(self._rejection)


async def add_report(side: Side, build_no: int = 1) -> None:
    await side.run(lambda connection: accept(connection, START, [upload(report(), build_no=build_no)]) and None)


async def column(side: Side, found: Column[Any]) -> list[Any]:
    return await side.run(lambda connection: list(connection.execute(select(found)).scalars()))


async def nothing() -> None:
    """Do nothing at a mark."""


@pytest.mark.parametrize("cut_after", [1, 2, 3, 4])
async def test_a_move_that_was_cut_off_after_any_of_its_marks_ends_when_it_is_run_again(sides, cut_after):
    source, target, _ = sides
    await add_report(source)
    marks = 0

    async def cut() -> None:
        nonlocal marks
        marks += 1
        if marks == cut_after:
            raise Cut

    with pytest.raises(Cut):
        await move(Watched(source, cut), Watched(target, cut), None, FakeClock(), silent)
    assert await state_of(source) in BLOCKING
    await move(source, target, None, FakeClock(), silent)
    assert [await state_of(side) for side in (source, target)] == [MoveState.MOVED, MoveState.ARRIVED]
    assert await column(target, reports.c.id) == [1]


async def test_a_build_that_a_gateway_had_leased_is_free_at_the_new_ledger(sides):
    source, target, _ = sides
    await add_report(source)
    await source.run(lambda c: c.execute(update(builds).values(lease_until=1, lease_owner="gone")) and None)
    await move(source, target, None, FakeClock(), silent)
    assert (await column(target, builds.c.lease_until), await column(target, builds.c.lease_owner)) == ([None], [None])


@pytest.mark.parametrize("rejecting", [0, 1])
async def test_no_row_is_copied_while_another_program_has_one_of_the_ledgers_open(sides, rejecting):
    source, target, _ = sides
    await add_report(source)
    watched = [Watched(side, nothing, "in use" if at == rejecting else "") for at, side in enumerate((source, target))]
    with pytest.raises(MoveRejected, match="in use"):
        await move(*watched, None, FakeClock(), silent)
    assert await column(target, reports.c.id) == []


@pytest.mark.parametrize("rejecting", [0, 1, None], ids=["source in use", "target in use", "upload"])
async def test_a_move_that_cannot_be_taken_back_after_all_leaves_the_new_ledger_in_use(sides, rejecting):
    source, target, _ = sides
    await add_report(source)
    await move(source, target, None, FakeClock(), silent)

    async def upload_once() -> None:
        if rejecting is None and await state_of(target) is MoveState.MOVED:
            await add_report(target, build_no=2)

    watched = [
        Watched(side, upload_once, "in use" if at == rejecting else "") for at, side in enumerate((source, target))
    ]
    with pytest.raises(MoveRejected, match=r"in use|1 report was uploaded"):
        await undo(*watched, None, silent)
    assert [await state_of(side) for side in (source, target)] == [MoveState.MOVED, MoveState.ARRIVED]
    assert await column(source, reports.c.id) == [1]


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
