"""Uploads that come compressed, packed or both: what is inside is filed as if it had come by itself."""

import gzip
import hashlib
import io
import tarfile
import zipfile
import zlib

import brotli
import pytest

from bridge.domain.intake import ReportReceipt
from bridge.server.compression.codecs import zstd
from bridge.server.compression.decompress import MAX_MEMORY_BYTES, MAX_PARTY_BYTES
from tests.support.labels import content_of
from tests.support.upload_server import GOOD, MAX_FILES, MAX_REPORT, MAX_REQUEST, NOT_XML, UploadServer, form, large

COMPRESSED = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd.compress}
ENCODINGS = pytest.mark.parametrize("encoding", COMPRESSED)
BY_MAGIC = pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])

JACOCO = b'<?xml version="1.0"?><report name="shop"><sessioninfo id="a"/></report>'
SUMMARY = b"<failsafe-summary><completed>3</completed></failsafe-summary>"
BOMB = gzip.compress(b" " * (MAX_REQUEST + 1))


def zip_of(*files: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return packed.getvalue()


def tar_of(*files: tuple[str, bytes], mode: str = "w") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, content in files:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return packed.getvalue()


def tar_gz_of(*files: tuple[str, bytes]) -> bytes:
    return tar_of(*files, mode="w:gz")


PACKERS = pytest.mark.parametrize(("name", "pack"), [("a.zip", zip_of), ("a.tar", tar_of), ("a.tar.gz", tar_gz_of)])


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kept(server: UploadServer) -> list[tuple[str, bytes]]:
    """Return name and bytes of every report of the last upload."""
    return [
        (report.name, report.body if report.blob is None else content_of(server.root / report.blob))
        for report in server.uploads[-1].reports
    ]


# -- compressed ------------------------------------------------------------------------------------------------------


@ENCODINGS
async def test_a_compressed_request_is_taken_like_a_plain_one(server, send, encoding):
    body = COMPRESSED[encoding](form(("a.xml", GOOD), ("b.xml", large(300_000)), branch="main"))
    status, answer, _ = await send(body, headers={"Content-Encoding": encoding})
    assert (status, answer["result"]) == (200, "2 reports, 3 tests, 1 failed; failed: b")
    assert kept(server) == [("a.xml", GOOD), ("b.xml", large(300_000))]
    assert server.uploads[0].upload_metadata.branch == "main"
    assert all(report.received_sha256 == report.sent_sha256 for report in server.uploads[0].reports)


@ENCODINGS
@pytest.mark.parametrize("content", [GOOD, large(300_000)], ids=["small", "large"])
async def test_a_compressed_part_is_sent_uncompressed_and_both_digests_are_kept(server, send, encoding, content):
    compressed = COMPRESSED[encoding](content)
    status, _, _ = await send(form(("a.xml", compressed), headers=f"Content-Encoding: {encoding}\r\n"))
    assert status == 200
    [report] = server.uploads[0].reports
    assert kept(server) == [("a.xml", content)]
    assert (report.size, report.received_sha256) == (len(compressed), digest(compressed))
    assert (report.sent_size, report.sent_sha256) == (len(content), digest(content))
    assert report.notes == (f"It was received compressed ({encoding}) and is sent uncompressed.",)


@BY_MAGIC
async def test_a_compressed_file_is_known_by_its_first_bytes(server, send, encoding):
    status, _, _ = await send(form(("a.xml.gz", COMPRESSED[encoding](GOOD)), ("b.xml", GOOD)))
    assert status == 200
    assert kept(server) == [("a.xml.gz", GOOD), ("b.xml", GOOD)]


async def test_a_file_that_was_stored_compressed_may_be_sent_in_a_compressed_request(server, send):
    body = gzip.compress(form(("a.xml.gz", gzip.compress(GOOD))))
    status, _, _ = await send(body, headers={"Content-Encoding": "gzip"})
    assert (status, kept(server)) == (200, [("a.xml.gz", GOOD)])


async def test_a_compressed_report_sent_again_is_known_by_what_came(server, send):
    compressed = gzip.compress(GOOD)
    server.receipts = {"a.xml.gz": ReportReceipt.DUPLICATE}
    for _ in range(2):
        await send(form(("a.xml.gz", compressed)))
    assert {report.received_sha256 for upload in server.uploads for report in upload.reports} == {digest(compressed)}


@pytest.mark.parametrize("encoding", ["compress", "gzip, br, zstd"])
async def test_an_encoding_that_is_not_read_here_is_415(server, send, encoding):
    status, answer, _ = await send(form(("a.xml", GOOD)), headers={"Content-Encoding": encoding})
    assert (status, answer["error_code"]) == (415, "BRIDGE.ENCODING")
    assert server.uploads[0].reports == ()


async def test_a_part_in_an_encoding_that_is_not_read_here_is_415_by_its_name(send):
    status, answer, _ = await send(form(("a.xml", GOOD), headers="Content-Encoding: compress\r\n"))
    assert (status, answer["error_code"]) == (415, "BRIDGE.ENCODING")
    assert answer["error_msg"].startswith('a.xml: The Content-Encoding "compress"')


@pytest.mark.parametrize("damaged", [gzip.compress(GOOD)[:-1], gzip.compress(GOOD) + b"x", b"\x1f\x8b\x08 and more"])
async def test_a_file_whose_compression_is_damaged_is_rejected_alone(server, send, damaged):
    status, answer, _ = await send(form(("bad.gz", damaged), ("good.xml", GOOD)))
    assert (status, answer["error_code"]) == (400, "BRIDGE.REPORT")
    assert answer["error_msg"].startswith("bad.gz ")
    assert kept(server) == [("good.xml", GOOD)]


async def test_a_request_that_decompresses_without_end_is_413(server, send):
    status, answer, _ = await send(BOMB, headers={"Content-Encoding": "gzip"})
    assert (status, answer["error_code"], server.spooled) == (413, "BRIDGE.TOO_LARGE", [])


@pytest.mark.parametrize("decompressed", [MAX_REPORT + 1, MAX_REQUEST + 1], ids=["a report", "a request"])
async def test_a_file_that_decompresses_to_more_than_may_be_is_413_and_the_others_are_kept(server, send, decompressed):
    status, answer, _ = await send(form(("big.gz", gzip.compress(large(decompressed))), ("good.xml", GOOD)))
    assert (status, answer["error_code"]) == (413, "BRIDGE.TOO_LARGE")
    assert answer["error_msg"].startswith("big.gz")
    assert (kept(server), server.spooled) == ([("good.xml", GOOD)], [])


async def test_files_may_together_decompress_to_no_more_than_a_request_may_be(server, send):
    count = MAX_REQUEST // MAX_REPORT + 1
    files = [(f"{number}.gz", gzip.compress(large(MAX_REPORT))) for number in range(count)]
    status, answer, _ = await send(form(*files))
    assert (status, answer["error_code"]) == (413, "BRIDGE.TOO_LARGE")
    assert answer["error_msg"].startswith(
        f"{count - 1}.gz: with this file, the upload has more than {MAX_REQUEST} decompressed bytes"
    )
    assert len(kept(server)) == count - 1


# -- packed ----------------------------------------------------------------------------------------------------------


@PACKERS
async def test_each_report_in_an_archive_is_one_of_its_own(server, send, name, pack):
    inner = [("TEST-a.xml", GOOD), ("dir/b.xml", large(200_000)), ("dir/c.xml", GOOD)]
    status, answer, _ = await send(form((name, pack(*inner)), ("d.xml", GOOD)))
    assert (status, answer["result"]) == (200, "4 reports, 7 tests, 3 failed; failed: b | b | b")
    assert kept(server) == [*((f"{name}!{each}", content) for each, content in inner), ("d.xml", GOOD)]
    for report, (_, content) in zip(server.uploads[0].reports, inner, strict=False):
        assert (report.size, report.sent_size) == (len(content), len(content))
        assert report.received_sha256 == report.sent_sha256 == digest(content)
    assert server.spooled == [report.blob for report in server.uploads[0].reports if report.blob]


@PACKERS
async def test_xml_in_an_archive_that_is_not_junit_is_skipped_and_named(server, send, name, pack):
    packed = pack(("a.xml", GOOD), ("jacoco.xml", JACOCO), ("failsafe-summary.xml", SUMMARY), ("notes.txt", b"x" * 600))
    status, answer, _ = await send(form((name, packed)))
    assert status == 200
    assert answer["result"] == (
        "1 report, 2 tests, 1 failed; "
        f"2 skipped: {name}!jacoco.xml: this is a JaCoCo coverage report, not JUnit. "
        f"{name}!failsafe-summary.xml: this is a Maven Failsafe summary, not JUnit; "
        "1 packed file without XML was skipped; failed: b"
    )
    assert server.uploads[0].rejections == ()


async def test_alone_the_same_file_is_rejected_by_its_real_name(send):
    status, answer, _ = await send(form(("jacoco.xml", JACOCO)))
    assert status == 400
    assert answer["error_msg"].startswith("jacoco.xml: this is a JaCoCo coverage report, not JUnit.")


@PACKERS
async def test_a_broken_report_in_an_archive_is_rejected_by_both_names_and_the_others_are_kept(
    server, send, name, pack
):
    status, answer, _ = await send(form((name, pack(("bad.xml", NOT_XML), ("good.xml", GOOD)))))
    assert (status, answer["error_code"]) == (400, "BRIDGE.REPORT")
    assert answer["error_msg"].startswith(f"{name}!bad.xml: ")
    assert kept(server) == [(f"{name}!good.xml", GOOD)]


@pytest.mark.parametrize("inner", [(), (("readme.txt", b"x"), ("jacoco.xml", JACOCO))], ids=["empty", "no report"])
async def test_an_archive_without_any_report_is_rejected(server, send, inner):
    status, answer, _ = await send(form(("a.zip", zip_of(*inner))))
    assert status == 400
    assert answer["error_msg"].startswith("a.zip contains no JUnit report.")
    assert server.uploads[0].reports == ()


async def test_an_archive_in_an_archive_is_rejected_by_its_name(server, send):
    status, answer, _ = await send(form(("a.zip", zip_of(("b.zip", zip_of(("c.xml", GOOD))), ("d.xml", GOOD)))))
    assert status == 400
    assert "a.zip!b.zip: it is packed inside an archive" in answer["error_msg"]
    assert kept(server) == [("a.zip!d.xml", GOOD)]


async def test_a_report_in_an_archive_may_be_no_larger_than_any_other(server, send):
    packed = zip_of(("big.xml", large(MAX_REPORT + 1)), ("good.xml", GOOD))
    status, answer, _ = await send(form(("a.zip", packed)))
    assert (status, answer["error_code"]) == (413, "BRIDGE.TOO_LARGE")
    assert answer["error_msg"].startswith("a.zip!big.xml: ")
    assert kept(server) == [("a.zip!good.xml", GOOD)]


@pytest.mark.parametrize(("name", "pack"), [("a.zip", zip_of), ("a.tar.gz", tar_gz_of)])
async def test_an_archive_that_unpacks_without_end_is_413_by_its_name(server, send, name, pack):
    bomb = pack(*((f"{number}.xml", large(500_000)) for number in range(MAX_REQUEST // 500_000 + 1)))
    status, answer, _ = await send(form((name, bomb), ("good.xml", GOOD)))
    assert (status, answer["error_code"]) == (413, "BRIDGE.TOO_LARGE")
    found = answer["error_msg"]
    assert found.startswith(name)
    assert f"more than {MAX_REQUEST} unpacked bytes" in found or f"decompresses to more than {MAX_REQUEST}" in found
    assert kept(server)[-1] == ("good.xml", GOOD)
    assert server.spooled == sorted(report.blob for report in server.uploads[0].reports if report.blob)


async def test_archives_may_together_unpack_to_no_more_than_a_request_may_be(server, send):
    packed = zip_of(*((f"{number}.xml", large(MAX_REPORT)) for number in range(MAX_REQUEST // MAX_REPORT)))
    status, answer, _ = await send(form(("a.zip", packed), ("b.zip", packed)))
    assert (status, answer["error_code"]) == (413, "BRIDGE.TOO_LARGE")
    assert answer["error_msg"].startswith(
        f"b.zip: with this file, the upload has more than {MAX_REQUEST} unpacked bytes"
    )
    assert len(kept(server)) == MAX_REQUEST // MAX_REPORT


async def test_archives_may_together_hold_no_more_files_than_an_upload(server, send):
    packed = zip_of(*((f"{number}.xml", GOOD) for number in range(MAX_FILES - 1)))
    status, answer, _ = await send(form(("a.zip", packed), ("b.zip", packed)))
    assert (status, answer["error_code"]) == (413, "BRIDGE.TOO_LARGE")
    assert answer["error_msg"].startswith(f"b.zip: with this file, the upload has more than {MAX_FILES} packed files")
    assert len(kept(server)) == MAX_FILES


@pytest.mark.parametrize("broken", [zip_of(("a.xml", GOOD))[:-10], tar_of(("a.xml", GOOD))[:550]], ids=["zip", "tar"])
async def test_a_damaged_archive_is_rejected_by_its_name(server, send, broken):
    status, answer, _ = await send(form(("a.bin", broken)))
    assert (status, answer["error_code"]) == (400, "BRIDGE.REPORT")
    assert answer["error_msg"].startswith("a.bin ")
    assert (server.uploads[0].reports, server.spooled) == ((), server.blobs)


async def test_a_ledger_that_fails_leaves_nothing_of_an_archive(server, send):
    server.ledger_fails = True
    packed = zip_of(("a.xml", large(200_000)), ("b.xml", large(200_000)))
    status, _, _ = await send(form(("a.zip", packed)))
    assert (status, server.spooled) == (503, [])


@ENCODINGS
@pytest.mark.parametrize("whole", [True, False], ids=["the request", "a file in it"])
async def test_while_others_decompress_as_much_as_fits_a_compressed_upload_is_told_to_come_again(
    server, send, encoding, whole
):
    compress, header = COMPRESSED[encoding], {"Content-Encoding": encoding}
    body = (
        compress(form(("a.xml", GOOD)))
        if whole
        else form(("a.xml", compress(GOOD)), headers=f"Content-Encoding: {encoding}\r\n")
    )
    headers = header if whole else None
    server.memory.take(MAX_PARTY_BYTES, "first")
    server.memory.take(MAX_MEMORY_BYTES - MAX_PARTY_BYTES, "second")
    status, answer, answered_headers = await send(body, headers=headers)
    assert (status, answer["error_code"]) == (503, "BRIDGE.UNAVAILABLE")
    assert int(answered_headers["Retry-After"]) > 0
    assert (await send(form(("a.xml", GOOD))))[0] == 200
    server.memory.give_back(MAX_PARTY_BYTES, "first")
    for _ in range(2):
        assert (await send(body, headers=headers))[0] == 200
    server.memory.take(MAX_PARTY_BYTES, "any")  # the uploads before have given back what they took
