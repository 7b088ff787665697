"""What arguments mean: files by name, patterns, folders, and nothing twice."""

import gzip
import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from bridge.commands.check.inputs import CandidateFile, MissingInput, SourceFile, find_inputs, unpack
from bridge.domain.intake import NewRejection
from bridge.errors import BadReport
from bridge.server.compression.codecs import zstd


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a/TEST-a.xml", "a/b/TEST-B.XML", "a/notes.txt", "a/b/c/deep.xml", "[1].xml", "#2.xml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*arguments: str) -> list[tuple[str, bool]]:
    sources = find_inputs(arguments)
    assert all(isinstance(source, SourceFile) for source in sources), sources
    return [(str(source.path), source.named) for source in sources if isinstance(source, SourceFile)]


@pytest.mark.usefixtures("folder")
def test_a_folder_is_searched_for_xml_in_order():
    assert found("a") == [("a/TEST-a.xml", False), ("a/b/TEST-B.XML", False), ("a/b/c/deep.xml", False)]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a/*.xml", ["a/TEST-a.xml"]),
        ("**/*.xml", ["#2.xml", "[1].xml", "a/TEST-a.xml", "a/b/c/deep.xml"]),
        ("a/b*", ["a/b/TEST-B.XML", "a/b/c/deep.xml"]),
    ],
)
def test_a_pattern_that_no_shell_expanded_is_expanded(pattern: str, paths: list[str]):
    assert found(pattern) == [(path, False) for path in paths]


def test_an_absolute_pattern_is_expanded(folder: Path):
    assert found(f"{folder}/a/*.xml") == [(str(folder / "a/TEST-a.xml"), False)]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["[1].xml", "#2.xml", "a/notes.txt", "nowhere.xml"])
def test_a_name_is_taken_as_it_is(name: str):
    assert found(name) == [(name, True)]


def test_a_file_is_checked_once_and_as_it_was_named_first(folder: Path):
    assert found("a/TEST-a.xml", "a/./TEST-a.xml", str(folder / "a/TEST-a.xml"), "a/*.xml") == [("a/TEST-a.xml", True)]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("argument", "reason"),
    [("empty", "this folder contains no *.xml file."), ("z*.xml", "no file matches this pattern.")],
)
def test_an_argument_without_files_is_reported(argument: str, reason: str):
    [missing] = find_inputs([argument])

    assert isinstance(missing, MissingInput)
    assert missing.argument == argument
    assert missing.reason.startswith(reason)


def test_a_link_that_leads_in_a_circle_is_a_file_like_any_other_that_cannot_be_read(tmp_path):
    circle = tmp_path / "circle.xml"
    circle.symlink_to(circle)
    assert find_inputs([str(circle), str(tmp_path)]) == [SourceFile(path=circle, named=True)]


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
