"""The result for each file: accepted, rejected, skipped, or repaired with --repair."""

import gzip
import zipfile
from pathlib import Path

import pytest

from bridge.commands.check.inputs import MissingInput, SourceFile
from bridge.commands.check.results import CheckRow, FileStatus, OutputFolder, check_source, validate
from bridge.domain.junit.validator import WHOLE_SIZE, Valid, validate_bytes
from bridge.errors import BridgeError

REPORT = b'<testsuite time="2"><testcase/><testcase><failure/></testcase></testsuite>'
JACOCO = b"<report/>"
BUN_CASE = b'<testcase name="(unnamed)"><failure/></testcase>'
BUN = b'<testsuites name="bun test"><testsuite>' + BUN_CASE + b"</testsuite></testsuites>"
HUGE = b"<testsuite>" + b'<testcase name="a"/>\n' * 100_000 + b"</testsuite>"


def row(folder: Path, data: bytes, *, named: bool = True, repaired: OutputFolder | None = None) -> CheckRow:
    path = folder / "report.xml"
    path.write_bytes(data)
    [told] = check_source(SourceFile(path=path, named=named), repaired)
    return told


def test_a_report_is_ok_with_its_counts(tmp_path: Path):
    told = row(tmp_path, REPORT)

    assert (told.status, told.path, told.reason) == (FileStatus.ACCEPTED, str(tmp_path / "report.xml"), "")
    assert told.counts is not None
    assert (told.counts.tests, told.counts.failures, told.counts.time_us) == (2, 1, 2_000_000)


def test_a_compressed_report_is_judged_as_what_it_unfolds_to(tmp_path: Path):
    assert row(tmp_path, gzip.compress(REPORT)).status is FileStatus.ACCEPTED


def test_a_broken_report_is_rejected_with_cause_remedy_and_position(tmp_path: Path):
    told = row(tmp_path, REPORT[:-1], named=False)

    assert told.status is FileStatus.REJECTED
    assert told.reason.startswith("the file ends too early: ")
    assert told.reason.endswith("upload the whole file.")
    assert (told.line, told.column, told.counts) == (1, 74, None)


def test_what_a_runner_writes_wrongly_is_a_note(tmp_path: Path):
    (note,) = row(tmp_path, BUN).notes

    assert note.startswith('written by bun: a failed hook is a case named "(unnamed)"')


def test_what_a_runner_writes_wrongly_is_a_note_of_a_report_that_repair_would_correct(tmp_path: Path):
    told = row(tmp_path, BUN.replace(b"<failure/>", b"<failure>\x1b[31m</failure>"))

    assert told.status is FileStatus.REJECTED
    assert told.notes[0].startswith("written by bun: ")


