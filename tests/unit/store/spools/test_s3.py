"""How the spool in S3 fares while S3 fails: by a clock of our own, before a scripted bucket."""

import asyncio

import pytest

from bridge.domain.outcomes import Damaged, NotSent, PutRefused, Stored, Unknown
from bridge.errors import Unavailable
from bridge.store.spools import s3 as spool_s3
from bridge.store.spools.s3 import FRESH_US, LOOK_AGAIN_US, PROBE_KEY, SPARED_US, S3Spool
from bridge.store.spools.scratch import Scratch
from tests.fake_clock import FakeClock
from tests.labels import label

DENIED = PutRefused(status=403, code="AccessDenied", message="no")


class ScriptedBucket:
    """Answers every PUT with what `answer` is, and remembers its key."""

    def __init__(self):
        self.answer = Stored()
        self.put_keys = []
        self.deleted = []

    async def put(self, key, _source, **_said):
        self.put_keys.append(key)
        if self.answer is None:
            await asyncio.Event().wait()
        return self.answer

    async def delete(self, key):
        self.deleted.append(key)
        if not isinstance(self.answer, Stored):
            raise Unavailable("S3 is away. It is tried again.")


@pytest.fixture
def bucket():
    return ScriptedBucket()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def spool(bucket, clock, tmp_path):
    scratch = Scratch(tmp_path)
    yield S3Spool(bucket, scratch, clock)
    scratch.close()


async def store(spool):
    writer = await spool.create()
    await writer.write(b"x")
    return await writer.commit(label(b"x"))


def left_in(spool):
    return [path.name for path in spool.folder.iterdir() if path.name != "lock"]


@pytest.mark.parametrize("answer", [DENIED, NotSent(message="nobody"), Unknown(message="hung")])
async def test_a_blob_that_s3_does_not_take_is_unavailable_and_leaves_nothing_here(spool, bucket, answer):
    bucket.answer = answer
    with pytest.raises(Unavailable, match="cannot reach its spool") as caught:
        await store(spool)
    assert caught.value.retry_after_seconds > 0
    assert left_in(spool) == []


async def test_what_was_kept_leaves_nothing_here(spool):
    await store(spool)
    assert left_in(spool) == []


async def test_after_a_failure_uploads_are_spared_the_wait_and_then_one_tries(spool, bucket, clock):
    bucket.answer = DENIED
    with pytest.raises(Unavailable):
        await store(spool)
    asked = len(bucket.put_keys)
    clock.advance(SPARED_US - 1)
    with pytest.raises(Unavailable):
        await spool.create()
    assert len(bucket.put_keys) == asked
    clock.advance(1)
    bucket.answer = Stored()
    first = await spool.create()
    with pytest.raises(Unavailable):
        await spool.create()
    await first.commit(label())
    await store(spool)
    assert await spool.fault() is None


async def test_a_fault_says_what_s3_said_and_goes_with_the_next_probe(spool, bucket, clock):
    bucket.answer = DENIED
    fault = await spool.fault()
    assert "AccessDenied" in fault
    assert "[s3]" in fault
    bucket.answer = Stored()
    clock.advance(LOOK_AGAIN_US)
    assert await spool.fault() is None
    assert bucket.put_keys == [PROBE_KEY, PROBE_KEY]


async def test_it_is_probed_seldom_however_often_somebody_asks(spool, bucket, clock):
    bucket.answer = DENIED
    for _ in range(10):
        assert await spool.fault()
    assert len(bucket.put_keys) == 1
    clock.advance(LOOK_AGAIN_US)
    assert await spool.fault()
    assert len(bucket.put_keys) == 2


async def test_what_uploads_write_spares_the_probe(spool, bucket, clock):
    key = await store(spool)
    clock.advance(FRESH_US - 1)
    assert await spool.fault() is None
    assert bucket.put_keys == [key]
    clock.advance(1)
    assert await spool.fault() is None
    assert bucket.put_keys == [key, PROBE_KEY]


async def test_a_probe_that_hangs_is_a_fault_in_time(spool, bucket, monkeypatch):
    monkeypatch.setattr(spool_s3, "PROBE_SECONDS", 0.05)
    bucket.answer = None
    assert "no answer" in await spool.fault()


async def test_damage_on_this_machine_is_no_fault_of_s3(spool, bucket):
    bucket.answer = Damaged(message="other bytes")
    with pytest.raises(Unavailable):
        await store(spool)
    await store_again(spool, bucket)


async def store_again(spool, bucket):
    bucket.answer = Stored()
    await store(spool)


async def test_discarding_what_may_have_been_kept_removes_it_there_too(spool, bucket):
    writer = await spool.create()
    key = await writer.commit(label())
    await writer.discard()
    assert bucket.deleted == [key]
    bucket.answer = DENIED
    await writer.discard()
