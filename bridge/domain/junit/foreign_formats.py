"""Names formats that are uploaded in place of JUnit reports, by root element or first bytes, with a remedy each."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from bridge.domain.junit.result import Invalid

MAX_SHOWN_NAME = 60  # characters of an unknown element's name
SNIFFED_BYTES = 64  # every signature below is shorter

ASK_JUNIT = "Upload the JUnit report of the test run, whose root is testsuites or testsuite."
AS_JUNIT = "Configure the test runner to write JUnit XML too, and upload that file."
UNPACK = "Unpack it and upload the JUnit files inside."


class ForeignFormat(NamedTuple):
    """A file format: its name with an article, and what to upload instead."""

    name: str
    remedy: str = ASK_JUNIT


ROOTS = {
    "report": ForeignFormat("a JaCoCo coverage report"),
    "test-run": ForeignFormat("an NUnit 3 result", AS_JUNIT),
    "test-results": ForeignFormat("an NUnit 2 result", AS_JUNIT),
    "TestRun": ForeignFormat("a Visual Studio TRX result", AS_JUNIT),
    "assemblies": ForeignFormat("an xUnit.net result", AS_JUNIT),
    "assembly": ForeignFormat("an xUnit.net result", AS_JUNIT),
    "coverage": ForeignFormat("a Cobertura coverage report"),
    "CoverageSession": ForeignFormat("an OpenCover coverage report"),
    "failsafe-summary": ForeignFormat("a Maven Failsafe summary", "Upload the TEST-*.xml files beside it."),
    "testng-results": ForeignFormat("a TestNG result", "Upload the files of its junitreports folder."),
    "testExecutions": ForeignFormat("a SonarQube test execution report", AS_JUNIT),
    "checkstyle": ForeignFormat("a Checkstyle report"),
    "pmd": ForeignFormat("a PMD report"),
    "pmd-cpd": ForeignFormat("a PMD copy-paste report"),
    "BugCollection": ForeignFormat("a SpotBugs report"),
    "issues": ForeignFormat("an Android Lint report"),
    "robot": ForeignFormat("a Robot Framework output", "Run Robot Framework with --xunit and upload that file."),
    "Site": ForeignFormat("a CTest dashboard file", "Run ctest with --output-junit and upload that file."),
    "Catch": ForeignFormat("a Catch2 result", "Run the tests with the reporter junit and upload its file."),
    "Catch2TestRun": ForeignFormat("a Catch2 result", "Run the tests with the reporter junit and upload its file."),
    "CUNIT_TEST_RUN_REPORT": ForeignFormat("a CUnit result", AS_JUNIT),
    "TestLog": ForeignFormat("a Boost.Test log", "Run the tests with --log_format=JUNIT and upload that file."),
    "TestResult": ForeignFormat("a Boost.Test result", "Run the tests with --log_format=JUNIT and upload that file."),
    "TestCase": ForeignFormat("a Qt Test result", "Run the tests with -o FILE,junitxml and upload that file."),
    "doctest": ForeignFormat("a doctest result", "Run the tests with --reporters=junit and upload that file."),
    "project": ForeignFormat("a Maven or Ant project file"),
    "html": ForeignFormat("an HTML page"),
    "svg": ForeignFormat("an SVG picture"),
    "plist": ForeignFormat("an Apple property list", AS_JUNIT),
    "Error": ForeignFormat("an error message of an object store", "Check the step that downloaded the report."),
}

SIGNATURES = (
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
    (b"\x7fELF", ForeignFormat("a program")),
    (b"\xca\xfe\xba\xbe", ForeignFormat("a Java class")),
    (b"\x01\xc0\xc0", ForeignFormat("a JaCoCo execution file")),
    (b"<!doctype html", ForeignFormat("an HTML page")),
    (b"<html", ForeignFormat("an HTML page")),
    (b"tap version", ForeignFormat("TAP output", AS_JUNIT)),
)

JSON = ForeignFormat("JSON", AS_JUNIT)
_JSON_START = re.compile(rb'\{\s*["}]|\[\s*(?:["\[{\]]|(?:true|false|null|-?[0-9][0-9.e+-]*)\s*[,\]])')
"""More than a bracket, because build logs begin with `[INFO]` or `[12:04:05]`."""


def foreign_root(name: str, attributes: Mapping[str, str]) -> Invalid:
    """Return why a document is no JUnit report, by the local name and the attributes of its root element."""
    known = ROOTS.get(name)
    if known is None:
        shown = name[:MAX_SHOWN_NAME]
        return Invalid(
            reason="not_junit", found=f"its root element is <{shown}>, not testsuites or testsuite.", remedy=ASK_JUNIT
        )
    if name == "coverage" and "line-rate" not in attributes:  # which Cobertura always writes
        known = ForeignFormat("a Clover coverage report" if "generated" in attributes else "a coverage report")
    return Invalid(reason="not_junit", found=f"this is {known.name}, not JUnit.", remedy=known.remedy)


def foreign_bytes(start: bytes) -> Invalid | None:
    """Return why a file is no JUnit report, by its first bytes without leading blanks; None if they match no format."""
    head = start[:SNIFFED_BYTES].lower()
    found = (known for signature, known in SIGNATURES if head.startswith(signature.lower()))
    known = next(found, JSON if _JSON_START.match(head) else None)
    if known is None:
        return None
    return Invalid(reason="not_xml", found=f"this is {known.name}, not JUnit.", remedy=known.remedy)