def test_a_repaired_report_has_the_note_too(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    told = row(
        folder,
        BUN.replace(b"<failure/>", b"<failure>\x1b[31m</failure>"),
        repaired=OutputFolder(tmp_path / "out", [folder / "report.xml"]),
    )

    assert told.status is FileStatus.ACCEPTED
    assert told.notes[-1].startswith("written by bun: ")


@pytest.mark.parametrize(("named", "status"), [(True, FileStatus.REJECTED), (False, FileStatus.SKIPPED)])
def test_xml_of_another_kind_is_rejected_only_if_it_was_named(tmp_path: Path, named: bool, status: FileStatus):  # noqa: FBT001
    told = row(tmp_path, JACOCO, named=named)

    assert told.status is status
    assert told.reason.startswith("this is a JaCoCo coverage report, not JUnit.")


def test_xml_of_another_kind_in_an_archive_is_passed_over(tmp_path: Path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("jacoco.xml", JACOCO)
        archive.writestr("report.xml", REPORT)

    verdicts = {told.path: told.status for told in check_source(SourceFile(path=path, named=True), None)}

    assert verdicts == {f"{path}!jacoco.xml": FileStatus.SKIPPED, f"{path}!report.xml": FileStatus.ACCEPTED}


def test_an_archive_without_reports_is_rejected(tmp_path: Path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"hello")

    [told] = check_source(SourceFile(path=path, named=True), None)

    assert (told.status, told.reason) == (
        FileStatus.REJECTED,
        "it contains no JUnit report. Pack the files whose root element is testsuites or testsuite.",
    )


@pytest.mark.parametrize("named", [True, False])
def test_an_archive_with_other_xml_only_is_rejected_as_by_the_gateway(tmp_path: Path, named: bool):  # noqa: FBT001
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("results/coverage.xml", b"<coverage line-rate='1'/>")

    verdicts = {told.path: told.status for told in check_source(SourceFile(path=path, named=named), None)}

    assert verdicts == {f"{path}!results/coverage.xml": FileStatus.SKIPPED, str(path): FileStatus.REJECTED}


@pytest.mark.parametrize("repaired", [True, False])
def test_what_every_report_gets_is_noted_and_counted_as_it_is_sent(tmp_path: Path, repaired: bool):  # noqa: FBT001
    report = '<?xml version="1.0" encoding="Cp437"?><testsuite><testcase name="größer"/></testsuite>'.encode("cp437")
    output = OutputFolder(tmp_path / "out", [tmp_path / "report.xml"]) if repaired else None

    told = row(tmp_path, report, repaired=output)

    assert (told.status, told.notes) == (FileStatus.ACCEPTED, ("It was converted from cp437 to UTF-8.",))
    if repaired:
        assert "größer".encode() in (tmp_path / "out/report.xml").read_bytes()


def test_a_damaged_archive_is_rejected(tmp_path: Path):
    assert "damaged" in row(tmp_path, b"PK\x03\x04 and nothing more").reason


def test_a_file_that_cannot_be_read_is_rejected_with_the_reason_of_the_system(tmp_path: Path):
    [told] = check_source(SourceFile(path=tmp_path / "nowhere.xml", named=True), None)

    assert told.status is FileStatus.REJECTED
    assert told.reason.startswith("it cannot be read: No such file or directory.")


def test_an_argument_without_files_is_rejected():
    [told] = check_source(MissingInput(argument="x*", reason="no file matches."), None)

    assert (told.path, told.status, told.reason) == ("x*", FileStatus.REJECTED, "no file matches.")


def test_with_repair_a_repaired_report_is_accepted_and_the_repairs_are_noted(tmp_path: Path):
    broken = b"<testsuite><testcase name='\x1b[1ma'/><testcase>"

    told = row(tmp_path, broken, repaired=OutputFolder(tmp_path / "out", [tmp_path / "report.xml"]))

    assert told.status is FileStatus.ACCEPTED
    assert told.counts is not None
    assert told.counts.tests == 1
    colours, cut = told.notes
    assert colours == "Color codes removed: 1."
    assert "cases may be missing. Finished cases kept: 1, unfinished ones left out: 1." in cut
    assert isinstance(validate_bytes((tmp_path / "out/report.xml").read_bytes()), Valid)


def test_with_repair_a_sound_report_is_written_as_it_is(tmp_path: Path):
    row(tmp_path, REPORT, repaired=OutputFolder(tmp_path / "out", [tmp_path / "report.xml"]))

    assert (tmp_path / "out/report.xml").read_bytes() == REPORT


def test_with_repair_a_report_that_cannot_be_repaired_is_rejected_and_not_written(tmp_path: Path):
    out = OutputFolder(tmp_path / "out", [tmp_path / "report.xml"])

    assert row(tmp_path, b"{}", repaired=out).status is FileStatus.REJECTED
    assert out.written == 0


def test_a_report_above_the_default_size_limit_is_noted(tmp_path: Path):
    told = row(tmp_path, gzip.compress(b"<testsuite><testcase name='a'/>" + b" " * (50 << 20) + b"</testsuite>"))

    assert told.notes == ("The gateway accepts it only if server.max_report_size is greater than 50 MiB.",)


@pytest.mark.parametrize("data", [REPORT, HUGE, HUGE[:WHOLE_SIZE], HUGE[: WHOLE_SIZE + 1], b""])
def test_the_result_is_that_of_the_validator_for_every_size(data: bytes):
    pieces = [data[at : at + 70_000] for at in range(0, len(data), 70_000)]

    assert validate(lambda: iter(pieces)) == validate_bytes(data)


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


def test_a_folder_that_is_not_empty_is_rejected(tmp_path: Path):
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
