"""Sums up a JUnit report that is passed to it suite by suite and case by case: counts, notes, first failures."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from bridge.domain.junit.failures import (
    Attributes,
    FailureText,
    describe_failure,
    describe_suite_error,
    one_line,
    test_name,
)
from bridge.domain.junit.result import Failure, Highlights, TestCounts
from bridge.domain.text_format import are, counted, have

if TYPE_CHECKING:  # it uses the constants of this module
    from bridge.domain.junit.case_digest import CaseRecorder

# The outcomes are bits: a case collects those of its children, and the most severe one counts.
FLAKY, SKIPPED, FAILURE, ERROR = 1, 2, 4, 8
OUTCOMES: Final = FLAKY | SKIPPED | FAILURE | ERROR
RED: Final = FAILURE | ERROR

MAX_TIME_US: Final = 2**53  # 285 years; JSON readers round larger numbers
MAX_TIME_TEXT: Final = 40  # characters of a duration: longer ones are no numbers
MAX_SHOWN_VALUE: Final = 32  # characters of an attribute in a note
MAX_SUITE_NAME: Final = 60
MAX_HIGHLIGHTS: Final = 5  # of failures, and of flaky tests
MAX_NAMED: Final = 2  # suites or tests in one note
MAX_TRACKED_NAMES: Final = 50_000  # of which repetitions are found: 5 MB

STATED: Final = ("tests", "failures", "errors", "skipped", "skip", "skips", "ignored", "disabled")
NOT_RUN: Final = frozenset({"notrun", "not_run", "disabled", "suppressed", "skipped", "ignored", "pending", "untested"})
FAILED: Final = frozenset({"failed", "fail", "failure", "error"})

# What is known of the cases of one name.
NAME_PASSED, NAME_RED, NAME_REPEATED, NAME_MIXED = 1, 2, 4, 8
_NAME_STATES: Final = tuple(
    NAME_RED if outcomes & RED else 0 if outcomes & SKIPPED else NAME_PASSED for outcomes in range(OUTCOMES + 1)
)


def read_time(text: str | None) -> int | None:
    """Return a `time` attribute (seconds) in microseconds, None if it is missing or unreadable.

    `1,234.5` and `1.234,5` group thousands. If there is only a comma, it groups thousands if exactly three digits
    follow and the number does not begin with 0; otherwise it is a decimal point, as some locales write it.
    """
    if text is None:
        return None
    try:
        seconds = float(_with_decimal_point(text) if "," in text else text)
    except ValueError:
        return None
    if not math.isfinite(seconds) or abs(seconds) * 1e6 >= MAX_TIME_US:
        return None
    return round(seconds * 1e6)


@lru_cache(maxsize=2_000)  # many cases take 0.001 seconds
def read_short_time(text: str | None) -> int | None:
    """Return what `read_time` returns for a text of at most MAX_TIME_TEXT characters."""
    return read_time(text)


def _is_short_time(text: str | None) -> bool:
    return text is None or len(text) <= MAX_TIME_TEXT


def _with_decimal_point(text: str) -> str:
    whole, _, rest = text.rpartition(",")
    if "." in rest:
        return text.replace(",", "")
    groups_thousands = len(rest) == 3 and whole.lstrip(" -+")[:1] not in ("", "0")
    if "." in whole or not groups_thousands:
        return f"{whole.replace('.', '').replace(',', '')}.{rest}"
    return text.replace(",", "")


class _OpenSuite:
    """A suite, or the root, and the counts of all cases below it."""

    __slots__ = (
        "both_failed",
        "disabled",
        "errors",
        "failures",
        "has_outside_errors",
        "has_red_below",
        "name",
        "outside_errors",
        "outside_failures",
        "skipped",
        "stated",
        "tests",
    )

    def __init__(self, attributes: Attributes) -> None:
        self.name = attributes.get("name")
        self.stated = [(name, value) for name in STATED if (value := attributes.get(name))]
        self.tests = self.failures = self.errors = self.skipped = self.disabled = 0
        self.both_failed = 0  # cases with a failure and an error, which count as errors
        self.outside_errors = self.outside_failures = 0  # outside any test
        self.has_outside_errors = False  # of its own, not of a suite below
        self.has_red_below = False  # a suite below has red totals

    def add(self, inner: "_OpenSuite") -> None:
        self.tests += inner.tests
        self.failures += inner.failures
        self.errors += inner.errors
        self.skipped += inner.skipped
        self.disabled += inner.disabled
        self.both_failed += inner.both_failed
        self.outside_errors += inner.outside_errors
        self.outside_failures += inner.outside_failures
        self.has_red_below |= inner.has_red_below

    def disagreements(self) -> Iterator[str]:
        """Yield each stated total that matches none of the ways in which runners count."""
        for name, value in self.stated:
            accepted = self._counts_of(name)
            if _whole_number(value) not in accepted and value.strip():
                yield f"{name} {one_line(value, MAX_SHOWN_VALUE)} (counted {accepted[0]})"

    def is_red_only_in_totals(self) -> bool:
        stated = sum(_whole_number(value) or 0 for name, value in self.stated if name in ("failures", "errors"))
        return stated > 0 and not (self.failures or self.errors or self.outside_errors or self.outside_failures)

    def _counts_of(self, name: str) -> tuple[int, ...]:
        match name:
            case "tests":
                return (self.tests,)
            case "failures":
                failures = self.failures + self.outside_failures
                return failures, failures + self.both_failed, self.failures, self.failures + self.both_failed
            case "errors":
                return self.errors + self.outside_errors, self.errors
            case "disabled":
                return self.disabled, self.skipped, self.skipped + self.disabled
            case _:
                return self.skipped, self.skipped + self.disabled


def _whole_number(text: str) -> int | None:
    try:
        return int(text.replace(",", ""))
    except ValueError:
        return None


class _Named:
    """The first few of many, and their number."""

    __slots__ = ("count", "texts")

    def __init__(self) -> None:
        self.count = 0
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        self.count += 1
        if not self.is_full:
            self.texts.append(text)

    @property
    def is_full(self) -> bool:
        return len(self.texts) >= MAX_NAMED

    def listed(self, noun: str, separator: str = "; ") -> str:
        more = self.count - len(self.texts)
        return separator.join((*self.texts, *([f"{counted(more, f'more {noun}')}"] if more else [])))


class ReportTally:
    """Takes the suites and cases of a report in document order, each suite with its beginning and its end.

    Memory is constant, but for the names of up to `MAX_TRACKED_NAMES` cases. `readable` is applied to attributes of
    which people see the values. `recorder` takes every case too.
    """

    def __init__(
        self,
        readable: Callable[[Attributes], Attributes] = lambda attributes: attributes,
        recorder: "CaseRecorder | None" = None,
    ) -> None:
        self._recorder = recorder
        self.uncounted_cases = 0  # testcase elements outside of the suites, for example in system-out
        self._readable = readable
        self._open: list[_OpenSuite] = []
        self._all: _OpenSuite | None = None  # the root, once it is closed
        self._suites = 0
        self._flaky = self._nameless = self._skipped_and_red = self._red_status = 0
        self._time_us = 0
        self._timed_at = 0  # number of open suites of which the last states a time for all inside it
        self._bad_times = 0
        self._bad_time = ""
        self._names: dict[int, int] = {}
        self._repeated, self._mixed = _Named(), _Named()
        self._disagreeing, self._outside = _Named(), _Named()
        self._red_totals = 0
        self._failures: list[Failure] = []
        self._flaky_names: list[str] = []

    @property
    def wants_failures(self) -> bool:
        """Return whether `add_case` still needs the text of a failed case."""
        return len(self._failures) < MAX_HIGHLIGHTS

    def begin_suite(self, attributes: Attributes, *, is_suite: bool) -> None:
        """Begin a suite, or a root that is not a suite itself."""
        self._suites += is_suite
        self._open.append(_OpenSuite(self._readable(attributes)))
        if not self._timed_at and self._add_time(attributes.get("time")):
            self._timed_at = len(self._open)

    def end_suite(self) -> None:
        """End the last suite that is open."""
        if len(self._open) == self._timed_at:
            self._timed_at = 0
        suite = self._open.pop()
        disagreements = list(suite.disagreements())
        if disagreements:
            self._disagreeing.add(f"{_shown_suite(suite, is_root=not self._open)} has {', '.join(disagreements)}")
        if suite.is_red_only_in_totals() and not suite.has_red_below:
            self._red_totals += 1
            suite.has_red_below = True
        if self._open:
            self._open[-1].add(suite)
        else:
            self._all = suite

    def add_suite_error(self, kind: int, outcome: FailureText) -> None:
        """Count an error or a failure that is a direct child of the last suite that is open."""
        suite = self._open[-1]
        suite.outside_errors += kind == ERROR
        suite.outside_failures += kind == FAILURE
        if suite.has_outside_errors:
            return
        suite.has_outside_errors = True
        if self._outside.is_full and not self.wants_failures:
            self._outside.count += 1
            return
        failure = describe_suite_error(one_line(suite.name, MAX_SUITE_NAME), outcome)
        message = failure.message and f": {failure.message}"
        self._outside.add(f"{_shown_suite(suite, is_root=len(self._open) == 1).removeprefix('suite ')}{message}")
        if self.wants_failures:
            self._failures.append(failure)

    def add_case(self, case: Attributes, outcomes: int, failure: FailureText | None) -> None:
        """Count a case of the last suite that is open; runs once per case.

        `outcomes` are the bits of its children; `failure` is the first failure or error, at least if `wants_failures`.
        """
        get = case.get
        self._open[-1].tests += 1
        name, classname, time = get("name"), get("classname"), get("time")
        self._add_name(case, name or "", classname or "", outcomes)
        if outcomes:
            self.count_outcomes(case, outcomes, lambda: failure)
        else:
            self._read_status(case)
        if self._recorder is not None:
            self._recorder.add(classname, name or "", outcomes, time)
        if not self._timed_at:
            self._add_time(time)

    def add_cases(self, cases: Sequence[Attributes], outcomes: Sequence[int]) -> None:
        """Count cases of the last suite that is open as `add_case` does, but leave their outcomes to `count_outcomes`.

        `outcomes` are the bits of the children of each case.
        """
        self._open[-1].tests += len(cases)
        names = [case.get("name") or "" for case in cases]
        classnames = [case.get("classname") for case in cases]
        times = [case.get("time") for case in cases]
        self._add_names(cases, names, [classname or "" for classname in classnames], outcomes)
        states = [case.get("status") or case.get("result") for case in cases]
        if any(states):
            for case, bits in zip(cases, outcomes, strict=True):
                if not bits:
                    self._read_status(case)
        if self._recorder is not None:
            self._recorder.add_all(classnames, names, outcomes, times)
        if not self._timed_at:
            self._add_times(times)

    def count_outcomes(self, case: Attributes, outcomes: int, failure: Callable[[], FailureText | None]) -> None:
        """Count the outcomes of a case, which has some; `failure` returns its first failure or error."""
        suite = self._open[-1]
        if outcomes & RED:
            if outcomes & ERROR:
                suite.errors += 1
                suite.both_failed += bool(outcomes & FAILURE)
            else:
                suite.failures += 1
            self._skipped_and_red += bool(outcomes & SKIPPED)
            if self.wants_failures and (first := failure()) is not None:
                self._failures.append(describe_failure(self._readable(case), first))
        elif outcomes & SKIPPED:
            suite.skipped += 1
        else:
            self._flaky += 1
            if len(self._flaky_names) < MAX_HIGHLIGHTS:
                self._flaky_names.append(test_name(self._readable(case)))

    def case_digest(self) -> bytes:
        """Return the digest of all cases; empty if none were recorded."""
        return b"" if self._recorder is None else self._recorder.digest()

    def counts(self) -> TestCounts:
        """Return the counts; call it after the root was ended."""
        cases = self._all or _OpenSuite({})
        return TestCounts(
            suites=self._suites,
            tests=cases.tests,
            failures=cases.failures,
            errors=cases.errors,
            skipped=cases.skipped,
            flaky=self._flaky,
            time_us=0 if self._time_is_out_of_range() else self._time_us,
            suite_errors=self._outside.count,
            disabled=cases.disabled,
        )

    def highlights(self) -> Highlights:
        """Return the first failures and flaky tests."""
        return Highlights(failures=tuple(self._failures), flaky=tuple(self._flaky_names), red_totals=self._red_totals)

    def notes(self) -> tuple[str, ...]:
        """Return what is odd about the report, as clauses for people; each is bounded."""
        counts = self.counts()
        return (*self._notes_on_times(), *self._notes_on_suites(counts), *self._notes_on_cases(counts))

    def _notes_on_times(self) -> Iterator[str]:
        if self._time_is_out_of_range():
            yield "the sum of the times is out of range, so the time is set to 0"
        if self._bad_times:
            yield f'{self._bad_times} unreadable time(s), such as "{one_line(self._bad_time, MAX_SHOWN_VALUE)}"'

    def _notes_on_suites(self, counts: TestCounts) -> Iterator[str]:
        if counts.suite_errors:
            yield f"{suites_report_errors(counts.suite_errors)}: {self._outside.listed('suite')}"
        if self._disagreeing.count:
            yield f"the totals disagree with the cases: {self._disagreeing.listed('suite')}"
        if number := self.uncounted_cases:
            where = "outside of the suites, such as in system-out,"
            yield f"{counted(number, 'testcase element')} {where} {are(number)} not counted"

    def _notes_on_cases(self, counts: TestCounts) -> Iterator[str]:
        if not counts.tests:
            yield "it contains no test"
        elif counts.skipped + counts.disabled == counts.tests:
            yield f"no test ran: {counts.skipped} skipped, {counts.disabled} disabled"
        if number := counts.disabled:
            yield f"{counted(number, 'test')} did not run, but TestNod counts {_them(number)} as passed: no <skipped>"
        if number := self._red_status:
            what = f"{counted(number, 'test')} {have(number)} a failed status"
            yield f"{what}, but TestNod counts {_them(number)} as passed: no <failure> or <error>"
        if number := self._skipped_and_red:
            what = f"{counted(number, 'test')} {are(number)} skipped and failed"
            yield f"{what}; TestNod counts {_them(number)} as failed"
        if number := self._nameless:
            yield f"{counted(number, 'test')} {have(number)} no name"
        if self._repeated.count:
            yield self._namesakes()

    def _namesakes(self) -> str:
        number, mixed = self._repeated.count, self._mixed.count
        names = f"{'at least ' if len(self._names) >= MAX_TRACKED_NAMES else ''}{counted(number, 'test name')}"
        text = f"{names} (classname and name) {'occurs' if number == 1 else 'occur'} more than once"
        if mixed:
            text += ", both passed and failed" if number == 1 else f", {mixed} of them both passed and failed"
        named = self._mixed if mixed else self._repeated
        return f"{text}: {named.listed('name', ', ')}"

    def _add_names(
        self, cases: Sequence[Attributes], names: Sequence[str], classnames: Sequence[str], outcomes: Sequence[int]
    ) -> None:
        known = self._names
        identities = list(map(hash, zip(names, classnames, strict=True)))
        are_new = len(set(identities)) == len(identities) and known.keys().isdisjoint(identities)
        if are_new and len(known) + len(identities) <= MAX_TRACKED_NAMES and all(map(str.strip, names)):
            known.update(zip(identities, map(_NAME_STATES.__getitem__, outcomes), strict=True))
        else:
            for case, name, classname, bits in zip(cases, names, classnames, outcomes, strict=True):
                self._add_name(case, name, classname, bits)

    def _add_name(self, case: Attributes, name: str, classname: str, outcomes: int) -> None:
        if not name or name.isspace():
            self._nameless += 1
            return
        names, identity = self._names, hash((name, classname))
        if identity in names:
            self._repeat_name(identity, _NAME_STATES[outcomes], case)
        elif len(names) < MAX_TRACKED_NAMES:
            names[identity] = _NAME_STATES[outcomes]

    def _repeat_name(self, identity: int, state: int, case: Attributes) -> None:
        known = self._names[identity]
        state |= known
        if not known & NAME_REPEATED:
            state |= NAME_REPEATED
            self._repeated.add(f'"{test_name(self._readable(case))}"')
        if state & NAME_PASSED and state & NAME_RED and not known & NAME_MIXED:
            state |= NAME_MIXED
            self._mixed.add(f'"{test_name(self._readable(case))}"')
        self._names[identity] = state

    def _read_status(self, case: Attributes) -> None:
        """Read the attributes for the outcome of a case without child elements for it."""
        status, result = case.get("status"), case.get("result")
        if not (status or result):
            return
        states = ((status or "").lower(), (result or "").lower())
        if not NOT_RUN.isdisjoint(states):
            self._open[-1].disabled += 1
        elif not FAILED.isdisjoint(states):
            self._red_status += 1

    def _add_times(self, texts: Sequence[str | None]) -> None:
        times = list(map(read_short_time, texts)) if all(map(_is_short_time, texts)) else [None]
        if None in times:
            for text in texts:
                self._add_time(text)
        else:
            self._time_us += sum(times)  # type: ignore[arg-type]  # none is None

    def _add_time(self, text: str | None) -> bool:
        time_us = read_time(text)
        if time_us is not None:
            self._time_us += time_us
            return True
        if text:
            self._bad_times += 1
            self._bad_time = self._bad_time or text
        return False

    def _time_is_out_of_range(self) -> bool:
        return abs(self._time_us) >= MAX_TIME_US


def _shown_suite(suite: _OpenSuite, *, is_root: bool) -> str:
    name = one_line(suite.name, MAX_SUITE_NAME)
    if is_root:
        return "the root"
    return f'suite "{name}"' if name else "a suite without a name"


def suites_report_errors(count: int) -> str:
    """Return the clause for suites with errors outside any test."""
    return f"{counted(count, 'suite')} {'reports' if count == 1 else 'report'} errors outside any test"


def _them(count: int) -> str:
    return "it" if count == 1 else "them"
