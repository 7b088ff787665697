"""Patterns of `bridge upload`: compared with a model on random trees; Windows paths, links, exclusions."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.commands.upload.files import Exclusions, Glob, Pattern, find_files, split_arguments


def find(*arguments: str) -> list[str]:
    patterns, excluded = split_arguments(arguments)
    return [file.name for file in find_files(patterns, Exclusions(excluded)).files]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for path in (
        "a.xml",
        "b.txt",
        "target/surefire-reports/TEST-a.xml",
        "target/surefire-reports/TEST-a.txt",
        "m/target/surefire-reports/TEST-b.xml",
        "m/n/target/surefire-reports/TEST-c.xml",
        "m/flaky/x.xml",
        ".hidden/h.xml",
        "we[i]rd.xml",
    ):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["*.xml"], ["a.xml", "we[i]rd.xml"]),
        (["./*.xml"], ["a.xml", "we[i]rd.xml"]),
        (["we[i]rd.xml"], ["we[i]rd.xml"]),
        (["target/**/*.xml"], ["target/surefire-reports/TEST-a.xml"]),
        (["target/surefire-reports"], ["target/surefire-reports/TEST-a.xml"]),
        (["m/**"], ["m/flaky/x.xml", "m/n/target/surefire-reports/TEST-c.xml", "m/target/surefire-reports/TEST-b.xml"]),
        (
            ["**/surefire-reports"],
            [
                "m/n/target/surefire-reports/TEST-c.xml",
                "m/target/surefire-reports/TEST-b.xml",
                "target/surefire-reports/TEST-a.xml",
            ],
        ),
        (
            ["m/**/*.xml", "!m/flaky/**"],
            ["m/n/target/surefire-reports/TEST-c.xml", "m/target/surefire-reports/TEST-b.xml"],
        ),
        (["!flaky", "m/*/*.xml"], []),
        (["!TEST-?.xml", "**/*.xml"], ["a.xml", "m/flaky/x.xml", "we[i]rd.xml"]),
        (["!**/target/**", "**/*.xml"], ["a.xml", "m/flaky/x.xml", "we[i]rd.xml"]),
        (["a.xml", "*.xml", "./a.xml"], ["a.xml", "we[i]rd.xml"]),
        (["a.xml", "we[i]rd.xml", "!a.xml"], ["we[i]rd.xml"]),  # as a shell expands *.xml without quotes
        ([".hidden/*.xml"], [".hidden/h.xml"]),
        ([".*/*.xml"], [".hidden/h.xml"]),
        (["nothing*"], []),
        (["*.txt"], ["b.txt"]),
    ],
    ids=" ".join,
)
def test_arguments_stand_for_these_files(arguments: list[str], found: list[str]) -> None:
    assert find(*arguments) == found


def test_absolute_patterns_name_files_below_the_working_directory_alike(tree: Path) -> None:
    assert find(f"{tree}/target/**/*.xml") == find("target/**/*.xml")
    assert find(f"{tree}/**/*.xml", f"!{tree}/m/**") == find("**/*.xml", "!m/**")


def test_files_elsewhere_have_names_without_the_folders_of_the_machine(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree / ".hidden")
    assert find(f"{tree}/target/**/*.xml") == ["surefire-reports/TEST-a.xml"]
    assert find("../a.xml") == ["a.xml"]


def test_circular_links_end_and_each_file_is_found_once(tree: Path) -> None:
    (tree / "m/loop").symlink_to(tree)
    (tree / "m/n/self").symlink_to(".")
    (tree / "again.xml").symlink_to("a.xml")
    (tree / "dangling.xml").symlink_to("nowhere")
    for number in range(12):  # each leads to all others: as many paths as orders of twelve folders
        (tree / f"l{number}").mkdir()
        for other in range(12):
            (tree / f"l{number}/l{other}").symlink_to(tree / f"l{other}")

    found = find("**/*.xml")

    assert len(found) == len({os.path.realpath(name) for name in found}) == 6
    assert find("m/loop/target/surefire-reports/*.xml") == ["m/loop/target/surefire-reports/TEST-a.xml"]


def test_a_pipe_and_an_unreadable_folder_are_passed_over(tree: Path) -> None:
    os.mkfifo(tree / "pipe.xml")
    assert "pipe.xml" not in find("*.xml")


def test_a_tree_deeper_than_the_stack_is_walked(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(1200):
        Path("d").mkdir()
        monkeypatch.chdir("d")
    try:
        monkeypatch.chdir(tree)
        assert "a.xml" in find("**/*.xml")
    finally:  # pytest removes old folders, and its stack is no deeper
        subprocess.run(["rm", "-rf", str(tree / "d")], check=True)


@pytest.mark.parametrize(
    ("text", "base", "parts"),
    [
        (r"target\surefire-reports\*.xml", "target/surefire-reports", ("*.xml",)),
        (r"C:\build\**\TEST-*.xml", "C:/build", ("**", "TEST-*.xml")),
        (r"C:**\a.xml", "C:", ("**", "a.xml")),
        (r"\\server\share\reports\*.xml", "//server/share/reports", ("*.xml",)),
        (r"\reports\*.xml", "/reports", ("*.xml",)),
        ("mixed/a\\*.xml", "mixed/a", ("*.xml",)),
    ],
)
def test_windows_patterns_have_drives_shares_and_both_separators(text: str, base: str, parts: tuple[str, ...]) -> None:
    assert Pattern.parse(text, windows=True) == Pattern(base, parts)


def test_case_counts_but_on_windows() -> None:
    assert Glob(["Target", "*.XML"], ignore_case=True).matches(["target", "a.xml"])
    assert not Glob(["Target", "*.XML"], ignore_case=False).matches(["target", "a.xml"])
    assert Exclusions([r"Flaky\**"], windows=True).match(["flaky", "x.xml"])
    assert not Exclusions(["Flaky/**"], windows=False).match(["flaky", "x.xml"])


# -- against a model ---------------------------------------------------------------------------------------------------


def model(parts: list[str], names: list[str]) -> bool:
    """Return whether a path matches, by recursion over both."""
    if not parts:
        return not names
    if parts[0] == "**":
        return model(parts[1:], names) or (bool(names) and names[0][0] != "." and model(parts, names[1:]))
    if not names or (names[0][0] == "." and parts[0][0] != "."):
        return False
    return one(parts[0], names[0]) and model(parts[1:], names[1:])


def one(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "*":
        return one(pattern[1:], name) or (bool(name) and one(pattern, name[1:]))
    return bool(name) and pattern[0] in ("?", name[0]) and one(pattern[1:], name[1:])


NAMES = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name.strip("."))
PARTS = st.one_of(
    st.just("**"), st.text("ab.*?", min_size=1, max_size=3).filter(lambda part: part not in ("**", "***", ".", ".."))
)


@given(st.lists(PARTS, min_size=1, max_size=5), st.lists(NAMES, min_size=1, max_size=5))
@settings(max_examples=400)
def test_a_pattern_matches_as_the_model(parts: list[str], names: list[str]) -> None:
    assert Glob(parts, ignore_case=False).matches(names) == model(parts, names)


@given(
    paths=st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=8), parts=st.lists(PARTS, min_size=1, max_size=4)
)
@settings(max_examples=60, deadline=None)
def test_a_walk_finds_what_the_model_matches(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]], parts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    made = set()
    for names in paths:
        file = folder.joinpath(*names)
        with suppress(OSError):  # a file has the name of a folder
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            made |= {tuple(names)} if file.is_file() else set()
    if not any(letter in "".join(parts) for letter in "*?"):
        return  # a name, not a pattern
    wanted = {names for names in made if model(parts, list(names))}

    found = find_files([f"{folder}/{'/'.join(parts)}"], Exclusions([])).files

    # A folder that matches stands for its *.xml, of which this tree has none; and ** at the end stands for folders.
    assert {Path(file.path).relative_to(folder).parts for file in found} == (set() if parts[-1] == "**" else wanted)
