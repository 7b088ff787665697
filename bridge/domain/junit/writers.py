"""The test runners whose reports are recognized, and what a reader of each takes wrongly (docs/runners.md).

`traits_of` reads a report a second time. `bridge check` calls it; the gateway does not, because looking at the
attributes of every element takes longer than validation.

A runner is recognized by marks that no other known runner writes. A trait is stated only if the file shows it. To add
one, run the runner, put its file into tests/samples/writers, and add a `Writer` to `WRITERS`.
"""

import re
from collections.abc import Callable
from typing import Final, cast

from lxml import etree

from bridge.domain.junit.wellformed import Source
from bridge.domain.junit.writer_traits import MAX_TEXT, RED, Case, Facts, Outcome, Trait, Writer, WriterTraits

EPOCH: Final = ("1970-01-01T", "1969-12-31T")  # the second one west of Greenwich
GOOGLETEST_RESULTS: Final = {("run", "completed"), ("run", "skipped"), ("notrun", "suppressed"), ("notrun", "skipped")}
NUMBERED: Final = re.compile(r"\d+ - ")
PLAYBOOK_LINE: Final = re.compile(r"\.ya?ml:\d+$")
STAMPED: Final = re.compile(r"-\d{14}$")
SUBTEST: Final = re.compile(r"\w+ (\[.*\] )?\(\w+=.*\)$")
BATS_STEP: Final = re.compile(r"begin \d+ ")
ESLINT_LINE: Final = re.compile(r"line \d+, col \d+, (\w+) - ")


def traits_of(source: Source) -> tuple[str, ...]:
    """Return a sentence for each trait of its runner that the valid report `source` shows; none if it is unknown."""
    reader = WriterTraits(WRITERS)
    # Only reports that passed validation get here, and those declare no entities.
    parser = etree.XMLParser(target=cast("etree.ParserTarget", reader), huge_tree=True, resolve_entities=False)
    try:
        for chunk in source():
            parser.feed(chunk)
        parser.close()
    except etree.XMLSyntaxError:  # an encoding that lxml does not know
        return ()
    return reader.finish()


def _keys(facts: Facts, *, root: tuple[str, ...], suite: tuple[str, ...], case: tuple[str, ...]) -> bool:
    return facts.keys == (root, suite, case)


def _root(facts: Facts, **attributes: str) -> bool:
    return all(facts.root_attributes.get(name) == value for name, value in attributes.items())


def _first_name(facts: Facts) -> str:
    return facts.case.name if facts.case else ""


def _is_ctest(facts: Facts) -> bool:
    suite = ("name", "tests", "failures", "disabled", "skipped", "hostname", "time", "timestamp")
    return _keys(facts, root=suite, suite=suite, case=("name", "classname", "time", "status"))


def _is_googletest(facts: Facts) -> bool:
    case = facts.case.attributes if facts.case else {}
    return (
        facts.root == "testsuites"
        and "disabled" in facts.root_attributes
        and (case.get("status"), case.get("result")) in GOOGLETEST_RESULTS
    )


def _is_catch2(facts: Facts) -> bool:
    root, suite, case = facts.keys
    return (
        not root
        and suite[:3] == ("name", "errors", "failures")
        and set(suite[3:]) - {"skipped"} == {"tests", "hostname", "time", "timestamp"}  # version 3 has skipped
        and case == ("classname", "name", "time", "status")
    )


def _is_boost(facts: Facts) -> bool:
    suite = ("tests", "skipped", "errors", "failures", "id", "name", "time")
    return facts.root == "testsuite" and facts.keys[:2] == (suite, suite) and facts.keys[2][:1] == ("assertions",)


def _is_meson(facts: Facts) -> bool:
    root, suite, case = facts.keys
    return (
        root == ("tests", "errors", "failures")
        and suite == ("name", "tests", "errors", "failures", "skipped", "time")
        and case in (("name", "classname", "time"), ("name", "classname"))
        and facts.case is not None
        and facts.case.classname == facts.suite["name"]
    )


def _is_ounit(facts: Facts) -> bool:
    suite = ("id", "package", "name", "timestamp", "hostname", "tests", "failures", "errors", "time")
    return facts.keys[:2] == ((), suite) and "results_style_1_X" in facts.properties


def _is_tap_formatter(facts: Facts) -> bool:
    root, suite, case = facts.keys
    return (
        not root
        and set(suite) == {"name", "tests", "failures", "errors"}
        and case == ("name",)
        and NUMBERED.match(_first_name(facts)) is not None
    )


