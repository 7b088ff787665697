"""How the spool in S3 fares while S3 fails: by a clock of our own, before a scripted bucket."""

import asyncio
from collections import defaultdict

import pytest

from bridge.domain.outcomes import CorruptBody, NotSent, OutcomeUnknown, PutRejected, Stored
from bridge.errors import CorruptBlob, Unavailable, UnexpectedResponse
from bridge.protocols.s3 import ObjectListing
from bridge.store.archive.s3 import S3Archive
from bridge.store.blobs import s3 as spool_s3
from bridge.store.blobs.s3 import FRESH_US, PROBE_INTERVAL_US, PROBE_KEY, READ_FRESH_US, RETRY_AFTER_US, S3Spool
from bridge.store.blobs.temp_file import TempFolder
from tests.support.fake_clock import FakeClock
from tests.support.labels import label

DENIED = PutRejected(status=403, code="AccessDenied", message="no")


class ScriptedBucket:
    """Answers every PUT with what `answer` is, and remembers its key; reads raise what `unread` is, or hang."""

    def __init__(self):
        self.answer = Stored()
        self.unread = None
        self.unread_keys = {}  # of these keys alone
        self.put_keys = []
        self.read_keys = []
        self.deleted = []
        self.kept = {}

    async def put(self, key, source, **_said):
        self.put_keys.append(key)
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Stored):
            self.kept[key] = b"".join([piece async for piece in source()])
        return self.answer

    async def read(self, key):
        self.read_keys.append(key)
        unread = self.unread_keys.get(key, self.unread)
        if unread == "hangs":
            await asyncio.Event().wait()
        if unread is not None:
            raise unread
        yield self.kept[key]

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
    scratch = TempFolder(tmp_path)
    yield S3Spool(bucket, scratch, clock, location="s3://b/p")
    scratch.close()


async def store(spool):
    writer = await spool.create()
    await writer.write(b"x")
    return await writer.commit(label(b"x"))


def left_in(spool):
    return [path.name for path in spool.folder.iterdir() if path.name != "lock"]


@pytest.mark.parametrize("answer", [DENIED, NotSent(message="nobody"), OutcomeUnknown(message="hung")])
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
    clock.advance(RETRY_AFTER_US - 1)
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
    clock.advance(PROBE_INTERVAL_US)
    assert await spool.fault() is None
    assert [key.rpartition("/")[2] for key in bucket.put_keys] == [PROBE_KEY, PROBE_KEY]


async def test_it_is_probed_seldom_however_often_it_is_asked(spool, bucket, clock):
    bucket.answer = DENIED
    for _ in range(10):
        assert await spool.fault()
    assert len(bucket.put_keys) == 1
    clock.advance(PROBE_INTERVAL_US)
    assert await spool.fault()
    assert len(bucket.put_keys) == 2


async def test_what_uploads_write_spares_the_probe(spool, bucket, clock):
    key = await store(spool)
    probe = bucket.put_keys[0]  # before the first upload, which nothing has shown to be readable
    clock.advance(FRESH_US - 1)
    assert await spool.fault() is None
    assert bucket.put_keys == [probe, key]
    clock.advance(1)
    assert await spool.fault() is None
    assert bucket.put_keys == [probe, key, probe]


async def test_a_probe_that_hangs_is_a_fault_in_time(spool, bucket, monkeypatch):
    monkeypatch.setattr(spool_s3, "PROBE_SECONDS", 0.05)
    bucket.answer = None
    assert "no answer" in await spool.fault()


async def test_damage_on_this_machine_is_no_fault_of_s3(spool, bucket):
    bucket.answer = CorruptBody(message="other bytes")
    with pytest.raises(Unavailable):
        await store(spool)
    await store_again(spool, bucket)


async def store_again(spool, bucket):
    bucket.answer = Stored()
    await store(spool)


async def test_discarding_what_may_have_been_kept_removes_it_there_too(spool, bucket):
    writer = await spool.create()
    bucket.deleted.clear()
    key = await writer.commit(label())
    await writer.discard()
    assert bucket.deleted == [key]
    bucket.answer = DENIED
    await writer.discard()


# -- a key that may write but not read, and what is answered to reads ------------------------------------------------

NO_READING = UnexpectedResponse("403 AccessDenied Access Denied", "Check the key's right to GetObject.")
NO_BUCKET = UnexpectedResponse("404 NoSuchBucket", "Check the bucket.")
NO_KEY = FileNotFoundError(2, "404 NoSuchKey The specified key does not exist", "k")
BUSY = Unavailable("S3 did not return an object: 503 SlowDown. It is tried again later.")
CANNOT = "The spool (s3://b/p) cannot be read: 403 AccessDenied Access Denied. Check the key's right to GetObject."


async def read(spool, key):
    return b"".join([piece async for piece in spool.read(key)])


async def test_a_spool_that_may_only_be_written_is_not_ready_says_why_and_takes_no_upload(spool, bucket, clock):
    bucket.unread = NO_READING
    with pytest.raises(Unavailable, match="cannot reach its spool"):
        await spool.create()
    assert await spool.fault() == CANNOT
    bucket.unread = None
    clock.advance(RETRY_AFTER_US)
    await store(spool)
    assert await spool.fault() is None


