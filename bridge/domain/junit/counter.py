"""Counts suites, tests and outcomes of a JUnit report, from a stream of tags or from a small tree."""

import math
from collections.abc import Mapping
from typing import Final

from lxml import etree

from bridge.domain.junit.foreign_formats import QUALIFIED_ROOTS, foreign_root
from bridge.domain.junit.result import Invalid, InvalidReport, TestCounts

MAX_DEPTH: Final = 256  # real reports nest up to a dozen levels; libxml2's limit for a tree
MAX_TAG_SIZE: Final = 8 << 20  # characters in one start tag: a message may quote a whole response body
MAX_TIME_US: Final = 2**53  # 285 years; JSON readers round larger numbers
MAX_SHOWN_VALUE: Final = 32  # characters of an attribute in a note

# Kinds of elements. The outcomes are bits: a case collects those of its children, and the most severe one counts.
OTHER, FLAKY, SKIPPED, FAILURE, ERROR, CASE, SUITE, SUITES = 0, 1, 2, 4, 8, 16, 32, 64
NO_OUTCOME: Final = 0
OUTCOMES: Final = FLAKY | SKIPPED | FAILURE | ERROR
KINDS: Final = {
    "testsuites": SUITES,
    "testsuite": SUITE,
    "testcase": CASE,
    "error": ERROR,
    "failure": FAILURE,
    "skipped": SKIPPED,
    "flakyFailure": FLAKY,
    "flakyError": FLAKY,
    "rerunFailure": FLAKY,
    "rerunError": FLAKY,
    "properties": OTHER,
    "property": OTHER,
    "system-out": OTHER,
    "system-err": OTHER,
    "stackTrace": OTHER,
}
UNTIMED: Final = frozenset({"properties", "system-out", "system-err"})  # children of a root that hold no time
OUTCOME_TAGS: Final = tuple(f"{{*}}{name}" for name, kind in KINDS.items() if kind & OUTCOMES)
TOTALS: Final = ("tests", "failures", "errors", "skipped")


def local_name(tag: str) -> str:
    """Return a tag without the namespace that lxml writes before it."""
    return tag.rpartition("}")[2] if "}" in tag else tag


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


def _with_decimal_point(text: str) -> str:
    whole, _, rest = text.rpartition(",")
    if "." in rest:
        return text.replace(",", "")
    groups_thousands = len(rest) == 3 and whole.lstrip(" -+")[:1] not in ("", "0")
    if "." in whole or not groups_thousands:
        return f"{whole.replace('.', '').replace(',', '')}.{rest}"
    return text.replace(",", "")


def counts_of(tally: list[int], *, suites: int, time_us: int) -> TestCounts:
    """Return counts from the number of cases by their outcome bits: error before failure before skipped.

    A case with one of surefire's flaky or rerun elements also counts once as flaky, even if every rerun failed. Cases
    that are repeated after a retry count each, as in TestNod.
    """
    errors = failures = skipped = flaky = 0
    for marks, cases in enumerate(tally):
        if marks & ERROR:
            errors += cases
        elif marks & FAILURE:
            failures += cases
        else:
            skipped += cases if marks & SKIPPED else 0
        flaky += cases if marks & FLAKY else 0
    tests = sum(tally)
    return TestCounts(
        suites=suites, tests=tests, failures=failures, errors=errors, skipped=skipped, flaky=flaky, time_us=time_us
    )


def totals_mismatch(root: Mapping[str, str], counts: TestCounts) -> str | None:
    """Return a note on the root's totals that differ from the counts of its cases, None if none differs."""
    claims = []
    for name in TOTALS:
        claimed, counted = root.get(name), getattr(counts, name)
        if claimed is not None and claimed.strip() != str(counted):
            claims.append(f"{name} {_shorten(claimed)}, counted {counted}")
    return f"the root's totals disagree with its cases: {'; '.join(claims)}" if claims else None


def _shorten(value: str) -> str:
    return value if len(value) <= MAX_SHOWN_VALUE else f"{value[:MAX_SHOWN_VALUE]}…"


