import asyncio
import os
import resource
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import CorruptBlob, Unavailable
from bridge.store.blobs.base import PIECE_BYTES
from bridge.store.blobs.disk import TEMPORARY, DiskSpool
from tests.support.labels import content_of, label


async def stored(spool: DiskSpool, *chunks: bytes) -> str:
    writer = await spool.create()
    for chunk in chunks:
        await writer.write(chunk)
    return await writer.commit(label(b"".join(chunks)))


async def content(spool: DiskSpool, key: str) -> bytes:
    return b"".join([piece async for piece in spool.read(key)])


def files_of(root) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_a_blob_has_no_name_of_its_own_before_it_is_committed(tmp_path):
    writer = await DiskSpool(tmp_path).create()
    await writer.write(b"half")
    await writer.flush()
    assert [name.endswith(".tmp") for name in files_of(tmp_path)] == [True]
    key = await writer.commit(label())
    assert files_of(tmp_path) == [key]


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


async def test_leftovers_of_a_crash_are_swept_and_blobs_are_kept(tmp_path):
    spool = DiskSpool(tmp_path)
    key = await stored(spool, b"kept")
    leftover = (tmp_path / key).with_name("0" * 32 + ".tmp")
    leftover.write_bytes(b"half")
    assert await DiskSpool(tmp_path).sweep_temporaries() == 1
    assert files_of(tmp_path) == [key]


async def test_a_shared_spool_is_swept_of_files_that_no_gateway_can_still_be_writing(tmp_path):
    hour = tmp_path / "2026010100"
    hour.mkdir()
    for name, age_seconds in (("young", 3600), ("old", 2 * 24 * 3600)):
        path = hour / (name + TEMPORARY)
        path.touch()
        os.utime(path, (time.time() - age_seconds,) * 2)
    assert await DiskSpool(tmp_path, shared=True).sweep_temporaries() == 1
    assert [path.name for path in hour.iterdir()] == ["young" + TEMPORARY]


async def test_sweeping_a_spool_that_never_was_finds_nothing(tmp_path):
    assert await DiskSpool(tmp_path / "new").sweep_temporaries() == 0


@given(key=st.text())
def test_no_text_leads_out_of_the_spool(tmp_path_factory, key):
    root = tmp_path_factory.getbasetemp()
    try:
        path = DiskSpool(root)._path(key)
    except CorruptBlob:
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
        await writer.commit(label())
    assert files_of(tmp_path) == []


async def test_a_blob_that_was_cut_is_damaged_and_not_a_shorter_one(tmp_path):
    spool = DiskSpool(tmp_path)
    key = await stored(spool, b"<testsuite/>")
    whole = (tmp_path / key).read_bytes()
    for size in range(len(whole)):
        (tmp_path / key).write_bytes(whole[:size])
        for asked in (content(spool, key), spool.metadata(key)):
            with pytest.raises(CorruptBlob, match="does not end"):
                await asked


async def test_a_report_that_looks_like_a_label_is_only_a_report(tmp_path):
    spool = DiskSpool(tmp_path)
    blob = (tmp_path / await stored(spool, b"<testsuite/>")).read_bytes()
    key = await stored(spool, blob)
    assert await content(spool, key) == content_of(tmp_path / key) == blob


async def test_the_folder_of_an_hour_goes_with_its_last_blob(tmp_path):
    spool = DiskSpool(tmp_path)
    key = await stored(spool, b"x")
    hour = key.partition("/")[0]
    assert [keys async for keys in spool.blobs_of(hour)] == [[key]]
    await spool.delete(key)
    assert [keys async for keys in spool.blobs_of(hour)] == []
    assert not (tmp_path / hour).exists()


async def test_a_blob_whose_end_was_written_over_is_damaged(tmp_path):
    spool = DiskSpool(tmp_path)
    key = await stored(spool, b"<testsuite/>")
    whole = (tmp_path / key).read_bytes()
    (tmp_path / key).write_bytes(whole[:-1] + b"2")
    with pytest.raises(CorruptBlob, match="does not end"):
        await content(spool, key)


# -- what people put into the folder -----------------------------------------------------------------------------

HOUR = "2020010100"
NAME = "0" * 32
NOW = 1_800_000_000_000_000


def put_folder(path):
    path.mkdir(parents=True)
    (path / "notes.txt").write_text("by hand")


def put_link(path):
    path.symlink_to(path.parent)


def put_dangling_link(path):
    path.symlink_to("nowhere")


def put_pipe(path):
    os.mkfifo(path)


BY_HAND = pytest.mark.parametrize("put", [put_folder, put_link, put_dangling_link, put_pipe])


@BY_HAND
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", [f"{HOUR}/x.tmp", f"aside/{HOUR}-{NAME}", "probe-x", HOUR, f"{HOUR}/{NAME}", "x.tmp"])
async def test_what_people_put_into_the_spool_is_passed_by(tmp_path, put, name, shared):
    spool = DiskSpool(tmp_path, shared=shared)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    put(path)
    await spool.sweep_temporaries()
    await spool.delete_aside(NOW)
    for hour in await spool.hours_before("9999123123"):
        blobs = [blob async for blobs in spool.blobs_of(hour) for blob in blobs]
        assert set(blobs) <= {f"{HOUR}/{NAME}"}
        for blob in blobs:
            with pytest.raises(CorruptBlob):
                await asyncio.wait_for(spool.metadata(blob), 10)
            with pytest.raises(CorruptBlob):
                await asyncio.wait_for(content(spool, blob), 10)
            await spool.set_aside(blob)
    assert any(os.path.lexists(left) for left in (path, tmp_path / "aside" / name.replace("/", "-")))


async def test_what_people_put_beside_old_files_keeps_none_of_them(tmp_path):
    key = f"{HOUR}-{NAME[1:]}1"
    put_folder(tmp_path / "aside" / f"{HOUR}-{NAME}")
    (tmp_path / "aside" / key).write_bytes(b"old")
    await DiskSpool(tmp_path).delete_aside(NOW)
    assert not (tmp_path / "aside" / key).exists()
