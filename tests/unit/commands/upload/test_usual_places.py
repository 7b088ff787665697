"""Where `bridge upload` looks without patterns, and its sentence about that."""

from pathlib import Path

import pytest

from bridge.commands.upload.usual_places import find_in_usual_places

FOUND = {
    "target/surefire-reports/TEST-a.xml": "Maven Surefire",
    "module/target/failsafe-reports/TEST-b.xml": "Maven Failsafe",
    "app/build/test-results/test/TEST-c.xml": "Gradle",
    "junit.xml": "jest-junit, pytest and others",
    "packages/web/junit.xml": "jest-junit, pytest and others",
    "packages/web/.vitest/junit/output.xml": "Vitest",
    "report.xml": "bats",
    "Testing/20261129-1200/Test.xml": "CTest",
    "meson-logs/testlog.junit.xml": "Meson",
    "test_detail.xml": "GoogleTest",
    "target/nextest/ci/junit.xml": "cargo-nextest",
    "reports/TESTS-feature.xml": "files named TEST-*.xml or TESTS-*.xml",
    "test-results/e2e/results.xml": "a folder for test reports",
}
NOT_FOUND = (
    "pom.xml",
    "node_modules/x/junit.xml",
    ".git/junit.xml",
    ".venv/lib/site-packages/junit.xml",
    "TESTS-TestSuites.xml",
    "target/surefire-reports/TEST-a.txt",
    "target/surefire-reports/testng-results.xml",
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for path in (*FOUND, *NOT_FOUND):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path


@pytest.mark.usefixtures("checkout")
def test_usual_places_are_found_and_dependencies_are_not() -> None:
    found, sentence = find_in_usual_places([])

    assert [file.name for file in found.files] == sorted(FOUND)
    assert all(runner in sentence for runner in FOUND.values())
    assert "2 files of jest-junit" in sentence


@pytest.mark.usefixtures("checkout")
def test_exclusions_count_there_too() -> None:
    found, _ = find_in_usual_places(["junit.xml", "module/**"])

    assert {"junit.xml", "packages/web/junit.xml", "module/target/failsafe-reports/TEST-b.xml"}.isdisjoint(
        file.name for file in found.files
    )


def test_nothing_found_is_stated_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, sentence = find_in_usual_places([])
    assert found.files == []
    assert sentence.endswith("Name files, folders or patterns after `bridge upload`.")
