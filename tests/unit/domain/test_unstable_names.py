"""Names that change from build to build: each kind that real runners write is found, named and cured by its rule."""

import random
import tomllib
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridge.domain.junit.case_digest import FIELD, read_digest
from bridge.domain.junit.result import Valid
from bridge.domain.junit.rewrite_rules import NameRewriter, RewriteRule
from bridge.domain.junit.validator import validate_bytes
from bridge.domain.unstable_names import MAX_FINDINGS, UnstableNames, find_unstable_names


def build(*names: str, classname: str = "shop.Cart") -> list[str]:
    return [name if FIELD in name else f"{classname}{FIELD}{name}" for name in names]


def rewritten(rules: list[RewriteRule], identities: list[str]) -> set[str]:
    names = NameRewriter(rules)
    found = set()
    for identity in identities:
        classname, _, name = identity.partition(FIELD)
        case = names.rewrite({"classname": classname, "name": name})
        found.add(f"{case['classname']}{FIELD}{case['name']}")
    return found


def rules_of(found: list[UnstableNames]) -> list[RewriteRule]:
    """Return the rules as they are read from the settings that a person pastes."""
    text = "\n".join(each.trial.toml for each in found if each.trial is not None)
    return [RewriteRule(**rule) for rule in tomllib.loads(text)["routes"]["rewrite"]] if text else []


CHANCE = random.Random(7)
HASHES = ("1b28cdfa", "12345678", "6d06d69c", "2a139a55")
NANOIDS = ("V1StGXR8_Z5jdHi6B-myT", "Uakgb_J5m9g-0JDMbcJqL", "IRFa-VaY2b_kqTzFxPwEa", "3z4AV-2xUq_bnmLkOpEaa")
COMMITS = ("9fceb02d", "1c002dd4", "5e0bd9ab", "a94a8fe5")


def letters(length: int) -> str:
    return "".join(CHANCE.choices("abcdefghijkmnpqrstuvwxyz", k=length))


CHANGING: dict[str, tuple[str, Callable[[int], list[str]]]] = {
    "timestamp": (
        "a date with a time",
        lambda n: build("ok", f"row at 2026-11-{n + 10} 12:00:0{n}", f"b 2026-11-{n + 10}T01:02:03Z"),
    ),
    "compact timestamp": ("a date with a time", lambda n: build("ok", f"run_20261129_12000{n}")),
    "asctime": ("a date with a time", lambda n: build("ok", f"at Sun Nov 29 23:1{n}:48 2026")),
    "german date and time": ("a date with a time", lambda n: build("ok", f"Lauf 29.11.2026 12:0{n}:01")),
    "epoch": ("a time as seconds since 1970", lambda n: build("ok", f"user_{1764000000 + n * 977}", "other")),
    "milliseconds": ("a time as seconds since 1970", lambda n: build("ok", f"user_{1764000000123 + n * 977}")),
    "date": ("a date", lambda n: build("ok", f"report of 2026-11-2{n}")),
    "time": ("a time of day", lambda n: build("ok", f"starts 12:0{n}")),
    "uuid": ("a UUID", lambda n: build("ok", f"order {uuid.UUID(int=n * 7**40 % 2**128)} is paid")),
    "address": ("an address in memory", lambda n: build("ok", f"f[<function f at 0x7f3a{n}c0de1{n}>]")),
    "java object": ("a hexadecimal id", lambda n: build("ok", f"accepts Order@{0x6D06D69C + n * 7919:x}")),
    "object of digits": ("a hexadecimal id", lambda n: build("ok", f"accepts Order@{HASHES[n]}")),
    "browser": (
        "a version",
        lambda n: build(*(f"Chrome {120 + n}.0.6099.7{n} (Linux x86_64).cart{FIELD}adds {i}" for i in range(4))),
    ),
    "two browsers": (
        "a version",
        lambda n: build(*(f"{b} {120 + n}.0 (Linux){FIELD}adds {i}" for i in range(4) for b in ("Firefox", "Chrome"))),
    ),
    "snapshot": ("a version", lambda n: build("ok", f"api 1.4.{n}-SNAPSHOT answers")),
    "port": (
        "a port",
        lambda n: build(
            "ok", f"GET http://localhost:{34000 + n * 17}/health", f"GET http://localhost:{34000 + n * 17}/ready"
        ),
    ),
    "temporary folder": ("a temporary path", lambda n: build("ok", f"reads /tmp/pytest-of-ci/pytest-{n + 3}/a.txt")),
    "temporary file": ("a temporary path", lambda n: build("ok", f"reads /tmp/tmp{letters(6)}_{n}/a.txt")),
    "temporary name": ("a temporary name", lambda n: build("ok", f"reads tmp{letters(7)}{n} twice")),
    "counter behind names": ("a number", lambda n: build("foo", f"foo ({n + 2})", f"bar ({n + 7})")),
    "begin": ("a number", lambda n: build(f"begin {n + 3} adds", f"begin {n + 5} pays")),
    "duration": ("a duration", lambda n: build("ok", f"fast (0.1{n}s)", f"slow (1.{n} s)")),
    "random id": ("a random id", lambda n: build("ok", f"user u{letters(3)}{n}{letters(4)}Z logs in")),
    "random letters": ("a random id", lambda _: build("ok", f"user {letters(9)} logs in")),
    "chinese": ("a number", lambda n: build("好", f"订单{4711 + n * 31}已支付")),
    "chinese date and time": ("a date with a time", lambda n: build("好", f"2026年11月29日 12时0{n}分01秒 订单")),
    "chinese date": ("a date", lambda n: build("好", f"2026年11月2{n}日的订单")),
    "minutes and seconds": ("a duration", lambda n: build("ok", f"import (1m3{n}s)")),
    "chinese duration": ("a duration", lambda n: build("好", f"登录 用时 1{n} 毫秒")),
    "address of a host": ("an IP address", lambda n: build("ok", f"GET http://10.0.{n}.17/health")),
    "decimal": ("a number", lambda n: build("ok", f"draws 0.63{n}94{n}")),
    "float": ("a number", lambda n: build("ok", f"draws 1.234{n}e-0{n + 2} twice")),
    "uuid with underscores": (
        "a UUID",
        lambda n: build("ok", f"t_{uuid.UUID(int=n * 7**40 % 2**128)}".replace("-", "_")),
    ),
    "nanoid": ("a random id", lambda n: build("ok", f"user {NANOIDS[n]} logs in")),
    "worker": ("a number", lambda n: build("ok", f"runs on gw{n}")),
    "both names": ("a time of day", lambda n: build("ok", f"at 12:0{n}:00", classname=f"Run 12:0{n}:00")),
    "commit": ("a hexadecimal id", lambda n: build("ok", f"image app:{COMMITS[n]} starts")),
}


