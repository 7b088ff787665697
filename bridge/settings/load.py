"""Reads the settings whole: file, environment, secret files, types, rules; all that is wrong is said at once.

It opens files and nothing else. The environment is passed in.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bridge.errors import SettingsError
from bridge.settings.complaints import Complaint, Location, complaint
from bridge.settings.environment import overlay
from bridge.settings.model import Settings
from bridge.settings.rules import broken_rules
from bridge.settings.secret_files import read_secret_files

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


def _validate(raw: dict[str, Any]) -> tuple[Settings, list[Complaint]]:
    """Return the settings with every bad value at its default, so that the rules see all others, and what was bad."""
    complaints: list[Complaint] = []
    while True:
        try:
            return Settings.model_validate(raw), complaints
        except ValidationError as invalid:
            errors = invalid.errors(include_url=False)
        complaints += [complaint(error) for error in errors]
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
