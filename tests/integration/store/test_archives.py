"""The contract of every archive: what `bridge.store.archive.base` says, on disk and in S3."""

import errno
import hashlib
import json
import os
import re
from pathlib import Path

import aiohttp
import pytest

from bridge.domain.outcomes import CorruptBody, OutcomeUnknown, SpoolUnreadable, Stored
from bridge.errors import CorruptBlob, Unavailable
from bridge.server.http.responses import disposition, file_name
from bridge.store.archive import disk as archive_disk
from bridge.store.archive.base import ArchiveEntry, day_of
from bridge.store.archive.disk import DiskArchive
from bridge.store.blobs.base import PIECE_BYTES

DAY_US = 24 * 3600 * 1_000_000
JOB = "a1" * 16
NAME = "суreports/报告 «1».xml"


def entry(content=b"<testsuite/>", *, day=20_000, report_id=1, **values):
    digest = hashlib.sha256(content).hexdigest()
    given = {
        "job_id": JOB,
        "build_no": 7,
        "node_id": "default",
        "name": NAME,
        "size": 99,
        "received_sha256": hashlib.sha256(b"received").hexdigest(),
        "sent_size": len(content),
        "sent_sha256": digest,
        "tests": 5,
        "failures": 2,
        "errors": 1,
        "skipped": 1,
        "flaky": 0,
        **values,
    }
    return ArchiveEntry(report_id=report_id, delivered_at=day * DAY_US + 5, **given)


def source(content, error=None):
    async def pieces():
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]
        if error:
            raise error

    return pieces


async def keep(archive, content=b"<testsuite/>", **values):
    kept = entry(content, **values)
    assert await archive.keep(kept, source(content)) == Stored()
    return kept


async def content_of(archive, key):
    """Return the copy's bytes and the name it is saved under, None where there is none."""
    found = await archive.find_copy(key, disposition=disposition(file_name("report-1", NAME)))
    if found is None:
        return None
    if isinstance(found, Path):
        return found.read_bytes()
    async with aiohttp.ClientSession() as http, http.get(found) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Disposition"] == disposition(file_name("report-1", NAME))
        assert answer.headers["Content-Type"] == "application/octet-stream"
        return await answer.read()


@pytest.mark.parametrize("size", [1, 5_000, 3_000_000])
async def test_a_copy_is_handed_out_as_it_was_kept(archive, size):
    kept = await keep(archive, b"x" * size)
    assert await content_of(archive, kept.key) == b"x" * size


def test_a_key_says_day_job_and_build_and_nothing_that_a_caller_named():
    key = entry().key
    assert re.fullmatch(rf"2024/10/04/{JOB}/7/1-[0-9a-f]{{16}}\.xml", key)
    assert day_of(20_000 * DAY_US) == "2024/10/04"


async def test_the_same_copy_again_is_the_same_copy(archive):
    first, again = await keep(archive), await keep(archive)
    assert first.key == again.key
    assert await content_of(archive, first.key) == b"<testsuite/>"


@pytest.mark.parametrize(
    ("said", "error", "outcome"),
    [
        ({"sent_sha256": "0" * 64}, None, CorruptBody),
        ({"sent_size": 5}, None, CorruptBody),
        ({"sent_size": 50}, None, CorruptBody),
        ({}, CorruptBlob("The blob is cut. Upload it again."), CorruptBody),
        ({}, Unavailable("The spool is away. It is tried again."), SpoolUnreadable),
    ],
)
async def test_other_bytes_than_were_promised_are_never_kept(archive, said, error, outcome):
    asked = entry(**said)
    assert isinstance(await archive.keep(asked, source(b"<testsuite/>", error)), outcome)
    assert await content_of(archive, asked.key) is None


async def test_what_was_never_kept_is_not_handed_out(archive):
    assert await content_of(archive, entry().key) is None


