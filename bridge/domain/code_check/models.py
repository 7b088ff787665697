"""A report of CodeArts Check, the limits of `[routes.code_check]`, and how far the fetch of the report is."""

from enum import StrEnum

from bridge.domain.instants import EPOCH, Duration, Instant
from bridge.values import dataclass


class IssueKind(StrEnum):
    """The kinds of issues that a limit can be set for."""

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
"""The keys that count each kind, the clearer one first. Keys of CodeArts Check differ by case alone, and its `CRITICAL`
counts major issues."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """One report of CodeArts Check."""

    numbers: tuple[tuple[str, int], ...]  # counts by key, unknown keys included
    tools: tuple[str, ...]
    url: str | None  # REPORT_URL, where people read the report
    unreadable: tuple[str, ...] = ()  # keys of COUNTERS whose values are not counts

    def count(self, kind: IssueKind) -> int | None:
        """Return how many issues of `kind` there are; None if the report has no readable count.

        The first key that exists decides: an unreadable value is not replaced by that of another key.
        """
        return None if self.is_unreadable(kind) else dict(self.numbers).get(self._key(kind))

    def is_unreadable(self, kind: IssueKind) -> bool:
        """Return whether the report has a value for `kind` that is not a count."""
        return self._key(kind) in self.unreadable

    def _key(self, kind: IssueKind) -> str:
        present = {key for key, _ in self.numbers} | set(self.unreadable)
        return next((key for key in COUNTERS[kind] if key in present), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeCheckRules:
    """`[routes.code_check]`: which report is fetched, and which limits it is checked against."""

    task_id: str  # empty: the report of the execution `job_id` is fetched
    job_id: str  # empty: the latest report of the task is fetched
    limits: tuple[tuple[IssueKind, int], ...]  # the highest permitted count; a kind without a limit is ignored
    wait_us: Duration  # how long the run waits for the report at most
    omit_missing: bool  # if no report comes, no suite is added


class CodeCheckStatus(StrEnum):
    """How far the fetch is."""

    WAITING = "waiting"  # the run waits for the report, until `until` at most
    ANSWERED = "answered"  # the suite contains what Check found
    MISSING = "missing"  # no report came in time, and the suite states that
    OMITTED = "omitted"  # no report came in time, and there is no suite


CODE_CHECK_TRANSITIONS = {
    CodeCheckStatus.WAITING: frozenset({CodeCheckStatus.ANSWERED, CodeCheckStatus.MISSING, CodeCheckStatus.OMITTED}),
    CodeCheckStatus.ANSWERED: frozenset[CodeCheckStatus](),
    CodeCheckStatus.MISSING: frozenset[CodeCheckStatus](),
    CodeCheckStatus.OMITTED: frozenset[CodeCheckStatus](),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeCheckState:
    """How far the fetch of the report for one build is."""

    state: CodeCheckStatus
    until: Instant  # the run does not wait longer
    attempts: int = 0
    due_at: Instant = EPOCH
    reserved: bool = False  # due_at is a slot of the shared rate limit
    in_background: bool = False  # the next call only has the report made: the last one got no answer in time
    answered_at: Instant | None = None
    summary: str | None = None  # what Check found, or why no report came, as a clause


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitResult:
    """One limit and the count in the report."""

    kind: IssueKind
    allowed: int
    found: int | None  # None: the report has no readable count
    unreadable: bool = False

    @property
    def is_kept(self) -> bool:
        """Return whether the count is within the limit."""
        return self.found is not None and self.found <= self.allowed

    @property
    def sentence(self) -> str:
        """Return the clause "4 major issues, at most 0 allowed"."""
        if self.unreadable:
            return f"CodeArts Check's number of {issue_noun(self.kind)} cannot be read, at most {self.allowed} allowed"
        if self.found is None:
            return f"the report does not count {issue_noun(self.kind)}, at most {self.allowed} allowed"
        return f"{self.found} {issue_noun(self.kind, self.found)}, at most {self.allowed} allowed"


def check_limits(report: CheckReport, rules: CodeCheckRules) -> tuple[LimitResult, ...]:
    """Return the result of each limit that is set, in the order of `IssueKind`."""
    return tuple(
        LimitResult(kind=kind, allowed=allowed, found=report.count(kind), unreadable=report.is_unreadable(kind))
        for kind, allowed in rules.limits
    )


def issue_noun(kind: IssueKind, count: int = 0) -> str:
    """Return the noun for `count` issues of this kind."""
    noun = "suggestion" if kind is IssueKind.SUGGESTION else f"{kind} issue"
    return noun if count == 1 else f"{noun}s"


def summary_of(report: CheckReport, rules: CodeCheckRules) -> str:
    """Return as a clause which limits the report exceeds, or that it exceeds none."""
    results = check_limits(report, rules)
    broken = [one.sentence for one in results if not one.is_kept]
    if broken:
        return "; ".join(broken)
    return f"all limits kept ({len(results)})" if results else "no limits are set"
