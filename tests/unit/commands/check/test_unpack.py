"""What is in a file: itself, what it is compressed from, or the reports that it packs."""

import gzip
import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from backports import zstd

from bridge.commands.check.unpack import CandidateFile, unpack
from bridge.domain.intake import NewRejection
from bridge.errors import BadReport

REPORT = b"<testsuite><testcase/></testsuite>"


def contents(path: Path) -> dict[str, bytes]:
    """Read everything twice, as repair does."""
    read = {}
    for found in unpack(path):
        assert isinstance(found, CandidateFile)
        read[found.name] = b"".join(found.source())
        assert b"".join(found.source()) == read[found.name]
        assert found.size == len(read[found.name])
    return read


def packed_zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def packed_tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [REPORT, gzip.compress(REPORT), zlib.compress(REPORT), zstd.compress(REPORT), gzip.compress(zstd.compress(REPORT))],
    ids=["plain", "gzip", "deflate", "zstd", "twice"],
)
def test_a_file_is_found_under_its_own_name_for_every_compression(tmp_path: Path, data: bytes):
    path = tmp_path / "report.xml"
    path.write_bytes(data)

    assert contents(path) == {str(path): REPORT}


@pytest.mark.parametrize("pack", [packed_zip, packed_tar, lambda files: gzip.compress(packed_tar(files))])
def test_the_reports_of_an_archive_are_found_one_by_one_and_other_files_are_not(tmp_path: Path, pack):
    other = REPORT * 100_000
    path = tmp_path / "reports"
    path.write_bytes(pack({"a/one.xml": other, "style.css": b"p {}", "two.xml": REPORT}))

    assert contents(path) == {f"{path}!a/one.xml": other, f"{path}!two.xml": REPORT}


def test_an_archive_inside_of_an_archive_is_rejected_by_its_name(tmp_path: Path):
    path = tmp_path / "outer.zip"
    path.write_bytes(packed_zip({"inner.zip": packed_zip({"a.xml": REPORT})}))

    [refusal] = unpack(path)

    assert isinstance(refusal, NewRejection)
    assert refusal.name == f"{path}!inner.zip"


@pytest.mark.parametrize("data", [gzip.compress(REPORT)[:-9], packed_zip({"a.xml": REPORT})[:-9]])
def test_what_is_damaged_is_a_bad_report(tmp_path: Path, data: bytes):
    path = tmp_path / "damaged"
    path.write_bytes(data)

    with pytest.raises(BadReport, match="damaged"):
        list(unpack(path))
