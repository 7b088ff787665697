"""The verdicts of `bridge check` as a table for people, and as JSON for programs.

It must not know how a verdict comes about. Names come from outside: what would move a cursor is shown escaped.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from bridge.commands.check.results import CheckRow, Outcome
from bridge.domain.junit.validator import TestCounts
from bridge.domain.text_format import counted

COLOURS: Final = {Outcome.OK: "green", Outcome.REFUSED: "bold red", Outcome.PASSED_OVER: "dim"}
NUMBERS: Final = ("Tests", "Fail", "Err", "Skip", "Flaky", "Seconds")
NARROW_COLUMNS: Final = 100  # below it every column that the paths get shortens the table
SECOND_US: Final = 1_000_000


def as_json(rows: Sequence[CheckRow]) -> dict[str, list[dict[str, object]]]:
    """Return what `--json` prints (contract: bridge check); what was not counted is null, `time` is seconds."""
    return {"files": [_fields(row) for row in rows]}


def _fields(row: CheckRow) -> dict[str, object]:
    counts = row.counts
    return {
        "path": row.path,
        "verdict": row.verdict.value,
        "suites": counts and counts.suites,
        "tests": counts and counts.tests,
        "failures": counts and counts.failures,
        "errors": counts and counts.errors,
        "skipped": counts and counts.skipped,
        "flaky": counts and counts.flaky,
        "time": counts and counts.time_us / SECOND_US,
        "notes": list(row.notes),
        "reason": row.reason or None,
        "line": row.line,
        "column": row.column,
    }


def table(rows: Sequence[CheckRow], *, columns: int) -> Table:
    """Return one row a file and their sum, `columns` wide; paths take what the numbers leave, in lines as they need."""
    drawn = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, header_style="bold", show_footer=len(rows) > 1
    )
    total = _total([row.counts for row in rows if row.counts])
    drawn.add_column("Verdict", max_width=len("Verdict") if columns < NARROW_COLUMNS else None)
    for heading, number in zip(NUMBERS, _numbers(total), strict=True):
        drawn.add_column(heading, number, justify="right", no_wrap=True)
    drawn.add_column("File", counted(len(rows), "file"), overflow="fold", ratio=1)
    for row in rows:
        drawn.add_row(Text(row.verdict, COLOURS[row.verdict]), *_numbers(row.counts), Text(printable(row.path)))
    return drawn


def remarks(rows: Sequence[CheckRow]) -> Iterator[Text]:
    """Yield a line for every fault, every file that was passed over, and every note, in that order."""
    for outcome in (Outcome.REFUSED, Outcome.PASSED_OVER):
        for row in rows:
            if row.verdict is outcome:
                yield _keyed(row, row.reason, COLOURS[outcome])
    for row in rows:
        for note in row.notes:
            yield _keyed(row, note, "yellow")


def summary(rows: Sequence[CheckRow]) -> str:
    """Say how many files came to what."""
    outcomes = Counter(row.verdict for row in rows)
    told = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in Outcome if outcomes[outcome])
    return f"{counted(len(rows), 'file')}: {told}."


def printable(text: str) -> str:
    """Return foreign text with everything escaped that does not print as itself."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _keyed(row: CheckRow, sentence: str, colour: str) -> Text:
    name, told = printable(row.path), printable(sentence)
    told = told.removeprefix(f"{name}: ")  # what archives say of an inner file begins with it
    return Text.assemble((name, colour), ": ", told)


def _numbers(counts: TestCounts | None) -> tuple[str, ...]:
    if counts is None:
        return ("",) * len(NUMBERS)
    numbers = (counts.tests, counts.failures, counts.errors, counts.skipped, counts.flaky)
    return (*map(str, numbers), f"{counts.time_us / SECOND_US:.3f}")


def _total(counted_files: Sequence[TestCounts]) -> TestCounts:
    return TestCounts(
        suites=sum(counts.suites for counts in counted_files),
        tests=sum(counts.tests for counts in counted_files),
        failures=sum(counts.failures for counts in counted_files),
        errors=sum(counts.errors for counts in counted_files),
        skipped=sum(counts.skipped for counts in counted_files),
        flaky=sum(counts.flaky for counts in counted_files),
        time_us=sum(counts.time_us for counts in counted_files),
    )
