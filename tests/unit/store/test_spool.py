import asyncio
import re
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import DamagedBlob, Unavailable
from bridge.store.spool import PIECE_BYTES, DiskSpool


async def stored(spool: DiskSpool, *chunks: bytes) -> str:
    writer = await spool.create()
    for chunk in chunks:
        await writer.write(chunk)
    return await writer.commit()


async def content(spool: DiskSpool, key: str) -> bytes:
    return b"".join([piece async for piece in spool.read(key)])


def files_of(root) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "chunks",
    [(), (b"<a/>",), (b"<a", b"/>"), (b"x" * PIECE_BYTES,), (b"x" * (PIECE_BYTES + 1), b"y"), (b"ab" * 300_000,) * 3],
    ids=["empty", "small", "in two", "one piece", "over a piece", "many pieces"],
)
async def test_what_was_written_is_read_back(tmp_path, chunks):
    spool = DiskSpool(tmp_path)
    assert await content(spool, await stored(spool, *chunks)) == b"".join(chunks)


async def test_a_large_blob_is_read_in_pieces_of_bounded_size(tmp_path):
    spool = DiskSpool(tmp_path)
    key = await stored(spool, b"x" * (2 * PIECE_BYTES + 1))
    assert [len(piece) async for piece in spool.read(key)] == [PIECE_BYTES, PIECE_BYTES, 1]


async def test_a_key_is_an_hour_and_an_id_of_its_own(tmp_path):
    spool = DiskSpool(tmp_path)
    keys = {await stored(spool, b"same") for _ in range(3)}
    assert len(keys) == 3
    assert all(re.fullmatch(r"\d{10}/[0-9a-f]{32}", key) for key in keys)
    assert files_of(tmp_path) == sorted(keys)


async def test_a_blob_has_no_name_of_its_own_before_it_is_committed(tmp_path):
    writer = await DiskSpool(tmp_path).create()
    await writer.write(b"half")
    await writer.flush()
    assert [name.endswith(".tmp") for name in files_of(tmp_path)] == [True]
    key = await writer.commit()
    assert files_of(tmp_path) == [key]


async def test_flushed_bytes_can_be_read_by_others_at_the_path(tmp_path):
    writer = await DiskSpool(tmp_path).create()
    await writer.write(b"<testsuite/>")
    await writer.flush()
    assert writer.path.read_bytes() == b"<testsuite/>"
    await writer.discard()


async def test_discarding_leaves_nothing_before_and_after_the_commit(tmp_path):
    spool = DiskSpool(tmp_path)
    begun, committed = await spool.create(), await spool.create()
    await begun.write(b"x")
    await committed.commit()
    for writer in (begun, committed, begun):
        await writer.discard()
    assert files_of(tmp_path) == []


async def test_an_upload_cancelled_while_its_thread_writes_leaves_nothing(tmp_path):
    writer = await DiskSpool(tmp_path).create()
    writing = asyncio.create_task(writer.write(b"x" * (16 * PIECE_BYTES)))
    await asyncio.sleep(0)  # the thread has the work now
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await writer.discard()
    assert files_of(tmp_path) == []


async def test_an_upload_cancelled_while_its_blob_is_opened_leaves_nothing(tmp_path):
    opening = asyncio.create_task(DiskSpool(tmp_path).create())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert files_of(tmp_path) == []


async def test_a_deleted_blob_is_gone_and_deleting_again_does_nothing(tmp_path):
    spool = DiskSpool(tmp_path)
    key = await stored(spool, b"x")
    await spool.delete(key)
    await spool.delete(key)
    with pytest.raises(DamagedBlob, match="not in the spool"):
        await content(spool, key)


async def test_leftovers_of_a_crash_are_swept_and_blobs_are_kept(tmp_path):
    spool = DiskSpool(tmp_path)
    key = await stored(spool, b"kept")
    leftover = (tmp_path / key).with_name("0" * 32 + ".tmp")
    leftover.write_bytes(b"half")
    assert await DiskSpool(tmp_path).sweep_temporaries() == 1
    assert files_of(tmp_path) == [key]


async def test_sweeping_a_spool_that_never_was_finds_nothing(tmp_path):
    assert await DiskSpool(tmp_path / "new").sweep_temporaries() == 0


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
async def test_what_is_no_key_is_never_made_a_path(tmp_path, key):
    spool = DiskSpool(tmp_path)
    with pytest.raises(DamagedBlob, match="no key"):
        await content(spool, key)
    with pytest.raises(DamagedBlob, match="no key"):
        await spool.delete(key)


@given(key=st.text())
def test_no_text_leads_out_of_the_spool(tmp_path_factory, key):
    root = tmp_path_factory.getbasetemp()
    try:
        path = DiskSpool(root)._path(key)
    except DamagedBlob:
        return
    assert path.resolve().is_relative_to(root.resolve())


async def test_a_disk_that_takes_no_more_is_told_without_a_path_and_nothing_is_left(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = await DiskSpool(tmp_path).create()
    resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE_BYTES, hard))  # EFBIG, after a part was taken
    try:
        with pytest.raises(Unavailable, match="spool is full") as caught:
            await writer.write(b"x" * (3 * PIECE_BYTES))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.retry_after_seconds > 0
    assert files_of(tmp_path) == []
    await writer.discard()


async def test_a_spool_that_cannot_be_written_is_unavailable(tmp_path):
    (tmp_path / "spool").write_bytes(b"a file stands where the folder should")
    with pytest.raises(Unavailable, match="cannot write") as caught:
        await DiskSpool(tmp_path / "spool").create()
    assert str(tmp_path) not in str(caught.value)


async def test_a_commit_whose_name_cannot_be_given_is_unavailable_and_leaves_nothing(tmp_path):
    writer = await DiskSpool(tmp_path).create()
    writer.path.unlink()
    with pytest.raises(Unavailable):
        await writer.commit()
    assert files_of(tmp_path) == []


async def test_many_blobs_at_once_are_each_their_own(tmp_path):
    spool = DiskSpool(tmp_path)
    keys = await asyncio.gather(*(stored(spool, str(number).encode()) for number in range(20)))
    assert [await content(spool, key) for key in keys] == [str(number).encode() for number in range(20)]