@pytest.mark.parametrize("case", CHANGING)
def test_what_changes_is_named_and_its_rule_keeps_the_names_the_same(case: str) -> None:
    noun, names = CHANGING[case]
    builds = [names(number) for number in range(4)]
    found = find_unstable_names(builds)
    assert noun in found[0].sentence
    assert found[0].before != found[0].after
    assert found[0].trial is not None
    rules = rules_of(found)
    assert rewritten(rules, builds[0]) == rewritten(rules, builds[1]) == rewritten(rules, builds[3])
    assert found[0].trial.equal == 0
    assert len(rewritten(rules, builds[0])) == len(builds[0])


SAMPLES = Path(__file__).parents[2] / "samples" / "writers"


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("karma-junit-reporter-2.0.xml", "156_0_0_0", "157_0_0_0"),
        ("wdio-9.xml", "156_0_8078_108", "157_0_8123_77"),
    ],
)
def test_a_new_browser_is_found_in_what_real_runners_wrote(file: str, before: str, after: str) -> None:
    body = (SAMPLES / file).read_bytes()
    builds = []
    for version in (before, before, after, after):
        result = validate_bytes(body.replace(before.encode(), version.encode()))
        assert isinstance(result, Valid)
        builds.append([case.identity for case in read_digest(result.case_digest).cases])
    (found,) = find_unstable_names(builds)
    assert (found.attribute, found.kind, found.changes) == ("classname", "version", 1)
    assert found.trial is not None
    assert found.trial.cured == found.trial.changed == len(set(builds[0]) - set(builds[3]))
    assert not found.trial.equal
    rules = rules_of([found])
    assert rewritten(rules, builds[0]) == rewritten(rules, builds[3])


STABLE = {
    "the same": lambda _: build("a 1", "b 2026-11-29", "c"),
    "one more parameter in each build": lambda n: build(*(f"row[{i}]" for i in range(3 + n))),
    "a test that is added": lambda n: build("a", *(("new",) if n else ())),
    "a test that is renamed once": lambda n: build("a", "pays by card" if n < 2 else "pays by gift"),
    "parameters that look like versions": lambda n: build(
        "python 3.11", "python 3.12", *(("python 3.13",) if n > 1 else ())
    ),
    "a part of the tests": lambda n: (
        build(*(f"row {i}" for i in range(n * 3, n * 3 + 6))) if n == 2 else build("row 6", "row 7")
    ),
    "nothing": lambda _: [],
}


