"""What CodeArts Check says of a build's code: its report, the limits it is held against, and how far the asking is.

It knows neither HTTP nor JUnit; the suite that people see is made in quality_suite.py.
"""

from dataclasses import dataclass
from enum import StrEnum


class IssueKind(StrEnum):
    """Kinds of issues that a limit may be set for."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    SUGGESTION = "suggestion"
    NEW = "new"


COUNTERS = {
    IssueKind.CRITICAL: ("critical", "FATAL"),
    IssueKind.MAJOR: ("major", "CRITICAL"),
    IssueKind.MINOR: ("minor", "GENERAL"),
    IssueKind.SUGGESTION: ("suggestion", "PROMPT"),
    IssueKind.NEW: ("NEW", "UNRESOLVED_ADD"),
}
"""The keys that count each kind, the plainer one first: Check's keys differ by case alone, and its `CRITICAL` counts
major issues (codearts-check-refresh-report, Table 5)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """One report of CodeArts Check, as it was answered."""

    numbers: tuple[tuple[str, int], ...]  # by their keys, misspelt ones too
    tools: tuple[str, ...]
    url: str | None  # REPORT_URL leads people to the report
    unreadable: tuple[str, ...] = ()  # keys of COUNTERS whose values are no counts

    def count(self, kind: IssueKind) -> int | None:
        """Return how many issues of `kind` there are; None if the report does not have a count that can be read.

        The first key of the kind that is there decides: a value that cannot be read is not replaced by another key's.
        """
        return None if self.is_unreadable(kind) else dict(self.numbers).get(self._key(kind))

    def is_unreadable(self, kind: IssueKind) -> bool:
        """Return whether the report has a value for `kind`, and it is no count."""
        return self._key(kind) in self.unreadable

    def _key(self, kind: IssueKind) -> str:
        there = {key for key, _ in self.numbers} | set(self.unreadable)
        return next((key for key in COUNTERS[kind] if key in there), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeCheckRules:
    """`[routes.code_check]`: which report of Check is asked for, and what it may hold."""

    task_id: str  # empty: the report of the execution record `job_id`
    job_id: str  # empty: the task's latest
    limits: tuple[tuple[IssueKind, int], ...]  # how many are allowed; a kind without a limit does not count
    wait_us: int  # how long the run waits for it at most
    omit_missing: bool  # a report that did not come leaves no suite


class CodeCheckStatus(StrEnum):
    """How far the asking is."""

    WAITING = "waiting"  # the run waits for an answer, until `until` at most
    ANSWERED = "answered"  # the suite tells what Check found
    MISSING = "missing"  # no answer came in time, and the suite says so
    OMITTED = "omitted"  # likewise, and there is no suite


CODE_CHECK_TRANSITIONS = {
    CodeCheckStatus.WAITING: frozenset({CodeCheckStatus.ANSWERED, CodeCheckStatus.MISSING, CodeCheckStatus.OMITTED}),
    CodeCheckStatus.ANSWERED: frozenset[CodeCheckStatus](),
    CodeCheckStatus.MISSING: frozenset[CodeCheckStatus](),
    CodeCheckStatus.OMITTED: frozenset[CodeCheckStatus](),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeCheckState:
    """What is durably known of asking Check about one build; its times are microseconds UTC."""

    state: CodeCheckStatus
    until: int  # no longer does the run wait
    attempts: int = 0
    due_at: int = 0
    reserved: bool = False  # due_at is a slot under the common rate, already paid for
    in_background: bool = False  # the next call only has the report made anew: the last one got no answer in time
    answered_at: int | None = None
    summary: str | None = None  # what Check found, or why nothing came, as part of a sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitResult:
    """One limit, and what the report says against it."""

    kind: IssueKind
    allowed: int
    found: int | None  # None: the report has no count, or one that cannot be read
    unreadable: bool = False

    @property
    def is_kept(self) -> bool:
        return self.found is not None and self.found <= self.allowed

    @property
    def sentence(self) -> str:
        """Say what was found and what is allowed: `4 major issues, at most 0 allowed`."""
        if self.unreadable:
            return f"CodeArts Check's number of {named(self.kind)} cannot be read, at most {self.allowed} allowed"
        if self.found is None:
            return f"the report does not count {named(self.kind)}, at most {self.allowed} allowed"
        return f"{self.found} {named(self.kind, self.found)}, at most {self.allowed} allowed"


def check_limits(report: CheckReport, rules: CodeCheckRules) -> tuple[LimitResult, ...]:
    """Hold the report against each limit that is set, in the order of `IssueKind`."""
    return tuple(
        LimitResult(kind=kind, allowed=allowed, found=report.count(kind), unreadable=report.is_unreadable(kind))
        for kind, allowed in rules.limits
    )


def named(kind: IssueKind, count: int = 0) -> str:
    """Return what issues of this kind are called."""
    noun = "suggestion" if kind is IssueKind.SUGGESTION else f"{kind} issue"
    return noun if count == 1 else f"{noun}s"


def summary_of(report: CheckReport, rules: CodeCheckRules) -> str:
    """Say in part of a sentence what Check found."""
    held = check_limits(report, rules)
    broken = [one.sentence for one in held if not one.is_kept]
    if broken:
        return "; ".join(broken)
    return f"all limits kept ({len(held)})" if held else "no limits are set"
