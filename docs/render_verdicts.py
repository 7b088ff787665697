"""Renders docs/verdicts.md: what the gate says of real reports and of made ones, and what other readers say of them.

`make verdicts CORPUS=folder` runs it. It knows no rule of the gate; of the corpus the page holds names, verdicts and
counts only.
"""
# ruff: noqa: INP001 -- docs/ is no package; run as `python -m docs.render_verdicts`

import argparse
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET  # the reader that is compared with, on files at hand

from junitparser import JUnitXml, JUnitXmlError

from bridge.domain.build import SECOND
from bridge.domain.junit.repair.repair import repair
from bridge.domain.junit.result import Invalid
from bridge.domain.junit.validator import TestCounts, Valid, check
from bridge.domain.text_format import counted
from docs.made_reports import MADE

PAGE = Path(__file__).with_name("verdicts.md")

HEAD = """\
# What the gate says

This page is rendered by `docs/render_verdicts.py`: `make verdicts CORPUS=folder` writes it anew.

Every row is one file. **gate** is the verdict of an upload and of `bridge check`, counts are taken from the cases
themselves; **repair** is what a route with `repair = true` makes of a refused file. Beside it stand three readers that
tools for JUnit reports are built on, each given the same bytes: `xml.etree` of the standard library, `junitparser`, and
reading up to the first tag, as tools do that only ask "is this a report?". "yes" means that
they take the file, with the number of cases where they count any.

"""
REAL = """\
## Reports of real projects

{count} files of the fixtures of [dorny/test-reporter](https://github.com/dorny/test-reporter) and
[mikepenz/action-junit-report](https://github.com/mikepenz/action-junit-report).

"""
GENERATED = """
## Reports that were made for this page

What those projects hold no example of, and every CI meets; `docs/made_reports.py` makes them.

"""
COLUMNS = """\
| file | gate | repair | xml.etree | junitparser | first tag |
|---|---|---|---|---|---|
"""
NO: Final = "no"


def page(corpus: Path) -> str:
    """Return the whole of docs/verdicts.md."""
    files = {str(path.relative_to(corpus)): path.read_bytes() for path in sorted(corpus.rglob("*.xml"))}
    return HEAD + REAL.format(count=len(files)) + table(files) + GENERATED + table(MADE)


def table(files: Mapping[str, bytes]) -> str:
    """Return the rows of these files, by name."""
    return COLUMNS + "".join(f"| {' | '.join(_cells(name, data))} |\n" for name, data in files.items())


def _cells(name: str, data: bytes) -> Iterator[str]:
    yield f"`{name}`"
    yield _gate(data)
    yield _repair(data)
    for reads in (_etree, _junitparser, _first_tag):
        yield reads(data)


def _gate(data: bytes) -> str:
    verdict = check(data)
    if isinstance(verdict, Invalid):
        return f"**no**: {_escaped(verdict.found)}"
    return "; ".join([_counts(verdict.counts), *map(_escaped, verdict.notes)])


def _repair(data: bytes) -> str:
    if isinstance(check(data), Valid):
        return ""
    mended = repair(lambda: iter([data]))
    return (
        NO if isinstance(mended, Invalid) else f"{_counts(mended.accepted.counts)}. {_escaped(' '.join(mended.done))}"
    )


def _counts(counts: TestCounts) -> str:
    told = [counted(counts.suites, "suite"), counted(counts.tests, "test")]
    told += [
        counted(number, noun) for noun, number in (("failure", counts.failures), ("error", counts.errors)) if number
    ]
    told += [
        f"{number} {outcome}" for outcome, number in (("skipped", counts.skipped), ("flaky", counts.flaky)) if number
    ]
    return ", ".join([*told, f"{counts.time_us / SECOND:.3f} s"])


def _etree(data: bytes) -> str:
    return _says(lambda: ET.fromstring(data) is not None, ET.ParseError, ValueError)  # noqa: S314 -- compared with on purpose


def _junitparser(data: bytes) -> str:
    def cases() -> str:
        report = JUnitXml.fromstring(data)  # a TestSuite where the root is one
        suites = list(report) if type(report) is JUnitXml else [report]
        return f"yes, {counted(sum(1 for suite in suites for _ in suite), 'test')}"  # nested suites are in

    return _says(cases, JUnitXmlError, SyntaxError, ValueError)


def _first_tag(data: bytes) -> str:
    def root_is_junit() -> bool:
        _, root = next(ET.iterparse(BytesIO(data), events=("start",)))  # noqa: S314 -- compared with on purpose
        return str(root.tag) in {"testsuite", "testsuites"}

    return _says(root_is_junit, SyntaxError, ValueError, StopIteration)


def _says(read: Callable[[], str | bool], *faults: type[Exception]) -> str:
    try:
        said = read()
    except faults:
        return NO
    return said if isinstance(said, str) else ("yes" if said else NO)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="the folder with reports of real projects")
    PAGE.write_text(page(parser.parse_args().corpus), encoding="utf-8")