class TagCounter:
    """Target of a streaming lxml parser: counts, and the kinds of the open elements; neither tree nor text.

    The time is the sum over the outermost elements that have one: the root, else its suites, else their cases.
    """

    __slots__ = (
        "_bad_time",
        "_bad_times",
        "_marks",
        "_path",
        "_root",
        "_suites",
        "_tally",
        "_time_us",
        "_timed_at",
        "root_began",
        "root_closed",
        "unread",
    )

    def __init__(self) -> None:
        self.unread = 0  # bytes fed since the last start tag; the feeder counts them
        self.root_began = False
        self.root_closed = False
        self._path = [OTHER]  # kinds of the open elements, after a sentinel
        self._marks: list[int] = []  # outcomes so far of the open cases
        self._tally = [0] * (OUTCOMES + 1)  # number of cases by their outcome bits
        self._suites = 0
        self._time_us = 0
        self._timed_at = 0  # depth of the open element whose time includes all inside it
        self._root: dict[str, str] = {}
        self._bad_times = 0
        self._bad_time = ""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:  # hot path, as end(): runs once per element
        kind = KINDS.get(tag)
        if kind is None:
            kind = KINDS.get(local_name(tag), OTHER)
        path = self._path
        if kind == CASE:
            self._marks.append(NO_OUTCOME)
        elif kind > CASE:
            self._suites += kind == SUITE
        elif kind and path[-1] == CASE:
            self._marks[-1] |= kind
        path.append(kind)
        if self.unread:
            self._measure(attributes)
        if not 2 < len(path) <= MAX_DEPTH + 1:
            self._check_edge(tag, attributes)
        if kind >= CASE and not self._timed_at:
            self._add_time(kind, attributes.get("time"))

    def end(self, _tag: str) -> None:
        path = self._path
        if path.pop() == CASE:
            self._tally[self._marks.pop()] += 1
        if len(path) < self._timed_at:
            self._timed_at = 0
        if len(path) == 1:
            self.root_closed = True

    def close(self) -> None:
        """Do nothing; lxml calls it on every target."""

    def result(self) -> tuple[TestCounts, tuple[str, ...]]:
        """Return counts and notes; call it after the whole document was read."""
        notes = []
        if abs(self._time_us) >= MAX_TIME_US:
            notes.append("the sum of the times is out of range, so the time is set to 0")
            self._time_us = 0
        if self._bad_times:
            notes.append(f'{self._bad_times} unreadable time(s), such as "{_shorten(self._bad_time)}"')
        counts = counts_of(self._tally, suites=self._suites, time_us=self._time_us)
        if note := totals_mismatch(self._root, counts):
            notes.append(note)
        return counts, tuple(notes)

    def _measure(self, attributes: Mapping[str, str]) -> None:
        unread, self.unread = self.unread, 0
        if unread > MAX_TAG_SIZE and sum(map(len, attributes.values())) > MAX_TAG_SIZE:
            mib = MAX_TAG_SIZE >> 20
            raise InvalidReport(
                Invalid(
                    reason="token_too_long",
                    found=f"the attributes of one element are larger than {mib} MiB.",
                    remedy="Configure the test runner to write long texts into the element, not into an attribute.",
                )
            )

    def _check_edge(self, tag: str, attributes: Mapping[str, str]) -> None:
        if len(self._path) > MAX_DEPTH + 1:
            raise InvalidReport(
                Invalid(
                    reason="too_deep",
                    found=f"its elements nest deeper than {MAX_DEPTH} levels.",
                    remedy="Upload the file as the test runner wrote it.",
                )
            )
        if self._path[-1] < SUITE or tag in QUALIFIED_ROOTS:
            raise InvalidReport(foreign_root(tag, attributes))
        self.root_began = True
        self._root = {name: attributes[name] for name in TOTALS if name in attributes}

    def _add_time(self, kind: int, text: str | None) -> None:
        time_us = read_time(text)
        if time_us is not None:
            self._time_us += time_us
            if kind != CASE:
                self._timed_at = len(self._path)
        elif text:
            self._bad_times += 1
            self._bad_time = self._bad_time or text


def count_tree(root: etree._Element) -> tuple[TestCounts, tuple[str, ...]] | None:
    """Return what `TagCounter` counts, from a small tree and ten times faster; None if the tree needs a TagCounter."""
    if KINDS.get(local_name(root.tag), OTHER) < SUITE or root.tag in QUALIFIED_ROOTS:
        return None
    time_us = _stated_time(root)
    if time_us is None:
        return None
    outcomes_of: dict[etree._Element, int] = {}
    for outcome in root.iter(*OUTCOME_TAGS):
        case = outcome.getparent()
        if case is not None and KINDS.get(local_name(case.tag)) == CASE:
            outcomes_of[case] = outcomes_of.get(case, NO_OUTCOME) | KINDS[local_name(outcome.tag)]
    tally = [0] * (OUTCOMES + 1)
    for outcomes in outcomes_of.values():
        tally[outcomes] += 1
    tally[NO_OUTCOME] = len(list(root.iter("{*}testcase"))) - len(outcomes_of)
    counts = counts_of(tally, suites=sum(1 for _ in root.iter("{*}testsuite")), time_us=time_us)
    note = totals_mismatch({name: value for name, value in root.items() if name in TOTALS}, counts)  # type: ignore[misc]
    return counts, (note,) if note else ()


def _stated_time(root: etree._Element) -> int | None:
    own = root.get("time")
    if own is not None:
        return read_time(own)
    total = 0
    for child in root.iterchildren(tag=etree.Element):
        name = local_name(child.tag)
        if name in UNTIMED:
            continue
        time_us = read_time(child.get("time")) if name == "testsuite" else None
        if time_us is None:
            return None
        total += time_us
    return total if abs(total) < MAX_TIME_US else None
