import hashlib

import pytest

from bridge.server.upload.file_buffer import FileBuffer
from bridge.store.blobs.disk import DiskSpool
from tests.support.labels import content_of, label


@pytest.fixture
def held(tmp_path):
    return FileBuffer(DiskSpool(tmp_path), max_size=20, row_size=10, room=lambda _: None)


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_few_bytes_stay_in_memory(held, tmp_path):
    await held.write(b"01234")
    await held.write(b"56789")
    assert (held.in_memory, held.body, held.size) == (True, b"0123456789", 10)
    assert held.sha256 == hashlib.sha256(b"0123456789").hexdigest()
    assert files(tmp_path) == []


async def test_more_go_to_the_spool_whole(held, tmp_path):
    for _ in range(3):
        await held.write(b"01234")
    assert not held.in_memory
    assert (await held.path()).read_bytes() == b"01234" * 3
    assert held.sha256 == hashlib.sha256(b"01234" * 3).hexdigest()
    blob = await held.commit(label(b"01234" * 3))
    await held.discard()
    assert content_of(tmp_path / blob) == b"01234" * 3


async def test_few_may_be_moved_there_too(held):
    await held.write(b"0")
    await held.move_to_spool()
    await held.write(b"1")
    assert (await held.path()).read_bytes() == b"01"
    assert held.sha256 == hashlib.sha256(b"01").hexdigest()
    await held.discard()


@pytest.mark.parametrize("pieces", [[21], [11, 10], [5, 5, 5, 5, 1]])
async def test_one_that_grows_too_large_is_counted_on_and_not_kept(held, tmp_path, pieces):
    for size in pieces:
        await held.write(b"x" * size)
    await held.write(b"x" * 100)
    assert (held.is_too_large(), held.size) == (True, 121)
    assert files(tmp_path) == []


async def test_what_is_discarded_leaves_nothing(held, tmp_path):
    await held.write(b"x" * 15)
    await held.discard()
    await held.discard()
    assert files(tmp_path) == []


async def test_what_is_in_memory_cannot_be_read_from_the_spool(held):
    await held.write(b"x")
    with pytest.raises(RuntimeError):
        await held.path()
