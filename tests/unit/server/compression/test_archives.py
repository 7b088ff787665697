import asyncio
import contextlib
import gzip
import io
import os
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.intake import NewRejection
from bridge.errors import BadReport, CallerError, TooLarge, Unavailable
from bridge.server.compression.archives import (
    ArchiveBudget,
    Budget,
    SkippedFile,
    archive_events,
    is_archive,
    read_archive,
)

MIB = 1 << 20
REPORT = b'<?xml version="1.0"?><testsuite><testcase name="a"/></testsuite>'


def budget(max_files: int = 100, max_bytes: int = MIB) -> ArchiveBudget:
    return ArchiveBudget(max_files=max_files, max_bytes=max_bytes)


def zip_of(*files: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the same name twice, here on purpose
        for name, content in files:
            archive.writestr(name, content)
    return packed.getvalue()


def tar_of(*files: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return packed.getvalue()


PACKERS = pytest.mark.parametrize("pack", [zip_of, tar_of], ids=["zip", "tar"])


def collected(events):
    """Put the events of each report together: (name, content), or the event itself for all others."""
    files = []
    for event in events:
        if isinstance(event, str):
            name, content = event, b""
        elif isinstance(event, bytes):
            content += event
        elif event is None:
            files.append((name, content))
        else:
            files.append(event)
    return files


def read(archive: bytes, *, name: str = "a.zip"):
    return collected(read_archive(io.BytesIO(archive), name=name, budget=budget()))


@PACKERS
def test_each_inner_report_comes_under_the_name_of_both(pack):
    archive = pack(("TEST-a.xml", REPORT), ("dir/sub/B.XML", b"<testsuite/>"))
    assert is_archive(archive)
    assert read(archive, name="反.zip") == [("反.zip!TEST-a.xml", REPORT), ("反.zip!dir/sub/B.XML", b"<testsuite/>")]


@pytest.mark.parametrize("head", [b"", b"<testsuite/>", b"\x1f\x8b\x08", bytes(512)])
def test_a_report_is_no_archive(head):
    assert not is_archive(head)


@pytest.mark.parametrize(
    "content",
    [REPORT, b"\xef\xbb\xbf" + REPORT, b"\n " + REPORT, REPORT.decode().encode("utf-16"), b"<testsuites/>"],
    ids=["plain", "mark", "blanks", "utf-16", "no declaration"],
)
def test_content_that_starts_like_xml_is_a_report_whatever_its_name(content):
    assert read(zip_of(("result.txt", content))) == [("a.zip!result.txt", content)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.txt", b"hello"),
        ("index.html", b"<!DOCTYPE html><br>"),
        ("empty", b""),
        ("report.xml.bak", b"no"),
        ("server.log.gz", gzip.compress(b"log", mtime=0)),
        ("__MACOSX/._report.xml", b"\0\x05\x16\x07"),
    ],
)
def test_other_files_are_skipped_and_named(name, content):
    archive = zip_of((name, content), ("b.xml", REPORT))
    assert read(archive) == [SkippedFile(name=f"a.zip!{name}"), ("a.zip!b.xml", REPORT)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("inner.zip", zip_of(("x.xml", REPORT))),
        ("inner.tar", tar_of(("x.xml", REPORT))),
        ("disguised.xml", zip_of()),
        ("inner.tar.gz", gzip.compress(tar_of(("x.xml", REPORT)), mtime=0)),
        ("inner.tgz", gzip.compress(b"", mtime=0)),
        ("report.xml.gz", gzip.compress(REPORT, mtime=0)),
    ],
)
def test_an_archive_in_an_archive_is_rejected_by_its_name_and_the_others_come(name, content):
    refusal, report = read(zip_of((name, content), ("b.xml", REPORT)))
    assert isinstance(refusal, NewRejection)
    assert refusal.name == f"a.zip!{name}"
    assert refusal.reason.startswith(f"a.zip!{name}: it is packed inside an archive")
    assert report == ("a.zip!b.xml", REPORT)


@PACKERS
def test_the_same_name_twice_is_two_reports(pack):
    archive = pack(("a.xml", b"<x/>"), ("a.xml", b"<y/>"), ("a.xml", b"<z/>"))
    assert read(archive) == [("a.zip!a.xml", b"<x/>"), ("a.zip!a.xml (2)", b"<y/>"), ("a.zip!a.xml (3)", b"<z/>")]


