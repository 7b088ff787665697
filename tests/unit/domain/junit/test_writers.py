"""Runners are recognized by their own files, and a trait is stated only if a file shows it."""

from pathlib import Path

import pytest

from bridge.domain.junit.validator import Valid, validate_bytes
from bridge.domain.junit.writers import WRITERS, traits_of

SAMPLES = Path(__file__).parents[3] / "samples" / "writers"
"""What runners wrote of small suites of our own, with shortened texts; each name holds the version."""

TRAITS = {
    "ansible-core-2.19": ["ansible's junit callback: names hold the arguments of the task"],
    "ant-1.10-before-class": ["Ant's <junit>: a failed @BeforeClass or @AfterClass has the class name"],
    "ant-1.10-junitreport": ["Ant's <junitreport>: this file repeats the TEST-*.xml files beside it (3 tests)"],
    "bats-1.8-retry": ['bats: after a retry, names begin with "begin"'],
    "bats-1.8-setup-file": ["bats: a file that does not parse, or whose setup_file failed, is one case without a name"],
    "behave-1.3-hook": ["behave: scenarios that never ran"],
    "boost-test-1.74": ["Boost.Test: tests with expected_failures are written as failures"],
    "bun-1.4": ['bun: a failed hook is a case named "(unnamed)"'],
    "catch2-2.13": ["Catch2: tests tagged !mayfail or !shouldfail are written as failures"],
    "ctest-3.25": [
        "CTest: tests that failed because their program is missing are written as skipped (1 test)",
        "CTest: tests that failed because their fixture failed are written as skipped (1 test)",
    ],
    "cucumber-js-12": ["cucumber-js: pending, undefined and ambiguous steps are written as failures"],
    "deno-2.9-before-all": ["deno: all tests are skipped, as after a failed beforeAll"],
    "doctest-2.4.9": ["doctest: warnings (WARN) are written as failures"],
    "eslint-formatter-junit-9": ["eslint-formatter-junit: warnings are written as failures"],
    "eunit-2.8": ["EUnit: a time-out is written as skipped"],
    "googletest-1.12": ["GoogleTest: tests that never started, because SetUpTestSuite failed or skipped (2 tests)"],
    "gotestsum-1.8": ["gotestsum: tests that passed, as their output shows, are written as failures (1 test)"],
    "jest-junit-17": ["jest-junit: a failed afterAll is a case"],
    "jest-junit-17-empty": ["jest-junit: there is no test in it"],
    "junitxml-0.7": ["junitxml: failing subtests are counted in the totals, but have no case (1 test)"],
    "karma-junit-reporter-2.0": ["karma-junit-reporter: class names hold the version of the browser"],
    "karma-junit-reporter-2.0-colors": ["karma-junit-reporter: failing specs with a color code (1 test)"],
    "meson-1.0": ["meson 1.9 or older: up to meson 1.6, time-outs and unexpected passes are written as passes"],
    "minitest-reporters-1.0": ["minitest-reporters: every class name is Minitest::Result"],
    "mocha-junit-reporter-2.2": ["mocha-junit-reporter: pending tests have no case (2 tests)"],
    "mypy-2.4-notes": ["mypy: a run with notes and no errors is written as a failure"],
    "node-tap-21": ["node-tap: a failed assertion is a failed case once more for each subtest around it"],
    "node-test-20-hook": ["node:test: a failed top-level hook is in an element <undefined>"],
    "node-test-20-todo": ["node:test: failing tests marked todo are written as failures"],
    "ounit2-2.2": ["OUnit2: tests marked todo are written as failures (1 test)"],
    "phpunit-9.6": ["PHPUnit: risky tests are written as errors"],
    "playwright-1.65-empty": ["Playwright: there is no test in it"],
    "pytest-9-cut-short": ["pytest: the run was cut short"],
    "pytest-9-flaky": ["pytest: failed attempts that were repeated are written as passes (2 tests)"],
    "pytest-9-reruns": ["pytest: failed attempts that were repeated are written as passes (10 tests)"],
    "qttest-5.15": ["Qt Test 5: tests skipped by QSKIP are written as passes"],
    "rspec-0.4": ["rspec_junit_formatter: failures of several expectations (aggregate_failures) have no message"],
    "rspec-0.4-load-error": ["rspec_junit_formatter: there is no example in it"],
    "surefire-2.22-reruns": ["Surefire: the totals count every attempt of a test that was rerun"],
    "surefire-3.2-after-all": ["Surefire: a failed @BeforeAll or @AfterAll is a case without a name"],
    "surefire-3.2-nested": ["Surefire: tests of an outer class are in the file of its nested class"],
    "tap-formatter-junit-0.11": ["TAP::Formatter::JUnit: names begin with the position of the test"],
    "testem-3.21": ["testem: tests marked todo have an element <todo>"],
    "testng-6.9-junitreports": ["TestNG: skipped tests are written as errors in junitreports/"],
    "testng-6.9-suite": ["TestNG: the files in junitreports/ hold the same tests"],
    "unittest-xml-reporting-4": ["unittest-xml-reporting: failing subtests are cases of their own"],
    "wdio-9": ["wdio: class names hold the version of the browser"],
    "wdio-9-no-names": ["wdio: names lose all characters but Latin letters and digits"],
}
"""What each sample shows. The words before a bracket and the bracket stand in one sentence; others show nothing."""


