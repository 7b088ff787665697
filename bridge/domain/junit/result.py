"""What the gate says of a file: accepted with its counts, or refused with the one fault that a person can mend.

It knows neither XML nor where the file came from; whoever shows a refusal puts the file's name before it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TestCounts:
    """What a report holds; a case stands in at most one of failures, errors and skipped, and may be flaky beside."""

    suites: int  # testsuite elements, nested ones too
    tests: int
    failures: int
    errors: int
    skipped: int
    flaky: int  # ran more than once and says so itself; beside whatever it counts as above
    time_us: int  # negative where the runner's clock was set back


@dataclass(frozen=True, kw_only=True, slots=True)
class Valid:
    """A JUnit report."""

    counts: TestCounts
    encoding: str  # lower case, as the mark or the declaration says
    notes: tuple[str, ...]  # what is odd but no reason to refuse


@dataclass(frozen=True, kw_only=True, slots=True)
class Invalid:
    """No JUnit report, or one that cannot be read. `f"{name}: {found} {remedy}"` is fit for people."""

    reason: str  # stable: empty, not_xml, not_junit, truncated, extra_content, encoding, entities, too_deep, …
    found: str  # first sentence: the fault and where it stands
    remedy: str  # second sentence: what to do
    line: int | None = None
    column: int | None = None


ValidationResult = Valid | Invalid


class InvalidReport(Exception):
    """Carries a verdict out of the depth of a parse."""

    def __init__(self, refused: Invalid) -> None:
        super().__init__(refused.found)
        self.refused = refused