@pytest.mark.parametrize("unread", [NO_READING, NO_BUCKET, NO_KEY, BUSY])
async def test_what_s3_said_to_the_read_of_the_probe_is_the_reason(spool, bucket, unread):
    bucket.unread = unread
    assert getattr(unread, "received", getattr(unread, "strerror", "SlowDown")) in await spool.fault()


async def test_other_bytes_than_the_probes_are_a_fault(spool, bucket, monkeypatch):
    monkeypatch.setattr(bucket, "put", lambda *_, **__: _stored_as(bucket, b"<html>"))
    assert "6 bytes that are not those just written" in await spool.fault()


async def _stored_as(bucket, content):
    bucket.kept = defaultdict(lambda: content)
    return Stored()


async def test_a_read_of_the_probe_that_hangs_is_a_fault_in_time(spool, bucket, monkeypatch):
    monkeypatch.setattr(spool_s3, "PROBE_SECONDS", 0.05)
    bucket.unread = "hangs"
    assert "cannot be read: no answer within" in await spool.fault()


async def test_probes_are_removed_and_a_key_without_that_right_is_ready_all_the_same(spool, bucket, monkeypatch):
    assert await spool.fault() is None
    assert bucket.deleted == bucket.put_keys

    async def refused(_key):
        raise Unavailable("no")

    monkeypatch.setattr(bucket, "delete", refused)
    assert await spool.fault() is None


async def test_uploads_are_proven_readable_by_one_probe_a_minute(spool, bucket, clock):
    for _ in range(10):
        await store(spool)
    assert sum(key.endswith(PROBE_KEY) for key in bucket.put_keys) == 1
    clock.advance(READ_FRESH_US)
    await asyncio.gather(*(store(spool) for _ in range(10)))
    assert sum(key.endswith(PROBE_KEY) for key in bucket.put_keys) == 2


@pytest.mark.parametrize("unread", [NO_READING, NO_BUCKET, NO_KEY, BUSY])
async def test_while_nothing_can_be_read_no_report_is_called_damaged_and_few_readers_ask(spool, bucket, clock, unread):
    key = await store(spool)
    bucket.unread = unread
    clock.advance(PROBE_INTERVAL_US)
    for _ in range(5):
        with pytest.raises(Unavailable, match=r"^The spool \(s3://b/p\) cannot be read: "):
            await read(spool, key)
    assert bucket.read_keys.count(key) == 1
    clock.advance(RETRY_AFTER_US)
    bucket.unread = None
    assert await read(spool, key) == b"x"
    assert await spool.fault() is None


@pytest.mark.parametrize(
    ("unread", "says"),
    [
        (NO_KEY, r"is not in the spool \(s3://b/p\): 404 NoSuchKey"),
        (NO_READING, "with 403 AccessDenied Access Denied, while others can be read. Check the key's right"),
    ],
)
async def test_an_object_that_alone_is_answered_oddly_is_damaged(spool, bucket, clock, unread, says):
    key = await store(spool)
    bucket.unread_keys[key] = unread
    clock.advance(PROBE_INTERVAL_US)
    with pytest.raises(CorruptBlob, match=says):
        await read(spool, key)
    assert await spool.fault() is None


async def test_an_s3_that_fails_for_one_object_says_nothing_of_it(spool, bucket, clock):
    key = await store(spool)
    bucket.unread_keys[key] = BUSY
    clock.advance(PROBE_INTERVAL_US)
    with pytest.raises(Unavailable, match="503 SlowDown"):
        await read(spool, key)


async def test_while_nothing_can_be_written_what_is_there_is_read_on(spool, bucket, clock):
    key = await store(spool)
    bucket.answer = DENIED
    clock.advance(FRESH_US)
    assert "takes no reports" in await spool.fault()
    assert await read(spool, key) == b"x"


# -- listings ----------------------------------------------------------------------------------------------------

OLD = "2020010100"


class EndlessBucket:
    """Every page of a listing names a next one: one of `following` in turn, or always a new one."""

    def __init__(self, following):
        self.following = following
        self.pages = 0

    async def list(self, below, *, following=None, folders=False):  # noqa: ARG002 -- as an ObjectStore's
        self.pages += 1
        token = self.following[self.pages % len(self.following)] if self.following else str(self.pages)
        found = (f"{OLD}/",) if folders else ()
        return ObjectListing(prefixes=found, following=token)

    async def delete(self, key):
        """Delete nothing."""


async def drained(pages):
    yield [page async for page in pages]


@pytest.mark.parametrize("following", [["same"], ["one", "two"], []])
@pytest.mark.parametrize("listing", ["hours", "blobs", "aside", "archive"])
async def test_a_listing_that_does_not_end_is_given_up(tmp_path, clock, monkeypatch, following, listing):
    monkeypatch.setattr(spool_s3, "MAX_PAGES", 20)
    bucket = EndlessBucket(following)
    scratch = TempFolder(tmp_path)
    spool = S3Spool(bucket, scratch, clock, location="s3://b/p")
    calls = {
        "hours": lambda: spool.hours_before("9999123123"),
        "blobs": lambda: anext(drained(spool.blobs_of(OLD))),
        "aside": lambda: spool.delete_aside(clock.now()),
        "archive": lambda: S3Archive(bucket).delete_before("2026/01/01", limit=100),
    }
    with pytest.raises(Unavailable, match="does not end"):
        await calls[listing]()
    scratch.close()
    assert bucket.pages <= 22
