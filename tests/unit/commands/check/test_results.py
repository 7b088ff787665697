"""Each file's row: the gate's word, passed over where it was only met, and mended where repair is asked for."""

import gzip
import zipfile
from pathlib import Path

import pytest

from bridge.commands.check.inputs import MissingInput, SourceFile
from bridge.commands.check.output_folder import OutputFolder
from bridge.commands.check.results import CheckRow, Outcome, judge, rows
from bridge.domain.junit.validator import WHOLE_SIZE, Valid, validate_bytes

REPORT = b'<testsuite time="2"><testcase/><testcase><failure/></testcase></testsuite>'
JACOCO = b"<report/>"
HUGE = b"<testsuite>" + b'<testcase name="a"/>\n' * 100_000 + b"</testsuite>"


def row(folder: Path, data: bytes, *, named: bool = True, repaired: OutputFolder | None = None) -> CheckRow:
    path = folder / "report.xml"
    path.write_bytes(data)
    [told] = rows(SourceFile(path=path, named=named), repaired)
    return told


def test_a_report_is_ok_with_its_counts(tmp_path: Path):
    told = row(tmp_path, REPORT)

    assert (told.verdict, told.path, told.reason) == (Outcome.OK, str(tmp_path / "report.xml"), "")
    assert told.counts is not None
    assert (told.counts.tests, told.counts.failures, told.counts.time_us) == (2, 1, 2_000_000)


def test_a_compressed_report_is_judged_as_what_it_unfolds_to(tmp_path: Path):
    assert row(tmp_path, gzip.compress(REPORT)).verdict is Outcome.OK


def test_a_broken_report_is_refused_with_both_sentences_and_its_place(tmp_path: Path):
    told = row(tmp_path, REPORT[:-1], named=False)

    assert told.verdict is Outcome.REFUSED
    assert told.reason.startswith("the file ends too early: ")
    assert told.reason.endswith("upload the whole file.")
    assert (told.line, told.column, told.counts) == (1, 74, None)


@pytest.mark.parametrize(("named", "verdict"), [(True, Outcome.REFUSED), (False, Outcome.PASSED_OVER)])
def test_xml_of_another_kind_is_a_fault_only_where_it_was_named(tmp_path: Path, named: bool, verdict: Outcome):  # noqa: FBT001
    told = row(tmp_path, JACOCO, named=named)

    assert told.verdict is verdict
    assert told.reason.startswith("this is a JaCoCo coverage report, not JUnit.")


def test_xml_of_another_kind_in_an_archive_is_passed_over(tmp_path: Path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("jacoco.xml", JACOCO)
        archive.writestr("report.xml", REPORT)

    verdicts = {told.path: told.verdict for told in rows(SourceFile(path=path, named=True), None)}

    assert verdicts == {f"{path}!jacoco.xml": Outcome.PASSED_OVER, f"{path}!report.xml": Outcome.OK}


def test_an_archive_without_reports_is_refused(tmp_path: Path):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"hello")

    [told] = rows(SourceFile(path=path, named=True), None)

    assert (told.verdict, told.reason) == (
        Outcome.REFUSED,
        "it holds no report. Pack the JUnit files into it.",
    )


def test_a_damaged_archive_is_refused(tmp_path: Path):
    assert "damaged" in row(tmp_path, b"PK\x03\x04 and nothing more").reason


def test_a_file_that_cannot_be_read_is_refused_with_what_the_system_says(tmp_path: Path):
    [told] = rows(SourceFile(path=tmp_path / "nowhere.xml", named=True), None)

    assert told.verdict is Outcome.REFUSED
    assert told.reason.startswith("it cannot be read: No such file or directory.")


def test_an_argument_that_leads_nowhere_is_refused():
    [told] = rows(MissingInput(argument="x*", reason="no file matches."), None)

    assert (told.path, told.verdict, told.reason) == ("x*", Outcome.REFUSED, "no file matches.")


def test_with_repair_a_mended_report_is_ok_and_what_was_done_is_noted(tmp_path: Path):
    broken = b"<testsuite><testcase name='\x1b[1ma'/><testcase>"

    told = row(tmp_path, broken, repaired=OutputFolder(tmp_path / "out", [tmp_path / "report.xml"]))

    assert told.verdict is Outcome.OK
    assert told.counts is not None
    assert told.counts.tests == 1
    colours, cut = told.notes
    assert colours == "Color codes removed: 1."
    assert "cases may be missing. Finished cases kept: 1, unfinished ones left out: 1." in cut
    assert isinstance(validate_bytes((tmp_path / "out/report.xml").read_bytes()), Valid)


def test_with_repair_a_sound_report_is_written_as_it_is(tmp_path: Path):
    row(tmp_path, REPORT, repaired=OutputFolder(tmp_path / "out", [tmp_path / "report.xml"]))

    assert (tmp_path / "out/report.xml").read_bytes() == REPORT


def test_with_repair_what_cannot_be_mended_is_refused_and_not_written(tmp_path: Path):
    out = OutputFolder(tmp_path / "out", [tmp_path / "report.xml"])

    assert row(tmp_path, b"{}", repaired=out).verdict is Outcome.REFUSED
    assert out.written == 0


def test_a_report_beyond_the_gateways_usual_size_is_noted(tmp_path: Path):
    told = row(tmp_path, gzip.compress(b"<testsuite>" + b" " * (50 << 20) + b"</testsuite>"))

    assert told.notes == ("The gateway takes it only where server.max_report_size was raised above 50 MiB.",)


@pytest.mark.parametrize("data", [REPORT, HUGE, HUGE[:WHOLE_SIZE], HUGE[: WHOLE_SIZE + 1], b""])
def test_the_verdict_is_the_gates_however_large_the_file(data: bytes):
    pieces = [data[at : at + 70_000] for at in range(0, len(data), 70_000)]

    assert judge(lambda: iter(pieces)) == validate_bytes(data)
