"""Reads the suites, cases and outcomes of a JUnit report, from a stream of tags or from a small tree.

Only cases count whose ancestors are suites, and only outcomes that are children of such a case or of a suite. Markup
in system-out, in properties or in another case is text.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from lxml import etree

from bridge.domain.junit.case_digest import CaseRecorder
from bridge.domain.junit.failures import Attributes, FailureText
from bridge.domain.junit.foreign_formats import QUALIFIED_ROOTS, foreign_root
from bridge.domain.junit.result import Invalid, InvalidReport
from bridge.domain.junit.tally import ERROR, FAILURE, FLAKY, OUTCOMES, RED, SKIPPED, ReportTally

MAX_DEPTH: Final = 256  # real reports nest up to a dozen levels; libxml2's limit for a tree
MAX_TAG_SIZE: Final = 8 << 20  # characters in one start tag: a message may quote a whole response body

# Kinds of elements; those of outcomes are their bits.
OTHER, CASE, SUITE, SUITES = 0, 16, 32, 64
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
OUTCOME_TAGS: Final = tuple(f"{{*}}{name}" for name, kind in KINDS.items() if kind & OUTCOMES)
CASE_TAG: Final = "{*}testcase"
TAGS_BESIDE_CASES: Final = tuple(f"{{*}}{name}" for name, kind in KINDS.items() if kind == SUITE or kind & RED)


def local_name(tag: str) -> str:
    """Return a tag without the namespace that lxml writes before it."""
    return tag.rpartition("}")[2] if "}" in tag else tag


def kind_of(tag: str) -> int:
    """Return the kind of an element; OTHER if JUnit has no such element."""
    kind = KINDS.get(tag)
    return KINDS.get(local_name(tag), OTHER) if kind is None else kind


class _Unescaped:
    """Attributes in a stream: a parser that does not resolve entities returns `&` in a value as `&#38;`."""

    __slots__ = ("_values",)

    def __init__(self, values: Attributes) -> None:
        self._values = values

    def get(self, key: str, /) -> str | None:
        value = self._values.get(key)
        return value if value is None or "&" not in value else value.replace("&#38;", "&")


class TagCounter:
    """Target of a streaming lxml parser: passes suites and cases on to a tally, and keeps no tree."""

    __slots__ = (
        "_case",
        "_failure",
        "_inert_from",
        "_outcomes",
        "_path",
        "_reading",
        "root_began",
        "root_closed",
        "tally",
        "unread",
    )

    def __init__(self, *, records_cases: bool = True) -> None:
        self.tally = ReportTally(readable=_Unescaped, recorder=CaseRecorder(escaped=True) if records_cases else None)
        self.unread = 0  # bytes fed since the last start tag; the feeder counts them
        self.root_began = False
        self.root_closed = False
        self._path = [OTHER]  # kinds of the open elements, after a sentinel
        self._inert_from = 0  # length of the path at the outermost open element in which nothing counts
        self._case: Mapping[str, str] = {}  # of the open case
        self._outcomes = 0
        self._failure: FailureText | None = None  # the first one of the open case, or an open one of a suite
        self._reading: FailureText | None = None  # its text follows

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:  # hot path, as end(): runs once per element
        kind = KINDS.get(tag)
        if kind is None:
            kind = KINDS.get(local_name(tag), OTHER)
        path = self._path
        parent = path[-1]
        path.append(kind)
        self._reading = None
        if self.unread:
            self._measure(attributes)
        if not 2 < len(path) <= MAX_DEPTH + 1:
            self._check_edge(tag, attributes)
        if self._inert_from:
            self.tally.uncounted_cases += kind == CASE
        elif parent == CASE:
            self._start_in_case(kind, attributes)
        elif kind == CASE:
            self._case = attributes
            self._outcomes = 0
            self._failure = None
        elif kind == SUITE or len(path) == 2:
            self.tally.begin_suite(attributes, is_suite=kind == SUITE)
        else:
            self._inert_from = len(path)
            if kind & RED:
                self._failure = self._reading = FailureText(_Unescaped(attributes))

    def _start_in_case(self, kind: int, attributes: Mapping[str, str]) -> None:
        self._inert_from = len(self._path)
        self._outcomes |= kind & OUTCOMES
        if kind & RED and self._failure is None and self.tally.wants_failures:
            self._failure = self._reading = FailureText(_Unescaped(attributes))
        self.tally.uncounted_cases += kind == CASE

    def data(self, text: str) -> None:
        if self._reading is not None and not self._reading.feed(text):
            self._reading = None

    def end(self, _tag: str) -> None:
        path = self._path
        kind = path.pop()
        self._reading = None
        if self._inert_from:
            if len(path) < self._inert_from:
                self._inert_from = 0
                if kind & RED and path[-1] != CASE and self._failure is not None:
                    self.tally.add_suite_error(kind, self._failure)
        elif kind == CASE:
            self.tally.add_case(self._case, self._outcomes, self._failure)
        else:
            self.tally.end_suite()
        if len(path) == 1:
            self.root_closed = True

    def close(self) -> None:
        """Do nothing; lxml calls it on every target."""

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


def count_tree(root: etree._Element) -> ReportTally | None:
    """Return what `TagCounter` counts, from a small tree and much faster; None if the root is not JUnit's."""
    kind = kind_of(root.tag)
    if kind < SUITE or root.tag in QUALIFIED_ROOTS:
        return None
    tree = _Tree(root)
    tree.count_suite(root, kind)
    tree.tally.uncounted_cases = sum(1 for _ in root.iter(CASE_TAG)) - tree.cases
    return tree.tally


