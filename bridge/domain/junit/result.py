"""The result of validation: a valid report with its counts, or the one fault of an invalid file."""

from collections.abc import Mapping
from typing import Any, Final

from bridge.values import dataclass


@dataclass(frozen=True, kw_only=True)
class TestCounts:
    """Counts of a report as TestNod makes them; a case is at most one of failure, error, skipped and flaky."""

    suites: int  # testsuite elements, nested ones too
    tests: int
    failures: int
    errors: int
    skipped: int
    flaky: int  # cases that passed in the end, after attempts that failed
    time_us: int  # negative if the runner's clock was set back
    suite_errors: int = 0  # suites with an error or failure outside any test
    disabled: int = 0  # cases that did not run and have no `<skipped>`: TestNod counts them as passed


def full_name(classname: str, name: str) -> str:
    """Return both names of a test; some runners write the same twice."""
    return name if classname == name else f"{classname} {name}".strip()


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One of the first failures of a report, for people; each text is one short line."""

    name: str  # of the test; empty: outside any test, and `classname` is the name of the suite
    classname: str
    message: str
    file: str = ""  # empty: the report does not name one
    line: int | None = None

    def __str__(self) -> str:
        name = full_name(self.classname, self.name) if self.name else f"suite {self.classname}".strip()
        location = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{name}{location and f' ({location})'}{self.message and f': {self.message}'}"


@dataclass(frozen=True, kw_only=True)
class Highlights:
    """What a person wants to read first; all bounded."""

    failures: tuple[Failure, ...] = ()  # the first ones
    flaky: tuple[str, ...] = ()  # classname and name of the first flaky tests
    red_totals: int = 0  # suites whose totals state failures although none of their cases failed


NO_HIGHLIGHTS: Final = Highlights()


def highlights_to_json(highlights: Highlights) -> dict[str, Any]:
    """Return highlights as JSON values; much faster than `dataclasses.asdict`."""
    return {**vars(highlights), "failures": [vars(failure) for failure in highlights.failures]}


def highlights_from_json(values: Mapping[str, Any]) -> Highlights:
    """Return the highlights that `highlights_to_json` wrote."""
    failures = tuple(Failure(**failure) for failure in values["failures"])
    return Highlights(failures=failures, flaky=tuple(values["flaky"]), red_totals=values["red_totals"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Valid:
    """A JUnit report."""

    counts: TestCounts
    encoding: str  # lower case, from the byte order mark or the XML declaration
    notes: tuple[str, ...]  # oddities that do not make the report invalid
    codec: str = ""  # Python codec; if set, the report must be converted from it to UTF-8 before it is sent
    highlights: Highlights = NO_HIGHLIGHTS
    case_digest: bytes = b""  # of the cases (case_digest.py); empty: there is none


@dataclass(frozen=True, kw_only=True, slots=True)
class Invalid:
    """Not a JUnit report, or unreadable. `f"{name}: {found} {remedy}"` is a message for people."""

    reason: str  # stable: empty, not_xml, not_junit, truncated, extra_content, encoding, entities, too_deep, …
    found: str  # first sentence: the fault and its position
    remedy: str  # second sentence: what to do
    line: int | None = None
    column: int | None = None


ValidationResult = Valid | Invalid


class InvalidReport(Exception):
    """Raised inside a parse to abort it with a result."""

    def __init__(self, invalid: Invalid) -> None:
        super().__init__(invalid.found)
        self.invalid = invalid