@PACKERS
@pytest.mark.parametrize("name", ["../../etc/cron.d/x.xml", "/etc/x.xml", "a\nb.xml", "\u202elmx.xml"])
def test_a_name_that_would_lead_elsewhere_leads_nowhere(pack, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read(pack((name, REPORT))) == [(f"a.zip!{name}", REPORT)]
    assert list(tmp_path.iterdir()) == []


def test_a_name_longer_than_a_path_is_rejected():
    with pytest.raises(BadReport, match="name of more than 4096 characters"):
        read(zip_of(("n" * 4097, REPORT)))


@PACKERS
def test_more_files_than_allowed_are_rejected_whatever_they_are(pack):
    files = [(f"{number}.log", b"") for number in range(101)]
    assert len(read(pack(*files[:100]))) == 100
    with pytest.raises(TooLarge, match=r"^a\.zip: with this file, the upload has more than 100 packed files"):
        read(pack(*files))


@PACKERS
def test_what_all_reports_decompress_to_is_bounded(pack):
    half = bytes(MIB // 2)
    assert len(read(pack(("a.xml", half), ("b.xml", half)))) == 2
    with pytest.raises(TooLarge, match=rf"^a\.zip: with this file, the upload has more than {MIB} unpacked bytes"):
        read(pack(("a.xml", half), ("b.xml", half), ("c.xml", b"1")))


def test_a_bomb_is_cut_within_a_mebibyte_of_the_limit():
    events = read_archive(io.BytesIO(zip_of(("a.xml", bytes(64 * MIB)))), name="a.zip", budget=budget())
    came = []
    with pytest.raises(TooLarge):
        came.extend(len(event or b"") for event in events)
    assert sum(came) < 2 * MIB


@PACKERS
def test_large_files_that_are_no_reports_do_not_count(pack):
    archive = pack(("core", bytes(3 * MIB)), ("a.xml", REPORT))
    assert read(archive) == [SkippedFile(name="a.zip!core"), ("a.zip!a.xml", REPORT)]


@given(st.data())
def test_any_bytes_are_read_or_rejected(data):
    whole = data.draw(st.sampled_from([zip_of(("a.xml", REPORT), ("b", b"x")), tar_of(("a.xml", REPORT), ("b", b"x"))]))
    archive = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(archive))
    except CallerError as error:
        assert error.status in {400, 413}  # noqa: PT017 -- both outcomes are right


async def test_a_file_is_read_beside_the_event_loop(tmp_path: Path):
    path = tmp_path / "blob"
    path.write_bytes(zip_of(*((f"{number}.xml", REPORT) for number in range(100)), ("z", b"")))
    files = collected([event async for event in archive_events(path, name="a.zip", budget=budget(max_files=200))])
    assert files == [*((f"a.zip!{number}.xml", REPORT) for number in range(100)), SkippedFile(name="a.zip!z")]


async def test_what_came_before_a_fault_comes_through(tmp_path: Path):
    path = tmp_path / "blob"
    path.write_bytes(tar_of(("a.xml", REPORT), ("b.xml", REPORT))[: 3 * 512])
    events = []
    with pytest.raises(BadReport, match=r"^a\.tar ends before"):
        events.extend([event async for event in recorded(archive_events(path, name="a.tar", budget=budget()), events)])
    assert collected(events) == [("a.tar!a.xml", REPORT)]


async def recorded(events, record):
    async for event in events:
        record.append(event)
        yield event


async def test_a_disk_that_fails_is_not_the_callers_fault(tmp_path: Path):
    with pytest.raises(Unavailable, match=r"^a\.zip cannot be read") as failure:
        [event async for event in archive_events(tmp_path / "gone", name="a.zip", budget=budget())]
    assert str(tmp_path) not in str(failure.value)


def is_open(path: Path) -> bool:
    """Tell whether this process holds the file."""
    held = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own is gone by now
            held.add(descriptor.readlink())
    return path in held


async def test_an_upload_that_is_canceled_between_two_turns_leaves_nothing_open(tmp_path: Path):
    path = tmp_path / "blob"
    path.write_bytes(tar_of(*((f"{number}.xml", bytes(10_000)) for number in range(90))))
    begun = asyncio.Event()

    async def upload() -> None:
        async with contextlib.aclosing(archive_events(path, name="a.tar", budget=budget())) as events:
            async for _ in events:
                begun.set()
                await asyncio.Event().wait()

    uploading = asyncio.create_task(upload())
    await begun.wait()
    assert is_open(path)
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    await asyncio.sleep(0)
    assert not is_open(path)


async def test_an_upload_that_is_canceled_while_the_disk_hangs_does_not_wait_for_it(tmp_path: Path):
    path = tmp_path / "blob"
    os.mkfifo(path)

    async def upload() -> None:
        async for _ in archive_events(path, name="a.tar", budget=budget()):
            pass

    uploading = asyncio.create_task(upload())
    writer = await asyncio.to_thread(os.open, path, os.O_WRONLY)  # returns when the thread has opened it, too
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    os.close(writer)
    await asyncio.get_running_loop().shutdown_default_executor()
    await asyncio.sleep(0)
    assert not is_open(path)


@PACKERS
def test_memory_stays_flat_however_large_the_archive(pack, tmp_path):
    bomb = tmp_path / "bomb"
    bomb.write_bytes(pack(("a.xml", bytes(100 * MIB)), *((f"{number}.log", b"") for number in range(4000))))
    program = (
        "import resource, sys, pathlib\n"
        "from bridge.server.compression.archives import ArchiveBudget, read_archive\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "with pathlib.Path(sys.argv[1]).open('rb') as file:\n"
        "    events = read_archive(file, name='a', budget=ArchiveBudget(max_files=5000, max_bytes=1 << 30))\n"
        "    print(sum(len(event) for event in events if isinstance(event, bytes)), (peak() - before) // 1024)\n"
    )
    # Started by a shell: a process begins with the peak of the one that started it.
    command = ["sh", "-c", '"$@"; :', "sh", sys.executable, "-c", program, str(bomb)]
    came, grown_mib = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(came) == 100 * MIB
    assert int(grown_mib) < 16


def test_a_budget_may_be_used_up_and_not_exceeded():
    left = Budget(10, "bytes")
    left.take(4, "a.zip")
    left.take(6, "b.zip")
    with pytest.raises(TooLarge):
        left.take(1, "c.zip")


def test_the_file_that_exceeds_a_budget_is_named():
    left = Budget(10, "bytes")
    left.take(10, "a.zip")
    with pytest.raises(TooLarge, match=r"^b\\x1b.zip: with this file, the upload has more than 10 bytes\. Send"):
        left.take(1, "b\x1b.zip")


@PACKERS
def test_the_archives_of_one_upload_share_a_budget(pack):
    shared = budget(max_files=3)
    archive = pack(("a.xml", REPORT), ("b.log", b"x"))
    list(read_archive(io.BytesIO(archive), name="a.zip", budget=shared))
    with pytest.raises(TooLarge, match=r"^b\.zip: with this file, the upload has more than 3 packed files"):
        list(read_archive(io.BytesIO(archive), name="b.zip", budget=shared))
