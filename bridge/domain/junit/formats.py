"""What else people upload in place of JUnit reports, and what it is called.

It knows root elements and first bytes only; it reads no file through.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from bridge.domain.junit.verdict import Refused

MAX_SHOWN_NAME = 60  # of a stranger's element name: enough to find it, too little to flood a log
SNIFFED_BYTES = 64  # every signature below is shorter, also behind a comment-free HTML doctype

ASK_JUNIT = "Upload the JUnit report of the test run, whose root is testsuites or testsuite."
AS_JUNIT = "Have the test runner write JUnit XML as well, and upload that file."
UNPACK = "Unpack it and upload the JUnit files inside."


class Format(NamedTuple):
    """A kind of file: its name with an article, and what to do instead."""

    name: str
    remedy: str = ASK_JUNIT


ROOTS = {
    "report": Format("a JaCoCo coverage report"),
    "test-run": Format("an NUnit 3 result", AS_JUNIT),
    "test-results": Format("an NUnit 2 result", AS_JUNIT),
    "TestRun": Format("a Visual Studio TRX result", AS_JUNIT),
    "assemblies": Format("an xUnit.net result", AS_JUNIT),
    "assembly": Format("an xUnit.net result", AS_JUNIT),
    "coverage": Format("a Cobertura coverage report"),
    "CoverageSession": Format("an OpenCover coverage report"),
    "failsafe-summary": Format("a Maven Failsafe summary", "Upload the TEST-*.xml files that stand beside it."),
    "testng-results": Format("a TestNG result", "Upload the files of its junitreports folder."),
    "testExecutions": Format("a SonarQube test execution report", AS_JUNIT),
    "checkstyle": Format("a Checkstyle report"),
    "pmd": Format("a PMD report"),
    "pmd-cpd": Format("a PMD copy-paste report"),
    "BugCollection": Format("a SpotBugs report"),
    "issues": Format("an Android Lint report"),
    "robot": Format("a Robot Framework output", "Run Robot Framework with --xunit and upload that file."),
    "Site": Format("a CTest dashboard file", "Run ctest with --output-junit and upload that file."),
    "Catch": Format("a Catch2 result", "Run the tests with the reporter junit and upload its file."),
    "Catch2TestRun": Format("a Catch2 result", "Run the tests with the reporter junit and upload its file."),
    "CUNIT_TEST_RUN_REPORT": Format("a CUnit result", AS_JUNIT),
    "TestLog": Format("a Boost.Test log", "Run the tests with --log_format=JUNIT and upload that file."),
    "TestResult": Format("a Boost.Test result", "Run the tests with --log_format=JUNIT and upload that file."),
    "TestCase": Format("a Qt Test result", "Run the tests with -o FILE,junitxml and upload that file."),
    "doctest": Format("a doctest result", "Run the tests with --reporters=junit and upload that file."),
    "project": Format("a Maven or Ant project file"),
    "html": Format("an HTML page"),
    "svg": Format("an SVG picture"),
    "plist": Format("an Apple property list", AS_JUNIT),
    "Error": Format("an error message of an object store", "Look at the step that fetched the report."),
}

SIGNATURES = (
    (b"\x1f\x8b", Format("a gzip archive", UNPACK)),
    (b"PK\x03\x04", Format("a zip archive", UNPACK)),
    (b"PK\x05\x06", Format("an empty zip archive", UNPACK)),
    (b"\x28\xb5\x2f\xfd", Format("a zstd archive", UNPACK)),
    (b"BZh", Format("a bzip2 archive", UNPACK)),
    (b"\xfd7zXZ\x00", Format("an xz archive", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Format("a 7z archive", UNPACK)),
    (b"Rar!\x1a\x07", Format("a RAR archive", UNPACK)),
    (b"%PDF", Format("a PDF document")),
    (b"\x89PNG", Format("a picture")),
    (b"\xff\xd8\xff", Format("a picture")),
    (b"\x7fELF", Format("a program")),
    (b"\xca\xfe\xba\xbe", Format("a Java class")),
    (b"\x01\xc0\xc0", Format("JaCoCo's record of an execution")),
    (b"<!doctype html", Format("an HTML page")),
    (b"<html", Format("an HTML page")),
    (b"tap version", Format("TAP output", AS_JUNIT)),
)

JSON = Format("JSON", AS_JUNIT)
_JSON_START = re.compile(rb'\{\s*["}]|\[\s*(?:["\[{\]]|(?:true|false|null|-?[0-9][0-9.e+-]*)\s*[,\]])')
"""More than a bracket: a build log begins with `[INFO]` or `[12:04:05]`."""


def foreign_root(name: str, attributes: Mapping[str, str]) -> Refused:
    """Refuse a document by the local name and the attributes of its root element."""
    known = ROOTS.get(name)
    if known is None:
        shown = name[:MAX_SHOWN_NAME]
        return Refused(reason="not_junit", found=f"its root is <{shown}>, which no JUnit report has.", remedy=ASK_JUNIT)
    if name == "coverage" and "line-rate" not in attributes:  # Cobertura always writes it
        known = Format("a Clover coverage report" if "generated" in attributes else "a coverage report")
    return Refused(reason="not_junit", found=f"this is {known.name}, not JUnit.", remedy=known.remedy)


def foreign_bytes(start: bytes) -> Refused | None:
    """Refuse what is not even XML by its first bytes, blanks before them left out; None when they say nothing."""
    head = start[:SNIFFED_BYTES].lower()
    found = (known for signature, known in SIGNATURES if head.startswith(signature.lower()))
    known = next(found, JSON if _JSON_START.match(head) else None)
    if known is None:
        return None
    return Refused(reason="not_xml", found=f"this is {known.name}, not JUnit.", remedy=known.remedy)
