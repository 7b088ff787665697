"""Files of other formats are rejected by the name of their format, with the option of that tool that writes JUnit."""

import pytest

from bridge.domain.junit.result import Invalid
from bridge.domain.junit.validator import validate_bytes

CHECK = "http://check.sourceforge.net/ns"
FORMATS = [
    (
        f'<testsuites xmlns="{CHECK}"><suite/></testsuites>',
        "a log of the C library Check",
        "TAP",
    ),
    ("<TestRun><FailedTests/></TestRun>", "a CppUnit result", "Convert"),
    ('<TestRun elapsed="0.1"><Statistics/></TestRun>', "an AUnit result", "Convert"),
    (
        '<TestRun xmlns="http://microsoft.com/schemas/VisualStudio/TeamTest/2010"/>',
        "a Visual Studio TRX result",
        "--logger junit",
    ),
    ("<assemblies><assembly/></assemblies>", "an xUnit.net result", "--logger junit"),
    ('<test-run id="2"/>', "an NUnit 3 result", "--logger junit"),
    ('<test-results name="a"/>', "an NUnit 2 result", "--logger junit"),
    ("<TestResults><TestListing/></TestResults>", "an FPCUnit result", "junit"),
    ('<tests><test className="A"/></tests>', "a PHPUnit testdox file", "--log-junit"),
    ('<phpunit bootstrap="a.php"/>', "a PHPUnit configuration", "--log-junit"),
    ('<phpunit xmlns="https://schema.phpunit.de/coverage/1.0"/>', "a PHPUnit coverage report", "JUnit report"),
    ('<Site BuildName="a"><Testing/></Site>', "a CTest dashboard file", "--output-junit"),
    ("<TestLog/>", "a Boost.Test log", "--log_format=JUNIT"),
    ('<TestCase name="a"/>', "a Qt Test result", "junitxml"),
    ('<robot generator="Robot 7"/>', "a Robot Framework output", "--xunit"),
    ('<Catch2TestRun name="a"/>', "a Catch2 result", "--reporter junit"),
    ("<unittest-results/>", "a UnitTest++ result", "Convert"),
    ('<testng-results total="1"/>', "a TestNG result", "junitreports"),
    ("<mutations/>", "a PIT mutation report", "JUnit report"),
    ('<results version="2"/>', "a Cppcheck report", "JUnit report"),
    ('<pmd version="7"/>', "a PMD report", "JUnit report"),
    ("TAP version 13\nok 1\n", "TAP output", "tap-xunit"),
    ("1..2\nok 1 - a\nnot ok 2 - b\n", "TAP output", "tap-xunit"),
    ("\n1..0 # SKIP\n", "TAP output", "tap-xunit"),
    ("ok 1 - a\n1..1\n", "TAP output", "tap-xunit"),
    ("not ok 1\n1..1\n", "TAP output", "tap-xunit"),
    ("# Subtest: a\nok 1 - a\n", "TAP output", "tap-xunit"),
    ("time: 2026-11-29 08:00:00Z\ntest: a.b\nsuccess: a.b\n", "a subunit stream of version 1", "subunit-1to2"),
    ("test: a\nfailure: a [\nboom\n]\n", "a subunit stream of version 1", "subunit2junitxml"),
    (b"\xb3\x29\x01\x0c\x03foo", "a subunit stream", "subunit2junitxml"),
    (b"\xb3\x2a\x83\x40\x68", "a subunit stream", "subunit2junitxml"),
    ('{"Time":"2026-11-29T08:00:00Z","Action":"run","Package":"a"}\n', "output of go test -json", "gotestsum"),
    ('{"ImportPath":"a","Action":"build-output"}', "output of go test -json", "gotestsum"),
    ('{ "type": "suite", "event": "started", "test_count": 1 }', "output of Rust's libtest", "JUnit"),
    ('{"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "runs": []}', "a SARIF report", "JUnit report"),
    ('[{"keyword":"Feature","elements":[]}]', "a Cucumber JSON report", "junit:FILE"),
    ('{"numFailedTestSuites":0,"numFailedTests":1}', "a Jest JSON report", "jest-junit"),
    ('{\n  "stats": {\n    "suites": 1,', "a Mocha JSON report", "mocha-junit-reporter"),
    ('{"config": {"configFile": "a.ts"}}', "a Playwright JSON report", "--reporter=junit"),
    ('{"created": 1.5, "duration": 1, "exitcode": 1}', "a pytest JSON report", "--junit-xml"),
    ('{"name":"a","historyId":"b","uuid":"c"}', "an Allure result", "JUnit"),
    ('{"protocolVersion":"0.1.1","runnerVersion":"1.25"}', "output of dart test", "tojunit"),
    ('{"version":"3.13","examples":[]}', "an RSpec JSON report", "RspecJunitFormatter"),
    ('{"tests": 3, "testsuites": []}', "a GoogleTest JSON report", "--gtest_output=xml:"),
    ('{"tests": 3}', "JSON", "JUnit"),
    ("===== test session starts =====\n", "console output of pytest", "--junit-xml"),
    ("=== RUN   TestA\n", "console output of go test", "gotestsum"),
    ("Running main() from a.cc\n[==========] Running 1 test", "console output of GoogleTest", "--gtest_output=xml:"),
    (f"{'-' * 79}\nTest set: a.BTest\n", "a Surefire text report", "TEST-*.xml"),
    ("TN:\nSF:a.c\n", "an LCOV coverage report", "JUnit report"),
    ("mode: set\na.go:1.2,3.4 1 1\n", "a Go coverage profile", "JUnit report"),
    (b"SQLite format 3\0\x10", "an SQLite database, as coverage.py writes it", "JUnit report"),
]


@pytest.mark.parametrize(("content", "name", "option"), FORMATS)
@pytest.mark.parametrize("padding", [b"", b"\n" * (1 << 20)], ids=["small", "large"])
def test_a_file_of_another_format_is_rejected_by_its_name_with_the_option_that_writes_junit(
    content: str | bytes, name: str, option: str, padding: bytes
):
    data = content if isinstance(content, bytes) else content.encode()
    result = validate_bytes(data + padding)
    assert isinstance(result, Invalid)
    assert result.found == f"this is {name}, not JUnit."
    assert option in result.remedy


@pytest.mark.parametrize(
    "text", ["test: a\nno line of subunit\n", "time: 3 s\n", "okay\n", "1.5\n", "[INFO] test session\n", "mode: fast\n"]
)
def test_text_that_only_resembles_a_format_is_not_named(text: str):
    result = validate_bytes(text.encode())
    assert isinstance(result, Invalid)
    assert result.found.startswith("it is not XML: ")


def test_other_namespaces_of_a_junit_root_stay_junit():
    assert not isinstance(validate_bytes(b'<testsuites xmlns="urn:a"><testsuite/></testsuites>'), Invalid)