async def test_days_go_oldest_first_in_batches_and_younger_ones_stay(archive):
    kept = [
        await keep(archive, day=day, report_id=number)
        for day in (20_000, 20_001, 20_002, 20_400)
        for number in (1, 2, 3)
    ]
    edge = day_of(20_002 * DAY_US)

    async def left():
        return [one.delivered_at // DAY_US for one in kept if await content_of(archive, one.key) is not None]

    assert await archive.delete_before(edge, limit=4) == 4
    assert await left() == [20_001] * 2 + [20_002] * 3 + [20_400] * 3
    assert await archive.delete_before(edge, limit=4) == 2
    assert await archive.delete_before(edge, limit=4) == 0
    assert await left() == [20_002] * 3 + [20_400] * 3
    assert await archive.delete_before(day_of(30_000 * DAY_US), limit=100) == 6
    assert await archive.delete_before(day_of(30_000 * DAY_US), limit=100) == 0


async def test_what_stands_beside_a_copy_says_what_it_is(archive, s3):
    kept = await keep(archive)
    if s3 is None:
        beside = json.loads((archive._root / kept.key).with_suffix(".json").read_text())
    else:
        beside = await archive._objects.metadata(kept.key)
    assert beside == kept.metadata()
    assert beside["failures"] == "2"
    assert all(value.isascii() for value in beside.values())


async def test_an_empty_archive_forgets_nothing(archive):
    assert await archive.delete_before("9999/01/01", limit=10) == 0


# -- the disk's own ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "archive"
    root.mkdir()
    return root


async def test_a_disk_that_has_no_room_to_spare_takes_no_copy(folder):
    outcome = await DiskArchive(folder, min_free=2**60).keep(entry(), source(b"<testsuite/>"))
    assert isinstance(outcome, OutcomeUnknown)
    assert list(folder.iterdir()) == []


async def test_a_copy_that_failed_leaves_no_file(folder):
    archive = DiskArchive(folder, min_free=1)
    await archive.keep(entry(sent_size=5), source(b"<testsuite/>"))
    assert [path for path in folder.rglob("*") if path.is_file()] == []


async def test_a_folder_that_refuses_is_told_without_its_path(folder):
    archive = DiskArchive(folder / "gone", min_free=1)
    outcome = await archive.keep(entry(), source(b"<testsuite/>"))
    assert isinstance(outcome, OutcomeUnknown)
    assert str(folder) not in outcome.message


async def test_a_copy_whose_metadata_cannot_be_written_leaves_no_file(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive_disk, "write_all", full)
    assert isinstance(await DiskArchive(folder, min_free=1).keep(entry(), source(b"<testsuite/>")), OutcomeUnknown)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["2020/01/01", "2020/01", "2020", "2020/01/01/x.xml", "2020/01/01/folder/inner"])
@pytest.mark.parametrize("put", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/nowhere"), Path.touch])
async def test_what_people_put_into_the_archive_keeps_no_copy(folder, put, name):
    archive = DiskArchive(folder, min_free=1)
    kept = await keep(archive)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path)
    await archive.delete_before("9999/01/01", limit=10)
    assert await archive.find_copy(kept.key, disposition="") is None


async def test_a_file_that_cannot_be_removed_keeps_no_other_day(folder, monkeypatch):
    archive = DiskArchive(folder, min_free=1)
    stuck, other = await keep(archive, day=19_000), await keep(archive, day=20_000)
    real = Path.unlink

    def unlink(path, missing_ok=False):  # noqa: FBT002 -- as Path.unlink
        if stuck.key[:10] in str(path):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    await archive.delete_before("9999/01/01", limit=10)
    assert await archive.find_copy(other.key, disposition="") is None
    with pytest.raises(Unavailable):
        await archive.delete_before("9999/01/01", limit=10)


async def test_empty_days_leave_no_folders_behind(folder):
    archive = DiskArchive(folder, min_free=1)
    await keep(archive)
    await archive.delete_before("9999/01/01", limit=10)
    assert list(folder.iterdir()) == []


async def test_what_people_put_beside_the_days_stays(folder):
    archive = DiskArchive(folder, min_free=1)
    (folder / "notes" / "a" / "b").mkdir(parents=True)
    (folder / "notes" / "a" / "b" / "c.txt").write_text("mine")
    assert await archive.delete_before("9999/01/01", limit=10) == 0
    assert (folder / "notes" / "a" / "b" / "c.txt").read_text() == "mine"


# -- read and delete one copy --------------------------------------------------------------------------------------


async def test_a_copy_is_read_in_pieces(archive):
    content = os.urandom(700_000)
    kept = await keep(archive, content)
    pieces = [piece async for piece in archive.read(kept.key)]
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= PIECE_BYTES


async def test_a_copy_that_is_not_there_cannot_be_read(archive):
    with pytest.raises(FileNotFoundError):
        [piece async for piece in archive.read(entry().key)]


async def test_copies_are_deleted_by_their_keys_and_others_stay(archive):
    gone, other = await keep(archive), await keep(archive, b"<testsuites/>", report_id=2)
    await archive.delete([gone.key, entry(report_id=9).key])
    assert await archive.find_copy(gone.key, disposition="") is None
    assert b"".join([piece async for piece in archive.read(other.key)]) == b"<testsuites/>"
    await archive.delete([other.key])
    if isinstance(archive, DiskArchive):
        assert list(archive._root.rglob("*")) == []
