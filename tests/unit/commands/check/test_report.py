"""Results as JSON and as a table that fits the terminal, without control characters."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from bridge.commands.check.report import as_json, notes_of, status_counts, table
from bridge.commands.check.results import CheckRow, FileStatus
from bridge.domain.junit.validator import TestCounts

COUNTS = TestCounts(suites=1, tests=40, failures=2, errors=1, skipped=3, flaky=4, time_us=1_234_500_000)
LONG = "modules/shop/target/surefire-reports/TEST-com.example.shop.cart.CartServiceIntegrationTest.xml"
ROWS = [
    CheckRow(path=LONG, status=FileStatus.ACCEPTED, counts=COUNTS, notes=("the totals disagree",)),
    CheckRow(path="broken.xml", status=FileStatus.REJECTED, reason="it is cut. Upload it whole.", line=3, column=7),
    CheckRow(path="jacoco.xml", status=FileStatus.SKIPPED, reason="this is JaCoCo. Upload JUnit."),
]


def drawn(rows: list[CheckRow], columns: int) -> str:
    out = io.StringIO()
    Console(file=out, width=columns).print(table(rows))
    return out.getvalue()


def test_suite_errors_and_disabled_tests_have_columns_if_there_are_any():
    odd = CheckRow(path="a", status=FileStatus.ACCEPTED, counts=replace(COUNTS, suite_errors=21, disabled=17))

    assert "SuiteErr" not in drawn(ROWS, 100)
    assert all(text in drawn([odd], 100) for text in ("SuiteErr", " 21 ", "Disabled", " 17 "))


def test_json_holds_every_field_of_the_contract_and_no_other():
    counted, refused, other = json.loads(json.dumps(as_json(ROWS)))["files"]

    assert counted == {
        "path": LONG,
        "status": "accepted",
        "suites": 1,
        "tests": 40,
        "failures": 2,
        "errors": 1,
        "skipped": 3,
        "flaky": 4,
        "suite_errors": 0,
        "disabled": 0,
        "time": 1234.5,
        "notes": ["the totals disagree"],
        "first_failures": [],
        "flaky_tests": [],
        "reason": None,
        "line": None,
        "column": None,
    }
    assert list(refused) == list(other) == list(counted)
    assert (refused["status"], refused["tests"], refused["reason"]) == ("rejected", None, "it is cut. Upload it whole.")
    assert (refused["line"], refused["column"]) == (3, 7)
    assert other["status"] == "skipped"


def test_a_report_without_cases_counts_zero_and_not_null():
    empty = TestCounts(suites=0, tests=0, failures=0, errors=0, skipped=0, flaky=0, time_us=0)

    [told] = as_json([CheckRow(path="a", status=FileStatus.ACCEPTED, counts=empty)])["files"]

    assert (told["tests"], told["time"]) == (0, 0.0)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_and_holds_every_character_of_a_path(columns: int):
    lines = drawn(ROWS, columns).splitlines()

    assert max(map(len, lines)) <= columns
    at = lines[0].index("File")
    assert LONG in "".join(line[at:].strip() for line in lines)
    assert "1234.500" in lines[2]


def test_more_than_one_file_is_summed_up():
    assert "3 files" in drawn(ROWS, 120)
    assert "1 file" not in drawn(ROWS[:1], 120)


def test_faults_come_first_then_what_was_passed_over_then_notes():
    assert [line.plain for line in notes_of(ROWS)] == [
        "broken.xml: it is cut. Upload it whole.",
        "jacoco.xml: this is JaCoCo. Upload JUnit.",
        f"{LONG}: the totals disagree",
    ]


def test_a_name_is_not_repeated():
    told = CheckRow(
        path="a.zip!b.zip", status=FileStatus.REJECTED, reason="a.zip!b.zip: it is itself packed. Unpack it."
    )

    assert [line.plain for line in notes_of([told])] == ["a.zip!b.zip: it is itself packed. Unpack it."]


def test_the_summary_counts_what_there_is():
    assert status_counts(ROWS) == "3 files: 1 accepted, 1 rejected, 1 skipped."
    assert status_counts(ROWS[:1]) == "1 file: 1 accepted."


@pytest.mark.parametrize("name", ["a\x1b[2J.xml", "a\nb.xml", "a\udcff.xml", "a\u202e.xml"])
def test_foreign_names_move_no_cursor(name: str):
    told = CheckRow(path=name, status=FileStatus.REJECTED, reason=f"{name} is damaged. Pack it again.")

    shown = drawn([told], 120) + "".join(line.plain for line in notes_of([told]))

    assert shown.replace("\n", "").isprintable()
    assert "a\\" in shown