def _is_ant(facts: Facts) -> bool:
    suite = ("errors", "failures", "hostname", "name", "skipped", "tests", "time", "timestamp")
    return _keys(facts, root=suite, suite=suite, case=("classname", "name", "time"))


def _is_junitreport(facts: Facts) -> bool:
    suite = ("errors", "failures", "hostname", "id", "name", "package", "skipped", "tests", "time", "timestamp")
    return facts.keys[:2] == ((), suite)


def _is_gotestsum(facts: Facts) -> bool:
    root, suite, _ = facts.keys
    return (
        root == ("tests", "failures", "errors", "time")
        and suite == ("tests", "failures", "time", "name", "timestamp")
        and "go.version" in facts.properties
    )


def _is_pytest(facts: Facts) -> bool:
    suite = ("name", "errors", "failures", "skipped", "tests", "time", "timestamp", "hostname")
    return facts.root == "testsuites" and facts.keys[1] == suite


def _is_behave(facts: Facts) -> bool:
    suite = ("name", "tests", "errors", "failures", "skipped", "time", "timestamp", "hostname")
    return _keys(facts, root=suite, suite=suite, case=("classname", "name", "status", "time"))


def _is_junitxml(facts: Facts) -> bool:
    suite = ("errors", "failures", "name", "tests", "time")
    return _root(facts, name="") and _keys(facts, root=suite, suite=suite, case=("classname", "name", "time"))


def _is_ansible(facts: Facts) -> bool:
    case = facts.case
    return case is not None and bool(PLAYBOOK_LINE.search(case.classname)) and case.name.startswith("[")


def _is_node(facts: Facts) -> bool:
    suite = ("name", "time", "disabled", "errors", "tests", "failures", "skipped", "hostname")
    return (
        facts.root == "testsuites"
        and not facts.root_attributes
        and facts.keys[1] in ((), suite)
        and facts.keys[2][:3] == ("name", "time", "classname")
        and facts.case is not None
        and facts.case.classname == "test"
    )


def _is_eunit(facts: Facts) -> bool:
    suite = ("tests", "failures", "errors", "skipped", "time", "name")
    return facts.keys[:2] == (suite, suite) and facts.suite["name"].startswith("module '")


def _is_rspec(facts: Facts) -> bool:
    start = ("name", "tests", "skipped", "failures", "errors", "time", "timestamp")
    return facts.root == "testsuite" and facts.keys[0][:7] == start and facts.suite["name"].startswith("rspec")


def _is_phpunit(facts: Facts) -> bool:
    return facts.case is not None and {"class", "classname", "assertions"} <= facts.case.attributes.keys()


def _is_playwright(facts: Facts) -> bool:
    return facts.keys[0] == ("id", "name", "tests", "failures", "skipped", "errors", "time")


def _is_surefire(facts: Facts) -> bool:
    return any("maven-surefire-plugin" in value for value in facts.root_attributes.values())


def _has_browser_in_classname(case: Case) -> bool:
    name = case.suite.get("name", "").replace(" ", "_").replace(".", "_")
    return bool(name) and case.classname.startswith(f"{name}.")


def _is_second_attempt(case: Case) -> bool:
    before = case.previous
    return (
        before is not None
        and not before.outcomes
        and bool(case.name)
        and (before.name, before.classname) == (case.name, case.classname)
    )


def _only(case: Case, tag: str, attribute: str, value: str) -> bool:
    """Return whether all outcomes that fail the case are `tag` with this value, and there is one."""
    red = [one for one in case.outcomes if one.tag in RED]
    return bool(red) and all(one.tag == tag and one.attributes.get(attribute) == value for one in red)


def _never_started(case: Case) -> bool:
    return case.attributes.get("result") == "skipped" and case.attributes.get("timestamp", "").startswith(EPOCH)


def _may_fail(case: Case) -> bool:
    return case.has(*RED) and case.states("skipped", "message", "TEST_CASE tagged with !mayfail")


def _is_skipped_by_comment(case: Case) -> bool:
    has_comment = any('type="skip"' in comment for comment in case.comments)
    return has_comment and not case.outcomes and "result" not in case.attributes


def _failed_beside_nested(case: Case) -> bool:
    return case.has(*RED) and case.suite.get("name", "").startswith(f"{case.classname}$")