class _Tree:
    """A small document; its outcomes are found first, because few cases have any.

    Cases are counted together as far as possible: a call for each of them takes longer than parsing it.
    """

    def __init__(self, root: etree._Element) -> None:
        self.tally = ReportTally(recorder=CaseRecorder())
        self.cases = 0
        self._outcomes_of: dict[etree._Element | None, list[etree._Element]] = {}
        for outcome in root.iter(*OUTCOME_TAGS):
            self._outcomes_of.setdefault(outcome.getparent(), []).append(outcome)

    def count_suite(self, suite: etree._Element, kind: int) -> None:
        tally = self.tally
        tally.begin_suite(suite, is_suite=kind == SUITE)
        if next(suite.iterchildren(*TAGS_BESIDE_CASES), None) is None:
            self._count_cases(list(suite.iterchildren(CASE_TAG)))
        else:
            self._count_mixed(suite)
        tally.end_suite()

    def _count_mixed(self, suite: etree._Element) -> None:
        """Count the cases of a suite, and what else counts in it, in document order."""
        cases: list[etree._Element] = []
        for child in suite.iterchildren(CASE_TAG, *TAGS_BESIDE_CASES):
            kind = kind_of(child.tag)
            if kind == CASE:
                cases.append(child)
                continue
            self._count_cases(cases)
            cases = []
            if kind == SUITE:
                self.count_suite(child, kind)
            else:
                self.tally.add_suite_error(kind, _failure_text(child))
        self._count_cases(cases)

    def _count_cases(self, cases: Sequence[etree._Element]) -> None:
        if not cases:
            return
        self.cases += len(cases)
        outcomes_of = self._outcomes_of
        found = [(at, case) for at, case in enumerate(cases) if case in outcomes_of] if outcomes_of else []
        outcomes = [0] * len(cases)
        for at, case in found:
            for child in outcomes_of[case]:
                outcomes[at] |= kind_of(child.tag)
        self.tally.add_cases(cases, outcomes)
        for at, case in found:
            self.tally.count_outcomes(case, outcomes[at], partial(self._first_failure, case))

    def _first_failure(self, case: etree._Element) -> FailureText | None:
        reds = (child for child in self._outcomes_of[case] if kind_of(child.tag) & RED)
        first = next(reds, None)
        return None if first is None else _failure_text(first)


def _failure_text(outcome: etree._Element) -> FailureText:
    found = FailureText(outcome)
    found.feed(outcome.text or "")
    return found
