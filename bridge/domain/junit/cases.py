"""Read the test cases of a JUnit report for people: failing ones first, a part at a time, in bounded memory.

Reports were validated when they were accepted, so this reader is lenient: what it does not know it leaves out.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import field, replace
from enum import StrEnum
from typing import Any, Final

from lxml import etree

from bridge.values import dataclass

MAX_FAILING: Final = 200
"""Failing cases of a page; more are counted."""

PART_CASES: Final = 500
MAX_TEXT: Final = 64 * 1024
"""Characters of one message or output; the rest is cut, and the page says so."""

MAX_OUTPUT_TOTAL: Final = 1024 * 1024
"""Characters of all messages and outputs of a page."""

MAX_NAME: Final = 500
MAX_MESSAGE: Final = 4_000
MAX_TEXTS: Final = 10
"""Characters of a name and of a message, and messages and outputs of a case; the rest is left out."""

MAX_COLORS: Final = 200
"""Changes of color in one text; what follows has none."""

_TEXTS = frozenset({"failure", "error", "skipped", "system-out", "system-err", "rerunFailure", "flakyFailure"})
_STATUS = {"failure": "failed", "error": "error", "skipped": "skipped", "flakyFailure": "flaky", "flakyError": "flaky"}


class CaseStatus(StrEnum):
    """The verdict of a test case, the most urgent first."""

    ERROR = "error"
    FAILED = "failed"
    FLAKY = "flaky"
    SKIPPED = "skipped"
    PASSED = "passed"


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseOutput:
    """A message or an output of a case; `cut` is how many characters were left out."""

    kind: str  # failure, error, skipped, system-out, system-err
    message: str
    text: str
    cut: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportCase:
    """One test case; `time` is in seconds, None if the report has none."""

    suite: str
    classname: str
    name: str
    status: CaseStatus
    time: float | None
    file: str = ""
    line: str = ""
    texts: tuple[CaseOutput, ...] = ()

    @property
    def is_failing(self) -> bool:
        return self.status in (CaseStatus.FAILED, CaseStatus.ERROR)


@dataclass(kw_only=True, slots=True)
class CasePage:
    """What one page shows of a report."""

    failing: list[ReportCase] = field(default_factory=list)
    others: list[ReportCase] = field(default_factory=list)  # of the part
    failing_total: int = 0
    others_total: int = 0
    total: int = 0  # without the filter
    slowest: list[ReportCase] = field(default_factory=list)

    @property
    def parts(self) -> int:
        """Return the number of parts, at least one."""
        return max(1, -(-self.others_total // PART_CASES))


class CaseReader:
    """Reads a report that is fed in pieces. `query` filters by a part of suite, class or name, in any case.

    `part` (from 1) chooses PART_CASES of the cases that do not fail.
    """

    def __init__(self, *, query: str = "", part: int = 1) -> None:
        self.page = CasePage()
        self._query = query.casefold()
        self._first, self._last = (part - 1) * PART_CASES, part * PART_CASES
        self._room = MAX_OUTPUT_TOTAL
        # Validation has found reports free of entities; XML's own are resolved, or lxml returns `&amp;` as `&#38;`.
        self._parser = etree.XMLParser(target=_Target(self), resolve_entities=True, no_network=True, huge_tree=True)

    def feed(self, piece: bytes) -> None:
        """Read one piece; raise lxml.etree.XMLSyntaxError if the report is not well-formed."""
        self._parser.feed(piece)

    def finish(self) -> CasePage:
        """Return the page after the last piece."""
        self._parser.close()
        self.page.slowest.sort(key=_seconds, reverse=True)
        return self.page

    def add(self, case: ReportCase) -> None:
        """Count a case, and keep it if it belongs on the page."""
        page = self.page
        page.total += 1
        if self._query and self._query not in f"{case.suite}\n{case.classname}\n{case.name}".casefold():
            return
        if case.is_failing:
            page.failing_total += 1
            if len(page.failing) < MAX_FAILING:
                page.failing.append(self._within(case))
            return
        if self._first <= page.others_total < self._last:
            page.others.append(self._within(case))
        page.others_total += 1
        self._remember_slow(case)

    def _remember_slow(self, case: ReportCase) -> None:
        slowest = self.page.slowest
        if case.time and (len(slowest) < 5 or case.time > min(_seconds(known) for known in slowest)):
            slowest.append(case)
            if len(slowest) > 5:
                slowest.remove(min(slowest, key=_seconds))

    def _within(self, case: ReportCase) -> ReportCase:
        """Return the case with as much of its texts as the page has room for."""
        texts = []
        for text in case.texts:
            message = text.message[: self._room]
            self._room -= len(message)
            kept = text.text[: self._room]
            self._room -= len(kept)
            texts.append(replace(text, message=message, text=kept, cut=text.cut + len(text.text) - len(kept)))
        return replace(case, texts=tuple(texts))


def _seconds(case: ReportCase) -> float:
    return case.time or 0.0


class _Target:
    """Receives the events of lxml's parser, which keeps no tree."""

    def __init__(self, reader: CaseReader) -> None:
        self._reader = reader
        self._suites: list[str] = []
        self._case: dict[str, str] | None = None
        self._status = CaseStatus.PASSED
        self._texts: list[CaseOutput] = []
        self._kind = ""  # of the text that is being read
        self._message = ""
        self._pieces: list[str] = []
        self._length = 0

    def start(self, tag: Any, attrib: Any) -> None:
        name, attributes = tag.rpartition("}")[2], attrib
        if name == "testsuite":
            self._suites.append(attributes.get("name", "")[:MAX_NAME])
        elif name == "testcase":
            self._case = {name: value[:MAX_NAME] for name, value in attributes.items()}
            self._status, self._texts = CaseStatus.PASSED, []
        elif self._case is not None and not self._kind and name in _TEXTS | _STATUS.keys():
            self._kind, self._message = name, (attributes.get("message") or attributes.get("type") or "")[:MAX_MESSAGE]
            self._pieces, self._length = [], 0
            status = _STATUS.get(name)
            order = list(CaseStatus)
            if status and order.index(CaseStatus(status)) < order.index(self._status):
                self._status = CaseStatus(status)

    def data(self, data: Any) -> None:
        text: str = data
        if self._kind:
            if self._length < MAX_TEXT:
                self._pieces.append(text[: MAX_TEXT - self._length])
            self._length += len(text)

    def end(self, tag: Any) -> None:
        name = tag.rpartition("}")[2]
        if name == self._kind:
            text = "".join(self._pieces)
            if text.strip() or self._message:
                cut = self._length - len(text)
                if len(self._texts) < MAX_TEXTS:
                    self._texts.append(CaseOutput(kind=name, message=self._message, text=text, cut=cut))
            self._kind = ""
        elif name == "testsuite":
            if self._suites:
                self._suites.pop()
        elif name == "testcase" and self._case is not None:
            attributes, self._case = self._case, None
            self._reader.add(
                ReportCase(
                    suite=self._suites[-1] if self._suites else "",
                    classname=attributes.get("classname", ""),
                    name=attributes.get("name", ""),
                    status=self._status,
                    time=_number(attributes.get("time", "")),
                    file=attributes.get("file", ""),
                    line=attributes.get("line", ""),
                    texts=tuple(self._texts),
                )
            )

    def comment(self, text: Any) -> None:
        """Skip a comment."""

    def close(self) -> None:
        """Return nothing: the reader has the page."""


