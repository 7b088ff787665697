"""Refused files that came whole keep their bytes, where there is room; what did not come whole keeps none."""

import gzip
import hashlib

import pytest

from bridge.server.upload import file_store
from bridge.store.blobs.disk import DiskWriter, unavailable
from tests.support.labels import content_of
from tests.support.upload_server import (
    GOOD,
    KEEP_US,
    MAX_REPORT,
    NOT_JUNIT,
    NOT_XML,
    OTHER_JOB,
    UploadServer,
    form,
    large,
)
from tests.unit.server.compression.test_archives import zip_of

LARGE = NOT_JUNIT + b" " * 200_000


def kept(server: UploadServer):
    """Return what was kept of the only refusal, and its bytes."""
    [refusal] = server.uploads[-1].rejections
    file = refusal.quarantined
    content = content_of(server.root / file.blob) if file.blob else file.body
    return file, content


@pytest.mark.parametrize("content", [b"", NOT_XML, NOT_JUNIT, GOOD[:-3], "<testsuite n='é'/>".encode("latin1"), LARGE])
async def test_a_complete_rejected_file_keeps_its_bytes(server, send, content):
    assert (await send(form(("bad.xml", content))))[0] == 400
    file, found = kept(server)
    digest = hashlib.sha256(content).hexdigest()
    assert (found, file.size, file.sha256) == (content, len(content), digest)
    assert (file.received_size, file.received_sha256) == (len(content), digest)
    assert (file.route, file.node_id, file.keep_us) == ("shop", "n1", KEEP_US)
    assert server.spooled == server.blobs


async def test_of_a_compressed_file_the_decompressed_bytes_are_kept_and_what_came_is_remembered(server, send):
    came = gzip.compress(NOT_XML)
    await send(form(("bad.xml.gz", came)))
    file, found = kept(server)
    assert (found, file.received_size, file.received_sha256) == (NOT_XML, len(came), hashlib.sha256(came).hexdigest())


async def test_a_file_in_an_archive_is_kept_for_itself_and_an_archive_that_is_rejected_whole(server, send):
    await send(form(("a.zip", zip_of(("good.xml", GOOD), ("bad.xml", NOT_XML)))))
    assert (server.uploads[-1].rejections[0].name, kept(server)[1]) == ("a.zip!bad.xml", NOT_XML)
    empty = zip_of(("readme.txt", b"x"))
    await send(form(("b.zip", empty)))
    assert (server.uploads[-1].rejections[0].name, kept(server)[1]) == ("b.zip", empty)


@pytest.mark.parametrize(
    "files",
    [("bad.xml", large(MAX_REPORT + 1)), ("bad.xml.gz", gzip.compress(GOOD)[:-4])],
    ids=["too large", "cut off"],
)
async def test_what_is_too_large_or_cut_off_is_not_kept(server, send, files):
    await send(form(files))
    assert server.uploads[0].rejections[0].quarantined is None
    assert server.spooled == []


@pytest.mark.parametrize("content", [GOOD, LARGE], ids=["small", "large"])
async def test_a_file_that_no_route_takes_is_kept_in_a_place_of_its_own(server, send, content):
    status, answer, _ = await send(form(("a.xml", content), branch="main"), job_id=OTHER_JOB, complete="true")
    assert (status, answer["error_code"]) == (404, "BRIDGE.NO_ROUTE")
    assert answer["error_msg"] == f"No route of this bridge takes the job {OTHER_JOB}. Add one to its settings."
    [upload] = server.uploads
    assert (upload.rejections[0].name, upload.rejections[0].code) == ("a.xml", "BRIDGE.NO_ROUTE")
    assert upload.rejections[0].reason == f"a.xml: {answer['error_msg']}"
    assert (upload.complete, upload.reports, upload.upload_metadata.branch) == (False, (), "main")
    file, found = kept(server)
    assert (file.route, found) == ("", content)


@pytest.mark.parametrize("body", [b"no form", form(), form(("a.xml", GOOD))[:-20]], ids=["junk", "empty", "cut"])
async def test_an_upload_without_route_and_files_is_rejected_for_its_route_all_the_same(server, send, body):
    status, answer, _ = await send(body, job_id=OTHER_JOB)
    assert (status, answer["error_code"]) == (404, "BRIDGE.NO_ROUTE")
    [upload] = server.uploads
    assert [(refusal.name, refusal.quarantined) for refusal in upload.rejections] == [("", None)]
    assert server.spooled == []


async def test_files_for_a_route_of_others_are_not_quarantined(server, send):
    assert (await send(form(("a.xml", NOT_XML)), token="bound"))[0] == 403
    assert server.uploads[0].rejections[0].quarantined is None


@pytest.mark.parametrize("content", [NOT_XML, LARGE], ids=["small", "large"])
async def test_without_space_a_rejection_is_recorded_without_its_bytes(server, send, content):
    server.quarantine_full = True
    status, _, _ = await send(form(("bad.xml", content)))
    file, _ = kept(server)
    assert (status, file.body, file.blob, server.spooled) == (400, None, None, [])
    assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


async def test_a_disk_that_is_full_at_the_last_moment_turns_no_rejection_into_another_answer(server, send, monkeypatch):
    async def refuse(writer, _label):
        await writer.discard()
        raise unavailable(OSError(28, "No space left on device"))

    monkeypatch.setattr(DiskWriter, "commit", refuse)
    status, answer, _ = await send(form(("bad.xml", LARGE)))
    assert (status, answer["error_code"]) == (400, "BRIDGE.REPORT")
    assert (kept(server)[0].blob, server.spooled) == (None, [])


async def test_of_one_upload_no_more_files_are_kept_than_rejections(server, send, monkeypatch):
    monkeypatch.setattr(file_store, "MAX_REJECTIONS", 2)
    await send(form(*((f"{number}.xml", NOT_XML) for number in range(4))))
    assert [refusal.quarantined is not None for refusal in server.uploads[0].rejections] == [True, True, False, False]


async def test_a_file_that_would_push_out_most_others_is_not_kept(server, send, monkeypatch):
    monkeypatch.setattr(file_store, "MAX_QUARANTINED_FILE_BYTES", len(NOT_XML) - 1)
    await send(form(("bad.xml", NOT_XML)))
    assert kept(server)[0].body is None


async def test_what_the_ledger_lets_go_of_is_removed(server, send):
    await send(form(("bad.xml", LARGE)))
    server.freed = tuple(server.blobs)
    await send(form(("bad.xml", NOT_XML)))
    assert server.spooled == []


async def test_a_ledger_that_fails_leaves_no_bytes_of_rejected_files(server, send):
    server.ledger_fails = True
    assert (await send(form(("bad.xml", LARGE))))[0] == 503
    assert server.spooled == []
