"""Whether a folder keeps what is written to it, tried with a small file."""

import errno
import os
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridge.errors import CorruptBlob, Unavailable
from bridge.store.blobs import disk
from bridge.store.blobs.disk import DiskSpool
from tests.support.labels import label


@pytest.fixture
def spool(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "PROBE_INTERVAL_SECONDS", 0)
    return DiskSpool(tmp_path)


async def stored(spool):
    writer = await spool.create()
    await writer.write(b"<testsuite/>")
    return await writer.commit(label(b"<testsuite/>"))


async def content(spool, key):
    return b"".join([piece async for piece in spool.read(key)])


async def test_a_trial_leaves_nothing_and_is_made_at_intervals(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(disk.SpoolSelfTest, "_write_and_read", lambda _: made.append(1))
    spool = DiskSpool(tmp_path)
    for _ in range(10):
        assert await spool.fault() is None
    assert made == [1]
    monkeypatch.undo()
    assert await DiskSpool(tmp_path).fault() is None
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_without_inodes_is_a_fault_although_its_folder_may_be_written(spool, monkeypatch):
    assert await spool.fault() is None

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert await spool.fault() == (
        "The spool cannot be written (No space left on device). "
        "Check the folder that store.spool names, its disk and its permissions."
    )
    monkeypatch.undo()
    monkeypatch.setattr(disk, "PROBE_INTERVAL_SECONDS", 0)
    assert await spool.fault() is None


async def test_a_disk_that_returns_other_bytes_is_a_fault_and_takes_no_upload(spool, monkeypatch):
    monkeypatch.setattr(os, "pread", lambda *_: b"\0")
    assert "did not come back as it was written" in await spool.fault()
    with pytest.raises(Unavailable, match="cannot use its spool"):
        await spool.create()


async def test_a_disk_that_is_no_longer_mounted_is_a_fault_and_its_reports_are_not_called_gone(spool, monkeypatch):
    key = await stored(spool)
    blob = spool._path(key)
    away = blob.rename(blob.with_suffix(".away"))
    with pytest.raises(CorruptBlob, match="is not in the spool"):
        await content(spool, key)
    real = Path.stat
    monkeypatch.setattr(
        Path,
        "stat",
        lambda path, **options: SimpleNamespace(st_dev=-1) if path == spool.folder else real(path, **options),
    )
    assert "on another disk than at the start" in await spool.fault()
    with pytest.raises(Unavailable, match="Mount its disk again"):
        await content(spool, key)
    with pytest.raises(Unavailable, match="cannot use its spool"):
        await spool.create()
    monkeypatch.undo()
    monkeypatch.setattr(disk, "PROBE_INTERVAL_SECONDS", 0)
    away.rename(blob)
    assert await content(spool, key) == b"<testsuite/>"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EIO, CorruptBlob), (errno.EBADMSG, CorruptBlob), (errno.EACCES, Unavailable), (errno.EMFILE, Unavailable)],
)
async def test_only_an_error_that_a_file_may_have_alone_is_damage(spool, monkeypatch, code, kind):
    key = await stored(spool)

    real, blob = os.pread, spool._path(key).stat().st_ino

    def fails(descriptor, *rest):
        if os.fstat(descriptor).st_ino == blob:
            raise OSError(code, os.strerror(code))
        return real(descriptor, *rest)

    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(kind, match=os.strerror(code)) as caught:
        await content(spool, key)
    assert type(caught.value) is kind
    assert str(spool.folder) not in str(caught.value)


async def test_a_disk_that_hangs_is_a_fault_in_time_and_holds_one_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "PROBE_INTERVAL_SECONDS", 0)
    monkeypatch.setattr(disk, "PROBE_SECONDS", 0.05)
    free, begun = threading.Event(), []

    def hangs(_self):
        begun.append(1)
        free.wait(30)

    monkeypatch.setattr(disk.SpoolSelfTest, "_write_and_read", hangs)
    spool = DiskSpool(tmp_path)
    try:
        for _ in range(3):
            assert "did not answer within" in await spool.fault()
        assert begun == [1]
    finally:
        free.set()
    monkeypatch.setattr(disk, "PROBE_SECONDS", 30)
    assert await spool.fault() is None


async def test_a_file_that_a_trial_left_at_a_crash_is_swept(tmp_path):
    (tmp_path / f"{disk.PROBE}left").write_bytes(b"x")
    assert await DiskSpool(tmp_path).sweep_temporaries() == 1
    assert list(tmp_path.iterdir()) == []
