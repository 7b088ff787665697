"""Where test runners write JUnit reports if nothing else is set: what `bridge upload` sends without patterns."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from bridge.commands.upload.files import IN_FOLDER, Exclusions, FoundFile, FoundFiles, Glob, walk
from bridge.domain.text_format import counted

NOT_SEARCHED: Final = (
    *("node_modules", "site-packages", "venv", "vendor", "bower_components", "__pycache__"),
    *(".[!v]*", ".venv*", ".vs*"),  # all hidden folders but .vitest
    "TESTS-TestSuites.xml",  # Ant's junitreport, which repeats all other files
)
"""Folders of dependencies, which may contain sample reports, and files that repeat others."""


class ReportPlace(NamedTuple):
    """A place below any folder of the checkout."""

    runner: str
    pattern: str


PLACES: Final = (
    ReportPlace("Maven Surefire", "target/surefire-reports/TEST-*.xml"),
    ReportPlace("Maven Failsafe", "target/failsafe-reports/TEST-*.xml"),
    ReportPlace("sbt", "target/test-reports/*.xml"),
    ReportPlace("cargo-nextest", "target/nextest/*/junit.xml"),
    ReportPlace("Gradle", "build/test-results/**/TEST-*.xml"),
    ReportPlace("Android Gradle", "build/outputs/androidTest-results/**/TEST-*.xml"),
    ReportPlace("Bazel", "bazel-testlogs/**/test.xml"),
    ReportPlace("CTest", "Testing/**/*.xml"),
    ReportPlace("Meson", "meson-logs/*.junit.xml"),
    ReportPlace("GoogleTest", "test_detail.xml"),
    ReportPlace("Vitest", ".vitest/junit/output.xml"),
    ReportPlace("Playwright", "playwright-report/*.xml"),
    ReportPlace(".NET", "TestResults/**/*.xml"),
    ReportPlace("TestNG", "test-output/testng-junit.xml"),
    ReportPlace("avocado", "job-results/latest/results.xml"),
    ReportPlace("Common Test", "ct_run.*/**/junit_report.xml"),
    ReportPlace("Robot Framework", "xunit.xml"),
    ReportPlace("nose2", "nose2-junit.xml"),
    ReportPlace("nose", "nosetests.xml"),
    ReportPlace("RSpec", "rspec.xml"),
    ReportPlace("bats", "report.xml"),
    ReportPlace("jest-junit, pytest and others", "junit.xml"),
    ReportPlace("pytest", "pytest.xml"),
    ReportPlace("mocha-junit-reporter", "test-results.xml"),
    ReportPlace("files named after JUnit", "*junit*.xml"),
    ReportPlace("files named TEST-*.xml or TESTS-*.xml", "TEST-*.xml"),
    ReportPlace("files named TEST-*.xml or TESTS-*.xml", "TESTS-*.xml"),
    ReportPlace("a folder for test reports", "test-reports/**/*.xml"),
    ReportPlace("a folder for test reports", "test-results/**/*.xml"),
    ReportPlace("a folder for test reports", "test_results/**/*.xml"),
    ReportPlace("a folder for test reports", "junit-reports/**/*.xml"),
    ReportPlace("a folder for test reports", "reports/**/*.xml"),
)
"""The first place that a file matches counts."""


def find_in_usual_places(exclusions: Sequence[str]) -> tuple[FoundFiles, str]:
    """Return the files in the usual places below the working directory, and a sentence with what was found."""
    places = [(place.runner, Glob(("**", *place.pattern.split("/")), hidden=True)) for place in PLACES]
    excluded = Exclusions((*NOT_SEARCHED, *exclusions))
    runners: Counter[str] = Counter()
    files: dict[str, FoundFile] = {}
    for file in walk(os.curdir, IN_FOLDER, excluded):
        names = file.name.split("/")
        runner = next((runner for runner, place in places if place.matches(names)), None)
        if runner is None or excluded.match(names):
            continue
        if files.setdefault(os.path.realpath(file.path), file) is file:
            runners[runner] += 1
    return FoundFiles(files=sorted(files.values(), key=lambda file: file.name)), _sentence(runners)


def _sentence(runners: Counter[str]) -> str:
    if not runners:
        return (
            "No report is in the places that test runners usually write to. "
            "Name files, folders or patterns after `bridge upload`."
        )
    parts = [f"{counted(count, 'file')} of {runner}" for runner, count in runners.items()]
    return f"Found in the usual places: {', '.join(parts)}."
