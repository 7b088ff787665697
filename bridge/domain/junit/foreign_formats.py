"""Names formats that are uploaded in place of JUnit reports, by root element or first bytes, with a remedy each."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from bridge.domain.junit.result import Invalid

MAX_SHOWN_NAME: Final = 60  # characters of an unknown element's name
SNIFFED_BYTES: Final = 4096  # in which the keys that distinguish JSON reports occur

ASK_JUNIT: Final = "Upload the JUnit report of the test run, whose root is testsuites or testsuite."
AS_JUNIT: Final = "Configure the test runner to write JUnit XML too, and upload that file."
UNPACK: Final = "Unpack it and upload the JUnit files inside."
DOTNET: Final = "Add the package JunitXml.TestLogger, run dotnet test with --logger junit, and upload its file."
NO_JUNIT: Final = "writes no JUnit XML itself. Convert its output to JUnit, and upload that file."


def _run_with(runner: str, option: str) -> str:
    return f"Run {runner} with {option} and upload that file."


class ForeignFormat(NamedTuple):
    """A file format: its name with an article, and what to upload instead."""

    name: str
    remedy: str = ASK_JUNIT


CATCH: Final = ForeignFormat("a Catch2 result", "Run the tests with --reporter junit and upload that file.")
BOOST: Final = "Run the tests with --log_format=JUNIT --log_sink=FILE and upload that file."
GTEST: Final = "Run the tests with --gtest_output=xml:FILE and upload that file."
GO: Final = "Run the tests with gotestsum --junitfile FILE and upload that file."
SUBUNIT: Final = "Pipe it through subunit2junitxml, and upload that file."
TAP: Final = "Convert it to JUnit, for example with tap-xunit, or use a JUnit reporter, and upload that file."
JEST: Final = "Add the reporter jest-junit (Vitest: --reporter=junit) and upload its file."

PYTEST: Final = _run_with("pytest", "--junit-xml=FILE")
CUCUMBER: Final = _run_with("Cucumber", "--format junit:FILE (JVM: --plugin junit:FILE)")
FPCUNIT: Final = (
    "Use FPCUnit's unit junittestreport (after Free Pascal 3.2), or convert the file to JUnit, and upload it."
)
DART: Final = "Pipe it through tojunit of the package junitreport, and upload that file."
RSPEC: Final = "Add the gem rspec_junit_formatter, run RSpec with --format RspecJunitFormatter, and upload its file."

TRX_NAMESPACE: Final = "http://microsoft.com/schemas/VisualStudio/TeamTest/2010"
QUALIFIED_ROOTS: Final = {
    "{http://check.sourceforge.net/ns}testsuites": ForeignFormat(
        "a log of the C library Check",
        "Check writes no JUnit XML. Run the tests with CK_TAP_LOG_FILE_NAME=FILE, convert that TAP file to JUnit, and "
        "upload the result.",
    ),
    f"{{{TRX_NAMESPACE}}}TestRun": ForeignFormat("a Visual Studio TRX result", DOTNET),
    "{https://schema.phpunit.de/coverage/1.0}phpunit": ForeignFormat("a PHPUnit coverage report"),
}
"""Formats that share the local name of their root with another format, or with JUnit."""

ROOTS: Final = {
    # Test results.
    "test-run": ForeignFormat("an NUnit 3 result", DOTNET),
    "test-results": ForeignFormat("an NUnit 2 result", DOTNET),
    "TestRun": ForeignFormat("a CppUnit result", f"CppUnit {NO_JUNIT}"),
    "assemblies": ForeignFormat("an xUnit.net result", DOTNET),
    "assembly": ForeignFormat("an xUnit.net result", DOTNET),
    "failsafe-summary": ForeignFormat("a Maven Failsafe summary", "Upload the TEST-*.xml files beside it."),
    "testng-results": ForeignFormat("a TestNG result", "Upload the files of its junitreports folder."),
    "testExecutions": ForeignFormat("a SonarQube test execution report", AS_JUNIT),
    "unitTest": ForeignFormat("a SonarQube test execution report", AS_JUNIT),
    "robot": ForeignFormat("a Robot Framework output", _run_with("Robot Framework", "--xunit FILE")),
    "Site": ForeignFormat("a CTest dashboard file", _run_with("ctest (3.21 or later)", "--output-junit FILE")),
    "Catch": CATCH,
    "Catch2TestRun": CATCH,
    "CUNIT_TEST_RUN_REPORT": ForeignFormat("a CUnit result", f"CUnit {NO_JUNIT}"),
    "CUNIT_TEST_LIST_REPORT": ForeignFormat("a list of CUnit tests", f"CUnit {NO_JUNIT}"),
    "TestLog": ForeignFormat("a Boost.Test log", BOOST),
    "TestResult": ForeignFormat("a Boost.Test result", BOOST),
    "TestResults": ForeignFormat("an FPCUnit result", FPCUNIT),
    "TestCase": ForeignFormat("a Qt Test result", "Run the tests with -o FILE,junitxml and upload that file."),
    "doctest": ForeignFormat(
        "a doctest result", "Run the tests with --reporters=junit --out=FILE and upload that file."
    ),
    "unittest-results": ForeignFormat("a UnitTest++ result", f"UnitTest++ {NO_JUNIT}"),
    "tests": ForeignFormat("a PHPUnit testdox file", _run_with("PHPUnit", "--log-junit FILE")),
    "phpunit": ForeignFormat("a PHPUnit configuration", _run_with("PHPUnit", "--log-junit FILE")),
    "testResults": ForeignFormat("a JMeter result", "Convert it to JUnit, and upload that file."),
    "testrun": ForeignFormat("a test run that an IDE exported", AS_JUNIT),
    "test-suite": ForeignFormat("an Allure result", AS_JUNIT),
    # Coverage.
    "report": ForeignFormat("a JaCoCo coverage report"),
    "coverage": ForeignFormat("a Cobertura coverage report"),
    "CoverageSession": ForeignFormat("an OpenCover coverage report"),
    "CoverageDSPriv": ForeignFormat("a Visual Studio coverage report"),
    "scoverage": ForeignFormat("a Scoverage report"),
    "mutations": ForeignFormat("a PIT mutation report"),
    "crap_result": ForeignFormat("a PHPUnit Crap4J report"),
    # Findings of linters and scanners.
    "checkstyle": ForeignFormat("a Checkstyle report"),
    "pmd": ForeignFormat("a PMD report"),
    "pmd-cpd": ForeignFormat("a PMD copy-paste report"),
    "BugCollection": ForeignFormat("a SpotBugs report"),
    "issues": ForeignFormat("an Android Lint report"),
    "results": ForeignFormat("a Cppcheck report"),
    "lint": ForeignFormat("a linter's report"),
    "jslint": ForeignFormat("a linter's report"),
    "StyleCopViolations": ForeignFormat("a StyleCop report"),
    "FxCopReport": ForeignFormat("an FxCop report"),
    "analysis": ForeignFormat("a Dependency-Check report"),
    "bom": ForeignFormat("a CycloneDX bill of materials"),
    "OWASPZAPReport": ForeignFormat("a ZAP report"),
    # Other files.
    "project": ForeignFormat("a Maven or Ant project file"),
    "html": ForeignFormat("an HTML page"),
    "svg": ForeignFormat("an SVG picture"),
    "plist": ForeignFormat("an Apple property list", AS_JUNIT),
    "Error": ForeignFormat("an error message of an object store", "Check the step that downloaded the report."),
}

SIGNATURES: Final = (
    (b"\x1f\x8b", ForeignFormat("a gzip archive", UNPACK)),
    (b"PK\x03\x04", ForeignFormat("a zip archive", UNPACK)),
    (b"PK\x05\x06", ForeignFormat("an empty zip archive", UNPACK)),
    (b"\x28\xb5\x2f\xfd", ForeignFormat("a zstd archive", UNPACK)),
    (b"BZh", ForeignFormat("a bzip2 archive", UNPACK)),
    (b"\xfd7zXZ\x00", ForeignFormat("an xz archive", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", ForeignFormat("a 7z archive", UNPACK)),
    (b"Rar!\x1a\x07", ForeignFormat("a RAR archive", UNPACK)),
    (b"%PDF", ForeignFormat("a PDF document")),
    (b"\x89PNG", ForeignFormat("a picture")),
    (b"\xff\xd8\xff", ForeignFormat("a picture")),
    (b"GIF8", ForeignFormat("a picture")),
    (b"\x7fELF", ForeignFormat("a program")),
    (b"\xca\xfe\xba\xbe", ForeignFormat("a Java class")),
    (b"\x01\xc0\xc0", ForeignFormat("a JaCoCo execution file")),
    (b"SQLite format 3\0", ForeignFormat("an SQLite database, as coverage.py writes it")),
    (b"<!doctype html", ForeignFormat("an HTML page")),
    (b"<html", ForeignFormat("an HTML page")),
)

_SUBUNIT_LINE: Final = (
    rb"(?:test|testing|success(?:ful)?|failure|error|skip|xfail|uxsuccess|time|tags|progress): ?[^\n]*\n"
)
_TEXTS: Final = (
    (rb"tap version \d|1\.\.\d+\s|(?:not )?ok \d+\b|# subtest: ", "TAP output", TAP),
    (rb"\xb3[\x20-\x2f]", "a subunit stream", SUBUNIT),
    (rb"(?:%b){2}" % _SUBUNIT_LINE, "a subunit stream of version 1", f"Pipe it through subunit-1to2 first. {SUBUNIT}"),
    (rb"=+ test session starts =+", "console output of pytest", PYTEST),
    (rb"=== run\s", "console output of go test", GO),
    (rb"(?:(?:running main\(\)|note: )[^\n]*\n)*\[={10}\] running ", "console output of GoogleTest", GTEST),
    (rb"-{20,}\r?\ntest set: ", "a Surefire text report", "Upload the TEST-*.xml files beside it."),
    (rb"(?:tn:[^\n]*\n)?sf:", "an LCOV coverage report", ASK_JUNIT),
    (rb"mode: (?:set|count|atomic)\s", "a Go coverage profile", ASK_JUNIT),
)
_JSON_REPORTS: Final = (
    (rb'"Action"\s*:\s*"', "output of go test -json", GO),
    (rb'"type"\s*:\s*"suite"\s*,\s*"event"', "output of Rust's libtest", AS_JUNIT),
    (rb"sarif", "a SARIF report", ASK_JUNIT),
    (rb'"keyword"\s*:.*"elements"|"elements"\s*:.*"keyword"', "a Cucumber JSON report", CUCUMBER),
    (rb'"num(?:Failed|Total|Passed)TestSuites"', "a Jest JSON report", JEST),
    (rb'"stats"\s*:\s*\{\s*"suites"', "a Mocha JSON report", _run_with("Mocha", "--reporter mocha-junit-reporter")),
    (
        rb'"config"\s*:.*"(?:configFile|rootDir)"',
        "a Playwright JSON report",
        _run_with("Playwright", "--reporter=junit"),
    ),
    (rb'"exitcode"\s*:', "a pytest JSON report", PYTEST),
    (rb'"(?:historyId|testCaseId)"\s*:', "an Allure result", AS_JUNIT),
    (rb'"reportFormat"\s*:\s*"CTRF"', "a CTRF report", AS_JUNIT),
    (rb'"protocolVersion"\s*:.*"runnerVersion"', "output of dart test", DART),
    (rb'"examples"\s*:', "an RSpec JSON report", RSPEC),
    (rb'"testsuites"\s*:', "a GoogleTest JSON report", GTEST),
    (rb'"filePath"\s*:.*"messages"', "an ESLint report", ASK_JUNIT),
    (rb'"statementMap"', "an Istanbul coverage report", ASK_JUNIT),
)
TEXTS: Final = [(re.compile(start, re.IGNORECASE), ForeignFormat(name, remedy)) for start, name, remedy in _TEXTS]
"""Formats of text, by how they begin."""

JSON_REPORTS: Final = [(re.compile(key, re.DOTALL), ForeignFormat(name, remedy)) for key, name, remedy in _JSON_REPORTS]
"""Formats in JSON, by keys near the beginning."""

JSON: Final = ForeignFormat("JSON", AS_JUNIT)
_JSON_START: Final = re.compile(rb'\{\s*["}]|\[\s*(?:["\[{\]]|(?:true|false|null|-?[0-9][0-9.e+-]*)\s*[,\]])')
"""More than a bracket, because build logs begin with `[INFO]` or `[12:04:05]`."""


def foreign_root(tag: str, attributes: Mapping[str, str]) -> Invalid:
    """Return why a document is no JUnit report, by the tag (with lxml's namespace) and attributes of its root."""
    name = tag.rpartition("}")[2]
    known = QUALIFIED_ROOTS.get(tag) or ROOTS.get(name)
    if known is None:
        shown = name[:MAX_SHOWN_NAME]
        return Invalid(
            reason="not_junit", found=f"its root element is <{shown}>, not testsuites or testsuite.", remedy=ASK_JUNIT
        )
    if name == "coverage" and "line-rate" not in attributes:  # which Cobertura always writes
        known = ForeignFormat("a Clover coverage report" if "generated" in attributes else "a coverage report")
    if name == "TestRun" and "elapsed" in attributes:
        known = ForeignFormat("an AUnit result", f"AUnit {NO_JUNIT}")
    return Invalid(reason="not_junit", found=f"this is {known.name}, not JUnit.", remedy=known.remedy)


def foreign_bytes(start: bytes) -> Invalid | None:
    """Return why a file is no JUnit report, by its first bytes without leading blanks; None if they match no format."""
    head = start[:SNIFFED_BYTES]
    known = _sniffed(head)
    if known is None:
        return None
    return Invalid(reason="not_xml", found=f"this is {known.name}, not JUnit.", remedy=known.remedy)


def _sniffed(head: bytes) -> ForeignFormat | None:
    if _JSON_START.match(head):
        return next((known for pattern, known in JSON_REPORTS if pattern.search(head)), JSON)
    begins = head.lower().startswith
    binary = (known for signature, known in SIGNATURES if begins(signature.lower()))
    texts = (known for pattern, known in TEXTS if pattern.match(head))
    return next(binary, None) or next(texts, None)
