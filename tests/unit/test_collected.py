"""Every test runs: pytest collects functions at the top level of files named test_*.py, and the last one of a name."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def named_as_tests(node: ast.AST) -> Iterator[str]:
    """Yield the names of the functions below `node` that begin with `test_`."""
    for each in ast.walk(node):
        if isinstance(each, Function) and each.name.startswith("test_"):
            yield each.name


def never_run(source: str, *, is_collected: bool) -> list[str]:
    """Return the names of tests in a file that pytest does not collect."""
    tree = ast.parse(source)
    top = [each.name for each in tree.body if isinstance(each, Function)] if is_collected else []
    return sorted((Counter(named_as_tests(tree)) - Counter(set(top))).elements())


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(TESTS)) for path in FILES])
def test_every_test_is_collected(path):
    assert never_run(path.read_text(encoding="utf-8"), is_collected=path.name.startswith("test_")) == []


def test_a_test_in_a_class_a_function_or_another_file_and_a_name_that_is_taken_are_found():
    in_class = "class TestThings:\n    def test_a(self): ...\n"
    in_function = "def test_a():\n    def test_b(): ...\n"
    assert never_run(in_class, is_collected=True) == ["test_a"]
    assert never_run(in_function, is_collected=True) == ["test_b"]
    assert never_run("def test_a(): ...\ndef test_a(): ...\n", is_collected=True) == ["test_a"]
    assert never_run("async def test_a(): ...\n", is_collected=False) == ["test_a"]
    assert never_run("async def test_a(): ...\ndef test_b(): ...\n", is_collected=True) == []
