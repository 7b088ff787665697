"""What arguments mean: files by name, patterns, folders, and nothing twice."""

from pathlib import Path

import pytest

from bridge.commands.check.inputs import MissingInput, SourceFile, find_inputs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a/TEST-a.xml", "a/b/TEST-B.XML", "a/notes.txt", "a/b/c/deep.xml", "[1].xml", "#2.xml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*arguments: str) -> list[tuple[str, bool]]:
    sources = find_inputs(arguments)
    assert all(isinstance(source, SourceFile) for source in sources), sources
    return [(str(source.path), source.named) for source in sources if isinstance(source, SourceFile)]


@pytest.mark.usefixtures("folder")
def test_a_folder_is_searched_for_xml_in_order():
    assert found("a") == [("a/TEST-a.xml", False), ("a/b/TEST-B.XML", False), ("a/b/c/deep.xml", False)]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("a/*.xml", ["a/TEST-a.xml"]),
        ("**/*.xml", ["#2.xml", "[1].xml", "a/TEST-a.xml", "a/b/c/deep.xml"]),
        ("a/b*", ["a/b/TEST-B.XML", "a/b/c/deep.xml"]),
    ],
)
def test_a_pattern_that_no_shell_expanded_is_expanded(pattern: str, paths: list[str]):
    assert found(pattern) == [(path, False) for path in paths]


def test_an_absolute_pattern_is_expanded(folder: Path):
    assert found(f"{folder}/a/*.xml") == [(str(folder / "a/TEST-a.xml"), False)]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["[1].xml", "#2.xml", "a/notes.txt", "nowhere.xml"])
def test_a_name_is_taken_as_it_is(name: str):
    assert found(name) == [(name, True)]


def test_a_file_is_checked_once_and_as_it_was_named_first(folder: Path):
    assert found("a/TEST-a.xml", "a/./TEST-a.xml", str(folder / "a/TEST-a.xml"), "a/*.xml") == [("a/TEST-a.xml", True)]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("argument", "reason"),
    [("empty", "this folder contains no *.xml file."), ("z*.xml", "no file matches this pattern.")],
)
def test_an_argument_without_files_is_reported(argument: str, reason: str):
    [missing] = find_inputs([argument])

    assert isinstance(missing, MissingInput)
    assert missing.argument == argument
    assert missing.reason.startswith(reason)


def test_a_link_that_leads_in_a_circle_is_a_file_like_any_other_that_cannot_be_read(tmp_path):
    circle = tmp_path / "circle.xml"
    circle.symlink_to(circle)
    assert find_inputs([str(circle), str(tmp_path)]) == [SourceFile(path=circle, named=True)]
