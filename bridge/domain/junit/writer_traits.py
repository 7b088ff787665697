"""Reads what a report shows of the runner that wrote it: `WriterTraits`, and the types of the table in writers.py."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final, NamedTuple

from bridge.domain.junit.counter import local_name
from bridge.domain.text_format import counted
from bridge.values import dataclass

MAX_TEXT: Final = 4096  # characters kept of a failure's text; the words that are looked for stand at its beginning
MAX_PROPERTIES: Final = 100  # names kept; runners write their own first
SUITE_TAGS: Final = frozenset({"testsuites", "testsuite"})
CASE_PARENTS: Final = SUITE_TAGS | {"undefined"}  # node:test writes cases into an element of that name
RED: Final = frozenset({"failure", "error"})
TOTALS: Final = ("failures", "errors", "skipped")

Attributes = Mapping[str, str]


class Outcome(NamedTuple):
    """A child of a case: failure, error, skipped, or an element of the runner's own."""

    tag: str
    attributes: Attributes


@dataclass(kw_only=True, slots=True)
class Case:
    """A test case as it is read; `text` is the beginning of the texts of its outcomes."""

    attributes: Attributes
    suite: Attributes
    previous: "Case | None"  # without a previous one of its own
    outcomes: list[Outcome] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    text: str = ""

    @property
    def name(self) -> str:
        """Return the name, empty if there is none."""
        return self.attributes.get("name", "")

    @property
    def classname(self) -> str:
        """Return the class name, empty if there is none."""
        return self.attributes.get("classname", "")

    def has(self, *tags: str) -> bool:
        """Return whether one of the outcomes has one of these tags."""
        return any(outcome.tag in tags for outcome in self.outcomes)

    def states(self, tag: str, attribute: str, *values: str) -> bool:
        """Return whether an outcome `tag` has one of `values` as `attribute`."""
        return any(one.tag == tag and one.attributes.get(attribute) in values for one in self.outcomes)


@dataclass(kw_only=True, slots=True)
class Facts:
    """What is known of a file: all of it after its end, the first four fields and the first suite and case before."""

    root: str = ""
    root_attributes: Attributes = field(default_factory=dict)
    comment: str = ""  # before the root
    properties: dict[str, str] = field(default_factory=dict)
    suite: Attributes = field(default_factory=dict)  # the first one, which may be the root
    case: Case | None = None  # the first one
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)  # cases by outcome, a case once for each tag
    claims: Counter[str] = field(default_factory=Counter)  # totals in the attributes of the outermost element with any

    @property
    def keys(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Return the names of the attributes of root, first suite and first case, in the order of the file."""
        return tuple(self.root_attributes), tuple(self.suite), tuple(self.case.attributes) if self.case else ()

    def unwritten(self, total: str, *tags: str) -> int:
        """Return how many more cases than are in the file the total counts."""
        return max(0, self.claims[total] - sum(self.outcomes[tag] for tag in tags))


class Trait(NamedTuple):
    """What a reader of the report takes wrongly, and how the file shows it: one of `case` and `file` is set.

    `case` marks cases, which are counted. `file` returns the number of cases concerned, True if it concerns none in
    particular, and 0 or False if the file does not show the trait.
    """

    found: str
    remedy: str
    case: Callable[[Case], bool] | None = None
    file: Callable[[Facts], int] | None = None


class Writer(NamedTuple):
    """A runner or reporter; `wrote` is true only for files that no other known one writes."""

    name: str
    wrote: Callable[[Facts], bool]
    traits: tuple[Trait, ...]


class WriterTraits:
    """Target of an lxml parser; `finish` returns the sentences. Memory is that of two cases."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = writers
        self._facts = Facts()
        self._writer: Writer | None = None
        self._found: dict[Trait, int] = {}
        self._path: list[str] = []
        self._suites: list[Attributes] = []
        self._claiming = 0  # depth of the elements whose totals are counted
        self._case: Case | None = None
        self._previous: Case | None = None

    def start(self, tag: str, attributes: Attributes) -> None:
        """Take a start tag."""
        name = local_name(tag)
        parent = self._path[-1] if self._path else ""
        self._path.append(name)
        if name in SUITE_TAGS:
            self._start_suite(name, dict(attributes))
        elif name == "testcase" and parent in CASE_PARENTS:
            self._start_case(dict(attributes))
        elif self._case is not None and parent == "testcase":
            self._case.outcomes.append(Outcome(name, dict(attributes)))
        elif name == "property" and len(self._facts.properties) < MAX_PROPERTIES:
            self._facts.properties.setdefault(attributes.get("name", ""), attributes.get("value", ""))
        elif name == "undefined":
            self._facts.outcomes[name] += 1

    def end(self, tag: str) -> None:
        """Take an end tag."""
        self._path.pop()
        name = local_name(tag)
        if name in SUITE_TAGS and self._suites:
            self._suites.pop()
        elif name == "testcase" and self._case is not None and self._path[-1] in CASE_PARENTS:
            self._end_case(self._case)

    def data(self, text: str) -> None:
        """Take text; only that of outcomes is kept."""
        case = self._case
        if case is not None and len(case.text) < MAX_TEXT and self._path[-1] in RED:
            case.text += text[:MAX_TEXT]

    def comment(self, text: str) -> None:
        """Take a comment."""
        if self._case is not None:
            self._case.comments.append(text[:MAX_TEXT])
        elif not self._path:
            self._facts.comment = text[:MAX_TEXT]

    def close(self) -> None:
        """Do nothing; lxml calls it on every target."""

    def finish(self) -> tuple[str, ...]:
        """Return the sentences; call it after the whole document was read."""
        writer = self._writer or self._writer_of_file()
        if writer is None:
            return ()
        for trait in writer.traits:
            if trait.file is not None and (number := trait.file(self._facts)):
                self._found[trait] = number
        return tuple(self._sentences(writer))

    def _start_suite(self, tag: str, attributes: Attributes) -> None:
        facts = self._facts
        if not facts.root:
            facts.root, facts.root_attributes = tag, attributes
        if tag == "testsuite":
            facts.suite = facts.suite or attributes
        totals = {name: attributes[name] for name in TOTALS if name in attributes}
        depth = len(self._path)
        if totals and (not self._claiming or depth == self._claiming):
            self._claiming = depth
            facts.claims.update({name: int(value) for name, value in totals.items() if value.strip().isdecimal()})
        self._suites.append(attributes)

    def _start_case(self, attributes: Attributes) -> None:
        self._case = Case(attributes=attributes, suite=self._suites[-1], previous=self._previous)
        if self._facts.case is None:
            self._facts.case = self._case
            self._writer = self._writer_of_file()

    def _end_case(self, case: Case) -> None:
        self._facts.cases += 1
        self._facts.outcomes.update({outcome.tag for outcome in case.outcomes})
        for trait in self._writer.traits if self._writer else ():
            if trait.case is not None and trait.case(case):
                self._found[trait] = self._found.get(trait, 0) + 1
        case.previous, self._previous, self._case = None, case, None

    def _writer_of_file(self) -> Writer | None:
        return next((writer for writer in self._writers if writer.wrote(self._facts)), None)

    def _sentences(self, writer: Writer) -> Iterator[str]:
        for trait in writer.traits:
            if number := self._found.get(trait, 0):
                cases = "" if number is True else f" ({counted(number, 'test')})"
                yield f"written by {writer.name}: {trait.found}{cases}. {trait.remedy}"
