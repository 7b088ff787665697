"""Where repaired reports are written, and what is never written over."""

from pathlib import Path

import pytest

from bridge.commands.check.output_folder import OutputFolder
from bridge.errors import BridgeError


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_reports_stand_as_they_stood_below_their_common_folder(tmp_path: Path):
    files = [tmp_path / "in/a/one.xml", tmp_path / "in/b/one.xml", tmp_path / "in/b/all.zip"]
    out = OutputFolder(tmp_path / "out", files)

    out.write(files[0], str(files[0]), iter([b"1", b"2"]))
    out.write(files[1], str(files[1]), iter([b"3"]))
    out.write(files[2], f"{files[2]}!c/one.xml", iter([b"4"]))

    assert written(tmp_path / "out") == {"a/one.xml": b"12", "b/one.xml": b"3", "b/all.zip!c/one.xml": b"4"}
    assert out.written == 3


@pytest.mark.parametrize("inner", ["../../../x.xml", "/../x.xml", "a/../../x.xml", "./../x\0.xml"])
def test_the_names_in_an_archive_lead_nowhere_else(tmp_path: Path, inner: str):
    archive = tmp_path / "all.zip"

    OutputFolder(tmp_path / "out", [archive]).write(archive, f"{archive}!{inner}", iter([b""]))

    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file.resolve().is_relative_to((tmp_path / "out").resolve())


def test_a_folder_that_holds_anything_is_refused(tmp_path: Path):
    (tmp_path / "report.xml").write_bytes(b"mine")

    with pytest.raises(BridgeError, match="not an empty folder"):
        OutputFolder(tmp_path, [tmp_path / "report.xml"])


def test_nothing_is_written_over(tmp_path: Path):
    file = tmp_path / "in/report.xml"
    out = OutputFolder(tmp_path / "out", [file])
    out.write(file, str(file), iter([b"first"]))

    with pytest.raises(BridgeError, match="File exists"):
        out.write(file, str(file), iter([b"second"]))

    assert written(tmp_path / "out") == {"report.xml": b"first"}