@pytest.mark.parametrize("case", STABLE)
def test_names_that_change_for_a_reason_are_left_alone(case: str) -> None:
    assert find_unstable_names([STABLE[case](number) for number in range(4)]) == []


def test_a_new_browser_is_found_in_the_one_build_that_has_it() -> None:
    builds = [build(*(f"Chrome {v}.0.1.2{FIELD}t{i}" for i in range(9))) for v in (120, 120, 120, 121, 121)]
    (found,) = find_unstable_names(builds)
    assert (found.attribute, found.kind, found.changes) == ("classname", "version", 1)
    assert found.sentence.startswith("9 tests became new to TestNod once in 5 builds, because the classname contains")
    assert found.trial is not None
    assert found.trial.toml.splitlines()[2] == r"pattern = 'Chrome [0-9]+\.[0-9]+\.[0-9]+\.[0-9]+'"


def test_what_was_cured_some_builds_ago_is_not_proposed_again() -> None:
    changing = [build(f"row at 12:0{n}:00", "ok") for n in range(6)]
    cured = [build("row at TIME", "ok")]
    assert find_unstable_names([*changing, *cured])
    assert find_unstable_names([*changing, *cured * 5]) == []


def test_a_name_with_two_parts_that_change_needs_both_rules() -> None:
    builds = [build(f"order {uuid.UUID(int=n * 9**30)} at 12:0{n}:00", "ok") for n in range(4)]
    found = find_unstable_names(builds)
    assert {each.kind for each in found} == {"uuid", "time"}
    rules = rules_of(found)
    assert rewritten(rules, builds[0]) == rewritten(rules, builds[2])


def test_parameters_beside_what_changes_stay_apart() -> None:
    builds = [build(*(f"row {i} at 12:0{n}:0{i}" for i in range(5))) for n in range(4)]
    (found,) = find_unstable_names(builds)
    assert found.kind == "time"
    assert len(rewritten(rules_of([found]), builds[0])) == 5


def test_names_that_are_nothing_but_ids_have_no_rule() -> None:
    builds = [build(*(f"{CHANCE.getrandbits(40):010x}" for _ in range(3))) for _ in range(4)]
    found = find_unstable_names(builds)
    assert found
    assert all(each.trial is None for each in found)


def test_a_rule_that_makes_tests_equal_says_so() -> None:
    builds = [build(*(f"row {CHANCE.randrange(10**5)}" for _ in range(4)), "ok") for _ in range(4)]
    (found,) = find_unstable_names(builds)
    assert found.trial is not None
    assert found.trial.equal == 3


def test_many_names_cost_bounded_work() -> None:
    builds = [build(*(f"row {i} of {CHANCE.random()}" for i in range(20_000))) for _ in range(3)]
    assert len(find_unstable_names(builds)) <= MAX_FINDINGS


TEXTS = st.text(max_size=20).map(lambda text: text.replace(FIELD, "").replace("\0", ""))
NUMBERS = st.lists(st.integers(10**4, 10**6), min_size=1, max_size=4)


@given(st.lists(st.lists(TEXTS, max_size=6), max_size=5))
def test_any_names_are_compared(builds: list[list[str]]) -> None:
    find_unstable_names([build(*names) for names in builds])


@given(TEXTS, TEXTS, st.lists(NUMBERS, min_size=3, max_size=5))
def test_every_rule_can_be_pasted(left: str, right: str, builds: list[list[int]]) -> None:
    found = find_unstable_names([build(*(f"{left} {n} {right}" for n in numbers), "ok") for numbers in builds])
    assume(found)
    for each in found:
        assert each.sentence.endswith("”.")
        if each.trial is not None:
            (pasted,) = rules_of([each])
            assert pasted == each.trial.rule


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_time_in_any_name_is_found_and_cured(left: str, right: str) -> None:
    left, right = (text.replace(FIELD, "").replace("\0", "") for text in (left, right))
    builds = [build(f"{left} 2026-11-29 12:00:0{n} {right}", "ok") for n in range(4)]
    found = find_unstable_names(builds)
    rules = rules_of(found)
    assert rewritten(rules, builds[0]) == rewritten(rules, builds[1])
