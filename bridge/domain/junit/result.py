"""The result of validation: a valid report with its counts, or the one fault of an invalid file."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TestCounts:
    """Counts of a report; a case is at most one of failure, error and skipped, and may also be flaky."""

    suites: int  # testsuite elements, nested ones too
    tests: int
    failures: int
    errors: int
    skipped: int
    flaky: int  # cases that the report marks as rerun; also counted above
    time_us: int  # negative if the runner's clock was set back


@dataclass(frozen=True, kw_only=True, slots=True)
class Valid:
    """A JUnit report."""

    counts: TestCounts
    encoding: str  # lower case, from the byte order mark or the XML declaration
    notes: tuple[str, ...]  # oddities that do not make the report invalid
    codec: str = ""  # Python codec; if set, the report must be converted from it to UTF-8 before it is sent


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
