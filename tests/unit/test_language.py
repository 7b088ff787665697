"""The code base speaks one language and has no crumbs: guards that keep it so.

`python -m tools.language` prints every finding with its place.
"""

import ast

import pytest

from tools.language import (
    REPOSITORY,
    TINY_LINES,
    banned_in,
    banned_words,
    comments,
    docstrings,
    duplicate_classes,
    modules,
    tiny_modules,
)
from tools.language import messages as strings

SMALL_FOR_A_REASON: dict[str, str] = {}
"""Modules of less than 40 lines with one importer that stay on their own, and why."""


def test_no_docstring_comment_message_or_page_has_a_banned_word():
    assert [str(finding) for finding in banned_words()] == []


def test_no_two_public_classes_have_one_name():
    assert duplicate_classes() == {}


def test_no_module_is_tiny_and_serves_one_other_alone():
    found = {name: importer for name, importer in tiny_modules().items() if name not in SMALL_FOR_A_REASON}
    assert found == {}, f"Merge each module of less than {TINY_LINES} lines into the only one that imports it."


def test_each_exception_is_still_needed():
    assert SMALL_FOR_A_REASON.keys() <= tiny_modules().keys()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Send it anew.", ["anew"]),
        ("Whoever asks", ["whoever"]),
        ("It knows\nneither", ["knows neither"]),
        ("Mended by a CARRIER", ["mend", "carrier"]),
        ("a post-office word", ["post office"]),
        ("We recommend and amend; a canon; mend-ish", []),
        ("if the client sends it again", []),
    ],
)
def test_the_scan_finds_whole_words_in_any_case(text, found):
    assert sorted(word for _, word in banned_in(text)) == sorted(found)


def test_the_scan_names_the_line():
    assert list(banned_in("one\ntwo\nthree anew", first_line=10)) == [(12, "anew")]


SOURCE = '''"""The docstring."""

# a comment that
# goes on
LIMIT = 3  # of a line
"""About LIMIT."""


def f(x):
    """What f does."""
    raise ValueError(f"a message of {x}" "in two parts")
'''


def test_docstrings_comments_and_messages_are_told_apart():
    tree = ast.parse(SOURCE)
    assert [each.text for each in docstrings(tree)] == ["The docstring.", "About LIMIT.", "What f does."]
    assert [(each.line, each.text) for each in comments(SOURCE)] == [(3, "a comment that\ngoes on\nof a line")]
    assert {each.text for each in strings(tree)} == {"a message of ", "in two parts"}


def test_every_module_of_the_package_is_measured():
    found = modules()
    assert {"bridge", "bridge.cli", "bridge.errors"} <= {module.name for module in found}
    assert {module.path for module in found} == set((REPOSITORY / "bridge").rglob("*.py"))
    assert sum(module.lines for module in found) > 10_000
