"""Counts of a JUnit report, from its children: one way for a stream of tags, one for a small whole tree.

It knows the dialects' elements and attributes; it knows neither bytes nor encodings.
"""

import math
from collections.abc import Mapping
from typing import Final

from lxml import etree

from bridge.domain.junit.foreign_formats import foreign_root
from bridge.domain.junit.result import Invalid, InvalidReport, TestCounts

MAX_DEPTH: Final = 256  # suites nest a dozen deep in the worst honest report; the same bound as libxml2's for a tree
MAX_TAG_SIZE: Final = 8 << 20  # characters in one start tag: a message may quote a whole response body, not a disk
MAX_TIME_US: Final = 2**53  # 285 years; more would not pass through JSON unchanged
MAX_SHOWN_VALUE: Final = 32  # characters of an attribute in a note

# What an element is to its parent. The outcomes are bits: a case gathers them, the heaviest decides.
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
TIMELESS: Final = frozenset({"properties", "system-out", "system-err"})  # children of a root that hold no time
TELLING: Final = tuple(f"{{*}}{name}" for name, kind in KINDS.items() if kind & OUTCOMES)
TOTALS: Final = ("tests", "failures", "errors", "skipped")


def local(tag: str) -> str:
    """Take the namespace off a tag of lxml."""
    return tag.rpartition("}")[2] if "}" in tag else tag


def read_time(text: str | None) -> int | None:
    """Microseconds of a `time` attribute in seconds, or None where it is missing or cannot be read.

    `1,234.5` and `1.234,5` group thousands; a lone comma does so only where exactly three digits follow and the
    number does not begin with 0, else it is the decimal point of a runner in another locale.
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
    """Counts from the number of cases by the outcomes they gathered: error before failure before skipped.

    Beside its verdict a case that holds one of surefire's flaky or rerun elements counts once as flaky, also one that
    failed in every rerun. Cases repeated after a retry count each, as in TestNod.
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


def disagreement(root: Mapping[str, str], counts: TestCounts) -> str | None:
    """Say where the totals that the root claims are not what its cases count."""
    claims = []
    for name in TOTALS:
        claimed, counted = root.get(name), getattr(counts, name)
        if claimed is not None and claimed.strip() != str(counted):
            claims.append(f"{name} {_shown(claimed)}, counted {counted}")
    return f"the root's totals disagree with its cases: {'; '.join(claims)}" if claims else None


def _shown(value: str) -> str:
    return value if len(value) <= MAX_SHOWN_VALUE else f"{value[:MAX_SHOWN_VALUE]}…"


class TagCounter:
    """Target of a streaming lxml parser: keeps counts and the open elements' kinds, no tree and no text.

    The time is that of each outermost element that states one: the root's, else its suites', else their cases'.
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
        self.unread = 0  # bytes fed since the last start tag, kept by whoever feeds
        self.root_began = False
        self.root_closed = False
        self._path = [OTHER]  # kinds of the open elements, below a floor that spares a test
        self._marks: list[int] = []  # outcomes so far of the open cases
        self._tally = [0] * (OUTCOMES + 1)  # cases by what they gathered
        self._suites = 0
        self._time_us = 0
        self._timed_at = 0  # depth of the open element whose time covers everything in it
        self._root: dict[str, str] = {}
        self._bad_times = 0
        self._bad_time = ""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:  # the hot path, with end(): once an element
        kind = KINDS.get(tag)
        if kind is None:
            kind = KINDS.get(local(tag), OTHER)
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
        """Nothing is left to do; lxml asks every target for it."""

    def result(self) -> tuple[TestCounts, tuple[str, ...]]:
        """Counts and notes, once the whole document was read."""
        notes = []
        if abs(self._time_us) >= MAX_TIME_US:
            notes.append("the times add up to more than can be kept, so the time is left at 0")
            self._time_us = 0
        if self._bad_times:
            notes.append(f'{self._bad_times} unreadable time(s), such as "{_shown(self._bad_time)}"')
        counts = counts_of(self._tally, suites=self._suites, time_us=self._time_us)
        if note := disagreement(self._root, counts):
            notes.append(note)
        return counts, tuple(notes)

    def _measure(self, attributes: Mapping[str, str]) -> None:
        unread, self.unread = self.unread, 0
        if unread > MAX_TAG_SIZE and sum(map(len, attributes.values())) > MAX_TAG_SIZE:
            mib = MAX_TAG_SIZE >> 20
            raise InvalidReport(
                Invalid(
                    reason="token_too_long",
                    found=f"the attributes of one element hold more than {mib} MiB.",
                    remedy="Have the test runner write long texts into the element, not into an attribute.",
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
        if self._path[-1] < SUITE:
            raise InvalidReport(foreign_root(local(tag), attributes))
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
    """Count a whole small tree with lxml's own filters; None where the slower TagCounter must look.

    Gives exactly what TagCounter gives, at a tenth of the cost of the parse.
    """
    if KINDS.get(local(root.tag), OTHER) < SUITE:
        return None
    time_us = _stated_time(root)
    if time_us is None:
        return None
    marks: dict[etree._Element, int] = {}
    for outcome in root.iter(*TELLING):
        case = outcome.getparent()
        if case is not None and KINDS.get(local(case.tag)) == CASE:
            marks[case] = marks.get(case, NO_OUTCOME) | KINDS[local(outcome.tag)]
    tally = [0] * (OUTCOMES + 1)
    for gathered in marks.values():
        tally[gathered] += 1
    tally[NO_OUTCOME] = len(list(root.iter("{*}testcase"))) - len(marks)
    counts = counts_of(tally, suites=sum(1 for _ in root.iter("{*}testsuite")), time_us=time_us)
    note = disagreement({name: value for name, value in root.items() if name in TOTALS}, counts)  # type: ignore[misc]
    return counts, (note,) if note else ()


def _stated_time(root: etree._Element) -> int | None:
    own = root.get("time")
    if own is not None:
        return read_time(own)
    total = 0
    for child in root.iterchildren(tag=etree.Element):
        name = local(child.tag)
        if name in TIMELESS:
            continue
        time_us = read_time(child.get("time")) if name == "testsuite" else None
        if time_us is None:
            return None
        total += time_us
    return total if abs(total) < MAX_TIME_US else None
