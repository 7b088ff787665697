import asyncio

from bridge.domain.instants import MINUTE, SECOND
from bridge.domain.request_rate import MAX_AHEAD, Api
from bridge.store.request_rates import (
    QuestionClaim,
    RateUse,
    ThrottledCall,
    asked_since,
    claim_questions,
    read_rates,
    use_rates,
)
from bridge.worker.request_rates import RequestRates
from tests.support.fake_clock import START

PER_MINUTE = 60  # a slot a second


def use(api=Api.BUILD_INFO, account="a", **wanted):
    return RateUse(account=account, api=api, highest=PER_MINUTE, **wanted)


async def slots(database, count=1, **wanted):
    return list((await database.write(use_rates, use(takes=count, **wanted))).slots)


async def test_slots_are_handed_out_in_order_spaced_and_never_twice(database):
    grants = await asyncio.gather(*(slots(database, 2) for _ in range(10)))
    assert sorted(slot for grant in grants for slot in grant) == [START + n * SECOND for n in range(20)]


async def test_slots_that_no_call_came_for_are_gone(database, clock):
    await slots(database)
    clock.advance(10 * SECOND)
    assert await slots(database, 2) == [clock.now(), clock.now() + SECOND]


async def test_each_api_of_each_account_has_a_rate_of_its_own(database):
    assert await slots(database) == [START]
    assert await slots(database, api=Api.RECORD_LIST) == [START]
    assert await slots(database, account="b") == [START]
    assert await slots(database) == [START + SECOND]


async def test_a_throttled_call_slows_down_all_gateways(database):
    await slots(database)
    await database.write(use_rates, use(throttled=ThrottledCall(sent_at=START, retry_after_seconds=30)))
    assert (await slots(database))[0] >= START + 30 * SECOND
    assert (await database.read(read_rates, "a"))[Api.BUILD_INFO].per_minute <= PER_MINUTE / 2


async def test_a_call_that_is_not_admitted_gets_a_turn_of_its_own(database):
    grants = [await database.write(use_rates, use(asks=True)) for _ in range(3)]
    assert [grant.turn for grant in grants] == [None, START + SECOND, START + 2 * SECOND]


async def test_a_slot_that_a_wrong_clock_assigned_is_not_waited_for(database, clock):
    clock.advance(2 * MAX_AHEAD)
    await slots(database)
    clock.advance(-2 * MAX_AHEAD)
    assert await slots(database) == [START]


async def test_a_question_is_asked_by_one_gateway(database, clock):
    claim = QuestionClaim(subject="job:1", interval=MINUTE)
    assert sorted(await asyncio.gather(*(database.write(claim_questions, claim) for _ in range(3)))) == [
        False,
        False,
        True,
    ]
    assert await database.read(asked_since, ["job:1", "job:2"]) == {"job:1": START}
    clock.advance(MINUTE)
    assert await database.write(claim_questions, claim)
    clock.advance(-30 * MINUTE)
    assert await database.write(claim_questions, claim)


async def test_a_gateway_does_not_wait_for_a_slot_that_a_wrong_clock_assigned(database, clock):
    clock.advance(180 * MINUTE)
    rates = RequestRates(database, "account", 600)
    await rates.take_slots(Api.BUILD_INFO, 1)
    clock.advance(-180 * MINUTE)
    await database.transact(lambda *_: None)  # a gateway reads the ledger's time with each transaction

    assert rates.rate(Api.BUILD_INFO, clock.now()).next_at <= clock.now()
    await rates.refresh()
    assert rates.rate(Api.BUILD_INFO, clock.now()).next_at <= clock.now()
