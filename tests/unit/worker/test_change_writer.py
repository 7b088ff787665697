import asyncio

import pytest

from bridge.domain.build import BuildState, DeliveryState
from bridge.domain.changes import set_build, set_delivery
from bridge.errors import LeaseLost, LedgerRejectedWrite, Unavailable
from bridge.store.fenced_writes import Written
from bridge.store.leases import Release
from bridge.worker import change_writer
from bridge.worker.change_writer import ChangeWriter
from tests.support.builders import a_build, pending

RELEASE = Release(
    build_id=1, fencing_token=1, report_seq=1, due_at=None, until=None, waiting_on=None, blocked_reason=None
)


class RecordingDatabase:
    """Takes every write, or answers as `refuse` wants."""

    def __init__(self) -> None:
        self.written = []
        self.refuse = lambda _changes: False
        self.away = 0

    async def write(self, _function, fenced, size=0):
        assert size == 0
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        refused = self.refuse(fenced.changes)
        if isinstance(refused, Exception):
            raise refused
        if refused:
            return None
        self.written.append(fenced)
        return Written(fenced.changes, ())

    @property
    def changes(self):
        return [list(fenced.changes) for fenced in self.written]


@pytest.fixture
def database() -> RecordingDatabase:
    return RecordingDatabase()


@pytest.fixture
def writer(database, monkeypatch) -> ChangeWriter:
    monkeypatch.setattr(change_writer, "LINGER_SECONDS", 600.0)  # no test waits for it
    return ChangeWriter(database, a_build(*(pending(number) for number in range(1, 5))))


def delivered(writer, number):
    return set_delivery(writer.build.deliveries[number], state=DeliveryState.DELIVERED)


async def writes(writer, *numbers):
    """Let a call for each number write at the same time, as calls of one step."""
    writer.begin_calls(len(numbers))
    tasks = [asyncio.create_task(writer.write((delivered(writer, number),))) for number in numbers]
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_calls_that_end_together_share_a_write_and_each_gets_its_own_changes(writer, database):
    results = await writes(writer, 1, 2, 3)
    assert len(database.written) == 1
    assert [change.id for (change,) in results] == [1, 2, 3]
    assert [writer.build.deliveries[number].state for number in (1, 2, 3, 4)] == [*["delivered"] * 3, "pending"]


async def test_a_write_waits_for_a_call_that_runs_until_that_ends(writer, database):
    writer.begin_calls(2)
    one = asyncio.create_task(writer.write((delivered(writer, 1),)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert database.written == []
    writer.end_call()
    await one
    assert len(database.written) == 1


async def test_a_write_waits_for_no_call_longer_than_a_moment(writer, database, monkeypatch):
    monkeypatch.setattr(change_writer, "LINGER_SECONDS", 0)
    writer.begin_calls(2)  # one of them hangs
    await writer.write((delivered(writer, 1),))
    assert len(database.written) == 1


async def test_what_was_deferred_is_in_the_next_write_before_the_others(writer, database):
    ended = set_build(state=BuildState.ENDED)
    writer.defer([ended])
    assert writer.build.state is BuildState.ENDED
    assert writer.is_ahead
    await writer.write((delivered(writer, 1),))
    assert database.changes == [[ended, delivered_of(1, database)]]
    assert not writer.is_ahead


def delivered_of(number, database):
    return next(change for change in database.written[0].changes if getattr(change, "id", None) == number)


async def test_what_was_deferred_is_written_with_the_end_of_the_lease(writer, database):
    ended = set_build(state=BuildState.ENDED)
    writer.defer([ended])
    await writer.finish(RELEASE, None)
    assert database.changes == [[ended]]
    assert database.written[0].release == RELEASE


async def test_a_write_of_several_that_is_rejected_is_made_for_each_alone(writer, database):
    database.refuse = lambda changes: any(change.id == 2 for change in changes)
    one, two, three = await writes(writer, 1, 2, 3)
    assert (one[0].id, two, three[0].id) == (1, None, 3)


async def test_changes_that_the_ledger_cannot_store_fail_alone(writer, database):
    fault = LedgerRejectedWrite("no")
    database.refuse = lambda changes: any(change.id == 2 for change in changes) and fault
    one, two, three = await writes(writer, 1, 2, 3)
    assert (one[0].id, two, three[0].id) == (1, fault, 3)


async def test_while_the_ledger_is_away_all_fail_and_what_was_deferred_is_kept(writer, database):
    ended = set_build(state=BuildState.ENDED)
    writer.defer([ended])
    database.away = 1
    assert [type(result) for result in await writes(writer, 1, 2)] == [Unavailable, Unavailable]
    writer.end_call()
    writer.end_call()
    await writer.write((delivered(writer, 3),))
    assert database.changes[0][0] == ended


async def test_a_caller_that_is_canceled_takes_no_other_write_with_it(writer, database):
    writer.begin_calls(2)
    one, two = (asyncio.create_task(writer.write((delivered(writer, number),))) for number in (1, 2))
    await asyncio.sleep(0)
    one.cancel()
    assert (await two)[0].id == 2
    assert [change.id for change in database.changes[0]] == [1, 2] or len(database.changes[0]) == 1


async def test_the_end_of_a_lost_lease_is_shown_if_anything_of_it_is_lost(writer, database):
    database.refuse = lambda _changes: True
    assert await writer.finish(RELEASE, None) == ()
    writer.defer([set_build(state=BuildState.ENDED)])
    with pytest.raises(LeaseLost):
        await writer.finish(RELEASE, None)
