"""The contract of every spool: what `bridge.store.blobs.base` says, on disk and in S3."""

import asyncio
import re
from contextlib import aclosing
from hashlib import sha256

import pytest

from bridge.errors import CorruptBlob
from bridge.store.blobs.base import PIECE_BYTES
from tests.support.labels import label


async def stored(spool, *chunks, **said):
    writer = await spool.create()
    for chunk in chunks:
        await writer.write(chunk)
    return await writer.commit(label(b"".join(chunks), **said))


async def content(spool, key):
    return b"".join([piece async for piece in spool.read(key)])


async def listed(spool):
    """Return every key that the spool lists, hour by hour."""
    return [key for hour in await spool.hours_before("9") async for keys in spool.blobs_of(hour) for key in keys]


@pytest.mark.parametrize(
    "chunks",
    [(), (b"<a/>",), (b"<a", b"/>"), (b"x" * PIECE_BYTES,), (b"x" * (PIECE_BYTES + 1), b"y"), (b"ab" * 300_000,) * 3],
    ids=["empty", "small", "in two", "one piece", "over a piece", "many pieces"],
)
async def test_what_was_written_is_read_back(spool, chunks):
    assert await content(spool, await stored(spool, *chunks)) == b"".join(chunks)


async def test_a_large_blob_is_read_in_pieces_of_bounded_size(spool):
    key = await stored(spool, b"x" * (8 * PIECE_BYTES + 1))
    sizes = [len(piece) async for piece in spool.read(key)]
    assert sizes == [PIECE_BYTES] * 8 + [1]


async def test_a_reader_may_stop_in_the_middle(spool):
    key = await stored(spool, b"x" * (3 * PIECE_BYTES))
    async with aclosing(spool.read(key)) as pieces:
        assert len(await anext(pieces)) == PIECE_BYTES
    assert len(await content(spool, key)) == 3 * PIECE_BYTES


async def test_a_key_is_an_hour_and_an_id_of_its_own(spool):
    keys = {await stored(spool, b"same") for _ in range(3)}
    assert len(keys) == 3
    assert all(re.fullmatch(r"\d{10}/[0-9a-f]{32}", key) for key in keys)
    assert sorted(await listed(spool)) == sorted(keys)


async def test_what_was_flushed_can_be_read_by_others_at_the_path_before_the_commit(spool):
    writer = await spool.create()
    await writer.write(b"<testsuite/>")
    await writer.flush()
    assert writer.path.read_bytes() == b"<testsuite/>"
    await writer.discard()


async def test_what_others_wrote_at_the_path_is_what_is_kept(spool):
    writer = await spool.create()
    writer.path.write_bytes(b"<treated/>")
    assert await content(spool, await writer.commit(label(b"<treated/>"))) == b"<treated/>"


async def test_discarding_leaves_nothing_before_and_after_the_commit(spool):
    begun, committed = await spool.create(), await spool.create()
    await begun.write(b"x")
    await committed.commit(label())
    for writer in (begun, committed, begun):
        await writer.discard()
    assert not begun.path.exists()
    assert await listed(spool) == []


async def test_a_deleted_blob_is_gone_and_deleting_again_does_nothing(spool):
    key = await stored(spool, b"x")
    await spool.delete(key)
    await spool.delete(key)
    with pytest.raises(CorruptBlob, match="not in the spool"):
        await content(spool, key)
    with pytest.raises(CorruptBlob, match="not in the spool"):
        await spool.metadata(key)


async def test_the_label_is_found_beside_the_bytes(spool):
    said = {
        "name": "суreports/报告 «1».xml",
        "caller": "ci: team/Ä",
        "node_id": "n-1",
        "size": 99,
        "received_sha256": sha256(b"other").hexdigest(),
    }
    key = await stored(spool, b"<a/>", **said)
    assert await spool.metadata(key) == label(b"<a/>", **said)
    assert await content(spool, key) == b"<a/>"


@pytest.mark.parametrize("character", ["a", "\u4e2d", "\U0001f600", "\x00", "\udcff", "\u202e", "  ", "%", '"', "\r\n"])
async def test_the_longest_names_fit_and_keep_the_rest_of_the_label(spool, character):
    said = label(name=character * 5000, caller="\u4e2d" * 128)
    writer = await spool.create()
    found = await spool.metadata(await writer.commit(said))
    assert (found.build_no, found.dedupe_key) == (said.build_no, said.dedupe_key)
    assert 0 < len(found.name) <= 512
    assert found.caller == said.caller[: len(found.caller)]


async def test_what_was_set_aside_is_listed_no_more_and_can_no_longer_be_read(spool):
    key, other = await stored(spool, b"x"), await stored(spool, b"y")
    await spool.set_aside(key)
    assert await listed(spool) == [other]
    with pytest.raises(CorruptBlob):
        await content(spool, key)


async def test_hours_are_told_oldest_first_and_only_those_before(spool):
    key = await stored(spool, b"x")
    hour = key.partition("/")[0]
    assert await spool.hours_before(hour) == []
    assert await spool.hours_before(str(int(hour) + 1)) == [hour]
    assert [keys async for keys in spool.blobs_of("2001010100")] == []


async def test_a_spool_that_works_has_no_fault(spool):
    assert await spool.fault() is None


@pytest.mark.parametrize(
    "key",
    [
        "",
        "../../etc/passwd",
        "/etc/passwd",
        "2024010100/../x",
        "2024010100/" + "a" * 33,
        "2024010100/" + "a" * 32 + ".tmp",
        "2024010100/" + "a" * 32 + "\n",
        "٢٠٢٤٠١٠١٠٠/" + "a" * 32,
    ],
)
async def test_what_is_no_key_is_never_looked_for(spool, key):
    for asked in (content(spool, key), spool.delete(key), spool.metadata(key), spool.set_aside(key)):
        with pytest.raises(CorruptBlob, match="not a key"):
            await asked


async def test_many_blobs_at_once_are_each_their_own(spool):
    keys = await asyncio.gather(*(stored(spool, str(number).encode()) for number in range(20)))
    assert [await content(spool, key) for key in keys] == [str(number).encode() for number in range(20)]
