"""Commands, settings and files on the pages: each one exists in this version, whether a test runs it or not."""

import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from bridge import cli
from bridge.commands.upload.options import parser as upload_parser
from bridge.settings import load
from bridge.settings.model import Settings, SettingsTable, names_of, table_of
from tests.unit.test_docs import PAGE_IDS, PAGES, REPOSITORY, text_of

COMMANDS = typer.main.get_command(cli.app).commands
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
UPLOAD_SCRIPT = (REPOSITORY / "bridge" / "server" / "upload.sh").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?m)^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL)
SHELL = ("sh", "console")
ALL_COMMANDS = {"--help", "-h", "--version", "--install-completion"}
PLACEHOLDERS = {"NO": "1"}  # for numbers; others may be any text


def blocks(path: Path, *languages: str) -> list[str]:
    return [text for _, language, text in BLOCK.findall(text_of(path)) if language in languages]


def commands_of(path: Path) -> Iterator[str]:
    """Yield every command line of the shell blocks: without output, comments, and lines joined."""
    for _, language, text in BLOCK.findall(text_of(path)):
        if language in SHELL:
            lines = re.sub(r"\\\n\s*", " ", text).splitlines()
            yield from (line[2:] if language == "console" else line for line in lines if _is_command(language, line))


def _is_command(language: str, line: str) -> bool:
    return line.startswith("$ ") if language == "console" else bool(line.strip())


