"""Reads the file, the environment and secret files, validates types and rules, and reports all problems at once."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bridge.errors import SettingsError
from bridge.settings.environment import overlay, tables
from bridge.settings.model import FILE_SUFFIX, Settings, is_list, is_secret
from bridge.settings.problems import Location, Problem, problem_of
from bridge.settings.rules import broken_rules
from bridge.settings.toml_errors import line_of, syntax_problem

MAX_FILE_BYTES = 4 * 1024 * 1024  # thousands of routes fit; a log or a dump that was named by mistake does not
MAX_SECRET_BYTES = 256 * 1024  # IAM tokens are documented up to 100,000 characters; more is a wrong path


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings in the TOML file at `path`, overridden by the `BRIDGE_…` variables in `environ`.

    Raise SettingsError with every problem as a line: `key: what is wrong. What to do.`
    """
    text = _read(path)
    raw = _parse(path, text)
    sources, problems = overlay(raw, environ)
    problems += _read_secret_files(raw)
    settings, invalid = _validate(raw)
    problems += invalid
    # Rules see the default instead of an invalid value: what they report about it would only confuse.
    ruled = _on_loopback(settings) if any(one.concerns("server.host") for one in problems) else settings
    problems += [broken for broken in broken_rules(ruled) if not any(one.concerns(broken.key) for one in problems)]
    if problems:
        raise SettingsError([str(_with_line(problem.from_source(sources), text)) for problem in problems])
    return settings


def _with_line(problem: Problem, text: str) -> Problem:
    """Return the problem of a rule with its line: rules have no names, and may be many."""
    line = line_of(text, problem.key) if ".rewrite[" in problem.key else None
    return problem if line is None else replace(problem, key=f"{problem.key} (line {line})")


def _on_loopback(settings: Settings) -> Settings:
    """Return the settings as they would be for a listener that needs no rules of access."""
    return settings.model_copy(update={"server": settings.server.model_copy(update={"host": "127.0.0.1"})})


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SettingsError([f"{path}: is too large for a settings file. Name another file."])
        return content.decode("utf-8-sig")  # some editors write a byte order mark
    except FileNotFoundError:
        fault = f"there is no such file in {path.absolute().parent}"
        remedy = "Name the settings file with --config or in BRIDGE_CONFIG, or start with config.example.toml."
        raise SettingsError([f"{path}: {fault}. {remedy}"]) from None
    except OSError as error:
        remedy = "Name another file, or correct its permissions."
        raise SettingsError([f"{path}: cannot be read: {error.strerror}. {remedy}"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{path}: is not UTF-8. Save it as UTF-8."]) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError([f"{path}, {syntax_problem(text, error)}"]) from None
    except RecursionError:
        raise SettingsError([f"{path}: is nested too deeply. Remove brackets."]) from None


def _read_secret_files(raw: dict[str, Any]) -> list[Problem]:
    """Replace every `…_file` of a secret in `raw` by the content of that file; in lists, each line is a secret."""
    problems = []
    for table in list(tables(raw)):
        for name, field in table.model.model_fields.items():
            if not is_secret(field) or name + FILE_SUFFIX not in table.values:
                continue
            path = table.values.pop(name + FILE_SUFFIX)
            if path == "":
                continue
            key = f"{table.key}.{name}{FILE_SUFFIX}"
            if table.values.get(name):
                problems.append(Problem(key, f"is set, and {name} too.", "Keep one of the two."))
                continue
            text = _read_secret(key, path)
            if isinstance(text, Problem):
                problems.append(text)
            else:
                table.values[name] = text.splitlines() if is_list(field) else text
    return problems


def _read_secret(key: str, path: object) -> str | Problem:
    if not isinstance(path, str):
        return Problem(key, "is not text.", "Put the path of the file in quotes.")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        text = content.decode("utf-8-sig").rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        return Problem(key, f"cannot be read: {reason}.", "Correct the path, or the permissions of the file.")
    if len(content) > MAX_SECRET_BYTES:
        return Problem(key, "is too large for a secret.", "Correct the path.")
    return text if text.strip() else Problem(key, "is empty.", "Write the secret to this file.")


def _validate(raw: dict[str, Any]) -> tuple[Settings, list[Problem]]:
    """Return the settings, with the default in place of every invalid value, and what is invalid."""
    problems: list[Problem] = []
    while True:
        try:
            return Settings.model_validate(raw), problems
        except ValidationError as invalid:
            errors = invalid.errors(include_url=False)
        problems += [problem_of(error) for error in errors]
        for error in errors:
            _remove(raw, error["loc"])


def _remove(raw: dict[str, Any], location: Location) -> None:
    """Remove the value at `location` from the innermost table around it; a list is removed whole."""
    table, name = raw, ""
    value: Any = raw
    for part in location:
        if isinstance(value, dict):
            table, name = value, str(part)
            value = value.get(name)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        else:
            break
    table.pop(name, None)
