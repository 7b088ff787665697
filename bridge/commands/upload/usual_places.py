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


class Place(NamedTuple):
    """A place below any folder of the checkout."""

    runner: str
    pattern: str


PLACES: Final = (
    Place("Maven Surefire", "target/surefire-reports/TEST-*.xml"),
    Place("Maven Failsafe", "target/failsafe-reports/TEST-*.xml"),
    Place("sbt", "target/test-reports/*.xml"),
    Place("cargo-nextest", "target/nextest/*/junit.xml"),
    Place("Gradle", "build/test-results/**/TEST-*.xml"),
    Place("Android Gradle", "build/outputs/androidTest-results/**/TEST-*.xml"),
    Place("Bazel", "bazel-testlogs/**/test.xml"),
    Place("CTest", "Testing/**/*.xml"),
    Place("Meson", "meson-logs/*.junit.xml"),
    Place("GoogleTest", "test_detail.xml"),
    Place("Vitest", ".vitest/junit/output.xml"),
    Place("Playwright", "playwright-report/*.xml"),
    Place(".NET", "TestResults/**/*.xml"),
    Place("TestNG", "test-output/testng-junit.xml"),
    Place("avocado", "job-results/latest/results.xml"),
    Place("Common Test", "ct_run.*/**/junit_report.xml"),
    Place("Robot Framework", "xunit.xml"),
    Place("nose2", "nose2-junit.xml"),
    Place("nose", "nosetests.xml"),
    Place("RSpec", "rspec.xml"),
    Place("bats", "report.xml"),
    Place("jest-junit, pytest and others", "junit.xml"),
    Place("pytest", "pytest.xml"),
    Place("mocha-junit-reporter", "test-results.xml"),
    Place("files named after JUnit", "*junit*.xml"),
    Place("files named TEST-*.xml or TESTS-*.xml", "TEST-*.xml"),
    Place("files named TEST-*.xml or TESTS-*.xml", "TESTS-*.xml"),
    Place("a folder for test reports", "test-reports/**/*.xml"),
    Place("a folder for test reports", "test-results/**/*.xml"),
    Place("a folder for test reports", "test_results/**/*.xml"),
    Place("a folder for test reports", "junit-reports/**/*.xml"),
    Place("a folder for test reports", "reports/**/*.xml"),
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