def calls_of(line: str) -> Iterator[list[str]]:
    """Yield the calls of `bridge` in a line of shell, as words without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word and set(word) <= set(";&|()"):
            if words and words[0] == "bridge":
                yield words[1:]
            words = []
        else:
            words.append(word)


def without_redirections(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if word and set(word) <= set("<>"):
            skip = True
            if kept and kept[-1].isdecimal() and word == ">":
                kept.pop()  # the descriptor
        elif skip:
            skip = False
        else:
            kept.append(PLACEHOLDERS.get(word, word))
    return kept


def fault_of(words: list[str]) -> str:
    """Return what is wrong with the arguments of `bridge`; empty if they are valid."""
    if not words or words[0] in ALL_COMMANDS:
        return ""
    name, *arguments = words
    if name not in COMMANDS:
        return f"bridge has no command {name}."
    if ALL_COMMANDS & set(arguments):
        return ""
    if name == "upload":
        errors = io.StringIO()
        try:
            with redirect_stderr(errors):
                upload_parser().parse_intermixed_args(arguments)
        except SystemExit:
            return errors.getvalue()
        return ""
    try:
        COMMANDS[name].make_context(name, arguments)
    except Exception as error:  # noqa: BLE001 -- typer brings its own click, whose errors have no public name
        return getattr(error, "message", str(error))
    return ""


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_command_of_a_block_can_be_run(path: Path) -> None:
    wrong = {}
    for line in commands_of(path):
        for words in calls_of(line):
            if fault := fault_of(without_redirections(words)):
                wrong[line] = fault
    assert wrong == {}


def test_a_wrong_command_or_option_is_found() -> None:
    assert fault_of(["deploy"])
    assert fault_of(["serve", "--colour"])
    assert fault_of(["upload", "--retries", "3"])
    assert not fault_of(["upload", "a.xml", "--spool", "x"])
    assert list(calls_of("sleep 1 && bridge why A 1 | grep x  # bridge no")) == [["why", "A", "1"]]
    assert without_redirections(["serve", "2", ">", "log"]) == ["serve"]


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_command_and_option_in_a_sentence_exists(path: Path) -> None:
    text = BLOCK.sub("", text_of(path))
    for span in re.findall(r"`([^`\n]+)`", text):
        for name, rest in re.findall(r"(?<!exec )\bbridge ([a-z][a-z-]*)\b([^`]*)", span):
            assert name in COMMANDS, span
            known = set(upload_parser()._option_string_actions) if name == "upload" else options_of(name)
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)) <= known | ALL_COMMANDS, span


def options_of(name: str) -> set[str]:
    return {option for param in COMMANDS[name].params for option in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_target_of_make_exists(path: Path) -> None:
    named = re.findall(r"(?m)(?:^|`|&& )make ([a-z-]+)", text_of(path))
    assert [target for target in named if not re.search(rf"(?m)^{target}:", MAKEFILE)] == []


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_option_of_the_upload_script_exists(path: Path) -> None:
    calls = re.findall(r"sh upload\.sh([^\n`|]*)", text_of(path))
    options = {option for call in calls for option in re.findall(r"--[a-z-]+", call)}
    assert [option for option in options if not re.search(rf"{option}[)\s]", UPLOAD_SCRIPT)] == []


# -- settings and files on the pages -----------------------------------------------------------------------------------


def unknown(values: dict[str, Any], table: type[SettingsTable], key: str = "") -> Iterator[str]:
    for name, value in values.items():
        if name not in names_of(table):
            yield f"{key}{name}"
            continue
        inner = table_of(table.model_fields[name]) if name in table.model_fields else None
        for member in value if isinstance(value, list) else [value]:
            if inner is not None and isinstance(member, dict):
                yield from unknown(member, inner, f"{key}{name}.")


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_block_of_settings_names_settings(path: Path) -> None:
    for text in blocks(path, "toml"):
        assert list(unknown(tomllib.loads(text), Settings)) == [], text


@pytest.mark.parametrize("page", ["README.md", "docs/migrate.md"])
def test_the_settings_of_a_page_that_are_all_a_gateway_needs_are_accepted(page: str, tmp_path: Path) -> None:
    (text,) = blocks(REPOSITORY / page, "toml")
    for path in re.findall(r'_file = "/run/secrets/([^"]+)"', text):
        (tmp_path / path).write_text(f"the-secret-in-{path}")
    text = text.replace("/run/secrets", str(tmp_path))
    config = tmp_path / "bridge.toml"
    config.write_text(text, encoding="utf-8")
    assert [route.name for route in load(config, {}).routes] == ["shop"]


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_block_of_data_can_be_read(path: Path) -> None:
    for text in blocks(path, "json"):
        json.loads(text)
    for text in blocks(path, "yaml", "yml"):
        yaml.safe_load(text)


@pytest.mark.parametrize("path", PAGES, ids=PAGE_IDS)
def test_every_variable_of_a_setting_exists(path: Path) -> None:
    for table, setting in re.findall(r"\bBRIDGE_([A-Z0-9]+)__((?:[A-Z0-9]+_)*[A-Z0-9]+)(?!\w)", text_of(path)):
        inner = table_of(Settings.model_fields[table.lower()])
        assert inner is not None
        assert setting.lower() in names_of(inner), f"BRIDGE_{table}__{setting}"


def test_the_build_step_of_the_yaml_file_is_that_of_the_readme() -> None:
    (step,) = (block for block in blocks(REPOSITORY / "README.md", "sh") if "sh upload.sh" in block)
    (text,) = blocks(REPOSITORY / "docs" / "codearts.md", "yaml")
    (action,) = yaml.safe_load(text)["steps"]["BUILD"]
    command = action["maven"]["inputs"]["command"]

    def lines(script: str) -> list[str]:
        return [line for line in script.splitlines() if line and not line.startswith(("export ", "emulate "))]

    assert lines(command) == lines(step)
    assert "BRIDGE_URL=https://bridge.example.com" in step
    assert "BRIDGE_URL=https://bridge.example.com" in command


# -- pages in Chinese --------------------------------------------------------------------------------------------------

PAIRS = [
    (REPOSITORY / "README.md", REPOSITORY / "README.zh-CN.md"),
    (REPOSITORY / "docs" / "start.md", REPOSITORY / "docs" / "start.zh.md"),
    (REPOSITORY / "docs" / "migrate.md", REPOSITORY / "docs" / "migrate.zh.md"),
]


def headings(path: Path) -> list[str]:
    return re.findall(r"(?m)^(#+) ", BLOCK.sub("", text_of(path)))


def code(path: Path) -> list[str]:
    """Return the blocks without comments, which are translated."""
    return [re.sub(r"(?m)\s+# .*$", "", f"{language}\n{text}") for _, language, text in BLOCK.findall(text_of(path))]


def terms(path: Path) -> set[str]:
    """Return the inline code: settings, commands, parameters, values."""
    return set(re.findall(r"`([^`\n]+)`", BLOCK.sub("", text_of(path))))


def targets(path: Path) -> set[str]:
    named = {target for _, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", BLOCK.sub("", text_of(path)))}
    return {target.replace(".zh-CN.md", ".md").replace(".zh.md", ".md") for target in named} - {"README.md"}


@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[english.name for english, _ in PAIRS])
def test_both_languages_have_the_same_commands_settings_and_headings(english: Path, chinese: Path) -> None:
    assert headings(chinese) == headings(english)
    assert code(chinese) == code(english)
    assert terms(chinese) == terms(english)
    assert targets(chinese) == targets(english)