def _counts_reruns(facts: Facts) -> bool:
    is_rerun = any(facts.outcomes[tag] for tag in ("flakyFailure", "flakyError", "rerunFailure", "rerunError"))
    return is_rerun and facts.unwritten("failures", "failure") + facts.unwritten("errors", "error") > 0


def _browser_in_classnames(facts: Facts) -> int:
    browser = facts.properties["capabilities"]
    return facts.cases if browser and facts.case and facts.case.classname.startswith(f"{browser}.") else 0


def _has_only_notes(case: Case) -> bool:
    text = case.text
    return case.has("failure") and ": note: " in text and ": error: " not in text and len(text) < MAX_TEXT


def per_case(when: Callable[[Case], bool], found: str, remedy: str) -> Trait:
    """Return a trait that single cases show."""
    return Trait(found, remedy, case=when)


def per_file(when: Callable[[Facts], int], found: str, remedy: str) -> Trait:
    """Return a trait that the whole file shows."""
    return Trait(found, remedy, file=when)


# fmt: off
WRITERS: Final = (
    Writer("CTest", _is_ctest, (
        per_case(lambda case: case.states("skipped", "message", "Unable to find executable"),
            "tests that failed because their program is missing are written as skipped",
            "Build every test program before ctest runs."),
        per_case(lambda case: case.states("skipped", "message", "Fixture dependency failed"),
            "tests that failed because their fixture failed are written as skipped",
            "Correct the failed set-up test first."),
    )),
    Writer("GoogleTest", _is_googletest, (
        per_case(_never_started,
            "tests that never started, because SetUpTestSuite failed or skipped, are written as skipped",
            "If the run failed, look for SetUpTestSuite in its output: the file does not show that failure."),
    )),
    Writer("Catch2", _is_catch2, (
        per_case(_may_fail,
            "tests tagged !mayfail or !shouldfail are written as failures, although they may fail",
            'Leave them out of the reported run: "~[!mayfail]~[!shouldfail]".'),
    )),
    Writer("doctest", lambda facts: "doctest_version" in facts.suite, (
        per_case(lambda case: _only(case, "failure", "type", "WARN"),
            "warnings (WARN) are written as failures, although the test passed",
            "Use MESSAGE for what must not fail a test."),
    )),
    Writer("Boost.Test", _is_boost, (
        per_file(lambda facts: 0 if facts.claims["failures"] + facts.claims["errors"] else facts.outcomes["failure"],
            "tests with expected_failures are written as failures, although the run passed",
            "Assert the opposite instead of using expected_failures."),
    )),
    Writer("Qt Test 5", lambda facts: facts.properties.get("QTestVersion", "").startswith("5."), (
        per_case(_is_skipped_by_comment,
            "tests skipped by QSKIP are written as passes, with the reason in a comment",
            "Qt 6 writes skipped tests as skipped."),
    )),
    Writer("meson 1.9 or older", lambda facts: _is_meson(facts) and ":" not in _first_name(facts), (
        per_file(lambda facts: facts.cases > 0,
            "up to meson 1.6, time-outs and unexpected passes are written as passes",
            "Use meson 1.7 or later."),
    )),
    Writer("EUnit", _is_eunit, (
        per_case(lambda case: case.states("skipped", "type", "timeout"),
            "a time-out is written as skipped, and the tests of the module after it are missing",
            "Raise the time-out, or split the test."),
    )),
    Writer("OUnit2", _is_ounit, (
        per_case(lambda case: _only(case, "failure", "type", "OUnit.Todo"),
            "tests marked todo are written as failures",
            "Use skip_if for tests that are still to be written."),
    )),
    Writer("bats", lambda facts: facts.suite.get("name", "").endswith(".bats"), (
        per_case(lambda case: not case.name and case.has("failure"),
            "a file that does not parse, or whose setup_file failed, is one case without a name",
            "The tests of that file are not in the report. Correct the file first."),
        per_case(lambda case: bool(BATS_STEP.match(case.name)),
            'after a retry, names begin with "begin" and a number',
            "Do not retry in the run whose report is uploaded."),
    )),
    Writer("TAP::Formatter::JUnit", _is_tap_formatter, (
        per_case(lambda case: bool(NUMBERED.match(case.name)),
            "names begin with the position of the test, so a new test renames all tests after it",
            "Add tests at the end of a file."),
    )),
    Writer("PHPUnit", _is_phpunit, (
        per_case(lambda case: _only(case, "error", "type", r"PHPUnit\Framework\RiskyTestError"),
            "risky tests are written as errors, although the run passes",
            "Add an assertion, or call expectNotToPerformAssertions()."),
    )),
    Writer("rspec_junit_formatter", _is_rspec, (
        per_file(lambda facts: not facts.cases,
            "there is no example in it, as after a spec file that does not load",
            "Read the output of rspec, and let the build fail on its exit status."),
        per_case(lambda case: case.states("failure", "type", "RSpec::Expectations::MultipleExpectationsNotMetError"),
            "failures of several expectations (aggregate_failures) have no message",
            "Read the output of rspec."),
    )),
    Writer("minitest-reporters", lambda facts: facts.case is not None and facts.case.classname == "Minitest::Result", (
        per_file(lambda facts: facts.cases,
            "every class name is Minitest::Result, so tests of one name in two classes are one test to TestNod",
            "Give each test a name that is unique in the project."),
    )),
    Writer("Surefire", _is_surefire, (
        per_case(lambda case: not case.name and case.has(*RED),
            "a failed @BeforeAll or @AfterAll is a case without a name",
            "After a failed @BeforeAll the tests of the class are not in the report. Correct that method first."),
        per_case(_failed_beside_nested,
            "tests of an outer class are in the file of its nested class, with the result of their first attempt",
            "If tests are rerun, read the verdict in the output of Maven."),
        per_file(_counts_reruns,
            "the totals count every attempt of a test that was rerun",
            "Read the cases, as TestNod does."),
    )),
    Writer("Ant's <junitreport>", _is_junitreport, (
        per_file(lambda facts: facts.cases,
            "this file repeats the TEST-*.xml files beside it",
            "Upload only those."),
    )),
    Writer("Ant's <junit>", _is_ant, (
        per_case(lambda case: case.classname == "junit.framework.TestSuite",
            "a failed @BeforeClass or @AfterClass has the class name junit.framework.TestSuite",
            "After a failed @BeforeClass the tests of the class are not in the report. Correct that method first."),
    )),
    Writer("TestNG", lambda facts: "org.testng.reporters.JUnitReportReporter" in facts.comment, (
        per_case(lambda case: case.states("error", "type", "org.testng.SkipException"),
            "skipped tests are written as errors in junitreports/",
            "Upload TestNG's other JUnit file, named after the suite and the test, instead."),
    )),
    Writer("TestNG", lambda facts: "org.testng.reporters.JUnitXMLReporter" in facts.comment, (
        per_file(lambda facts: facts.cases,
            "the files in junitreports/ hold the same tests",
            "Upload either this file or those."),
    )),
    Writer("gotestsum", _is_gotestsum, (
        per_file(lambda facts: facts.claims["errors"] > 0 and not facts.outcomes["failure"],
            "a package that does not build is counted in the totals, but has no case",
            "Let the build fail on the exit status."),
        per_case(lambda case: case.has("failure") and f"--- PASS: {case.name} (" in case.text,
            "tests that passed, as their output shows, are written as failures",
            "End what a test prints with a newline."),
    )),
    Writer("pytest", _is_pytest, (
        per_case(lambda case: "name" not in case.attributes and not case.outcomes,
            "the run was cut short, and a test that had only begun is a pass without a name",
            "Do not compare this run with complete ones."),
        per_case(_is_second_attempt,
            "failed attempts that were repeated are written as passes",
            "pytest-rerunfailures and flaky do this. pytest-retry writes each test once."),
    )),
    Writer("unittest-xml-reporting", lambda facts: bool(STAMPED.search(facts.suite.get("name", ""))), (
        per_case(lambda case: case.has(*RED) and bool(SUBTEST.match(case.name[:MAX_TEXT])),
            "failing subtests are cases of their own, and the test itself has none then",
            "Run the tests with pytest, which keeps the test's name."),
    )),
    Writer("behave", _is_behave, (
        per_case(lambda case: case.attributes.get("status") == "untested" and case.has("skipped"),
            "scenarios that never ran, because a hook failed or the run stopped, are written as skipped",
            "Let the build fail on the exit status."),
    )),
    Writer("junitxml", _is_junitxml, (
        per_file(lambda facts: facts.unwritten("failures", "failure") + facts.unwritten("errors", "error"),
            "failing subtests are counted in the totals, but have no case",
            "Run the tests with pytest."),
    )),
    Writer("mypy", lambda facts: _root(facts, name="mypy") and _first_name(facts).startswith("mypy-py"), (
        per_case(_has_only_notes,
            "a run with notes and no errors is written as a failure",
            "Remove what the notes are about, such as reveal_type."),
    )),
    Writer("eslint-formatter-junit", lambda facts: facts.suite.get("package") == "org.eslint", (
        per_case(lambda case: ESLINT_LINE.findall(case.text)[:1] == ["Warning"],
            "warnings are written as failures, although eslint exits with 0",
            "Run eslint with --quiet."),
    )),
    Writer("ansible's junit callback", _is_ansible, (
        per_case(lambda case: "=" in case.name,
            "names hold the arguments of the task, so a changed argument is a new test",
            "Set JUNIT_HIDE_TASK_ARGUMENTS=true."),
    )),
    Writer("jest-junit", lambda facts: _root(facts, name="jest tests"), (
        per_file(lambda facts: not facts.cases,
            "there is no test in it, as after test files that do not load",
            'Set "reportTestSuiteErrors": "true". Each such file then counts as two cases.'),
        per_case(lambda case: case.name.strip().startswith("Test execution failure: could be caused by test hooks"),
            "a failed afterAll is a case, whose name is the same for all test files",
            "Correct the hook first."),
    )),
    Writer("mocha-junit-reporter", lambda facts: facts.root == "testsuites" and _root(facts, name="Mocha Tests"), (
        per_file(lambda facts: facts.unwritten("skipped", "skipped"),
            "pending tests have no case",
            "Set includePending to true."),
    )),
    Writer("Playwright", _is_playwright, (
        per_file(lambda facts: not facts.cases,
            "there is no test in it, as after a test file that does not load or a failed globalSetup",
            "Let the build fail on the exit status."),
    )),
    Writer("cucumber-js", lambda facts: facts.root == "testsuite" and _root(facts, name="Cucumber"), (
        per_case(lambda case: Outcome("failure", {}) in case.outcomes,
            "pending, undefined and ambiguous steps are written as failures without a message",
            "Define the steps, or leave such scenarios out by a tag."),
    )),
    Writer("node:test", _is_node, (
        per_case(lambda case: case.states("skipped", "type", "todo") and case.has("failure"),
            "failing tests marked todo are written as failures, although the run passes",
            "Use skip for tests that are still to be written."),
        per_file(lambda facts: facts.outcomes["undefined"] > 0,
            "a failed top-level hook is in an element <undefined>, which is not JUnit",
            "Let the build fail on the exit status."),
    )),
    Writer("deno", lambda facts: _root(facts, name="deno test"), (
        per_file(lambda facts: facts.cases if facts.cases == facts.outcomes["skipped"] else 0,
            "all tests are skipped, as after a failed beforeAll",
            "Let the build fail on the exit status."),
    )),
    Writer("bun", lambda facts: _root(facts, name="bun test"), (
        per_case(lambda case: case.name == "(unnamed)" and case.has("failure"),
            'a failed hook is a case named "(unnamed)", and the tests of its group are missing',
            "Correct the hook first."),
    )),
    Writer("karma-junit-reporter", lambda facts: "browser.fullName" in facts.properties, (
        per_file(lambda facts: facts.unwritten("failures", "failure"),
            "failing specs with a color code in the message are written as passes",
            "Turn colors off in what the specs throw."),
        per_case(_has_browser_in_classname,
            "class names hold the version of the browser, so each update makes all tests new",
            "Set junitReporter.useBrowserName to false."),
    )),
    Writer("wdio", lambda facts: {"specId", "suiteName", "capabilities"} <= facts.properties.keys(), (
        per_case(lambda case: case.attributes.get("name") == "",
            "names lose all characters but Latin letters and digits",
            r"Set suiteNameFormat to /[^\p{L}\p{N}@]+/u."),
        per_file(_browser_in_classnames,
            "class names hold the version of the browser, so each update makes all tests new",
            "Set classNameFormat."),
    )),
    Writer("node-tap", lambda facts: facts.root == "testsuites" and _root(facts, name="TAP Tests"), (
        per_file(lambda facts: facts.outcomes["failure"],
            "a failed assertion is a failed case once more for each subtest around it",
            "Use another reporter, or compare runs by test and not by number."),
    )),
    Writer("testem", lambda facts: facts.root == "testsuite" and _root(facts, name="Testem Tests"), (
        per_case(lambda case: case.has("todo"),
            "tests marked todo have an element <todo>, which readers ignore, so they are passes",
            "Use skip for tests that are still to be written."),
    )),
)
# fmt: on
