"""docs/promises.md holds what it says: eight promises, twenty faults, and each test that it names exists.

So does each test that docs/threat-model.md names.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "promises.md").read_text(encoding="utf-8")
THREATS = (REPOSITORY / "docs" / "threat-model.md").read_text(encoding="utf-8")
PROMISES, _, FAULTS = PAGE.partition("## The faults\n")
NODE_ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_in(path: str) -> set[str]:
    """Return the names of the tests in a file; none where there is no such file."""
    file = REPOSITORY / path
    tree = ast.parse(file.read_text(encoding="utf-8") if file.exists() else "")
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("path", "name"), sorted(set(NODE_ID.findall(PAGE + THREATS))))
def test_every_test_that_guards_a_promise_exists(path, name):
    assert name in names_in(path)


def test_nothing_else_looks_like_a_test_here():
    assert len(re.findall(r"test_\w+\.py::", PAGE + THREATS)) == len(NODE_ID.findall(PAGE + THREATS))


@pytest.mark.parametrize("number", range(1, 9))
def test_each_promise_is_guarded(number):
    [section] = re.findall(rf"(?ms)^### {number}\. (.*?)(?=^### |\Z)", PROMISES)
    assert NODE_ID.search(section)


@pytest.mark.parametrize("number", range(1, 21))
def test_each_fault_says_what_was_taken_away_and_which_test_failed(number):
    rows = re.findall(rf"(?m)^\| \*\*{number}\. .*\n(?:\| \| .*\n)*", FAULTS)
    assert len(rows) == 1
    for row in rows[0].splitlines():
        _, _, taken, fails, _ = row.split("|")
        assert re.search(r"`bridge/[\w/]+\.py`", taken), row
        assert NODE_ID.search(fails), row


def test_there_are_no_more_than_are_looked_at_here():
    assert re.findall(r"(?m)^### (\d+)\. ", PROMISES) == [str(number) for number in range(1, 9)]
    assert re.findall(r"(?m)^\| \*\*(\d+)\. ", FAULTS) == [str(number) for number in range(1, 21)]
