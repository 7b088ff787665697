"""Rules for the names of cases: what they change, what they refuse, what they count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.junit.rewrite_rules import MAX_REWRITTEN, NameRewriter, RewriteRule, RuleFault, compile_rule


def rule(pattern: str, replacement: str = "", attribute: str = "name") -> RewriteRule:
    return RewriteRule(attribute=attribute, pattern=pattern, replacement=replacement)


def renamed(name: str, *rules: RewriteRule) -> str:
    return NameRewriter(rules).rewrite({"classname": "C", "name": name})["name"]


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "after"),
    [
        ("at 12:00:01", r"[0-9:]+", "TIME", "at TIME"),
        ("a (2)", r" \([0-9]+\)$", "", "a"),
        ("Chrome 120.0.1 (Linux)", r"Chrome [0-9.]+", "Chrome", "Chrome (Linux)"),
        ("id-7f", r"(id)-([0-9a-f]+)", r"\1 \g<1>", "id id"),
        ("登录 12", r"[0-9]+", "第\\\\N", "登录 第\\N"),
        ("x", r"(?P<all>.+)", r"\g<all>!", "x!"),
        ("ab", r"(a)|(b)", r"[\2]", "[][b]"),
    ],
)
def test_every_match_is_replaced(name: str, pattern: str, replacement: str, after: str) -> None:
    assert renamed(name, rule(pattern, replacement)) == after


def test_rules_are_applied_in_order_and_each_to_its_attribute() -> None:
    names = NameRewriter([rule("1", "2"), rule("2", "3"), rule("C", "D", "classname")])
    assert names.rewrite({"classname": "C1", "name": "1"}) == {"classname": "D1", "name": "3"}
    assert names.changes() == ("Names rewritten: 1 by rule 1, 1 by rule 2, 1 by rule 3.",)


def test_names_that_become_equal_are_named_once() -> None:
    names = NameRewriter([rule("[0-9]+", "N")])
    for name in ("row 1", "row 2", "row 3", "row 1", "other"):
        names.rewrite({"classname": "C", "name": name})
    assert names.equal_count == 1
    assert names.equal == ["C row N"]
    assert "same name" in names.changes()[1]


def test_a_case_that_was_repeated_before_is_no_collision() -> None:
    names = NameRewriter([rule("[0-9]+", "N")])
    for _ in range(2):
        names.rewrite({"classname": "C", "name": "row 1"})
    assert not names.equal_count


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(a|a)*b", "(.*)*x$"])
def test_patterns_that_backtrack_in_other_engines_end_soon(pattern: str) -> None:
    name = "a" * MAX_REWRITTEN
    assert renamed(f"{name[:-1]}!", rule(pattern, "N"))


def test_nothing_is_left_without_a_name() -> None:
    names = NameRewriter([rule(".*")])
    assert names.rewrite({"name": "only"})["name"] == "only"
    assert names.left_empty == 1


def test_a_name_that_is_too_long_is_left_as_it_is() -> None:
    assert renamed("a" * (MAX_REWRITTEN + 1), rule("a", "bb")) == "a" * (MAX_REWRITTEN + 1)


@pytest.mark.parametrize(
    ("pattern", "replacement", "setting"),
    [
        ("(", "", "pattern"),
        ("", "", "pattern"),
        ("a(?=b)", "", "pattern"),
        (r"(a)\1", "", "pattern"),
        ("(((a{1,100}){1,100}){1,100})", "", "pattern"),
        ("a" * 501, "", "pattern"),
        ("a\n", "", "pattern"),
        ("a", r"\1", "replacement"),
        ("(a)", r"\2", "replacement"),
        ("(a)", r"\g<name>", "replacement"),
        ("a", "\\", "replacement"),
        ("a", "b" * 201, "replacement"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_setting(pattern: str, replacement: str, setting: str) -> None:
    with pytest.raises(RuleFault) as fault:
        compile_rule(rule(pattern, replacement))
    assert fault.value.setting == setting
    assert fault.value.fault.endswith(".")
    assert fault.value.remedy.endswith(".")


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50))
def test_any_rule_is_refused_or_gives_a_name(pattern: str, replacement: str, name: str) -> None:
    try:
        names = NameRewriter([rule(pattern, replacement)])
    except RuleFault:
        return
    found = names.rewrite({"name": name})
    assert found["name"] or not name