def _number(text: str) -> float | None:
    try:
        found = float(text.replace(",", ""))
    except ValueError:
        return None
    return found if 0 <= found < 1e9 else None


# -- colors of terminals -----------------------------------------------------------------------------------------

_COLOR = re.compile(r"(?:\x1b|␛|#x1[bB]|\\x1[bB]|\\u001[bB]|&#27;|\\e|\\033)?\[([0-9]{1,3}(?:;[0-9]{1,3}){0,4})?m")
_OTHER_SEQUENCE = re.compile(r"(?:\x1b|␛|#x1[bB]|\\x1[bB]|\\u001[bB])\[[0-9;?]*[A-Za-ln-z]")
_FOREGROUND = range(30, 38)
_BRIGHT = range(90, 98)
BOLD, DIM, UNDERLINED = 1, 2, 4


def colored(text: str) -> Iterator[tuple[str, str]]:
    """Yield pieces of `text` with the classes of their terminal colors (`c1 bold`), without the control sequences.

    XML cannot hold the escape character, so writers replace or omit it: each of these forms is understood.
    """
    classes: dict[str, str] = {}
    position = 0
    text = _OTHER_SEQUENCE.sub("", text)
    for match in itertools.islice(_COLOR.finditer(text), MAX_COLORS):
        if match.start() > position:
            yield text[position : match.start()], " ".join(classes.values())
        position = match.end()
        for code in map(int, (match[1] or "0").split(";")):
            if code == 0:
                classes = {}
            elif code in _FOREGROUND or code in _BRIGHT:
                classes["color"] = f"c{code % 10}"
            elif code == BOLD:
                classes["weight"] = "bold"
            elif code == DIM:
                classes["weight"] = "dim"
            elif code == UNDERLINED:
                classes["line"] = "under"
    if position < len(text):
        yield text[position:], " ".join(classes.values())
