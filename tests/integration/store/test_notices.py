"""Events of notices in the commits of their facts: written with them, or not at all."""

import pytest
from sqlalchemy import select

from bridge.domain.build import DeliveryState
from bridge.domain.changes import set_build, set_delivery
from bridge.domain.instants import DAY, SECOND, Duration
from bridge.domain.notice_events import ANNOUNCED_FOR, Condition
from bridge.domain.notices import EventKind, NoticeEvent, NoticeFilter, Subscriptions
from bridge.store.leases import Release, release
from bridge.store.notices import announced_conditions, begin_conditions, claim_notice, group_events
from bridge.store.schema import notice_events
from bridge.store.uploads import accept
from bridge.worker.change_writer import ChangeWriter
from tests.support.ledger import refusal, report, upload

EVENT = NoticeEvent(kind=EventKind.DEAD_DELIVERY, route="shop", targets=("t",), text="A report was given up.")
ALL = Subscriptions(filters=(("t", (NoticeFilter(),)),))


async def kinds(database):
    query = select(notice_events.c.kind, notice_events.c.count).order_by(notice_events.c.id)
    return await database.read(lambda connection: [tuple(row) for row in connection.execute(query)])


@pytest.fixture
async def leased(ledger):
    await ledger.accept(report("1.xml"), report("2.xml"))
    return await ledger.claim()


def released(leased):
    return Release(
        build_id=leased.build.id,
        fencing_token=leased.build.fencing_token,
        report_seq=leased.build.report_seq,
        due_at=leased.due_at,
        until=None,
        waiting_on=None,
        blocked_reason="No route takes this build.",
        notices=(EVENT,),
    )


def deaths(build):
    return tuple(
        set_delivery(each, state=DeliveryState.DEAD, last_error="Rejected.") for each in build.deliveries.values()
    )


async def test_an_upload_brings_its_events(database):
    await database.write(accept, upload(rejections=(refusal(),), notices=(EVENT, EVENT)))
    assert await kinds(database) == [("dead_delivery", 1)] * 2


async def test_changes_bring_their_events(database, leased):
    writer = ChangeWriter(database, leased.build, ALL)
    await writer.write(deaths(leased.build))
    assert await kinds(database) == [("dead_delivery", 2)]


async def test_events_of_deferred_changes_come_with_the_next_write_or_the_release(database, leased):
    writer = ChangeWriter(database, leased.build, ALL)
    writer.defer([set_build(stuck_reason="The run stays pending.")])
    assert await kinds(database) == []
    await writer.write(deaths(leased.build))
    assert await kinds(database) == [("stuck_run", 1), ("dead_delivery", 2)]
    writer.defer([set_build(stuck_reason=None)])
    writer.defer([set_build(stuck_reason="It stays pending again.")])
    await writer.finish(released(leased), None)
    assert await kinds(database) == [("stuck_run", 1), ("dead_delivery", 2), ("stuck_run", 1), ("dead_delivery", 1)]


async def test_a_reconciler_that_has_lost_its_lease_brings_no_events(database, ledger, clock, leased):
    clock.advance(60 * SECOND)
    await ledger.claim()
    writer = ChangeWriter(database, leased.build, ALL)
    assert await writer.write(deaths(leased.build)) is None
    assert await database.write(release, released(leased)) is False
    assert await kinds(database) == []


async def test_a_release_brings_its_events_once(database, leased):
    assert await database.write(release, released(leased)) is True
    assert await kinds(database) == [("dead_delivery", 1)]


async def test_without_subscriptions_changes_bring_no_events(database, leased):
    await ChangeWriter(database, leased.build).write(deaths(leased.build))
    assert await kinds(database) == []


async def test_a_condition_is_announced_by_one_of_those_that_find_it(database):
    condition = Condition(subject="away:testnod", event=EVENT)
    assert await database.write(begin_conditions, condition) is True
    assert await database.write(begin_conditions, condition) is False
    assert await kinds(database) == [("dead_delivery", 1)]


async def test_conditions_of_old_certificates_are_deleted(database, clock):
    await database.write(begin_conditions, Condition(subject="certificate:old:3", event=EVENT))
    clock.advance(Duration(ANNOUNCED_FOR + DAY))
    await database.write(begin_conditions, Condition(subject="certificate:new:14", event=EVENT))
    assert set(await database.read(announced_conditions)) == {"certificate:new:14"}


async def test_a_notice_is_claimed_by_one_gateway(database, clock):
    await database.write(accept, upload(rejections=(refusal(),), notices=(EVENT,)))
    assert await database.transact(group_events) == 1
    clock.advance(60 * SECOND)
    claimed = [await database.write(claim_notice, "t") for _ in range(3)]
    assert [each is not None for each in claimed] == [True, False, False]
    assert claimed[0].total.count == 1
