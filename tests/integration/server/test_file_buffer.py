import hashlib

import pytest

from bridge.server.upload.file_store import FileBuffer
from bridge.store.blobs.disk import DiskSpool
from tests.support.labels import content_of, label


@pytest.fixture
def buffer(tmp_path):
    return FileBuffer(DiskSpool(tmp_path), max_size=20, memory_size=10, reserve_space=lambda _: None)


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_few_bytes_stay_in_memory(buffer, tmp_path):
    await buffer.write(b"01234")
    await buffer.write(b"56789")
    assert (buffer.in_memory, buffer.body, buffer.size) == (True, b"0123456789", 10)
    assert buffer.digest().sha256 == hashlib.sha256(b"0123456789").hexdigest()
    assert files(tmp_path) == []


async def test_more_go_to_the_spool_whole(buffer, tmp_path):
    for _ in range(3):
        await buffer.write(b"01234")
    assert not buffer.in_memory
    assert (await buffer.path()).read_bytes() == b"01234" * 3
    assert buffer.digest().sha256 == hashlib.sha256(b"01234" * 3).hexdigest()
    blob = await buffer.commit(label(b"01234" * 3))
    await buffer.discard()
    assert content_of(tmp_path / blob) == b"01234" * 3


async def test_few_may_be_moved_there_too(buffer):
    await buffer.write(b"0")
    await buffer.move_to_spool()
    await buffer.write(b"1")
    assert (await buffer.path()).read_bytes() == b"01"
    assert buffer.digest().sha256 == hashlib.sha256(b"01").hexdigest()
    await buffer.discard()


@pytest.mark.parametrize("pieces", [[21], [11, 10], [5, 5, 5, 5, 1]])
async def test_one_that_grows_too_large_is_counted_on_and_not_kept(buffer, tmp_path, pieces):
    for size in pieces:
        await buffer.write(b"x" * size)
    await buffer.write(b"x" * 100)
    assert (buffer.is_too_large(), buffer.size) == (True, 121)
    assert files(tmp_path) == []


async def test_what_is_discarded_leaves_nothing(buffer, tmp_path):
    await buffer.write(b"x" * 15)
    await buffer.discard()
    await buffer.discard()
    assert files(tmp_path) == []


async def test_what_is_in_memory_cannot_be_read_from_the_spool(buffer):
    await buffer.write(b"x")
    with pytest.raises(RuntimeError):
        await buffer.path()
