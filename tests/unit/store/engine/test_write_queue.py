"""How writes are grouped into commits, by one rule for both engines."""

import asyncio
from types import SimpleNamespace

import pytest

from bridge.errors import Unavailable
from bridge.store.engine.write_queue import GROUP_BYTES, GROUP_LIMIT, QUEUE_LIMIT, WriteQueue


def one(_connection, _now, items):
    return items


def other(_connection, _now, items):
    return items


def of_build(build_id):
    return SimpleNamespace(build_id=build_id)


def items(group):
    return [write.item for write in group]


async def test_a_mixed_group_holds_the_writes_of_all_functions_the_longest_waiting_first():
    queue = WriteQueue(mixed=True)
    for number, function in enumerate((one, other, one)):
        queue.put(function, number, 0)
    assert items(queue.take()) == [0, 2, 1]
    assert (len(queue), queue.take()) == (0, [])


async def test_an_unmixed_group_holds_the_writes_of_the_function_that_has_waited_longest():
    queue = WriteQueue(mixed=False)
    for number, function in enumerate((one, other, one)):
        queue.put(function, number, 0)
    assert [items(queue.take()) for _ in range(3)] == [[0, 2], [1], []]


@pytest.mark.parametrize("mixed", [True, False])
async def test_a_function_with_many_writes_lets_the_others_go_first_after_each_group(mixed):
    queue = WriteQueue(mixed=mixed)
    for number in range(GROUP_LIMIT + 1):
        queue.put(one, number, 0)
    queue.put(other, "other", 0)
    assert len(queue.take()) == GROUP_LIMIT
    assert items(queue.take())[0] == "other"


@pytest.mark.parametrize("mixed", [True, False])
async def test_a_group_ends_with_the_write_that_reaches_its_limit_of_bytes(mixed):
    queue = WriteQueue(mixed=mixed)
    for number in range(3):
        queue.put(one, number, GROUP_BYTES // 2)
    assert [items(queue.take()) for _ in range(2)] == [[0, 1], [2]]


async def test_writes_of_a_build_wait_while_a_group_with_it_is_written():
    queue = WriteQueue(mixed=False)
    first, second = of_build(1), of_build(2)
    queue.put(one, first, 0)
    group = queue.take()
    queue.put(one, first, 0)
    queue.put(one, second, 0)
    assert items(queue.take()) == [second]
    assert (queue.has_free(), len(queue)) == (False, 1)
    queue.release(group)
    assert queue.has_free()
    assert items(queue.take()) == [first]


async def test_the_writes_of_a_group_are_in_the_order_of_their_builds():
    queue = WriteQueue(mixed=False)
    for build_id in (3, 1, 2):
        queue.put(one, of_build(build_id), 0)
    assert [item.build_id for item in items(queue.take())] == [1, 2, 3]


async def test_a_canceled_write_is_dropped():
    queue = WriteQueue(mixed=True)
    queue.put(one, 1, 0).cancel()
    queue.put(one, 2, 0)
    assert items(queue.take()) == [2]
    assert len(queue) == 0


async def test_a_full_queue_takes_no_write():
    queue = WriteQueue(mixed=True)
    for number in range(QUEUE_LIMIT):
        queue.put(one, number, 0)
    with pytest.raises(Unavailable, match="cannot keep up"):
        queue.put(one, "more", 0)
    assert len(queue) == QUEUE_LIMIT


async def test_writes_that_arrive_in_one_thread_are_taken_in_another():
    queue, taken = WriteQueue(mixed=True), []

    def take_all():
        while len(taken) < QUEUE_LIMIT:
            taken.extend(items(queue.take()))

    taking = asyncio.ensure_future(asyncio.to_thread(take_all))
    for item in range(QUEUE_LIMIT):
        queue.put(one, item, 0)
    await taking
    assert taken == list(range(QUEUE_LIMIT))
