"""Render docs/verdicts.md: the verdicts of validation and of other readers on real and generated reports.

Run by `make verdicts CORPUS=folder`. If files come from the corpus, the page holds only names, verdicts and counts.
"""
# ruff: noqa: INP001 -- docs/ is no package; run as `python -m docs.render_verdicts`

import argparse
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET  # one of the readers compared, on local files

from junitparser import JUnitXml, JUnitXmlError

from bridge.domain.instants import SECOND
from bridge.domain.junit.repair.repair import repair
from bridge.domain.junit.result import Invalid
from bridge.domain.junit.validator import TestCounts, Valid, validate_bytes
from bridge.domain.text_format import counted
from docs.made_reports import MADE

PAGE = Path(__file__).with_name("verdicts.md")

HEAD = """\
# How validation judges reports

This page is rendered by `docs/render_verdicts.py`. `make verdicts CORPUS=folder` renders it again.

Every row is one file. **validation** is the verdict for an upload and of `bridge check`, with counts taken from the
cases; **repair** is the result for a rejected file if the route has `repair = true`. The other columns show readers
that tools for JUnit reports use, given the same bytes: `xml.etree` of the standard library, `junitparser`, and reading
up to the first tag, as tools do that only check whether a file is a report. "yes" means that the reader accepts the
file; the number of cases follows if the reader counts them.

"""
REAL = """\
## Reports of real projects

{count} files of the fixtures of [dorny/test-reporter](https://github.com/dorny/test-reporter) and
[mikepenz/action-junit-report](https://github.com/mikepenz/action-junit-report).

"""
GENERATED = """
## Generated reports

Cases that every CI meets and those projects have no example of. `docs/made_reports.py` generates them.

"""
COLUMNS = """\
| file | validation | repair | xml.etree | junitparser | first tag |
|---|---|---|---|---|---|
"""
NO: Final = "no"


def page(corpus: Path) -> str:
    """Return the content of docs/verdicts.md."""
    files = {str(path.relative_to(corpus)): path.read_bytes() for path in sorted(corpus.rglob("*.xml"))}
    return HEAD + REAL.format(count=len(files)) + table(files) + GENERATED + table(MADE)


def table(files: Mapping[str, bytes]) -> str:
    """Return the table of these files, given as name and content."""
    return COLUMNS + "".join(f"| {' | '.join(_cells(name, data))} |\n" for name, data in files.items())


def _cells(name: str, data: bytes) -> Iterator[str]:
    yield f"`{name}`"
    yield _validation(data)
    yield _repair(data)
    for reads in (_etree, _junitparser, _first_tag):
        yield reads(data)


def _validation(data: bytes) -> str:
    verdict = validate_bytes(data)
    if isinstance(verdict, Invalid):
        return f"**no**: {_escaped(verdict.found)}"
    return "; ".join([_counts(verdict.counts), *map(_escaped, verdict.notes)])


def _repair(data: bytes) -> str:
    if isinstance(validate_bytes(data), Valid):
        return ""
    result = repair(lambda: iter([data]))
    return (
        NO if isinstance(result, Invalid) else f"{_counts(result.accepted.counts)}. {_escaped(' '.join(result.done))}"
    )


def _counts(counts: TestCounts) -> str:
    parts = [counted(counts.suites, "suite"), counted(counts.tests, "test")]
    parts += [
        counted(number, noun) for noun, number in (("failure", counts.failures), ("error", counts.errors)) if number
    ]
    others = (("skipped", counts.skipped), ("disabled", counts.disabled), ("flaky", counts.flaky))
    parts += [f"{number} {outcome}" for outcome, number in others if number]
    return ", ".join([*parts, f"{counts.time_us / SECOND:.3f} s"])


def _etree(data: bytes) -> str:
    return _reads(lambda: ET.fromstring(data) is not None, ET.ParseError, ValueError)  # noqa: S314 -- compared on purpose


def _junitparser(data: bytes) -> str:
    def cases() -> str:
        report = JUnitXml.fromstring(data)  # a TestSuite if that is the root
        suites = list(report) if type(report) is JUnitXml else [report]
        return f"yes, {counted(sum(1 for suite in suites for _ in suite), 'test')}"  # includes nested suites

    return _reads(cases, JUnitXmlError, SyntaxError, ValueError)


def _first_tag(data: bytes) -> str:
    def root_is_junit() -> bool:
        _, root = next(ET.iterparse(BytesIO(data), events=("start",)))  # noqa: S314 -- compared on purpose
        return str(root.tag) in {"testsuite", "testsuites"}

    return _reads(root_is_junit, SyntaxError, ValueError, StopIteration)


def _reads(read: Callable[[], str | bool], *faults: type[Exception]) -> str:
    try:
        result = read()
    except faults:
        return NO
    return result if isinstance(result, str) else ("yes" if result else NO)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="the folder with reports of real projects")
    PAGE.write_text(page(parser.parse_args().corpus), encoding="utf-8")
