"""Reads the settings whole: file, environment, secret files, types, rules; all that is wrong is said at once.

It opens files and nothing else. The environment is passed in.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bridge.errors import SettingsError
from bridge.settings.environment import overlay
from bridge.settings.introspection import FILE_SUFFIX, is_list, is_secret, tables
from bridge.settings.model import Settings
from bridge.settings.problems import Location, Problem, problem_of
from bridge.settings.rules import broken_rules

# Secrets that stand in files of their own: `project_token_file` beside `project_token`, as mounted secrets come.
#
# It reads each file once and puts its text where the secret belongs. It never says what a file holds.


MAX_SECRET_BYTES = 256 * 1024  # IAM tokens are documented up to 100,000 characters; anything above is a wrong path


def read_secret_files(raw: dict[str, Any]) -> list[Problem]:
    """Replace every `…_file` of a secret in `raw` by what the file holds; a list takes one secret a line."""
    complaints = []
    for key, table, values in list(tables(Settings, raw)):
        for name, field in table.model_fields.items():
            if not is_secret(field) or name + FILE_SUFFIX not in values:
                continue
            path = values.pop(name + FILE_SUFFIX)
            if path == "":
                continue
            place = f"{key}.{name}{FILE_SUFFIX}"
            if values.get(name):
                complaints.append(Problem(place, f"is set, and {name} too.", "Keep one of the two."))
                continue
            try:
                text = _read_secret(path)
            except _Unusable as unusable:
                complaints.append(Problem(place, unusable.fault, unusable.remedy))
            else:
                values[name] = text.splitlines() if is_list(field) else text
    return complaints


class _Unusable(Exception):
    def __init__(self, fault: str, remedy: str) -> None:
        super().__init__(fault)
        self.fault = fault
        self.remedy = remedy


def _read_secret(path: object) -> str:
    if not isinstance(path, str):
        raise _Unusable("is not text.", "Write the file's path in quotes.")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        text = content.decode("utf-8-sig")  # as in load.py
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise _Unusable(f"cannot be read: {reason}.", "Correct the path, or who may read it.") from None
    if len(content) > MAX_SECRET_BYTES:
        raise _Unusable("is too large to be a secret.", "Correct the path.")
    text = text.rstrip("\r\n")
    if not text.strip():
        raise _Unusable("is empty.", "Write the secret into it.")
    return text


MAX_FILE_BYTES = 4 * 1024 * 1024  # thousands of routes fit; a log or a dump given by mistake does not


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings in the TOML file at `path` under the `BRIDGE_…` variables of `environ`.

    Raises SettingsError with every complaint: `key: what is wrong. What to do.`
    """
    raw = _read(path)
    complaints = [*overlay(raw, environ), *read_secret_files(raw)]
    settings, mistyped = _validate(raw)
    complaints += mistyped
    said = list(complaints)
    for broken in broken_rules(settings):
        if not any(other.about(broken.key) for other in said):
            complaints.append(broken)
    if complaints:
        raise SettingsError([str(each) for each in complaints])
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SettingsError([f"{path}: is too large to be a settings file. Name another one."])
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors put a byte order mark before it
    except OSError as error:
        remedy = "Name another file, or mend this one."
        raise SettingsError([f"{path}: cannot be read: {error.strerror}. {remedy}"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{path}: is not UTF-8. Save it as UTF-8."]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError([f"{path}: is not TOML: {error}. Correct it there."]) from None


def _validate(raw: dict[str, Any]) -> tuple[Settings, list[Problem]]:
    """Return the settings with every bad value at its default, so that the rules see all others, and what was bad."""
    complaints: list[Problem] = []
    while True:
        try:
            return Settings.model_validate(raw), complaints
        except ValidationError as invalid:
            errors = invalid.errors(include_url=False)
        complaints += [problem_of(error) for error in errors]
        for error in errors:
            _drop(raw, error["loc"])


def _drop(raw: dict[str, Any], location: Location) -> None:
    """Take what stands at `location` out of the innermost table around it; a list goes whole."""
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