def traits_in(data: bytes) -> tuple[str, ...]:
    assert isinstance(validate_bytes(data), Valid)
    return traits_of(lambda: iter((data,)))


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.xml")), ids=lambda path: path.stem)
def test_each_sample_shows_the_traits_of_its_runner_and_no_other(path: Path) -> None:
    traits, expected = traits_in(path.read_bytes()), TRAITS.get(path.stem, [])
    assert len(traits) == len(expected), traits
    for trait, words in zip(traits, expected, strict=True):
        start, bracket, number = words.partition(" (")
        assert trait.startswith(f"written by {start}"), trait
        assert bracket + number in trait
        assert trait.endswith("."), trait


def test_every_trait_but_one_of_a_green_go_run_has_a_sample() -> None:
    found = {line.partition(": ")[2].partition(" (")[0] for words in TRAITS.values() for line in words}
    unseen = [
        trait.found
        for writer in WRITERS
        for trait in writer.traits
        if not any(trait.found.startswith(one) for one in found)
    ]
    assert unseen == ["a package that does not build is counted in the totals, but has no case"]


@pytest.mark.parametrize("name", sorted({writer.name for writer in WRITERS}))
def test_the_page_of_runners_has_each_recognized_one(name: str) -> None:
    page = (SAMPLES.parents[2] / "docs" / "runners.md").read_text(encoding="utf-8")
    assert name.partition(" ")[0].removesuffix("'s") in page
    assert f"names {len({writer.name for writer in WRITERS})} of these runners" in page


def test_a_go_package_that_does_not_build_is_seen_by_the_totals() -> None:
    sample = (SAMPLES / "gotestsum-1.8.xml").read_text(encoding="utf-8")
    start, _, rest = sample.partition("<failure")
    (trait,) = traits_in((start + rest.partition("</failure>")[2]).encode())
    assert "does not build" in trait


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_chunks_of_any_size_show_the_same(size: int) -> None:
    data = (SAMPLES / "ctest-3.25.xml").read_bytes()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert traits_of(lambda: iter(chunks)) == traits_in(data)


def test_a_namespace_changes_nothing() -> None:
    data = (SAMPLES / "ctest-3.25.xml").read_bytes()
    assert traits_in(data.replace(b"<testsuite name", b'<testsuite xmlns="urn:x" name', 1)) == traits_in(data)


@pytest.mark.parametrize(
    "xml",
    [
        "<testsuites/>",
        "<testsuite/>",
        "<testsuite><testcase/></testsuite>",
        "<testsuite><testcase><testcase><failure/></testcase></testcase></testsuite>",
        "<testsuite><properties><testcase/></properties></testsuite>",
        "<testsuites><undefined><testcase><failure/></testcase></undefined></testsuites>",
        '<testsuites name="rspec" tests="" skipped="" failures="" errors="" time="" timestamp="" id=""/>',
        '<testsuite failures="-1" errors="x"><testcase/><testcase name="a"/></testsuite>',
        "<testsuite><testcase name='a (1) 登录'>text<failure>&lt;</failure></testcase></testsuite>",
    ],
)
def test_a_report_of_an_unknown_runner_shows_nothing(xml: str) -> None:
    assert traits_in(xml.encode()) == ()


@pytest.mark.parametrize(
    "change",
    [(b' status="run"', b""), (b'<testsuite name="(empty)"', b'<testsuite title="(empty)"')],
)
def test_a_file_that_only_resembles_that_of_a_runner_is_not_named(change: tuple[bytes, bytes]) -> None:
    assert traits_in((SAMPLES / "ctest-3.25.xml").read_bytes().replace(*change, 1)) == ()


def test_words_of_a_runner_in_the_output_of_a_test_are_not_taken_for_its_marks() -> None:
    quoted = (SAMPLES / "ctest-3.25.xml").read_text(encoding="utf-8").partition("?>")[2]
    xml = f'<testsuite name="a"><testcase name="b"><system-out><![CDATA[{quoted}]]></system-out></testcase></testsuite>'
    assert traits_in(xml.encode()) == ()
